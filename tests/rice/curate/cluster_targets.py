"""What the ranks of test_cluster.py do."""

from pathlib import Path
from typing import Any

from rice.curate.cluster import cluster_features
from rice.curate.config import KMeansConfig, SampleConfig
from rice.errors import RiceError
from rice.train.world import join


def cluster_ranks(features: Path, out: Path, clusters: int) -> Any:
    """The report, or what a user is told."""
    with join("cpu") as world:
        try:
            return cluster_features(features, out, KMeansConfig(clusters=clusters), SampleConfig(), world)
        except RiceError as error:
            return str(error)
