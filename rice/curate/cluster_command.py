"""The verb `rice curate cluster`."""

from pathlib import Path
from typing import Annotated

import tyro

from rice.curate.config import KMeansConfig, SampleConfig
from rice.device import AUTO


def cluster(
    features: Annotated[Path, tyro.conf.Positional],
    *,
    out: Path,
    kmeans: Annotated[KMeansConfig, tyro.conf.arg(name="")],
    drawing: Annotated[SampleConfig, tyro.conf.arg(name="")],
    device: str = AUTO,
) -> None:
    """Features of regions to K clusters: the labels that RICE learns (paper, section 3.1 and equation 1).

    Two-level k-means on a sample, some steps of Lloyd's kind among all clusters, then the nearest of all centres for
    every row, exactly. Rows with NaN or infinity, and zeros where length matters, get the label -1 and are counted.

    OUT/labels/NAME.parquet: label and squared distance of every row of FEATURES/NAME; OUT/centres.safetensors: (K, D);
    OUT/clusters.parquet: size and error of every cluster; OUT/clusters.png: how learning went, and sizes;
    OUT/clusters.json: the report. Killed at any instant, the same command goes on. Several GPUs or machines: torchrun
    --nproc-per-node 8 -m rice.cli curate cluster ..., with the files of features shared out.

    Example: rice curate cluster features/ -k 1000000 --out clusters

    Args:
        features: Folder of files of features, or one: NAME.npy (rows, width) of fp16, fp32 or fp64, or NAME.parquet
            with lists in a column `feature`.
        out: Folder to write; the same one resumes.
        kmeans: How centres are found.
        drawing: What from.
        device: auto, cpu or cuda.
    """
    from rice.curate.cluster import REPORT, cluster_features
    from rice.train.world import join

    with join(device) as world:
        report = cluster_features(features, out, kmeans, drawing, world)
        if not world.leads:
            return
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in report["dropped"].items() if count)
    print(  # noqa: T201
        f"{report['rows']:,} rows in {report['clusters']:,} clusters, {report['empty']:,} empty; mean squared distance "
        f"{report['mean_squared_distance']:.4g}; median size {report['sizes']['0.5']:,.0f}"
    )
    if left_out:
        print(f"left out: {left_out}")  # noqa: T201
    print(f"written to {out}; look at {out / 'clusters.png'} and {out / REPORT}")  # noqa: T201
