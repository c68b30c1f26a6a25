"""Did a claim hold? Paired differences by pretraining seed, their interval, and what it says (`docs/miniature.md`).

Differences are in points of percent, > 0 where the arm that is claimed to be better is better. The verdict is made of
the interval over pretraining seeds alone: whether the claim is true of pretraining in general is what is asked. The
interval that draws the test items, too, stands beside it.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reports.compare.resample import Resampler
from reports.compare.statistics import Estimate, holm, summary
from reports.measurements import Cell, Run
from reports.miniature.claims import CLAIMS, Claim
from reports.miniature.scores import Scores, Trained, mean_of
from rice.progress import Progress

Verdict = Literal["held", "did not hold", "within noise", "not measured"]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim on a dataset; without a dataset where nothing at all was measured.

    differences: pretraining seed -> points. seeds, items: the differences as an estimate over pretraining seeds alone,
    and over test items, too; None where a cell is missing, or no items are stored. p: one-sided, of the hypothesis that
    the claim is false; p_holm: corrected over all primary claims. missing: what was not measured, one text each.
    """

    claim: Claim
    verdict: Verdict
    dataset: str | None = None
    differences: Mapping[int, float] = dataclasses.field(default_factory=dict)
    seeds: Estimate | None = None
    items: Estimate | None = None
    p: float | None = None
    p_holm: float | None = None
    missing: tuple[str, ...] = ()
    results: tuple[str, ...] = ()

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of 95 %, over pretraining seeds; None for one seed. Equal differences have themselves as their interval."""
        return None if self.seeds is None else _interval(self.seeds)

    @property
    def words(self) -> str:
        """The verdict as a table shows it."""
        return (
            f"{self.verdict} (one seed)" if self.verdict == "within noise" and self.interval is None else self.verdict
        )


def judge(scores: Scores, resampler: Resampler, progress: Progress, claims: Sequence[Claim] = CLAIMS) -> list[Judged]:
    """Every claim on every dataset that its probe was run on, by the arms of equal updates.

    Errors: RiceError where a cell is ambiguous (`Scores.cells`).
    """
    cells = {claim.id: scores.cells(claim.probe, claim.metric) for claim in claims}
    wanted = {
        (cell.probe, run.key)
        for claim in claims
        for cell in cells[claim.id]
        for arm in (claim.better, claim.than)
        for runs in scores.pretrainings(arm, "updates", cell).values()
        for run in runs.values()
    }
    resampler.prepare(sorted(wanted), progress)
    judged = []
    for claim in claims:
        judged += [_judged(claim, cell, scores, resampler) for cell in cells[claim.id]] or [_unmeasured(claim, scores)]
    return _corrected(judged)


def _judged(claim: Claim, cell: Cell, scores: Scores, resampler: Resampler) -> Judged:
    ours, theirs = (scores.pretrainings(arm, "updates", cell) for arm in (claim.better, claim.than))
    missing = tuple(_missing(claim, cell, scores))
    keys = tuple(run.key for runs in (*ours.values(), *theirs.values()) for run in runs.values())
    base = Judged(claim=claim, verdict="not measured", dataset=scores.dataset(cell), missing=missing, results=keys)
    if missing:
        return base
    if not cell.higher_is_better:
        ours, theirs = theirs, ours
    differences = {seed: mean_of(ours[seed].values()) - mean_of(theirs[seed].values()) for seed in sorted(ours)}
    seeds = summary(differences.values())
    return dataclasses.replace(
        base,
        verdict=_verdict(claim, _interval(seeds)),
        differences=differences,
        seeds=seeds,
        items=_over_items(cell, ours, theirs, resampler),
        p=_one_sided(claim, seeds),
    )


def _unmeasured(claim: Claim, scores: Scores) -> Judged:
    where = f"{claim.probe} / {claim.metric}"
    return Judged(claim=claim, verdict="not measured", missing=(f"{where} of every arm",))


def _missing(claim: Claim, cell: Cell, scores: Scores) -> Iterator[str]:
    """Pretrainings without a number, and probe's seeds that others have."""
    arms = {arm: scores.pretrainings(arm, "updates", cell) for arm in (claim.better, claim.than)}
    wanted = sorted({seed for found in arms.values() for runs in found.values() for seed in runs})
    for arm, found in arms.items():
        for pretraining in scores.seeds():
            name, lacking = Trained(arm, "updates", pretraining).name, set(wanted) - found.get(pretraining, {}).keys()
            if pretraining not in found:
                yield name
            elif lacking:
                yield f"{name} with the probe's seed {', '.join(map(str, sorted(lacking)))}"


def _over_items(
    cell: Cell, ours: Mapping[int, Mapping[int, Run]], theirs: Mapping[int, Mapping[int, Run]], resampler: Resampler
) -> Estimate | None:
    """None where the items are not stored, or do not give the metric."""
    places = [(pretraining, seed) for pretraining in sorted(ours) for seed in sorted(ours[pretraining])]
    runs, others = ([arm[pretraining][seed] for pretraining, seed in places] for arm in (ours, theirs))
    found = resampler.summary(cell, runs, minus=others, groups=[pretraining for pretraining, _ in places])
    return found if found.items else None


def _interval(estimate: Estimate) -> tuple[float, float] | None:
    if estimate.error is None:
        return None if estimate.seeds == 1 else (estimate.mean, estimate.mean)
    return estimate.interval


def _verdict(claim: Claim, interval: tuple[float, float] | None) -> Verdict:
    if interval is None:
        return "within noise"
    if claim.includes(interval[0]):
        return "held"
    return "within noise" if claim.includes(interval[1]) else "did not hold"


def _one_sided(claim: Claim, estimate: Estimate) -> float | None:
    """Student's t, of a true difference that is at most the claimed one; None for one seed."""
    if estimate.seeds == 1:
        return None
    if estimate.error is None or estimate.freedom is None:
        return 0.0 if claim.includes(estimate.mean) else 1.0
    from scipy.special import stdtr

    return float(stdtr(estimate.freedom, (claim.by - estimate.mean) / estimate.error))


def _corrected(judged: Sequence[Judged]) -> list[Judged]:
    """With Holm's p-values over the primary claims. One that was not tested counts as p = 1: to leave a claim out makes
    no other one easier."""
    primary = [k for k, one in enumerate(judged) if one.claim.primary]
    tested = [1.0 if (p := judged[k].p) is None else p for k in primary]
    corrected = dict(zip(primary, holm(tested).tolist(), strict=True))
    return [one if one.p is None else dataclasses.replace(one, p_holm=corrected.get(k)) for k, one in enumerate(judged)]


def as_json(judged: Sequence[Judged], notes: Sequence[str] = ()) -> dict[str, Any]:
    """Plain numbers, in points of percent; `results`: keys of the files that they come from."""
    return {"claims": [_claim_json(one) for one in judged], "notes": list(notes)}


def _claim_json(one: Judged) -> dict[str, Any]:
    low, high = one.interval or (None, None)
    items = None if one.items is None else one.items.interval
    low_items, high_items = items or (None, None)
    return (
        dataclasses.asdict(one.claim)
        | {"dataset": one.dataset, "differences": {str(seed): value for seed, value in one.differences.items()}}
        | {"difference": None if one.seeds is None else one.seeds.mean, "low": low, "high": high}
        | {"low_with_items": low_items, "high_with_items": high_items}
        | {"items": 0 if one.items is None else one.items.items, "p": one.p, "p_holm": one.p_holm}
        | {"verdict": one.words, "missing": list(one.missing), "results": list(one.results)}
    )
