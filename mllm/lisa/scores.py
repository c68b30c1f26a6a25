"""A judged split as a result of ours: whose it is, how it was measured, its items."""

import dataclasses
from functools import partial
from typing import Any

from mllm.lisa.evaluate import VERSION, Judged
from mllm.lisa.items import write_items
from mllm.lisa.model_id import LisaId
from probes import provenance
from probes.import_formats.foreign import Imported, make_result
from probes.results import Result
from rice.files import sha256_json

PROBE = "lisa-eval"
"""Of results of `rice lisa eval`; those of a sweep are of the probe refseg."""

_SOURCE = "rice lisa eval"


def as_import(judged: Judged, model: LisaId, label: str | None, *, device: str, dtype: str, seconds: float) -> Imported:
    """To be stored by `probes.imports.plan`. label: of the encoder in tables, None for its own. device: its name."""
    result = _result(judged, model, label, dtype, seconds)
    tokens, gflops = model.llava.cost(model.whose(None))
    facts = model.llava.facts or {}
    identity = dataclasses.replace(
        result.identity,
        encoder_fingerprint=sha256_json({"encoder": facts.get("fingerprint"), "model": model.digest}),
        protocol_version=VERSION,
    )
    own = {"full_id": model.llava.full, "sha256": model.digest, "facts": dataclasses.asdict(model.lisa)}
    result = dataclasses.replace(
        result,
        trained=bool(facts.get("trained", True)),
        identity=identity,
        tokens=tokens,
        gflops=gflops,
        resolved_config=identity.config | {"model": own, "llava": facts, "together": judged.asked.together},
        versions=provenance.versions(),
        commit=provenance.commit(),
        device=device,
    )
    return Imported(result=result, write_items=partial(write_items, tables=[judged.items]))


def _result(judged: Judged, model: LisaId, label: str | None, dtype: str, seconds: float) -> Result:
    whose = model.whose(label)
    asked: dict[str, Any] = {"source": _SOURCE, "dtype": dtype, "limit": judged.asked.limit, "most": judged.asked.most}
    return make_result(
        whose=whose,
        model=[PROBE, model.digest],
        weights=str((model.llava.facts or {}).get("weights") or model.llava.full),
        probe=PROBE,
        dataset=judged.name,
        data=sha256_json([PROBE, judged.name, judged.data]),
        config=asked | model.training(),
        settings={},
        metrics=tuple(judged.metrics(named=False)),
        versions={},
        seconds=seconds,
        seed=model.lisa.seed,
    )
