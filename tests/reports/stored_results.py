"""Stored results with chosen values, and items that give them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probes.knn.data import ImageFolder, Picture
from probes.knn.evaluate import write_items
from probes.protocol import Metric
from probes.results import Identity, Result, items_path, store
from rice.encoders.spec import EncoderSpec
from rice.files import sha256_json

SPEC = dataclasses.asdict(EncoderSpec(name="vit", source="fake", patch=16, size_multiple=16, width=8, native_size=64))


def metric(name: str = "mIoU", value: float = 0.5, **changes: Any) -> Metric:
    """A fraction of which more is better."""
    fields = {"name": name, "value": value, "n": 10, "unit": "fraction", "higher_is_better": True, "split": "val"}
    return Metric(**(fields | {"protocol": "by hand"} | changes))


def made(encoder: str, metrics: Mapping[str, float] | Sequence[Metric], *, seed: int = 0, **changes: Any) -> Result:
    """A result as a sweep makes it. `changes`: fields of Identity or of Result."""
    identity: dict[str, Any] = {
        "encoder_fingerprint": sha256_json(encoder),
        "size": 64,
        "layer": -1,
        "probe": "fake",
        "protocol_version": 1,
        "dataset_fingerprint": "d" * 64,
        "config": {"grid": "native"},
    }
    named = {field.name for field in dataclasses.fields(Identity)}
    identity |= {name: value for name, value in changes.items() if name in named}
    whole: dict[str, Any] = {
        "encoder": encoder,
        "reference": encoder,
        "weights": "default",
        "trained": True,
        "encoder_spec": SPEC,
        "identity": Identity(**identity),
        "seed": seed,
        "dataset": "scenes",
        "tokens": 16,
        "gflops": 0.5,
        "images_per_s": 100.0,
        "resolved_config": {},
        "metrics": [metric(*item) for item in metrics.items()] if isinstance(metrics, Mapping) else metrics,
        "versions": {},
        "commit": None,
        "device": "cpu",
        "seconds": 1.0,
        "peak_memory": {},
        "finished": "2026-01-01T00:00:00+00:00",
    }
    return Result(**(whole | {name: value for name, value in changes.items() if name not in named}))


def put(
    out: Path, encoder: str, metrics: Mapping[str, float] | Sequence[Metric], *, seed: int = 0, **changes: Any
) -> str:
    """Store a result as `made`; its key."""
    result = made(encoder, metrics, seed=seed, **changes)
    store(out, result)
    return result.key


@functools.cache
def protocol_of(sweep: str, number: int = 0) -> dict[str, Any]:
    """The configuration that a built-in sweep measures by, written out from its YAML by the probe's own class."""
    import yaml

    from probes.protocol import identity, probe_class
    from probes.sweeps.overrides import flags, parse_config
    from probes.sweeps.sweepfile import BUILT_IN

    entry = dict(yaml.safe_load((BUILT_IN / f"{sweep}.yaml").read_text())["probes"][number])
    probe, _ = entry.pop("probe"), entry.pop("data")
    return identity(parse_config(probe_class(probe).Config, flags(entry), sweep))


def of_table_3(name: str, value: float, *, n: int = 5_000, split: str = "val2017", **changes: Any) -> Result:
    """A result of RICE's row by the detection probe on COCO, by the paper's protocol unless `changes` say otherwise."""
    fields: dict[str, Any] = {"encoder": "rice-b16-512", "reference": "rice-b16-512", "weights": "PATH", "size": 512}
    fields |= {"probe": "detection", "dataset": "coco", "config": protocol_of("table3")} | changes
    return made(fields.pop("encoder"), [metric(name, value, n=n, split=split)], **fields)


def put_knn(
    out: Path, encoder: str, knn: Sequence[bool], linear: Sequence[bool], *, seed: int = 0, **changes: Any
) -> str:
    """A result of the probe `knn` whose items are right or wrong as given; its key."""
    values = {"knn top-1": float(np.mean(knn)), "linear top-1": float(np.mean(linear))}
    key = put(out, encoder, values, seed=seed, **({"probe": "knn", "dataset": "crops"} | changes))
    pictures = tuple(Picture(f"test/a/{k}.png", Path(f"{k}.png"), 0) for k in range(len(knn)))
    folder = ImageFolder(classes=("a", "b"), train=(), test=pictures, test_name="test")
    write_items(items_path(out, key), folder, [int(not x) for x in knn], [int(not x) for x in linear], 0.1)
    return key


def rewrite(path: Path, frame: pd.DataFrame) -> None:
    """Items changed by hand."""
    frame.to_parquet(path, index=False)
