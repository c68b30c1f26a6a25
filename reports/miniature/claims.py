"""The paper's claims as predictions of the miniature, written down before it ran: `docs/miniature.md` in code.

Imports nothing heavy. A difference is the mean over pretraining seeds, at equal updates, in points of percent.
"""

from dataclasses import dataclass

NAMES = {
    "rice": "RICE (regions and text)",
    "rice-noocr": "RICE without text labels",
    "mlcd": "MLCD",
    "unicom": "UNICOM",
    "clip": "CLIP",
    "oracle": "oracle: annotated boxes",
    "random": "random weights",
}
"""What tables call the arms, in their order."""

UNRANKED = ("oracle", "random")
"""Arms that no claim names and no table makes bold: what they learnt from is no method's, or nothing."""


@dataclass(frozen=True)
class Claim:
    """That the arm `better` beats the arm `than` on a metric of a probe.

    probe, metric: as the store of results has them. by: points of percent that the difference is at least;
    0: that it is more than 0. primary: one of those that Holm's correction goes over.
    """

    id: str
    text: str
    better: str
    than: str
    probe: str
    metric: str
    by: float = 0.0
    primary: bool = True

    @property
    def claimed(self) -> str:
        """'at least 5 points', 'more than 0'."""
        return f"at least {self.by:g} points" if self.by else "more than 0"

    def includes(self, difference: float) -> bool:
        """Whether a true difference of so many points would make the claim true."""
        return difference >= self.by if self.by else difference > 0


_DENSE = ("dense", "mIoU")
_DETECTION = ("detection", "box AP")
_TRACKING = ("tracking", "LaSOT success")
_TEXT = ("text", "word accuracy")
_KNN = ("knn", "knn top-1")

CLAIMS = (
    Claim("dense-mlcd", "RICE segments better than MLCD", "rice", "mlcd", *_DENSE, by=5),
    Claim("dense-clip", "RICE segments better than CLIP", "rice", "clip", *_DENSE, by=5),
    Claim("detection-mlcd", "RICE detects better than MLCD", "rice", "mlcd", *_DETECTION, by=5),
    Claim("detection-clip", "RICE detects better than CLIP", "rice", "clip", *_DETECTION, by=5),
    Claim("tracking-mlcd", "RICE tracks better than MLCD", "rice", "mlcd", *_TRACKING),
    Claim("tracking-clip", "RICE tracks better than CLIP", "rice", "clip", *_TRACKING),
    Claim("text-mlcd", "RICE reads better than MLCD", "rice", "mlcd", *_TEXT),
    Claim("text-clip", "RICE reads better than CLIP", "rice", "clip", *_TEXT),
    Claim("text-labels", "RICE reads better than RICE without text labels", "rice", "rice-noocr", *_TEXT),
    Claim("dense-unicom", "RICE segments better than UNICOM", "rice", "unicom", *_DENSE, by=5, primary=False),
    Claim("detection-unicom", "RICE detects better than UNICOM", "rice", "unicom", *_DETECTION, by=5, primary=False),
    Claim("tracking-unicom", "RICE tracks better than UNICOM", "rice", "unicom", *_TRACKING, primary=False),
    Claim("text-unicom", "RICE reads better than UNICOM", "rice", "unicom", *_TEXT, primary=False),
    Claim("knn-lineage", "MLCD classifies by neighbours better than UNICOM", "mlcd", "unicom", *_KNN, primary=False),
    Claim("dense-lineage", "MLCD segments better than UNICOM", "mlcd", "unicom", *_DENSE, primary=False),
)
