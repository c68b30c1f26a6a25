"""`python -m mllm.llava.lmms_run SPEC.json`: lmms-eval on some tasks, one after another, with one loaded model.

The process of `mllm.llava.evaluate`. Its Python interface instead of its command, since that ends with status 0 after
an error, takes no second definition of a task that it knows, and loads the model for all tasks or for each anew.

SPEC: model, name, batch_size, device, dtype, system_prompt, limit, include (folders), processes, and tasks: name,
yaml (None for lmms-eval's own), folder. A task's folder is there when it is done: results.json as lmms-eval writes it,
and samples.jsonl. The last line on standard error says why it failed.
"""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mllm.lmms import NAME
from probes.sweeps.lifeline import tie_to_parent
from rice.errors import RiceError
from rice.files import atomic_folder, read_object

FAILURE = "failed: "
_WRAPPERS = ("RetryError", "DatasetGenerationError")
"""Say nothing of what they hold: lmms-eval tries some steps again, and the library datasets reads files."""
RESULTS, SAMPLES = "results.json", "samples.jsonl"
_POLL_S = 0.2


def main(arguments: list[str]) -> int:
    """Run a spec. `--tied`: dies with its parent, and starts the processes that the spec asks for."""
    file = Path(arguments[-1])
    spec = read_object(file)
    try:
        if "--tied" in arguments:
            tie_to_parent()
            if spec["processes"] > 1:
                return _start(file, spec["processes"])
        run(spec)
    except (Exception, SystemExit) as error:  # whatever a task, a model or lmms-eval does: the reason goes last
        traceback.print_exc()
        _say(f"{FAILURE}{_reason(error)}")
        return 1
    return 0


def run(spec: dict[str, Any]) -> None:
    """Evaluate all tasks of a spec. Errors: whatever a task or the model raises; nothing of that task is kept."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
    from lmms_eval.tasks import TaskManager

    from mllm.lmms_model import RiceLlava

    manager = TaskManager(include_path=spec["include"] or None, model_name=NAME)
    for task in spec["tasks"]:
        if task["yaml"] is not None:
            manager.task_index[task["name"]] = {"type": "task", "yaml_path": task["yaml"]}
    _check_code(manager, [task["name"] for task in spec["tasks"]])
    model = RiceLlava(
        spec["model"],
        device=spec["device"],
        dtype=spec["dtype"],
        batch_size=spec["batch_size"],
        system_prompt=spec["system_prompt"],
    )
    for task in spec["tasks"]:
        _say(f"--- {task['name']}")
        with _place(Path(task["folder"])) as folder:
            arguments = _arguments(spec, task["name"], folder)
            tracker = EvaluationTracker(output_path=str(folder))  # has the clock
            results = simple_evaluate(
                model=model,
                model_args=arguments.model_args,
                tasks=[task["name"]],
                batch_size=spec["batch_size"],
                device=str(model.device),
                limit=spec["limit"],
                log_samples=True,
                task_manager=manager,
                cli_args=arguments,
                verbosity="INFO",
            )
            if results is None:  # not the first process
                continue
            _keep(results, arguments, folder, tracker)


def _check_code(manager: Any, tasks: Sequence[str]) -> None:
    """Import all that scores the tasks before the model is loaded: some need packages that lmms-eval does not bring.

    Errors: RiceError naming the task and the package.
    """
    for name in tasks:
        try:
            manager._get_config(name)
        except ImportError as error:
            missing = next((e for e in _chain(error) if isinstance(e, ModuleNotFoundError) and e.name), error)
            package = getattr(missing, "name", None) or str(error)
            raise RiceError(
                f"task {name} needs the package {package}, which lmms-eval does not bring; install it"
            ) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, the first cause first."""
    if error is not None:
        yield from _chain(error.__cause__ or error.__context__)
        yield error


@contextlib.contextmanager
def _place(path: Path) -> Iterator[Path]:
    """The folder of a task, which the first process alone publishes."""
    if os.environ.get("RANK", "0") == "0":
        with atomic_folder(path) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)


def _keep(results: dict[str, Any], arguments: argparse.Namespace, folder: Path, tracker: Any) -> None:
    """Write what lmms-eval's own command would, under names that do not depend on the model's."""
    # Not inside simple_evaluate: the tracker would copy the model object that it is given as `model`.
    tracker.general_config_tracker.log_experiment_args(NAME, arguments.model_args, None, None, False)
    results["config"]["model"] = NAME
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples, datetime_str=results["date"])
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    (task,) = results["configs"]
    written = {f"{tracker.date_id}_results.json": RESULTS, f"{tracker.date_id}_samples_{task}.jsonl": SAMPLES}
    for theirs, name in written.items():
        found = list(folder.rglob(theirs))
        if len(found) != 1:  # lmms-eval reports a failure to write as a warning
            raise RiceError(f"expected {theirs} of lmms-eval, found {len(found)} of them; is the disk full?")
        found[0].rename(folder / name)
    for path in folder.iterdir():
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _arguments(spec: dict[str, Any], task: str, folder: Path) -> argparse.Namespace:
    """What lmms-eval's command line would have parsed: some tasks' scoring reads it."""
    from lmms_eval.__main__ import parse_eval_args

    line = ["--model", NAME, "--model_args", f"pretrained={spec['name']}", "--tasks", task, "--log_samples"]
    line += ["--batch_size", str(spec["batch_size"]), "--output_path", str(folder / "files")]
    with patch.object(sys, "argv", ["lmms-eval", *line]):
        _, arguments = parse_eval_args()
    found: argparse.Namespace = arguments
    return found


def _start(file: Path, processes: int) -> int:
    """All ranks, in this process's own group, so that whatever ends this one ends them (torchrun gives each a session
    of its own, where they would live on). The status of the first that fails, which ends the others; 0."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    place |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    command = [sys.executable, "-m", "mllm.llava.lmms_run", str(file)]
    environment = {"OMP_NUM_THREADS": "1"} | dict(os.environ) | place  # as torchrun: else each takes all processors
    ranks = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(processes)
    ]
    try:
        while True:
            statuses = [rank.poll() for rank in ranks]
            failed = [status for status in statuses if status]
            if failed or None not in statuses:
                return failed[0] if failed else 0
            time.sleep(_POLL_S)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _reason(error: BaseException) -> str:
    while type(error).__name__ in _WRAPPERS and error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return text if isinstance(error, RiceError) else f"{type(error).__name__}: {text}"


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0" or line.startswith(FAILURE):
        print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
