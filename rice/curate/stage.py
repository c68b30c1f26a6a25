"""What a stage of curation is, and how it is known which of its shards are done.

A stage works on one shard at a time, reads nothing but what earlier stages wrote for that shard, and writes its
products and then a manifest, OUT/STAGE/SHARD.json: what it was made from and with (`identity`), the SHA-256 of every
product, counts and drops by reason. A shard whose manifest has the expected identity, and whose products have their
sizes, is done; anything else is made anew. So a stage can be killed at any instant, and run anywhere.
"""

import abc
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from rice.errors import RiceError
from rice.files import make_folder, read_object, sha256_file, sha256_json, write_json
from rice.runs import same_run


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of one shard. products: files below OUT. drops: what was left out, by reason."""

    products: tuple[Path, ...] = ()
    counts: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A done shard, as OUT/STAGE/SHARD.json says."""

    identity: str
    products: dict[str, dict[str, Any]]
    counts: Counter[str]
    drops: Counter[str]
    seconds: float

    @property
    def digest(self) -> str:
        """SHA-256 of what the stage made: what later stages depend on."""
        return sha256_json({name: product["sha256"] for name, product in self.products.items()})


SHARDS, CLUSTERS, PAGE, REPORT = "shards", "clusters", "page", "report.json"
"""Below OUT: the data set (pictures, then annotations), what they were clustered into, the page, and the report."""

Work = Callable[[str], Generator[None, None, Done]]
"""Works on a shard: writes all but the manifest, and yields after every picture."""


class Stage(abc.ABC):
    """One stage of one curation. It can be pickled: workers elsewhere get it, and call `open` once."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised whenever a change of code changes what the stage writes."""

    out: Path

    def on_gpu(self) -> bool:
        """Whether a GPU helps."""
        return False

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """JSON values: all that the products depend on besides the shard."""

    @abc.abstractmethod
    def inputs(self, shard: str) -> list[str]:
        """Digests of what the stage reads for a shard."""

    @abc.abstractmethod
    def open(self, device: str) -> Work:
        """Load what the stage needs."""

    def only(self, shard: str) -> "Stage":
        """The stage as a worker gets it with one shard: without what it has of others."""
        return self

    @property
    def folder(self) -> Path:
        """Where manifests and most products lie."""
        return self.out / self.name

    def claim(self) -> None:
        """Remove what killed workers have left; nobody may be at work.

        Errors: RiceError where the stage has run with other settings: its products would be lost.
        """
        make_folder(self.folder)
        for folder in (self.folder, self.out / SHARDS):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)
        same_run(self.folder, {"kind": f"curate {self.name}", "version": self.version, **self.settings()})

    def identity(self, shard: str) -> str:
        """Of what the stage would make for a shard."""
        facts = {"stage": self.name, "version": self.version, "settings": self.settings(), "inputs": self.inputs(shard)}
        return sha256_json(facts)

    def manifest(self, shard: str) -> Manifest:
        """Errors: RiceError where the shard is not done."""
        return self.before(self.name, shard)

    def before(self, stage: str, shard: str) -> Manifest:
        """What an earlier stage made of the shard. Errors: RiceError where it is not done."""
        found = read_manifest(self.out, stage, shard)
        if found is None:
            command = f"IMAGES --out {self.out}" if stage in ("scan", "decode") else f"{stage} {self.out}"
            raise RiceError(f"{self.out / stage} has no {shard} yet, or not whole; run rice curate {command}")
        return found

    def finished(self, shard: str) -> bool:
        """Whether the shard is done as this stage would do it."""
        found = read_manifest(self.out, self.name, shard)
        return found is not None and found.identity == self.identity(shard)

    def do(self, work: Work, shard: str) -> Generator[None, None, None]:
        """Make the shard's products, then its manifest; yield after every picture."""
        identity, begin = self.identity(shard), time.perf_counter()
        done = yield from work(shard)
        products = {
            str(path.relative_to(self.out)): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
            for path in done.products
        }
        document = {
            "identity": identity,
            "products": products,
            "counts": dict(done.counts),
            "drops": dict(done.drops),
            "seconds": round(time.perf_counter() - begin, 3),
        }
        write_json(_path(self.out, self.name, shard), document)


def read_manifest(out: Path, stage: str, shard: str) -> Manifest | None:
    """None where the shard is not done, or its products are gone or cut off."""
    path = _path(out, stage, shard)
    try:
        found = read_object(path)
        manifest = Manifest(
            identity=str(found["identity"]),
            products=dict(found["products"]),
            counts=Counter(found["counts"]),
            drops=Counter(found["drops"]),
            seconds=float(found["seconds"]),
        )
        whole = all((out / name).stat().st_size == product["bytes"] for name, product in manifest.products.items())
    except (RiceError, OSError, KeyError, TypeError, ValueError):
        return None  # to be made anew
    return manifest if whole else None


class Totals(NamedTuple):
    """Over shards. seconds: of all workers' work."""

    counts: Counter[str]
    drops: Counter[str]
    seconds: float


def totals(out: Path, stage: str, shards: Iterable[str]) -> Totals:
    """Of all shards that are done."""
    found = Totals(Counter(), Counter(), 0.0)
    for shard in shards:
        manifest = read_manifest(out, stage, shard)
        if manifest is not None:
            found.counts.update(manifest.counts)
            found.drops.update(manifest.drops)
            found = found._replace(seconds=found.seconds + manifest.seconds)
    return found


def _path(out: Path, stage: str, shard: str) -> Path:
    return out / stage / f"{shard}.json"
