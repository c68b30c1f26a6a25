"""How the paper lays its tables out, and which of our measurements belongs in which of their cells."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from probes.import_formats.scales import LIVEXIV, TABLE_1, scale_of
from reports.paper.printed import TABLES
from rice.errors import RiceError

Best = Literal["group", "block", "all", "row"]
"""Within what the best is bold: rows between two arrow rows, a block, the whole column, or the row."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A measured metric: of a probe, on datasets by the names that built-in sweeps give them (none: on any).

    `n` items and `split` are those of the paper's number, where they are known; `n_of_task`: what a file from elsewhere
    says in the place of `n` where a task has several metrics, each of a part of its questions. `times`: what the stored
    value is multiplied by to be as printed (None: by 100 where it is a fraction). `caveat`: what the result cannot say,
    unless its configuration has `unless`. `whole`: of `datasets`, the one that is the mean of the others, which then
    are not shown beside it. `also`: another place where the same number may stand.
    """

    probe: str
    metric: str
    datasets: tuple[str, ...] = ()
    n: int | None = None
    n_of_task: int | None = None
    split: str | None = None
    times: float | None = None
    caveat: str | None = None
    unless: str | None = None
    whole: str | None = None
    also: "Source | None" = None

    @property
    def places(self) -> "tuple[Source, ...]":
        """This one, and those where the number may stand as well."""
        return (self, *(self.also.places if self.also else ()))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`keys`: (a row's key, its head) of the label columns. `groups`: (head, columns); a column's own head is its name
    without the group's. `encoders`: printed line -> the zoo's name of the encoder in it; where the lines have
    several language models, a result needs the line's, too. `sweep`: the built-in sweep that holds the protocol.
    `transposed`: columns are encoders (labels: `encoder_labels` + column), rows are scores.
    """

    caption: str
    keys: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    best: Best
    sources: Mapping[str, Source] = field(default_factory=dict)
    encoders: Mapping[int, str] = field(default_factory=dict)
    sweep: str | None = None
    transposed: bool = False
    encoder_labels: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of scores, in order."""
        return tuple(column for _, columns in self.groups for column in columns)


def layout(table: str) -> Layout:
    """Of a table in `TABLES`. Errors: RiceError for another."""
    if table not in _LAYOUTS:
        raise RiceError(f"expected one of the paper's tables {', '.join(TABLES)}, got {table!r}")
    return _LAYOUTS[table]


def chosen(names: tuple[str, ...]) -> tuple[str, ...]:
    """TABLES in order, or those named; '5' means all four parts. Errors: RiceError for an unknown one."""
    for name in names:
        if name not in TABLES and not any(table.startswith(name) for table in TABLES if name):
            raise RiceError(f"expected one of the paper's tables {', '.join(TABLES)}, got {name!r}")
    return tuple(table for table in TABLES if not names or any(table in (n, *_parts(n)) for n in names))


def ablation_labels(table: str) -> tuple[str, ...]:
    """What the built-in sweeps call the encoders in the columns of Table 5: 'N 10'; none for other tables."""
    plan = layout(table)
    return tuple(plan.encoder_labels + column for column in plan.columns) if plan.transposed else ()


def _parts(name: str) -> tuple[str, ...]:
    return tuple(table for table in TABLES if table[:-1] == name)


_TOWERS_B = {1: "dinov2-b14-518", 2: "siglip-b16-512", 3: "mlcd-b16-512", 4: "rice-b16-512"}
_COCO, _LVIS, _ROBOFLOW = ("COCO Det AP", "COCO Seg AP"), ("LVIS Det AP", "LVIS Seg AP"), "roboflow100"
_COCO_BOX = Source(probe="detection", datasets=("coco",), metric="box AP", n=5_000, split="val2017")
_COCO_MASK = Source(probe="detection", datasets=("coco",), metric="mask AP", n=5_000, split="val2017")
_LVIS_BOX = Source(probe="detection", datasets=("lvis",), metric="box AP", n=19_809, split="lvis_v1_val")
_LVIS_MASK = Source(probe="detection", datasets=("lvis",), metric="mask AP", n=19_809, split="lvis_v1_val")
_DOMAINS = {
    "Aerial": "aerial", "Video Games": "videogames", "Microscopic": "microscopic", "Under Water": "underwater",
    "Documents": "documents", "Electromagnetic": "electromagnetic", "Real world": "real world",
}  # fmt: skip
_TRACKING = {  # the paper's name: (ours, the first scores' names, clips of the test set, its split)
    "LaSOT": ("LaSOT", 280, "test"),
    "TrackingNet": ("TrackingNet", 511, "test"),
    "TNL2k": ("TNL2K", 700, "test"),
}
_SCORES = {"Suc.": "success", "Pre.": "precision", "Norm. Pre.": "norm. precision"}
_GOT = {"AO": "AO", "SR-0.5": "SR0.5", "SR-0.75": "SR0.75"}


def _tracking_sources() -> dict[str, Source]:
    sources = {
        f"{name} {head}": Source(probe="tracking", metric=f"{ours} {metric}", n=n, split=split)
        for name, (ours, n, split) in _TRACKING.items()
        for head, metric in _SCORES.items()
    }
    for head, metric in _GOT.items():
        sources[f"GOT-10k {head}"] = Source(probe="tracking", metric=f"GOT-10k {metric}", n=180, split="test")
    return sources


_QUESTIONS = {
    "InfoVQA": 2_801, "DocVQA": 5_349, "ChartQA": 2_500, "TextVQA": 5_000, "OCRBench": 1_000, "OCRBenchV2": 10_000,
    "AI2D": 3_088, "MMB^EN": 4_329, "MME^Cog": 260, "MME^Per": 2_114, "POPE": 9_000, "RealworldQA": 765,
    "MMStar": 1_500,
}  # fmt: skip
"""Of each benchmark as lmms-eval takes it from the hub. LiveXiv's versions grow."""
_QUESTIONS_OF_MME = _QUESTIONS["MME^Cog"] + _QUESTIONS["MME^Per"]


