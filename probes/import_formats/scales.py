"""In what units lmms-eval gives the scores of the paper's Table 1, and which of its tasks stand behind which column.

lmms-eval mixes fractions, percentages and points. Read from the tasks' own YAML files and aggregation functions in
release 0.7.3; MMBench is the one of them that multiplies by 100, and MME adds up to 200 points a category.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A score goes from 0 to `largest` in `unit`; the paper prints it times `printed`."""

    unit: Literal["fraction", "%", "points"]
    largest: float
    printed: float


_FRACTION = Scale(unit="fraction", largest=1, printed=100)
_THOUSANDS = Scale(unit="fraction", largest=1, printed=1000)
_PERCENT = Scale(unit="%", largest=100, printed=1)
LIVEXIV = "livexiv_vqa"
"""The mean of its versions, each weighing the same: no task of lmms-eval's, but what `rice llava eval` stores."""
LIVEXIV_VERSIONS = tuple(f"{LIVEXIV}_v{version}" for version in range(1, 7))
_MMBENCH = ("mmbench_en_dev_static", "mmbench_en_dev")
_MMSTAR = (
    *("coarse perception", "fine-grained perception", "instance reasoning", "logical reasoning"),
    *("science & technology", "math", "average"),
)
_REFERRING = ("IoU", "ACC@0.1", "ACC@0.3", "ACC@0.5", "ACC@0.7", "ACC@0.9", "Center_ACC")
_REFERRING_SPLITS = {"refcoco": "val test testA testB", "refcoco+": "val testA testB", "refcocog": "val test"}

SCALES: Mapping[str, Mapping[str, Scale]] = {
    "infovqa_val": {"anls": _FRACTION},
    "docvqa_val": {"anls": _FRACTION},
    "chartqa": {f"relaxed_{part}": _FRACTION for part in ("overall", "human_split", "augmented_split")},
    "textvqa_val": {"exact_match": _FRACTION},
    "ocrbench": {"ocrbench_accuracy": _THOUSANDS},
    "ocrbench_v2": {f"ocrbench_v2_accuracy{part}": _FRACTION for part in ("", "_en", "_cn")},
    **{task: {"livexiv_vqa": _FRACTION} for task in (LIVEXIV, *LIVEXIV_VERSIONS)},
    "ai2d": {"exact_match": _FRACTION},
    **{task: {"gpt_eval_score": _PERCENT} for task in _MMBENCH},
    "mme": {
        "mme_cognition_score": Scale(unit="points", largest=800, printed=1),
        "mme_perception_score": Scale(unit="points", largest=2000, printed=1),
    },
    "pope": {f"pope_{part}": _FRACTION for part in ("accuracy", "precision", "recall", "f1_score", "yes_ratio")},
    "realworldqa": {"exact_match": _FRACTION},
    "mmstar": dict.fromkeys(_MMSTAR, _FRACTION),
    **{
        f"{family}_bbox_rec_{split}": {f"refcoco_{metric}": _FRACTION for metric in _REFERRING}
        for family, splits in _REFERRING_SPLITS.items()
        for split in splits.split()
    },
}
"""Task -> metric, without its filter -> scale. What is not here keeps the unit 'as reported'."""

TABLE_1: Mapping[str, Mapping[str, str]] = {
    "InfoVQA": {"infovqa_val": "anls"},
    "DocVQA": {"docvqa_val": "anls"},
    "ChartQA": {"chartqa": "relaxed_overall"},
    "TextVQA": {"textvqa_val": "exact_match"},
    "OCRBench": {"ocrbench": "ocrbench_accuracy"},
    "OCRBenchV2": {"ocrbench_v2": "ocrbench_v2_accuracy"},
    "LiveXivVQA": dict.fromkeys((*LIVEXIV_VERSIONS, LIVEXIV), "livexiv_vqa"),
    "AI2D": {"ai2d": "exact_match,flexible-extract"},
    "MMB^EN": dict.fromkeys(_MMBENCH, "gpt_eval_score"),
    "MME^Cog": {"mme": "mme_cognition_score"},
    "MME^Per": {"mme": "mme_perception_score"},
    "POPE": {"pope": "pope_accuracy"},
    "RealworldQA": {"realworldqa": "exact_match"},
    "MMStar": {"mmstar": "average"},
}
"""The paper's column -> task, which is the stored dataset -> the stored metric, its filter included.

LiveXivVQA is the mean of its versions (the paper does not say of which). MMB^EN's two tasks ask the same questions: the
first reads the answers by rule, the second by a paid model; one of them is enough. Whether the paper's POPE is accuracy
or F1 it does not say.
"""


def scale_of(task: str, metric: str) -> Scale | None:
    """The scale of a stored metric, with or without its filter; None where it is not known."""
    return SCALES.get(task, {}).get(metric.partition(",")[0])
