"""Regions as shards hold them, with the columns that curation writes beside those that training reads:

    texts      list of string a picture: what is written in each region, "" for an object
    distances  list of float a picture: squared distance of each region to its cluster's centre, NaN for text

Shards may lack both. Shapes: S pictures of a shard, R regions of it.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rice.curate.stage import SHARDS
from rice.data.blobs import Blob
from rice.data.shard_reader import Shard, Sidecar, read_dataset
from rice.data.shards import DATASET, NO_LABEL
from rice.errors import RiceError

_COLUMNS = {"scores": pa.float32(), "distances": pa.float32(), "texts": pa.string()}


@dataclass(frozen=True, eq=False)
class Regions:
    """All regions of a shard, in its order.

    owners: (R,) row of each one's picture. scores: (R,). distances: (R,), NaN where there is none. is_text: (R,),
    whether it has tokens and no class. texts: R strings, or None where the shard has none.
    """

    sidecar: Sidecar
    owners: NDArray[np.int64]
    scores: NDArray[np.float32]
    distances: NDArray[np.float32]
    is_text: NDArray[np.bool_]
    texts: Any

    def text(self, region: int) -> str:
        """What is written in a region, as far as the shard says."""
        return "" if self.texts is None else self.texts[region].as_py() or ""


class Collection:
    """The shards of a folder or under a URL.

    Errors of all methods: RiceError, as of `rice.data.shard_reader`.
    """

    def __init__(self, folder: Path | str) -> None:
        self.location, self.info = read_dataset(folder)
        classes = self.info.object_classes, self.info.ocr_classes
        self.shards = [Shard(self.location, info, *classes) for info in self.info.shards]

    def regions(self, number: int) -> Regions:
        """Those of shard `number`, checked."""
        shard = self.shards[number]
        sidecar = shard.sidecar
        owners_R = np.repeat(np.arange(len(sidecar.keys)), np.diff(sidecar.regions_at))
        extra = self._extra(f"{shard.info.name}.parquet", sidecar)
        absent_R = np.full(len(owners_R), np.nan, np.float32)
        distances, texts = extra.get("distances"), extra.get("texts")
        return Regions(
            sidecar=sidecar,
            owners=owners_R,
            scores=extra["scores"].to_numpy(zero_copy_only=False),
            distances=absent_R if distances is None else distances.to_numpy(zero_copy_only=False),
            is_text=(sidecar.labels == NO_LABEL) & (np.diff(sidecar.tokens_at) > 0),
            texts=texts,
        )

    def class_name(self, label: int) -> str:
        """Of a class that has a name, else empty."""
        return self.info.classes[label] if 0 <= label < len(self.info.classes) else ""

    def _extra(self, name: str, sidecar: Sidecar) -> dict[str, Any]:
        """What lies beside the columns of `Sidecar`: a value for each region."""
        blob = Blob(self.location, name)
        found: dict[str, Any] = {}
        try:
            file = pq.ParquetFile(io.BytesIO(blob.read_all()))
            there = [column for column in _COLUMNS if column in file.schema_arrow.names]
            table = file.read(columns=there)
            for column in there:
                lists = table[column].combine_chunks().cast(pa.list_(_COLUMNS[column]))
                if not np.array_equal(np.diff(lists.offsets), np.diff(sidecar.regions_at)):
                    raise RiceError(f"{blob.path}: expected a value for each region, column {column!r} differs")
                found[column] = lists.flatten()
        except (pa.ArrowException, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RiceError(f"{blob.path} has other columns than curation writes ({reason}); write it anew") from error
        return found


def shards_of(folder: Path) -> Path:
    """The folder itself, or what a curation left in its folder `shards`."""
    inside = folder / SHARDS
    return inside if (inside / DATASET).is_file() and not (folder / DATASET).is_file() else folder
