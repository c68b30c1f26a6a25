"""Whose answers are scored: a model's folder, known by its content, and the encoder that looks in it."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.llava.facts import FACTS
from probes.import_formats.foreign import Whose
from rice.encoders.cost import cost
from rice.encoders.hub import pinned
from rice.encoders.spec import EncoderReference
from rice.errors import RiceError
from rice.files import read_object, sha256_json, sha256_unchanged

_WEIGHTS = (".safetensors", ".bin", ".pt")
_PARTS = (".json", ".jinja", ".model", ".txt")
_NOT_THE_MODEL = frozenset(
    {FACTS, "rice_lisa.json", "training_args.bin", "trainer_state.json", "all_results.json", "run.json"}
)
_NOT_FETCHED = ["original/*", "*.pth", "*.gguf", "*.onnx"]
"""The same weights again, in forms of other programs."""
_NOT_THE_TRAINING = frozenset({"blind"})
"""A blind model is compared with one that sees, on the same questions."""
_KNOWN = {"encoder": str, "fingerprint": str, "lm": str, "seed": int}


@dataclass(frozen=True, kw_only=True)
class ModelId:
    """`name`: hub id, or the last two parts of the folder's path; `digest`: SHA-256 over all files that make its
    answers, which tells models of one name apart. `facts`: of FACTS, with names in the place of
    paths; None where the model is not ours."""

    folder: Path
    name: str
    digest: str
    facts: dict[str, Any] | None

    @classmethod
    def of(cls, model: str) -> "ModelId":
        """A folder, or a hub id, which is fetched unless it is in the hub's cache. Errors: RiceError."""
        folder = Path(model) if Path(model).is_dir() else _fetch(model)
        files = sorted(p for p in folder.iterdir() if p.suffix in (*_WEIGHTS, *_PARTS) and p.name not in _NOT_THE_MODEL)
        if not any(path.suffix in _WEIGHTS for path in files) or not (folder / "config.json").is_file():
            raise RiceError(f"expected a model's folder with config.json and its weights, found none in {model}")
        digest = sha256_json({path.name: sha256_unchanged(path) for path in files})
        name = "/".join(folder.resolve().parts[-2:]) if Path(model).is_dir() else model
        return cls(folder=folder, name=name, digest=digest, facts=_facts(folder))

    @property
    def full(self) -> str:
        """The full model id."""
        return f"{self.name}@sha256:{self.digest}"

    @property
    def seed(self) -> int:
        """Of its training; 0 where it is not known."""
        return 0 if self.facts is None else int(self.facts["seed"])

    @property
    def blind(self) -> bool:
        """Whether it is asked without pictures."""
        return bool((self.facts or {}).get("blind"))

    def whose(self, label: str | None) -> Whose:
        """The encoder as results name it: a zoo name brings its spec. Errors: RiceError for names that are none."""
        if self.facts is None:
            unknown = Whose.unknown(label or self.name)
            spec = unknown.spec | {"name": self.name, "source": "transformers"}
            return dataclasses.replace(unknown, reference=self.name, spec=spec)
        encoder = self.facts["encoder"]
        whose = Whose.named(encoder)
        shown = label or encoder
        if self.blind and "blind" not in shown:
            shown = f"{shown}, blind"
        size, layer = self.facts.get("size"), self.facts.get("layer")
        told = {"patch": self.facts.get("patch"), "layer": layer, "native_size": size}
        own = {"source": "own"} if whose.spec["source"] == "imported" else {}
        known = self.facts.get("spec") or {}
        spec = whose.spec | own | {key: value for key, value in (*known.items(), *told.items()) if value is not None}
        return dataclasses.replace(whose, label=shown, reference=encoder, spec=spec, size=size, layer=layer)

    def training(self) -> dict[str, Any]:
        """What of the training tells measurements of one encoder apart: part of a result's identity. A local language
        model is known by its folder's name and its content."""
        facts = self.facts or {}
        named = {"language_model": facts.get("lm"), "recipe": facts.get("recipe"), "tiling": facts.get("tiling")}
        if facts.get("lm_digest"):
            named["language_model_sha256"] = facts["lm_digest"]
        config = {key: value for key, value in (facts.get("config") or {}).items() if key not in _NOT_THE_TRAINING}
        return named | {"training": config or None}

    def fingerprint(self) -> str:
        """Of what was measured: the encoder together with the model around it."""
        return sha256_json({"encoder": (self.facts or {}).get("fingerprint"), "model": self.digest})

    def cost(self, whose: Whose) -> tuple[int | None, float | None]:
        """(tokens, GFLOPs) of one tile's forward; None where the encoder's spec is not known."""
        from rice.encoders.load import describe

        if self.facts is None or whose.size is None:
            return None, None
        try:
            price = cost(describe(EncoderReference.parse(self.facts["encoder"]), None), whose.size)
        except RiceError:  # an encoder that is not here any more: its results stay, what it costs is not known
            return None, None
        return price.tokens, price.gflops


def is_blind(model: str) -> bool:
    """Whether a model's folder says that it was trained without pictures."""
    return bool((_facts(Path(model)) or {}).get("blind"))


def _facts(folder: Path) -> dict[str, Any] | None:
    path = folder / FACTS
    if not path.is_file():
        return None
    facts = read_object(path)
    wrong = [key for key, kind in _KNOWN.items() if type(facts.get(key)) is not kind]
    if wrong:
        raise RiceError(f"expected {wrong[0]} as {_KNOWN[wrong[0]].__name__} in {path}, got {facts.get(wrong[0])!r}")
    return _without_places(facts)


def _without_places(facts: dict[str, Any]) -> dict[str, Any]:
    """Names in the place of paths: where files lay is not what was measured. What was typed as the language model of a
    training stands in its configuration; `lm` is its name."""
    found = facts | {"lm": name_of(facts["lm"]), "weights": name_of(facts.get("weights"))}
    if isinstance(found.get("config"), dict) and "lm" in found["config"]:
        found["config"] = found["config"] | {"lm": found["lm"]}
    return found


def name_of(value: Any) -> Any:
    """The last part of a path; anything else as it is."""
    is_place = isinstance(value, str) and (Path(value).is_absolute() or Path(value).exists())
    return Path(value).name if is_place else value


def _fetch(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if model.count("/") != 1 or model.startswith((".", "/")):
        raise RiceError(f"expected a model's folder, or a hub id OWNER/NAME, found no {model}")
    try:
        with pinned(model) as options:
            with contextlib.suppress(LocalEntryNotFoundError):
                there = Path(snapshot_download(model, local_files_only=True, ignore_patterns=_NOT_FETCHED, **options))
                if any(path.suffix in _WEIGHTS for path in there.iterdir()):  # else a part of it was asked for once
                    return there
            return Path(snapshot_download(model, ignore_patterns=_NOT_FETCHED, **options))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise RiceError(f"cannot fetch the model {model}: {' '.join(str(error).split())}") from error
