"""A random LLaVA-NeXT of width 32, made by transformers alone, saved with its processor; and local tasks to ask it."""

import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image

WORDS = "what is the colour of this square picture count how many letters red green blue one two three yes no a b c ."
IMAGE = "<image>"
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{% for p in m.content %}"
    "{% if p.type == 'image' %}<image>{% else %}{{ p.text }}{% endif %}{% endfor %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def tokenizer() -> Any:
    """A byte-level BPE, trained on a sentence."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    specials = ["<|end|>", "<|pad|>", "<|start|>", IMAGE]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    own.train_from_iterator([WORDS] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<|end|>", pad_token="<|pad|>")


def save_model(folder: Path, *, seed: int = 0, template: str | None = TEMPLATE) -> Path:
    """Random weights of unit scale, so that answers differ by picture and question."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
        Qwen2Config,
    )

    assert CLIPImageProcessor is not None
    words = tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = Qwen2Config(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=False,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    config = LlavaNextConfig(
        vision_config=vision, text_config=text, image_token_index=words.convert_tokens_to_ids(IMAGE),
        image_grid_pinpoints=[[56, 56], [28, 56], [56, 28]], vision_feature_layer=-2,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlavaNextForConditionalGeneration(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    images = LlavaNextImageProcessor(
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        image_grid_pinpoints=config.image_grid_pinpoints,
    )
    processor = LlavaNextProcessor(
        image_processor=images, tokenizer=words, patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, image_token=IMAGE, chat_template=template,
    )  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def installed(folder: Path) -> str:
    """A PYTHONPATH on which this checkout is installed as an editable one is: with pyproject.toml's entry points."""
    import tomllib

    repository = Path(__file__).resolve().parents[2]
    groups = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["entry-points"]
    points = "".join(f"{name} = {value}\n" for name, value in groups["lmms_eval.models"].items())
    info = folder / "rice_suite_plugin-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rice-suite-plugin\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[lmms_eval.models]\n{points}")
    return os.pathsep.join([str(folder), str(repository)])


def picture(seed: int, height: int = 40, width: int = 56) -> Image.Image:
    """Noise, other for each seed."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(values.numpy())


def write_task(folder: Path, count: int = 7, name: str = "squares") -> Path:
    """A local task of lmms-eval: `folder`/NAME.yaml and its questions in Parquet."""
    from datasets import Dataset, Features, Value
    from datasets import Image as Picture

    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"image": picture(i), "question": f"count {i % 3}", "answer": "abc"[i % 3]} for i in range(count)]
    features = Features({"image": Picture(), "question": Value("string"), "answer": Value("string")})
    Dataset.from_list(rows, features=features).to_parquet(folder / f"{name}.parquet")
    (folder / f"{name}.yaml").write_text(
        f"task: {name}\n"
        "dataset_path: parquet\n"
        f"dataset_kwargs: {{data_files: {{test: {name}.parquet}}}}\n"
        "test_split: test\noutput_type: generate_until\n"
        f"doc_to_visual: !function {name}_parts.visual\n"
        "doc_to_text: question\ndoc_to_target: answer\n"
        "generation_kwargs: {max_new_tokens: 4, temperature: 0}\n"
        f"process_results: !function {name}_parts.score\n"
        "metric_list: [{metric: length, aggregation: mean, higher_is_better: true}]\n"
        "metadata: {version: 1.5}\n"
    )
    (folder / f"{name}_parts.py").write_text(
        "def visual(doc):\n    return [doc['image']]\n\n\n"
        "def score(doc, results):\n    return {'length': min(len(results[0]), 9) / 9}\n"
    )
    return folder
