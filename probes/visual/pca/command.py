"""PCA of patch tokens over a video (section 4.4, Fig. 5): one fit per video, three components as red, green and blue.

Frame -> resize -> frozen encoder -> patch tokens (the class token is not used) -> streaming covariance; then the
leading components in a fixed sign, scaled from the 1st to the 99th percentile of the whole video, so that a colour
means the same in every frame. Memory is flat in the number of frames. `components.StreamingPca` is the fit itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from probes.visual.pca.palette import Palette, load_palette
from probes.visual.pca.source import DEFAULT_SIZE, SCRATCH_GIB, PcaConfig, Source, look
from probes.visual.pca.workplace import STRIP, VIDEO
from rice.device import AUTO
from rice.encoders.spec import EncoderReference
from rice.errors import RiceError
from rice.progress import BarProgress


def pca(
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    *,
    encoder: str,
    out: Path,
    size: int | None = None,
    weights: str = "default",
    components: Path | None = None,
    foreground: bool = False,
    square: bool = False,
    stride: int = 1,
    frames: int | None = None,
    batch: int | None = None,
    scratch_gib: float = SCRATCH_GIB,
    device: str = AUTO,
) -> None:
    """Show an encoder's patch tokens as colours: their three principal components, over a whole video.

    Writes pca.mp4 (original left, components right), strip.png (six of its frames, as in Fig. 5 of the paper),
    components.safetensors (see --components) and pca.json (what made them). A killed run goes on with the same
    command. Example: rice pca dog.mp4 --encoder rice-l14-560 --size 1120 --stride 2 --out out/dog

    Args:
        inputs: Videos, folders of frames (natural order) or pictures. Several: a folder each under --out.
        encoder: NAME, NAME@SIZE or NAME@SIZE,layer=-2; `rice encoders` lists them.
        out: Folder to write to: new, empty, or of an earlier run of the same command.
        size: Shorter edge of the encoder's input in pixels; the longer edge keeps the frame's shape; both are rounded
            to multiples that the encoder takes. Default: the SIZE of NAME@SIZE, else 512.
        weights: "default" (published), "none" (random, offline) or a local path.
        components: A components.safetensors of the same encoder: use its components and scale, fit nothing.
        foreground: Split off the background by the first component (Otsu's threshold; the side that is rarer along
            the border stays), fit the colours to the rest, show the background dark.
        square: Squash frames to --size x --size, for encoders that take nothing else.
        stride: Take every STRIDE-th frame; the video keeps its speed.
        frames: Stop after this many frames.
        batch: Frames at once. Default: as many as make 4,096 tokens.
        scratch_gib: Disk under --out that tokens may take while it works. Where they need more, they are computed
            once per pass instead of once.
        device: auto (the GPU where there is one), cpu, cuda or cuda:1.
    """
    reference = EncoderReference.parse(encoder)
    config = PcaConfig(
        size=size if size is not None else reference.size or DEFAULT_SIZE,
        square=square,
        stride=stride,
        frames=frames,
        foreground=foreground,
        batch=batch,
        scratch_gib=scratch_gib,
    )
    if not inputs:
        raise RiceError("expected a video, a folder of frames or a picture; see: rice pca --help")
    given = None if components is None else load_palette(components)
    sources = [look(path, config) for path in inputs]
    for place in _run(sources, folders(out, sources), (encoder, weights, device), config, given):
        print(f"{place / VIDEO}\n{place / STRIP}")  # noqa: T201


def folders(out: Path, sources: Sequence[Source]) -> list[Path]:
    """Where each source's files go: `out` for one; for several, a folder each, named after them, numbered where they
    share a name. Errors: RiceError when `out` holds anything besides.
    """
    if len(sources) == 1:
        return [out]
    names: list[str] = []
    for source in sources:
        stem = source.footage.path.resolve().stem
        same = sum(name == stem or name.startswith(f"{stem}-") for name in names)
        names.append(f"{stem}-{same + 1}" if stem in names else stem)
    foreign = sorted({path.name for path in out.iterdir()} - set(names)) if out.is_dir() else []
    if foreign:
        raise RiceError(f"--out {out} already holds {foreign[0]!r}, not written by this; choose another --out")
    return [out / name for name in names]


def _run(
    sources: Sequence[Source],
    places: Sequence[Path],
    tower_as_asked: tuple[str, str, str],
    config: PcaConfig,
    given: tuple[Palette, dict[str, str]] | None,
) -> Iterator[Path]:
    from probes.visual.pca.run import NamedEncoder, VideoPca
    from rice.encoders.identity import fingerprint
    from rice.encoders.load import load_encoder

    name, weights, device = tower_as_asked
    encoder = load_encoder(name, weights=weights, device=device)
    weights_only = EncoderReference(EncoderReference.parse(name).name)  # the size is no part of a palette's identity
    tower = NamedEncoder(encoder, fingerprint(weights_only, weights), name)
    palette = None
    if given is not None:
        palette, facts = given
        refuse_other_encoder(facts, tower.fingerprint, encoder.spec.layer)
    jobs = [VideoPca(source, tower, config, out, palette) for source, out in zip(sources, places, strict=True)]
    for job, place in zip(jobs, places, strict=True):
        job.run(BarProgress())
        yield place


def refuse_other_encoder(facts: Mapping[str, str], fingerprint: str, layer: int) -> None:
    """Errors: RiceError when a palette's facts name other weights or another layer than these."""
    if (facts.get("fingerprint"), facts.get("layer")) != (fingerprint, str(layer)):
        fitted_to = f"{facts.get('encoder', 'another encoder')}, layer {facts.get('layer')}"
        raise RiceError(f"--components were fitted to {fitted_to} with its weights then; fit them anew for this one")
