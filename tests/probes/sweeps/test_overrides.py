import dataclasses
import math
from typing import Any, Literal

import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from probes.sweeps.overrides import flags, parse_config
from rice.errors import RiceError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    epochs_run: int = 3
    rates: tuple[float, ...] = (1e-3, 1e-2)
    amp: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    fit: Fit = dataclasses.field(default_factory=Fit)
    grid: Literal["native", "matched"] = "native"
    text: str = "a"
    size: int | None = 3
    number: float = 1.0
    no_rest: bool = False

    def __post_init__(self) -> None:
        if self.number < 0:
            raise RiceError("number must not be negative")


def parsed(overrides: dict[str, Any]) -> Config:
    return parse_config(Config, flags(overrides), "probe x")


def test_no_override_is_the_default() -> None:
    assert parsed({}) == Config()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"fit.epochs_run": 5}, Config(fit=Fit(epochs_run=5))),
        ({"fit.epochs-run": 5}, Config(fit=Fit(epochs_run=5))),
        ({"fit.amp": False}, Config(fit=Fit(amp=False))),
        ({"fit.amp": True}, Config()),
        ({"fit.rates": [1, 2.5, "1e-4"]}, Config(fit=Fit(rates=(1.0, 2.5, 1e-4)))),
        ({"fit.rates": []}, Config(fit=Fit(rates=()))),
        ({"grid": "matched", "size": None}, Config(grid="matched", size=None)),
        ({"text": "--odd text=1"}, Config(text="--odd text=1")),
        ({"number": "1e-3"}, Config(number=1e-3)),
        ({"no_rest": True}, Config(no_rest=True)),
        ({"no_rest": False}, Config()),
    ],
)
def test_an_override_is_what_the_flag_would_be(overrides: dict[str, Any], expected: Config) -> None:
    assert parsed(overrides) == expected
    assert tyro.cli(Config, args=list(flags(overrides))) == expected


@given(
    st.integers(),
    st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
)
def test_values_survive_the_way_through_flags(
    epochs: int, number: float, rates: list[float], amp: bool, text: str
) -> None:
    overrides = {"fit.epochs_run": epochs, "fit.rates": rates, "fit.amp": amp, "number": number, "text": text}
    assert parsed(overrides) == Config(
        fit=Fit(epochs_run=epochs, rates=tuple(rates), amp=amp), number=number, text=text
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"gird": "native"}, ["gird", "grid"]),
        ({"fit.epoch": 1}, ["fit.epoch", "fit.epochs_run"]),
        ({"epochs_run": 1}, ["epochs_run", "fit.epochs_run"]),
        ({"grid": "odd"}, ["odd", "native", "matched"]),
        ({"fit.epochs_run": "many"}, ["many", "epochs"]),
        ({"size": 1.5}, ["1.5", "size"]),
        ({"text": True}, ["text"]),
        ({"number": {"a": 1}}, ["number", "{'a': 1}"]),
        ({"fit.rates": [[1]]}, ["fit.rates"]),
        ({"number": -1}, ["probe x: ", "negative"]),
    ],
)
def test_a_wrong_override_is_one_line_that_names_it(overrides: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(RiceError) as error:
        parsed(overrides)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_nan_can_be_asked_for() -> None:
    assert math.isnan(parsed({"number": "nan"}).number)
