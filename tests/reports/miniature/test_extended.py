"""Panels vary one setting of RICE at a time; each number of their page leads to the result that holds it."""

import csv
import dataclasses
import json
import re
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import pytest
from made_up import put_arm

from reports.miniature import extended
from reports.miniature.arms import ARMS, command
from reports.miniature.extended import Extension
from reports.miniature.extended_page import extended_page
from reports.miniature.panels import PROBES, Panel, PanelId, Variant, multimodal, panels
from reports.miniature.run import Miniature
from reports.miniature.settings import MiniatureConfig
from rice.cli import main
from rice.errors import RiceError
from rice.progress import SilentProgress
from rice.train.config import TrainConfig

CONFIG = MiniatureConfig(updates=7, batch=5, regions=8)
CHOSEN = {"optimiser.learning-rate": "0.002", "loss.scale": "16", "loss.margin": "0.1"}
FOUND = panels(CONFIG.regions, CHOSEN)
NUMERIC = {panel.id: panel for panel in FOUND if panel.curve}


def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *only: PanelId) -> dict[str, list[str]]:
    """The commands that an extension starts, none of which runs."""
    jobs: dict[str, list[str]] = {}
    monkeypatch.setattr(Miniature, "run_jobs", lambda _, found, __: jobs.update(found))
    monkeypatch.setattr(Miniature, "run_sweep", lambda *_: None)
    monkeypatch.setattr(Miniature, "pictures", lambda self: self.out / "pictures")
    monkeypatch.setattr("rice.curate.whole.as_regions", lambda *_: None)
    monkeypatch.setattr(extended, "_recluster", lambda *_: None)
    monkeypatch.setattr("reports.miniature.extended_page.extended_page", lambda *_: tmp_path)
    mini = Miniature(config=CONFIG, out=tmp_path, progress=SilentProgress(), at_once=1)
    Extension(mini, {"rice": CHOSEN}, only).run()
    return jobs


def test_a_panel_has_one_column_that_is_rice_and_variants_that_differ_in_one_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[TrainConfig, Path]]
) -> None:
    jobs = started(tmp_path, monkeypatch)
    rice = next(arm for arm in ARMS if arm.name == "rice")
    main([*command(rice, CHOSEN, CONFIG, tmp_path, tmp_path / "rice", updates=7, seed=0), "--dry-run"])
    own, own_data = asked.pop()
    fields = {
        "n": {"stream.regions"},
        "k": set(),
        "rho": {"rho"},
        "m": {"stream.positives"},
        "loss": {"loss.form", "loss.scale", "loss.margin"},
        "labels": {"stream.min_visible", "ocr_weight"},
        "readout": {"region.query", "region.layers"},
    }
    for panel in FOUND:
        assert list(panel.encoders.values()).count("rice s0") == (panel.id != "labels"), panel.id
        for one in panel.variants:
            main([*jobs[one.name], "--dry-run"])
            config, data = asked.pop()
            assert differences(own, config) <= fields[panel.id], one.name
            assert (data != own_data) == (panel.id in ("k", "labels"))
            assert differences(own, config) or data != own_data


def test_only_the_panels_that_are_asked_for_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = started(tmp_path, monkeypatch, "m", "multimodal")
    assert jobs.keys() == {one.name for panel in FOUND for one in panel.variants if panel.id == "m"}


def test_every_panel_can_be_asked_for() -> None:
    assert {panel.id for panel in FOUND} | {multimodal(()).id} == set(get_args(PanelId))


def differences(one: Any, other: Any, prefix: str = "") -> set[str]:
    found = set()
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if dataclasses.is_dataclass(a) and dataclasses.is_dataclass(b):
            found |= differences(a, b, f"{prefix}{field.name}.")
        elif a != b:
            found.add(f"{prefix}{field.name}")
    return found


def test_the_column_of_rice_is_labelled_by_what_rice_has() -> None:
    from rice.train.recipe import micro

    recipe = micro()
    owns = {"n": recipe.stream.regions, "k": CONFIG.regions, "rho": recipe.rho, "m": recipe.stream.positives}
    labels = {
        id_: float(label)
        for id_, panel in NUMERIC.items()
        for label, name in panel.encoders.items()
        if name == "rice s0"
    }
    assert labels == owns
    readout = next(panel for panel in FOUND if panel.id == "readout")
    assert (recipe.region.query, recipe.region.layers) == ("roi_align", 1)
    assert next(iter(readout.columns.values())) == "rice s0"


def test_other_numbers_of_clusters_are_asked_of_the_same_curation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = started(tmp_path, monkeypatch)
    curations = {name: words for name, words in jobs.items() if words[0] == "curate"}
    assert {words[words.index("-k") + 1] for words in curations.values()} == {"2", "4", "16"}
    for words in curations.values():
        place = Path(words[words.index("--out") + 1])
        k = words[words.index("-k") + 1]
        assert jobs[f"k-{k}"][jobs[f"k-{k}"].index("--data") + 1] == str(place / "shards")


