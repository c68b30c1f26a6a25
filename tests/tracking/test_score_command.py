"""`rice track score` as a user types it."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
import toolkits

from rice import cli
from rice.errors import RiceError
from tracking.layouts.text import read_boxes
from tracking.protocols import PROTOCOLS
from tracking.score_inputs import Sides, read_predictions, read_truths

TRUTH = [[10.0, 10.0, 20.0, 20.0], [11.0, 10.0, 20.0, 22.0], [12.0, 11.0, 20.0, 20.0]]
TRACK = [[10.0, 10.0, 20.0, 20.0], [13.0, 12.0, 18.0, 20.0], [40.0, 60.0, 20.0, 20.0]]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def rows(boxes: list[list[float]], by: str = ",", end: str = "\n") -> str:
    return "".join(by.join(f"{v:g}" for v in box) + end for box in boxes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("bear-1", "cat-2"):
        write(tmp_path / "gt" / f"{name}.txt", rows(TRUTH))
        write(tmp_path / "pred" / f"{name}.txt", rows(TRACK if name == "cat-2" else TRUTH))
        write(tmp_path / "absent" / f"{name}.txt", "0\n0\n1\n" if name == "cat-2" else "0,0,0\n")
        write(tmp_path / "cover" / f"{name}.txt", "8\n4\n0\n")
    write(tmp_path / "sizes.txt", "bear-1 100 80\ncat-2,50\t60\r\n\n")
    return tmp_path


def rice(root: Path, *arguments: str, protocol: str = "ostrack") -> None:
    folders = ["--gt", str(root / "gt"), "--pred", str(root / "pred")]
    cli.main(["track", "score", "--protocol", protocol, *folders, *arguments])


def refusal(root: Path, capsys: pytest.CaptureFixture[str], *arguments: str, protocol: str = "ostrack") -> str:
    with pytest.raises(SystemExit) as caught:
        rice(root, "--out", str(root / "out"), *arguments, protocol=protocol)
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert not (root / "out").exists()
    return printed.err


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_json_is_one_object_with_the_toolkit_s_figures(
    root: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    sides = ["--absent", str(root / "absent"), "--cover", str(root / "cover"), "--sizes", str(root / "sizes.txt")]
    rice(root, "--json", *sides, protocol=protocol)
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1
    found = json.loads(printed)
    truths: dict[str, toolkits.Truth] = {
        "bear-1": (TRUTH, [False] * 3, [8, 4, 0], (100, 80)),
        "cat-2": (TRUTH, [False, False, True], [8, 4, 0], (50, 60)),
    }
    expected = toolkits.overall(protocol, truths, {"bear-1": TRUTH, "cat-2": TRACK})
    assert list(found) == [*expected, "protocol", "sequences", "frames", "per_sequence", "notes"]
    assert [found[key] for key in expected] == pytest.approx(list(expected.values()), abs=1e-9)
    assert (found["protocol"], found["sequences"], list(found["per_sequence"])) == (protocol, 2, ["bear-1", "cat-2"])
    unused = sum("is not read" in note for note in found["notes"])
    assert unused == {"got10k": 1, "got10k-lasot": 3, "trackingnet": 3}.get(protocol, 2)


def test_the_table_names_the_definition_and_ranks_the_sequences(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rice(root, protocol="got10k")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "got10k: 2 sequences, 4 frames to judge"
    assert "frames of all sequences pooled; GOT-10k toolkit" in lines[1]
    assert lines[2].split() == ["ao", "sr_0.5", "sr_0.75"]
    assert [len(cell.partition(".")[2]) for cell in lines[3].split()] == [2, 2, 2]
    assert [line.split()[-1] for line in lines[6:8]] == ["bear-1", "cat-2"]
    assert lines[8:] == [
        "note: no cover levels are given: all frames but the first count",
        "note: no picture sizes are given: boxes are not clipped to the picture",
    ]


def test_the_table_shows_five_of_each_end(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(12):
        write(root / "gt" / f"s{k:02}.txt", rows([[10.0, 10.0, 20.0, 20.0]] * 2))
        write(root / "pred" / f"s{k:02}.txt", rows([[10.0, 10.0, 20.0, 20.0], [10.0 + k, 10.0, 20.0, 20.0]]))
    rice(root)
    names = [line.split()[-1] for line in capsys.readouterr().out.splitlines()[6:17]]
    assert len(names) == 11
    assert names[5] == "..."
    assert names[-1] == "cat-2"


def test_out_holds_scores_table_and_plots(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rice(root, "--json", "--out", str(root / "out"), protocol="trackingnet")
    printed = json.loads(capsys.readouterr().out)
    assert json.loads((root / "out" / "scores.json").read_text()) == printed
    with (root / "out" / "per_sequence.csv").open() as file:
        table = list(csv.DictReader(file))
    assert {row["sequence"]: float(row["success"]) for row in table} == {
        name: values["success"] for name, values in printed["per_sequence"].items()
    }
    plots = {f"{name}.{kind}" for name in ("success", "precision", "norm_precision") for kind in ("png", "pdf")}
    assert {path.name for path in (root / "out").iterdir()} == {"scores.json", "per_sequence.csv", *plots}
    assert all((root / "out" / name).stat().st_size > 2000 for name in plots)
    before = (root / "out" / "success.pdf").read_bytes()
    rice(root, "--out", str(root / "out"), protocol="trackingnet")
    assert (root / "out" / "success.pdf").read_bytes() == before
    rice(root, "--out", str(root / "got"), "--image-size", "90", "90", protocol="got10k")
    assert {path.suffix for path in (root / "got").iterdir() if path.stem != "success"} == {".json", ".csv"}


@pytest.mark.parametrize("by", [",", "\t", " ", ", ", "  ", " ,\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", ",mixed"])
def test_delimiters_and_line_ends_say_nothing(tmp_path: Path, by: str, end: str) -> None:
    text = rows(TRUTH, by=by, end="\r\n" if end == "\r\n" else "\n")
    text = "1 2,3\t4\n" + text if end == ",mixed" else text + ("\n \n" if end == "\n\n" else "")
    write(tmp_path / "a.txt", "\ufeff" + text)
    expected = [[1.0, 2.0, 3.0, 4.0], *TRUTH] if end == ",mixed" else TRUTH
    assert read_boxes(tmp_path / "a.txt", polygons=False).tolist() == expected


def test_numbers_are_read_as_python_reads_them(tmp_path: Path) -> None:
    draw = random.Random(0)
    words = [repr(draw.uniform(-1e3, 1e3) * 10 ** draw.randint(-9, 9)) for _ in range(400)]
    for by in (",", " ,"):  # the quick way and the thorough one
        lines = [by.join(words[k : k + 4]) for k in range(0, 400, 4)]
        write(tmp_path / "a.txt", "\n".join([*lines, by.join(["NaN", "nan", "-inf", "1e3"])]))
        found = read_boxes(tmp_path / "a.txt", polygons=False).ravel().tolist()
        assert found[:400] == list(map(float, words))
        assert str(found[400:]) == "[nan, nan, -inf, 1000.0]"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("1,2,3,4\n1,2,3\n", "line 2: expected 4 numbers, got 3"),
        ("1,2,3,4,5\n", "line 1: expected 4 numbers, got 5"),
        ("1,2,3,4\n\n1,2,3,4\n", "line 2: expected 4 numbers, got 0"),
        ("1 2 3 4\n \n1 2 3 4\n", "line 2: expected 4 numbers, got 0"),
        ("1,2,3,4\n1,2,x,4\n", "line 2: expected numbers, got 'x'"),
        ("1,2,,4\n", "line 1: expected numbers, got ''"),
        ("1,,2,3,4\n", "line 1: expected 4 numbers, got 5"),
        ("1_0,2,3,4\n", "line 1: expected numbers, got '1_0'"),
        ("1 2 3 1_0\n", "line 1: expected numbers, got '1_0'"),
        ("# x y w h\n1,2,3,4\n", "line 1: expected 4 numbers, got 5"),
        ("1,2,3,4 # x y w h\n", "line 1: expected 4 numbers, got 9"),
        ("1,2,3,4,5,6,7,8\n", "line 1: expected 4 numbers, got 8"),
        ("\x00\x01", "line 1: expected 4 numbers, got 1"),
    ],
)
def test_a_damaged_result_names_its_line(root: Path, capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    write(root / "pred" / "cat-2.txt", text)
    message = refusal(root, capsys)
    assert "cat-2.txt" in message
    assert words in message


def test_bytes_that_are_no_text_are_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "pred" / "cat-2.txt").write_bytes(b"\xff\xfe1,2")
    assert "expected text in UTF-8" in refusal(root, capsys)


def test_a_truth_of_polygons_is_the_upright_box_around_each(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "10,10,30,5,40,30,20,35\n0,0,4,0,4,4,0,4\n")
    truths, _ = read_truths(tmp_path, Sides())
    assert truths["a"].boxes.tolist() == [[10, 5, 30, 30], [0, 0, 4, 4]]
    write(tmp_path / "a.txt", "10,10,30,5,40,30,20,35\n0,0,4,4\n")
    with pytest.raises(RiceError, match="line 2: expected 8 numbers, got 4"):
        read_truths(tmp_path, Sides())


def test_flags_may_stand_on_one_line_and_have_a_surplus_of_zeros(root: Path) -> None:
    write(root / "absent" / "cat-2.txt", "0,1,0,0,0")
    truths, notes = read_truths(root / "gt", Sides(absent=root / "absent", cover=root / "cover"))
    assert truths["bear-1"].absent is not None
    assert truths["bear-1"].absent.tolist() == [False] * 3
    assert truths["cat-2"].absent is not None
    assert truths["cat-2"].absent.tolist() == [False, True, False]
    assert truths["cat-2"].cover is not None
    assert truths["cat-2"].cover.tolist() == [8, 4, 0]
    assert len(notes) == 1
    assert "5 values" in notes[0]


@pytest.mark.parametrize(
    ("folder", "text", "words"),
    [
        ("absent", "0\n0\n0\n1\n", "expected 3 values, one for each frame of the truth, got 4"),
        ("absent", "0\n0\n", "got 2"),
        ("absent", "", "is empty"),
        ("absent", "0\n2\n0\n", "line 2: expected 0 or 1, got '2'"),
        ("cover", "0\n8\n9\n", "line 3: expected an integer from 0 to 8, got '9'"),
        ("cover", "0\n0.5\n8\n", "line 2: expected an integer from 0 to 8, got '0.5'"),
        ("cover", None, "expected a file cat-2.txt as for its truth, found none"),
    ],
)
def test_damaged_flags_are_refused(
    root: Path, capsys: pytest.CaptureFixture[str], folder: str, text: str | None, words: str
) -> None:
    path = root / folder / "cat-2.txt"
    path.unlink()
    if text is not None:
        write(path, text)
    protocol = "got10k" if folder == "cover" else "tnl2k"
    message = refusal(root, capsys, f"--{folder}", str(root / folder), protocol=protocol)
    assert words in message
    rice(root, f"--{folder}", str(root / folder), protocol="trackingnet")  # which does not read it


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bear-1 100 80\n", "expected the picture size of cat-2, found none"),
        ("bear-1 100 80\ncat-2 100\n", "line 2: expected a sequence's width and height"),
        ("bear-1 100 80\ncat-2 100 -1\n", "line 2: expected a sequence's width and height"),
        ("", "is empty"),
        ('{"bear-1": [100, 80], "cat-2": [100]}', "cat-2: expected a sequence's width and height in pixels, got [100]"),
        ('{"bear-1": [100, 80]', "not valid JSON"),
    ],
)
def test_damaged_sizes_are_refused(root: Path, capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    write(root / "sizes", text)
    assert words in refusal(root, capsys, "--sizes", str(root / "sizes"), protocol="got10k")


def test_sizes_may_be_json_or_the_same_for_all(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root / "sizes.json", '{"bear-1": [30, 30], "cat-2": [30, 30]}')
    rice(root, "--json", "--sizes", str(root / "sizes.json"), protocol="got10k")
    first = capsys.readouterr().out
    rice(root, "--json", "--image-size", "30", "30", protocol="got10k")
    assert capsys.readouterr().out == first
    both = ("--sizes", str(root / "sizes.json"), "--image-size", "30", "30")
    assert "got both" in refusal(root, capsys, *both, protocol="got10k")
    assert "at least 1 pixel" in refusal(root, capsys, "--image-size", "0", "30", protocol="got10k")


def test_got10k_s_own_folders_are_read(root: Path) -> None:
    for name in ("bear-1", "cat-2"):
        (root / "pred" / f"{name}.txt").unlink()
        for run in (1, 2):
            write(root / "pred" / name / f"{name}_00{run}.txt", rows([[float(run)] * 4] * 3))
        write(root / "pred" / name / f"{name}_time.txt", "0.1\n0.1\n0.1\n")
    predictions, notes = read_predictions(root / "pred", ["bear-1", "cat-2"])
    assert all(boxes_N4 is not None and np.all(boxes_N4 == 1) for boxes_N4 in predictions.values())
    assert notes == ["only the first of several runs is judged (2 of 2 sequences: bear-1, cat-2)"]


def test_strangers_among_the_results_are_ignored_with_a_note(root: Path) -> None:
    for name in ("dog-3", "cat-2_time", ".hidden"):
        write(root / "pred" / f"{name}.txt", "not numbers")
    predictions, notes = read_predictions(root / "pred", ["bear-1", "cat-2"])
    assert list(predictions) == ["bear-1", "cat-2"]
    assert notes == ["predictions for sequences without a truth are ignored (1 of 4 sequences: dog-3)"]


def test_a_missing_result_is_refused_except_by_trackingnet(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "pred" / "cat-2.txt").unlink()
    for protocol in PROTOCOLS:
        if protocol != "trackingnet":
            assert "1 of 2 sequences: cat-2" in refusal(root, capsys, protocol=protocol)
    rice(root, protocol="trackingnet")
    assert "judged as zero boxes (1 of 2 sequences: cat-2)" in capsys.readouterr().out


def test_wrong_arguments_end_with_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = "got10k, lasot-matlab, pytracking, ostrack, got10k-lasot, trackingnet, tnl2k"
    unknown = refusal(root, capsys, protocol="lasot")
    assert listed in unknown
    assert "lasot-matlab?" in unknown or "Did you mean" in unknown
    with pytest.raises(SystemExit) as caught:
        cli.main(["track", "score", "--gt", str(root / "gt"), "--pred", str(root / "pred")])
    assert caught.value.code == 2
    assert listed in capsys.readouterr().err
    write(root / "file", "")
    with pytest.raises(SystemExit):
        rice(root, "--out", str(root / "file"))
    assert "expected a folder as --out" in capsys.readouterr().err
    for missing, words in (("nowhere", "expected a folder with a SEQUENCE.txt each"), ("empty", "found no .txt file")):
        (root / "empty").mkdir(exist_ok=True)
        assert words in refusal(root, capsys, "--pred", str(root / missing))
        assert words in refusal(root, capsys, "--gt", str(root / missing))
