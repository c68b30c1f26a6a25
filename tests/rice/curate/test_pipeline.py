"""From a pile to a data set by one command: everything found is kept or counted, and training reads what comes out."""

import json
import subprocess
import sys
from pathlib import Path

import pile
import pyarrow.parquet as pq
import pytest

from rice.cli import main
from rice.curate.proposals.config import ProposalConfig
from rice.curate.propose import ProposeStage
from rice.data.batches import StreamConfig
from rice.data.shard_reader import read_dataset
from rice.data.stream import RegionStream

SMALL = ["--encoder", "mini-s8-128", "--min-edge", "100", "--min-region", "24", "--per-shard", "4", "--workers", "1"]


def curate(*arguments: object) -> None:
    main(["curate", *map(str, arguments), *SMALL, "--device", "cpu"])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = pile.write_scenes(tmp_path_factory.mktemp("pile") / "pile", 10)
    bad = {"bad.jpg": b"<html>", "twice.jpg": (folder / "00.jpg").read_bytes(), "small.jpg": pile.jpeg(1)}
    return pile.write_files(folder, bad)


@pytest.fixture(scope="module")
def curated(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("curated") / "out"
    curate(pictures, "--out", out, "-k", 5)
    return out


def test_all_that_was_found_is_kept_or_counted(curated: Path) -> None:
    report = json.loads((curated / "report.json").read_text())
    for what in ("pictures", "regions", "text"):
        line = report[what]
        assert line["found"] == line["kept"] + sum(line["left out"].values()), what
    assert report["pictures"]["left out"] == {"damaged": 1, "duplicate": 1, "edge below min_edge": 1}
    labels = report["labels"]
    assert report["regions"]["kept"] + report["text"]["kept"] == (
        labels["counts"]["objects"] + labels["counts"]["texts"] + sum(labels["left out"].values())
    )
    assert report["regions"]["kept"] == report["clusters"]["rows"] > 10
    assert labels["counts"]["texts"] > 3


def test_training_reads_the_data_set(curated: Path) -> None:
    _, info = read_dataset(curated / "shards")
    stream = RegionStream.open([curated / "shards"], StreamConfig(size=64), seed=0)
    assert (info.object_classes, info.ocr_classes) == (stream.object_classes, stream.ocr_classes) == (5, 8192)
    assert [shard.samples for shard in info.shards] == [4, 4, 2]
    batch = next(stream.batches(batch=10))
    assert set(batch.object_labels.unique().tolist()) == {-1, *range(5)}
    assert (batch.ocr_labels >= 0).any()
    labels = [row.as_py() for path in curated.glob("shards/*.parquet") for row in pq.read_table(path)["labels"]]
    assert {label for row in labels for label in row} == {-1, *range(5)}


def test_the_same_command_again_does_nothing_but_remove_what_killed_ones_left(
    curated: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("done again")

    kinds = ("*/*.parquet", "*/*.npy", "shards/*.tar", "clusters/labels/*", "clusters/centres.*", "page/**/*.*")
    before = {path: path.stat().st_mtime_ns for kind in kinds for path in curated.glob(kind)}
    before = {path: when for path, when in before.items() if path.name not in ("run.json", "clusters.parquet")}
    assert len(before) > 30
    for folder in ("", "scan", "embed", "shards", "clusters", "clusters/labels", "page", "page/sheets"):
        (curated / folder / ".half.json.abcdefgh.tmp").write_text("{")
    monkeypatch.setattr("rice.curate.stage.Stage.do", forbidden)
    curate(pictures, "--out", curated, "-k", 5)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert not list(curated.rglob("*.tmp"))
    assert "page" not in json.loads((curated / "report.json").read_text())["settings"], "as the first run's, without it"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["-k", "6"], "its clusters is 5, not 6"),
        (["-k", "5", "--most-regions", "3"], "its most_regions is 16, not 3"),
        (["-k", "5", "--pool", "roi_align"], "its pool is 'crops', not 'roi_align'"),
        (["-k", "5", "--confidence", "0.9"], "its confidence is 0.7, not 0.9"),
    ],
)
def test_other_settings_are_refused_by_name(
    curated: Path, pictures: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        curate(pictures, "--out", curated, *flags)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--encoder", "mini-s9"], "unknown encoder 'mini-s9'. Did you mean mini-s8-128"),
        (["--tokenizer", "./none.json"], "got './none.json'"),
    ],
)
def test_a_wrong_name_is_told_before_anything_is_written(
    pictures: Path, tmp_path: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["curate", str(pictures), "--out", str(tmp_path / "out"), "-k", "5", *SMALL[2:], *flags])
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_more_clusters_than_regions_are_told_before_any_is_embedded(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        curate(pictures, "--out", tmp_path / "out", "-k", 100_000)
    assert stopped.value.code == 2
    assert "for -k 100,000; ask for fewer clusters" in capsys.readouterr().err
    assert not (tmp_path / "out" / "embed").exists()


def test_other_pictures_are_refused(curated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = pile.write_files(tmp_path / "pile", {"a.jpg": pile.jpeg(1)})
    with pytest.raises(SystemExit):
        curate(other, "--out", curated, "-k", 5)
    assert "holds another run: its sources" in capsys.readouterr().err


def test_pictures_that_are_all_too_small_are_reported_and_nothing_else_is_done(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["curate", str(pictures), "--out", str(tmp_path / "out"), "-k", "5"])  # the paper's 336
    assert stopped.value.code == 2
    assert "0 of 13; left out: 12 edge below min_edge, 1 damaged" in capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["pictures"]["left out"]["edge below min_edge"] == 12
    assert not (tmp_path / "out" / "propose").exists()


def test_a_folder_of_somebody_else_is_left_alone(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit):
        curate(pictures, "--out", tmp_path, "-k", 5)
    assert "already holds 'mine.txt'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_stages_one_by_one_give_the_same_files(
    curated: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    where = ["--workers", "1", "--device", "cpu"]
    curate(pictures, "--out", out, "-k", 5, "--until", "decode")
    main(["curate", "propose", str(out), "--min-region", "24", *where])
    main(["curate", "embed", str(out), "--encoder", "mini-s8-128", *where])
    main(["curate", "ocr", str(out), *where])
    main(["curate", "cluster", str(out / "embed"), "-k", "5", "--out", str(out / "clusters"), "--device", "cpu"])
    main(["curate", "label", str(out), *where])
    for kind in ("shards/*.parquet", "shards/*.tar", "shards/dataset.json", "embed/*.npy", "page/index.html"):
        names = sorted(path.relative_to(curated) for path in curated.glob(kind))
        assert names, kind
        for name in names:
            assert (out / name).read_bytes() == (curated / name).read_bytes(), name


def test_a_stage_before_its_pictures_says_how_to_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["curate", "propose", str(tmp_path)])
    assert "--until decode" in capsys.readouterr().err


def test_annotated_boxes_are_the_regions_where_asked_and_pictures_without_are_counted(tmp_path: Path) -> None:
    files = {"a.jpg": pile.jpeg(1), "a.json": pile.sa1b(80, 64, [[10, 5, 40, 25], [0, 0, 3, 3]]), "b.jpg": pile.jpeg(2)}
    pile.write_files(tmp_path / "sa", files)
    flags = ["--min-edge", "32", "--min-region", "12", "--proposals", "boxes", "--until", "propose", "--workers", "1"]
    main(["curate", str(tmp_path / "sa"), "--out", str(tmp_path / "out"), "-k", "1", *flags])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["regions"] == {"found": 2, "kept": 1, "left out": {"edge below min_region": 1}}
    manifest = json.loads((tmp_path / "out" / "propose" / "sa-000000.json").read_text())
    assert manifest["counts"]["pictures without annotations"] == 1


def test_a_place_among_the_pictures_is_refused(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        curate(pictures, "--out", pictures / "out", "-k", 5)
    assert "choose a place outside" in capsys.readouterr().err
    assert not (pictures / "out").exists()


def test_a_dry_run_writes_nothing(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    curate(pictures, "--out", tmp_path / "out", "-k", 5, "--dry-run")
    assert "13 pictures in 4 shards" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_two_commands_do_not_write_one_folder(curated: Path, pictures: Path) -> None:
    from rice.curate.pipeline import LOCK
    from rice.runs import alone

    with alone(curated, LOCK, "curating into"):
        command = [sys.executable, "-m", "rice.cli", "curate", str(pictures), "--out", str(curated), "-k", "5", *SMALL]
        found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 2
    assert "another process is curating into" in found.stderr


def test_a_sam_is_known_by_its_values_and_nothing_else_by_its_settings(tmp_path: Path) -> None:
    def settings(**changed: object) -> dict[str, object]:
        return ProposeStage(tmp_path, ProposalConfig(**changed)).settings()  # type: ignore[arg-type]

    (tmp_path / "model.safetensors").write_bytes(b"values")
    sam = {"proposals": "sam", "sam_checkpoint": str(tmp_path)}
    first = settings(**sam)
    assert settings(**sam, pictures_per_batch=9) == first
    assert settings(**sam, points_per_side=9) != first
    assert settings(points_per_side=9) == settings()
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert settings(**sam) != first
