"""A missing extra says the exact line that adds it; other import errors are not mistaken for it."""

import sys
from pathlib import Path

import pytest

from rice.errors import MissingExtraError, nearest, require


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
