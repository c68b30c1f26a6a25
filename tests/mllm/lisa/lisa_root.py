"""A generated data root and a random Llava to begin with, both tiny and alike every time."""

from pathlib import Path

from tiny_encoders import tiny_encoder
from tiny_parts import llava_around
from tiny_sam import tiny_processor, tiny_sam

from mllm.lisa.segmenter import Segmenter
from mllm.llava.config import LlavaConfig
from mllm.llava.facts import LlavaFacts
from mllm.llava.tiling import Tiling
from probes.protocol import identity
from rice.data.world.config import WorldConfig, materialise


def write_root(folder: Path, train: int = 12, test: int = 4) -> Path:
    """Scenes of 64 pixels as REFER's files, with captions and questions."""
    config = WorldConfig(layout="refer", size=64, train=train, test=test, objects=(3, 6), words=(0, 0))
    return materialise(config, folder)


def write_llava(folder: Path, tiling: Tiling = "2x2+1") -> Path:
    """As rice llava train leaves it in OUT/model."""
    encoder = tiny_encoder("clip", folder.parent)
    llava = llava_around(encoder, tiling)
    llava.save(folder)
    LlavaFacts(
        encoder="tiny",
        weights=None,
        fingerprint="f" * 64,
        trained=False,
        spec={"norm": "none"},
        layer=-2,
        patch=encoder.spec.patch,
        size=encoder.spec.native_size,
        tiling=tiling,
        arch=llava.arch,
        lm="tiny",
        lm_digest=None,
        recipe="own",
        blind=False,
        lora=0,
        seed=0,
        examples={},
        left_out={},
        refused={},
        config=identity(LlavaConfig(tiling=tiling)),
        data="",
        versions={},
    ).write(folder)
    return folder


def write_segmenter(folder: Path, kind: str = "sam") -> Path:
    """A random SAM."""
    Segmenter(tiny_sam(kind), tiny_processor(kind)).save(folder)
    return folder
