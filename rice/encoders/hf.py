"""Towers of transformers: `hf:REPO_OR_PATH`, and the zoo's entries of this source.

Weights are read as safetensors, the vision tower's part only, and every tensor that the patches depend on must be
there. Code that comes with a repository is never run.
"""

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from rice.encoders.hf_config import describe, tower_of
from rice.encoders.hf_extract import extract
from rice.encoders.hf_families import FAMILIES, Family
from rice.encoders.hf_names import from_published
from rice.encoders.loaded import Loaded, seeded_init
from rice.encoders.spec import EncoderSpec
from rice.encoders.weights import Checkpoint, Source, open_checkpoint, pick, place
from rice.errors import RiceError
from rice.model.config import MOST_PARAMETERS

_FACTOR, _FEW = 4, 10_000_000
# Fields that say how a checkpoint was stored, not what the network is.
_STORAGE_FIELDS = ("dtype", "torch_dtype", "quantization_config", "transformers_version", "_name_or_path")


def load(target: str, weights: str | None, *, allow_pickle: bool = False) -> Loaded:
    """Load `hf:target`, a folder or a repository of the hub, built as its own configuration says.

    Errors: RiceError for what cannot be read, reached or built.
    """
    spec = describe(target)
    source = pick(weights, place(target), spec.name)
    return load_architecture(tower_of(target), spec, source, allow_pickle=allow_pickle)


def load_architecture(
    architecture: Mapping[str, Any], spec: EncoderSpec, source: Source, *, allow_pickle: bool = False
) -> Loaded:
    """Build a tower's configuration with the values of `source`. Errors: RiceError."""
    if source.kind == "random":
        with seeded_init():
            return Loaded(build(architecture), spec, extract)
    checkpoint = open_checkpoint(source, allow_pickle=allow_pickle)
    module = _load(architecture, checkpoint, str(source))
    return Loaded(module, checkpoint.noted(spec, source), extract)


def build(architecture: Mapping[str, Any]) -> nn.Module:
    """The tower of a configuration, initialised by transformers from the global generator. Errors: RiceError."""
    cls = model_class(FAMILIES[architecture["model_type"]])
    _count(cls, architecture)
    module: nn.Module = cls(_configuration(cls, architecture))
    return module


def model_class(family: Family) -> Any:
    """The family's class. Errors: RiceError when the installed transformers does not have it yet."""
    module, _, name = family.model.rpartition(":")
    try:
        return getattr(importlib.import_module(module or "transformers"), name)
    except (AttributeError, ImportError) as error:
        raise RiceError(f"the installed transformers has no {name}; upgrade it: pip install -U transformers") from error


def _count(cls: Any, architecture: Mapping[str, Any]) -> int:
    """Parameters of a configuration, which nothing is allocated for. Errors: RiceError beyond any tower."""
    try:
        with torch.device("meta"):
            module: nn.Module = cls(_configuration(cls, architecture))
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise RiceError(f"transformers cannot build this configuration: {' '.join(str(error).split())}") from error
    count = sum(parameter.numel() for parameter in module.parameters())
    if count > MOST_PARAMETERS:
        raise RiceError(f"expected a tower of at most {MOST_PARAMETERS:,} parameters, its configuration has {count:,}")
    return count


def _load(architecture: Mapping[str, Any], checkpoint: Checkpoint, where: str) -> nn.Module:
    family = FAMILIES[architecture["model_type"]]
    cls = model_class(family)
    fields, tensors = from_published(architecture, checkpoint.read(checkpoint.prefix(family.anchors)))
    asked, given = _count(cls, fields), sum(value.numel() for value in tensors.values())
    if asked > _FACTOR * given + _FEW:  # all of it would be allocated before the first gap is told
        raise RiceError(f"{where} holds {given:,} values of a tower whose configuration has {asked:,}; get both anew")
    with quiet():
        module, report = cls.from_pretrained(
            None,
            config=_configuration(cls, fields),
            state_dict=tensors,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # reported below instead, in one line
            output_loading_info=True,
        )
    _check(report, family, where)
    loaded: nn.Module = module
    return loaded


def _check(report: Mapping[str, Any], family: Family, where: str) -> None:
    """transformers fills gaps with random values and goes on; a probe of such a tower would be worth nothing."""
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(family.optional))
    mismatched = sorted(str(entry[0]) for entry in report["mismatched_keys"])
    lists = (("no", missing), ("other shapes of", mismatched))
    problems = " and ".join(f"{what} {', '.join(names[:3])} ({len(names)} tensors)" for what, names in lists if names)
    if problems or report.get("error_msgs"):
        raise RiceError(f"{where} is not a checkpoint of this tower: it has {problems or 'unreadable tensors'}")


def _configuration(cls: Any, architecture: Mapping[str, Any]) -> Any:
    fields = {k: v for k, v in architecture.items() if k not in (*_STORAGE_FIELDS, "model_type")}
    try:
        return cls.config_class(**{**fields, **FAMILIES[architecture["model_type"]].fixed})
    except (TypeError, ValueError) as error:
        raise RiceError(f"transformers refuses this configuration: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bar and no report of what was left out on purpose (heads, text towers)."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
