"""FiftyOne gets the pictures' own bytes as files, each once, and every region where it is, with what is known of it."""

import math
from pathlib import Path
from typing import Any

import pytest
from planted_regions import HEIGHT, TEXT, WIDTH, Picture, pictures, write

from rice.curate.in_fiftyone import chosen_pictures, copy_pictures, open_in_fiftyone, to_fiftyone, why_not
from rice.curate.montage.regions import Collection
from rice.errors import RiceError
from rice.progress import SilentProgress

CLUSTERS = 8
SILENT = SilentProgress()


@pytest.fixture(scope="module")
def made() -> list[Picture]:
    return pictures(20, CLUSTERS)


@pytest.fixture(scope="module")
def shards(made: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("fiftyone") / "shards", [made[:12], made[12:]], CLUSTERS)


@pytest.fixture(scope="module")
def fiftyone() -> Any:
    module = pytest.importorskip("fiftyone")
    if reason := why_not():
        pytest.skip(reason)
    return module


def test_copies_are_the_pictures_own_bytes_and_are_made_once(made: list[Picture], shards: Path, tmp_path: Path) -> None:
    collection = Collection(shards)
    copies = chosen_pictures(collection, tmp_path, 0, 0, SILENT)
    copy_pictures(collection, copies, SILENT)
    assert {copy.path.stem: copy.path.read_bytes() for copy in copies} == {p.key: p.image for p in made}
    assert sum(copy.size for copy in copies) == sum(len(picture.image) for picture in made)
    copies[3].path.write_bytes(b"cut")
    copies[5].path.unlink()
    times = {copy.path: copy.path.stat().st_mtime_ns for copy in copies if copy not in (copies[3], copies[5])}
    copy_pictures(collection, copies, SILENT)
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert {copy.path.stem: copy.path.read_bytes() for copy in copies} == {p.key: p.image for p in made}
    assert len(list(tmp_path.rglob("*.*"))) == len(made)


def test_which_pictures_are_drawn_does_not_depend_on_the_shards(
    made: list[Picture], shards: Path, tmp_path: Path
) -> None:
    turned = made[::-1]
    other = write(tmp_path / "other", [turned[i : i + 3] for i in range(0, 20, 3)], CLUSTERS)
    drawn = [
        {copy.path.stem for copy in chosen_pictures(Collection(folder), tmp_path, 7, seed, SILENT)}
        for folder, seed in ((shards, 0), (other, 0), (shards, 1))
    ]
    assert len(drawn[0]) == 7
    assert drawn[0] == drawn[1] != drawn[2]


def test_new_labels_find_the_copies_that_are_there(made: list[Picture], shards: Path, tmp_path: Path) -> None:
    relabelled = write(tmp_path / "shards", [made[:12], made[12:]], CLUSTERS + 1, extra=False)
    found = [chosen_pictures(Collection(folder), tmp_path, 0, 0, SILENT) for folder in (shards, relabelled)]
    assert found[0] == found[1]


def test_without_fiftyone_the_reason_is_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RiceError("pip install 'rice-suite[fiftyone]'")

    monkeypatch.setattr("rice.curate.in_fiftyone.require", refuse)
    assert why_not() == "pip install 'rice-suite[fiftyone]'"


@pytest.mark.slow
def test_every_region_is_where_its_box_is_with_label_score_and_text(
    fiftyone: Any, made: list[Picture], shards: Path, tmp_path: Path
) -> None:
    collection = Collection(shards)
    copies = chosen_pictures(collection, tmp_path, 0, 0, SILENT)
    copy_pictures(collection, copies, SILENT)
    dataset = to_fiftyone(collection, copies, SILENT)
    by_key = {picture.key: picture for picture in made}
    assert len(dataset) == len(made)
    regions = 0
    for sample in dataset:
        picture = by_key[Path(sample.filepath).stem]
        assert Path(sample.filepath).read_bytes() == picture.image
        assert (sample.metadata.width, sample.metadata.height) == (WIDTH, HEIGHT)
        for kind in ("regions", "texts"):
            for found in sample[kind].detections:
                x, y, w, h = found.bounding_box
                box = [round(v) for v in (x * WIDTH, y * HEIGHT, (x + w) * WIDTH, (y + h) * HEIGHT)]
                slot = picture.boxes.index(box)
                label = picture.labels[slot]
                assert found.confidence == pytest.approx(0.5 + slot / 16)
                assert found.label == (f"cluster {label}" if kind == "regions" else TEXT)
                if kind == "regions":
                    assert found.cluster == label
                    assert math.isclose(found.squared_distance, picture.distances[slot])
                else:
                    assert label == -1
                regions += 1
    assert regions == sum(len(picture.labels) for picture in made)
    assert dataset.count_values("regions.detections.label") == {
        f"cluster {label}": sum(picture.labels.count(label) for picture in made)
        for label in range(CLUSTERS)
        if any(label in picture.labels for picture in made)
    }
    again = to_fiftyone(collection, copies[:3], SILENT)
    assert len(again) == 3
    for one in (dataset, again):
        one.delete()


@pytest.mark.slow
def test_the_bytes_are_said_before_the_app_opens_on_this_machine_alone(
    fiftyone: Any, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = []

    class Session:
        def wait(self) -> None:
            opened.append("closed")

    def launch(dataset: Any, *, address: str) -> Session:
        assert address == "localhost"
        opened.append(dataset.name)
        return Session()

    monkeypatch.setattr(fiftyone, "launch_app", launch)
    open_in_fiftyone(shards, tmp_path / "out", 5, 0, SILENT)
    said = capsys.readouterr().out
    assert said.startswith("5 pictures, ")
    assert opened == [said.split()[-1], "closed"]
    assert len(list((tmp_path / "out" / "pictures").rglob("*.png"))) == 5
    fiftyone.delete_dataset(opened[0])
