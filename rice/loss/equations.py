"""Equations 3 and 4 of section 3.3: the margin on the positives, and the loss of two log-sum-exps.

With s = scale * cos, p over a region's positives (margin applied) and n over its negatives,

    a = logsumexp_p(-s_p)        b = logsumexp_n(s_n)
    eq34:     softplus(a) + softplus(b)        eq. 3 is the case of one positive
    softmax:  softplus(a + b)                  margin-softmax cross entropy, where there is one positive

The second sum of eq. 3 repeats the positive's index; it is taken over the negatives, as the text says. The scale of 64
belongs to sim (section 4.1): without it b could not leave log(rho K) +- 1 and the negatives would teach nothing.

Shapes: R regions, P (region, positive) pairs.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from rice.errors import RiceError

Form = Literal["eq34", "softmax"]
MarginType = Literal["arcface", "cosface", "arcface_straight_through"]


class Terms(NamedTuple):
    """Of every region, (R,): its loss, and what turns logits into gradients.

    dL/ds_p = -exp(-s_p - positive) and dL/ds_n = exp(s_n - negative); neither can overflow.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor


@dataclass(frozen=True, kw_only=True)
class ClusterLoss:
    """The constants of region cluster discrimination.

    Args:
        margin: Added to a positive's angle, in radians (arcface), or taken from its cosine (cosface); 0 to pi.
        scale: Of all cosines.
        form: eq34 is the paper's; softmax is the cross entropy of ArcFace and UNICOM.
        margin_type: arcface has the true gradient of cos(theta + margin); arcface_straight_through has its value and
            the gradient of the plain cosine, as insightface has; cosface is cos - margin.
    """

    margin: float = 0.3
    scale: float = 64.0
    form: Form = "eq34"
    margin_type: MarginType = "arcface"

    def __post_init__(self) -> None:
        if not 0 <= self.margin < math.pi:
            raise RiceError(f"margin: expected 0 to pi, got {self.margin}")
        if not 0 < self.scale < math.inf:
            raise RiceError(f"scale: expected a positive number, got {self.scale}")
        if self.form not in get_args(Form):
            raise RiceError(f"form: expected one of {', '.join(get_args(Form))}, got {self.form!r}")
        if self.margin_type not in get_args(MarginType):
            raise RiceError(f"margin_type: expected one of {', '.join(get_args(MarginType))}, got {self.margin_type!r}")

    def positive(self, cosine_P: Tensor) -> tuple[Tensor, Tensor]:
        """The logit of a positive, scale * margin(cos), and its derivative by cos."""
        if self.margin_type == "cosface":
            return self.scale * (cosine_P - self.margin), torch.full_like(cosine_P, self.scale)
        value_P, slope_P = arcface(cosine_P, self.margin)
        if self.margin_type == "arcface_straight_through":
            slope_P = torch.ones_like(cosine_P)
        return self.scale * value_P, self.scale * slope_P

    def terms(self, a_R: Tensor, b_R: Tensor) -> Terms:
        """Loss and gradients of log-sum-exps; a = -inf: no positive, no loss; b = -inf: no negative."""
        labelled_R = a_R != -torch.inf
        if self.form == "eq34":
            positive_R, negative_R = _softplus(a_R), _softplus(b_R)
            loss_R = positive_R + negative_R
        else:
            loss_R = _softplus(a_R + b_R)
            positive_R, negative_R = loss_R - b_R, loss_R - a_R
        return Terms(loss_R.where(labelled_R, 0.0), positive_R, negative_R.where(labelled_R, torch.inf))


def arcface(cosine: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """cos(theta + margin) and its derivative by cos(theta), true and monotone over all of [-1, 1].

    Past theta + margin = pi the value would rise again; it goes on as cos(theta) + cos(margin) - 1, which meets it
    there. The derivative grows without bound at cos = 1; the sine stops at the root of the type's precision, where the
    cosine itself is no better known.
    """
    cosine = cosine.clamp(-1.0, 1.0)
    sine = (1.0 - cosine.square()).clamp_min(torch.finfo(cosine.dtype).eps).sqrt()
    inside = cosine > -math.cos(margin)
    value = torch.where(inside, cosine * math.cos(margin) - sine * math.sin(margin), cosine + (math.cos(margin) - 1.0))
    slope = torch.where(inside, math.cos(margin) + cosine / sine * math.sin(margin), 1.0)
    return value, slope


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), to the last bit: torch's own gives up the second term beyond 20."""
    return torch.logaddexp(x, torch.zeros_like(x))