def _multimodal_source(column: str) -> Source:
    """What rice llava eval stored, or rice import brought from lmms-eval; and what a sweep of the probe llava has,
    whose metrics are called TASK METRIC."""
    metrics = TABLE_1[column]
    (metric,) = set(metrics.values())
    task = LIVEXIV if LIVEXIV in metrics else next(iter(metrics))
    scale = scale_of(task, metric)
    times = None if scale is None else scale.printed
    return Source(
        probe="lmms-eval",
        metric=metric,
        datasets=tuple(metrics),
        n=_QUESTIONS.get(column),
        n_of_task=_QUESTIONS_OF_MME if task == "mme" else None,
        times=times,
        caveat="how its language model was trained on this encoder is not recorded",
        unless="training",
        whole=LIVEXIV if LIVEXIV in metrics else None,
        also=Source(probe="llava", metric=f"{task} {metric}", times=times),
    )


_EXPRESSIONS = {
    "refCOCO val": 10_834, "refCOCO testA": 5_657, "refCOCO testB": 5_095,
    "refCOCO+ val": 10_758, "refCOCO+ testA": 5_726, "refCOCO+ testB": 4_889,
    "refCOCOg val": 4_896, "refCOCOg test": 9_602,
}  # fmt: skip
"""Of each split as REFER has it: by UNC, refCOCOg's by UMD."""

_GENERATED = "masks of generated answers; the paper's authors give [SEG] (our ciou_forced)"


def _referring_source(column: str) -> Source:
    """What rice lisa eval stored, a result for each split; and what a sweep of the probe refseg has, whose metrics are
    called SPLIT MEASURE."""
    name, _, split = column.partition(" ")
    full, n = f"{name.lower()}_{split}", _EXPRESSIONS[column]
    swept = Source(probe="refseg", metric=f"{full} ciou", n=n, split=split, times=1.0, caveat=_GENERATED)
    return dataclasses.replace(swept, probe="lisa-eval", metric="ciou", datasets=(full.lower(),), also=swept)


def _ablation(part: str, caption: str, labels: str, columns: tuple[str, ...]) -> Layout:
    detection = {"COCO-Det": _COCO_BOX, "COCO-Seg": _COCO_MASK, "LVIS-Det": _LVIS_BOX, "LVIS-Seg": _LVIS_MASK}
    multimodal = {column: _multimodal_source(column) for column in ("DocVQA", "ChartQA", "InfoVQA", "OCRBench")}
    return Layout(
        caption=f"Table 5{part}. {caption}: ViT-B/16 pretrained on a tenth of the data.",
        keys=(("method", "Testset"),),
        groups=((caption, columns),),
        best="row",
        sources=detection if part != "d" else multimodal,
        sweep=f"table5{part}",
        transposed=True,
        encoder_labels=labels,
    )


