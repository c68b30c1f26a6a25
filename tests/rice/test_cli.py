"""The command: quick to answer, clear when wrong, and its flags change only on purpose."""

import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import docstring_parser
import pytest

from rice.cli import VERBS, main
from rice.flags import unwrapped

FLAGS = Path(__file__).with_name("command_line.json")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "rice.cli", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.alone
def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = "import sys; from rice.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        best = min(best, time.perf_counter() - start)
    assert best < 0.5
    for heavy in ("torch", "pandas", "numpy", "transformers", "tyro", "rich"):
        assert f"'{heavy}'" not in result.stderr
    for verb in VERBS:
        assert verb in result.stdout


@pytest.mark.parametrize("target", [target for target, _ in VERBS.values()])
def test_every_verb_exists(target: str) -> None:
    module, _, name = target.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_help_of_no_verb_waits_for_torch() -> None:
    """Importing torch takes seconds. Training's own configuration still needs it."""
    modules = {target.partition(":")[0] for verb, (target, _) in VERBS.items() if verb != "train"}
    code = (
        f"import sys, importlib; [importlib.import_module(m) for m in {sorted(modules)}]; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("target", [target for target, _ in VERBS.values()])
def test_the_texts_of_a_verb_have_no_line_ends_of_our_source(target: str) -> None:
    """The terminal is not as wide as our source: its lines would end in the middle of a sentence."""
    module, _, name = target.partition(":")
    written = getattr(importlib.import_module(module), name).__doc__
    found = docstring_parser.parse(unwrapped(written))
    assert unwrapped(written).split() == written.split()
    assert found.params
    for text in [parameter.description for parameter in found.params]:
        assert text
        assert "\n" not in text
    for paragraph in (found.description or "").split("\n\n"):
        assert all(line.startswith("    rice ") for line in paragraph.splitlines()[1:]), "examples alone have lines"


@pytest.mark.parametrize(("wrong", "right"), [("swep", "sweep"), ("data", "data check"), ("tabels", "tables")])
def test_an_unknown_verb_names_the_nearest(wrong: str, right: str) -> None:
    result = run(wrong)
    assert result.returncode == 2
    assert right in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_named_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("world", "crops", "--train", "1", "--test", "1", "--out", str(tmp_path / "file" / "world"))
    assert result.returncode == 2
    assert str(tmp_path / "file") in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_version_is_the_package_version() -> None:
    from importlib.metadata import version

    assert run("--version").stdout.split() == ["rice", version("rice-suite")]


def help_of(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*verb.split(), "--help"])
    assert caught.value.code == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def flags(verb: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = "\n".join(_option_lines(help_of(verb, capsys)))
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", lines)))


@pytest.mark.parametrize("verb", ["tables", "compare", "pca", "tsne", "sweep"])
@pytest.mark.parametrize("columns", [60, 80, 140])
def test_a_help_fits_the_terminal_and_breaks_no_word(
    verb: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    _, *lines = help_of(verb, capsys).splitlines()
    assert all(len(line) <= columns for line in lines if not line.startswith("    "))  # examples stay whole
    module, _, name = VERBS[verb][0].partition(":")
    written = getattr(importlib.import_module(module), name).__doc__.split()
    assert {word for line in lines if re.match(r"\w", line) for word in line.split()} <= {*written}


@pytest.mark.parametrize("verb", ["tables", "compare", "pca", "tsne", "sweep"])
def test_a_default_is_said_only_where_there_is_one(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(re.sub("[│\n]", " ", help_of(verb, capsys)).split())
    assert "None" not in text
    assert "(default: )" not in text
    assert "(default: False)" not in text
    assert "(default: " in text


def test_positional_files_that_a_verb_needs_are_called_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert "pictures. Several: a folder each under --out. (required)" in " ".join(
        re.sub("[│\n]", " ", help_of("pca", capsys)).split()
    )


def _option_lines(text: str) -> list[str]:
    """Lines of the help that introduce an option: a box's line that begins with it, where texts are indented."""
    return [line for line in text.splitlines() if re.match(r"[\s│]{,2}-", line)]


def test_the_command_line_is_frozen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed flag breaks users' scripts. Where it is meant, run this test with RICE_FREEZE=1 and commit the file."""
    monkeypatch.setenv("COLUMNS", "160")
    found = {verb: flags(verb, capsys) for verb in VERBS}
    if os.environ.get("RICE_FREEZE"):
        FLAGS.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(FLAGS.read_text())


def test_a_closed_pipe_ends_without_a_traceback() -> None:
    command = [sys.executable, "-m", "rice.cli", "encoders", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode != 0
