"""`python bombs.py FOLDER [NAME...]` reads hostile files (all, or the named ones), one after another, and says of each
in a line of JSON how it ended, and what memory and time of the processor that took. All are small and ask for much.

RICE_BOMBS: how many times larger those are whose size can be chosen; 1 where it is not set.
"""

import contextlib
import gzip
import io
import json
import os
import resource
import struct
import sys
import tarfile
import time
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rice.errors import RiceError

SCALE = int(os.environ.get("RICE_BOMBS", "1"))
MIB = 1 << 20
ROOM = 4 << 30
"""Of address space beyond what is taken: what goes beyond it fails, and takes no machine down."""


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


def picture(folder: Path) -> None:
    """200,000 x 200,000 pixels, by every way that opens a picture."""
    from rice.data.decode import DamagedPictureError, decode_picture
    from rice.data.picture import open_upright
    from rice.data.video import open_footage

    path = folder / "a.png"
    path.write_bytes(png(200_000, 200_000))
    with contextlib.suppress(DamagedPictureError):
        decode_picture(path.read_bytes(), (200_000, 200_000))
    for read in (open_footage, open_upright):
        with contextlib.suppress(RiceError):
            read(path)
            raise AssertionError("read")
    open_upright(path)


def raised_limit(folder: Path) -> None:
    """Other libraries raise Pillow's limit, for the whole process: tasks of lmms-eval do."""
    from rice.data.picture import open_upright

    kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        (folder / "b.png").write_bytes(png(20_000, 20_000))
        open_upright(folder / "b.png")
    finally:
        Image.MAX_IMAGE_PIXELS = kept


def drawn_by_a_program(folder: Path) -> None:
    """PostScript under another name: Pillow would have Ghostscript run it."""
    from rice.data.picture import open_picture

    Image.new("RGB", (8, 8)).save(folder / "c.eps")
    (folder / "c.eps").rename(folder / "c.jpg")
    open_picture(folder / "c.jpg")


def pipe(folder: Path) -> None:
    """Whoever opens it waits for ever."""
    from rice.data.picture import open_picture

    os.mkfifo(folder / "d.jpg")
    open_picture(folder / "d.jpg")


def many_frames(folder: Path) -> None:
    """Animations: only the first frame is decoded."""
    from rice.data.picture import open_upright

    frames = [Image.new("L", (400, 400), number % 256) for number in range(2 * SCALE, 300 * SCALE)]
    for suffix in ("png", "gif", "webp"):
        path = folder / f"e.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:] if suffix != "webp" else frames[1:20])
        begin()
        open_upright(path)
    raise RiceError("the first frame was read")


def giant_strip(folder: Path) -> None:
    """A TIFF whose one strip has 4 GiB, by its own account."""
    from rice.data.picture import open_upright

    path = folder / "f.tif"
    Image.new("RGB", (64, 64)).save(path)
    data = bytearray(path.read_bytes())
    at = next(
        k
        for k in range(8, len(data) - 12)
        if data[k : k + 4] in (struct.pack("<HH", 279, 4), struct.pack("<HH", 279, 3))
    )
    data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, 0xFFFFFFF0)
    width = next(k for k in range(8, len(data) - 12) if data[k : k + 2] == struct.pack("<H", 257))
    data[width + 2 : width + 12] = struct.pack("<HII", 4, 1, 2_000)
    path.write_bytes(bytes(data))
    begin()
    open_upright(path)
    raise RiceError("what is there was read")


def _tar(path: Path) -> None:
    """Reads it as curation does. Errors: RiceError where the reader says that it is not whole."""
    from rice.curate.sources import find_sources

    found = [one for shard in find_sources([path], 10) for one in shard.candidates()]
    if [one.content for one in found] == [None]:
        raise RiceError(found[0].name)


def _header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x.jpg")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)[: tarfile.BLOCKSIZE]


