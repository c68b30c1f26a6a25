"""One PCA of one source, resumable: the passes over the tokens, then the pictures.

Shapes: T tokens of a frame, h w patch grid, 3 RGB.
"""

import contextlib
import shutil
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from probes.provenance import commit, device_name, versions
from probes.visual.pca.draw import Captions, Colours, draw
from probes.visual.pca.foreground import Foreground, find_foreground
from probes.visual.pca.frame_tokens import FrameTokens
from probes.visual.pca.palette import Palette, save_palette
from probes.visual.pca.passes import RGB, Masks, fit, project, scale
from probes.visual.pca.records import ArrayRecords, TokenRecords
from probes.visual.pca.source import PcaConfig, Source, input_size
from probes.visual.pca.workplace import COMPONENTS, REPORT, Workplace
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.files import write_json
from rice.progress import Progress

FORMAT = 1
"""Raised when a change of code changes the outcome: what an older version left is then not continued."""
_FREE_DISK_SHARE = 0.9


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder, its fingerprint, and the name that the user gave it."""

    encoder: Encoder
    fingerprint: str
    name: str


class VideoPca:
    """The PCA of one source under one tower, with one config, in one folder."""

    def __init__(
        self, source: Source, tower: NamedEncoder, config: PcaConfig, out: Path, palette: Palette | None = None
    ) -> None:
        """Writes nothing. `palette`: use it instead of fitting one.

        Errors: RiceError for a palette that does not match the tower or the config, or an `out` that holds anything
        else.
        """
        self.source, self.tower, self.config, self.palette = source, tower, config, palette
        width = tower.encoder.spec.width
        if palette is not None and palette.components.mean.size != width:
            raise RiceError(f"{tower.name} is {width} wide, --components are {palette.components.mean.size} wide")
        if palette is not None and config.foreground and palette.foreground is None:
            raise RiceError("--components were fitted without --foreground; fit them anew with it, or leave it out")
        self.input_hw = input_size(source.footage, config, tower.encoder.spec)
        self.grid = tower.encoder.spec.check_size(*self.input_hw)
        self.place = Workplace(out, self._key())

    def run(self, progress: Progress) -> None:
        """Do what earlier runs left to do. Errors: RiceError, e.g. for tokens with NaN."""
        if self.place.done:
            self.place.clean()
            return
        began = time.monotonic()
        with self.place.open(), contextlib.ExitStack() as files:
            palette, colours = self._fitted(files, progress)
            draw(self.source, self.place.out, colours, self._captions(), progress)
            save_palette(self.place.out / COMPONENTS, palette, self._facts())
            write_json(self.place.out / REPORT, self._report(palette, time.monotonic() - began))

    def _fitted(self, files: contextlib.ExitStack, progress: Progress) -> tuple[Palette, Colours]:
        store = self._store(files)
        tokens = FrameTokens(self.tower.encoder, self.source, self.input_hw, batch=self.config.batch, store=store)
        first = foreground = masks = None
        if self._has_foreground:
            first = self._records(files, "first", 1)
            foreground = self._foreground(tokens, first, progress)
            masks = _masks(foreground, first)
        if self.palette is None:
            components = fit(tokens, self.place.scratch / "fit", progress, self._label("fit"), masks=masks)
        else:
            components = self.palette.components
        projected = self._records(files, "projected", RGB)
        project(tokens, components, projected, progress, self._label("project"))
        if self.palette is None:
            components = scale(components, projected, masks)
        palette = Palette(components=components, foreground=foreground)
        return palette, Colours(palette, self.grid, projected, first)

    def _foreground(self, tokens: FrameTokens, first: ArrayRecords, progress: Progress) -> Foreground:
        given = None if self.palette is None else self.palette.foreground
        if given is not None:
            project(tokens, given.first, first, progress, self._label("foreground"))
            return given
        component = fit(tokens, self.place.scratch / "fit-first", progress, self._label("fit foreground"), k=1)
        project(tokens, component, first, progress, self._label("foreground"))
        return find_foreground(component, first, self.grid)

    @property
    def _has_foreground(self) -> bool:
        return self.config.foreground or (self.palette is not None and self.palette.foreground is not None)

    @property
    def _tokens_per_frame(self) -> int:
        return self.grid[0] * self.grid[1]

    def _records(self, files: contextlib.ExitStack, name: str, columns: int) -> ArrayRecords:
        return files.enter_context(ArrayRecords(self.place.scratch / name, (self._tokens_per_frame, columns)))

    def _store(self, files: contextlib.ExitStack) -> TokenRecords | None:
        """Where tokens are kept between passes: nowhere for a single pass, or when the disk would not hold them."""
        if self.palette is not None and not self._has_foreground:
            return None
        path = self.place.scratch / "tokens"
        shape = self._tokens_per_frame, self.tower.encoder.spec.width
        needed = self.source.count * TokenRecords.size(shape)
        held = path.stat().st_size if path.exists() else 0
        free = _FREE_DISK_SHARE * shutil.disk_usage(self.place.scratch).free + held
        if needed > min(self.config.scratch_gib * 2**30, free):
            return None
        return files.enter_context(TokenRecords(path, shape))

    def _label(self, stage: str) -> str:
        return f"{self.source.name}: {stage}"

    def _captions(self) -> Captions:
        height, width = self.input_hw
        random = "" if self.tower.encoder.trained else " (random weights)"
        rows, columns = self.grid
        return Captions(
            source=self.source.name,
            encoder=f"{self.tower.name}{random}",
            pixels=f"{width} × {height} px",  # noqa: RUF001
            tokens=f"{columns} × {rows} tokens",  # noqa: RUF001
        )

    def _key(self) -> dict[str, Any]:
        palette = None if self.palette is None else self.palette.digest()
        return {
            "format": FORMAT,
            "source": self.source.sha256,
            "stride": self.source.stride,
            "frames": self.source.count,
            "encoder": self.tower.fingerprint,
            "layer": self.tower.encoder.spec.layer,
            "input": list(self.input_hw),
            "foreground": self._has_foreground,
            "components": palette,
        }

    def _facts(self) -> dict[str, str]:
        spec = self.tower.encoder.spec
        return {
            "encoder": self.tower.name,
            "fingerprint": self.tower.fingerprint,
            "weights": self.tower.encoder.weights,
            "layer": str(spec.layer),
            "norm": spec.norm,
            "input_height": str(self.input_hw[0]),
            "input_width": str(self.input_hw[1]),
        }

    def _report(self, palette: Palette, seconds: float) -> dict[str, Any]:
        footage, foreground = self.source.footage, palette.foreground
        device = str(self.tower.encoder.device)
        return {
            "digest": self.place.digest,
            "key": self.place.key,
            "source": {
                "name": self.source.name,
                "kind": footage.kind,
                "height": footage.height,
                "width": footage.width,
                "fps": None if footage.fps is None else str(footage.fps),
                "rotation": footage.rotation,
            },
            "encoder": asdict(self.tower.encoder.spec) | self._facts(),
            "grid": list(self.grid),
            "tokens_fitted": palette.components.count,
            "explained_variance_ratio": palette.components.explained.tolist(),
            "scale": {"low": _list(palette.components.low), "high": _list(palette.components.high)},
            "foreground": None
            if foreground is None
            else {"threshold": foreground.threshold, "above": foreground.above, "share": foreground.share},
            "components_given": self.palette is not None,
            "device": device_name(device),
            "seconds_of_last_run": round(seconds, 3),
            "versions": versions() | {"av": version("av")},
            "commit": commit(),
        }


def _masks(foreground: Foreground, first: ArrayRecords) -> Masks:
    return lambda index: foreground.mask(first.read(index))


def _list(values: Any) -> list[float] | None:
    return None if values is None else [float(value) for value in values]
