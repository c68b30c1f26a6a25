"""t-SNE onto a sphere (Fig. 1): van der Maaten and Hinton's cost, with points kept on a sphere of learned radius.

The unit sphere alone would not do: its chords are at most 2 long, where Student's kernel is still 1/5, so strangers
could not be told from neighbours. So the radius is a parameter like the points. The set of all such configurations,
{y : |y_1| = ... = |y_N|}, is a smooth manifold in R^(N x 3); this is gradient descent along it: the gradient and the
momentum are projected on its tangent space, and after each step the points go to the nearest configuration.

Differs knowingly from the original in two things: a gain belongs to a point, not to a coordinate, because a sphere has
no axes, so the outcome turns with the first points; and few points get a smaller step than scikit-learn's 50, which
makes a hundred fly apart.

Shapes: N points, D width, 3 space. All is exact, O(N^2), in float64 on the CPU.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rice.errors import RiceError
from rice.progress import Progress

ITERATIONS = 1000
_SMALLEST_PERPLEXITY = 5
_EXAGGERATED = 250
_EXAGGERATION = 12.0
_MOMENTUM = 0.5, 0.8
_SMALLEST_RATE = 10.0
_SMALLEST_GAIN = 0.01
_FIRST_RADIUS = 1.0
_BISECTIONS = 64
_BLOCK = 128
_LOG2_PRECISION = -80.0, 80.0
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class SphereMap:
    """`points`, (N, 3) float64, lie on the sphere of `radius` around the origin; `kl`: KL(P || Q) there, in nats."""

    points: Tensor
    radius: float
    kl: float


def check_perplexity(perplexity: float, count: int) -> None:
    """Errors: RiceError unless it is at least 5, and each of `count` points has over three times as many others."""
    if not _SMALLEST_PERPLEXITY <= perplexity < math.inf:
        raise RiceError(f"expected a perplexity of at least {_SMALLEST_PERPLEXITY}, got {perplexity:g}; usual: 5 to 50")
    if count - 1 <= 3 * perplexity:
        raise RiceError(
            f"a perplexity of {perplexity:g} needs at least {math.floor(3 * perplexity) + 2} objects, got {count}; "
            "lower --perplexity, or give more objects"
        )


def joint_probabilities(squared_NN: Tensor, perplexity: float) -> Tensor:
    """P of squared distances, (N, N) float64: symmetric, zero diagonal, sum 1.

    Each row's precision is found by bisection, all rows at once, so that its entropy is log(perplexity). A row with
    more than `perplexity` neighbours at its smallest distance has no such precision and ends uniform over these.
    """
    squared_NN = squared_NN.double().clone().fill_diagonal_(torch.inf)
    squared_NN -= squared_NN.amin(1, keepdim=True)  # the same conditional, and its exponentials never all underflow
    low, high = (torch.full((len(squared_NN), 1), bound, dtype=torch.float64) for bound in _LOG2_PRECISION)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        too_flat = _entropy(_conditional(squared_NN, middle)) > math.log(perplexity)
        low, high = torch.where(too_flat, middle, low), torch.where(too_flat, high, middle)
    conditional_NN = _conditional(squared_NN, (low + high) / 2)
    return (conditional_NN + conditional_NN.T) / (2 * len(squared_NN))


def _conditional(squared_NN: Tensor, log2_precision_N1: Tensor) -> Tensor:
    return torch.softmax(-squared_NN * torch.exp2(log2_precision_N1), dim=1)


def _entropy(p_NN: Tensor) -> Tensor:
    entropy_N1: Tensor = torch.special.entr(p_NN).sum(1, keepdim=True)
    return entropy_N1


def divergence(p_NN: Tensor, points_N3: Tensor) -> float:
    """KL(P || Q) in nats, Q Student's t with one degree of freedom on the chords between points."""
    kernel_NN = _kernel(points_N3, slice(None))
    return float(torch.special.xlogy(p_NN, p_NN / (kernel_NN / kernel_NN.sum()).clamp(min=_TINY)).sum())


def gradient(p_NN: Tensor, points_N3: Tensor, exaggeration: float = 1.0) -> Tensor:
    """d KL / d y, (N, 3), for points free in space: 4 sum_j (p_ij - q_ij) (y_i - y_j) / (1 + |y_i - y_j|^2).

    `exaggeration` multiplies P. In blocks of rows that stay in the processor's cache: three times as fast.
    """
    padded_N4 = torch.cat([points_N3, torch.ones_like(points_N3[:, :1])], dim=1)  # sums of y_j and of 1 in one product
    pulls_N4, pushes_N4, total = torch.empty_like(padded_N4), torch.empty_like(padded_N4), torch.zeros(())
    for start in range(0, len(points_N3), _BLOCK):
        rows = slice(start, start + _BLOCK)
        kernel_RN = _kernel(points_N3, rows)
        total = total + kernel_RN.sum()
        torch.mm(p_NN[rows] * kernel_RN, padded_N4, out=pulls_N4[rows])
        torch.mm(kernel_RN.square_(), padded_N4, out=pushes_N4[rows])
    sums_N4 = exaggeration * pulls_N4 - pushes_N4 / total
    return 4 * (sums_N4[:, 3:] * points_N3 - sums_N4[:, :3])


