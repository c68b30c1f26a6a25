"""`rice tokens` with tiny encoders: what is measured, resuming, refusals, equal pictures and grids, the picture."""

import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from scipy.spatial.distance import pdist
from torch import Tensor, nn

from probes.visual.tokens import measure as measuring
from probes.visual.tokens.command import report, tokens
from probes.visual.tokens.distances import BINS, Distribution, image_distances
from probes.visual.tokens.draw import plot
from probes.visual.tokens.measure import Measured
from probes.visual.tokens.run import OUTPUTS, Comparison
from probes.visual.tokens.sample import draw_sample
from probes.visual.towers import Tower, matched_grid, run_towers
from rice.encoders.base import Encoder, Features
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError
from rice.files import write_json
from rice.model.vit import ViT
from rice.progress import SilentProgress
from rice.train.config import TOWERS
from rice.train.state import Checkpoints

PATCH, WIDTH, GRID = 8, 12, 4


class Tiny(nn.Module):
    """Patches through one convolution, on top of an offset; keeps what it saw, and dies or gives NaN when asked to."""

    def __init__(self, seed: int = 0, dies_after: int | None = None, gives_nan: bool = False) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.dies_after, self.gives_nan = dies_after, gives_nan
        weight = torch.randn(WIDTH, 3, PATCH, PATCH, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        if self.dies_after is not None and len(self.seen) + len(images_B3HW) > self.dies_after:
            raise KeyboardInterrupt
        self.seen.extend(images_B3HW)
        tokens_BDhw = torch.conv2d(images_B3HW, self.weight, stride=PATCH) + 50
        return tokens_BDhw * (torch.nan if self.gives_nan else 1)


def spec(name: str = "tiny", **changes: Any) -> EncoderSpec:
    facts = {"source": "test", "patch": PATCH, "size_multiple": PATCH, "width": WIDTH, "native_size": 32}
    return EncoderSpec(name=name, **{**facts, **changes})  # type: ignore[arg-type]


def encoder(module: Tiny, weights: str = "default") -> Encoder:
    return Encoder(module, spec(), lambda m, x, _: Features(m(x), None), weights=weights)


def tower(label: str, module: Tiny, weights: str = "default", **changes: Any) -> Tower:
    return Tower(label=label, spec=spec(label), fingerprint=label, load=lambda _: encoder(module, weights), **changes)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six pictures of several sizes and formats, in folders, beside other files."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(["a.png", "b.png", "c.bmp", "deep/d.png", "deep/e.png", "f.PNG"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 255, size=(5, 4 + i, 3), dtype=np.uint8)
        Image.fromarray(small).resize((40 + 9 * i, 50), Image.Resampling.BICUBIC).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def comparison(photos: Path, out: Path, *towers: Tower, images: int = 5, seed: int = 0) -> Comparison:
    return Comparison(towers, draw_sample(photos, None, images, seed), GRID, out, seed=seed, data="photos")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def timeless(out: Path) -> Any:
    document = json.loads((out / "tokens.json").read_text())
    for one in document["encoders"]:
        del one["seconds"]
    return document


def test_what_is_measured_is_what_scipy_finds_in_the_encoders_own_tokens(photos: Path, tmp_path: Path) -> None:
    (found,) = comparison(photos, tmp_path / "out", tower("one", Tiny())).run("cpu", SilentProgress())
    tokens_NTD = []
    for path in draw_sample(photos, None, 5, 0).paths:
        picture = Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
        image_3HW = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
        tokens_NTD.append(encoder(Tiny())(image_3HW[None]).patches[0].flatten(1).T.double().numpy())
    mean_D = np.concatenate(tokens_NTD).mean(axis=0)
    for distribution, centre_D in ((found.raw, 0.0), (found.centred, mean_D)):
        expected_NP = np.stack([pdist(tokens_TD - centre_D, "cosine") for tokens_TD in tokens_NTD])
        np.testing.assert_allclose(distribution.image_means, expected_NP.mean(axis=1), rtol=1e-5)
        assert distribution.std == pytest.approx(expected_NP.std(), rel=1e-5)
        assert distribution.pairs == expected_NP.size == 5 * 16 * 15 // 2
    assert found.centred.mean > 5 * found.raw.mean  # the offset that all tokens share


def test_the_report_says_what_made_it_and_holds_every_number(photos: Path, tmp_path: Path) -> None:
    towers = tower("one", Tiny()), tower("two", Tiny(1), weights="random"), tower("three", Tiny(2))
    found = comparison(photos, tmp_path / "out", *towers).run("cpu", SilentProgress())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*OUTPUTS, "run.json"])
    document = json.loads((tmp_path / "out" / "tokens.json").read_text())
    assert [(e["label"], e["trained"]) for e in document["encoders"]] == [
        ("one", True),
        ("two (untrained)", False),
        ("three", True),
    ]
    first = document["encoders"][0]
    assert (first["input"], first["tokens"], first["pairs"], first["spec"]["width"]) == (32, 16, 600, WIDTH)
    assert (sum(first["raw"]["histogram"]), len(first["raw"]["histogram"])) == (600, BINS)
    assert document["config"]["grid"] == GRID
    assert document["data"] == {"name": "photos", "split": None, "images": list(draw_sample(photos, None, 5, 0).names)}
    assert document["versions"]["torch"] == version("torch")
    rows = {(row["first"], row["second"]): row for row in document["differences"]}
    assert list(rows) == [("one", "two (untrained)"), ("one", "three"), ("two (untrained)", "three")]
    for kind in ("raw", "centred"):
        row = rows["one", "three"][kind]
        assert row["mean"] == pytest.approx(getattr(found[2], kind).mean - getattr(found[0], kind).mean)
        assert row["low"] <= row["mean"] <= row["high"]


