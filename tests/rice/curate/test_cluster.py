"""Every row gets the label of its nearest centre, by any number of ranks and kills; what cannot is counted."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cluster_targets import cluster_ranks
from numpy.typing import NDArray
from ranks import Ranks
from safetensors.numpy import load_file

from rice.cli import main

WIDTH = 8
ROWS = {"a": 300, "b": 1, "c": 450}


def write_features(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Around 12 directions; a NaN, an infinity, and a row of zeros among them."""
    dice = np.random.default_rng(0)
    places = dice.standard_normal((12, WIDTH))
    folder.mkdir()
    files = {}
    for name, rows in ROWS.items():
        values = (places[dice.integers(12, size=rows)] * 4 + dice.standard_normal((rows, WIDTH))).astype(np.float32)
        if name == "a":
            values[7, 2], values[8, 0], values[9] = np.nan, np.inf, 0
        np.save(folder / f"{name}.npy", values)
        files[name] = values
    return files


def labels_of(out: Path) -> dict[str, tuple[list[int], NDArray[np.float64]]]:
    tables = {name: pq.read_table(out / "labels" / f"{name}.parquet") for name in ROWS}
    return {name: (table["label"].to_pylist(), table["distance"].to_numpy()) for name, table in tables.items()}


@pytest.mark.parametrize("raw", [False, True])
def test_labels_are_the_nearest_centres_and_the_report_counts_them(tmp_path: Path, raw: bool) -> None:
    files = write_features(tmp_path / "features")
    out = tmp_path / "out"
    main(["curate", "cluster", str(tmp_path / "features"), "-k", "20", "--out", str(out), *(["--raw"] if raw else [])])
    centres_KD = load_file(out / "centres.safetensors")["centres"].astype(np.float64)
    sizes_K, errors_K = np.zeros(20, int), np.zeros(20)
    for name, (labels, distances_N) in labels_of(out).items():
        for row, label, distance in zip(files[name].astype(np.float64), labels, distances_N, strict=True):
            length = np.linalg.norm(row)
            if not np.isfinite(row).all() or (length == 0 and not raw):
                assert label == -1
                assert np.isnan(distance)
                continue
            expected_K = ((centres_KD - (row if raw else row / length)) ** 2).sum(1)
            assert expected_K[label] == pytest.approx(expected_K.min(), abs=1e-5)
            assert distance == pytest.approx(expected_K[label], abs=1e-4)
            sizes_K[label] += 1
            errors_K[label] += distance
    table = pq.read_table(out / "clusters.parquet")
    assert table["size"].to_pylist() == sizes_K.tolist()
    np.testing.assert_allclose(table["error"].to_numpy(), errors_K, rtol=1e-9)
    report = json.loads((out / "clusters.json").read_text())
    assert report["rows"] == sizes_K.sum() == 751 - 2 - (not raw)
    assert report["dropped"] == {"not finite": 2, "without direction": 0 if raw else 1}
    assert report["empty"] == (sizes_K == 0).sum()
    assert report["mean_squared_distance"] == pytest.approx(errors_K.sum() / sizes_K.sum())
    assert (out / "clusters.png").stat().st_size > 5000


def test_several_ranks_give_the_labels_of_one(tmp_path: Path) -> None:
    write_features(tmp_path / "features")
    for world, out in ((1, tmp_path / "one"), (2, tmp_path / "two"), (4, tmp_path / "four")):
        reports = Ranks(world, cluster_ranks, tmp_path / "features", out, 20).results()
        assert all(report == reports[0] for report in reports)
    one = labels_of(tmp_path / "one")
    for out in (tmp_path / "two", tmp_path / "four"):
        for name, (labels, distances_N) in labels_of(out).items():
            assert labels == one[name][0]
            np.testing.assert_allclose(distances_N, one[name][1], atol=1e-5)


def test_a_users_error_is_the_same_on_every_rank(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    said = Ranks(2, cluster_ranks, tmp_path / "features", tmp_path / "out", 3).results()
    assert said[0] == said[1]
    assert "found none" in said[0]
    assert not (tmp_path / "out").exists()


def test_killed_at_any_instant_the_same_command_ends_with_the_same_files(tmp_path: Path) -> None:
    write_features(tmp_path / "features")
    command = [sys.executable, "-m", "rice.cli", "curate", "cluster", str(tmp_path / "features"), "-k", "20", "--out"]
    began = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    whole, dice = time.monotonic() - began, np.random.default_rng(1)
    for wait in dice.uniform(0.5, 1, 4) * whole:
        process = subprocess.Popen(
            [*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    for name in ("centres.safetensors", "clusters.parquet", "clusters.json", *(f"labels/{n}.parquet" for n in ROWS)):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_labels_that_are_there_are_not_made_again_and_damaged_ones_are(tmp_path: Path) -> None:
    write_features(tmp_path / "features")
    command = ["curate", "cluster", str(tmp_path / "features"), "-k", "20", "--out", str(tmp_path / "out")]
    main(command)
    kept, damaged = (tmp_path / "out" / "labels" / f"{name}.parquet" for name in ("a", "c"))
    before, content = kept.stat().st_mtime_ns, damaged.read_bytes()
    damaged.write_bytes(content[:-9])
    main(command)
    assert kept.stat().st_mtime_ns == before
    assert damaged.read_bytes() == content


@pytest.mark.parametrize("what", ["clusters", "features", "foreign"])
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    write_features(tmp_path / "features")
    out = tmp_path / "out"
    command = ["curate", "cluster", str(tmp_path / "features"), "--out", str(out), "-k"]
    if what == "foreign":
        out.mkdir()
        (out / "letter.txt").write_text("dear")
    else:
        main([*command, "20"])
    if what == "features":
        np.save(tmp_path / "features" / "d.npy", np.ones((4, WIDTH), np.float32))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([*command, "21" if what == "clusters" else "20"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("rice: error: ")
    assert said.count("\n") == 1
    assert len(said) < 300
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_faiss_may_find_the_centres(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="needs faiss: pip install 'rice-suite[curate]'")
    write_features(tmp_path / "features")
    errors = {}
    for backend in ("ours", "faiss"):
        out = tmp_path / backend
        main(["curate", "cluster", str(tmp_path / "features"), "-k", "12", "--out", str(out), "--backend", backend])
        errors[backend] = json.loads((out / "clusters.json").read_text())["mean_squared_distance"]
    assert errors["ours"] <= 1.05 * errors["faiss"]
