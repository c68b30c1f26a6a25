"""What may be set of a montage. Imports nothing heavy, for the command line."""

from dataclasses import dataclass

from rice.errors import check_ranges


@dataclass(frozen=True, kw_only=True)
class MontageConfig:
    """What the page shows.

    Args:
        regions: Of each cluster: half are the nearest to its centre, half are drawn from the others.
        tile: Longer edge of a thumbnail, in pixels.
        most_clusters: Where there are more, the largest of them fill half of this number, and drawn ones the other.
        texts: Regions of text, drawn from all.
        seed: Of what is drawn.
    """

    regions: int = 32
    tile: int = 64
    most_clusters: int = 1000
    texts: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields that are out of range."""
        holds = {
            "regions": 2 <= self.regions <= 1024,
            "tile": 8 <= self.tile <= 512,
            "most_clusters": self.most_clusters >= 1,
            "texts": self.texts >= 0,
            "seed": 0 <= self.seed < 1 << 64,
        }
        check_ranges(self, holds, "rice view")
