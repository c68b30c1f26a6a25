"""Results as a sweep would have stored them."""

import dataclasses
import functools
from typing import Any

from probes.protocol import Metric
from probes.results import Identity, Result
from rice.encoders.spec import EncoderSpec

SPEC = EncoderSpec(name="vit", source="fake", patch=16, size_multiple=16, width=8, native_size=512)


@functools.cache
def protocol_of(sweep: str, number: int = 0) -> dict[str, Any]:
    """The configuration that a built-in sweep measures by, written out from its YAML by the probe's own class."""
    import yaml

    from probes.overrides import flags, parse_config
    from probes.protocol import identity, probe_class
    from probes.sweepfile import BUILT_IN

    entry = dict(yaml.safe_load((BUILT_IN / f"{sweep}.yaml").read_text())["probes"][number])
    probe, _ = entry.pop("probe"), entry.pop("data")
    return identity(parse_config(probe_class(probe).Config, flags(entry), sweep))


def result(name: str, value: float, **changes: Any) -> Result:
    """A stored result of the detection probe on COCO, by the paper's protocol unless `changes` say otherwise."""
    metric = Metric(
        name=name,
        value=value,
        n=changes.pop("n", 5_000),
        unit="fraction",
        higher_is_better=True,
        split=changes.pop("split", "val2017"),
        protocol="AP",
    )
    identity = Identity(
        encoder_fingerprint=changes.pop("fingerprint", "e" * 64),
        size=512,
        layer=-1,
        probe=changes.pop("probe", "detection"),
        protocol_version=1,
        dataset_fingerprint="d" * 64,
        config=changes.pop("config", protocol_of("table3")),
    )
    fields: dict[str, Any] = {
        "encoder": "rice-b16-512",
        "reference": "rice-b16-512",
        "weights": "PATH",
        "trained": True,
        "encoder_spec": dataclasses.asdict(SPEC),
        "identity": identity,
        "seed": 0,
        "dataset": "coco",
        "tokens": 1024,
        "gflops": 1.0,
        "images_per_s": 1.0,
        "resolved_config": {},
        "metrics": [metric],
        "versions": {},
        "commit": None,
        "device": "cpu",
        "seconds": 1.0,
        "peak_memory": {},
        "finished": "2026-01-01T00:00:00+00:00",
    }
    return Result(**(fields | changes))
