"""`rice encoders` and `rice export`."""

import dataclasses
import json as json_text
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from rice.encoders import registry
from rice.encoders.cost import cost
from rice.encoders.load import split
from rice.encoders.rice import REGION, beside
from rice.encoders.spec import EncoderReference
from rice.encoders.weights import PUBLISHED, plain
from rice.encoders.zoo import Entry, entries
from rice.errors import RiceError


def encoders(pattern: Positional[str] = "*", *, json: bool = False) -> None:
    """List the zoo: the ten encoders of the paper's tables at each resolution used there.

    Any of these names is taken where an encoder is asked for, and so are rice:PATH, hf:REPO_OR_PATH,
    open_clip:ARCH/TAG, timm:NAME and module:attr; each with @SIZE and ,layer=K behind it.

    Args:
        pattern: Only names that match this shell wildcard, e.g. 'rice-*' or '*-512'.
        json: Print the whole table as JSON instead.
    """
    found = entries(pattern)
    if json:
        print(json_text.dumps([_facts(entry) for entry in found], indent=1))  # noqa: T201
    else:
        _print_table(found)
        if own := registry.names():
            print(f"of installed packages: {', '.join(own)}")  # noqa: T201


def export(
    encoder: Positional[str],
    *,
    out: Path,
    weights: str = "default",
    allow_pickle: bool = False,
    keep_region: bool = False,
) -> None:
    """Write an encoder as a folder that transformers.AutoModel.from_pretrained(DIR) loads, in safetensors.

    Region layers of a RICE that was trained here are dropped, as its published form has none, unless they are kept.

    Args:
        encoder: Zoo name, rice:PATH, hf:REPO_OR_PATH or open_clip:ARCH/TAG; see `rice encoders`.
        out: Folder to write; must not exist.
        weights: "default" (the published ones), "none" (random) or a local path.
        allow_pickle: Read tensors out of pickled checkpoints too; nothing in them is executed.
        keep_region: Keep trained region layers of rice:DIR in region.safetensors, for `rice regions`.
    """
    from rice.encoders.export import export as write
    from rice.encoders.load import load_encoder

    region = region_file(encoder, weights) if keep_region else None
    write(load_encoder(encoder, weights=weights, allow_pickle=allow_pickle), out, region=region)
    print(out)  # noqa: T201


def region_file(encoder: str, weights: str = PUBLISHED) -> Path:
    """The trained region layers that lie beside the weights of `rice:DIR`. Imports no torch.

    Errors: RiceError where there are none, or `weights` are not the folder's own.
    """
    name = EncoderReference.parse(encoder).name
    source, target = split(name)
    if plain(weights) != PUBLISHED:
        raise RiceError(f"region layers belong to the weights they were trained with: leave out weights={weights}")
    file = beside(target, REGION) if source == "rice" else None
    if file is None:
        raise RiceError(
            f"{encoder} has no trained region layers: expected rice:DIR with {REGION} in it, as `rice train` writes it "
            "and `rice export --keep-region` keeps it"
        )
    return file


def _facts(entry: Entry) -> dict[str, Any]:
    price = cost(entry.spec, entry.spec.native_size)
    own = {"loader": entry.loader, "repo": entry.repo, "parameters": entry.parameters}
    return dataclasses.asdict(entry.spec) | own | price._asdict()


def _print_table(found: list[Entry]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("name", "size", "tokens", "width", "params", "GFLOPs", "weights", "licence"):
        table.add_column(name, justify="right" if name in ("size", "tokens", "width", "params", "GFLOPs") else "left")
    for entry in found:
        spec = entry.spec
        price = cost(spec, spec.native_size)
        grid = spec.native_size // spec.patch
        table.add_row(
            spec.name,
            str(spec.native_size),
            f"{price.tokens} ({grid}x{grid})",
            str(spec.width),
            f"{entry.parameters / 1e6:.0f} M",
            "" if price.gflops is None else f"{price.gflops:,.0f}",
            entry.repo or ("in the package" if entry.shipped else "not published"),
            spec.licence or "",
        )
    console = Console()
    # A pipe has no width: nothing may be cut or wrapped there.
    console.print(table) if console.is_terminal else Console(width=200).print(table)
    notes = {f"{entry.spec.name}: {entry.spec.note}" for entry in found if entry.spec.note and entry.spec.public}
    for note in sorted(notes):
        console.print(f"[dim]{note}[/dim]", soft_wrap=True)
