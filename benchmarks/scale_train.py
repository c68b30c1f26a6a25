"""What a billion pictures and ten million classes take of a training's processes. Exits 1 where a limit breaks.

    python benchmarks/scale_train.py [--divide 100] [--json FILE]

index    `RegionStream` over a billion pictures in shards of 10,000: dataset.json is real, the shards are not there;
         a real sidecar of one shard says what an open one adds
bank     `CenterBank` of ten million classes: a rank's share on torch's meta device must have the bytes that arithmetic
         says; a small real one, too, and its gradients after a step

Every figure is of a process of its own, as in benchmarks/scale.py.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.timing import Figures, Stages, apart, begin, process_mib, sizes, whole_of

PICTURES, IN_SHARD, REGIONS = 10**9, 10_000, 8
INDEX_LIMITS = {"cpu_s": 60.0, "peak_mib": 2048.0}
CLASSES, WIDTH, RANKS, RHO, SLOTS, LABELS = 10**7, 768, (1, 8, 64), 0.1, 10, 327_680
"""Of the paper: a tenth of the classes as negatives of each of ten slots, in 32,768 pictures."""
TOLERANCE = 0.02
"""Of the gradients' bytes: which rows a step touches is drawn."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        divide: All sizes by this, to try it. Limits are not judged then.
        json: Write the figures here, too.
    """

    divide: int = 1
    json: Path | None = None


def main(config: Config) -> int:
    """Both parts; 0 where every limit is kept."""
    report = begin(config)
    with tempfile.TemporaryDirectory() as folder:
        return sizes(_rows(Path(folder), config.divide), report, config.json, judged=config.divide == 1)


def _rows(folder: Path, divide: int) -> Iterator[Figures]:
    yield from index_part(folder, divide)
    yield from bank_part(divide)


def index_part(folder: Path, divide: int) -> Iterator[Figures]:
    """A billion pictures, and an open shard."""
    small, whole = (apart(indexed, folder, PICTURES // divide // part) for part in (10, 1))
    what = f"index: {PICTURES // divide:,} pictures, {whole['shards']:,} shards"
    yield whole_of(what, small, whole, limits=INDEX_LIMITS)
    small, whole = (apart(sidecar, folder, IN_SHARD // divide // part) for part in (10, 1))
    yield whole_of(f"index: an open shard of {IN_SHARD // divide:,}", small, whole)


def indexed(folder: Path, pictures: int) -> Figures:
    """From dataset.json to the first places of two epochs; a batch's 32,768 positions a time."""
    import numpy as np

    from rice.data.shards import DATASET, DatasetInfo, ShardInfo, write_dataset
    from rice.data.stream import RegionStream, StreamConfig

    place = folder / f"index-{pictures}"
    place.mkdir()
    size = min(IN_SHARD, pictures)
    shards = tuple(
        ShardInfo(name=f"web-{i:06d}", samples=size, regions=REGIONS * size, tar_bytes=size * 100_000)
        for i in range(pictures // size)
    )
    write_dataset(place, DatasetInfo(object_classes=10**6, ocr_classes=50_000, shards=shards))
    del shards
    stages, held = Stages(), process_mib("VmRSS:")
    with stages.step("opening"):
        stream = RegionStream.open(place, StreamConfig(size=224))
    held = process_mib("VmRSS:") - held
    with stages.step("first batch"):
        stream._order.locate(np.arange(32_768))
    with stages.step("a batch"):
        _, samples = stream._order.locate(np.arange(32_768) + stream.samples // 2)
        stream._places(samples)
    return {
        "shards": len(stream._shards),
        "held_mib": held,
        "bytes": (place / DATASET).stat().st_size,
        "stages": stages,
    }


def sidecar(folder: Path, pictures: int) -> Figures:
    """Written, then read as a stream opens it."""
    import numpy as np

    from rice.data.shard_reader import Shard
    from rice.data.shards import write_sidecar

    place = folder / f"sidecar-{pictures}"
    place.mkdir()
    with (place / "web.tar").open("wb") as tar:
        tar.truncate(pictures * 100_000)
    boxes = [[i, i, i + 100, i + 100] for i in range(REGIONS)]
    rows = [
        {"key": f"{i:012d}", "suffix": "jpg", "width": 640, "height": 480, "boxes": boxes, "labels": [i] * REGIONS,
         "tokens": [[1, 2]] * REGIONS, "scores": [0.5] * REGIONS, "image_labels": [i], "captions": [],
         "offset": 512 + i * 100_000, "length": 90_000}
        for i in range(pictures)
    ]  # fmt: skip
    info = write_sidecar(place, "web", rows)
    del rows
    stages, shard = Stages(), Shard(str(place), info, 10**6, 50_000)
    with stages.step("opening"):
        found = shard.sidecar
    arrays = [value for value in vars(found).values() if value is not None]
    held = sum(one.nbytes for one in arrays if isinstance(one, np.ndarray) or hasattr(one, "nbytes"))
    return {"held_mib": held / 2**20, "bytes": (place / "web.parquet").stat().st_size, "stages": stages}


def bank_part(divide: int) -> Iterator[Figures]:
    """A rank's memory by arithmetic and on the meta device; then a small bank's, that is real."""
    classes = CLASSES // divide
    for ranks, found in apart(on_meta, classes)["ranks"].items():
        yield {"what": f"bank: {classes:,} x {WIDTH}, each of {ranks} ranks", **found}
    yield {"what": f"bank: 20,000 x {WIDTH}, real, a step", **apart(stepped, 20_000)}
    yield {"what": f"bank: a slot's sample of {int(RHO * classes):,}", **apart(drawn, classes)}


def bank_bytes(classes: int, ranks: int, labels: int) -> tuple[int, int]:
    """A rank's (centres, moments and counts; gradients of the rows that a step of SLOTS samples touches)."""
    own = -(-classes // ranks)
    touched = own * (1 - (1 - RHO) ** SLOTS * (1 - 1 / classes) ** labels)
    return own * (12 * WIDTH + 4), round(touched * (4 * WIDTH + 8))


def on_meta(classes: int) -> Figures:
    """Bytes of a rank's share of a bank that takes none, for several numbers of ranks."""
    import torch
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from rice.loss import CenterBank

    found = {}
    for ranks in RANKS:
        began, cpu = time.perf_counter(), time.process_time()
        dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
        with torch.device("meta"):
            bank = CenterBank(classes, WIDTH, rho=RHO, device="meta")
        dist.destroy_process_group()
        has = sum(tensor.nbytes for tensor in bank._rows)
        derived, gradients = bank_bytes(classes, ranks, LABELS)
        found[ranks] = {
            "cpu_s": time.process_time() - cpu,
            "seconds": time.perf_counter() - began,
            "peak_mib": process_mib("VmHWM:"),
            "bytes": has,
            "gradient_bytes": gradients,
            "told": f"{has / 2**30:.2f} GiB, and {gradients / 2**30:.2f} of gradients where they are kept",
            "wrong": "" if has == derived else f"{derived:,} bytes by arithmetic, {has:,} in tensors",
        }
    return {"ranks": found}


def stepped(classes: int) -> Figures:
    """Bytes of a bank and its gradients after a step's backward pass, counted in its tensors."""
    import torch

    from rice.loss import CenterBank

    bank = CenterBank(classes, WIDTH, rho=RHO)
    labels = torch.randint(classes, (8, SLOTS, 1), generator=torch.Generator().manual_seed(0))
    torch.autograd.backward(bank(torch.randn(8, SLOTS, WIDTH), labels, step=0))
    gradients = sum(rows.values.nbytes + rows.rows.nbytes for rows in bank.gradients.parts())
    derived, expected = bank_bytes(classes, 1, labels.numel())
    has = sum(tensor.nbytes for tensor in bank._rows)
    apart_by = gradients / expected - 1
    return {
        "bytes": has,
        "gradient_bytes": gradients,
        "told": f"gradients {apart_by:+.2%} from the arithmetic",
        "wrong": "" if has == derived and abs(apart_by) < TOLERANCE else "other bytes than by arithmetic",
    }


def drawn(classes: int) -> Figures:
    """Which of a slot's negatives are the first rank's of the most: every rank draws all of them."""
    import torch

    from rice.loss.sampling import sample, sample_size

    before, shard = process_mib("VmHWM:"), range(-(-classes // RANKS[-1]))
    ids = sample(sample_size(RHO, classes), classes, (0, 1, 2), shard, torch.device("cpu"))
    return {"told": f"{len(ids):,} are its own, {process_mib('VmHWM:') - before:.0f} MiB meanwhile"}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
