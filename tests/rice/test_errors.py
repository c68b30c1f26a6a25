"""A missing extra says the exact line that adds it; other import errors are not mistaken for it."""

import sys
from pathlib import Path

import pytest

from rice.errors import MissingExtraError, RiceError, nearest, require


def test_a_missing_extra_names_its_pip_line() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'rice-suite\[slurm\]'"):
        require("surely_absent_module", "slurm")


def test_a_module_that_is_there_but_broken_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import surely_absent_module\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ModuleNotFoundError, match="surely_absent_module"):
        require("half_installed", "slurm")


def test_nearest_names_are_offered_only_when_near() -> None:
    assert "rice-l14-560" in nearest("rice-l14-56", ["rice-l14-560", "clip-l14-336"])
    assert nearest("zzz", ["rice-l14-560"]) == ""


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        ("a\nb", "a b"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\ud800", "\\ud800"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u6f22", "\u6f22"),
    ],
)
def test_a_message_is_one_line_that_a_terminal_can_show(quoted: str, shown: str) -> None:
    assert str(RiceError(f"got {quoted}")) == f"got {shown}"
    str(RiceError(quoted)).encode()


def test_a_message_beyond_all_measure_keeps_its_begin_and_its_end() -> None:
    message = str(RiceError("expected a name, got " + "x" * 10_000 + "; see --help"))
    assert message.startswith("expected a name, got xxx")
    assert message.endswith("xxx; see --help")
    assert len(message) < 1600
