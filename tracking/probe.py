"""The tracking probe (paper, section 4.4, Table 4): OSTrack's attention probing on a frozen encoder."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from probes.protocol import Metric, NotThisLayoutError, Probe, Resampling
from rice.errors import RiceError
from rice.progress import Progress, SilentProgress
from tracking.config import TrackingConfig

if TYPE_CHECKING:
    from probes.heads import Tower
    from rice.encoders.base import Encoder
    from rice.encoders.spec import EncoderSpec
    from tracking.material import Material, Places
    from tracking.run import Training


class TrackingProbe(Probe):
    """Frozen tokens of template and search -> two ViT blocks -> CENTER head, judged by each benchmark's own protocol.

    The data root is one benchmark, or a folder of several of which the configuration names those that train and test.
    `items.parquet`: per test clip its benchmark, frames and scores (percent; none where the toolkit leaves the clip out
    of a mean). `kept/`: the trained head, the tracks, and for benchmarks whose truth is withheld the zip for their
    server.
    """

    name, version, Config = "tracking", 1, TrackingConfig
    config: TrackingConfig

    def inspect(self) -> str:
        """One line on what would train and test. Errors: RiceError; NotThisLayoutError also where a server has all
        truth."""
        tests = self.material.tests
        if all(test.withheld for test in tests):
            raise NotThisLayoutError(
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
        from probes.cache import material_key
        from probes.heads import Tower
        from rice.train.world import World
        from tracking.items import metrics, write_items

        folder = workdir / material_key(encoder, self, "tracking")[:20] / f"seed{seed}"
        training = self.training(Tower.of(encoder), seed=seed, folder=folder)
        outcome = training.run(progress, World(0, 1, encoder.device))
        training.keep(workdir / "kept")
        judged = [test for test in self.material.tests if test.benchmark in outcome.scores]
        scores = {test.benchmark: outcome.scores[test.benchmark] for test in judged}
        write_items(workdir / "items.parquet", scores)
        for test in judged:
            yield from metrics(test.benchmark, scores[test.benchmark], test.split, self.protocol())

    def training(self, tower: "Tower", *, seed: int, folder: Path) -> "Training":
        """One training that writes under `folder`."""
        from tracking.run import Training

        return Training(tower=tower, material=self.material, config=self.config, seed=seed, folder=folder)

    @staticmethod
    def resampling(items: Path) -> Iterable[Resampling]:
        """See `probes.protocol.Resamples`; each benchmark's clips are drawn on their own."""
        from tracking.items import resampling

        return resampling(items)

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