def test_every_encoder_sees_the_same_pictures(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Tiny(), Tiny(1)
    comparison(photos, tmp_path / "a", tower("one", one), tower("two", other)).run("cpu", SilentProgress())
    assert len(one.seen) == 5
    assert all(torch.equal(a, b) for a, b in zip(one.seen, other.seen, strict=True))
    monkeypatch.setattr(measuring, "_TOKENS_PER_BATCH", 1)  # one by one
    again = Tiny()
    comparison(photos, tmp_path / "b", tower("one", again)).run("cpu", SilentProgress())
    assert all(torch.equal(a, b) for a, b in zip(one.seen, again.seen, strict=True))


def test_the_sample_is_a_function_of_seed_and_names_and_grows(photos: Path, tmp_path: Path) -> None:
    drawn = [draw_sample(photos, None, count, 3) for count in (2, 4, 99)]
    assert [len(sample) for sample in drawn] == [2, 4, 6]
    assert drawn[2].names[:4] == drawn[1].names
    assert drawn[1].names[:2] == drawn[0].names
    assert set(drawn[2].names) == {"a.png", "b.png", "c.bmp", "deep/d.png", "deep/e.png", "f.PNG"}
    assert len({draw_sample(photos, None, 6, seed).names for seed in range(8)}) > 1
    before = drawn[2].sha256
    (photos / "a.png").write_bytes((photos / "b.png").read_bytes())
    assert draw_sample(photos, None, 99, 3).sha256 != before


@pytest.fixture
def coco(photos: Path, tmp_path: Path) -> Path:
    """The same pictures as a data set of two splits, of which `val` has four."""
    root = tmp_path / "coco"
    for split, names in (("train", ["a.png", "b.png"]), ("val", ["c.bmp", "deep/d.png", "deep/e.png", "f.PNG"])):
        images = []
        for i, name in enumerate(names):
            picture = Image.open(photos / name)
            (root / split / name).parent.mkdir(parents=True, exist_ok=True)
            (root / split / name).write_bytes((photos / name).read_bytes())
            images.append({"id": i, "file_name": name, "width": picture.width, "height": picture.height})
        document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
        write_json(root / "annotations" / f"instances_{split}.json", document)
    return root


def test_a_data_set_gives_the_pictures_of_its_test_split_or_of_the_one_named(coco: Path) -> None:
    assert draw_sample(coco, None, 9, 0).split == "val"
    assert set(draw_sample(coco, None, 9, 0).names) == {"c.bmp", "deep/d.png", "deep/e.png", "f.PNG"}
    named = draw_sample(coco, "train", 9, 0)
    assert set(named.names) == {"a.png", "b.png"}
    for i, path in enumerate(named.paths):
        assert (np.asarray(named.read(i)) == np.asarray(Image.open(path).convert("RGB"))).all()
    with pytest.raises(RiceError, match="no split 'test'"):
        draw_sample(coco, "test", 9, 0)


def test_a_killed_run_goes_on_tower_by_tower_and_ends_the_same(photos: Path, tmp_path: Path) -> None:
    whole = comparison(photos, tmp_path / "whole", tower("one", Tiny()), tower("two", Tiny(1)))
    whole.run("cpu", SilentProgress())
    first = Tiny()
    with pytest.raises(KeyboardInterrupt):
        comparison(photos, tmp_path / "out", tower("one", first), tower("two", Tiny(1, dies_after=3))).run(
            "cpu", SilentProgress()
        )
    assert len(first.seen) == 5
    again, second = Tiny(), Tiny(1)
    resumed = comparison(photos, tmp_path / "out", tower("one", again), tower("two", second))
    assert not resumed.folder.done
    resumed.run("cpu", SilentProgress())
    assert (len(again.seen), len(second.seen)) == (0, 5)
    assert timeless(tmp_path / "out") == timeless(tmp_path / "whole")
    assert tree(tmp_path / "out").keys() == tree(tmp_path / "whole").keys()


def test_a_finished_run_is_left_alone_and_a_lost_picture_drawn_anew(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    comparison(photos, out, tower("one", Tiny())).run("cpu", SilentProgress())
    before, module = tree(out), Tiny()
    (out / ".work").mkdir()  # killed before it was removed
    (out / ".work" / "part.json").write_text("{}")
    again = comparison(photos, out, tower("one", module))
    assert again.folder.done
    again.run("cpu", SilentProgress())
    assert tree(out) == before
    (out / "tokens.png").unlink()
    again.run("cpu", SilentProgress())
    assert tree(out).keys() == before.keys()
    assert tree(out)["tokens.json"] == before["tokens.json"]
    assert not module.seen


def test_another_setting_is_refused_in_one_line_and_changes_nothing(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    comparison(photos, out, tower("one", Tiny())).run("cpu", SilentProgress())
    before = tree(out)
    others: list[tuple[dict[str, Any], list[Tower], str]] = [
        ({"seed": 1}, [tower("one", Tiny())], "its seed is 0, not 1"),
        ({"images": 4}, [tower("one", Tiny())], "its images is 5, not 4"),
        ({}, [tower("two", Tiny())], "its encoders is"),
        ({}, [tower("one", Tiny()), tower("two", Tiny())], "its encoders is"),
    ]
    for changes, towers, words in others:
        with pytest.raises(RiceError, match=f"holds another run: {words}") as caught:
            comparison(photos, out, *towers, **changes)
        assert "\n" not in str(caught.value)
    (photos / "a.png").write_bytes((photos / "b.png").read_bytes())
    with pytest.raises(RiceError, match="holds another run"):
        comparison(photos, out, tower("one", Tiny()), images=5)
    assert tree(out) == before


@pytest.mark.parametrize(
    "edit",
    [
        lambda report: report.pop("encoders"),
        lambda report: report.update(encoders={}),
        lambda report: report["encoders"].clear(),
        lambda report: report["encoders"][0].pop("raw"),
        lambda report: report["encoders"][0].update(label=3),
        lambda report: report["encoders"][0].update(step="last"),
        lambda report: report["encoders"][0]["raw"].update(std=None),
        lambda report: report["encoders"][0]["raw"].update(histogram=[1, 2]),
        lambda report: report["encoders"][0]["raw"].update(histogram=[0] * BINS),
        lambda report: report["encoders"][0]["centred"].update(image_means=[0.5]),
        lambda report: report["encoders"][0]["centred"].update(image_means=[[0.5]] * 5),
    ],
)
def test_a_report_that_was_edited_is_said_to_be(photos: Path, tmp_path: Path, edit: Callable[[Any], Any]) -> None:
    out = tmp_path / "out"
    comparison(photos, out, tower("one", Tiny()), tower("two", Tiny(1))).run("cpu", SilentProgress())
    report = json.loads((out / "tokens.json").read_text())
    edit(report)
    (out / "tokens.json").write_text(json.dumps(report))
    with pytest.raises(RiceError, match="tokens.json is not as it was written") as caught:
        comparison(photos, out, tower("one", Tiny()), tower("two", Tiny(1))).run("cpu", SilentProgress())
    assert "\n" not in str(caught.value)


def test_a_folder_of_other_things_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(RiceError, match=r"already holds 'thesis.tex'"):
        comparison(photos, tmp_path / "out", tower("one", Tiny()))
    with pytest.raises(RiceError, match="is a file"):
        comparison(photos, tmp_path / "out" / "thesis.tex", tower("one", Tiny()))


@pytest.mark.parametrize("fault", ["nan", "picture", "size"])
def test_bad_input_is_one_line_and_leaves_nothing(photos: Path, tmp_path: Path, fault: str) -> None:
    module = Tiny(gives_nan=fault == "nan")
    words = {"nan": "bad gives tokens with NaN", "picture": "a.png", "size": "bad failed on 32 x 32"}[fault]
    if fault == "picture":
        (photos / "a.png").write_bytes(b"no picture")
    bad = tower("bad", module)
    if fault == "size":

        def fails(m: nn.Module, x: Tensor, _: int) -> Features:
            raise AssertionError("Input height (32) doesn't match model (64)")

        own = Encoder(module, spec(native_size=64), fails, weights="default")
        bad = Tower(label="bad", spec=own.spec, fingerprint="bad", load=lambda _: own)
    with pytest.raises(RiceError, match=words) as caught:
        comparison(photos, tmp_path / "out", bad, images=6).run("cpu", SilentProgress())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_one_grid_for_all_16_or_the_most_that_all_take() -> None:
    def towers(*specs: EncoderSpec) -> list[Tower]:
        return [Tower(label=s.name, spec=s, fingerprint=s.name, load=lambda _: encoder(Tiny())) for s in specs]

    free, pairs = spec("free"), spec("pairs", patch=14, size_multiple=28)
    fixed = spec("fixed", patch=16, size_multiple=224, native_size=224)
    assert matched_grid(towers(free, pairs), None) == 16
    assert matched_grid(towers(free, fixed), None) == 14
    assert matched_grid(towers(pairs), 6) == 6
    with pytest.raises(RiceError, match="pairs takes"):
        matched_grid(towers(free, pairs), 7)
    with pytest.raises(RiceError, match="no grid of up to 16 x 16 tokens suits all"):
        matched_grid(towers(spec("huge", patch=16, size_multiple=512, native_size=512), free), None)
    with pytest.raises(RiceError, match="at least 2"):
        matched_grid(towers(free), 1)
    sized = Tower(label="sized", spec=free, fingerprint="s", load=lambda _: encoder(Tiny()), size=64)
    assert matched_grid([sized], 8) == 8
    with pytest.raises(RiceError, match="drop @64"):
        matched_grid([sized], None)


def curves(label: str, width: int, run: str | None = None, step: int | None = None) -> Measured:
    rng = np.random.default_rng(width)
    raw, centred = (
        Distribution.of([image_distances(rng.normal(size=(40, width)) + shift) for _ in range(3)]) for shift in (2, 0)
    )
    return Measured(label=label, run=run, step=step, raw=raw, centred=centred, facts={})


def test_curves_are_densities_with_a_tick_at_the_mean() -> None:
    found = [curves("a", 5), curves("b", 50)]
    raw, centred = plot(found, "caption").axes
    for axes, kind in ((raw, "raw"), (centred, "centred")):
        lines, ticks = axes.get_lines()[::2], axes.get_lines()[1::2]
        for line, tick, one in zip(lines, ticks, found, strict=True):
            x, y = line.get_xdata(), line.get_ydata()
            assert np.sum(y) * (x[1] - x[0]) == pytest.approx(1)
            assert np.sum(x * y) / np.sum(y) == pytest.approx(getattr(one, kind).mean, abs=x[1] - x[0])
            assert tick.get_xdata()[0] == getattr(one, kind).mean
        assert len({line.get_color() for line in lines}) == 2


def test_two_runs_stand_side_by_side_on_one_scale() -> None:
    steps = [curves(f"{run}, step {step}", step + 4, run, step) for run in ("mlcd", "rice") for step in (1, 2, 3)]
    axes = plot(steps, "caption").axes
    assert [a.get_title() for a in axes] == [
        f"{run}: {words}" for words in ("tokens as given", "mean token taken off") for run in ("mlcd", "rice")
    ]
    assert axes[0].get_xlim() == axes[1].get_xlim()
    assert axes[2].get_ylim() == axes[3].get_ylim()
    assert [len(a.get_lines()) for a in axes] == [6] * 4


def test_pictures_are_a_png_and_a_pdf_of_vectors(photos: Path, tmp_path: Path) -> None:
    comparison(photos, tmp_path / "out", tower("one", Tiny())).run("cpu", SilentProgress())
    with Image.open(tmp_path / "out" / "tokens.png") as picture:
        assert picture.format == "PNG"
    pdf = (tmp_path / "out" / "tokens.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/Subtype /Image" not in pdf


def test_the_verb_judges_the_shipped_encoder_beside_its_random_self(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"encoders": ("mini-s8-128",) * 2, "weights": ("default", "none"), "grid": 4, "device": "cpu"}
    tokens(photos, out=tmp_path / "out", **arguments)  # type: ignore[arg-type]
    said = capsys.readouterr().out
    assert "6 images of photos, 4 × 4 tokens each, 120 pairs an image" in said  # noqa: RUF001
    assert "mini-s8-128 (untrained) minus mini-s8-128: raw" in said
    tokens(photos, out=tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert capsys.readouterr().out == f"all is there\n{said}"
    with pytest.raises(RiceError, match="names mini-s8-128 twice"):
        tokens(photos, out=tmp_path / "other", encoders=("mini-s8-128",) * 2)
    with pytest.raises(RiceError, match="once for each of 1 encoders, got 2"):
        tokens(photos, out=tmp_path / "other", encoders=("mini-s8-128",), weights=("none", "none"))
    with pytest.raises(RiceError, match="expected --encoders, or --run"):
        tokens(photos, out=tmp_path / "other")
    with pytest.raises(RiceError, match="has its own"):
        tokens(photos, out=tmp_path / "other", run=(tmp_path,), weights=("none",))
    assert not (tmp_path / "other").exists()


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """What two trainings have kept of mini towers: steps 2, 4, 6 and 2, 6."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    for name, steps in (("mlcd", (2, 4, 6)), ("rice", (2, 6))):
        stream = {"size": 32}
        config = {"tower": "mini8", "target": "image", "stream": stream, "samples": 60, "batch": 10, "run": name}
        write_json(tmp_path / name / "run.json", {"config": config})
        checkpoints = Checkpoints(tmp_path / name / "checkpoints", identity={"config": config})
        for step in steps:
            torch.manual_seed(step + len(steps))
            state = {f"tower.{n}": t for n, t in ViT(TOWERS["mini8"]).state_dict().items()}
            checkpoints.save(step, {"model": state}, {})
            checkpoints.finish()
    yield tmp_path / "mlcd", tmp_path / "rice"
    dist.destroy_process_group()


def test_two_runs_are_compared_step_for_step(
    photos: Path, tmp_path: Path, runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_towers(runs)
    assert [(t.run, t.step) for t in found] == [("mlcd", 2), ("mlcd", 6), ("rice", 2), ("rice", 6)]
    assert [t.step for t in run_towers(runs[:1])] == [2, 4, 6]
    tokens(photos, out=tmp_path / "out", run=runs, images=2, grid=4, device="cpu")
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines() if " minus " in line] == [
        "rice, step 2 minus mlcd, step 2",
        "rice, step 6 minus mlcd, step 6",
    ]
    document = json.loads((tmp_path / "out" / "tokens.json").read_text())
    assert len(document["differences"]) == 6
    assert all(one["trained"] for one in document["encoders"])
    with pytest.raises(RiceError, match="names mlcd twice|twice"):
        run_towers([runs[0], runs[0]])
    with pytest.raises(RiceError, match="got 3"):
        run_towers([*runs, runs[0]])


def test_runs_without_a_common_step_are_refused(runs: tuple[Path, Path]) -> None:
    for step in (2, 6):
        folder = runs[1] / "checkpoints" / f"step-{step:08d}"
        folder.rename(folder.with_name(f"step-{step + 1:08d}"))
    with pytest.raises(RiceError, match=r"no common step \(2, 4, 6 and 3, 7\)"):
        run_towers(runs)


def test_the_terminal_shows_encoders_against_the_first_and_a_runs_last_step_against_its_first() -> None:
    several = [curves(name, 5 + i) for i, name in enumerate("abc")]
    said = report(several, "caption", 0)
    assert ("b minus a" in said, "c minus a" in said, "c minus b" in said) == (True, True, False)
    steps = [curves(f"r, step {step}", 5 + step, "r", step) for step in (1, 2, 3)]
    said = report(steps, "caption", 0)
    assert ("r, step 3 minus r, step 1" in said, "r, step 2 minus" in said) == (True, False)


def test_no_room_for_tokens_is_said_plainly(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, _: bytes) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(measuring, "tempfile", SimpleNamespace(TemporaryFile=Full, gettempdir=lambda: "TMP"))
    with pytest.raises(RiceError, match="no room for the tokens in TMP"):
        comparison(photos, tmp_path / "out", tower("one", Tiny())).run("cpu", SilentProgress())
    assert not (tmp_path / "out").exists()
