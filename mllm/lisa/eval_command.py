"""The verb `rice lisa eval`."""

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mllm.lisa.asked import MOST, TOGETHER, Asked

if TYPE_CHECKING:
    from probes.import_formats.foreign import Imported


def evaluate(
    model: Annotated[Path, tyro.conf.Positional],
    *,
    data: Path,
    out: Path,
    splits: str = "all",
    limit: int | None = None,
    name: str | None = None,
    batch_size: int = TOGETHER,
    max_new_tokens: int = MOST,
    dtype: str = "auto",
    device: str = "auto",
) -> None:
    """Judge a segmenting model on referring expressions and store the scores, so that tables and reports show them.

    The model is asked what each expression names, answers, and every [SEG] that it writes becomes a mask. Measures:
    cIoU (Table 2), gIoU, Pr@0.5; N-acc and T-acc where there are expressions without a target. Those that end in
    _forced are of masks whose [SEG] was given, as LISA validates. The questions about a picture share one pass of it.

    Killed at any instant, the same command goes on. Several GPUs: torchrun --nproc-per-node 8 -m rice.cli lisa eval
    MODEL ...; the numbers are the same.

    OUT/results: the store, for rice tables, compare and report; OUT/items: every expression with answer and IoU.

    Example: rice lisa eval out/rice/model --data ROOT --splits refcoco_val,refcoco_testA --out out/rice-eval

    Then: rice tables --paper --with out/rice-eval

    Args:
        model: OUT/model of rice lisa train.
        data: folder with sets to segment, in LISA's layout: refer_seg/refcoco/refs(unc).p, ...
        out: folder to write; several models may share it.
        splits: names with commas between, e.g. refcoco_val; all: every split that is there but those to train on.
        limit: only the first pictures of each split, to try things out.
        name: what to call the encoder in tables. Default: what it was trained with.
        batch_size: expressions of a picture at a time; the answers do not depend on it but for rounding.
        max_new_tokens: longest answer.
        dtype: auto (bfloat16 on a GPU, float32 on the CPU), float32, bfloat16 or float16.
        device: auto, cpu or cuda.
    """
    from mllm.generation import pick_dtype
    from mllm.lisa.evaluate import evaluate_splits
    from mllm.lisa.material import LisaMaterial
    from mllm.lisa.model import Trained
    from mllm.lisa.model_id import LisaId
    from mllm.lisa.scores import as_import
    from mllm.llava.train import ranks
    from probes.imports import plan
    from probes.provenance import device_name
    from rice.files import make_folder
    from rice.progress import bars_if
    from rice.runs import alone

    asked = Asked(limit=limit, most=max_new_tokens, together=batch_size)
    material, known = LisaMaterial(data), LisaId.of(model)
    known.whose(name)  # a name that is none, or a split, must not cost an evaluation
    material.judged(splits)
    make_folder(out)
    with ranks(device) as world:
        kind = str(pick_dtype(dtype, world.device)).removeprefix("torch.")
        with alone(out, ".lisa.lock", "evaluating into") if world.leads else contextlib.nullcontext():
            trained = Trained.load(model, device=str(world.device), dtype=kind)
            start = time.monotonic()
            for judged in evaluate_splits(
                trained, material, splits, out, asked=asked, progress=bars_if(world.leads), world=world
            ):
                if world.leads:
                    seconds = time.monotonic() - start
                    where = device_name(str(world.device))
                    imported = as_import(judged, known, name, device=where, dtype=kind, seconds=seconds)
                    for planned in plan(out, [imported], overwrite=True):
                        planned.store(out)
                    print("\n".join([*judged.refused, *lines(imported)]), flush=True)  # noqa: T201
                start = time.monotonic()
        if world.leads:
            print(f"stored in {out}. Next: rice tables {out}, or rice tables --paper --with {out}")  # noqa: T201


def lines(imported: "Imported") -> list[str]:
    """A line a measure."""
    result = imported.result
    return [
        f"{result.encoder}  {result.dataset} (n = {metric.n:,})  {metric.name} {metric.value:.2f} %"
        for metric in result.metrics
    ]
