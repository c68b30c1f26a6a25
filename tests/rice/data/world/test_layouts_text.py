"""Words in ICDAR 2015's layout: what is read back are the records, and training words are not the held-out ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rice.data.icdar import ICDAR_2015, find_splits, read_split
from rice.data.world import Part, WorldConfig, materialise
from rice.data.world.config import scenes
from rice.data.world.draws import Dice
from rice.data.world.spelling import LONGEST, draw_spelling
from rice.data.world.words import FONTS, WORDS
from rice.errors import RiceError

CONFIG = WorldConfig(layout="icdar", size=96, train=8, test=4, objects=(1, 2), words=(4, 8), seed=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(CONFIG, tmp_path_factory.mktemp("world") / "words")


@pytest.mark.parametrize(("split", "part"), [("train", Part.TRAIN), ("test", Part.TEST)])
def test_what_is_read_back_are_the_records(written: Path, split: str, part: Part) -> None:
    boxes = read_split(*find_splits(written)[split])
    for number, scene in enumerate(scenes(CONFIG, part), start=1):
        found = [box for box in boxes if box.picture.stem == f"img_{number}"]
        assert [box.text for box in found] == [word.text for word in scene.words]
        for box, word in zip(found, scene.words, strict=True):
            np.testing.assert_allclose(np.reshape(box.quad, (4, 2)), word.quad, atol=0.5)
        picture = written / ICDAR_2015[split][0] / f"img_{number}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(picture)), scene.image)


def test_truth_begins_with_a_mark_and_has_carriage_returns_as_the_sets_own(written: Path) -> None:
    data = (written / ICDAR_2015["train"][1] / "gt_img_1.txt").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    assert data.endswith(b"\r\n")
    assert data.count(b"\n") == data.count(b"\r\n")


def test_words_and_fonts_of_the_test_part_are_held_out_and_most_training_words_are_made_up() -> None:
    train = [word for scene in scenes(CONFIG, Part.TRAIN) for word in scene.words]
    test = [word for scene in scenes(CONFIG, Part.TEST) for word in scene.words]
    assert not {w.text.lower() for w in train} & set(WORDS[True])
    assert {w.text.lower() for w in test} <= set(WORDS[True])
    assert {w.font for w in train} <= set(FONTS[False])
    assert {w.font for w in test} <= set(FONTS[True])
    made_up = [w.text.lower() not in WORDS[False] for w in train]
    assert 0.6 < np.mean(made_up) < 1


def test_other_layouts_have_words_of_the_pool_only() -> None:
    config = WorldConfig(size=96, train=8, words=(4, 8), seed=3)
    assert {w.text.lower() for scene in scenes(config, Part.TRAIN) for w in scene.words} <= set(WORDS[False])


def test_made_up_words_are_many_short_and_never_reserved() -> None:
    dice = Dice(5, 5)
    drawn = [draw_spelling(dice) for _ in range(4000)]
    assert len(set(drawn)) > 2500
    assert set("".join(drawn)) == set("0123456789abcdefghijklmnopqrstuvwxyz")
    assert 2 <= min(map(len, drawn)) <= max(map(len, drawn)) == LONGEST
    reserved = set(drawn[::2])
    again = Dice(5, 5)
    assert not reserved & {draw_spelling(again, reserved) for _ in range(1000)}


def test_the_layout_belongs_to_scenes() -> None:
    with pytest.raises(RiceError, match="expected kind scenes for layout icdar"):
        WorldConfig(kind="crops", layout="icdar")
