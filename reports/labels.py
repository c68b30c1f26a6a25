"""What a person calls configurations and columns: names that tell apart what differs, and sort as one counts."""

import json
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

HASH_LENGTH = 8
"""Of a hash, as far as it is shown."""


def config_differences(configs: Iterable[str]) -> dict[str, str]:
    """Each configuration (JSON text) -> the fields in which the given ones differ: 'grid=matched heads.channels=32'.

    Texts that differ never share a label: 1 and "1" read the same.
    """
    flat: dict[str, dict[str, Any]] = {text: flattened(json.loads(text)) for text in sorted(set(configs))}
    names = sorted({name for config in flat.values() for name in config})
    varying = [n for n in names if len({json.dumps(config.get(n), sort_keys=True) for config in flat.values()}) > 1]
    labels = [" ".join(f"{name}={config[name]}" for name in varying if name in config) for config in flat.values()]
    return dict(zip(flat, distinct(labels, flat), strict=True))


def remarks(name: str, values: Sequence[Any]) -> list[str]:
    """What tells results apart that differ in the column `name`: 'grid=matched', 'size 512', 'dataset 1a2b3c4d', 'val'.

    Values that differ never share a remark.
    """
    if name == "config":
        differences = config_differences(values)
        return [differences[value] for value in values]
    if name == "protocol":  # a paragraph: numbered here, in full in the notes
        numbers = {text: i for i, text in enumerate(sorted(set(values)), start=1)}
        return [f"protocol {numbers[value]}" for value in values]
    if name in ("split", "unit"):
        return [str(value) for value in values]
    word = name.removesuffix("_fingerprint").replace("_", " ")
    return distinct([f"{word} {short(name, value, '?')}" for value in values], values)


def encoder_label(name: str, trained: bool) -> str:
    """With a remark where the weights are random, unless the name itself says so."""
    return name if trained or "untrained" in name.lower() else f"{name} (untrained)"


def short(name: str, value: Any, unknown: str) -> str:
    """A value of the column `name` in a table: hashes cut, `unknown` for None."""
    if value is None:
        return unknown
    return str(value)[:HASH_LENGTH] if name.endswith("fingerprint") else str(value)


def distinct(texts: Iterable[str], values: Iterable[Hashable]) -> list[str]:
    """The texts, numbered where values that differ read the same: 'x', 'x (2)'."""
    numbers: dict[str, dict[Hashable, int]] = {}
    found = []
    for text, value in zip(texts, values, strict=True):
        of_text = numbers.setdefault(text, {})
        number = of_text.setdefault(value, len(of_text) + 1)
        found.append(text if number == 1 else f"{text} ({number})".strip())
    return found


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'heads': {'channels': 32}} -> {'heads.channels': 32}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        nested = isinstance(value, dict) and value
        flat |= flattened(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def natural(*labels: str) -> list[list[str | int]]:
    """Sort key that puts 'layer 9' before 'layer 10'."""
    parts = (re.split(r"([0-9]+)", label.lower()) for label in labels)
    return [[int(part) if i % 2 else part for i, part in enumerate(label)] for label in parts]
