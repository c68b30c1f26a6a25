"""The text probe as a whole: what it finds, what it does not see, and that it repeats itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from probes.heads import LAST
from probes.protocol import Metric
from probes.text.checkpoint import load_recogniser
from probes.text.config import TextConfig
from probes.text.probe import TextProbe
from rice.data.icdar import ICDAR_2015
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.progress import Progress, SilentProgress

QUICK: dict[str, Any] = {"epochs": 12, "batch": 4, "steps": 12, "rows": 3, "channels": 12, "hidden": 16}
TEST = ("zebra", "oak", "99", "mint")


def run(
    root: Path, encoder: Encoder, workdir: Path, *, seed: int = 0, progress: Progress | None = None, **changes: Any
) -> tuple[list[Metric], pd.DataFrame]:
    """Metrics and items."""
    probe = TextProbe(TextConfig(**(QUICK | changes)), root)
    metrics = list(probe.run(encoder, seed=seed, workdir=workdir, progress=progress or SilentProgress()))
    return metrics, pd.read_parquet(workdir / "items.parquet")


def test_a_seed_repeats_itself_and_another_does_not(make_words: Any, make_encoder: Any, tmp_path: Path) -> None:
    root, encoder = make_words(test=TEST), make_encoder()
    first, items = run(root, encoder, tmp_path / "a")
    again, same = run(root, encoder, tmp_path / "b", cache_gb=0.0)
    assert first == again
    pd.testing.assert_frame_equal(items, same)
    assert list((tmp_path / "a").rglob("*.npy"))
    assert not list((tmp_path / "b").rglob("*.npy"))
    run(root, encoder, tmp_path / "a", seed=1)
    states = [torch.load(path, weights_only=True)["head"] for path in sorted((tmp_path / "a").rglob("training.pt"))]
    assert len(states) == 2
    assert not torch.equal(states[0]["letters.weight"], states[1]["letters.weight"])


class KilledError(Exception):
    """Stands for SIGKILL in a loop."""


class Deadly(SilentProgress):
    """Dies after so many rounds of one loop."""

    def __init__(self, label: str, rounds: int) -> None:
        self.label, self.rounds = label, rounds

    def track(self, items: Any, label: str, total: int | None = None) -> Any:
        for index, item in enumerate(super().track(items, label, total)):
            if label.startswith(self.label) and index == self.rounds:
                raise KilledError
            yield item


@pytest.mark.parametrize(
    ("label", "rounds"), [("train: 8 words", 0), ("test: 4 words", 0), ("train, ", 0), ("train, ", 15), ("read", 0)]
)
def test_a_killed_run_ends_as_an_unbroken_one(
    make_words: Any, make_encoder: Any, tmp_path: Path, label: str, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probes.fit._CHECKPOINT_EVERY_S", 0.0)
    root, encoder = make_words(test=TEST), make_encoder()
    whole, items = run(root, encoder, tmp_path / "whole")
    with pytest.raises(KilledError):
        run(root, encoder, tmp_path / "killed", progress=Deadly(label, rounds))
    resumed, again = run(root, encoder, tmp_path / "killed")
    assert resumed == whole
    pd.testing.assert_frame_equal(items, again)


def test_training_never_sees_the_test_words(make_words: Any, make_encoder: Any, tmp_path: Path) -> None:
    encoder = make_encoder()
    heads = []
    for name, test in (("a", TEST), ("b", ("other", "5", "words", "xyz"))):
        run(make_words(test=test, name=name), encoder, tmp_path / f"work {name}")
        (path,) = (tmp_path / f"work {name}").rglob("training.pt")
        heads.append(torch.load(path, weights_only=True)["head"])
    for left, right in zip(heads[0].values(), heads[1].values(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)


def test_the_kept_recogniser_reads_what_the_probe_read(make_words: Any, make_encoder: Any, tmp_path: Path) -> None:
    from probes.text.data import cutter, open_words
    from probes.text.model import decode, extract_tokens, token_source

    root, encoder = make_words(), make_encoder()
    _, items = run(root, encoder, tmp_path, epochs=60)
    head = load_recogniser(tmp_path / "kept" / LAST, encoder)
    words = open_words(root).test
    source = token_source(encoder, "", words, 32)
    pictures = torch.stack([source.load(item) for item in range(len(words))])
    assert cutter()(words[0].source).size == (58, 16)
    found = head(extract_tokens(encoder, pictures).half()).argmax(-1).tolist()
    assert [decode(row) for row in found] == items["read"].tolist()
    assert items["letters"].tolist() == [word.letters for word in words]


def test_words_that_do_not_fit_are_judged_but_not_learnt(make_words: Any, make_encoder: Any, tmp_path: Path) -> None:
    long = "abcdefghijklm"
    metrics, items = run(make_words(train=["fox", "ox", long], test=["fox", long]), make_encoder(), tmp_path)
    assert {metric.n for metric in metrics} == {2}
    assert not items.correct[1]
    with pytest.raises(RiceError, match="all 1 training words are too long for 12 steps"):
        run(make_words(train=[long], name="long"), make_encoder(), tmp_path / "none")


def test_a_missing_picture_is_one_line_of_the_check(make_words: Any) -> None:
    root = make_words()
    probe = TextProbe(TextConfig(), root)
    assert probe.inspect() == (
        "trains on 8 words; tests on 8 (test); left out: 0 illegible, 0 without a letter of 0-9 a-z"
    )
    assert probe.count_images() == 16
    (root / ICDAR_2015["test"][0] / "img_3.png").unlink()
    with pytest.raises(RiceError, match=r"gt_img_3\.txt: expected its picture") as caught:
        TextProbe(TextConfig(), root).inspect()
    assert "\n" not in str(caught.value)


def test_a_damaged_picture_and_a_box_outside_are_found_by_decoding(make_words: Any) -> None:
    root = make_words()
    probe = TextProbe(TextConfig(), root)
    probe.decode_all(SilentProgress())
    truth = root / ICDAR_2015["train"][1] / "gt_img_2.txt"
    truth.write_text("100,5,120,5,120,9,100,9,far")
    with pytest.raises(RiceError, match=r"gt_img_2\.txt, line 1: expected a box"):
        TextProbe(TextConfig(), root).decode_all(SilentProgress())
    (root / ICDAR_2015["train"][0] / "img_1.png").write_bytes(b"none")
    with pytest.raises(RiceError, match=r"img_1\.png"):
        TextProbe(TextConfig(), root).decode_all(SilentProgress())


@pytest.mark.parametrize("bad", [{"steps": 0}, {"rows": 0}, {"cache_gb": -1.0}, {"epochs": 0}, {"learning_rate": 0.0}])
def test_settings_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(RiceError, match=next(iter(bad))):
        TextConfig(**bad)


def test_evaluations_on_the_way_change_nothing(
    make_words: Callable[..., Path], make_encoder: Callable[..., Encoder], tmp_path: Path
) -> None:
    root, encoder = make_words(test=TEST), make_encoder()
    first, _ = run(root, encoder, tmp_path / "a")
    watched, _ = run(root, encoder, tmp_path / "b", evaluate_every=3)
    assert first == watched
    (log,) = (tmp_path / "b").rglob("metrics.jsonl")
    assert log.read_text().count("word accuracy") == 4


@pytest.mark.data
def test_real_receipts_run_end_to_end(shared_data: Path, make_encoder: Any, tmp_path: Path) -> None:
    metrics, items = run(shared_data / "sroie", make_encoder(patch=8, size=64), tmp_path, epochs=1, steps=48)
    assert len(items) == metrics[0].n > 100
    assert -1 < metrics[1].value < 0.5
