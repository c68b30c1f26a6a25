"""Both stages around every kind of tower: what is saved is what was trained, and loads by transformers alone."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_encoders import tiny_encoder
from tiny_parts import language_model, llava_around, noise, write_lm, write_root
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    Gemma2Config,
    GPT2Config,
    PhiConfig,
)

from mllm.llava.config import LlavaConfig, StageConfig
from mllm.llava.facts import LlavaFacts
from mllm.llava.material import Material
from mllm.llava.model import LanguageModel, build
from mllm.llava.train import ADAPTER, STAGE1, STAGE2, Training, training_of
from probes.heads import Tower
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.progress import SilentProgress

QUIET = SilentProgress()


def configured(root: Path, **changes: Any) -> LlavaConfig:
    first = StageConfig(batch=6, learning_rate=1e-2, tower_rate=0.0)
    second = StageConfig(batch=6, learning_rate=5e-3, tower_rate=1e-3)
    if not (root / "lm").exists():
        write_lm(root / "lm")
    plain = LlavaConfig(lm=str(root / "lm"), stage1=first, stage2=second, max_length=2000, micro_batches=2)
    return dataclasses.replace(plain, **changes)


def training(tmp_path: Path, encoder: Encoder, **changes: Any) -> Training:
    root = tmp_path / "root"
    if not root.exists():
        write_root(root)
    tower = Tower(encoder=encoder, reference=encoder.spec.name, weights=None, fingerprint="0" * 64)
    config = configured(tmp_path, **changes)
    return training_of(Material.at(root), config, tower, seed=0, folder=tmp_path / "out", progress=QUIET, workers=0)


def asked(folder: Path, pictures: int = 1) -> tuple[Any, dict[str, Any], Any]:
    """A model as transformers loads it, inputs of one question, and its processor."""
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image"}] * pictures + [{"type": "text", "text": "What is it?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    images = [noise(40, 90, n) for n in range(pictures)]
    return model, dict(processor(images=[images] if images else None, text=[text], return_tensors="pt")), processor


def copied(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in encoder.module.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2", "rice", "own"])
def test_both_stages_train_save_and_load_with_equal_logits_and_generate(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny_encoder(kind, tmp_path)
    before = copied(encoder)
    run = training(tmp_path, encoder)
    kept: dict[str, Any] = {}
    save = type(run)._facts

    def watched(self: Training, llava: Any) -> LlavaFacts:
        kept["model"] = llava.model
        return save(self, llava)

    monkeypatch.setattr(Training, "_facts", watched)
    folder = run.finish(QUIET)
    model, inputs, processor = asked(folder)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, kept["model"].eval()(**inputs).logits, rtol=0, atol=0)
        answer = model.generate(**inputs, max_new_tokens=4)
    assert answer.shape[1] > inputs["input_ids"].shape[1]
    for name, value in encoder.module.state_dict().items():
        assert torch.equal(value, before[name]), name  # the encoder that was given is still frozen
    facts = LlavaFacts.read(folder)
    assert (facts.tiling, facts.layer) == ("2x2+1", -1 if kind == "own" else -2)
    assert facts.examples == {STAGE1: 12, STAGE2: 12}
    assert processor.image_processor.image_grid_pinpoints == [[64, 64]]
    losses = list((tmp_path / "out" / STAGE2 / "metrics.jsonl").read_text().splitlines())
    assert len(losses) == 2


@pytest.mark.slow
def test_stage_one_moves_the_projector_alone_and_stage_two_begins_with_it(tmp_path: Path) -> None:
    encoder = tiny_encoder("clip", tmp_path)
    frozen = StageConfig(batch=6, learning_rate=1e-12, tower_rate=0.0, epochs=1)
    run = training(tmp_path, encoder, stage2=frozen)
    folder = run.finish(QUIET)
    projector = load_file(tmp_path / "out" / STAGE1 / "projector.safetensors")
    model, _, _ = asked(folder)
    final = model.state_dict()
    assert {name.split(".")[1] for name in projector} == {"multi_modal_projector"}
    for name, value in projector.items():
        torch.testing.assert_close(final[name], value, rtol=1e-4, atol=1e-6)
    language = LanguageModel.load(str(tmp_path / "lm"), "qwen_1_5").model
    for name, value in language.base_model.state_dict().items():
        torch.testing.assert_close(final[f"model.language_model.{name}"], value, rtol=1e-4, atol=1e-6)
    fresh = encoder.module.state_dict()
    for name, value in fresh.items():
        torch.testing.assert_close(final[f"model.vision_tower.{name}"], value, rtol=0, atol=0)


@pytest.mark.slow
def test_the_tower_learns_through_the_module_at_its_own_rate(tmp_path: Path) -> None:
    encoder = tiny_encoder("clip", tmp_path)
    model, _, _ = asked(training(tmp_path, encoder).finish(QUIET))
    moved = {
        name: (model.state_dict()[f"model.vision_tower.{name}"] - value).abs().max()
        for name, value in encoder.module.state_dict().items()
    }
    assert 0 < max(value for name, value in moved.items() if ".layers.0." in name) <= 2.1e-3  # AdamW: a rate a step
    assert max(value for name, value in moved.items() if ".layers.3." in name) == 0  # behind hidden state -2


@pytest.mark.slow
def test_a_killed_training_goes_on_from_the_stage_that_was_done(tmp_path: Path) -> None:
    encoder = tiny_encoder("clip", tmp_path)
    whole = training(tmp_path, encoder).finish(QUIET)
    kept = (tmp_path / "out" / STAGE1 / "projector.safetensors").read_bytes()
    weights = load_file(whole / "model.safetensors")
    facts = LlavaFacts.read(whole)
    shutil.rmtree(whole)
    shutil.rmtree(tmp_path / "out" / STAGE2)
    for folder in (".model.abcdefgh.tmp", f"{STAGE1}/.projector.safetensors.abcdefgh.tmp", ".lm.abcdefgh.tmp"):
        (tmp_path / "out" / folder).mkdir()
    again = training(tmp_path, encoder).finish(QUIET)
    assert LlavaFacts.read(again) == facts
    assert (tmp_path / "out" / STAGE1 / "projector.safetensors").read_bytes() == kept
    for name, value in load_file(again / "model.safetensors").items():
        assert torch.equal(value, weights[name]), name
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_adapters_begin_alike_whatever_was_drawn_before(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    encoder = tiny_encoder("rice", tmp_path)
    run = training(tmp_path, encoder, lora=4)
    found = []
    for seed in (1, 2):
        model = llava_around(encoder, "2x2+1").model
        torch.manual_seed(seed)
        found.append(dict(run._adapted(model, {"language_model": 1.0}).named_parameters()))
    begun = [name for name in found[0] if "lora_A" in name]
    assert begun
    assert all(torch.equal(found[0][name], found[1][name]) for name in begun)


@pytest.mark.slow
def test_merged_adapters_compute_what_the_adapted_model_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny_encoder("rice", tmp_path)
    run = training(tmp_path, encoder, lora=4, lora_alpha=8)
    kept: dict[str, Any] = {}
    monkeypatch.setattr("mllm.llava.train.save_adapters", _keeping(kept))
    merged = run.finish(QUIET)
    model, inputs, _ = asked(merged)
    with torch.no_grad():
        expected = kept["model"].eval()(**inputs).logits
        torch.testing.assert_close(model(**inputs).logits, expected, rtol=1e-4, atol=1e-5)
    adapter = tmp_path / "out" / ADAPTER
    assert LlavaFacts.read(adapter).lora == 4
    assert LlavaFacts.read(merged).lora == 0
    language = LanguageModel.load(str(tmp_path / "lm"), "qwen_1_5").model.base_model.state_dict()
    after = model.state_dict()
    changed = {n for n, v in language.items() if not torch.allclose(v, after[f"model.language_model.{n}"])}
    assert changed
    assert all(name.endswith("_proj.weight") for name in changed)
    stored = load_file(adapter / "adapter_model.safetensors")
    assert all("lora_" in name for name in stored)


def _keeping(kept: dict[str, Any]) -> Any:
    from mllm.llava.lora import save_adapters

    def save(adapted: Any, folder: Path, state: None) -> None:
        kept["model"] = adapted
        save_adapters(adapted, folder, state)

    return save


@pytest.mark.slow
def test_a_blind_model_trains_without_pictures_and_leaves_tower_and_projector_as_they_are(tmp_path: Path) -> None:
    encoder = tiny_encoder("siglip", tmp_path)
    folder = training(tmp_path, encoder, blind=True).finish(QUIET)
    assert LlavaFacts.read(folder).blind
    assert not (tmp_path / "out" / STAGE1).exists()
    model, _, _ = asked(folder)
    for name, value in encoder.module.state_dict().items():
        assert torch.equal(model.state_dict()[f"model.vision_tower.{name}"], value)


@pytest.mark.slow
@pytest.mark.parametrize("tiling", ["one", "anyres9"])
def test_other_layouts_train_and_load(tiling: str, tmp_path: Path) -> None:
    folder = training(tmp_path, tiny_encoder("siglip", tmp_path), tiling=tiling).finish(QUIET)
    model, inputs, _ = asked(folder, pictures=2)
    assert type(model).__name__ == {"one": "LlavaForConditionalGeneration"}.get(
        tiling, "LlavaOnevisionForConditionalGeneration"
    )
    with torch.no_grad():
        assert model(**inputs).logits.isfinite().all()


def test_a_language_model_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="expected a causal language model of transformers, a folder or repository"):
        LanguageModel.load(str(tmp_path / "nothing"), "qwen_1_5")


def test_facts_of_another_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rice_llava.json").write_text('{"encoder": "x"}')
    with pytest.raises(RiceError, match="another version of rice-suite"):
        LlavaFacts.read(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            Gemma2Config(head_dim=8, query_pre_attn_scalar=8, final_logit_softcapping=0.05),
            "gives other logits than by itself",
        ),
        (PhiConfig(), "another head than Llava models can hold"),
        (GPT2Config(n_embd=32, n_layer=1, n_head=2), "another head than Llava models can hold"),
    ],
)
def test_a_language_model_that_a_llava_cannot_hold_is_refused(config: Any, message: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    for name, value in ({} if isinstance(config, GPT2Config) else sizes | {"num_key_value_heads": 4}).items():
        setattr(config, name, value)
    config.vocab_size, config.pad_token_id = 270, 0
    plain = language_model()
    language = dataclasses.replace(plain, model=AutoModelForCausalLM.from_config(config).eval(), name="theirs")
    with pytest.raises(RiceError, match=message):
        build(tiny_encoder("clip", tmp_path), language, LlavaConfig(), tiling="2x2+1", arch="llava_next", seed=0)


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2", "rice", "own"])
def test_fsdp_finds_every_block_that_the_model_names(kind: str, tmp_path: Path) -> None:
    model = llava_around(tiny_encoder(kind, tmp_path), "2x2+1").model
    assert "Qwen2DecoderLayer" in model._no_split_modules
    assert set(model._no_split_modules) <= {type(module).__name__ for module in model.modules()}


def test_stage_one_without_captions_is_told_and_may_be_left_out(tmp_path: Path) -> None:
    encoder = tiny_encoder("rice", tmp_path)
    (write_root(tmp_path / "root") / "pretrain.json").rename(tmp_path / "root" / "pretrains.json")
    with pytest.raises(RiceError, match="expected pretrain or pretrain.json .* --stage1.epochs 0"):
        training(tmp_path, encoder)
    assert training(tmp_path, encoder, stage1=StageConfig(epochs=0)).pretrain is None


def test_pictures_are_part_of_what_data_is_and_rows_are_prepared_once(tmp_path: Path) -> None:
    material = Material.at(write_root(tmp_path / "root"))
    before = material.fingerprint()
    rows = material.rows(material.instruct, tmp_path / "prepared", QUIET)
    stamp = (rows.folder / "rows.parquet").stat().st_mtime_ns
    again = material.rows(material.instruct, tmp_path / "prepared", QUIET)
    assert (again.folder / "rows.parquet").stat().st_mtime_ns == stamp
    (tmp_path / "root" / "images" / "0.png").unlink()
    assert Material.at(tmp_path / "root").fingerprint() != before


def test_a_folder_that_was_not_prepared_to_its_end_is_told(tmp_path: Path) -> None:
    root = write_root(tmp_path / "root")
    (root / "instruct.json").unlink()
    (root / "instruct").mkdir()
    with pytest.raises(RiceError, match="it has no prepared.json"):
        Material.at(root)
