"""Shards come back as they were written, any tar reader opens them, and what does not fit is refused in one line."""

import json
import pickle
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_samples import COLOURS, WORDS, painted, write_dataset_of

from rice.data.blobs import Blob, location_of
from rice.data.shard_reader import Shard, fingerprint, read_dataset
from rice.data.shards import Sample, finished_shard, write_shard
from rice.errors import NoRoomError, RiceError

REGIONS = [2, 0, 5, 1, 0, 3]


@pytest.fixture
def samples() -> list[Sample]:
    return [painted(number, regions) for number, regions in enumerate(REGIONS)]


@pytest.fixture
def folder(tmp_path: Path, samples: list[Sample]) -> Path:
    write_dataset_of(tmp_path / "set", [samples[:4], samples[4:]])
    return tmp_path / "set"


def opened(folder: Path | str) -> list[Shard]:
    location, info = read_dataset(folder)
    return [Shard(location, shard, info.object_classes, info.ocr_classes) for shard in info.shards]


def rewrite(path: Path, **columns: Any) -> None:
    """Replace columns of a sidecar; everything else stays."""
    table = pq.read_table(path)
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, pa.array(values, type=table.schema.field(name).type))
    pq.write_table(table, path)


def test_what_was_written_is_read(folder: Path, samples: list[Sample]) -> None:
    shards = opened(folder)
    records = [shard.sidecar.record(row) for shard in shards for row in range(shard.info.samples)]
    images = [image for shard in shards for image in shard.images(range(shard.info.samples))]
    for sample, record, image in zip(samples, records, images, strict=True):
        assert image == sample.image
        assert (record.key, record.width, record.height) == (sample.key, sample.width, sample.height)
        assert record.boxes.tolist() == sample.boxes.tolist()
        assert record.labels.tolist() == sample.labels
        assert [ids.tolist() for ids in record.tokens] == sample.tokens
        assert record.image_labels.tolist() == sample.image_labels


def test_scores_are_kept(folder: Path, samples: list[Sample]) -> None:
    stored = pq.read_table(folder / "toy-000000.parquet")["scores"].to_pylist()
    for found, sample in zip(stored, samples, strict=False):
        np.testing.assert_allclose(found, sample.scores, rtol=1e-6)


def test_any_tar_reader_finds_one_member_a_sample_named_as_webdataset_asks(folder: Path, samples: list[Sample]) -> None:
    with tarfile.open(folder / "toy-000000.tar") as tar:
        members = tar.getmembers()
        assert [tar.extractfile(m).read() for m in members] == [s.image for s in samples[:4]]  # type: ignore[union-attr]
    assert [m.name.split(".", 1) for m in members] == [[s.key, "png"] for s in samples[:4]]


def test_offsets_point_at_the_bytes_of_the_file(folder: Path, samples: list[Sample]) -> None:
    content = (folder / "toy-000000.tar").read_bytes()
    table = pq.read_table(folder / "toy-000000.parquet")
    for sample, offset, length in zip(samples, table["offset"].to_pylist(), table["length"].to_pylist(), strict=False):
        assert content[offset : offset + length] == sample.image


