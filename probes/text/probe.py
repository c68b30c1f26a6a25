"""The text probe: what of a printed word can a small recogniser read in an encoder's frozen patch tokens?"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from probes.protocol import Metric, Probe, Resampling
from probes.text.config import TextConfig
from rice.progress import Progress

if TYPE_CHECKING:
    from probes.text.data import WordSet
    from probes.text.model import Recogniser
    from probes.text.train import Material
    from rice.encoders.base import Encoder


class TextProbe(Probe):
    """Frozen tokens of a word's picture -> a small recogniser with CTC, on words in ICDAR 2015's or SROIE's layout.

    `items.parquet`: what was read of each test word. `kept/`: the recogniser.
    """

    name, version, Config = "text", 1, TextConfig
    config: TextConfig

    def inspect(self) -> str:
        """One line on the words. Errors: RiceError; its kind tells foreign from broken; see `open_words`."""
        words = self._words
        return (
            f"trains on {len(words.train):,} words; tests on {len(words.test):,} ({words.test_name}); left out: "
            f"{words.illegible:,} illegible, {words.foreign:,} without a letter of 0-9 a-z"
        )

    def fingerprint(self) -> str:
        """See `probes.text.data.fingerprint`."""
        from probes.text.data import fingerprint

        return fingerprint(self._words)

    def count_images(self) -> int:
        """Words of both parts, each a picture that passes through the encoder."""
        return len(self._words.train) + len(self._words.test)

    def decode_all(self, progress: Progress) -> None:
        """Cut out every word. Errors: RiceError naming the first picture that is damaged, or the first box outside."""
        from probes.images import load_each
        from probes.text.data import cutter

        words, cut = [*self._words.train, *self._words.test], cutter()
        found = load_each(lambda word: cut(word.source).size, words)
        for _ in progress.track(found, "cut out words", len(words)):
            pass

    def run(self, encoder: "Encoder", *, seed: int, workdir: Path, progress: Progress) -> Iterator[Metric]:
        """Yield word and character accuracy of one seed. See `probes.protocol.Probe`.

        The seed sets initialisation and order.
        """
        from probes.cache import material_key
        from probes.text import evaluate, train
        from probes.text.scores import scores

        key, size = material_key(encoder, self, "tokens, LayerNorm"), self.input_size(encoder.spec, None)
        material = train.prepare(encoder, self._words, size, self.config, key, workdir / key[:20], progress)
        head = self._train(material, seed, progress)
        read = evaluate.read_words(head, material, progress)
        truth = [word.letters for word in material.test_words]
        found = scores(read, truth)
        evaluate.write_items(workdir / "items.parquet", material.test_words, read)
        values = {name: score.value for name, score in found.items()}
        self._keep(workdir / "kept", head, encoder, material, seed, values)
        for name, score in found.items():
            yield Metric(
                name=name,
                value=score.value,
                n=len(read),
                unit="fraction",
                higher_is_better=True,
                split=self._words.test_name,
                stderr=score.stderr,
                protocol=f"{_DEFINITIONS[name]}; {self.protocol()}",
            )

    @staticmethod
    def resampling(items: Path) -> Iterable[Resampling]:
        """See `probes.protocol.Resamples`; items are words."""
        from probes.text.scores import resampling

        return resampling(items)

    def protocol(self) -> str:
        """How the recogniser is trained and run, in words."""
        c = self.config
        return (
            "digits and letters without case and accents, all else dropped; words cut out by the box around their "
            "quad, squashed to the encoder's square; frozen patch tokens, LayerNorm, standardised per channel; "
            f"{c.channels} channels, {c.rows} x {c.steps} places, two convolutions of {c.hidden} along the word, CTC, "
            f"guided by evenly spread letters for {c.guided:g} of the training, "
            f"read greedily without a lexicon; {c.epochs} epochs in batches of {c.batch}, AdamW {c.learning_rate:g}, "
            "cosine; the last step is judged"
        )

    def _train(self, material: "Material", seed: int, progress: Progress) -> "Recogniser":
        from probes.text import evaluate, train
        from probes.text.scores import scores
        from probes.watch import Run
        from rice.train.world import World

        head = train.recogniser_for(material, self.config, seed)

        def judge(_: int) -> dict[str, float]:
            read = evaluate.read_words(head, material, progress)
            found = scores(read, [word.letters for word in material.test_words])
            return {name: 100 * score.value for name, score in found.items()}

        every = self.config.evaluation_steps(train.updates(self.config, len(material.train_words)))
        run = Run(
            seed=seed,
            folder=material.folder / f"seed{seed}",
            progress=progress,
            world=World(0, 1, material.device),
            evaluate=judge if every else None,
            every=every,
        )
        train.train_recogniser(material, head, self.config, run)
        return head

    def _keep(
        self,
        folder: Path,
        head: "Recogniser",
        encoder: "Encoder",
        material: "Material",
        seed: int,
        scores: dict[str, float],
    ) -> None:
        """Write the recogniser of the last step."""
        from probes.heads import LAST, Tower, save_heads
        from probes.protocol import identity
        from probes.text.checkpoint import RecogniserFacts
        from probes.text.data import ALPHABET
        from probes.text.train import updates

        total = updates(self.config, len(material.train_words))
        facts = RecogniserFacts(
            **Tower.of(encoder).facts(),
            config=identity(self.config),
            seed=seed,
            done=total,
            updates=total,
            scores=scores,
            grid=material.grid,
            alphabet=ALPHABET,
        )
        save_heads(folder / LAST, head, facts)

    @cached_property
    def _words(self) -> "WordSet":
        from probes.text.data import open_words

        return open_words(self.data)


_DEFINITIONS = {
    "word accuracy": "share of words read without a fault",
    "character accuracy": (
        "1 - Levenshtein distances of all words / letters of all words; below 0 where more is wrong than there is to "
        "read"
    ),
}
