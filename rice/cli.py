"""The `rice` command: one static table, verb -> ("module:function", help line). Modules are imported on use.

A verb's function is turned into a command line by tyro: its parameters are the flags, its docstring is the help.
Third parties add verbs by the entry point group `rice.verbs` (name = verb, value = "module:function").
"""

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rice.errors import NO_ROOM, RiceError, nearest, out_of_room

VERBS: dict[str, tuple[str, str]] = {
    "quickstart": ("reports.workflows:quickstart", "The main job in minutes, offline: sweep, table, PCA clip, page."),
    "reproduce mini": ("reports.workflows:reproduce_mini", "The paper in miniature: which of its claims hold?"),
    "encoders": ("rice.encoders.commands:encoders", "List the zoo of encoders."),
    "doctor": (
        "rice.encoders.doctor:doctor",
        "What is installed, what is missing; check an encoder against its source.",
    ),
    "export": ("rice.encoders.commands:export", "Write an encoder for transformers.AutoModel.from_pretrained."),
    "regions": ("rice.encoders.regions_command:regions", "One embedding for each of your own boxes in a picture."),
    "train": ("rice.train.command:train", "Train RICE, or its image-level ancestors, on shards."),
    "world": ("rice.data.world.commands:world", "Write generated scenes or clips in a benchmark's own layout."),
    "pack": ("rice.data.pack:pack", "A COCO data set as shards to train on: tar files with boxes and labels beside."),
    "curate": ("rice.curate.curate_command:curate", "A pile of pictures to labelled regions: shards to train on."),
    "curate propose": ("rice.curate.curate_command:propose", "One stage of it: boxes of regions."),
    "curate embed": ("rice.curate.curate_command:embed", "One stage of it: a feature of every region."),
    "curate ocr": ("rice.curate.curate_command:ocr", "One stage of it: text, and its tokens."),
    "curate label": ("rice.curate.curate_command:label", "One stage of it: clusters and tokens as annotations."),
    "curate cluster": (
        "rice.curate.cluster_command:cluster",
        "K-means of features of regions, up to a million.",
    ),
    "view": ("rice.curate.view_command:view", "Regions of shards, by cluster or class: in FiftyOne, or as a page."),
    "data check": ("probes.check:check", "Validate a data root and say what each probe would find in it."),
    "sweep": ("probes.sweeps.command:sweep", "Encoders x probes x datasets x seeds, resumable."),
    "tables": ("reports.tables_command:tables", "Results, and the paper's tables: Markdown, LaTeX, CSV or HTML."),
    "compare": (
        "reports.compare.command:compare",
        "Which differences between encoders are more than noise? Pairs and ranks.",
    ),
    "report": ("reports.page.command:report", "Results, provenance, clips, figures, the paper's tables: one page."),
    "import": ("reports.import_command:import_results", "Scores made by lmms-eval, mteb, COCO or tracking tools."),
    "detect train": ("probes.detection.commands:train", "Train Cascade Mask R-CNN on a frozen encoder, and judge it."),
    "detect eval": ("probes.detection.commands:evaluate", "Judge a trained detector on a split."),
    "detect predict": ("probes.detection.commands:predict", "Pictures with boxes, masks and scores; COCO results."),
    "detect score": ("probes.detection.score_command:score", "Average precision of anybody's COCO results."),
    "track train": ("tracking.commands:train", "Train OSTrack's head on a frozen encoder, and judge it."),
    "track eval": ("tracking.commands:evaluate", "Judge a trained tracker on a benchmark; zips for servers."),
    "track run": ("tracking.commands:run", "Follow one target through a video: annotated film, result file."),
    "track score": ("tracking.score_command:score", "Success, precision, AO of anybody's tracking results."),
    "llava prepare": (
        "mllm.llava.prepare:prepare",
        "Conversations about pictures, checked, as one folder to train on.",
    ),
    "llava train": ("mllm.llava.commands:train", "Train a LLaVA around an encoder: projector, then everything."),
    "llava chat": ("mllm.llava.commands:chat", "Ask a trained model about pictures."),
    "llava merge": ("mllm.llava.commands:merge", "Low-rank adapters merged into a plain model."),
    "llava eval": ("mllm.llava.eval_command:evaluate", "Score a model by lmms-eval, into the store of results."),
    "lisa train": ("mllm.lisa.commands:train", "Train LISA around an encoder: a LLaVA that answers with masks."),
    "lisa eval": (
        "mllm.lisa.eval_command:evaluate",
        "Judge masks of referring expressions, into the store of results.",
    ),
    "lisa segment": ("mllm.lisa.segment_command:segment", "Segment what words say on a picture: overlay and mask."),
    "pca": ("probes.visual.pca.command:pca", "PCA of patch tokens over a video, a folder of frames or a picture."),
    "tsne": (
        "probes.visual.tsne.command:tsne",
        "Objects of a data set on a t-SNE sphere, several encoders side by side.",
    ),
    "tokens": ("probes.visual.tokens.command:tokens", "Distances between a picture's tokens, by encoder or by step."),
}

