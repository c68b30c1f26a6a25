"""Names lead where they say, and a wrong one says what would be right."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rice
from rice.encoders.load import describe
from rice.encoders.spec import EncoderReference
from rice.errors import RiceError

PLANNING = """
import sys
import rice.encoders.zoo, rice.encoders.load, rice.encoders.identity, rice.encoders.cost
from rice.encoders.spec import EncoderReference
for name in rice.encoders.zoo.ZOO:
    reference = EncoderReference.parse(name)
    spec = rice.encoders.load.describe(reference, None)
    rice.encoders.cost.cost(spec, spec.native_size)
    rice.encoders.identity.fingerprint(reference, None)
{more}
heavy = [name for name in ("torch", "transformers", "timm", "open_clip", "pandas", "numpy") if name in sys.modules]
assert not heavy, heavy
"""


def run(code: str) -> None:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_planning_the_zoo_imports_nothing_heavy() -> None:
    run(PLANNING.format(more=""))


def test_planning_a_local_folder_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip_vision_model"}')
    (tmp_path / "model.safetensors").write_bytes(b"not even read, only hashed")
    more = f"reference = EncoderReference.parse('hf:{tmp_path}')\n"
    more += "assert rice.encoders.load.describe(reference).width == 768\nrice.encoders.identity.fingerprint(reference)"
    run(PLANNING.format(more=more))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip-l14-366", "unknown encoder 'clip-l14-366'. Did you mean clip-l14-336.*See: rice encoders"),
        ("clip-l14-336@300", "multiples of 14, got 300 x 300; nearest: 294 and 308"),
        ("qwen2.5-vit-560@574", "multiples of 28, got 574 x 574; nearest: 560 and 588"),
        ("siglip-so400m-14-384@384,layer=30", "hidden states -28 to 27, got layer=30"),
        ("hf:", "expected hf:NAME"),
        ("hf:/no/such/folder", "existing path or a hub repository"),
        ("rice:/no/such/folder", "/no/such/folder"),
        ("nowhere:attr", "no module 'nowhere'"),
    ],
)
def test_wrong_names_say_what_would_be_right(text: str, message: str) -> None:
    for ask in (lambda: describe(EncoderReference.parse(text), None), lambda: rice.load_encoder(text, weights=None)):
        with pytest.raises(RiceError, match=message) as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_native_size_is_accepted_though_it_is_no_multiple() -> None:
    spec = describe(EncoderReference.parse("siglip-so400m-14-384@384"), None)
    assert spec.check_size(384, 384) == (27, 27)


@pytest.mark.parametrize(("layer", "norm"), [("", "post"), (",layer=-1", "post"), (",layer=-2", "none")])
def test_norm_is_said_of_the_layer_that_is_taken(layer: str, norm: str) -> None:
    assert describe(EncoderReference.parse(f"dinov2-b14-518{layer}"), None).norm == norm


def test_dtype_and_device_are_those_asked_for() -> None:
    encoder = rice.load_encoder("rice-b16-224@32", weights=None, dtype=torch.bfloat16)
    features = encoder(torch.rand(1, 3, 32, 32))
    assert features.patches.dtype == encoder.dtype == torch.bfloat16
    assert encoder.mean.shape == (1, 3, 1, 1)


def test_listing_the_zoo_imports_nothing_heavy() -> None:
    run(
        "import sys\nfrom rice.cli import main\nmain(['encoders'])\n"
        "heavy = [name for name in ('torch', 'transformers', 'timm', 'open_clip', 'pandas') if name in sys.modules]\n"
        "assert not heavy, heavy"
    )
