"""Piles of small pictures, good and bad, in every layout that curation reads."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def pixels(number: int, width: int = 80, height: int = 64) -> np.ndarray:
    """A picture like no other: four flat quarters."""
    colours = np.random.default_rng(number).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return colours.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def encoded(array: np.ndarray | Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(number: int, **size: int) -> bytes:
    return encoded(pixels(number, **size), quality=95)


def turned(array: np.ndarray, orientation: int, kind: str = "JPEG", **options: Any) -> bytes:
    """A picture that EXIF asks to be turned."""
    image = Image.fromarray(array)
    exif = image.getexif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif, **({"quality": 95} | options))


def bomb() -> bytes:
    """A PNG of a hundred bytes whose header announces 60,000 x 60,000 pixels."""
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def write_scenes(folder: Path, count: int) -> Path:
    """Generated pictures with objects and words."""
    from rice.data.world import Part, SceneConfig, draw_scene

    layout = SceneConfig(height=120, width=160, objects=(2, 4), words=(1, 2))
    scenes = (draw_scene(layout, Part.TRAIN, 0, number).image for number in range(count))
    return write_files(folder, {f"{number:02d}.jpg": encoded(scene, quality=95) for number, scene in enumerate(scenes)})


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def finish(out: Path, stage: str, shard: str, *products: Path) -> None:
    """The manifest of a stage whose products a test wrote."""
    from rice.files import sha256_file, write_json

    said = {
        str(path.relative_to(out)): {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in products
    }
    counts: dict[str, int] = {}
    write_json(
        out / stage / f"{shard}.json",
        {"identity": "by hand", "products": said, "counts": counts, "drops": counts, "seconds": 1.0},
    )


def sa1b(width: int, height: int, boxes: list[list[float]]) -> bytes:
    """An annotation file as SA-1B has beside each picture, with masks as RLE."""
    from pycocotools import mask as coco_mask

    annotations = []
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        plane = np.zeros((height, width), np.uint8, order="F")
        plane[int(y0) : int(y1), int(x0) : int(x1)] = 1
        rle = coco_mask.encode(plane)
        annotations.append(
            {
                "id": number,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                "predicted_iou": 0.9 - 0.1 * number,
                "stability_score": 0.95,
            }
        )
    image = {"image_id": 1, "width": width, "height": height, "file_name": "sa_1.jpg"}
    return json.dumps({"image": image, "annotations": annotations}).encode()
