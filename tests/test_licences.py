"""No dependency comes in without its licence on docs/licences.md, and the page says what packages themselves state."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

_PAGE = Path(__file__).resolve().parents[1] / "docs" / "licences.md"
_WORDS = re.compile(r"GPL|MPL|EUPL|CDDL|SSPL|Mozilla|General Public")


@pytest.fixture(scope="module")
def licences(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("licences")


@pytest.fixture(scope="module")
def page() -> dict[str, tuple[str, str, str]]:
    """Package -> version, licence, extras, as the page has them."""
    text = _PAGE.read_text(encoding="utf-8").partition("<!-- dependencies")[2].partition("<!-- end of")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {name: (version, licence, extras) for name, version, licence, extras in rows[2:]}


def test_the_page_has_each_direct_dependency_with_its_extras_and_no_other(
    licences: ModuleType, page: dict[str, tuple[str, str, str]]
) -> None:
    expected = {name: ", ".join(extras) or "the core" for name, extras in licences.direct().items()}
    assert {name: extras for name, (_, _, extras) in page.items()} == expected, "run: python tests/licences.py"
    assert len(page) > 50


def test_the_page_has_the_versions_of_the_lock(licences: ModuleType, page: dict[str, tuple[str, str, str]]) -> None:
    expected = {name: ", ".join(licences.locked()[name]) for name in page}
    assert {name: version for name, (version, _, _) in page.items()} == expected, "run: python tests/licences.py"


def test_the_page_states_what_installed_packages_state(
    licences: ModuleType, page: dict[str, tuple[str, str, str]]
) -> None:
    compared = 0
    for name, (_, licence, _) in page.items():
        found = licences.installed(name)
        if found is None or found[0] not in licences.locked()[name] or name in licences.BY_HAND:
            continue
        compared += 1
        assert licence == found[1], f"{name}: run: python tests/licences.py"
    assert compared > 15


def test_packages_whose_licence_is_written_by_hand_state_none_that_is_whole(licences: ModuleType) -> None:
    """Otherwise a hand-written licence would hide that a package has changed its own."""
    for name in licences.BY_HAND:
        found = licences.installed(name)
        if found is not None and found[1] is not None:
            assert name in ("distance", "polygon3", "torchvision"), f"{name} states {found[1]}"


def test_every_copyleft_dependency_is_spoken_of_in_the_text(page: dict[str, tuple[str, str, str]]) -> None:
    text = _PAGE.read_text(encoding="utf-8").partition("## Copyleft")[2].lower()
    copyleft = [name for name, (_, licence, _) in page.items() if _WORDS.search(licence)]
    assert len(copyleft) >= 4
    assert [name for name in copyleft if f"| {name} |" not in text and name not in text] == []


@pytest.mark.parametrize(
    ("metadata", "classifiers", "expected"),
    [
        ({"License-Expression": "MIT", "License": "GPL"}, [], "MIT"),
        ({"License": "BSD 2-Clause License"}, ["License :: OSI Approved :: BSD License"], "BSD-2-Clause"),
        (
            {"License": "Copyright (c) 2001, all of it\nRedistribution"},
            ["License :: OSI Approved :: MIT License"],
            "MIT",
        ),
        ({"License": "Copyright (c) 2001, all of it\nRedistribution"}, [], None),
        ({"License": "UNKNOWN"}, ["Programming Language :: Python"], None),
        (
            {"License": "LGPL for Polygon, other for gpc"},
            [
                "License :: OSI Approved :: GNU Library or Lesser General Public License (LGPL)",
                "License :: Other/Proprietary License",
            ],
            "GNU Library or Lesser General Public License (LGPL), Other/Proprietary License",
        ),
    ],
)
def test_a_licence_is_what_metadata_states_and_never_guessed(
    licences: ModuleType, metadata: dict[str, str], classifiers: list[str], expected: str | None
) -> None:
    assert licences.stated(metadata, classifiers) == expected
