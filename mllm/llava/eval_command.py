"""The verb `rice llava eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from mllm.llava.scores import Scored


def evaluate(
    model: Annotated[str, tyro.conf.Positional],
    *,
    tasks: str,
    out: Path,
    data: Path | None = None,
    include: tuple[Path, ...] = (),
    batch_size: int = 1,
    limit: int | None = None,
    name: str | None = None,
    system_prompt: str | None = None,
    processes: int = 1,
    dtype: str = "auto",
    device: str = "auto",
) -> None:
    """Score a multimodal model by lmms-eval and store each score, so that tables and reports show it.

    Takes what rice llava train writes, and any other image-text-to-text model of transformers. An error of the model or
    of a task ends the evaluation with one line and status 2; no answer is ever left empty for it. Killed at any
    instant, the same command goes on with the tasks that are not done.

    OUT/results: the store, for rice tables, compare and report; OUT/lmms/TASK/...: lmms-eval's own results.json and
    samples.jsonl with every answer; OUT/lmms-eval.log: all that lmms-eval said.

    Example: rice llava eval out/mini/model --tasks table1 --batch-size 16 --out out/mini-eval

    From local files, offline: rice llava eval out/mini/model --tasks docvqa_val --data BENCHMARKS --out out/mini-eval

    Then: rice tables --paper --with out/mini-eval

    Args:
        model: folder with a model and its processor, or a hub id.
        tasks: table1 (the paper's 14 columns), table5d, or names of lmms-eval's tasks and groups, with commas between.
        out: folder to write; several models may share it.
        data: folder ROOT with ROOT/TASK/*.parquet (or jsonl) for every task, with the columns that the task has on the
            hub; nothing is fetched then. Files named after the task's split are taken, else all.
        include: folder of further task definitions (YAML, lmms-eval's --include_path).
        batch_size: questions at a time; the answers do not depend on it.
        limit: only the first questions of each task, to try things out.
        name: what to call the encoder in tables. Default: what rice llava train wrote, else the model's name.
        system_prompt: text before every question. Default: none.
        processes: how many share the questions, each on a GPU of its own.
        dtype: auto (bfloat16 on a GPU, float32 on the CPU), float32, bfloat16 or float16.
        device: auto, cpu or cuda.
    """
    from mllm.llava.evaluate import evaluate as score

    def done(scored: "Scored") -> None:
        for line in lines(scored):
            print(line, flush=True)  # noqa: T201

    score(
        model,
        tasks,
        out,
        data=data,
        include=include,
        name=name,
        done=done,
        batch_size=batch_size,
        limit=limit,
        system_prompt=system_prompt,
        processes=processes,
        dtype=dtype,
        device=device,
    )
    print(f"stored in {out}. Next: rice tables {out}, or rice tables --paper --with {out}")  # noqa: T201


def lines(scored: "Scored") -> list[str]:
    """A line a score, as tables show it: fractions in percent."""
    result = scored.result
    found = []
    for metric in result.metrics:
        times, unit = (100, " %") if metric.unit == "fraction" else (1, f" {metric.unit}")
        error = "" if metric.stderr is None else f" ± {times * metric.stderr:.2f}"
        shown = "" if metric.unit == "as reported" else unit
        found.append(
            f"{result.encoder}  {result.dataset} ({metric.split}, n = {metric.n:,})  {metric.name} "
            f"{times * metric.value:.2f}{error}{shown}"
        )
    return found
