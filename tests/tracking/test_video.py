"""One target through one video: a film that browsers play, a box a frame, and input that is refused in one line."""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tiny_tracker import (
    CONFIG,
    ENCODER,
    Box,
    Frame,
    config,
    square_frames,
    tiny_encoder,
    tiny_tracker,
    walk,
    write_clip,
    write_frames,
)

from probes.heads import save_heads
from rice.cli import main
from rice.data.video import open_footage, write_video
from rice.encoders.identity import fingerprint
from rice.encoders.load import load_encoder
from rice.encoders.spec import EncoderReference
from rice.errors import RiceError
from rice.progress import SilentProgress
from tracking.checkpoint import TrackerFacts
from tracking.draw import FOUND, TRUTH, draw_found
from tracking.evaluate import Store, Track
from tracking.preview import write_preview
from tracking.tracker import Found
from tracking.video import check_start, known_truth, run_video

BOXES = walk(7, (20, 12, 12, 10), (2, 1))


def frames_of(boxes: list[Box] = BOXES, size: tuple[int, int] = (48, 64)) -> list[Frame]:
    return square_frames(boxes, [size] * len(boxes))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "films/walk.mp4"
    path.parent.mkdir()
    write_video(path, frames_of(), Fraction(10))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained tracker on the encoder that comes with the package."""
    import dataclasses

    path = tmp_path_factory.mktemp("model") / "last.safetensors"
    facts = TrackerFacts(
        encoder=ENCODER,
        weights="default",
        fingerprint=fingerprint(EncoderReference.parse(ENCODER)),
        patch=8,
        width=128,
        sizes=(16, 32),
        config=dataclasses.asdict(CONFIG),
        seed=0,
        done=0,
        updates=1,
        scores={},
        versions={},
    )
    save_heads(path, tiny_tracker(load_encoder(ENCODER)).head, facts)
    return path


def rows(path: Path) -> list[list[float]]:
    return [[float(value) for value in line.split(",")] for line in path.read_text().splitlines()]


def streams(path: Path) -> tuple[str, str, tuple[int, int], Fraction, int]:
    """Codec, pixel format, width and height, rate, and how many frames can be decoded."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        count = sum(1 for _ in container.decode(stream))
        context = stream.codec_context
        assert stream.average_rate is not None
        return context.name, str(context.pix_fmt), (context.width, context.height), stream.average_rate, count