def tar_headers(folder: Path) -> None:
    """Names and records of 128 MiB each, in a few KB."""
    for number, kind in enumerate(
        (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
    ):
        path = folder / f"{number}.tar.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(_header(kind, 128 * SCALE * MIB))
            for _ in range(8 * SCALE):
                file.write(b"\0" * (16 * MIB))
        with contextlib.suppress(RiceError):
            _tar(path)
            raise AssertionError("read")
    _tar(path)


def tar_chain(folder: Path) -> None:
    """A header before a header before a header."""
    record = b"12 path=abc\n".ljust(tarfile.BLOCKSIZE, b"\0")
    (folder / "chain.tar").write_bytes((_header(tarfile.XHDTYPE, 12) + record) * 5_000)
    _tar(folder / "chain.tar")


def tar_sparse(folder: Path) -> None:
    """A sparse file of a petabyte."""
    with tarfile.open(folder / "sparse.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("x.jpg")
        info.size = 512
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)}
        tar.addfile(info, io.BytesIO(b"999999999\n".ljust(512, b"1")))
    _tar(folder / "sparse.tar")


def tar_inflated(folder: Path) -> None:
    """More than a hundred times its size, in members that are passed over."""
    import rice.curate.tars

    rice.curate.tars._LEAST = MIB if SCALE == 1 else 1 << 30
    path = folder / "zeros.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for name in ("a.bin", "b.bin"):
            info = tarfile.TarInfo(name)
            info.size = 64 * SCALE * MIB
            file.write(info.tobuf())
            for _ in range(64 * SCALE):
                file.write(b"\0" * MIB)
        file.write(b"\0" * 2 * tarfile.RECORDSIZE)
    _tar(path)


def parquet_dictionary(folder: Path) -> None:
    """One value of 48 MiB, a hundred rows of it, in a few KB."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rice.curate.sources import find_sources

    values = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int32()), pa.array([b"\0" * 48 * MIB], pa.binary()))
    pq.write_table(pa.table({"jpg": values}), folder / "g.parquet", compression="zstd", store_schema=False)
    del values
    pa.default_memory_pool().release_unused()
    begin()
    lengths = {len(one.content or b"") for s in find_sources([folder / "g.parquet"], 1) for one in s.candidates()}
    raise RiceError(f"read, of {lengths} bytes each")


def parquet_runs(folder: Path) -> None:
    """A sidecar whose columns are long runs of one value."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    import rice.data.shard_reader as reader
    from rice.data.shards import SCHEMA

    reader._LEAST = MIB
    count = 200_000
    columns = {field.name: pa.nulls(count, field.type) for field in SCHEMA}
    pq.write_table(pa.table(columns | {"offset": pa.array(np.zeros(count, np.int64))}), folder / "h.parquet")
    reader._parse("h.parquet", (folder / "h.parquet").read_bytes(), captions=False)


def deep_json(folder: Path) -> None:
    """A hundred thousand brackets, in every reader of JSON."""
    from mllm.llava.sources import find_sources
    from probes.stored import parse
    from rice.data.coco_json import parse_coco
    from rice.data.shard_reader import read_dataset
    from rice.files import read_json

    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    flat = b"[" * 100_000 + b"]" * 100_000
    for text in (deep, flat):
        (folder / "dataset.json").write_bytes(text)
        readers: tuple[Callable[[], Any], ...] = (
            lambda: read_json(folder / "dataset.json"),
            lambda: read_dataset(folder),
            lambda text=text: parse(text, "x"),
            lambda: parse_coco(folder / "dataset.json", folder),
            lambda: [list(source.values()) for source in find_sources([folder / "dataset.json"])],
        )
        for read in readers:
            with contextlib.suppress(RiceError):
                read()
                raise AssertionError("read")
    read_json(folder / "dataset.json")


def deep_yaml(folder: Path) -> None:
    """As deep in YAML."""
    from probes.yaml_files import read_yaml

    (folder / "i.yaml").write_text("[" * 20_000)
    read_yaml(folder / "i.yaml")


def entities(folder: Path) -> None:
    """A billion laughs."""
    from rice.data.voc import _read

    rows = "".join(f'<!ENTITY {a} "{f"&{b};" * 10}">' for a, b in zip("bcdefghij", "abcdefghi", strict=True))
    (folder / "j.xml").write_text(f'<!DOCTYPE x [<!ENTITY a "ha">{rows}]><annotation>&j;</annotation>')
    _read(folder / "j.xml")


