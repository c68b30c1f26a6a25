"""Cells: what differs in more than the seed is never averaged, nothing is lost, and names tell columns apart."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.results import frame_of, rows_of
from reports.measurements import Measurement
from reports.measurements import measurements as measurements_of
from reports.page.columns import Column, Row, arrange
from reports.tables import build

HASHES = ("a" * 64, "a" * 60 + "bbbb", "c" * 64)
"""The first two read the same when they are cut short."""


def document(encoder: str, seed: int, **changes: Any) -> dict[str, Any]:
    identity = {
        "encoder_fingerprint": HASHES[0],
        "size": 64,
        "layer": -1,
        "probe": "dense",
        "protocol_version": 1,
        "dataset_fingerprint": HASHES[0],
        "config": {"grid": "native"},
    }
    metric = {"name": "mIoU", "value": 0.5, "n": 10, "unit": "fraction", "higher_is_better": True, "split": "val"}
    metric |= {"stderr": None, "protocol": "linear"}
    fields = {"encoder": encoder, "trained": True, "dataset": "scenes", "seed": seed, "key": str(changes) + str(seed)}
    fields |= {"reference": "", "weights": "", "tokens": 1, "gflops": 1, "images_per_s": 1, "seconds": 1, "device": ""}
    fields |= {"encoder_spec": {"norm": "none"}}
    for name, value in changes.items():
        next(place for place in (fields, identity, metric) if name in place)[name] = value
    return fields | {"identity": identity, "metrics": [metric]}


def measurements(documents: Iterable[dict[str, Any]]) -> list[Measurement]:
    return measurements_of(rows_of(documents))


variations = st.fixed_dictionaries(
    {},
    optional={
        "config": st.sampled_from([{"x": 1}, {"x": "1"}, {"x": True}, {"x": None}, {}, {"x": 1, "y": [1]}]),
        "encoder_fingerprint": st.sampled_from(HASHES),
        "dataset_fingerprint": st.sampled_from(HASHES),
        "size": st.sampled_from([64, None, 128]),
        "layer": st.sampled_from([-1, None, -2]),
        "protocol_version": st.integers(1, 2),
        "protocol": st.sampled_from(["linear", "a", "b"]),
        "split": st.sampled_from(["val", "test"]),
        "unit": st.sampled_from(["fraction", "%", "px"]),
        "trained": st.booleans(),
        "probe": st.sampled_from(["dense", "knn"]),
        "name": st.sampled_from(["mIoU", "accuracy"]),
        "dataset": st.sampled_from(["scenes", "coco"]),
    },
)


@given(st.lists(st.tuples(st.sampled_from("ab"), variations), min_size=1, max_size=12), st.integers(1, 3))
def test_a_cell_holds_one_configuration_and_every_measurement_is_in_one_cell(
    drawn: list[tuple[str, dict[str, Any]]], seeds: int
) -> None:
    distinct = {json.dumps(one, sort_keys=True): one for one in drawn}.values()
    found = measurements([document(encoder, seed, **changes) for encoder, changes in distinct for seed in range(seeds)])
    cells = arrange(found)
    for one in cells.values():
        alike = [{name: row[name] for name in row if name not in ("seed", "key")} for row in one.rows]
        assert all(row == alike[0] for row in alike)
        assert one.runs.keys() == set(range(seeds))
    assert sorted(map(id, cells.values())) == sorted(map(id, found))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("config", ({"x": 1}, {"x": "1"}, {"x": 1.0}, {"x": True}, {})),
        ("encoder_fingerprint", HASHES),
        ("dataset_fingerprint", HASHES),
        ("size", (64, None)),
        ("layer", (-1, -2)),
        ("protocol", ("a", "b")),
    ],
)
def test_what_reads_the_same_cut_short_is_still_told_apart(field: str, values: tuple[Any, ...]) -> None:
    cells = arrange(measurements([document("a", seed, **{field: value}) for value in values for seed in (0, 1)]))
    assert len({(row, column) for row, column in cells}) == len(values)
    assert [one.score.seeds for one in cells.values()] == [2] * len(values)


def test_a_split_leaves_other_columns_their_names() -> None:
    documents = [document("a", 0), document("a", 0, config={"grid": "matched"}), document("a", 0, name="accuracy")]
    columns = {column for _, column in arrange(measurements(documents))}
    assert columns == {
        Column("dense", "scenes", "mIoU", "grid=native"),
        Column("dense", "scenes", "mIoU", "grid=matched"),
        Column("dense", "scenes", "accuracy"),
    }


def test_another_encoder_with_another_configuration_stays_in_the_same_column() -> None:
    cells = arrange(measurements([document("a", 0), document("b", 0, config={"grid": "matched"})]))
    assert {column.variant for _, column in cells} == {""}


def test_one_label_at_two_sizes_is_two_rows() -> None:
    cells = arrange(measurements([document("a", 0), document("a", 0, size=128)]))
    assert {row for row, _ in cells} == {Row("a", "size 64"), Row("a", "size 128")}


@pytest.mark.parametrize("unit", ["fraction", "px"])
def test_fractions_are_shown_in_percent_and_nothing_else_is_scaled(unit: str) -> None:
    (one,) = measurements([document("a", 0, unit=unit, value=0.25)])
    assert one.score.mean == one.runs[0].value == (25.0 if unit == "fraction" else 0.25)
    assert one.cell.shown_unit == ("%" if unit == "fraction" else unit)


def test_cells_are_those_of_the_tables_where_nothing_is_split() -> None:
    documents = [
        document(encoder, seed, name=name, value=value * (seed + 1), key=f"{encoder}{seed}{name}")
        for encoder, seeds in (("a", 3), ("b", 2))
        for name, value in (("mIoU", 0.1), ("accuracy", 0.2))
        for seed in range(seeds)
    ]
    table = build(frame_of(documents), ["encoder"], ["probe", "dataset", "metric"])
    cells = arrange(measurements(documents))
    shown = {((row.label,), (c.probe, c.dataset, c.metric)): one.score for (row, c), one in cells.items()}
    assert shown == {place: cell.score for place, cell in table.cells.items()}