def test_a_video_becomes_h264_of_as_many_frames_and_a_line_a_frame(video: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--box", "20", "12", "12", "10", "--model", str(model), "--out", str(out), "--device", "cpu"]
    main(["track", "run", str(video), *words])
    assert sorted(path.name for path in out.iterdir()) == ["walk.mp4", "walk.txt"]
    assert streams(out / "walk.mp4") == ("h264", "yuv420p", (64, 48), Fraction(10), 7)
    found = rows(out / "walk.txt")
    assert found[0] == [20, 12, 12, 10]
    tracker = tiny_tracker(load_encoder(ENCODER))
    images = [frame.image for frame in open_footage(video).frames()]
    expected = [one.box for one in tracker.track(images, (20.0, 12.0, 12.0, 10.0))]
    np.testing.assert_allclose(found, expected, rtol=0, atol=6e-5)


def test_what_is_said_is_where_to_look_and_how_fast(
    video: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--box", "20", "12", "12", "10", "--model", str(model), "--out", str(tmp_path / "out")]
    main(["track", "run", str(video), *words])
    said = capsys.readouterr().out
    assert "frames/s followed" in said
    assert str(tmp_path / "out/walk.mp4") in said
    assert str(tmp_path / "out/walk.txt") in said
    assert float(said.split()[0]) > 0


@pytest.mark.parametrize("size", [(47, 63), (48, 61), (9, 11)])
def test_odd_and_tiny_pictures_make_a_film(size: tuple[int, int], tmp_path: Path) -> None:
    frames = frames_of(walk(3, (2, 2, 6, 5), (1, 0)), size)
    write_frames(tmp_path / "odd", frames)
    footage = open_footage(tmp_path / "odd")
    film, result, _ = run_video(footage, (2, 2, 6, 5), tiny_tracker(), tmp_path / "out", SilentProgress())
    codec, pixels, (width, height), _, count = streams(film)
    assert (codec, pixels, count) == ("h264", "yuv420p", 3)
    assert (height, width) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert len(rows(result)) == 3


def polygon(box: Box) -> str:
    x, y, width, height = box
    corners = [(x + width / 2, y), (x + width, y + height / 2), (x + width / 2, y + height), (x, y + height / 2)]
    return ",".join(f"{value:.2f}" for corner in corners for value in corner)


@pytest.mark.parametrize(("inside", "given"), [("", ""), ("img", "img"), ("imgs", "")])
def test_a_folders_polygons_give_the_first_box_and_are_drawn(
    inside: str, given: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "clip"
    write_frames(root / inside, frames_of())
    (root / "groundtruth.txt").write_text("".join(polygon(box) + "\n" for box in BOXES))
    drawn: list[tuple[float, ...] | None] = []

    def watched(frame: Frame, found: Found, text: str, truth: list[float] | None) -> Frame:
        drawn.append(None if truth is None else tuple(truth))
        return draw_found(frame, found, text, None if truth is None else tuple(truth))

    monkeypatch.setattr("tracking.video.draw_found", watched)
    main(["track", "run", str(root / given), "--model", str(model), "--out", str(tmp_path / "out"), "--device=cpu"])
    assert rows(tmp_path / "out/clip.txt")[0] == [20, 12, 12, 10]
    assert drawn == [pytest.approx(box) for box in BOXES]
    words = ["--box", "21", "12", "12", "10", "--model", str(model), "--out", str(tmp_path / "other"), "--device=cpu"]
    main(["track", "run", str(root / given), *words])
    assert rows(tmp_path / "other/clip.txt")[0] == [21, 12, 12, 10], "a box that is given comes first"


def test_truths_that_say_nothing_or_end_early_are_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("tracking.video.draw_found", lambda frame, found, text, truth: drawn.append(truth) or frame)
    write_frames(tmp_path / "clip", frames_of())
    truth = np.array([BOXES[0], (0, 0, 0, 0), (math.nan,) * 4, BOXES[3]], float)
    run_video(open_footage(tmp_path / "clip"), BOXES[0], tiny_tracker(), tmp_path / "out", SilentProgress(), truth)
    assert drawn == [list(BOXES[0]), None, None, list(BOXES[3]), None, None, None]


def test_truths_are_known_of_folders_alone(tmp_path: Path, video: Path) -> None:
    clip = write_clip(tmp_path / "clip", BOXES)
    assert known_truth(tmp_path / "clip") is None
    (tmp_path / "clip/groundtruth.txt").write_text("1 2 3 4\n")
    found = known_truth(tmp_path / "clip")
    assert found is not None
    assert found.tolist() == [[1, 2, 3, 4]]
    (video.parent / "groundtruth.txt").write_text("1 2 3 4\n")
    assert known_truth(video) is None
    assert len(clip) == 7


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["track", "run", *map(str, words)])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_bad_input_is_one_line_and_nothing_is_written(
    video: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:900])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    to = ["--model", model, "--out", tmp_path / "out"]
    box = ["--box", 20, 12, 12, 10]
    assert "say where the target is" in refused(capsys, video, *to)
    assert "--box X Y W H" in refused(capsys, video, *to)
    for wrong in ((64, 0, 9, 9), (0, 48, 9, 9), (-9, 0, 9, 9), (0, -9, 9, 9), (500, 500, 1, 1)):
        line = refused(capsys, video, "--box", *wrong, *to)
        assert f"{' '.join(map(str, wrong))} lies outside the first frame of 64 x 48 pixels" in line
    for wrong in ((5, 5, 0, 9), (5, 5, 9, 0), (5, 5, -3, 9)):
        assert "with a width and a height over 0, got" in refused(capsys, video, "--box", *wrong, *to)
    assert "a width and a height over 0" in refused(capsys, video, "--box", 5, 5, "nan", 9, *to)
    assert "cut.mp4" in refused(capsys, tmp_path / "cut.mp4", *box, *to)
    assert "text.mp4 is not a video that can be read" in refused(capsys, tmp_path / "text.mp4", *box, *to)
    assert "there is no file or folder" in refused(capsys, tmp_path / "nowhere.mp4", *box, *to)
    assert "found none" in refused(capsys, tmp_path / "empty", *box, *to)
    none = ["--model", tmp_path / "none.safetensors", "--out", tmp_path / "out"]
    assert "expected a tracker at" in refused(capsys, video, *box, *none)
    assert not (tmp_path / "out").exists()


def test_a_video_is_not_overwritten_by_its_film_nor_its_truth_by_the_boxes(
    video: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = video.with_suffix(".txt")
    truth.write_text("20 12 12 10\n")
    before = video.read_bytes()
    words = ["--box", 20, 12, 12, 10, "--model", model, "--out", video.parent / "../films"]
    assert "would be overwritten; name another --out" in refused(capsys, video, *words)
    assert (video.read_bytes(), truth.read_text()) == (before, "20 12 12 10\n")


def test_a_first_box_that_touches_the_frame_is_taken() -> None:
    for box in ((-8.9, 0, 9, 9), (63.5, 47.5, 9, 9), (0, 0, 640, 480), (10, 10, 0.01, 0.01)):
        check_start(box, 48, 64)


def test_a_frame_that_is_damaged_is_named_and_leaves_no_half_film(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip", frames_of())
    (tmp_path / "clip/00000004.png").write_bytes(b"no picture")
    with pytest.raises(RiceError, match=r"00000004\.png"):
        run_video(open_footage(tmp_path / "clip"), BOXES[0], tiny_tracker(), tmp_path / "out", SilentProgress())
    assert list((tmp_path / "out").iterdir()) == []


def outline(picture: Frame, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    found_rows, found_columns = np.nonzero((picture == colour).all(2))
    return int(found_columns.min()), int(found_rows.min()), int(found_columns.max()), int(found_rows.max())


def test_boxes_are_drawn_on_their_own_border_pixels() -> None:
    frame = np.full((120, 160, 3), 90, np.uint8)
    picture = draw_found(frame, Found((40, 60, 20, 30), None), truth=(70, 65, 11, 12))
    assert outline(picture, FOUND) == (40, 60, 59, 89)
    assert outline(picture, TRUTH) == (70, 65, 80, 76)
    assert (picture[75, 50] == 90).all(), "what is inside is seen"
    assert (frame == 90).all()
    assert not np.array_equal(draw_found(frame, Found((40, 60, 20, 30), 0.5)), picture)
    assert np.array_equal(
        draw_found(frame, Found((40, 60, 20, 30), None), ""), draw_found(frame, Found((40, 60, 20, 30), None))
    )


@pytest.mark.parametrize(
    "box", [(-30.0, -30.0, 5.0, 5.0), (500.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.2, 0.2), (-9.0, -9.0, 900.0, 900.0)]
)
def test_any_box_can_be_drawn(box: Box) -> None:
    assert draw_found(np.zeros((8, 9, 3), np.uint8), Found(box, 1.0), "text", box).shape == (8, 9, 3)


def test_the_preview_shows_stored_boxes_and_truths_of_a_benchmark_that_counts_from_one(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip", BOXES, (384, 384), benchmark="lasot", origin=1)
    store = Store(tmp_path)
    store.write(clip, Track(np.tile([100.0, 200, 50, 40], (7, 1)), np.ones(7)))
    write_preview(tmp_path / "preview.png", [clip], store)
    with Image.open(tmp_path / "preview.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (384, 4 * 384, 3)
    for tile, index in enumerate((0, 2, 4, 6)):
        shown = pixels[:, tile * 384 : (tile + 1) * 384]
        assert outline(shown, FOUND) == (100, 200, 149, 239)
        x, y, width, height = BOXES[index]
        assert outline(shown, TRUTH) == (x, y, x + width - 1, y + height - 1)


def test_without_pictures_there_is_no_preview(tmp_path: Path) -> None:
    write_preview(tmp_path / "preview.png", [], Store(tmp_path))
    assert not (tmp_path / "preview.png").exists()


@pytest.mark.data
def test_a_real_clip_of_vot_is_followed_from_its_polygons(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "tracking/vot15_bag/imgs"
    encoder = tiny_encoder(8)
    tracker = tiny_tracker(encoder, config(template_size=32, search_size=64))
    truth = known_truth(folder)
    assert truth is not None
    first: Box = tuple(truth[0].tolist())
    film, result, _ = run_video(open_footage(folder), first, tracker, tmp_path, SilentProgress(), truth)
    found = np.array(rows(result))
    assert found.shape == (196, 4)
    np.testing.assert_allclose(found[0], first, atol=6e-5)
    assert np.isfinite(found).all()
    assert streams(film)[-1] == 196
