"""Nothing is left out in silence: rows read are rows kept and rows refused, each for a reason that is named."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mllm.llava import prepare as module
from mllm.llava.parse import Reason
from mllm.llava.pictures import PictureConfig
from mllm.llava.prepare import prepare, prepare_rows
from mllm.llava.rows import MARK, PREPARED, ROWS, Rows
from rice.errors import RiceError
from rice.progress import SilentProgress


def row(name: str = "a", image: Any = "a.png", ask: str = "<image>\nWhat?", answer: str = "A.") -> dict[str, Any]:
    found = {"id": name, "conversations": [{"from": "human", "value": ask}, {"from": "gpt", "value": answer}]}
    return found | ({} if image is None else {"image": image})


def made(root: Path, *files: list[Any], out: str = "out", strict: bool = False, **settings: Any) -> dict[str, Any]:
    """Prepare lists of rows as 0.json, 1.json, ... in `root`, which is the image root."""
    root.mkdir(exist_ok=True)
    Image.new("RGB", (40, 20)).save(root / "a.png")
    Image.new("RGB", (10_000, 100)).save(root / "strip.png")
    (root / "text.png").write_text("no picture")
    paths = [root / f"{k}.json" for k in range(len(files))]
    for path, rows in zip(paths, files, strict=True):
        path.write_text(json.dumps(rows))
    config = PictureConfig(**settings)
    return prepare_rows(paths, None, root / out, config=config, progress=SilentProgress(), strict=strict)


BAD: list[tuple[Any, Reason]] = [
    (row("missing", "none.png"), Reason.MISSING),
    (row("damaged", "text.png"), Reason.UNREADABLE),
    (row("away", "../a.png"), Reason.OUTSIDE),
    (row("strip", "strip.png"), Reason.ASPECT),
    (row("marks", ["a.png", "a.png"]), Reason.MARKS),
    (row("mark without picture", None), Reason.MARKS),
    (row("silent", answer=""), Reason.EMPTY_ANSWER),
    ({"id": "role", "messages": [{"role": "tool", "content": "a"}]}, Reason.ROLE),
    ({"id": "turns", "conversations": []}, Reason.NO_TURNS),
    (row("second", ["a.png", "none.png"], ask="<image> <image>"), Reason.MISSING),
    ("no object", Reason.NO_OBJECT),
]


def test_every_refused_row_is_counted_under_its_reason_and_named(tmp_path: Path) -> None:
    good = [row("one"), row("two", None, ask="Hello")]
    report = made(tmp_path, [good[0], *(value for value, _ in BAD), good[1]])
    names = ["missing", "damaged", "away", "strip", "marks", "mark without picture", "silent", "role", "turns"]
    names += ["second", "0-11"]  # a row without an id is named after its file and place
    expected: dict[str, list[str]] = {}
    for name, (_, reason) in zip(names, BAD, strict=True):
        expected.setdefault(str(reason), []).append(name)
    found = {reason: [one["id"] for one in said["rows"]] for reason, said in report["refused"].items()}
    assert found == expected
    assert {reason: said["count"] for reason, said in report["refused"].items()} == {
        reason: len(ids) for reason, ids in expected.items()
    }
    assert report["refused"]["aspect ratio beyond --max-aspect"]["rows"][0]["detail"] == "strip.png: 10000x100"
    assert (report["read"], report["kept"]) == (13, 2)
    assert json.loads((tmp_path / "out" / PREPARED).read_text()) == report
    rows = Rows(tmp_path / "out")
    assert [(found.id, found.images, found.sizes) for found in rows] == [
        ("one", ("a.png",), ((20, 40),)),
        ("two", (), ()),
    ]


def test_of_a_reason_the_first_twenty_rows_are_named_and_all_are_counted(tmp_path: Path) -> None:
    missing = [row(f"r{i}", f"{i}.png") for i in range(30)]
    report = made(tmp_path, missing[:15], [row(), *missing[15:]])
    said = report["refused"]["missing image"]
    assert said["count"] == 30
    assert said["rows"] == [{"id": f"r{i}", "detail": f"{i}.png"} for i in range(20)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ANY_ROW = st.builds(
    row,
    st.sampled_from(["a", "a#2", "b", 7, None]),
    st.sampled_from([None, "a.png", "none.png", "text.png", "strip.png", "../a.png", ["a.png", "a.png"], 5, ""]),
    st.sampled_from(["<image>\nWhat?", "What?", "<image> or <image>?", "What? <image>", ""]),
    st.sampled_from(["A.", "", "<image>"]),
)


@given(files=st.lists(st.lists(ANY_ROW | JSON, max_size=6), min_size=1, max_size=3))
@settings(max_examples=40)
def test_rows_read_are_rows_kept_and_rows_refused(
    files: list[list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    report = made(folder, [row("sound", None, ask="Hello")], *files)
    everything = [report, *report["sources"].values()]
    counts = [sum(one["count"] for one in report["refused"].values())]
    counts += [sum(source["refused"].values()) for source in report["sources"].values()]
    assert all(one["read"] == one["kept"] + count for one, count in zip(everything, counts, strict=True))
    assert report["read"] == 1 + sum(map(len, files)) == sum(s["read"] for s in report["sources"].values())
    rows = list(Rows(folder / "out"))
    assert len(rows) == report["kept"] == sum(source["kept"] for source in report["sources"].values())
    assert len({one.id for one in rows}) == len(rows)
    for one in rows:
        assert sum(turn.text.count(MARK) for turn in one.turns) == len(one.images) == len(one.sizes)
    assert sum(len(one.images) for one in rows) == report["pictures"]


def test_ids_are_made_unique_and_that_is_counted(tmp_path: Path) -> None:
    report = made(tmp_path, [row("a"), row("a"), row("a#2"), row("b", "none.png")], [row("a"), row("b")])
    assert [one.id for one in Rows(tmp_path / "out")] == ["a", "a#2", "a#2#2", "a#3", "b"]
    assert report["changed"] == {"id made unique": 3}


def test_several_files_are_one_mixture_that_knows_whose_a_row_is(tmp_path: Path) -> None:
    report = made(tmp_path, [row("x"), row("y", "none.png")], [row("z")])
    assert pq.read_table(tmp_path / "out" / ROWS, columns=["id", "source"]).to_pylist() == [
        {"id": "x", "source": "0"},
        {"id": "z", "source": "1"},
    ]
    counted = {name: (one["read"], one["kept"], one["refused"]) for name, one in report["sources"].items()}
    assert counted == {"0": (2, 1, {"missing image": 1}), "1": (1, 1, {})}


def test_strict_refuses_everything_in_one_line_and_writes_nothing(tmp_path: Path) -> None:
    rows = [row("a"), *(row(f"m{i}", "none.png") for i in range(4)), row("b", None)]
    with pytest.raises(RiceError) as error:
        made(tmp_path, rows, strict=True)
    assert str(error.value) == (
        "expected every row to be sound, 5 of 6 are refused: "
        "wrong number of <image> marks: 1 (b); missing image: 4 (m0, m1, m2, ...); "
        f"image paths start from {tmp_path}"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.json", "a.png", "strip.png", "text.png"]
    assert made(tmp_path, [row("a"), row("a")], strict=True)["kept"] == 2  # what is changed is not refused


@pytest.mark.parametrize("rows", [[], [row(image="none.png")]])
def test_no_row_that_is_left_is_an_error_and_writes_nothing(rows: list[Any], tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="expected rows to train on"):
        made(tmp_path, rows)
    assert not (tmp_path / "out").exists()


def test_the_same_command_makes_the_same_folder_and_sees_what_is_new(tmp_path: Path) -> None:
    rows = [row(f"r{i}", "later.png" if i % 9 == 0 else "a.png") for i in range(100)]
    made(tmp_path, rows)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    made(tmp_path, rows)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    Image.new("RGB", (30, 30)).save(tmp_path / "later.png")
    assert made(tmp_path, rows)["kept"] == 100


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    made(tmp_path, [row()])
    with pytest.raises(RiceError, match="out holds another run: its rows is .*; name another --out"):
        made(tmp_path, [row(), row()])
    with pytest.raises(RiceError, match="out holds another run: its max_aspect is 20.0, not 30.0"):
        made(tmp_path, [row()], max_aspect=30.0)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(RiceError, match=r"also holds 'notes.txt', which would be removed"):
        made(tmp_path, [row()])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(RiceError, match=r"already holds 'notes.txt', not written by this"):
        made(tmp_path, [row()], out="other")
    with pytest.raises(RiceError, match="--out .*a.png is a file; give a folder"):
        made(tmp_path, [row()], out="a.png")
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"


def test_a_failure_on_the_way_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, [row()])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fails(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_json", fails)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, [row()])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def png(shade: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, 0, 0)).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": "../../same.png"}


def test_pictures_in_parquet_are_kept_beside_the_rows_and_others_stay_where_they_are(tmp_path: Path) -> None:
    data = tmp_path / "LLaVA-NeXT-Data"
    data.mkdir()
    rows = [row(f"r{i}", png(i % 3)) for i in range(100)]
    rows += [row("text", None, ask="Hello") | {"image": None}, row("bad", {"bytes": b"no picture", "path": None})]
    rows += [row("file", {"bytes": None, "path": "a.png"})]
    pq.write_table(pa.Table.from_pylist(rows[:50]), data / "train-0.parquet")
    pq.write_table(pa.Table.from_pylist(rows[50:]), data / "train-1.parquet")
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    report = prepare_rows([data], tmp_path, out, config=PictureConfig(), progress=SilentProgress())
    assert (report["read"], report["kept"], report["text_only"]) == (103, 102, 1)
    assert report["refused"]["unreadable image"]["rows"] == [{"id": "bad", "detail": "not a picture"}]
    assert len([path for path in (out / "images").rglob("*") if path.is_file()]) == 3
    found = Rows(out)
    shades = [np.unique(np.asarray(found.open_image(one, 0))[..., 0]).tolist() for one in found if one.images]
    assert shades == [[i % 3] for i in range(100)] + [[200]]
    with pytest.raises(RiceError, match="lies in .*LLaVA-NeXT-Data, whose Parquet files are read"):
        prepare_rows([data], tmp_path, data / "out", config=PictureConfig(), progress=SilentProgress())


def test_paths_start_from_the_folder_of_their_file_or_from_the_one_that_is_given(tmp_path: Path) -> None:
    for edge, folder in enumerate(("a", "b/c"), start=5):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "rows.json").write_text(json.dumps([row()]))
        Image.new("RGB", (edge, edge)).save(tmp_path / folder / "a.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    files = [tmp_path / folder / "rows.json" for folder in ("a", "b/c")]

    def names_and_sizes(paths: list[Path], images: Path | None, out: str) -> list[tuple[str, int]]:
        prepare_rows(paths, images, tmp_path / out, config=PictureConfig(), progress=SilentProgress())
        rows = Rows(tmp_path / out)
        return [(one.images[0], rows.open_image(one, 0).width) for one in rows]

    assert names_and_sizes(files, None, "1") == [("a/a.png", 5), ("b/c/a.png", 6)]
    assert names_and_sizes(files[1:], None, "2") == [("a.png", 6)]
    assert names_and_sizes(files, tmp_path, "3") == [("a.png", 9)] * 2
    with pytest.raises(RiceError, match="expected the folder of the pictures, found none at .*none; correct --images"):
        names_and_sizes(files, tmp_path / "none", "4")
    with pytest.raises(RiceError, match=r"2 of 2 are refused: missing image: 2 \(a, a\); image paths start from .*/b"):
        names_and_sizes(files, tmp_path / "b", "4")
    with pytest.raises(RiceError, match="expected files of rows before --out"):
        names_and_sizes([], None, "4")


def test_the_command_says_what_was_left_out_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    rows = [row(), *(row(f"m{i}", "none.png") for i in range(5)), row("moved", ask="What? <image>")]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prepare((tmp_path / "mine.jsonl",), out=tmp_path / "out", pictures=PictureConfig())
    assert capsys.readouterr().out.splitlines() == [
        "source       read       kept    refused",
        "mine            7          2          5",
        "refused: missing image: 5 (m0, m1, m2, ...)",
        "  the first: none.png",
        "changed: mark moved to the front of its turn: 1",
        f"2 rows with 2 pictures written to {tmp_path / 'out'}",
    ]


@pytest.mark.data
def test_real_conversations_of_three_layouts_are_kept_and_videos_are_refused(shared_data: Path, tmp_path: Path) -> None:
    files = ["sharegpt/mllm_demo.json", "sharegpt/mllm_video_demo.json", "mantis/train.json", "docvqa/val_v1.0.json"]
    expected = {"mllm_demo": (6, 6, 8), "mllm_video_demo": (3, 0, 0), "train": (40, 40, 145), "val_v1.0": (12, 12, 12)}
    for file in files:
        path, out = shared_data / file, tmp_path / Path(file).stem
        read, kept, pictures = expected[path.stem]
        if not kept:
            with pytest.raises(RiceError, match=f"{read} of {read} are refused: video is not supported: {read}"):
                prepare_rows([path], None, out, config=PictureConfig(), progress=SilentProgress())
            continue
        report = prepare_rows([path], None, out, config=PictureConfig(decode=True), progress=SilentProgress())
        assert (report["read"], report["kept"], report["pictures"]) == (read, kept, pictures)
        rows = Rows(out)
        for one in rows:
            opened = [rows.open_image(one, k) for k in range(len(one.images))]
            assert [(picture.height, picture.width) for picture in opened] == list(one.sizes)
