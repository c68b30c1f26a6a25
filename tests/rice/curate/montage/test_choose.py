"""What is shown: the nearest by brute force, a fair draw of the others, the same however shards are cut and ordered."""

from pathlib import Path

import numpy as np
import pytest
from planted_regions import Picture, pictures, write

from rice.curate.montage import choose as module
from rice.curate.montage.choose import Choice, choose, choose_clusters, count
from rice.curate.montage.config import MontageConfig
from rice.curate.montage.regions import Collection
from rice.errors import RiceError
from rice.progress import SilentProgress

CLUSTERS = 20
Region = tuple[str, int]
"""A picture's key, and the region's place in it."""


def chosen(folder: Path, **settings: int) -> tuple[Choice, dict[int, list[tuple[Region, bool]]], list[Region]]:
    """The choice; by cluster, which regions in what order and whether they are nearest; the texts."""
    collection = Collection(folder)
    choice = choose(collection, MontageConfig(**settings), SilentProgress())

    def name(row: np.void) -> Region:
        sidecar = collection.regions(int(row["shard"])).sidecar
        return str(sidecar.keys[int(row["picture"])]), int(row["region"] - sidecar.regions_at[row["picture"]])

    shown = {
        cluster: [(name(row), bool(row["near"])) for row in choice.regions[which]]
        for cluster, which in zip(choice.clusters.tolist(), choice.slices(), strict=True)
    }
    return choice, shown, [name(row) for row in choice.texts]


def members(made: list[Picture], cluster: int) -> dict[Region, float]:
    """Regions of a cluster and their distances."""
    return {
        (picture.key, slot): picture.distances[slot]
        for picture in made
        for slot, label in enumerate(picture.labels)
        if label == cluster
    }


@pytest.fixture(scope="module")
def made() -> list[Picture]:
    return pictures(150, CLUSTERS)


@pytest.fixture(scope="module")
def folder(made: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("shards"), [made[:90], made[90:]], CLUSTERS)


def test_half_are_the_nearest_of_all_and_the_rest_is_of_the_others(made: list[Picture], folder: Path) -> None:
    _, shown, _ = chosen(folder, regions=12)
    assert len(shown) > 10
    for cluster, regions in shown.items():
        own = members(made, cluster)
        by_distance = sorted(own, key=lambda region: own[region])
        near = [region for region, is_near in regions if is_near]
        others = [region for region, is_near in regions if not is_near]
        assert near == by_distance[:6]
        assert set(others) <= set(by_distance[6:])
        assert len(others) == len(set(others)) == min(6, max(len(own) - 6, 0))


def test_neither_the_number_of_shards_nor_their_order_changes_what_is_shown(
    made: list[Picture], folder: Path, tmp_path: Path
) -> None:
    turned = made[::-1]
    other = write(tmp_path / "other", [turned[i : i + 11] for i in range(0, len(turned), 11)], CLUSTERS)
    _, shown, texts = chosen(folder, regions=10, texts=7)
    assert len(texts) == 7
    assert (shown, texts) == chosen(other, regions=10, texts=7)[1:]
    assert (shown, texts) != chosen(folder, regions=10, texts=7, seed=1)[1:]


def test_it_is_the_same_when_candidates_are_sifted_on_the_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = chosen(folder, regions=6, texts=3)[1:]
    monkeypatch.setattr(module, "_BUFFERED", 16)
    assert chosen(folder, regions=6, texts=3)[1:] == expected


def test_every_region_is_drawn_as_often_as_any_other(tmp_path: Path) -> None:
    made = pictures(4, 1)
    collection = Collection(write(tmp_path, [made], 1, extra=False))
    own = len(members(made, 0))
    times: dict[int, int] = {}
    for seed in range(600):
        choice = choose(collection, MontageConfig(regions=5, seed=seed), SilentProgress())
        assert len(choice.regions) == 5
        for region in choice.regions["region"].tolist():
            times[region] = times.get(region, 0) + 1
    share = 5 / own
    assert len(times) == own
    assert max(abs(n - 600 * share) for n in times.values()) < 4.5 * (600 * share * (1 - share)) ** 0.5


def test_without_distances_all_are_drawn(made: list[Picture], tmp_path: Path) -> None:
    choice, shown, texts = chosen(write(tmp_path, [made], CLUSTERS, extra=False), regions=10)
    assert not choice.counts.measured.any()
    for cluster, regions in shown.items():
        assert not any(is_near for _, is_near in regions)
        assert len({region for region, _ in regions}) == min(10, len(members(made, cluster)))
    assert texts


def test_counts_are_those_of_the_sidecars(made: list[Picture], folder: Path) -> None:
    counts = count(Collection(folder), SilentProgress())
    labels = [label for picture in made for label in picture.labels]
    assert (counts.pictures, counts.regions, counts.texts) == (150, 900, labels.count(-1))
    assert counts.sizes.tolist() == [labels.count(cluster) for cluster in range(CLUSTERS)]
    for cluster in range(CLUSTERS):
        assert counts.sums[cluster] == pytest.approx(sum(members(made, cluster).values()))


@pytest.mark.parametrize("most", [1, 2, 7, 10])
def test_of_too_many_clusters_the_largest_fill_half_and_others_are_drawn(most: int) -> None:
    rng = np.random.default_rng(0)
    sizes_K = rng.permutation(200) * (rng.random(200) < 0.8)
    shown = choose_clusters(sizes_K, most, seed=0)
    assert len(set(shown.tolist())) == most
    assert (np.diff(shown) > 0).all()
    assert (sizes_K[shown] > 0).all()
    largest = set(np.argsort(-sizes_K)[: most - most // 2].tolist())
    assert largest <= set(shown.tolist())
    draws = {tuple(sorted(set(choose_clusters(sizes_K, most, seed).tolist()) - largest)) for seed in range(20)}
    assert len(draws) > 10 or most == 1


def test_clusters_without_regions_are_not_shown() -> None:
    assert choose_clusters(np.array([0, 3, 0, 1]), 10, seed=0).tolist() == [1, 3]


def test_values_that_are_not_one_for_each_region_are_refused_by_name(made: list[Picture], tmp_path: Path) -> None:
    broken = [Picture(p.key, p.labels, p.boxes, p.distances, p.image) for p in made[:3]]
    broken[1].distances = broken[1].distances[:-1]
    write(tmp_path, [broken], CLUSTERS)
    with pytest.raises(RiceError, match=r"part-000000.parquet.*'distances'"):
        count(Collection(tmp_path), SilentProgress())
