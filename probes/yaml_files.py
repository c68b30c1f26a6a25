"""YAML that people write: read so that no mistake in it passes silently."""

from pathlib import Path
from typing import Any

import yaml

from rice.errors import RiceError


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is written twice: YAML would keep the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is written twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> Any:
    """The one document of a file. Errors: RiceError naming the file, and the line where there is one: a key that is
    written twice, what is not YAML, a file that cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, _StrictLoader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" line {error.problem_mark.line + 1}:"
        raise RiceError(f"{path}:{line} {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RiceError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise RiceError(f"cannot read {path}: {error.strerror}") from error