def test_a_curation_with_other_clusters_keeps_all_but_what_clusters_decide(tmp_path: Path) -> None:
    curated = tmp_path / "curated"
    for name in ("embed/a.npy", "clusters/run.json", "label/a.json", "shards/a.tar", "shards/dataset.json", "run.json"):
        (curated / name).parent.mkdir(parents=True, exist_ok=True)
        (curated / name).write_text(name)
    extended._recluster(curated, tmp_path / "other")
    kept = {str(path.relative_to(tmp_path / "other")) for path in (tmp_path / "other").rglob("*") if path.is_file()}
    assert kept == {"embed/a.npy", "shards/a.tar", "run.json"}


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    """Numbers of two panels' encoders: RICE's in the miniature's own store, variants' in the extension's."""
    own, more = tmp_path / "sweep", tmp_path / "extended" / "sweep"
    for seed, value in enumerate((50.0, 52.0, 54.0)):
        put_arm(own, f"rice s{seed}", {"mIoU": value}, "dense")
    put_arm(own, "mlcd s0", {"mIoU": 31.0}, "dense")
    for k, value in enumerate((44.0, 57.25)):
        put_arm(more, f"x-{k}", {"mIoU": value}, "dense")
    put_arm(tmp_path / "extended" / "multimodal", "mlcd s0", {"accuracy": 12.0}, "llava")
    return [own, more, tmp_path / "extended" / "multimodal"]


PANEL = Panel(
    "x",
    "X <b>",
    {"0": Variant("x-0"), "1": Variant("x-1"), "2": "rice s0", "3": Variant("x-3")},
    measures=(("dense", "mIoU"), ("knn", "knn top-1")),
    curve=True,
)


def test_each_number_of_the_page_leads_to_the_file_that_holds_it(tmp_path: Path, stores: list[Path]) -> None:
    out = tmp_path / "extended"
    page = extended_page(stores, out, [PANEL], {"x-0": out / "runs" / "x 0" / "run.json"})
    text = page.read_text()
    linked = re.findall(r'<td[^>]*><a href="([^"]*)">([^<]*)</a>', text)
    assert [shown for _, shown in linked] == ["44.0", "57.2", "50.0", "12.0"]
    for link, shown in linked:
        metrics = json.loads((out / unquote(link)).read_text())["metrics"]
        assert f"{100 * metrics[0]['value']:.1f}" == shown
    assert 'href="runs/x%200/run.json"' in text
    assert "X &lt;b&gt;" in text
    assert '<td class="best"><a href="sweep' in text
    assert '<td class="muted">2.0</td>' in text  # of 50, 52, 54
    assert (out / "curves.png").is_file()
    rows = list(csv.DictReader((out / "sources.csv").open()))
    assert [(row["encoder"], float(row["value"])) for row in rows] == [
        ("x-0", 44.0),
        ("x-1", 57.25),
        ("rice s0", 50.0),
        ("mlcd s0", 12.0),
    ]


def test_a_page_without_a_panel_of_numbers_draws_no_curves(tmp_path: Path, stores: list[Path]) -> None:
    page = extended_page(stores, tmp_path / "extended", [dataclasses.replace(PANEL, curve=False)], {})
    assert "curves.png" not in page.read_text()
    assert not (tmp_path / "extended" / "curves.png").exists()


def test_tables_say_what_is_best_and_what_is_missing(tmp_path: Path, stores: list[Path]) -> None:
    extended_page(stores, tmp_path / "extended", [PANEL], {})
    line = next(
        line for line in (tmp_path / "extended/tables/x.md").read_text().splitlines() if line.startswith("| dense")
    )
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "dense / mIoU",
        "44.0",
        "**57.2**",
        "50.0",
        "-",
        "2.0",
    ]
    assert (tmp_path / "extended/tables/multimodal.tex").is_file()


def test_two_measurements_of_one_encoder_are_refused(tmp_path: Path, stores: list[Path]) -> None:
    put_arm(stores[1], "x-0", {"mIoU": 45.0}, "dense", seed=1)
    with pytest.raises(RiceError, match="x-0 / dense / mIoU was measured in two ways"):
        extended_page(stores, tmp_path / "extended", [PANEL], {})


def test_another_page_is_not_overwritten(tmp_path: Path, stores: list[Path]) -> None:
    (tmp_path / "extended" / "index.html").write_text("mine")
    with pytest.raises(RiceError, match="was not written by this"):
        extended_page(stores, tmp_path / "extended", [PANEL], {})
    assert (tmp_path / "extended" / "index.html").read_text() == "mine"


def test_panels_ask_for_probes_that_the_miniature_has() -> None:
    assert set(PROBES) <= {probe["probe"] for probe in CONFIG.probes}
    assert {probe for panel in FOUND for probe, _ in panel.measures} == set(PROBES)
    assert set(multimodal(()).encoders.values()) == {"rice s0", "mlcd s0", "clip s0"}
