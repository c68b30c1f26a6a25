"""What `--extended` varies: each panel one setting of RICE at a time, all else as its search chose it. Imports nothing
heavy.

Table 5's four panels; then the loss, what is labelled, how regions are read out, and the multimodal probes. A column is
an encoder of seed 0: one of the miniature's own, or a variant that is pretrained for the panel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from reports.miniature.arms import Flags
from reports.miniature.scores import YARDSTICK, Trained

PanelId = Literal["n", "k", "rho", "m", "loss", "labels", "readout", "multimodal"]
Measure = tuple[str, str]
"""Probe and metric, as the store of results has them."""

CLUSTERED, BOXED = "extended/clusters-{}/shards", "extended/boxed"
"""Shards of other numbers of clusters; of whole pictures as regions."""

_DENSE: tuple[Measure, ...] = (
    ("dense", "mIoU"),
    ("detection", "box AP"),
    ("detection", "mask AP"),
    ("knn", "knn top-1"),
    ("text", "word accuracy"),
    ("text", "character accuracy"),
)
PROBES = tuple(dict.fromkeys(probe for probe, _ in _DENSE))


@dataclass(frozen=True)
class Variant:
    """RICE but for these flags of rice train; data: other shards than RICE's, below OUT."""

    name: str
    flags: Flags = field(default_factory=dict)
    data: str = ""
    clusters: int = 0
    """Of regions, where not RICE's."""


@dataclass(frozen=True)
class Panel:
    """columns: label -> a variant, or the name of one of the miniature's own encoders."""

    id: str
    title: str
    columns: Mapping[str, Variant | str]
    measures: tuple[Measure, ...] = _DENSE
    curve: bool = False
    note: str = ""

    @property
    def variants(self) -> list[Variant]:
        """Those that are pretrained for it."""
        return [one for one in self.columns.values() if isinstance(one, Variant)]

    @property
    def encoders(self) -> dict[str, str]:
        """Label of a column -> encoder's name in the store."""
        return {label: one.name if isinstance(one, Variant) else one for label, one in self.columns.items()}


def own(arm: str) -> str:
    """The name of an arm's first encoder."""
    return Trained(arm, "updates", 0).name


def panels(clusters: int, chosen: Flags) -> tuple[Panel, ...]:
    """All that RICE's variants are compared in. clusters: its K. chosen: what its search found."""
    rice = own(YARDSTICK)
    return (
        _curve("n", "Sampled boxes (N)", "stream.regions", (1, 3, 6, 10), 6),
        Panel(
            "k",
            "Cluster centres (K)",
            {str(k): rice if k == clusters else _clusters(k) for k in _around(clusters)},
            curve=True,
        ),
        _curve("rho", "Negative sampling rate (\N{GREEK SMALL LETTER RHO})", "rho", (0.05, 0.1, 0.2, 0.5, 1.0), 1.0),
        _curve("m", "Positive OCR labels (M)", "stream.positives", (1, 2, 4, 10), 10),
        Panel("loss", "Loss", _losses(chosen), note=_LOSS),
        Panel(
            "labels",
            "What is labelled",
            {
                "proposed regions": own("rice-noocr"),
                "the whole, read as a region": Variant(
                    "whole-as-region", {"stream.min-visible": "0.1", "ocr-weight": "0"}, data=BOXED
                ),
                "the whole, by the class token (UNICOM)": own("unicom"),
                "true boxes (oracle)": own("oracle"),
            },
            note=_LABELS,
        ),
        Panel(
            "readout",
            "How a region is read out",
            {
                "its mean asks, one layer (RICE here)": rice,
                "the class token asks, one layer": Variant("ask-cls", {"region.query": "cls"}),
                "the class token asks, two layers (the paper)": Variant(
                    "ask-cls-two", {"region.query": "cls", "region.layers": "2"}
                ),
                "its mean alone, no layer": Variant("ask-mean", {"region.layers": "0"}),
            },
        ),
    )


_LOSS = "eq34: equations 3 and 4 as printed; softmax: cross entropy with the same margin. Scale and margin as named."
_LABELS = (
    "None of these learns text. The second differs from the first in its regions alone, and from the third in how the "
    "picture is read out: it tells what comes from regions, and what from their read-out."
)


def multimodal(measures: Sequence[Measure]) -> Panel:
    """The multimodal probes on three arms."""
    arms = {"RICE": own("rice"), "MLCD": own("mlcd"), "CLIP": own("clip")}
    return Panel("multimodal", "Multimodal probes", arms, tuple(measures))


def _curve(id_: str, title: str, flag: str, values: Sequence[float], default: float) -> Panel:
    columns: dict[str, Variant | str] = {
        f"{value:g}": own(YARDSTICK) if value == default else Variant(f"{id_}-{value:g}", {flag: f"{value:g}"})
        for value in values
    }
    return Panel(id_, title, columns, curve=True)


def _around(clusters: int) -> list[int]:
    """A quarter, a half, all, and twice as many."""
    return sorted({max(1, clusters // 4), max(1, clusters // 2), clusters, 2 * clusters})


def _clusters(k: int) -> Variant:
    return Variant(f"k-{k}", data=CLUSTERED.format(k), clusters=k)


def _losses(chosen: Flags) -> dict[str, Variant | str]:
    """Both forms at the paper's scale and margin and at those that suit few classes."""
    columns: dict[str, Variant | str] = {}
    for scale, margin in (("64", "0.3"), ("16", "0.1")):
        for form in ("eq34", "softmax"):
            flags = {"loss.form": form, "loss.scale": scale, "loss.margin": margin}
            is_rice = form == "eq34" and (scale, margin) == (chosen.get("loss.scale"), chosen.get("loss.margin"))
            name = f"{form}-{scale}"
            columns[f"{form}, {scale}, {margin}"] = own(YARDSTICK) if is_rice else Variant(name, flags)
    return columns


def probe_rows(config: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those of a miniature's probes that the panels ask of."""
    return [dict(probe) for probe in config if probe["probe"] in PROBES]