def test_the_same_samples_give_the_same_files(tmp_path: Path, samples: list[Sample]) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / name, "x-000000", samples)
    for file in ("x-000000.tar", "x-000000.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_pictures_come_in_the_order_that_is_asked(folder: Path, samples: list[Sample]) -> None:
    assert opened(folder)[0].images([3, 0, 2]) == [samples[i].image for i in (3, 0, 2)]


def test_a_closed_or_pickled_shard_opens_again(folder: Path, samples: list[Sample]) -> None:
    shard = opened(folder)[0]
    shard.images([0])
    copy = pickle.loads(pickle.dumps(shard))
    shard.close()
    assert shard.images([1]) == copy.images([1]) == [samples[1].image]


def test_ranges_of_a_url_are_read_as_those_of_a_file(folder: Path, samples: list[Sample]) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{folder}/", "/bucket/set/", recursive=True)
    try:
        shards = opened("memory://bucket/set")
        assert shards[0].images([2, 1]) == [samples[2].image, samples[1].image]
        assert shards[1].sidecar.record(1).labels.tolist() == samples[5].labels
        memory.rm("/bucket/set/toy-000001.tar")
        with pytest.raises(RiceError, match=r"cannot read memory://bucket/set/toy-000001\.tar"):
            opened("memory://bucket/set")[1].images([0])
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_path_keeps_its_url(tmp_path: Path) -> None:
    assert location_of(Path("s3://bucket/a")) == location_of("s3://bucket/a/") == "s3://bucket/a"
    assert location_of(Path("/data/a")) == "/data/a"
    assert location_of("C:/data") == "C:/data"


def test_a_range_beyond_the_end_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    assert Blob(str(tmp_path), "x").read([(2, 3), (0, 1)]) == [b"234", b"0"]
    with pytest.raises(RiceError, match="x ends before byte 11 of 12"):
        Blob(str(tmp_path), "x").read([(8, 4)])


def truncate(folder: Path) -> None:
    path = folder / "toy-000000.tar"
    path.write_bytes(path.read_bytes()[:-700])


def swap_sidecars(folder: Path) -> None:
    one, two = folder / "toy-000000.parquet", folder / "toy-000001.parquet"
    content = one.read_bytes()
    shutil.copy(two, one)
    two.write_bytes(content)


def another_tar_of_the_same_size(folder: Path) -> None:
    path = folder / "toy-000000.tar"
    path.write_bytes(path.read_bytes().replace(b"00001.png", b"77777.png"))


def first_labels(folder: Path) -> list[list[int]]:
    return pq.read_table(folder / "toy-000000.parquet")["labels"].to_pylist()


def label_too_large(folder: Path) -> None:
    labels = first_labels(folder)
    labels[2][1] = len(COLOURS)
    rewrite(folder / "toy-000000.parquet", labels=labels)


def label_too_small(folder: Path) -> None:
    labels = first_labels(folder)
    labels[2][1] = -2
    rewrite(folder / "toy-000000.parquet", labels=labels)


def labels_missing(folder: Path) -> None:
    labels = first_labels(folder)
    labels[2].pop()
    rewrite(folder / "toy-000000.parquet", labels=labels)


def token_too_large(folder: Path) -> None:
    rewrite(folder / "toy-000000.parquet", tokens=[[[WORDS]] * n for n in REGIONS[:4]])


def image_label_too_large(folder: Path) -> None:
    rewrite(folder / "toy-000000.parquet", image_labels=[[], [], [], [len(COLOURS)]])


def box_outside(folder: Path) -> None:
    rewrite(folder / "toy-000000.parquet", boxes=[[[0, 0, 97, 4]] * n for n in REGIONS[:4]])


def box_empty(folder: Path) -> None:
    rewrite(folder / "toy-000000.parquet", boxes=[[[5, 5, 5, 9]] * n for n in REGIONS[:4]])


def offset_outside(folder: Path) -> None:
    rewrite(folder / "toy-000000.parquet", offset=[512, 512, 512, 10**9])


def nothing_in_a_row(folder: Path) -> None:
    rewrite(folder / "toy-000000.parquet", width=[96, None, 96, 96])


def nothing_in_a_list(column: str, value: list[Any]) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder / "toy-000000.parquet", **{column: [value] * len(REGIONS[:4])})


def key_in_latin_1(folder: Path) -> None:
    keys = pa.array([b"\xf1"] * 4).cast(pa.string(), safe=False)
    rewrite(folder / "toy-000000.parquet", key=keys)


def no_sidecar(folder: Path) -> None:
    (folder / "toy-000000.parquet").unlink()


def half_a_sidecar(folder: Path) -> None:
    path = folder / "toy-000000.parquet"
    path.write_bytes(path.read_bytes()[:300])


def no_column(folder: Path) -> None:
    path = folder / "toy-000000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["tokens"]), path)


