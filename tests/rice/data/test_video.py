"""Frames are read upright and whole or not at all; what is written plays in a browser."""

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rice.data.video import natural_key, open_footage, write_video
from rice.errors import RiceError

FPS = Fraction(30000, 1001)


def gradient(number: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A frame whose colours are smooth (chroma subsampling keeps them) and move with its number."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [50 + x * 80 // width + number, 60 + y * 120 // height, np.full_like(x, 60 + number)]
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_video(path, (gradient(number) for number in range(40)), FPS)
    return path


def boxes(path: Path) -> list[str]:
    """Names of an MP4's outer boxes, in order."""
    data, at, names = path.read_bytes(), 0, []
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        names.append(name.decode())
        at += size
    return names


def error_of(path: Path) -> str:
    with pytest.raises(RiceError) as caught:
        open_footage(path).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_written_video_is_h264_that_starts_before_it_is_whole(clip: Path) -> None:
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (128, 96, FPS)
        assert sum(1 for _ in container.decode(stream)) == 40
    names = boxes(clip)
    assert names.index("moov") < names.index("mdat")


def test_written_colours_are_read_back_without_a_shift(clip: Path) -> None:
    for frame in open_footage(clip).frames():
        difference = frame.image.astype(int) - gradient(frame.index)
        luma = difference @ [0.2126, 0.7152, 0.0722]
        assert abs(luma.mean()) < 0.3  # FFmpeg's own default is 1.4 levels off
        assert np.abs(difference).mean() < 1.5


def test_odd_edges_gain_a_repeated_row_and_column(tmp_path: Path) -> None:
    write_video(tmp_path / "odd.mp4", [gradient(0, 95, 127)], Fraction(24))
    footage = open_footage(tmp_path / "odd.mp4")
    assert (footage.height, footage.width) == (96, 128)


@pytest.mark.parametrize("at", [0, 3])
def test_a_writer_that_fails_leaves_nothing(tmp_path: Path, at: int) -> None:
    def images() -> Iterator[np.ndarray]:
        yield from (gradient(number) for number in range(at))
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="broke"):
        write_video(tmp_path / "clip.mp4", images(), FPS)
    assert list(tmp_path.iterdir()) == []


def test_no_frame_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="no frame"):
        write_video(tmp_path / "clip.mp4", [], FPS)


def test_stride_and_stop_select_frames_by_their_number(clip: Path) -> None:
    frames = list(open_footage(clip).frames(stride=7, stop=30))
    assert [frame.index for frame in frames] == [0, 7, 14, 21, 28]
    assert [frame.seconds for frame in frames] == pytest.approx([float(i / FPS) for i in range(0, 30, 7)], abs=1e-3)


def test_a_turned_video_is_read_upright(clip: Path) -> None:
    upright = next(open_footage(clip).frames()).image
    data = bytearray(clip.read_bytes())
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    at = data.index(identity, data.index(b"tkhd"))
    data[at : at + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)  # a quarter turn clockwise
    clip.write_bytes(data)
    footage = open_footage(clip)
    assert (footage.height, footage.width) == (128, 96)
    np.testing.assert_array_equal(next(footage.frames()).image, np.rot90(upright, -1))


def test_a_turned_picture_is_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gradient(0)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(next(open_footage(tmp_path / "turned.png").frames()).image, np.rot90(gradient(0), -1))


def test_a_folder_is_read_in_natural_order_without_other_files(tmp_path: Path) -> None:
    for number in (10, 9, 100, 1):
        Image.fromarray(gradient(number)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "groundtruth.txt").write_text("1,2,3,4")
    footage = open_footage(tmp_path)
    assert (footage.kind, footage.fps, footage.check()) == ("frames", None, 4)
    for frame, number in zip(footage.frames(), (1, 9, 10, 100), strict=True):
        np.testing.assert_array_equal(frame.image, gradient(number))


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order_is_the_order_of_numbers(numbers: list[int]) -> None:
    names = sorted((f"img_{number}.jpg" for number in numbers), key=natural_key)
    assert names == [f"img_{number}.jpg" for number in sorted(numbers)]


def test_frames_of_another_size_are_named(tmp_path: Path) -> None:
    Image.fromarray(gradient(0)).save(tmp_path / "1.png")
    Image.fromarray(gradient(0, 32, 32)).save(tmp_path / "2.png")
    assert "2.png has 32 x 32" in error_of(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.5, 0.7, 0.95])
def test_a_cut_video_is_refused(clip: Path, share: float) -> None:
    data = clip.read_bytes()
    clip.write_bytes(data[: int(share * len(data))])
    assert str(clip) in error_of(clip)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_cut_between_two_packets_is_refused(clip: Path, suffix: str) -> None:
    path = clip.with_suffix(suffix)
    if suffix == ".avi":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            for number in range(40):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(gradient(number), format="rgb24")))
            container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.pos]
    path.write_bytes(path.read_bytes()[: starts[len(starts) // 2]])
    assert "cut off" in error_of(path)


def test_damage_inside_a_video_is_refused_with_the_frame(clip: Path) -> None:
    data = bytearray(clip.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    clip.write_bytes(data)
    assert "frame" in error_of(clip)


@pytest.mark.parametrize("content", [b"", b"not a video", bytes(range(256)) * 20])
@pytest.mark.parametrize("suffix", [".mp4", ".jpg", ".png"])
def test_what_is_no_picture_and_no_video_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    assert str(path) in error_of(path)


def test_a_video_of_an_unknown_codec_is_refused(clip: Path) -> None:
    content = clip.read_bytes()
    assert content.count(b"avc1") > 0
    clip.write_bytes(content.replace(b"avc1", b"xxxx"))
    assert "coded in a way that FFmpeg does not know" in error_of(clip)


def test_a_title_in_another_encoding_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "titled.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.metadata["title"] = "abcdefgh"
        for number in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(gradient(number, 32, 32))))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"\xe9t\xe9 1999"))
    assert open_footage(path).check() == 3


def test_a_missing_source_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    assert "no file or folder" in error_of(tmp_path / "nothing")
    assert "expected pictures" in error_of(tmp_path)


@pytest.mark.data
def test_a_corrupt_jpeg_is_refused(shared_data: Path) -> None:
    assert "broken.jpg" in error_of(shared_data / "broken" / "broken.jpg")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count", "fps"),
    [("01_dog.mp4", 289, FPS), ("05_default_juggle.mp4", 247, Fraction(24)), ("bag.avi", 196, Fraction(25))],
)
def test_real_clips_hold_what_they_declare(shared_data: Path, name: str, count: int, fps: Fraction) -> None:
    footage = open_footage(shared_data / "video" / name)
    assert (footage.check(), footage.declared, footage.fps) == (count, count, fps)
