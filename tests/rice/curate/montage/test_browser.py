"""The page in a real browser: sheets load, order and search answer, texts stay texts, nothing is asked of a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted_regions import TEXT, Picture, pictures, write

from rice.curate.montage.config import MontageConfig
from rice.curate.montage.page import build_montage
from rice.progress import SilentProgress

CLUSTERS = 30
HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'
Visiting = Callable[..., Any]
"""See the fixture `visit`; gives a `Visit`."""


@pytest.fixture(scope="module")
def made() -> list[Picture]:
    return pictures(60, CLUSTERS)


@pytest.fixture(scope="module")
def site(made: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    write(root / "shards", [made], CLUSTERS)
    return build_montage(root / "shards", root / "site", MontageConfig(regions=16, tile=24), SilentProgress()).parent


@pytest.fixture(scope="module")
def named_site(made: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("named")
    largest, second = by_size(made)[:2]
    special = {largest: HOSTILE, second: "a cat"}
    names = tuple(special.get(number, f"thing {number}") for number in range(CLUSTERS))
    write(root / "shards", [made], CLUSTERS, extra=False, names=names)
    config = MontageConfig(regions=8, tile=24, most_clusters=6)
    return build_montage(root / "shards", root / "site", config, SilentProgress()).parent


def sizes(made: list[Picture]) -> dict[int, int]:
    labels = [label for picture in made for label in picture.labels if label >= 0]
    return {label: labels.count(label) for label in labels}


def by_size(made: list[Picture]) -> list[int]:
    """Clusters, largest first."""
    own = sizes(made)
    return sorted(own, key=lambda number: (-own[number], number))


def numbers(page: Any) -> list[int]:
    return [int(text) for text in page.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.number)")]


def test_every_sheet_loads_when_it_is_scrolled_to(visit: Visiting, site: Path, made: list[Picture]) -> None:
    one = visit(site)
    images = one.page.locator(".card img")
    assert images.count() == len(sizes(made))
    for number in range(images.count()):
        image = images.nth(number)
        assert image.get_attribute("loading") == "lazy"
        image.scroll_into_view_if_needed()
        one.until(image, "i => i.complete && i.naturalWidth > 0")
        assert image.evaluate("i => [i.naturalWidth, i.naturalHeight]") == image.evaluate("i => [i.width, i.height]")


def test_the_order_is_the_one_that_is_asked_for(visit: Visiting, site: Path, made: list[Picture]) -> None:
    page = visit(site).page
    own = sizes(made)
    assert numbers(page) == by_size(made)
    page.select_option("[name=order]", "smallest first")
    assert numbers(page) == sorted(own, key=lambda number: (own[number], number))
    page.select_option("[name=order]", "by number")
    assert numbers(page) == sorted(own)
    distances = {
        number: [d for p in made for d, label in zip(p.distances, p.labels, strict=True) if label == number]
        for number in own
    }
    means = {number: sum(values) / len(values) for number, values in distances.items()}
    page.select_option("[name=order]", "tightest first")
    assert numbers(page) == sorted(own, key=lambda number: means[number])
    page.select_option("[name=order]", "loosest first")
    assert numbers(page) == sorted(own, key=lambda number: -means[number])


def test_a_search_finds_a_number_or_part_of_a_name(
    visit: Visiting, site: Path, named_site: Path, made: list[Picture]
) -> None:
    page = visit(site).page
    page.fill("[name=find]", "3")
    assert numbers(page) == [3]
    page.fill("[name=find]", "12345")
    assert numbers(page) == []
    assert "Nothing here fits" in page.inner_text("#said")
    page = visit(named_site).page
    page.fill("[name=find]", "CAT")
    second = by_size(made)[1]
    assert numbers(page) == [second]
    assert page.inner_text(".card h3") == f"a cat ({second})"
    assert page.locator("[name=order] option").all_inner_texts() == ["largest first", "smallest first", "by number"]


def test_of_many_classes_it_says_which_are_shown(visit: Visiting, named_site: Path, made: list[Picture]) -> None:
    page = visit(named_site).page
    own = sizes(made)
    assert set(by_size(made)[:3]) < set(numbers(page))
    assert len(numbers(page)) == 6
    text = page.inner_text("#how")
    assert f"Of {len(own)} classes with regions, 6 are shown: the 3 largest and 3 drawn from the others." in text
    assert "drawn from all" in text
    assert f"empty classes\n{CLUSTERS - len(own)}" in page.inner_text("#totals")


def test_a_sheet_opens_with_what_is_known_of_its_regions(visit: Visiting, site: Path, made: list[Picture]) -> None:
    page = visit(site).page
    page.locator(".card button").first.click()
    rows = page.locator("#viewer tbody tr")
    assert rows.count() == 16
    kinds = page.locator("#viewer tbody td:first-child").all_inner_texts()
    assert kinds == ["nearest"] * 8 + ["drawn"] * 8
    key, box = rows.nth(3).locator("th").inner_text(), rows.nth(3).locator("td").last.inner_text()
    (picture,) = [picture for picture in made if picture.key == key]
    slot = picture.boxes.index([int(edge) for edge in box.split(", ")])
    assert f"cluster {picture.labels[slot]}" == page.inner_text("#viewer-title")
    rows.nth(9).hover()
    spot, image = page.locator(".spot").bounding_box(), page.locator("#viewer img").bounding_box()
    assert image["x"] - 1 <= spot["x"] < spot["x"] + spot["width"] <= image["x"] + image["width"] + 1
    assert spot["y"] > image["y"] + image["height"] / 3
    page.keyboard.press("Escape")
    assert page.locator("#viewer").is_hidden()


def test_beside_a_sheet_stands_what_its_rows_are(visit: Visiting, site: Path, made: list[Picture]) -> None:
    page = visit(site).page
    for number, size in sizes(made).items():
        expected = ["all"] if size <= 8 else ["nearest", "the rest" if size <= 16 else "drawn"]
        page.locator(f"#c{number}").scroll_into_view_if_needed()  # others are not laid out
        assert page.locator(f"#c{number} .kinds span").all_text_contents() == expected
        labels = page.locator(f"#c{number} .kinds span").evaluate_all("all => all.map(one => one.offsetHeight)")
        rows = [-(-min(size, 8) // 8), -(-min(size - 8, 8) // 8)][: len(labels)]
        assert labels == [24 * row for row in rows]


def test_texts_and_names_are_shown_as_texts_and_do_nothing(visit: Visiting, site: Path, named_site: Path) -> None:
    one = visit(site)
    shown = one.page.locator("#text-list bdi").first
    shown.scroll_into_view_if_needed()
    assert shown.inner_text() == TEXT.replace("\u202e", r"\u202e")
    one.until(one.page.locator("#text-list img").first, "i => i.complete && i.naturalWidth > 0")
    page = visit(named_site).page
    assert HOSTILE in page.locator(".card h3").first.inner_text()
    assert page.locator("img[src=x]").count() == 0
    assert "tokens alone" in page.locator("#text-list bdi").first.inner_text()


def test_totals_and_bars_are_there_and_a_phone_does_not_scroll_sideways(
    visit: Visiting, site: Path, made: list[Picture]
) -> None:
    page = visit(site, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True).page
    assert "60 pictures · 360 regions" in page.inner_text("#summary")
    heights = page.locator("#bars i").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().height)")
    assert max(heights) > 80
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".card button").first.tap()
    assert page.evaluate("document.querySelector('#viewer').scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_takes_the_colours_that_the_reader_prefers(visit: Visiting, site: Path, scheme: str) -> None:
    page = visit(site, color_scheme=scheme).page
    red = int(page.evaluate("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0])
    assert (red < 100) == (scheme == "dark")
