"""Frames in, video out: any video file, a folder of frames or a single picture; H.264 that every browser plays.

Shapes: H W pixels, 3 RGB. Frames are upright (rotation metadata and EXIF are applied) and keep the stored pixels:
a non-square sample aspect ratio is not undone. PyAV carries its own FFmpeg, so no system tool is needed.
"""

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rice.data.picture import MOST_PIXELS, PICTURES, open_upright
from rice.errors import RiceError
from rice.files import atomic_path, refuse_links_out

Image_HW3 = NDArray[np.uint8]

_X264 = {"crf": "18", "preset": "medium"}  # visually lossless
_KEY_FRAME_S = 2  # a browser seeks to key frames
_BT709 = 1  # the same number for the matrix, the primaries and the transfer curve
_LIMITED_RANGE = 1
_DEFAULT_SPACE = 5  # of libswscale
_UNKNOWN_SPACES = (0, 2, _DEFAULT_SPACE)
_CONVERSION = 2 | 1 << 18 | 1 << 13 | 1 << 19
"""libswscale's BILINEAR, ACCURATE_RND, FULL_CHR_H_INT and BITEXACT, by number: PyAV 15 has no names for the last three.
FFmpeg's default conversion rounds down (1.4 levels darker, measured) and differs between processors."""
_TIME_LOST_S, _SHARE_LOST = 0.5, 0.02  # more than both: a file that was cut, not a rounded duration


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: its place in the source (from 0), its time where the source has one, upright pixels (H, W, 3)."""

    index: int
    seconds: float | None
    image: Image_HW3


@dataclass(frozen=True, kw_only=True)
class Footage:
    """A source of frames that opens anew for each reading and is never held in memory.

    `height`, `width`: upright pixels. `fps`: None where the source has no time. `declared`: the number of frames
    that the source says it has, or None; only `check` knows. `rotation`: degrees counter-clockwise already applied.
    """

    path: Path
    kind: Literal["video", "frames", "picture"]
    height: int
    width: int
    fps: Fraction | None = None
    declared: int | None = None
    rotation: int = 0
    pictures: tuple[Path, ...] = ()

    def frames(self, *, stride: int = 1, stop: int | None = None) -> Iterator[Frame]:
        """Frames 0, stride, 2 * stride, ... below `stop`. Errors: RiceError naming the frame that is damaged."""
        if self.kind != "video":
            for index, path in enumerate(self.pictures[:stop]):
                if index % stride == 0:
                    yield Frame(index, None, self._same_size(read_frame(path), path.name))
            return
        for index, frame in enumerate(itertools.islice(_decoded(self.path), stop)):
            if index % stride == 0:
                stored = _rgb(frame)
                image = np.rot90(stored, self.rotation // 90)
                yield Frame(index, frame.time, self._same_size(np.ascontiguousarray(image), f"frame {index}"))

    def check(self, *, stop: int | None = None) -> int:
        """Decode every frame below `stop` and return how many there are. Errors: as `frames`, or for none at all."""
        if self.kind == "video":
            count = sum(1 for _ in itertools.islice(_decoded(self.path), stop))
        else:
            count = sum(1 for _ in self.frames(stop=stop))
        if not count:
            raise RiceError(f"{self.path} holds no frame; give a video, a folder of frames or a picture")
        return count

    def files(self) -> tuple[Path, ...]:
        """The files that are read, in order."""
        return self.pictures or (self.path,)

    def _same_size(self, image_HW3: Image_HW3, name: str) -> Image_HW3:
        height, width, _ = image_HW3.shape
        if (height, width) != (self.height, self.width):
            raise RiceError(
                f"expected {self.width} x {self.height} pixels in every frame of {self.path}, "
                f"{name} has {width} x {height}; resize or remove it"
            )
        return image_HW3


def open_footage(path: Path) -> Footage:
    """Open a video file, a folder of frames (in natural order: 2 before 10) or a picture, as far as its first frame.

    Errors: RiceError for a source that is missing, empty, unreadable or corrupt; for frames that are links out of their
    folder.
    """
    if path.is_dir():
        named = (p for p in path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
        pictures = tuple(sorted(named, key=lambda p: natural_key(p.name)))
        if not pictures:
            raise RiceError(f"expected pictures ({', '.join(PICTURES)}) in the folder {path}, found none")
        refuse_links_out(pictures, path)
        height, width, _ = read_frame(pictures[0]).shape
        return Footage(path=path, kind="frames", height=height, width=width, declared=len(pictures), pictures=pictures)
    if not path.is_file():
        raise RiceError(f"there is no file or folder {path}; give a video, a folder of frames or a picture")
    if path.suffix.lower() in PICTURES:
        height, width, _ = read_frame(path).shape
        return Footage(path=path, kind="picture", height=height, width=width, declared=1, pictures=(path,))
    return _open_video(path)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts `frame2` before `frame10`; the name itself breaks ties (`01` and `1`)."""
    parts = re.findall(r"(\d+)|(\D+)", name)
    return *((0, int(digits), "") if digits else (1, 0, text) for digits, text in parts), (2, 0, name)


