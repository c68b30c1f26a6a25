"""The verb: what it leaves behind, resuming, refusals, labels that are hostile, and the page in a browser."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from probes.visual.tsne import run as tsne_run
from probes.visual.tsne.draw import COLOURS, MARKERS, Panel, Shown, view, write_pictures
from probes.visual.tsne.page import write_page
from probes.visual.tsne.run import OUTPUTS
from probes.visual.tsne.separation import Separation
from rice.data.world import WorldConfig, materialise
from rice.errors import RiceError
from rice.progress import SilentProgress

HOSTILE = "<script>fetch('http://example.org/')</script> <b>%{x}</b> $\\frac{$"
ENCODERS = ("mini-s8-128", "mini-s8-128")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty small generated scenes, one category of which has a hostile name."""
    root = tmp_path_factory.mktemp("tsne") / "scenes"
    materialise(WorldConfig(kind="scenes", size=64, train=1, test=30), root, SilentProgress())
    path = root / "annotations" / "instances_val.json"
    document = json.loads(path.read_text())
    frequency = [a["category_id"] for a in document["annotations"]]
    most = max(document["categories"], key=lambda category: frequency.count(category["id"]))
    most["name"] = HOSTILE
    path.write_text(json.dumps(document))
    return root


@pytest.fixture(autouse=True)
def short_and_single(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A descent of few steps, on one thread."""
    short = tsne_run.project
    monkeypatch.setattr(tsne_run, "project", lambda *arguments: short(*arguments, iterations=20))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(scenes: Path, out: Path, **changes: object) -> None:
    from probes.visual.tsne.command import tsne

    settings = {"encoders": ENCODERS, "weights": ("default", "none"), "grid": 8, "split": "val", "objects": 60}
    tsne(scenes, out=out, **{**settings, "categories": 5, "perplexity": 5.0, "device": "cpu", **changes})  # type: ignore[arg-type]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_leaves_page_pictures_and_report(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(scenes, out)
    assert sorted(path.name for path in out.iterdir()) == sorted([*OUTPUTS, "run.json"])
    report = json.loads((out / "tsne.json").read_text())
    first, second = report["encoders"]
    assert f"mini-s8-128: 10-NN purity {first['purity']:.3f}" in capsys.readouterr().out
    assert (first["label"], first["trained"]) == ("mini-s8-128", True)
    assert (second["label"], second["trained"]) == ("mini-s8-128 (untrained)", False)
    assert len(report["categories"]) == 5
    labels = [found["category"] for found in report["objects"]]
    assert labels == sorted(labels)
    for encoder in (first, second):
        radii = np.linalg.norm(encoder["points"], axis=1)
        np.testing.assert_allclose(radii, encoder["radius"], atol=1e-6)
        assert encoder["n"] == len(radii) == len(labels)
        assert (encoder["input"], encoder["tokens"]) == (64, 64)
    with Image.open(out / "tsne.png") as picture:
        assert picture.format == "PNG"
    pdf = (out / "tsne.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/Subtype /Image" not in pdf  # vectors only


def test_a_finished_run_is_left_as_it_is(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(scenes, tmp_path / "out")
    before = tree(tmp_path / "out")
    monkeypatch.setattr(tsne_run, "object_features", None)
    run(scenes, tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_a_report_that_was_edited_is_said_to_be(scenes: Path, tmp_path: Path) -> None:
    run(scenes, tmp_path / "out")
    whole = (tmp_path / "out" / "tsne.json").read_text()
    edits: list[Callable[[Any], Any]] = [
        lambda report: report.pop("encoders"),
        lambda report: report["encoders"].pop(),
        lambda report: report["encoders"][0].pop("purity"),
        lambda report: report["encoders"][0].update(points=[[1, 2]]),
        lambda report: report["encoders"][0].update(kl="low"),
        lambda report: report["encoders"][1].update(label=None),
    ]
    for edit in edits:
        report = json.loads(whole)
        edit(report)
        (tmp_path / "out" / "tsne.json").write_text(json.dumps(report))
        with pytest.raises(RiceError, match=r"tsne.json is not as it was written") as caught:
            run(scenes, tmp_path / "out")
        assert "\n" not in str(caught.value)


def test_an_encoder_that_fails_on_this_grid_is_named_and_leaves_nothing(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise AssertionError("Input height (64)\ndoesn't match model (128)")

    monkeypatch.setattr("rice.encoders.base.Encoder.__call__", fails)
    with pytest.raises(
        RiceError, match=r"mini-s8-128 failed on 64 x 64 pixels \(Input height.*another --grid"
    ) as caught:
        run(scenes, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_killed_run_encodes_nothing_twice_and_ends_like_an_uninterrupted_one(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(scenes, whole)
    encode, encoded = tsne_run.object_features, []

    def dies_second(*arguments: object) -> torch.Tensor:
        encoded.append(arguments[-1])
        if len(encoded) == 2:
            raise KeyboardInterrupt
        return encode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tsne_run, "object_features", dies_second)
    with pytest.raises(KeyboardInterrupt):
        run(scenes, killed)
    run(scenes, killed)
    assert [str(label).partition(":")[0] for label in encoded] == ["mini-s8-128", *["mini-s8-128 (untrained)"] * 2]
    assert sorted(tree(killed)) == sorted(tree(whole))
    assert json.loads((killed / "tsne.json").read_text()) == json.loads((whole / "tsne.json").read_text())


CHANGES = [
    {"objects": 70},
    {"categories": 4},
    {"perplexity": 6.0},
    {"seed": 1},
    {"grid": 16},
    {"weights": ("none",)},
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_out_of_another_setting_is_refused_untouched(
    scenes: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    out = tmp_path / "out"
    run(scenes, out, encoders=ENCODERS[:1], weights=("default",))
    before = tree(out)
    with pytest.raises(RiceError, match="holds another run"):
        run(scenes, out, **{"encoders": ENCODERS[:1], "weights": ("default",), **change})
    assert tree(out) == before


def test_an_out_of_other_data_is_refused_untouched(scenes: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "scenes", tmp_path / "out"
    shutil.copytree(scenes, data)
    run(data, out, encoders=ENCODERS[:1], weights=("default",))
    before = tree(out)
    annotations = data / "annotations" / "instances_val.json"
    annotations.write_text(annotations.read_text() + " ")
    with pytest.raises(RiceError, match="its data is"):
        run(data, out, encoders=ENCODERS[:1], weights=("default",))
    assert tree(out) == before


REFUSALS = [
    ({"encoders": ()}, "expected --encoders"),
    ({"encoders": ("no-such",), "weights": ("none",)}, "unknown encoder"),
    ({"weights": ("none", "none", "none")}, "--weights"),
    ({"perplexity": 30.0}, "at least 92 objects, got 60"),
    ({"objects": 2000, "perplexity": 300.0}, "at least 902 objects, got"),
    ({"categories": 1}, "--categories from 2"),
    ({"split": "nowhere"}, "no split 'nowhere'"),
]


@pytest.mark.parametrize(("change", "message"), REFUSALS)
def test_bad_input_is_one_line_and_nothing_is_written(
    scenes: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(RiceError, match=message) as error:
        run(scenes, tmp_path / "out", **change)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_no_data_and_a_foreign_out_are_refused(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="found none at"):
        run(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(RiceError, match=r"thesis\.txt"):
        run(scenes, tmp_path / "out")
    assert tree(tmp_path / "out") == {"thesis.txt": b"years of work"}


def atlas(count: int = 40, kinds: int = 3, encoders: int = 2) -> tuple[list[Panel], Shown]:
    points = np.random.default_rng(0).standard_normal((encoders, count, 3))
    points *= 20 / np.linalg.norm(points, axis=2, keepdims=True)
    separation = Separation(n=count, purity=0.5, chance=0.3, silhouette=-0.1)
    panels = [Panel(label=HOSTILE, points=p, radius=20.0, kl=1.0, separation=separation) for p in points]
    shown = Shown(
        categories=[HOSTILE, *(f"kind {n}" for n in range(1, kinds))],
        labels=np.arange(count) % kinds,
        images=list(range(1000, 1000 + count)),
        annotations=list(range(count)),
        caption=HOSTILE,
    )
    return panels, shown


@pytest.mark.parametrize("encoders", [1, 3, 5])
def test_any_number_of_panels_and_hostile_names_can_be_drawn(tmp_path: Path, encoders: int) -> None:
    write_pictures(tmp_path / "tsne", *atlas(encoders=encoders, kinds=len(COLOURS) * len(MARKERS), count=90))
    with Image.open(tmp_path / "tsne.png") as picture:
        assert picture.width <= 8 * 720


def test_the_view_is_a_rotation_that_keeps_the_poles_upright() -> None:
    np.testing.assert_allclose(view() @ view().T, np.eye(3), atol=1e-12)
    assert np.linalg.det(view()) == pytest.approx(1)
    right, up, towards = view() @ [0, 1, 0]
    assert (abs(right) < 1e-12, up > 0.9, towards > 0) == (True, True, True)


def test_colours_are_told_apart_by_every_kind_of_colour_vision() -> None:
    """Machado et al. 2009, severity 1, in linear RGB; differences in CIELAB, whose just noticeable one is about 2.3."""
    sight = {
        "normal": np.eye(3),
        "protanopia": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deuteranopia": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.01182, 0.04294, 0.968881],
        ],
        "tritanopia": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.3039],
        ],
    }
    rgb_C3 = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    linear_C3 = np.where(rgb_C3 <= 0.04045, rgb_C3 / 12.92, ((rgb_C3 + 0.055) / 1.055) ** 2.4)
    for name, matrix in sight.items():
        seen_C3 = np.clip(linear_C3 @ np.array(matrix).T, 0, 1)
        encoded_C3 = np.where(seen_C3 <= 0.0031308, 12.92 * seen_C3, 1.055 * seen_C3 ** (1 / 2.4) - 0.055)
        lab_C3 = rgb2lab(encoded_C3[None])[0]
        distances_CC = np.linalg.norm(lab_C3[:, None] - lab_C3[None], axis=2) + 1e3 * np.eye(len(COLOURS))
        assert distances_CC.min() > 15, (name, np.unravel_index(distances_CC.argmin(), distances_CC.shape))


def test_the_page_holds_everything_and_escapes_names(tmp_path: Path) -> None:
    write_page(tmp_path / "tsne.html", *atlas())
    text = (tmp_path / "tsne.html").read_text()
    assert "<script>fetch" not in text
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=[\"'](?!data:)", text)
    assert text.count("mean nothing") == 1
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy[1].split(";")}
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"]
    assert all(source.startswith("'sha256-") for source in rules["script-src"])


def until(page: Any, condition: str) -> None:
    """Playwright's own way evaluates a text in the page, which its policy forbids."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never came true: {condition}")


@pytest.mark.slow
def test_the_page_works_in_a_browser_without_the_network(tmp_path: Path, launch: Callable[..., Any]) -> None:
    panels, shown = atlas()
    write_page(tmp_path / "tsne.html", panels, shown)
    requests: list[str] = []
    said: list[str] = []
    browser = launch("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(120_000)
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((tmp_path / "tsne.html").as_uri(), wait_until="commit")
    until(page, "document.querySelectorAll('#spheres canvas').length >= 2")
    legend = page.locator("#spheres .legendtext").all_text_contents()
    cameras = "['scene', 'scene2'].map(s => JSON.stringify(document.getElementById('spheres').layout[s].camera.eye))"
    before = page.evaluate(cameras)
    box = page.locator("#spheres canvas").first.bounding_box()
    page.mouse.move(box["x"] + 150, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 250, box["y"] + 230, steps=4)
    page.mouse.up()
    until(page, f"({cameras})[1] !== {json.dumps(before[1])}")
    page.wait_for_timeout(500)
    after = page.evaluate(cameras)
    browser.close()
    assert requests == [(tmp_path / "tsne.html").as_uri()]
    assert said == []
    assert legend[0].replace("\u200b", "") == HOSTILE
    assert legend[1:] == list(shown.categories[1:])
    assert after[0] == after[1] != before[0]
