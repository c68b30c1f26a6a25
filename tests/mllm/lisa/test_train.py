"""LISA's training: masks' losses as LISA's own conversations give them, what learns learns, what is frozen stays."""

import contextlib
import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_encoders import tiny_encoder
from tiny_training import QUIET, built, losses, training
from torch import Tensor
from torch.distributed.fsdp import StateDictType
from transformers import AutoModelForImageTextToText

from mllm.lisa.config import LisaProbeConfig
from mllm.lisa.data import SegmentExamples
from mllm.lisa.facts import LisaFacts
from mllm.lisa.material import LisaMaterial
from mllm.lisa.model import PROJECTION, SEGMENTER, Trained
from mllm.lisa.phrases import SEG
from mllm.lisa.probe import LisaProbe
from mllm.lisa.train import LisaTraining
from mllm.lisa.trainer import refuse_parts
from mllm.llava import trainer as packed
from mllm.llava.conversation import IGNORED
from mllm.llava.facts import lm_digest
from mllm.llava.material import Material
from mllm.llava.rows import Rows
from mllm.llava.trainer import TrainOutcome
from probes.heads import Tower
from rice.errors import RiceError
from rice.train.world import World


def counted(example: Any) -> int:
    return int((example["labels"] != IGNORED).sum())


def segmenting(examples: SegmentExamples, least: int = 3) -> Iterator[Any]:
    """Those with several masks."""
    return (one for one in (examples[i] for i in range(len(examples))) if len(one.get("masks", ())) >= least)


def apart(example: Any) -> list[Any]:
    """Each question of an example as a sample of its own, as LISA has them."""
    branches = example["branches"].tolist()
    beginning = len(example["input_ids"]) - sum(branches)
    seg = iter(example["masks"])
    found = []
    place = beginning
    for branch in branches:
        where = torch.cat([torch.arange(beginning), torch.arange(place, place + branch)])
        one = {name: example[name][where] for name in ("input_ids", "labels")}
        count = int((one["labels"] == example["seg_id"]).sum())
        masks = [next(seg) for _ in range(count)]
        one |= {name: example[name] for name in ("pixel_values", "image_sizes", "frame", "seen")}
        found.append(one | {"masks": torch.stack(masks) if masks else example["masks"][:0]})
        place += branch
    return found


def test_a_picture_with_three_questions_has_the_loss_and_gradients_of_three_samples(root: Path, tmp_path: Path) -> None:
    lisa, examples = built(root, tmp_path)
    one = next(segmenting(examples)) | {"seg_id": lisa.seg_id}
    tokens, masks = counted(one), len(one["masks"])
    together = losses(lisa, [one], tokens=tokens, masks=masks)
    together["loss"].backward()
    gradients = {name: value.grad.clone() for name, value in lisa.named_parameters() if value.grad is not None}
    lisa.zero_grad()
    each = [losses(lisa, [part], tokens=tokens, masks=masks) for part in apart(one)]
    sum(part["loss"] for part in each).backward()  # type: ignore[union-attr]
    for name in ("ce", "bce", "dice"):
        torch.testing.assert_close(together[name], sum(part[name] for part in each), rtol=1e-5, atol=1e-6)
    for name, value in gradients.items():
        other = dict(lisa.named_parameters())[name].grad
        assert other is not None
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-5)


def test_the_segmenter_sees_each_picture_once(root: Path, tmp_path: Path) -> None:
    lisa, examples = built(root, tmp_path)
    row = [one for one, _ in zip(segmenting(examples), range(2), strict=False)]
    losses(lisa, row, tokens=10, masks=6)
    assert lisa.segmenter.encoded == 2


@pytest.mark.parametrize("lora", [0, 2])
def test_gradients_reach_projection_and_mask_decoder_and_what_is_frozen_gets_none(
    root: Path, tmp_path: Path, lora: int
) -> None:
    lisa, examples = built(root, tmp_path, lora=lora, ce=0.0)
    lisa.llava.requires_grad_(False)
    losses(lisa, [next(segmenting(examples))], tokens=1, masks=3)["loss"].backward()
    touched = {name for name, value in lisa.named_parameters() if value.grad is not None and value.grad.any()}
    assert touched == {
        name
        for name, value in lisa.named_parameters()
        if name.startswith(("projection.", "segmenter.model.mask_decoder.")) and value.requires_grad
    }
    assert {name.partition(".")[0] for name in touched} == {"projection", "segmenter"}


