"""Uploads have the servers' layout, and nothing is written that a server would refuse."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rice.errors import RiceError
from tracking.submit import got10k_zip, trackingnet_zip

EXPECTED = {"GOT-10k_Test_000002": 2, "GOT-10k_Test_000001": 3}


def track(frames: int) -> NDArray[np.float64]:
    return np.arange(frames * 4, dtype=np.float64).reshape(frames, 4) / 3 + 1


def tracks() -> dict[str, NDArray[np.float64]]:
    return {name: track(frames) for name, frames in EXPECTED.items()}


def timed(boxes: dict[str, NDArray[np.float64]]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    return {name: (boxes_N4, np.full(len(boxes_N4), 0.0123456789)) for name, boxes_N4 in boxes.items()}


def test_got10k_s_layout(tmp_path: Path) -> None:
    got10k_zip(tmp_path / "upload.zip", timed(tracks()), EXPECTED)
    with zipfile.ZipFile(tmp_path / "upload.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            f"{name}/{name}_{part}.txt" for name in sorted(EXPECTED) for part in ("001", "time")
        ]
        text = archive.read("GOT-10k_Test_000002/GOT-10k_Test_000002_001.txt").decode()
        assert text == "1.000,1.333,1.667,2.000\n2.333,2.667,3.000,3.333\n"
        times = archive.read("GOT-10k_Test_000002/GOT-10k_Test_000002_time.txt").decode()
        assert times == "0.01234568\n0.01234568\n"


def test_trackingnet_s_layout(tmp_path: Path) -> None:
    trackingnet_zip(tmp_path / "upload.zip", tracks(), EXPECTED)
    with zipfile.ZipFile(tmp_path / "upload.zip") as archive:
        assert archive.namelist() == [f"{name}.txt" for name in sorted(EXPECTED)]
        rows = [line.split(",") for line in archive.read("GOT-10k_Test_000001.txt").decode().splitlines()]
        assert np.allclose(np.array(rows, dtype=np.float64), track(3), atol=5e-4)


def test_the_same_tracks_give_the_same_bytes(tmp_path: Path) -> None:
    got10k_zip(tmp_path / "a.zip", timed(tracks()), EXPECTED)
    got10k_zip(tmp_path / "b.zip", dict(reversed(timed(tracks()).items())), dict(reversed(EXPECTED.items())))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def changed(kind: str) -> dict[str, NDArray[np.float64]]:
    found, name = tracks(), "GOT-10k_Test_000001"
    if kind == "missing":
        del found[name]
    elif kind == "extra":
        found["other"] = track(2)
    elif kind == "short":
        found[name] = track(2)
    elif kind == "flat":
        found[name] = track(3).ravel()
    else:
        found[name][1, 2] = {"zero": 0.0, "thin": 0.0004, "negative": -1.0, "nan": np.nan, "inf": np.inf}[kind]
    return found


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "1 of 2 (GOT-10k_Test_000001) have none"),
        ("extra", "1 of 3 (other) are not in it"),
        ("short", "GOT-10k_Test_000001 has (2, 4), expected (3, 4)"),
        ("flat", "GOT-10k_Test_000001 has (12,), expected (3, 4)"),
        *((kind, "GOT-10k_Test_000001, frame 2") for kind in ("zero", "thin", "negative", "nan", "inf")),
    ],
)
def test_what_a_server_would_refuse_is_not_written(tmp_path: Path, kind: str, words: str) -> None:
    for write, found in ((trackingnet_zip, changed(kind)), (got10k_zip, timed(changed(kind)))):
        with pytest.raises(RiceError) as caught:
            write(tmp_path / "upload.zip", found, EXPECTED)  # type: ignore[operator]
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", [np.ones(2), np.array([1, np.nan, 1]), np.array([1, -1, 1]), np.ones((3, 1))])
def test_seconds_that_are_none_are_refused(tmp_path: Path, seconds: NDArray[np.float64]) -> None:
    found = timed(tracks())
    found["GOT-10k_Test_000001"] = (track(3), seconds)
    with pytest.raises(RiceError, match=r"seconds of each frame.*1 of 2 \(GOT-10k_Test_000001\)"):
        got10k_zip(tmp_path / "upload.zip", found, EXPECTED)


def test_only_the_first_offenders_are_named(tmp_path: Path) -> None:
    expected = {f"v{k}": 1 for k in range(20)}
    with pytest.raises(RiceError, match=r"19 of 20 \(v1, v2, v3, v4, v5, \.\.\.\)"):
        trackingnet_zip(tmp_path / "upload.zip", {"v0": track(1)}, expected)


def test_a_name_cannot_lead_out_of_the_archive(tmp_path: Path) -> None:
    for name in ("../v", "/v", "a/b", "a\\b", "..", ""):
        with pytest.raises(RiceError, match="other characters"):
            trackingnet_zip(tmp_path / "upload.zip", {name: track(1)}, {name: 1})
