"""A page in one file: style, script and data inside. Its policy runs only the script whose hash it names, and asks
nothing of any network. Texts from files go into blocks of JSON, which the script reads as texts.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

INDEX = "index.html"
STYLE, ELEMENTS = Path(__file__).with_name("base.css"), Path(__file__).with_name("elements.js")
"""What pages look like, and how a script builds them; the first of `styles` and of `scripts`."""

_SCRIPT = re.compile(r"<script\b[^>]*>(.*?)</script\b", re.DOTALL | re.IGNORECASE)
_ESCAPES = {ord("<"): r"\u003c", ord(">"): r"\u003e", ord("&"): r"\u0026"}


def mark(verb: str) -> str:
    """What tells a page of this verb from others; stands in its first 1024 bytes."""
    return f'<meta name="generator" content="rice {verb}">'


def is_page(path: Path, verb: str) -> bool:
    """Whether it is the page that an earlier run of this verb wrote."""
    if path.name != INDEX or path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return mark(verb).encode() in file.read(1024)


def render(
    template: Path, verb: str, data: Any, *, styles: Sequence[Path], scripts: Sequence[Path], **values: Any
) -> bytes:
    """The page, UTF-8. data: JSON's kinds of values. values: what else the template names; texts are escaped.

    The template gets, ready to stand where they belong: `mark`, `policy`, `style`, `script`, `data`.
    """
    loader = jinja2.FileSystemLoader(template.parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    style = "\n".join(path.read_text(encoding="utf-8") for path in (STYLE, *styles))
    script = "\n".join(path.read_text(encoding="utf-8") for path in (ELEMENTS, *scripts))
    text = environment.get_template(template.name).render(
        mark=Markup(mark(verb)),
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=Markup(embedded_json(data)),
        **values,
    )
    return text.encode("utf-8", "replace")  # texts may hold halves of surrogate pairs


def embedded_json(value: Any) -> str:
    """JSON that stands inside a script element: no character of it can end that element, or begin another."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def allowed_scripts(html: str) -> str:
    """What a policy names the scripts that stand in a page by, so that no other one runs: their hashes."""
    return " ".join(dict.fromkeys(_hash(text.replace("\r\n", "\n")) for text in _SCRIPT.findall(html)))


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data: 'self'; media-src data: blob: 'self'; frame-src 'self'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