def _kernel(points_N3: Tensor, rows: slice) -> Tensor:
    """1 / (1 + |y_i - y_j|^2) of these rows, (R, N); zero where i = j."""
    squares_N = points_N3.square().sum(1)
    start = 1 + squares_N + squares_N[rows, None]
    kernel_RN = torch.addmm(start, points_N3[rows], points_N3.T, alpha=-2).clamp_(min=1).reciprocal_()
    kernel_RN[:, rows].fill_diagonal_(0)
    return kernel_RN


def tangent(field_N3: Tensor, points_N3: Tensor) -> Tensor:
    """The part of a field along the manifold: each point's along the sphere, and a common one along all radii."""
    normals_N3: Tensor = points_N3 / points_N3.norm(dim=1, keepdim=True)
    outwards_N1: Tensor = (field_N3 * normals_N3).sum(1, keepdim=True)
    return field_N3 + (outwards_N1.mean() - outwards_N1) * normals_N3


def retract(points_N3: Tensor) -> Tensor:
    """The nearest configuration on one sphere around the origin: its radius is the mean of the points' radii.

    Never below the first radius: under exaggeration, features without structure would fall into the origin.
    """
    radii_N1: Tensor = points_N3.norm(dim=1, keepdim=True)
    return points_N3 * (radii_N1.mean().clamp(min=_FIRST_RADIUS) / radii_N1)


def first_points(features_ND: Tensor) -> Tensor:
    """The first three principal components, put on a sphere, (N, 3). Each component's largest score is positive, so
    that neither the order of the rows nor a rotation of the features matters.

    A point at the mean of all, which has no direction, and components that the features lack, are taken as 1e-9.
    """
    centred_ND = features_ND.double() - features_ND.double().mean(0)
    left_NR, values_R, _ = torch.linalg.svd(centred_ND, full_matrices=False)
    scores = torch.zeros(len(centred_ND), 3, dtype=torch.float64)
    found = min(3, len(values_R))
    scores[:, :found] = left_NR[:, :found] * values_R[:found]
    largest_3 = scores.gather(0, scores.abs().argmax(0, keepdim=True))
    scores = scores * torch.where(largest_3 < 0, -1.0, 1.0)
    return _FIRST_RADIUS * nn.functional.normalize(scores + 1e-9)


def facing(points_N3: Tensor) -> Tensor:
    """A rotation R, (3, 3), so that the mean of `points @ R` lies on z: nothing in t-SNE says where the front is."""
    mean_3 = points_N3.mean(0)
    if mean_3.norm() < 1e-6 * points_N3.norm(dim=1).mean():
        return torch.eye(3, dtype=points_N3.dtype)
    front_3 = nn.functional.normalize(mean_3, dim=0)
    aside = torch.eye(3, dtype=points_N3.dtype)[front_3.abs().argmin()]
    right_3 = nn.functional.normalize(torch.linalg.cross(aside, front_3), dim=0)
    return torch.stack([right_3, torch.linalg.cross(front_3, right_3), front_3], dim=1)


def project(
    features_ND: Tensor, perplexity: float, progress: Progress, label: str = "t-SNE", iterations: int = ITERATIONS
) -> SphereMap:
    """Features, compared by Euclidean distance, as points of a sphere, most of them towards z. Draws nothing at random.

    Errors: RiceError for too few features for the perplexity; see `check_perplexity`.
    """
    check_perplexity(perplexity, len(features_ND))
    features_ND = features_ND.double().cpu()
    p_NN = joint_probabilities(torch.cdist(features_ND, features_ND).square(), perplexity)
    found = descend(p_NN, first_points(features_ND), progress, label, iterations)
    return replace(found, points=found.points @ facing(found.points))


def descend(
    p_NN: Tensor, points_N3: Tensor, progress: Progress, label: str = "t-SNE", iterations: int = ITERATIONS
) -> SphereMap:
    """Gradient descent from points on a sphere: early exaggeration, momentum, and gains as in the original."""
    rate = max(len(p_NN) / _EXAGGERATION / 4, _SMALLEST_RATE)
    velocity_N3, gains_N1 = torch.zeros_like(points_N3), torch.ones_like(points_N3[:, :1])
    for iteration in progress.track(range(iterations), label):
        early = iteration < _EXAGGERATED
        slope_N3 = tangent(gradient(p_NN, points_N3, _EXAGGERATION if early else 1.0), points_N3)
        onwards_N1 = (slope_N3 * velocity_N3).sum(1, keepdim=True) < 0
        gains_N1 = torch.where(onwards_N1, gains_N1 + 0.2, gains_N1 * 0.8).clamp(min=_SMALLEST_GAIN)
        velocity_N3 = _MOMENTUM[not early] * velocity_N3 - rate * gains_N1 * slope_N3
        points_N3 = retract(points_N3 + velocity_N3)
        velocity_N3 = tangent(velocity_N3, points_N3)
    return SphereMap(points_N3, float(points_N3.norm(dim=1).mean()), divergence(p_NN, points_N3))
