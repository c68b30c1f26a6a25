"""A suite's scores are means of domains, and what does not fit a suite is said in one line."""

import math
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from probes.detection.suites import AVERAGE, Suite, SuiteDataset, domain_means, find_suite, read_suites
from rice.data.coco import open_split, role
from rice.data.splits import find_splits
from rice.data.world import WorldConfig, materialise
from rice.errors import RiceError


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = WorldConfig(size=64, train=2, test=1, objects=(1, 2), layout="roboflow")
    return materialise(config, tmp_path_factory.mktemp("suite") / "world")


def lay_out(root: Path, world: Path, *names: str) -> Path:
    for name in names:
        shutil.copytree(world, root / name)
    return root


def test_both_suites_have_a_hundred_datasets_in_seven_domains() -> None:
    suites = read_suites()
    assert list(suites) == ["roboflow100", "rf100-vl"]
    for domain_of in suites.values():
        assert len(domain_of) == 100
        assert len(set(domain_of.values())) == 7
    assert suites["roboflow100"]["bccd-ouzjz"] == "microscopic"
    assert suites["rf100-vl"]["-grccs"] == "industry"


def test_the_suite_is_told_by_its_folders(tmp_path: Path, world: Path) -> None:
    names = ("soda-bottles", "aerial-cows", "bccd-ouzjz", "my-own")  # the first two belong to both suites
    suite = find_suite(lay_out(tmp_path, world, *names))
    assert suite is not None
    assert suite.name == "roboflow100"
    assert [(d.name, d.domain) for d in suite.datasets] == [
        ("aerial-cows", "aerial"),
        ("bccd-ouzjz", "microscopic"),
        ("soda-bottles", "real world"),
    ]
    assert suite.unknown == ("my-own",)
    assert len(suite.missing) == 97
    dataset = suite.dataset("aerial-cows")
    assert role(find_splits(dataset.path)) == ("train", "test")
    assert len(open_split(dataset.path, "test").images) == 1
    with pytest.raises(RiceError, match=r"roboflow100 has no dataset 'aerial-cow'\. Did you mean aerial-cows\?"):
        suite.dataset("aerial-cow")
    with pytest.raises(RiceError, match="dataset 'aerial-pool' of roboflow100 has no folder"):
        suite.dataset("aerial-pool")


def test_what_fits_two_suites_must_be_named(tmp_path: Path, world: Path) -> None:
    lay_out(tmp_path, world, "soda-bottles")
    with pytest.raises(RiceError, match="the 1 known datasets at .* fit roboflow100 and rf100-vl equally well"):
        find_suite(tmp_path)
    suite = find_suite(tmp_path, name="rf100-vl")
    assert suite is not None
    assert suite.datasets[0].domain == "miscellaneous"
    with pytest.raises(RiceError, match=r"no suite 'rf100vl' in .*Did you mean rf100-vl"):
        find_suite(tmp_path, name="rf100vl")


def test_a_dataset_and_strangers_are_no_suite(tmp_path: Path, world: Path) -> None:
    assert find_suite(world) is None  # its split `train` is also the name of one of RF100-VL's datasets
    assert find_suite(lay_out(tmp_path, world, "mine", "yours")) is None
    with pytest.raises(RiceError, match="expected a folder of datasets"):
        find_suite(tmp_path / "nowhere")


def test_a_dataset_that_cannot_train_or_test_is_named(tmp_path: Path, world: Path) -> None:
    lay_out(tmp_path, world, "bccd-ouzjz")
    shutil.rmtree(tmp_path / "bccd-ouzjz" / "test")
    assert find_suite(tmp_path) is not None  # on valid
    shutil.rmtree(tmp_path / "bccd-ouzjz" / "valid")
    with pytest.raises(RiceError, match="bccd-ouzjz: expected a train split and a test or valid split, found train"):
        find_suite(tmp_path)


def test_an_own_map_may_take_its_place(tmp_path: Path, world: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("shapes:\n  small: [a, b]\n  large: [c]\n")
    suite = find_suite(lay_out(tmp_path / "data", world, "a", "b", "c"), mapping=own)
    assert suite is not None
    assert (suite.domains, suite.unknown, suite.missing) == (("small", "large"), (), ())
    means = domain_means({"a": 0.1, "b": 0.2, "c": 0.6}, suite)
    assert list(means) == ["small", "large", AVERAGE]
    assert means == pytest.approx({"small": 0.15, "large": 0.6, AVERAGE: 0.375})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "expected suite"),
        ("s: [a]", "s: expected suite"),
        ("s: {d: a}", "s: 'd': expected suite"),
        ("s: {AVG: [a]}", "s: 'AVG': expected suite"),
        ("s: {d: [1_2]}", "s: d: expected a folder's name, got 12; quote it"),
        ("s: {d: [a], e: [a]}", "s: a stands in d and in e"),
        ("s: {d: [a], d: [b]}", "line 1: the key 'd' is written twice"),
        ("s: {d: [", "line 1: expected the node content"),
    ],
)
def test_a_damaged_map_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(RiceError, match=message) as caught:
        read_suites(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(RiceError, match="cannot read"):
        read_suites(tmp_path / "nowhere.yaml")


def full(name: str) -> Suite:
    domain_of = read_suites()[name]
    datasets = tuple(SuiteDataset(dataset, domain, Path(dataset)) for dataset, domain in domain_of.items())
    return Suite(name, datasets, tuple(dict.fromkeys(domain_of.values())), (), ())


@pytest.mark.parametrize("name", ["roboflow100", "rf100-vl"])
def test_domains_weigh_the_same_whatever_their_size(name: str) -> None:
    suite = full(name)
    scores = {dataset.name: 0.01 * index for index, dataset in enumerate(suite.datasets)}
    means = domain_means(scores, suite)
    groups = [[scores[d.name] for d in suite.datasets if d.domain == domain] for domain in suite.domains]
    assert means[AVERAGE] == pytest.approx(statistics.mean(statistics.mean(group) for group in groups))
    assert means[AVERAGE] != pytest.approx(statistics.mean(scores.values()), abs=1e-3)


def test_means_need_every_score_and_every_domain() -> None:
    suite = full("roboflow100")
    scores = dict.fromkeys((dataset.name for dataset in suite.datasets), 0.5)
    with pytest.raises(RiceError, match=r"no dataset 'aerial-cow'\. Did you mean aerial-cows"):
        domain_means(scores | {"aerial-cow": 0.1}, suite)
    with pytest.raises(RiceError, match="expected a finite score of phages, got nan"):
        domain_means(scores | {"phages": math.nan}, suite)
    del scores["phages"]
    with pytest.raises(RiceError, match="no score of phages; means need all datasets"):
        domain_means(scores, suite)
    part = Suite(suite.name, suite.datasets[:7], suite.domains, (), tuple(d.name for d in suite.datasets[7:]))
    assert domain_means({d.name: 0.5 for d in part.datasets}, part) == {"aerial": 0.5}


def test_suites_import_no_torch() -> None:
    code = "import sys, probes.detection.suites; print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "False"