def test_a_mask_teaches_the_language_model_and_the_tower(root: Path, tmp_path: Path) -> None:
    lisa, examples = built(root, tmp_path, ce=0.0)
    losses(lisa, [next(segmenting(examples))], tokens=1, masks=3)["loss"].backward()
    bare = lisa.get_base_model()
    for part in (bare.model.language_model.layers[0], bare.model.multi_modal_projector, bare.model.vision_tower):
        assert any(value.grad is not None and value.grad.any() for value in part.parameters())
    assert all(value.grad is None for value in lisa.segmenter.model.vision_encoder.parameters())


def test_a_row_without_masks_has_a_loss_of_text_alone(root: Path, tmp_path: Path) -> None:
    lisa, examples = built(root, tmp_path)
    row = [one for one in (examples[i] for i in range(len(examples))) if "masks" not in one][:2]
    found = losses(lisa, row, tokens=7, masks=1)
    assert (float(found["bce"]), float(found["dice"])) == (0.0, 0.0)
    torch.testing.assert_close(found["loss"], found["ce"])
    found["loss"].backward()


def test_on_several_ranks_a_row_without_masks_runs_the_segmenter_for_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lisa, examples = built(root, tmp_path)
    rows = [one for one in (examples[i] for i in range(len(examples))) if "masks" not in one][:2]
    with monkeypatch.context() as patched:
        patched.setattr(torch.distributed, "is_initialized", lambda: True)
        patched.setattr(torch.distributed, "get_world_size", lambda: 2)
        found = losses(lisa, rows, tokens=7, masks=1)
    torch.testing.assert_close(found["loss"], found["ce"])
    assert lisa.segmenter.encoded == 1
    found["loss"].backward()
    for name, value in lisa.named_parameters():
        if name.startswith(("projection.", "segmenter.")) and value.requires_grad:
            assert value.grad is not None, name
            assert not value.grad.any(), name


@pytest.mark.slow
def test_sharded_ranks_of_which_one_has_no_mask_do_not_wait_for_ever(root: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_ranks_sharded.py")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    ran = subprocess.run([*words, str(root), str(tmp_path)], capture_output=True, text=True, check=False, timeout=240)
    assert ran.returncode == 0, ran.stderr


def test_as_many_masks_as_segs_are_asked_for(root: Path, tmp_path: Path) -> None:
    lisa, examples = built(root, tmp_path)
    one = next(segmenting(examples))
    with pytest.raises(ValueError, match="a mask for each"):
        losses(lisa, [one | {"masks": one["masks"][:1]}], tokens=1, masks=1)


def weights(folder: Path) -> dict[str, Tensor]:
    """Of all three parts."""
    parts = {"llava": folder, "segmenter": folder / SEGMENTER}
    found = {f"{k}.{n}": v for k, place in parts.items() for n, v in load_file(place / "model.safetensors").items()}
    return found | load_file(folder / PROJECTION)


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def test_how_a_step_is_cut_into_micro_batches_changes_nothing(root: Path, tmp_path: Path) -> None:
    whole = training(root, tmp_path / "whole").run(QUIET)
    cut = training(root, tmp_path / "cut", micro_batches=3).run(QUIET)
    assert furthest(weights(whole), weights(cut)) < 2e-4  # AdamW magnifies rounding where gradients are near zero


def test_what_was_trained_loads_and_the_rest_is_as_it_was(root: Path, tmp_path: Path) -> None:
    folder = training(root, tmp_path).run(QUIET)
    trained = Trained.load(folder, device="cpu")
    assert trained.tokenizer.convert_ids_to_tokens(trained.lisa.seg_id) == SEG
    assert len(trained.tokenizer.encode(f"it is {SEG}.", add_special_tokens=False)) == len("it is .") + 1
    before, after = (load_file(place / "model.safetensors") for place in (root / "sam", folder / SEGMENTER))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("mask_decoder.") for name in moved)
    AutoModelForImageTextToText.from_pretrained(folder)
    facts = LisaFacts.read(folder)
    assert facts.drawn.keys() == {"refer", "vqa"}
    assert sum(facts.drawn.values()) == 12
    assert facts.sets.keys() == {"refcoco_train", "grefcoco_train", "vqa"}
    assert facts.start == lm_digest(str(root / "llava"))