def write_video(path: Path, images: Iterable[Image_HW3], fps: Fraction) -> int:
    """Write equal-sized RGB images as H.264 in MP4 (yuv420p, BT.709, index first); return how many were written.

    Chroma is stored per 2 x 2 pixels, so an odd edge gets its last row or column twice. Atomic: `path` is there when
    it is whole. Errors: RiceError when there is no image.
    """
    import av

    stream_of = iter(images)
    first = next(stream_of, None)
    if first is None:
        raise RiceError(f"there is no frame to write to {path}")
    height, width, _ = first.shape
    options = {"movflags": "+faststart"}
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4", options=options) as container:
        stream = _h264(container, height + height % 2, width + width % 2, fps)
        written = 0
        for image in itertools.chain([first], stream_of):
            container.mux(stream.encode(_yuv(image, stream.height, stream.width)))
            written += 1
        container.mux(stream.encode(None))
    return written


def _h264(container: Any, height: int, width: int, fps: Fraction) -> Any:
    stream = container.add_stream("libx264", rate=fps, options=_X264)
    stream.height, stream.width = height, width
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.gop_size = max(round(fps * _KEY_FRAME_S), 1)
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED_RANGE
    return stream


def _yuv(image_HW3: Image_HW3, height: int, width: int) -> Any:
    import av

    pad = ((0, height - image_HW3.shape[0]), (0, width - image_HW3.shape[1]), (0, 0))
    frame = av.VideoFrame.from_ndarray(np.pad(image_HW3, pad, mode="edge"), format="rgb24")
    return frame.reformat(
        format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE, interpolation=_CONVERSION
    )


def _rgb(frame: Any) -> Image_HW3:
    """A decoded frame in the file's own matrix. PyAV 15 applies it only where the two spaces are told to differ."""
    spaces = {} if frame.colorspace in _UNKNOWN_SPACES else {"dst_colorspace": _DEFAULT_SPACE}
    rgb: Image_HW3 = frame.to_ndarray(format="rgb24", interpolation=_CONVERSION, **spaces)
    return rgb


def _open_video(path: Path) -> Footage:
    with _opened(path) as (_, stream):
        fps, declared = stream.average_rate or None, stream.frames or None
    first = next(_decoded(path), None)
    if first is None:
        raise RiceError(f"{path} holds no frame; give a video, a folder of frames or a picture")
    quarter_turns = round(first.rotation / 90) % 4
    height, width = (first.width, first.height) if quarter_turns % 2 else (first.height, first.width)
    return Footage(
        path=path, kind="video", height=height, width=width, fps=fps, declared=declared, rotation=90 * quarter_turns
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    import av

    try:
        # Until PyAV 19, which knows no other way, a title in Latin-1 is an error if not told otherwise.
        lenient = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
        container = av.open(str(path), **lenient)
    except av.error.FFmpegError as error:
        raise RiceError(f"{path} is not a video that can be read ({error.strerror}); is it whole?") from error
    with container:
        if not container.streams.video:
            raise RiceError(f"{path} holds no video stream; give a video, a folder of frames or a picture")
        stream = container.streams.video[0]
        if stream.codec_context is None:  # to decode one crashes the process, as of PyAV 15
            raise RiceError(f"{path} is coded in a way that FFmpeg does not know; is it whole?")
        _check_pixels(path, stream.codec_context)
        # What the stream says on the way counts as well; FFmpeg's own limit is a few GB for each of its threads.
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        yield container, stream


def _check_pixels(path: Path, sized: Any) -> None:
    if sized.width * sized.height > MOST_PIXELS:
        raise RiceError(
            f"{path} has frames of {sized.width} x {sized.height} pixels, of {MOST_PIXELS:,} at most; make them smaller"
        )


def _decoded(path: Path) -> Iterator[Any]:
    """PyAV frames in order of display. FFmpeg conceals damage and takes a cut file for its end: both are refused."""
    import av

    done, packets, end = 0, 0, 0
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise RiceError(f"{path} is cut off or damaged after frame {done}; get a whole copy")
                packets += packet.size > 0
                end = max(end, (packet.pts or 0) + (packet.duration or 0))
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise RiceError(f"{path}: frame {done} is damaged; get a whole copy")
                    yield frame
                    done += 1
        except av.error.FFmpegError as error:
            raise RiceError(f"{path}: frame {done} cannot be decoded ({error.strerror}); get a whole copy") from error
        missing = _seconds_missing(container, stream, packets, end)
        if missing > _TIME_LOST_S:
            raise RiceError(f"{path} is cut off after frame {done}: {missing:.1f} s are missing; get a whole copy")


def _seconds_missing(container: Any, stream: Any, packets: int, end: int) -> float:
    """How much of what the header declares was not there: a file cut between two packets reads like a shorter one.

    MP4's frame count ignores its edit list, so there the duration counts; AVI's duration follows the file's size, so
    there the count does.
    """
    if "mp4" in container.format.name:
        declared = float((stream.duration or 0) * stream.time_base)
        missing = declared - float((end - (stream.start_time or 0)) * stream.time_base)
    else:
        rate = stream.average_rate or 1
        declared = float(stream.frames / rate)
        missing = declared - float(packets / rate)
    return missing if missing > _SHARE_LOST * declared else 0.0


def read_frame(path: Path) -> Image_HW3:
    """A picture as upright RGB. Errors: RiceError naming a file that is missing or damaged."""
    return np.asarray(open_upright(path))