def safetensors_header(folder: Path) -> None:
    """A header of 2 ** 60 bytes, and a tensor of 2 ** 62 values."""
    from rice.files import open_safetensors

    path = folder / "k.safetensors"
    shape = {"a": {"dtype": "F32", "shape": [1 << 31, 1 << 31], "data_offsets": [0, 1 << 62]}}
    header = json.dumps(shape).encode()
    for content in (struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", len(header)) + header):
        path.write_bytes(content)
        with contextlib.suppress(RiceError), open_safetensors(path) as file:
            raise AssertionError(list(file.keys()))
    with open_safetensors(path):
        pass


def tower(folder: Path) -> None:
    """A tower of a trillion values, by its configuration."""
    from rice.encoders.load import load_encoder

    fields = {"hidden_size": 1 << 18, "num_hidden_layers": 1000, "num_attention_heads": 1 << 12, "patch_size": 14}
    config = {"model_type": "mlcd_vision_model", "image_size": 224, "intermediate_size": 1 << 19, **fields}
    (folder / "config.json").write_text(json.dumps(config))
    load_encoder(f"rice:{folder}", weights=None)


def large_frames(folder: Path) -> None:
    """A video of frames with 192 million pixels."""
    from rice.data.video import open_footage

    (folder / "l.mp4").write_bytes(b"YUV4MPEG2 W16000 H12000 F25:1 Ip A1:1 C420jpeg\nFRAME\n" + b"\0" * 1000)
    open_footage(folder / "l.mp4")


def endless_video(folder: Path) -> None:
    """A video of six frames that announces years of them."""
    from rice.data.video import open_footage, write_video

    path = folder / "m.mp4"
    write_video(path, iter(np.zeros((6, 32, 48, 3), np.uint8)), Fraction(10))
    data = bytearray(path.read_bytes())
    for box, at in ((b"mdhd", 20), (b"mvhd", 20), (b"tkhd", 24)):
        place = data.index(box) + at
        data[place : place + 4] = struct.pack(">I", 0x7FFFFFFF)
    edits = data.find(b"elst")
    if edits >= 0:
        data[edits + 12 : edits + 16] = struct.pack(">I", 0x7FFFFFFF)
    path.write_bytes(bytes(data))
    begin()
    assert open_footage(path).check() == 6
    raise RiceError("what is there was read")


def endless_frames(folder: Path) -> None:
    """Two frames whose numbers announce a hundred million between them."""
    from tracking.layouts.frames import names_in, numbered_frames

    for name in ("00000001.jpg", "99999999.jpg"):
        (folder / name).touch()
    numbered_frames(folder, names_in(folder), pattern="%08d.jpg", first=1)


BOMBS = (
    *(picture, raised_limit, drawn_by_a_program, pipe, many_frames, giant_strip, tar_headers, tar_chain, tar_sparse),
    *(tar_inflated, parquet_dictionary, parquet_runs, deep_json, deep_yaml, entities, safetensors_header, tower),
    *(large_frames, endless_video, endless_frames),
)


def memory(key: str) -> int:
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(f"{key}:"))


_base = [0, 0.0]


def begin() -> None:
    """What is taken and was spent until now does not count: by what made the bomb."""
    Path("/proc/self/clear_refs").write_text("5")
    _base[:] = memory("VmRSS"), time.process_time()


def measured(bomb: Callable[[Path], None], folder: Path) -> dict[str, Any]:
    """How it ended, the largest growth of memory in bytes, seconds of the processor."""
    folder.mkdir()
    begin()
    try:
        bomb(folder)
        kind, said = "", "read"
    except BaseException as error:
        kind, said = type(error).__name__, str(error)
    bytes_, seconds = memory("VmHWM") - _base[0], time.process_time() - _base[1]
    return {"name": bomb.__name__, "kind": kind, "said": said, "bytes": bytes_, "seconds": seconds}


def main(folder: Path, names: list[str]) -> None:
    import torch  # noqa: F401 - what is imported on the way is no reader's

    import tracking.layouts  # noqa: F401
    from mllm.llava import sources  # noqa: F401

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + ROOM * SCALE, hard))
    for bomb in (bomb for bomb in BOMBS if not names or bomb.__name__ in names):
        print(json.dumps(measured(bomb, folder / bomb.__name__)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
