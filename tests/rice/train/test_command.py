"""`rice pack` and `rice train` as a user runs them, on photos."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from rice.cli import main
from rice.data.pack import PackConfig, pack
from rice.data.world import WorldConfig, materialise
from rice.errors import RiceError
from rice.train.build import plan, report
from rice.train.config import TOWERS, MachineConfig, OptimiserConfig
from rice.train.metrics import JsonLines
from rice.train.picture import draw_course
from rice.train.recipe import STAGE_1, STAGE_2, recipes


def rice(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rice.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.data
def test_a_tiny_rice_retrieves_regions_of_unseen_photos_better_than_an_untrained_one(
    shared_data: Path, tmp_path: Path
) -> None:
    for split, name in (("train2017", "train"), ("val2017", "val")):
        packed = rice("pack", shared_data / "coco", "--split", split, "--min-edge", "64", "--out", tmp_path / name)
        assert packed.returncode == 0, packed.stderr
    out = tmp_path / "out"
    flags = ["--data", tmp_path / "train", "--val", tmp_path / "val", "--out", out, "--samples", "9600"]
    trained = rice("train", "tiny", *flags)
    assert trained.returncode == 0, trained.stderr
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    before, after = (line for line in lines if "retrieval_map" in line)
    assert losses[-1] < 0.7 * losses[0]
    assert after["retrieval_map"] > 1.2 * before["retrieval_map"]
    assert after["retrieval_top1"] > before["retrieval_top1"]
    assert before["retrieval_n"] == after["retrieval_n"] > 200
    photo = next((shared_data / "coco" / "val2017").glob("*.jpg"))
    (tmp_path / "boxes.json").write_text("[[0, 0, 100, 100], [50, 50, 200, 150]]")
    shown = rice("regions", photo, "--boxes", tmp_path / "boxes.json", "--encoder", f"rice:{out / 'final'}")
    assert shown.returncode == 0, shown.stderr


def test_recipes_are_the_papers_rows() -> None:
    """Section 4.1 and Table 5."""
    found = {name: config for name, (config, _) in recipes().items()}
    for name, size in (("b16-224", 224), ("b16-512", 512), *((f"l14-{s}", s) for s in (224, 336, 378, 560))):
        config, first = found[name], size == 224
        assert (config.tower, config.size) == (name[:3], size)
        assert config.samples == (STAGE_1 if first else STAGE_2)
        assert config.optimiser.learning_rate == (1e-3 if first else 1e-4)
        assert (config.batch, config.rho, config.stream.regions, config.stream.positives) == (32_768, 0.1, 10, 10)
        assert (config.loss.margin, config.loss.scale, config.optimiser.weight_decay) == (0.3, 64.0, 0.2)
        assert found[f"mlcd-{name}"].target == found[f"unicom-{name}"].target == "image"
        assert found[f"mlcd-{name}"].stream.image_positives == 8
        assert found[f"unicom-{name}"].stream.image_positives == 1
    assert [found[f"table5-n{n}"].stream.regions for n in (1, 5, 10, 20)] == [1, 5, 10, 20]
    assert [found[f"table5-k{k}"].classes for k in ("200k", "500k", "1m", "2m")] == [200_000, 500_000, 10**6, 2 * 10**6]
    assert [found[f"table5-rho{rho}"].rho for rho in (0.05, 0.1, 0.2, 0.5)] == [0.05, 0.1, 0.2, 0.5]
    assert [found[f"table5-m{m}"].stream.positives for m in (3, 5, 10, 20)] == [3, 5, 10, 20]
    assert all(found[name].samples == STAGE_1 // 10 for name in found if name.startswith("table5"))


def test_every_recipes_size_fits_its_towers_patch() -> None:
    for config, _ in recipes().values():
        assert config.size % TOWERS[config.tower].patch == 0


@pytest.mark.data
def test_a_dry_run_writes_nothing_and_says_the_cost(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["pack", str(shared_data / "coco"), "--split", "val2017", "--out", str(tmp_path / "val")])
    main(["train", "b16-224", "--data", str(tmp_path / "val"), "--out", str(tmp_path / "out"), "--dry-run"])
    said = capsys.readouterr().out
    assert "396,729 of 32,768 images" in said
    assert "GFLOPs forward per image" in said
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated scenes."""
    return materialise(WorldConfig(size=64, train=4, test=1), tmp_path_factory.mktemp("world") / "scenes")


def test_a_dry_run_refuses_what_the_run_would_refuse(world: Path, tmp_path: Path) -> None:
    tiny, _ = recipes()["tiny"]
    pack(world, out=tmp_path / "shards")
    assert "4 images" in plan(tiny, tmp_path / "shards", tmp_path / "out", tmp_path / "shards", None)
    with pytest.raises(RiceError, match="nowhere"):
        plan(tiny, tmp_path / "shards", tmp_path / "out", None, tmp_path / "nowhere")
    with pytest.raises(RiceError, match="no shards at .*nowhere.*rice pack writes them"):
        plan(tiny, tmp_path / "shards", tmp_path / "out", tmp_path / "nowhere", None)


def test_shards_without_a_region_teach_nothing(world: Path, tmp_path: Path) -> None:
    pack(world, out=tmp_path / "shards", config=PackConfig(min_edge=1000))
    with pytest.raises(RiceError, match="no region: nothing to learn"):
        plan(recipes()["tiny"][0], tmp_path / "shards", tmp_path / "out", None, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [("learning_rate", -1.0), ("learning_rate", float("nan")), ("betas", (0.9, 1.0)), ("warmup", 1.5), ("clip", 0.0)],
)
def test_an_optimiser_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(RiceError, match=f"{field}=.* is out of range"):
        OptimiserConfig(**{field: value})


@pytest.mark.parametrize("field", ["save_every", "keep", "log_every"])
def test_a_machine_that_divides_by_zero_is_refused(field: str) -> None:
    with pytest.raises(RiceError, match=f"{field}=0 is out of range"):
        MachineConfig(**{field: 0})


def test_a_run_whose_validation_has_no_number_ends_with_its_report_and_picture(tmp_path: Path) -> None:
    """No region of it has another one of its class; the log has NaN by its name."""
    log = JsonLines(tmp_path / "metrics.jsonl", 0)
    for done in (0, 1):
        log.write({"step": done, "loss": 2.0, "learning_rate": 1e-3})
        log.write({"step": done, "steps_done": done, "retrieval_top1": math.nan, "retrieval_map": math.nan})
    log.close()
    draw_course(tmp_path / "metrics.jsonl", tmp_path / "course.png")
    assert "top-1: nan % -> nan %" in report(tmp_path)
    assert (tmp_path / "course.png").is_file()


def test_forward_flops_are_those_that_torch_counts() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from rice.model.region import RiceModel
    from rice.train.cost import forward_gflops

    config = recipes()["tiny"][0]
    with torch.device("meta"):
        model = RiceModel(config.vit, config.region)
        images, boxes = torch.empty(2, 3, config.size, config.size), torch.empty(2, config.stream.regions, 4)
    with FlopCounterMode(display=False) as counter:
        model(images, boxes)
    assert counter.get_total_flops() / 2e9 == pytest.approx(forward_gflops(config), rel=1e-6)
