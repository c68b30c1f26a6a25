"""The whole PCA with a tiny encoder: outputs, resuming, refusals, and memory that does not grow with the frames."""

import json
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import Tensor, nn

from probes.visual.pca.command import folders, refuse_other_encoder
from probes.visual.pca.layout import VideoLayout
from probes.visual.pca.palette import load_palette
from probes.visual.pca.run import NamedEncoder, VideoPca
from probes.visual.pca.source import PcaConfig, Source, input_size, look
from probes.visual.pca.workplace import OUTPUTS
from rice.cli import EXIT_BAD_INPUT, main
from rice.data.video import Footage, open_footage, write_video
from rice.encoders.base import Encoder, Features
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError
from rice.progress import SilentProgress

PATCH, WIDTH = 8, 12
SPEC = EncoderSpec(name="tiny", source="test", patch=PATCH, size_multiple=PATCH, width=WIDTH, native_size=32)


class Tiny(nn.Module):
    """Patches through one convolution; counts frames, and dies or gives NaN when asked to."""

    def __init__(self, dies_after: int | None = None, gives_nan: bool = False) -> None:
        super().__init__()
        self.frames, self.dies_after, self.gives_nan = 0, dies_after, gives_nan
        weight = torch.randn(WIDTH, 3, PATCH, PATCH, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        if self.dies_after is not None and self.frames + len(images_B3HW) > self.dies_after:
            raise KeyboardInterrupt
        self.frames += len(images_B3HW)
        return torch.conv2d(images_B3HW, self.weight, stride=PATCH) * (torch.nan if self.gives_nan else 1)


def tower(module: nn.Module | None = None) -> NamedEncoder:
    encoder = Encoder(module or Tiny(), SPEC, lambda m, x, _: Features(m(x), None), weights="random")
    return NamedEncoder(encoder, "f" * 64, "tiny")


def scene(number: int, height: int = 48, width: int = 80) -> np.ndarray:
    """A bright square that moves over a gradient."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([40 + x, 60 + y, 120 + 0 * x], axis=-1).astype(np.uint8)
    image[12:28, 8 + number : 26 + number] = (230, 210, 60)
    return image


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_video(path, (scene(number) for number in range(12)), Fraction(12))
    return path


def job(clip: Path, out: Path, module: nn.Module | None = None, **config: object) -> VideoPca:
    settings = PcaConfig(**{"size": 32, "batch": 1, **config})  # type: ignore[arg-type]
    return VideoPca(look(clip, settings), tower(module), settings, out)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("foreground", [False, True])
def test_a_run_leaves_the_video_the_strip_the_components_and_the_report(
    clip: Path, tmp_path: Path, foreground: bool
) -> None:
    out = tmp_path / "out"
    job(clip, out, stride=2, foreground=foreground).run(SilentProgress())
    assert sorted(path.name for path in out.iterdir()) == sorted(OUTPUTS)
    with av.open(str(out / "pca.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (sum(1 for _ in container.decode(stream)), stream.average_rate) == (6, 6)
    with Image.open(out / "strip.png") as strip:
        assert strip.format == "PNG"
    report = json.loads((out / "pca.json").read_text())
    assert (report["grid"], report["key"]["frames"], report["key"]["input"]) == ([4, 7], 6, [32, 56])
    assert (report["foreground"] is None) != foreground
    if not foreground:
        assert report["tokens_fitted"] == 6 * 28


def test_components_are_those_of_all_tokens_in_float64(clip: Path, tmp_path: Path) -> None:
    job(clip, tmp_path / "out").run(SilentProgress())
    encoder, rows = tower().encoder, []
    for frame in open_footage(clip).frames():
        picture = Image.fromarray(frame.image).resize((56, 32), Image.Resampling.BICUBIC)
        image_3HW = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
        rows.append(encoder(image_3HW[None]).patches[0].flatten(1).T.double().numpy())
    tokens_ND = np.concatenate(rows)
    values, vectors = np.linalg.eigh(np.cov(tokens_ND.T))
    palette, facts = load_palette(tmp_path / "out" / "components.safetensors")
    cosines = np.abs((palette.components.axes * vectors.T[::-1][:3]).sum(axis=1))
    assert cosines.min() >= 0.9999
    np.testing.assert_allclose(palette.components.variance, values[::-1][:3], rtol=1e-3)
    projected = (tokens_ND - tokens_ND.mean(axis=0)) @ palette.components.axes.T
    low, high = np.percentile(projected, [1, 99], axis=0, method="lower")
    np.testing.assert_allclose([palette.components.low, palette.components.high], [low, high], atol=0.02)
    assert (facts["encoder"], facts["layer"]) == ("tiny", "-1")


@pytest.mark.parametrize(("foreground", "scratch_gib"), [(False, 16.0), (True, 16.0), (False, 0.0), (True, 0.0)])
def test_a_killed_run_goes_on_and_ends_like_an_uninterrupted_one(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreground: bool, scratch_gib: float
) -> None:
    monkeypatch.setattr("probes.visual.pca.passes._SAVE_EVERY_S", 0.0)
    config = {"foreground": foreground, "scratch_gib": scratch_gib}
    job(clip, tmp_path / "whole", **config).run(SilentProgress())
    encoded, module = 0, Tiny(dies_after=5)
    for _ in range(20):
        module = Tiny(dies_after=5)
        try:
            job(clip, tmp_path / "killed", module, **config).run(SilentProgress())
        except KeyboardInterrupt:
            encoded += module.frames
            continue
        encoded += module.frames
        break
    passes = 1 if scratch_gib else 4 if foreground else 2
    assert encoded == 12 * passes  # nothing twice
    whole, killed = (load_file(tmp_path / name / "components.safetensors") for name in ("whole", "killed"))
    for name, tensor in whole.items():
        np.testing.assert_allclose(killed[name], tensor, atol=1e-5, err_msg=name)
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == sorted(OUTPUTS)


def test_a_finished_run_is_left_as_it_is(clip: Path, tmp_path: Path) -> None:
    out, module = tmp_path / "out", Tiny()
    job(clip, out).run(SilentProgress())
    before = tree(out)
    job(clip, out, module, batch=4).run(SilentProgress())  # how it is computed is no part of what it is
    assert tree(out) == before
    assert module.frames == 0


def test_given_components_are_used_and_kept(clip: Path, tmp_path: Path) -> None:
    job(clip, tmp_path / "first", foreground=True).run(SilentProgress())
    palette, _ = load_palette(tmp_path / "first" / "components.safetensors")
    other = tmp_path / "other.mp4"
    write_video(other, (scene(30 - number, 64, 64) for number in range(5)), Fraction(12))
    module, config = Tiny(), PcaConfig(size=32)
    VideoPca(look(other, config), tower(module), config, tmp_path / "second", palette).run(SilentProgress())
    kept, _ = load_palette(tmp_path / "second" / "components.safetensors")
    assert kept.digest() == palette.digest()
    assert module.frames == 5


def test_components_of_another_encoder_are_refused(clip: Path, tmp_path: Path) -> None:
    job(clip, tmp_path / "out").run(SilentProgress())
    palette, facts = load_palette(tmp_path / "out" / "components.safetensors")
    refuse_other_encoder(facts, "f" * 64, -1)
    for fingerprint, layer in (("e" * 64, -1), ("f" * 64, -2)):
        with pytest.raises(RiceError, match="fitted to tiny, layer -1"):
            refuse_other_encoder(facts, fingerprint, layer)
    config = PcaConfig(size=32, foreground=True)
    with pytest.raises(RiceError, match="without --foreground"):
        VideoPca(look(clip, config), tower(), config, tmp_path / "new", palette)


@pytest.mark.parametrize("change", [{"size": 40}, {"stride": 3}, {"frames": 4}, {"foreground": True}, {"square": True}])
def test_an_out_of_another_setting_is_refused_untouched(clip: Path, tmp_path: Path, change: dict[str, object]) -> None:
    out = tmp_path / "out"
    job(clip, out).run(SilentProgress())
    before = tree(out)
    with pytest.raises(RiceError, match="another input, encoder or setting"):
        job(clip, out, **change)
    assert tree(out) == before


def test_an_out_with_something_else_in_it_is_refused_untouched(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(RiceError, match=r"thesis\.txt"):
        job(clip, tmp_path / "out")
    assert tree(tmp_path / "out") == {"thesis.txt": b"years of work"}


def test_an_unfinished_run_of_another_setting_is_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        job(clip, tmp_path / "out", Tiny(dies_after=3)).run(SilentProgress())
    with pytest.raises(RiceError, match="another input, encoder or setting"):
        job(clip, tmp_path / "out", size=64)


def test_tokens_with_nan_are_refused_and_nothing_is_written(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="NaN"):
        job(clip, tmp_path / "out", Tiny(gives_nan=True)).run(SilentProgress())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_a_cut_video_is_one_line_and_nothing_is_written(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float
) -> None:
    data = clip.read_bytes()
    clip.write_bytes(data[: int(share * len(data))])
    assert_refused([str(clip)], tmp_path / "out", capsys)


@pytest.mark.data
def test_a_corrupt_picture_is_one_line_and_nothing_is_written(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused([str(shared_data / "broken" / "broken.jpg")], tmp_path / "out", capsys)


@pytest.mark.parametrize("flags", [[], ["--stride", "0"], ["--frames", "-1"], ["--size", "0"]])
def test_bad_flags_are_one_line_and_nothing_is_written(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    assert_refused([str(clip), *flags] if flags else [], tmp_path / "out", capsys)


def assert_refused(arguments: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as status:
        main(["pca", *arguments, "--encoder", "timm:vit_tiny_patch16_224", "--weights", "none", "--out", str(out)])
    assert status.value.code == EXIT_BAD_INPUT
    assert capsys.readouterr().err.strip().count("\n") == 0
    assert not out.exists()


def footage(height: int, width: int) -> Footage:
    return Footage(path=Path("x"), kind="picture", height=height, width=width)


@pytest.mark.parametrize(
    ("frame", "size", "square", "expected"),
    [
        ((720, 1280), 512, False, (512, 912)),
        ((1280, 720), 512, False, (912, 512)),
        ((720, 720), 512, False, (512, 512)),
        ((720, 1280), 510, False, (512, 912)),
        ((720, 1280), 512, True, (512, 512)),
        ((720, 1280), 3, False, (8, 16)),
    ],
)
def test_the_shorter_edge_is_the_size_and_both_are_multiples(
    frame: tuple[int, int], size: int, square: bool, expected: tuple[int, int]
) -> None:
    assert input_size(footage(*frame), PcaConfig(size=size, square=square), SPEC) == expected


def test_several_sources_get_a_folder_each(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "clip.mp4", tmp_path / "b" / "clip.mp4", tmp_path / "c" / "dog.mp4"]
    sources = [
        Source(footage=Footage(path=path, kind="video", height=2, width=2), stride=1, count=1, sha256="")
        for path in paths
    ]
    out = tmp_path / "out"
    assert folders(out, sources) == [out / "clip", out / "clip-2", out / "dog"]
    assert folders(out, sources[:1]) == [out]
    (out / "else").mkdir(parents=True)
    with pytest.raises(RiceError, match="else"):
        folders(out, sources)


@pytest.mark.parametrize(("height", "width"), [(97, 121), (720, 1280), (2160, 3840), (100, 4000)])
def test_a_page_is_even_playable_and_shows_the_original_left(height: int, width: int) -> None:
    layout = VideoLayout.of(height, width)
    image = np.full((height, width, 3), 90, np.uint8)
    colours = np.full((4, 7, 3), (255, 0, 0), np.uint8)
    page = layout.compose(image, colours, "left", "a caption that is far too long " * 20)
    assert page.shape[0] % 2 == page.shape[1] % 2 == 0
    assert page.shape[0] <= 2160
    assert page.shape[1] <= 3840
    assert (page[: layout.height, : layout.width] == 90).all()
    assert (page[: layout.height, -layout.width :] == (255, 0, 0)).all()
    assert abs(layout.width / layout.height - width / height) < 0.05 * width / height


@pytest.mark.slow
def test_memory_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    peaks = []
    for count in (12, 72):
        clip = tmp_path / f"{count}.mp4"
        write_video(clip, (scene(number % 20) for number in range(count)), Fraction(12))
        for name in ("warm", "weighed"):  # the first run pays for imports
            tracemalloc.start()
            job(clip, tmp_path / f"{name}{count}", size=128).run(SilentProgress())
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        peaks.append(peak)
    tokens_of_frame = 16 * 27 * WIDTH * 4
    assert peaks[1] - peaks[0] < 5 * tokens_of_frame  # sixty more frames


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
