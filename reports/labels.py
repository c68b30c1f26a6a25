"""What a person calls configurations and columns: names that tell apart what differs, and sort as one counts."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any


def config_differences(configs: Iterable[str]) -> dict[str, str]:
    """Each configuration (JSON text) -> the fields in which the given ones differ: 'grid=matched heads.channels=32'.

    Texts that differ never share a label: 1 and "1" read the same, so the second is numbered.
    """
    flat: dict[str, dict[str, Any]] = {text: flattened(json.loads(text)) for text in sorted(set(configs))}
    names = sorted({name for config in flat.values() for name in config})
    varying = [n for n in names if len({json.dumps(config.get(n), sort_keys=True) for config in flat.values()}) > 1]
    labels: dict[str, str] = {}
    counts: dict[str, int] = {}
    for text, config in flat.items():
        label = " ".join(f"{name}={config[name]}" for name in varying if name in config)
        counts[label] = counts.get(label, 0) + 1
        labels[text] = label if counts[label] == 1 else f"{label} ({counts[label]})".strip()
    return labels


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
