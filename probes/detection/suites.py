"""Suites of many small detection datasets, scored by domain: Roboflow100 (Table 3) and RF100-VL. Imports no torch.

ROOT/NAME/{train,valid,test}/_annotations.coco.json, or NAME in any other layout of rice.data.splits. Which domain a
dataset belongs to stands in roboflow.yaml.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from probes.yaml_files import read_yaml
from rice.data.splits import NoDatasetError, SplitFiles, find_splits
from rice.errors import RiceError, nearest

BUILT_IN = Path(__file__).parent / "roboflow.yaml"

AVERAGE = "AVG"
"""The paper's name for the unweighted mean of the domains."""

_LISTED = 5


@dataclass(frozen=True, slots=True)
class SuiteDataset:
    """One dataset of a suite, there on disk."""

    name: str
    domain: str
    path: Path


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite as far as it is on disk.

    datasets: in the order of the map; domains: all of them, in that order; unknown: folders that hold a dataset which
    the suite does not have; missing: datasets of the suite without a folder.
    """

    name: str
    datasets: tuple[SuiteDataset, ...]
    domains: tuple[str, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]

    def dataset(self, name: str) -> SuiteDataset:
        """By name. Errors: RiceError for a name that is not here."""
        for dataset in self.datasets:
            if dataset.name == name:
                return dataset
        if name in self.missing:
            raise RiceError(f"dataset {name!r} of {self.name} has no folder; download it")
        raise RiceError(f"{self.name} has no dataset {name!r}.{nearest(name, [d.name for d in self.datasets])}")


def find_suite(root: Path, *, mapping: Path = BUILT_IN, name: str | None = None) -> Suite | None:
    """The suite whose datasets lie under `root`; None where `root` is a dataset itself, or holds none of any suite.

    mapping: a file like roboflow.yaml; name: the suite to take from it, else the one that knows the most folders (the
    suites share names).
    Errors: RiceError for a damaged map, an unknown `name`, folders that fit two suites equally well, and a dataset
    without a split to train or to test on.
    """
    suites = read_suites(mapping)
    if name is not None and name not in suites:
        raise RiceError(f"no suite {name!r} in {mapping}.{nearest(name, suites)} Found: {', '.join(suites)}")
    if not root.is_dir():
        raise RiceError(f"expected a folder of datasets, found none at {root}")
    if _splits(root):
        return None
    found = {path.name: splits for path in sorted(root.iterdir()) if (splits := _splits(path))}
    chosen = name or _best(root, suites, set(found))
    if chosen is None:
        return None
    domain_of = suites[chosen]
    for folder in filter(domain_of.__contains__, found):
        _check_splits(root / folder, found[folder])
    return Suite(
        name=chosen,
        datasets=tuple(SuiteDataset(n, domain, root / n) for n, domain in domain_of.items() if n in found),
        domains=tuple(dict.fromkeys(domain_of.values())),
        unknown=tuple(n for n in found if n not in domain_of),
        missing=tuple(n for n in domain_of if n not in found),
    )


def _splits(path: Path) -> dict[str, SplitFiles]:
    if not path.is_dir() or path.name.startswith("."):
        return {}
    try:
        return find_splits(path)
    except NoDatasetError:
        return {}


def _best(root: Path, suites: Mapping[str, Mapping[str, str]], folders: set[str]) -> str | None:
    counts = {name: len(folders & set(domain_of)) for name, domain_of in suites.items()}
    most = max(counts.values(), default=0)
    best = [name for name, count in counts.items() if count == most]
    if most and len(best) > 1:
        fits = " and ".join(best)
        raise RiceError(f"the {most} known datasets at {root} fit {fits} equally well; name it: --suite {best[0]}")
    return best[0] if most else None


def _check_splits(path: Path, splits: Mapping[str, SplitFiles]) -> None:
    """By name only: a hundred annotation files need not be read for it."""
    if not any(n.startswith("train") for n in splits) or not any(n.startswith(("test", "val")) for n in splits):
        raise RiceError(f"{path}: expected a train split and a test or valid split, found {', '.join(splits)}")


def read_suites(mapping: Path = BUILT_IN) -> dict[str, dict[str, str]]:
    """Suite -> dataset -> domain, in the order of the file.

    Errors: RiceError in one line: not YAML, a key or a dataset that is written twice, not of this shape.
    """
    document = read_yaml(mapping)
    shape = "suite: {domain: [dataset, ...]}"
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise RiceError(f"{mapping}: expected {shape}")
    suites: dict[str, dict[str, str]] = {}
    for suite, domains in document.items():
        if not isinstance(domains, dict):
            raise RiceError(f"{mapping}: {suite}: expected {shape}")
        domain_of = suites[suite] = {}
        for domain, names in domains.items():
            if not isinstance(domain, str) or domain == AVERAGE or not isinstance(names, list):
                raise RiceError(f"{mapping}: {suite}: {domain!r}: expected {shape}")
            for name in names:
                if not isinstance(name, str):
                    raise RiceError(f"{mapping}: {suite}: {domain}: expected a folder's name, got {name!r}; quote it")
                if name in domain_of:
                    raise RiceError(f"{mapping}: {suite}: {name} stands in {domain_of[name]} and in {domain}")
                domain_of[name] = domain
    return suites


def domain_means(scores: Mapping[str, float], suite: Suite) -> dict[str, float]:
    """Domain -> unweighted mean over its datasets on disk; last AVG, the unweighted mean of the domains.

    scores: dataset -> score, of every dataset in `suite.datasets`. Domains without a dataset on disk are left out, and
    then AVG too: a mean of fewer domains is another number. Whether domains are whole, `suite.missing` says.
    Errors: RiceError for names that are not in the suite, datasets without a score, and scores that are not finite.
    """
    for name in scores:
        suite.dataset(name)
    lacking = [d.name for d in suite.datasets if d.name not in scores]
    if lacking:
        more = ", ..." if len(lacking) > _LISTED else ""
        raise RiceError(f"{suite.name}: no score of {', '.join(lacking[:_LISTED])}{more}; means need all datasets")
    odd = [name for name, score in scores.items() if not math.isfinite(score)]
    if odd:
        raise RiceError(f"{suite.name}: expected a finite score of {odd[0]}, got {scores[odd[0]]}")
    groups = {domain: [scores[d.name] for d in suite.datasets if d.domain == domain] for domain in suite.domains}
    means = {domain: math.fsum(group) / len(group) for domain, group in groups.items() if group}
    if len(means) == len(suite.domains) and means:
        means[AVERAGE] = math.fsum(means.values()) / len(means)
    return means
