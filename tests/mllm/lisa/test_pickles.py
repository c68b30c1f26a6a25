"""A pickle from outside is data: what it holds is read as pickle reads it, and nothing in it can name code."""

import copyreg
import datetime
import os
import pickle
import pickletools
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm.lisa.pickles import read_pickle
from rice.errors import RiceError

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.just(2**80)
)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
)


def read(data: bytes, folder: Path) -> Any:
    path = folder / "refs(unc).p"
    path.write_bytes(data)
    return read_pickle(path)


def complaint(data: bytes, folder: Path) -> str:
    """What it says of bytes that it refuses; any other exception passes through."""
    try:
        read(data, folder)
    except RiceError as error:
        return str(error)
    return ""


@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_data_of_every_protocol_comes_back(
    value: object, protocol: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = pickle.dumps(value, protocol)
    if any(op.name in ("GLOBAL", "REDUCE") for op, _, _ in pickletools.genops(data)):
        return  # before protocol 3, pickle writes bytes as calls
    assert read(data, tmp_path_factory.getbasetemp()) == value


PYTHON_2 = {
    0: b"(lp0\n(dp1\nS'ref_id'\np2\nI7\nsS'sent'\np3\nVcaf\\u00e9\np4\nsS'raw'\np5\nVna\\u00efve\np6\nsS'ok'\nI01\nsa.",
    2: b"\x80\x02]q\x00}q\x01(U\x06ref_idq\x02K\x07U\x04sentq\x03U\x05caf\xc3\xa9q\x04U\x03rawq\x05"
    b"X\x06\x00\x00\x00na\xc3\xafveq\x06U\x02okq\x07\x88ua.",
}


@pytest.mark.parametrize("protocol", PYTHON_2)
def test_a_pickle_of_python_2_is_read_with_its_byte_strings_as_text(protocol: int, tmp_path: Path) -> None:
    assert read(PYTHON_2[protocol], tmp_path) == [{"ref_id": 7, "sent": "café", "raw": "naïve", "ok": True}]


def test_bytes_that_are_no_utf_8_do_not_stop_the_file(tmp_path: Path) -> None:
    assert read(b"\x80\x02U\x04caf\xe9q\x00.", tmp_path) == "caf\udce9"


class Runs:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_of_the_shell_is_refused_in_one_line_and_does_not_run(protocol: int, tmp_path: Path) -> None:
    data = pickle.dumps([{"ref_id": 1}, Runs(tmp_path / "trace")], protocol)
    with pytest.raises(RiceError, match="could run any program") as caught:
        read(data, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trace").exists()
    pickle.loads(data)
    assert (tmp_path / "trace").exists()  # it is one that works


MALICIOUS = {
    "reduce": b"cos\nsystem\n(S'touch {trace}'\ntR.",
    "inst": b"(S'touch {trace}'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch {trace}'\no.",
    "newobj": b"\x80\x02cos\nsystem\nU\x01x\x85\x81.",
    "newobj_ex": b"\x80\x04cos\nsystem\n)}\x92.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.",
    "a global alone": b"cbuiltins\neval\n.",
    "build": b"ccollections\nOrderedDict\n)R}S'__setstate__'\ncos\nsystem\nsbS'touch {trace}'\nb.",
    "build of plain data": b"}}b.",
    "reduce of plain data": b"S'x'\n)R.",
    "persistent id": b"Pwhatever\n.",
    "binary persistent id": b"S'x'\nQ.",
    "extension code": b"\x80\x02\x82\x01.",
    "extension code of two bytes": b"\x80\x02\x83\x01\x00.",
    "extension code of four bytes": b"\x80\x02\x84\x01\x00\x00\x00.",
    "a buffer": b"\x80\x05\x97.",
    "a byte array": b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00x.",
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_whatever_names_code_is_refused_before_it_runs(name: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with pytest.raises(RiceError, match="expected plain data") as caught:
        read(MALICIOUS[name].replace(b"{trace}", str(trace).encode()), tmp_path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


def test_an_extension_that_is_registered_and_cached_is_refused_too(tmp_path: Path) -> None:
    copyreg.add_extension("datetime", "date", 1)
    try:
        data = pickle.dumps(datetime.date, 2)
        assert pickle.loads(data) is datetime.date  # from now on in the cache, which asks nobody
        with pytest.raises(RiceError, match="EXT1"):
            read(data, tmp_path)
    finally:
        copyreg.remove_extension("datetime", "date", 1)


def test_harmless_classes_are_refused_as_well(tmp_path: Path) -> None:
    for value in (OrderedDict(a=1), datetime.date(2020, 1, 1), Path("x"), complex(1, 2)):
        with pytest.raises(RiceError, match="expected plain data"):
            read(pickle.dumps(value), tmp_path)


def test_a_place_in_the_memo_that_would_reserve_all_memory_is_refused(tmp_path: Path) -> None:
    for data in (b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".", b"Np99999999999\n."):
        with pytest.raises(RiceError, match="not a readable pickle"):
            read(data, tmp_path)


def test_a_value_that_unfolds_to_more_than_memory_holds_is_read_as_the_few_objects_that_it_is(tmp_path: Path) -> None:
    value: list[Any] = []
    for _ in range(100):
        value = [value] * 10
    found = read(pickle.dumps(value, 2), tmp_path)
    depth = 0
    while found:
        assert len(found) == 10
        found, depth = found[0], depth + 1
    assert depth == 100


def test_very_deep_nesting_ends_in_a_value_or_in_one_line(tmp_path: Path) -> None:
    assert isinstance(read(b"]" * 300_000 + b"a" * 299_999 + b".", tmp_path), list)


KEYS = {
    "that takes for ever to hash": b"\x80\x02}(" + b")" + b"2\x86" * 60 + b"K\x01u.",
    "that is too deep to hash": b"\x80\x02}(" + b")" + b"\x85" * 1_000_000 + b"K\x01u.",
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_that_would_take_the_process_down_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="expected plain data"):
        read(KEYS[kind], tmp_path)


@pytest.mark.parametrize("value", [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {1}, frozenset([1])])
@pytest.mark.parametrize("protocol", [2, 4])
def test_tuples_and_sets_are_none_of_refers_data(value: object, protocol: int, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="expected plain data"):
        read(pickle.dumps(value, protocol), tmp_path)


def test_what_protocol_0_cannot_say_is_told_with_what_to_do(tmp_path: Path) -> None:
    for data in (b"S'caf\xc3\xa9'\np0\n.", b"S'caf\\xc3\\xa9'\np0\n."):
        assert "protocol 0 with text outside ASCII; save it with protocol 2" in complaint(data, tmp_path)
    assert "get a whole copy" in complaint(b"\x80\x02X\x01\x00\x00\x00\xff.", tmp_path)  # damage of another kind


def test_damage_is_reported_in_one_line(tmp_path: Path) -> None:
    for data in (b"", b"garbage", b"\x80\x02]", b"\x80\x09N.", b"(lp0\nI1x\na.", b"\x80\x02X\xff\xff\xff\x7fabc."):
        with pytest.raises(RiceError, match="not a readable pickle") as caught:
            read(data, tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(RiceError, match="cannot read"):
        read_pickle(tmp_path / "absent.p")


@given(value=PLAIN, protocol=st.integers(0, 5), place=st.integers(0), byte=st.integers(0, 255))
@settings(max_examples=300)
def test_a_flipped_byte_yields_a_value_or_one_line(
    value: object, protocol: int, place: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(pickle.dumps(value, protocol))
    data[place % len(data)] = byte
    assert "\n" not in complaint(bytes(data), tmp_path_factory.getbasetemp())


@given(data=st.binary(max_size=60))
@settings(max_examples=300)
def test_any_bytes_yield_a_value_or_one_line(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert "\n" not in complaint(data, tmp_path_factory.getbasetemp())
