"""The tracking probe (paper, section 4.4, Table 4): OSTrack's attention probing on a frozen encoder."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from probes.protocol import Metric, Resampling, identity
from rice.errors import RiceError
from rice.progress import Progress, SilentProgress
from tracking.config import TrackingConfig

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from rice.encoders.base import Encoder
    from rice.encoders.spec import EncoderSpec
    from tracking.material import HeldOut, Material, Places
    from tracking.run import Outcome
    from tracking.score import Scores

_NAMES = {
    "success": "success",
    "precision": "precision",
    "norm_precision": "norm. precision",
    "ao": "AO",
    "sr_0.5": "SR0.5",
    "sr_0.75": "SR0.75",
}


class TrackingProbe:
    """Frozen tokens of template and search -> two ViT blocks -> CENTER head, judged by each benchmark's own protocol.

    The data root is one benchmark, or a folder of several of which the configuration names those that train and test.
    `items.parquet`: per test clip its benchmark, frames and scores (percent; none where the toolkit leaves the clip out
    of a mean). `kept/`: the trained head, the tracks, and for benchmarks whose truth is withheld the zip for their
    server.
    """

    name: ClassVar[str] = "tracking"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = TrackingConfig

    def __init__(self, config: TrackingConfig, data: Path) -> None:
        self.config = config
        self.data = data

    def inspect(self) -> str:
        """One line on what would train and test. Errors: RiceError, also where a server has all truth; its kind tells
        foreign from broken."""
        tests = self.material.tests
        if all(test.withheld for test in tests):
            raise RiceError(
                f"{', '.join(test.title for test in tests)}: only first boxes are known, so that there is nothing to "
                "score here; name a test set with its truth, or use rice track train, which writes the server's zip"
            )
        return self.describe()

    def describe(self) -> str:
        """One line on what would train and test. Errors: RiceError where it cannot be read."""
        material = self.material
        trains = ", ".join(f"{len(source):,} of {source.name}" for source in material.sources)
        tests = ", ".join(f"{len(test.clips):,} of {test.title} {test.split}" for test in material.tests)
        withheld = [test.title for test in material.tests if test.withheld]
        note = f"; {', '.join(withheld)}: truth withheld, a zip for the server instead of scores" if withheld else ""
        return f"trains on {trains}; tests on {tests}{note}"

    def fingerprint(self) -> str:
        """SHA-256 over the annotations and the number of frames of all splits that would be read."""
        return self._fingerprint

    def count_images(self) -> int:
        """Pictures that pass through the encoder: two a pair, and every test frame."""
        return 2 * self.config.updates * self.config.batch + sum(map(len, self.material.clips))

    def decode_all(self, progress: Progress) -> None:
        """Read every test frame. Errors: RiceError naming the first that is damaged."""
        for clip in progress.track(self.material.clips, "decode test clips"):
            for _ in clip.frames.stream():
                pass

    def input_size(self, spec: "EncoderSpec", size: int | None) -> int:
        """Edge of the search region. Errors: RiceError when another one is asked for by NAME@SIZE."""
        _, search = self.config.sizes(spec)
        if size not in (None, search):
            raise RiceError(
                f"the search region of {spec.name} has {search} pixels, but @{size} was asked; drop @{size}, and set "
                "search_size"
            )
        return search

    def run(self, encoder: "Encoder", *, seed: int, workdir: Path, progress: Progress) -> Iterator[Metric]:
        """Yield the scores of one seed. See `probes.protocol.Probe`.

        The seed sets initialisation, which pairs are drawn, and how they are cut and varied.
        """
        from probes.cache import encoder_key
        from rice.files import sha256_json
        from rice.train.world import World
        from tracking.run import Training

        weights = encoder_key(encoder, self.input_size(encoder.spec, None), "tracking")
        key = sha256_json([weights, self.fingerprint(), identity(self.config)])[:20]
        training = Training(
            encoder=encoder,
            reference=encoder.spec.name,
            weights=encoder.weights,
            fingerprint=weights,
            material=self.material,
            config=self.config,
            seed=seed,
            folder=workdir / key / f"seed{seed}",
        )
        outcome = training.run(progress, World(0, 1, encoder.device))
        training.keep(workdir / "kept")
        _write_items(workdir / "items.parquet", self.material, outcome)
        for test in self.material.tests:
            if test.benchmark in outcome.scores:
                yield from self._metrics(test, outcome.scores[test.benchmark])

    @staticmethod
    def resampling(items: Path) -> Iterable[Resampling]:
        """See `probes.protocol.Resamples`; each benchmark's clips are drawn on their own."""
        import pandas as pd

        for benchmark, rows in pd.read_parquet(items).groupby("benchmark", sort=True):
            yield Resampling(ids=rows["id"].tolist(), scores=partial(_weighted_means, str(benchmark), rows))

    def _metrics(self, test: "HeldOut", scores: "Scores") -> Iterator[Metric]:
        from tracking.protocols import definition
        from tracking.score import stderr

        errors = stderr(scores)
        for name, value in scores.values.items():
            error = errors.get(name)
            yield Metric(
                name=f"{test.title} {_NAMES[name]}",
                value=value / 100,
                n=len(scores.frames),
                unit="fraction",
                higher_is_better=True,
                split=test.split,
                stderr=None if error is None else error / 100,
                protocol=f"{scores.protocol}: {definition(scores.protocol)}; {self.protocol()}",
            )

    def protocol(self) -> str:
        """How the tracker is trained and run, in words."""
        c, heads = self.config, self.config.heads
        drop = "cosine" if c.drop_at is None else f"a tenth after {c.drop_at:g} of it"
        limit = "" if c.train_sequences is None else f" of at most {c.train_sequences} clips"
        sources = " + ".join(source.name for source in self.material.sources)
        excluded = f", without {self.material.excluded} clips of the test" if self.material.excluded else ""
        blocks = f"{_count(heads.blocks, 'ViT block')} with learned segments"
        positions = " and fixed positions" if heads.positions else ""
        learnt = f"{sources}{limit}{excluded}, {_count(c.epochs, 'epoch')} of {c.epoch_pairs} pairs"
        return (
            f"frozen tokens without the class token, LayerNorm, {blocks}{positions}, CENTER head of {heads.channels} "
            f"channels; template {c.template_size} px at factor {c.template_factor:g}, search {c.search_size} px at "
            f"{c.search_factor:g}, rounded to what the encoder takes, its own mean and std; {learnt} in batches of "
            f"{c.batch}, AdamW {c.learning_rate:g}, {drop}; Hann window, no template update; the last step is judged"
        )

    @cached_property
    def places(self) -> "Places":
        """Where training and test sets lie."""
        from tracking.material import Places

        return Places.of(self.data, self.config)

    @cached_property
    def _fingerprint(self) -> str:
        """Read once for all seeds: TrackingNet has 30,000 annotation files."""
        return self.places.fingerprint()

    @cached_property
    def material(self) -> "Material":
        """Training and test sets, read and checked once for all seeds."""
        from tracking.material import open_material

        return open_material(self.places, self.config, SilentProgress())


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _write_items(path: Path, material: "Material", outcome: "Outcome") -> None:
    import pandas as pd

    from rice.files import atomic_write

    rows = [
        {"id": f"{test.benchmark}/{name}", "benchmark": test.benchmark, "frames": scores.frames[name]}
        | {key: None if name in scores.left_out.get(key, ()) else value for key, value in values.items()}
        for test in material.tests
        if (scores := outcome.scores.get(test.benchmark)) is not None
        for name, values in scores.per_sequence.items()
    ]
    with atomic_write(path, "wb") as file:
        pd.DataFrame(rows).to_parquet(file)


def _weighted_means(
    benchmark: str, rows: "pd.DataFrame", weights_RN: "NDArray[np.float64]"
) -> "Mapping[str, NDArray[np.float64]]":
    """Fractions: means over clips, GOT-10k's over all their frames (`tracking.score`)."""
    import numpy as np

    from tracking.protocols import DEFAULT_PROTOCOL, TITLES

    if DEFAULT_PROTOCOL[benchmark] == "got10k":
        weights_RN = weights_RN * rows["frames"].to_numpy(dtype=np.float64)
    means = {}
    for key, name in _NAMES.items():
        if key in rows and rows[key].notna().any():
            value_N = rows[key].to_numpy(dtype=np.float64)
            counted_N = np.isfinite(value_N)
            share_R = weights_RN[:, counted_N].sum(axis=1)
            total_R = weights_RN[:, counted_N] @ value_N[counted_N] / 100
            means[f"{TITLES[benchmark]} {name}"] = np.divide(
                total_R, share_R, out=np.full(len(weights_RN), np.nan), where=share_R > 0
            )
    return means