_LAYOUTS: dict[str, Layout] = {
    "1": Layout(
        caption="Table 1. Vision encoders as the eyes of multimodal language models.",
        keys=(("method", "Method"), ("tower", "Vision Tower"), ("llm", "LLM")),
        groups=(
            (
                "OCR & Document Understanding",
                ("InfoVQA", "DocVQA", "ChartQA", "TextVQA", "OCRBench", "OCRBenchV2", "LiveXivVQA", "OCR Avg"),
            ),
            (
                "General Vision Understanding",
                ("AI2D", "MMB^EN", "MME^Cog", "MME^Per", "POPE", "RealworldQA", "MMStar", "Other Avg"),
            ),
        ),
        best="group",
        sources={column: _multimodal_source(column) for column in TABLE_1},
        sweep="table1",
        encoders={
            2: "clip-l14-336",
            3: "mlcd-l14-336",
            4: "aimv2-l14-336",
            5: "rice-l14-336",
            7: "dfn5b-h14-378",
            8: "unit-h14-378",
            9: "siglip-so400m-14-384",
            10: "siglip2-so400m-14-384",
            11: "rice-l14-378",
            13: "siglip2-so400m-16-560",
            14: "qwen2.5-vit-560",
            15: "rice-l14-560",
        },
    ),
    "2": Layout(
        caption="Table 2. Referring image segmentation, IoU (%).",
        keys=(("tower", "VisionTower"), ("llm", "LLM"), ("method", "Method")),
        groups=(
            ("refCOCO", ("refCOCO val", "refCOCO testA", "refCOCO testB")),
            ("refCOCO+", ("refCOCO+ val", "refCOCO+ testA", "refCOCO+ testB")),
            ("refCOCOg", ("refCOCOg val", "refCOCOg test")),
        ),
        best="block",
        sources={column: _referring_source(column) for column in _EXPRESSIONS},
        sweep="table2",
        encoders={
            11: "clip-l14-336",
            12: "rice-l14-336",
            15: "clip-l14-336",
            16: "mlcd-l14-336",
            17: "rice-l14-336",
        },
    ),
    "3": Layout(
        caption="Table 3. Detection probe on frozen encoders, average precision (%).",
        keys=(("method", "Method"), ("tower", "Arch"), ("resolution", "Res")),
        groups=(
            ("COCO", _COCO),
            ("LVIS", _LVIS),
            ("Roboflow100 Benchmarks", (*_DOMAINS, "AVG")),
        ),
        best="all",
        sources={
            "COCO Det AP": _COCO_BOX,
            "COCO Seg AP": _COCO_MASK,
            "LVIS Det AP": _LVIS_BOX,
            "LVIS Seg AP": _LVIS_MASK,
            **{
                head: Source(probe="detection", datasets=(_ROBOFLOW,), metric=f"{domain} AP", split="test")
                for head, domain in _DOMAINS.items()
            },
        },
        encoders=_TOWERS_B,
        sweep="table3",
    ),
    "4": Layout(
        caption="Table 4. Tracking probe on frozen encoders (%).",
        keys=(("method", "Method"),),
        groups=tuple(
            (name, tuple(f"{name} {head}" for head in (_GOT if name == "GOT-10k" else _SCORES)))
            for name in ("LaSOT", "TrackingNet", "GOT-10k", "TNL2k")
        ),
        best="all",
        sources=_tracking_sources(),
        encoders=_TOWERS_B,
        sweep="table4",
    ),
    "5a": _ablation("a", "Sampled boxes (N)", "N ", ("1", "5", "10", "20")),
    "5b": _ablation("b", "Cluster centers (K)", "K ", ("200K", "500K", "1M", "2M")),
    "5c": _ablation("c", "Negative sampling rate (ρ)", "rho ", ("0.05", "0.1", "0.2", "0.5")),  # noqa: RUF001
    "5d": _ablation("d", "Positive OCR labels (M)", "M ", ("3", "5", "10", "20")),
}
