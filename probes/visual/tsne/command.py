"""`rice tsne`: object features of a data set on spheres, encoder beside encoder (Fig. 1).

`objects` chooses the objects and what an encoder makes of them, `sphere` is the projection, `separation` the numbers
that go with the picture.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from rice.device import AUTO, pick_device
from rice.errors import RiceError, require
from rice.progress import BarProgress

if TYPE_CHECKING:
    from probes.visual.towers import Tower
    from probes.visual.tsne.draw import Panel
    from probes.visual.tsne.run import Atlas
    from rice.data.coco import CocoSplit


def tsne(
    data: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    encoders: tuple[str, ...],
    out: Path,
    weights: tuple[str, ...] = ("default",),
    split: str | None = None,
    objects: int = 1000,
    categories: int = 10,
    perplexity: float = 30.0,
    grid: int | Literal["native"] = 32,
    seed: int = 0,
    device: str = AUTO,
) -> None:
    """Show how an encoder sorts the objects of a data set: their features on a sphere, by t-SNE, as Fig. 1 does.

    An object is the mean of the layer-normalised patch tokens under its mask (its box, where the data has no masks),
    compared by cosine. Every encoder sees the same objects: as many of each of the most frequent categories. With each
    sphere stand two numbers of the features themselves, k-NN purity and silhouette, as a t-SNE alone proves little.

    Writes tsne.html (interactive, in one file, needs no network), tsne.png, tsne.pdf (vectors) and tsne.json (what was
    shown, statistics, coordinates). A killed run goes on with the same command.

    Example: rice tsne COCO --encoders rice-b16-512 dinov2-b14-518 --split val2017 --out out/tsne

    Against random weights: rice tsne COCO --encoders mini-s8-128 mini-s8-128 --weights default none --out out/mini

    Args:
        data: Data set in COCO's layout or a relative's; `rice data check` says what is found.
        encoders: NAME, NAME@SIZE or NAME@SIZE,layer=-2, one or more; `rice encoders` lists them.
        out: Folder to write to: new, empty, or of an earlier run of the same command.
        weights: "default" (published), "none" (random, offline) or a local path: once for all, or once for each of
            --encoders, in their order.
        split: Of the data set. Default: the one that `rice data check` would test on.
        objects: How many to show, in equal parts of each category; of a category that has fewer, all.
        categories: How many of the most frequent categories.
        perplexity: Neighbours that count for an object, about; more objects than three times as many are needed.
        grid: Tokens along each edge, the same for all encoders; pictures are squashed to GRID x patch pixels. "native":
            each encoder's own input size, or its @SIZE.
        seed: Decides which objects; the projection itself draws nothing.
        device: auto (the GPU where there is one), cpu, cuda or cuda:1.
    """
    if not encoders:
        raise RiceError("expected --encoders, one or more; see: rice tsne --help")
    require("plotly", "page")
    require("sklearn", "page")
    from probes.visual.towers import named_towers
    from probes.visual.tsne.draw import check_categories
    from probes.visual.tsne.run import OUTPUTS, Atlas, TsneConfig
    from probes.visual.tsne.sphere import check_perplexity
    from rice.data.coco import open_split

    check_categories(categories)
    check_perplexity(perplexity, objects)
    towers = named_towers(encoders, weights)
    sizes = input_sizes(towers, grid)
    whole = open_split(data, split or _test_split(data))
    config = TsneConfig(objects=objects, categories=categories, perplexity=perplexity, seed=seed)
    atlas = Atlas(towers, sizes, whole, config, out, name=data.resolve().name)
    print(report(_panels(atlas, whole, device)), *(out / name for name in OUTPUTS), sep="\n")  # noqa: T201


def _panels(atlas: "Atlas", whole: "CocoSplit", device: str) -> "list[Panel]":
    """What an earlier run left, or a new one."""
    from probes.visual.tsne.objects import choose
    from probes.visual.tsne.sphere import check_perplexity

    if atlas.folder.done:
        print("all is there")  # noqa: T201
        return atlas.read()
    config = atlas.config
    chosen = choose(whole, objects=config.objects, categories=config.categories, seed=config.seed)
    check_perplexity(config.perplexity, len(chosen.annotations))
    return atlas.run(chosen, str(pick_device(device)), BarProgress())


def input_sizes(towers: "Sequence[Tower]", grid: int | Literal["native"]) -> list[int]:
    """Input pixels of each tower. Errors: RiceError naming the one that cannot take this grid."""
    from probes.visual.towers import matched_grid

    if grid == "native":
        return [tower.spec.native_size for tower in towers]
    edge = matched_grid(towers, grid)
    return [edge * tower.spec.patch for tower in towers]


def report(panels: "Sequence[Panel]") -> str:
    """The statistics as lines of text."""
    return "\n".join(f"{panel.label}: {', '.join(panel.statistics)}" for panel in panels)


def _test_split(data: Path) -> str:
    from rice.data.coco import find_splits, role

    splits = find_splits(data)
    return next(iter(splits)) if len(splits) == 1 else role(splits).test