def dataset_says(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        document = json.loads((folder / "dataset.json").read_text())
        shard = {k: v for k, v in changes.items() if k in document["shards"][0]}
        document["shards"][0].update(shard)
        document.update({k: v for k, v in changes.items() if k not in shard})
        (folder / "dataset.json").write_text(json.dumps(document))

    return change


def too_many_in_all(folder: Path) -> None:
    document = json.loads((folder / "dataset.json").read_text())
    document["shards"] = [document["shards"][0] | {"samples": 2**39 + 1}] * 2
    (folder / "dataset.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, r"toy-000000\.tar has \d+ bytes, dataset\.json says \d+"),
        (swap_sidecars, r"toy-000000\.parquet has 2 rows, dataset\.json says 4"),
        (another_tar_of_the_same_size, r"toy-000000\.parquet is not the sidecar of .*toy-000000\.tar: expected '00001"),
        (label_too_large, r"toy-000000\.parquet: 00002 has the object label 8, but there are 8 classes"),
        (label_too_small, r"00002 has the object label -2"),
        (labels_missing, r"boxes, labels and tokens of some picture differ"),
        (token_too_large, r"00000 has the OCR token 50, but there are 50 classes"),
        (image_label_too_large, r"00003 has the image label 8"),
        (box_outside, r"00000 has the box \[0, 0, 97, 4\]"),
        (box_empty, r"00000 has the box \[5, 5, 5, 9\]"),
        (offset_outside, r"the picture of 00003 lies outside the tar"),
        (nothing_in_a_row, r"column 'width' has none"),
        (nothing_in_a_list("labels", [None]), r"column 'labels' has none"),
        (nothing_in_a_list("boxes", [None]), r"column 'boxes' has none"),
        (nothing_in_a_list("boxes", [[0, 0, None, 4]]), r"column 'boxes' has none"),
        (nothing_in_a_list("tokens", [None]), r"column 'tokens' has none"),
        (nothing_in_a_list("tokens", [[1, None]]), r"column 'tokens' has none"),
        (nothing_in_a_list("image_labels", [None]), r"column 'image_labels' has none"),
        (key_in_latin_1, r"toy-000000\.parquet is not a shard's sidecar \(.*UTF8"),
        (no_sidecar, r"cannot read .*toy-000000\.parquet"),
        (half_a_sidecar, r"toy-000000\.parquet is not a shard's sidecar"),
        (no_column, r"toy-000000\.parquet is not a shard's sidecar"),
        (dataset_says(format=99), r"dataset\.json .* its format is 99"),
        (dataset_says(name="../toy-000000"), r"dataset\.json .* plain file name, got '\.\./toy-000000'"),
        (dataset_says(samples="4"), r"dataset\.json .* samples of at least 1 and .* got '4'"),
        (
            dataset_says(samples=2**63),
            r"dataset\.json .* samples of at .* at most \d+, got 9223372036854775808",
        ),
        (too_many_in_all, r"dataset\.json .* expected at most \d+ samples"),
        (dataset_says(object_classes=-1), r"dataset\.json .* object_classes of at least 0"),
        (dataset_says(shards=[]), r"dataset\.json .* lists no shards"),
        (lambda folder: (folder / "dataset.json").write_text("{"), r"dataset\.json is not valid JSON"),
        (lambda folder: (folder / "dataset.json").write_text("[" * 100_000), r"dataset\.json is not valid JSON"),
        (dataset_says(source={"split": "\ud800"}), r"dataset\.json is not a data set's description: .*surrogates"),
        (
            dataset_says(source={"min_edge": float("nan")}),
            r"dataset\.json is not a data set's description: Out of range",
        ),
        (lambda folder: (folder / "dataset.json").write_text("[]"), r"dataset\.json is not a data set's description"),
        (lambda folder: (folder / "dataset.json").unlink(), r"no shards at .*dataset\.json: No such .*rice pack"),
    ],
)
def test_damage_is_named_in_one_line(folder: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(folder)
    with pytest.raises(RiceError, match=said) as caught:
        opened(folder)[0].images([0, 1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("levels", [100, 300, 500, 900, 5000])
def test_nesting_however_deep_is_read_or_refused(folder: Path, levels: int) -> None:
    document = json.loads((folder / "dataset.json").read_text()) | {"source": "HERE"}
    deep = json.dumps(document).replace('"HERE"', f'{{"a": {"[" * levels}{"]" * levels}}}')
    (folder / "dataset.json").write_text(deep)
    try:
        assert len(fingerprint([read_dataset(folder)[1]])) == 64
    except RiceError:
        assert levels > 100


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", "a/b"),
        ("key", "a.b"),
        ("suffix", "../x"),
        ("image", b""),
        ("width", 70_000),
        ("boxes", np.array([[0, 0, 97, 5]] * 2, dtype=np.uint16)),
        ("boxes", np.array([[5, 0, 5, 5]] * 2, dtype=np.uint16)),
        ("labels", [0]),
        ("labels", [0, -2]),
        ("tokens", [[]]),
        ("tokens", [[-1], []]),
        ("scores", []),
        ("image_labels", [-1]),
    ],
)
def test_a_wrong_sample_is_refused_and_leaves_nothing(tmp_path: Path, field: str, value: Any) -> None:
    good = painted(1, 2)
    wrong = Sample(**{**good.__dict__, field: value})
    name = "width or height" if field == "width" else field
    with pytest.raises(RiceError, match=name):
        write_shard(tmp_path, "x-000000", [painted(0, 1), wrong])
    assert list(tmp_path.iterdir()) == []


def test_two_samples_of_one_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="two samples have the key '00003'"):
        write_shard(tmp_path, "x-000000", [painted(3, 1), painted(3, 2)])
    assert list(tmp_path.iterdir()) == []


def test_a_shard_counts_when_both_files_are_whole_and_of_the_same_identity(
    tmp_path: Path, samples: list[Sample]
) -> None:
    written = write_shard(tmp_path, "x-000000", samples, identity="one")
    assert written.regions == sum(REGIONS)
    assert finished_shard(tmp_path, "x-000000", identity="one") == written
    assert finished_shard(tmp_path, "x-000000", identity="two") is None
    with (tmp_path / "x-000000.tar").open("ab") as file:
        file.write(b"\0")
    assert finished_shard(tmp_path, "x-000000", identity="one") is None


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path, samples: list[Sample]) -> None:
    write_shard(tmp_path, "x-000000", samples, identity="one")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def failing() -> Iterator[Sample]:
        yield samples[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(NoRoomError, match="x-000000.tar: No space"):
        write_shard(tmp_path, "x-000000", failing(), identity="two")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
