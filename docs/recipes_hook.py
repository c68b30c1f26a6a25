"""A hook of MkDocs: `<!-- recipes: FILE -->` in a page becomes the recipes of that file, from their docstrings.

The file is parsed, not imported: a site is built without torch.
"""

import ast
import re
from pathlib import Path
from typing import Any

_MARK = re.compile(r"^<!-- recipes: (\S+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Called by MkDocs for every page."""
    root = Path(config["config_file_path"]).parent
    return _MARK.sub(lambda match: recipes(root / match[1]), markdown)


def recipes(path: Path) -> str:
    """A section for each public function that takes nothing and says by which command it runs."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not node.args.args:
            text = ast.get_docstring(node) or ""
            if any(_is_command(line) for line in text.splitlines()):
                found.append(_section(node.name.replace("_", "-"), text))
    if not found:
        raise ValueError(f"{path}: expected functions whose docstrings hold a command, found none")
    return "\n\n".join(found)


def _section(name: str, text: str) -> str:
    """The docstring with its command as code, and each of its other lines as a line."""
    lines = [f"```\n{line}\n```" if _is_command(line) else line for line in text.splitlines()]
    return f"### `{name}`\n\n" + "\n\n".join(line for line in lines if line)


def _is_command(line: str) -> bool:
    return line.startswith(("rice ", "torchrun "))
