"""What a training asks of its process holds before torch is there, and gives way to what the user set."""

import os
import subprocess
import sys

import pytest

from probes.training_config import wait_passively

CODE = """
import os, sys
sys.modules["torch"] = None  # whoever imports it fails
from {package} import commands
try:
    commands.train(None, encoder="mini-s8-128", data=None, out=None)
except ImportError:
    print(os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize("package", ["probes.detection", "tracking"])
def test_a_training_waits_passively_before_it_imports_torch(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    code = CODE.format(package=package)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "passive\n"


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "active"
