"""What would be released holds what it must and nothing else; the checks of tests/release.py find what is wrong.

Building and installing takes an index and minutes: `make release-check`.
"""

import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import rice

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def release(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("release")


@pytest.fixture(scope="module")
def known(release: ModuleType) -> set[str]:
    """Files of the packages."""
    if not (ROOT / ".git").exists():
        pytest.skip("asks git which files it tracks")
    return release.tracked()


@pytest.fixture
def wheel(release: ModuleType, known: set[str]) -> list[str]:
    """The names in a wheel without a fault."""
    info = release._INFO
    metadata = ["METADATA", "WHEEL", "RECORD", "entry_points.txt", *(f"licenses/{name}" for name in release.LICENCES)]
    return [*known, *(f"{info}/{name}" for name in metadata)]


def test_version_stands_once_in_all_places() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == rice.__version__ == str(citation["version"])
    assert project["license"] == citation["license"]


def test_the_citation_names_the_paper_with_all_its_authors() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    (paper,) = citation["references"]
    assert paper["title"] == "Region-based Cluster Discrimination for Visual Representation Learning"
    names = [f"{author['given-names']} {author['family-names']}" for author in paper["authors"]]
    assert names[0] == "Yin Xie"
    assert names[-1] == "Jiankang Deng"
    assert len(names) == 12


def test_a_whole_wheel_has_no_fault(release: ModuleType, known: set[str], wheel: list[str]) -> None:
    assert release.wheel_faults(wheel, known) == []


@pytest.mark.parametrize(
    "name",
    [
        "rice/encoders/shipped/rice-mini/model.safetensors",
        "probes/sweeps/table3.yaml",
        "mllm/llava/recipe.py",
        "reports/page/template/index.html.j2",
        "rice/page/elements.js",
    ],
)
def test_a_wheel_that_lacks_a_file_is_found_out(
    release: ModuleType, known: set[str], wheel: list[str], name: str
) -> None:
    assert release.wheel_faults(set(wheel) - {name}, known) == [f"lacks {name}"]


def test_a_wheel_without_licence_is_found_out(release: ModuleType, known: set[str], wheel: list[str]) -> None:
    name = f"{release._INFO}/licenses/LICENSE"
    assert release.wheel_faults(set(wheel) - {name}, known) == [f"lacks {name}"]


def test_shipped_files_are_missed_even_where_git_tracks_them_no_more(
    release: ModuleType, known: set[str], wheel: list[str]
) -> None:
    name = "rice/encoders/shipped/mini-s8-128/model.safetensors"
    assert release.wheel_faults(set(wheel) - {name}, known - {name}) == [f"lacks {name}"]


@pytest.mark.parametrize(
    "name", ["tests/conftest.py", "rice/__pycache__/cli.pyc", "probes/sweeps/mine.yaml", "data/a.jpg"]
)
def test_a_wheel_that_holds_more_is_found_out(
    release: ModuleType, known: set[str], wheel: list[str], name: str
) -> None:
    assert release.wheel_faults([*wheel, name], known) == [f"holds {name}, which is not tracked"]


@pytest.mark.parametrize(
    "name", ["rice/tests/test_a.py", "rice/__pycache__/cli.pyc", "probes/.mypy_cache/a", "rice/a.log"]
)
def test_tests_and_caches_are_found_out_even_where_they_are_tracked(
    release: ModuleType, known: set[str], wheel: list[str], name: str
) -> None:
    faults = release.wheel_faults([*wheel, name], {*known, name})
    assert faults == [f"holds {name}, which nobody needs who installs"]


def test_an_sdist_holds_what_builds_the_wheel_and_nothing_else(release: ModuleType, known: set[str]) -> None:
    folder = f"rice_suite-{release.VERSION}/"
    names = [f"{folder}{name}" for name in (*known, *release.BESIDE, "PKG-INFO")]
    assert release.sdist_faults(names, known) == []
    assert release.sdist_faults([*names, f"{folder}docs/index.md"], known) == [
        "holds docs/index.md, which is not tracked"
    ]
    assert release.sdist_faults(names[1:], known) == [f"lacks {names[0].removeprefix(folder)}"]


def test_what_an_sdist_is_made_of_exists(release: ModuleType) -> None:
    beside = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert {*release.PACKAGES, *release.BESIDE} == {*beside["sdist"]["only-include"], "pyproject.toml", ".gitignore"}
    assert all((ROOT / name).exists() for name in beside["sdist"]["only-include"])


@pytest.mark.parametrize(
    ("said", "code", "fault"),
    [
        ("rice: error: plotly is not installed; add it with: pip install 'rice-suite[page]'\n", 2, None),
        ("rice: error: plotly is not installed; add it with: pip install 'rice-suite[page]'\n", 0, "status 0, not 2"),
        ("Traceback (most recent call last):\nModuleNotFoundError: No module named 'plotly'\n", 1, "a traceback"),
        ("rice: error: no such folder\n", 2, "no line that names page"),
        ("", 2, "no line that names page"),
    ],
)
def test_a_command_without_its_extra_must_name_it_in_one_line(
    release: ModuleType, said: str, code: int, fault: str | None
) -> None:
    faults = release.line_faults(said, code, "page")
    assert (fault is None) == (faults == [])
    assert fault is None or any(fault in found for found in faults)


def test_every_extra_that_users_install_is_tried_without_it(release: ModuleType) -> None:
    named = release.PROJECT["project"]["optional-dependencies"]
    tried = {extra for extra, _ in release.EXTRAS}
    assert tried | {"dev", "docs", "faiss-gpu", "fiftyone"} == set(named)  # fiftyone: rice view writes its page instead
