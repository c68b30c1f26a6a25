"""Arms differ in what they learn from, and in nothing else."""

import dataclasses
from pathlib import Path

from reports.miniature.arms import ARMS, TEACHER, command, folder
from reports.miniature.claims import CLAIMS, NAMES
from reports.miniature.scores import Trained
from reports.miniature.settings import MiniatureConfig
from rice.cli import main
from rice.train.config import TrainConfig

CONFIG = MiniatureConfig(updates=7, batch=5)
SHARED = ("tower", "samples", "batch", "seed", "rho", "ocr_rho", "vit")


def configs(asked: list[tuple[TrainConfig, Path]]) -> dict[str, TrainConfig]:
    for arm in ARMS:
        main([*command(arm, arm.candidates[0], CONFIG, Path("root"), Path("out"), updates=7, seed=3), "--dry-run"])
    return {arm.name: config for arm, (config, _) in zip(ARMS, asked, strict=True)}


def test_all_arms_have_the_same_tower_updates_batch_seed_and_crops(asked: list[tuple[TrainConfig, Path]]) -> None:
    found = configs(asked)
    assert {config.steps for config in found.values()} == {7}
    for name in SHARED:
        assert len({repr(getattr(config, name)) for config in found.values()}) == 1, name
    streams = {repr(dataclasses.replace(config.stream, image_positives=1, context=0)) for config in found.values()}
    assert len(streams) == 1
    assert found["mlcd"].stream.flip == 0  # pictures with known text are never mirrored: else arms would see others


def test_each_arm_learns_from_what_it_is_named_for(asked: list[tuple[TrainConfig, Path]]) -> None:
    found = configs(asked)
    targets = {"rice": "regions", "rice-noocr": "regions", "oracle": "regions", "clip": "captions"}
    assert {name: config.target for name, config in found.items()} == targets | {"mlcd": "image", "unicom": "image"}
    assert (found["mlcd"].stream.image_positives, found["unicom"].stream.image_positives) == (8, 1)
    assert (found["rice"].ocr_weight > 0, found["rice-noocr"].ocr_weight) == (True, 0)
    assert len({str(data) for _, data in asked}) == 3


def test_every_arm_has_as_many_candidates_and_none_twice(asked: list[tuple[TrainConfig, Path]]) -> None:
    assert {len(arm.candidates) for arm in ARMS} == {4}
    for arm in ARMS:
        for flags in arm.candidates:
            main([*command(arm, flags, CONFIG, Path("root"), Path("out"), updates=7, seed=3), "--dry-run"])
    assert len({repr((config, data)) for config, data in asked}) == 4 * len(ARMS)


def test_the_teacher_is_a_clip_of_the_same_recipe(asked: list[tuple[TrainConfig, Path]]) -> None:
    main([*command(TEACHER, {}, CONFIG, Path("root"), Path("out"), updates=9, seed=3), "--dry-run"])
    assert (asked[0][0].target, asked[0][0].steps) == ("captions", 9)


def test_claims_and_tables_know_every_arm() -> None:
    assert {arm.name for arm in ARMS} | {"random"} == set(NAMES)
    assert {arm for claim in CLAIMS for arm in (claim.better, claim.than)} <= {arm.name for arm in ARMS}
    timed = Trained("mlcd", "time", 2)
    assert (timed.name, folder(timed)) == ("mlcd time s2", "mlcd-time-s2")
