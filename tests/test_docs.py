"""The pages build without a warning or a network, and what they tell to type exists."""

import ast
import contextlib
import functools
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from probes.sweeps.sweepfile import BUILT_IN
from rice.cli import VERBS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
RECIPES = ("train", "detect train", "track train", "llava train", "lisa train")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)
_OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a language; "" stands for what is typed: fences without one, and indented blocks."""
    text = page.read_text(encoding="utf-8")
    found = [body for name, body in _FENCE.findall(text) if name == language]
    return found if language else found + _INDENTED.findall(_FENCE.sub("", text))


def commands(page: Path) -> Iterator[list[str]]:
    """The words behind `rice` of every command in a page, torchrun's too."""
    for block in blocks(page, ""):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for start in (["rice"], ["-m", "rice.cli"]):
                places = [i for i in range(len(words)) if words[i : i + len(start)] == start]
                if places and (start[0] == "-m" or places[0] == 0):
                    yield words[places[0] + len(start) :]


def verb_of(words: list[str]) -> str | None:
    return next((verb for n in (2, 1) if (verb := " ".join(words[:n])) in VERBS), None)


@functools.cache
def flags(*words: str) -> frozenset[str]:
    """The flags in the help of a verb, or of a verb with its recipe."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0, f"rice {' '.join(words)}: {said.getvalue()}"
    text = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue())
    assert f"usage: rice {' '.join(words)} " in text, f"rice {' '.join(words)}: no such recipe"
    return frozenset(re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_with_its_flags(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    for words in commands(page):
        if not words or words == ["--help"]:
            continue
        verb = verb_of(words)
        assert verb is not None, f"{page.name}: rice {' '.join(words)}"
        rest = words[len(verb.split()) :]
        recipe = rest[:1] if verb in RECIPES and rest and rest[0].islower() and not rest[0].startswith("-") else []
        known = flags(*verb.split(), *recipe)
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert given <= known, f"{page.name}: rice {' '.join(words)}: {sorted(given - known)}"
        if verb == "sweep" and not rest[0].startswith("-") and not rest[0].endswith(".yaml"):
            assert (BUILT_IN / f"{rest[0]}.yaml").is_file(), rest[0]


def test_commands_are_found_in_pages() -> None:
    """Without this, a parser that finds nothing would pass the test above."""
    found = [words for page in PAGES for words in commands(page)]
    assert len(found) > 60
    assert {verb_of(words) for words in found} >= {"sweep", "tables", "pca", "detect train", "track score", "train"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_named_in_prose_exists(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for code in re.findall(r"`rice ([a-z][^`]*)`", text):
        assert verb_of(code.split()), f"{page.name}: `rice {code}`"


def test_the_pages_name_every_verb() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [verb for verb in VERBS if not re.search(rf"\brice {verb}\b", re.sub(r"rice\.cli ", "rice ", text))]
    assert not missing


def test_a_command_of_every_verb_stands_on_a_page_of_the_site() -> None:
    shown = {verb_of(words) for page in PAGES if page.name != "README.md" for words in commands(page)}
    assert [verb for verb in VERBS if verb not in shown] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_of_a_page_parses_and_its_imports_resolve(page: Path) -> None:
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_of_a_page_parses(page: Path) -> None:
    for text in blocks(page, "yaml"):
        assert text.startswith("--8<--") or isinstance(yaml.safe_load(text), dict)


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "rice").is_dir(), reason="the site is built from a checkout, whose files it quotes")
def test_the_site_builds_strictly_and_its_pages_ask_nothing_of_other_hosts(tmp_path: Path) -> None:
    site = tmp_path / "site"
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "mkdocs.yml", "-d", str(site)],
        cwd=ROOT,
        env=os.environ | _OFFLINE | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    assert "WARNING" not in build.stderr
    pages = list(site.rglob("*.html"))
    assert {page.name for page in PAGES if page.name != "README.md"} == {
        f"{page.stem}.md" for page in pages if page.stem != "404"
    }
    loaded = re.compile(
        r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\s>]*"
        r"|<link\b(?![^>]*rel=[\"']?(?:canonical|next|prev))[^>]*\bhref=[\"']?(?:https?:)?//[^\s>]*"
    )
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not loaded.findall(text), page
        assert "<!-- recipes:" not in text
        assert "--8<--" not in text
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import\s+)[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style
    assert not (site / "recipes_hook.py").exists()
    assert "Keep a Changelog" in (site / "changelog.html").read_text(encoding="utf-8")
    assert "rice detect train vitdet" in (site / "recipes.html").read_text(encoding="utf-8")