def test_a_frozen_mask_decoder_stays_bit_by_bit(root: Path, tmp_path: Path) -> None:
    folder = training(root, tmp_path, decoder_rate=0.0).run(QUIET)
    before, after = (load_file(place / "model.safetensors") for place in (root / "sam", folder / SEGMENTER))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_adapters_are_merged_and_learn_beside_the_token_tables_alone(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = training(root, tmp_path, lora=2, lora_layers="qv", tower_rate=0.0, projector_rate=0.0).run(QUIET)
    before = AutoModelForImageTextToText.from_pretrained(root / "llava").state_dict()
    after = AutoModelForImageTextToText.from_pretrained(folder).state_dict()
    assert before.keys() == after.keys()
    moved = {name.rpartition(".")[0].rpartition(".")[2] for name in before if not _same(before[name], after[name])}
    assert moved == {"q_proj", "v_proj", "embed_tokens", "lm_head"}


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


@pytest.mark.parametrize("lora", [0, 2])
def test_a_training_that_was_killed_ends_with_the_same_weights_bit_by_bit(
    root: Path, tmp_path: Path, lora: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"steps": 3, "lora": lora, "save_every": 1}
    torch.manual_seed(1)
    unbroken = training(root, tmp_path / "unbroken", **changes).run(QUIET)

    def killed(folder: Path, step: int, record: Any) -> None:
        if step == 2:
            raise KeyboardInterrupt
        mark_whole(folder, step, record)

    mark_whole = packed.mark_whole
    monkeypatch.setattr(packed, "mark_whole", killed)
    torch.manual_seed(2)  # which nothing may depend on
    with pytest.raises(KeyboardInterrupt):
        training(root, tmp_path / "broken", **changes).run(QUIET)
    monkeypatch.undo()
    torch.manual_seed(3)
    broken = training(root, tmp_path / "broken", **changes).run(QUIET)
    assert furthest(weights(unbroken), weights(broken)) == 0.0
    assert not (tmp_path / "broken" / "segment" / "checkpoints").exists()


@pytest.mark.slow
def test_two_ranks_write_the_model_that_one_writes(root: Path, tmp_path: Path) -> None:
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = "--segment.steps 2 --segment.batch 6 --micro-batches 1 --max-length 2000 --device cpu --workers 0"
    for before, out in (([], "one"), (ranks, "two")):
        words = ["lisa", "train", "next", "--llava", str(root / "llava"), "--data", str(root / "data")]
        words += ["--segmenter", str(root / "sam"), "--out", str(tmp_path / out), *options.split()]
        ran = subprocess.run([sys.executable, *before, "-m", "rice.cli", *words], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    assert furthest(*(weights(tmp_path / out / "model") for out in ("one", "two"))) < 1e-5
    shutil.rmtree(tmp_path / "two")


def test_a_rank_that_does_not_lead_saves_and_rebuilds_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(root, tmp_path)
    run.world = Follower(rank=1, size=2, device=torch.device("cpu"))
    run._sets = run._read_sets(QUIET)
    builds: list[Path] = []
    build = LisaTraining._build

    def counted_build(self: LisaTraining, start: Path) -> Any:
        builds.append(start)
        return build(self, start)

    monkeypatch.setattr(LisaTraining, "_build", counted_build)
    monkeypatch.setattr("mllm.lisa.train.train", lambda *_, **__: TrainOutcome(1, 0, 0.0, 1, 1.0, state={}))
    run._segment(root / "llava", tmp_path / "model", QUIET)
    assert len(builds) == 1
    assert not (tmp_path / "model").exists()


class Follower(World):
    """A rank that others do not wait for. `alone`: whether it is where one rank goes first."""

    alone = False

    @contextlib.contextmanager
    def leader_first(self) -> Iterator[None]:
        """At once."""
        Follower.alone = True
        yield
        Follower.alone = False

    def wait(self) -> None:
        """Not at all."""


def test_ranks_prepare_rows_one_after_the_other(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = shutil.copytree(root / "data", tmp_path / "data")
    run = training(root, tmp_path / "out")
    run.material, run.world = LisaMaterial(raw), Follower(rank=0, size=2, device=torch.device("cpu"))
    alone: list[bool] = []

    def rows(self: Material, *arguments: Any) -> Rows:
        alone.append(Follower.alone)
        return read(self, *arguments)

    read = Material.rows
    monkeypatch.setattr(Material, "rows", rows)
    run._sets = run._read_sets(QUIET)
    lisa, llava, _ = run._build(root / "llava")
    run._examples(lisa, llava, QUIET)
    assert alone == [True]
    encoder = tiny_encoder("clip", tmp_path)
    run.start, run.tower = None, Tower(encoder=encoder, reference="tiny", weights=None, fingerprint="0")
    monkeypatch.setattr("mllm.llava.train.Training.finish", lambda *_: alone.append(Follower.alone))
    run._llava(QUIET)
    assert alone == [True, True, True, False]


def test_what_cannot_work_is_told_before_anything_is_trained(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LisaTraining, "_llava", lambda *_: pytest.fail("trained"))
    with pytest.raises(RiceError, match="nosuch"):
        training(root, tmp_path / "one", segmenter=str(root / "nosuch")).run(QUIET)
    with pytest.raises(RiceError, match="64 that fit.*raise --max-length"):
        training(root, tmp_path / "two", max_length=64).run(QUIET)
    bare = shutil.copytree(root / "data", tmp_path / "bare")
    (bare / "instruct.json").unlink()
    run = training(root, tmp_path / "three")
    run.material, run.start = LisaMaterial(bare), None
    with pytest.raises(RiceError, match="found no instruct"):
        run.run(QUIET)
    assert not (tmp_path / "three").exists()
    with pytest.raises(RiceError, match="found no instruct"):
        LisaProbe(LisaProbeConfig(), bare).inspect()
    assert "refcoco_train" in LisaProbe(LisaProbeConfig(), root / "data").inspect()


def test_a_mixture_without_anything_to_segment_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match=r"refcoco_train \(refer\)"):
        training(root, tmp_path, mixture=(9, 0, 3, 1)).run(QUIET)


def test_sets_without_a_share_are_not_read(root: Path, tmp_path: Path) -> None:
    run = training(root, tmp_path)
    assert run._read_sets(QUIET).keys() == {"refer"}
    reason = dataclasses.replace(run.material.training()[0], kind="reason", split="train")
    run.material.__dict__["sets"] = [*run.material.sets, reason]
    run.config = dataclasses.replace(run.config, segment=dataclasses.replace(run.config.segment, mixture=(0, 0, 0, 1)))
    assert run._read_sets(QUIET).keys() == {"reason"}


def test_bf16_is_what_the_language_model_learns_in(root: Path, tmp_path: Path) -> None:
    folder = training(root, tmp_path, dtype="bf16", steps=1).run(QUIET)
    llava = load_file(folder / "model.safetensors")
    assert {value.dtype for value in llava.values()} == {torch.bfloat16}
    assert {value.dtype for value in load_file(folder / SEGMENTER / "model.safetensors").values()} == {torch.float32}
    Trained.load(folder, device="cpu")


def test_tables_that_are_one_are_tied_anew_where_their_values_were_put_in_place(root: Path, tmp_path: Path) -> None:
    lisa, _, _ = training(root, tmp_path)._build(root / "llava")
    bare = lisa.get_base_model()
    bare.config.tie_word_embeddings = bare.config.text_config.tie_word_embeddings = True
    table = bare.get_input_embeddings()
    table.weight = torch.nn.Parameter(table.weight.detach().clone())
    lisa.tie_weights()
    assert bare.get_output_embeddings().weight is table.weight


def test_checkpoints_in_parts_are_refused() -> None:
    refuse_parts(StateDictType.FULL_STATE_DICT)
    with pytest.raises(RiceError, match="fsdp_state_dict_type: FULL_STATE_DICT"):
        refuse_parts(StateDictType.SHARDED_STATE_DICT)