ENTRY_POINTS = "rice.verbs"
EXIT_BAD_INPUT = 2
EXIT_BROKEN_PIPE = 141
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb; exit with status 2 and one line on bad input, and on what the file system refuses."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())  # noqa: T201
        return
    if arguments[0] in ("-V", "--version"):
        from rice import __version__

        print(f"rice {__version__}")  # noqa: T201
        return
    try:
        verb, target, rest = _resolve(arguments)
        _run(verb, target, rest)
        sys.stdout.flush()
    except RiceError as error:
        print(f"rice: error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_BAD_INPUT)
    except BrokenPipeError:  # as in `rice tables OUT | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except Exception as error:  # what the file system refuses, by itself or within a library
        said = _refused(error)
        if said is None:
            raise
        print(f"rice: error: {said}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print("rice: interrupted; the same command resumes", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_INTERRUPTED)


def _refused(error: Exception) -> str | None:
    """One line on a full or read-only disk, a folder below a file; None for an error of another kind."""
    name = error.filename if isinstance(error, OSError) else None
    where = f"{name}: " if name else ""
    if out_of_room(error):
        return f"{where}{NO_ROOM}"
    if not isinstance(error, OSError) or not error.strerror:  # a library's own
        return None
    advice = "; give another place" if error.errno == errno.EROFS else ""
    return f"{where}{error.strerror}{advice}"


def overview() -> str:
    """The text of `rice --help`: no module of a verb is imported for it."""
    verbs = VERBS | {name: (target, "(plug-in)") for name, target in _plugins().items()}
    width = max(map(len, verbs))
    lines = [f"  {verb:<{width}}  {text}" for verb, (_, text) in verbs.items()]
    return "\n".join(
        [
            "usage: rice VERB [OPTIONS]",
            "",
            "How good is this frozen encoder, really, at dense work?",
            "",
            *lines,
            "",
            "rice VERB --help says more. Start with: rice quickstart",
        ]
    )


def _resolve(arguments: list[str]) -> tuple[str, str, list[str]]:
    for words in (2, 1):  # "data check" before "data"
        verb = " ".join(arguments[:words])
        if len(arguments) >= words and verb in VERBS:
            return verb, VERBS[verb][0], arguments[words:]
    plugins = _plugins()
    if arguments[0] in plugins:
        return arguments[0], plugins[arguments[0]], arguments[1:]
    longer = [verb for verb in VERBS if verb.startswith(f"{arguments[0]} ")]
    hint = f" Did you mean {', '.join(longer)}?" if longer else nearest(arguments[0], [*VERBS, *plugins])
    raise RiceError(f"unknown verb {arguments[0]!r}.{hint} See: rice --help")


def _plugins() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def _run(verb: str, target: str, arguments: list[str]) -> None:
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    import tyro

    from rice.flags import shown, wrapped_help

    # A recipe's flags and its verb's may come in any order.
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.CascadeSubcommandArgs)
    with wrapped_help(arguments):
        status = tyro.cli(shown(function), prog=f"rice {verb}", args=arguments, config=config)
    if isinstance(status, int) and status:
        sys.exit(status)


if __name__ == "__main__":
    main()
