"""The sweep of Table 2 trains by the recipes, and judges on the paper's eight splits."""

import pytest
import yaml

from mllm.lisa.config import LisaProbeConfig
from mllm.lisa.recipe import RECIPES
from probes.sweeps.overrides import flags, parse_config
from probes.sweeps.sweepfile import BUILT_IN
from reports.paper.printed import paper


@pytest.mark.parametrize(("number", "recipe"), [(0, "next"), (1, "llava15")])
def test_the_sweeps_protocols_are_the_recipes(number: int, recipe: str) -> None:
    entry = dict(yaml.safe_load((BUILT_IN / "table2.yaml").read_text())["probes"][number])
    assert (entry.pop("probe"), entry.pop("data")) == ("refseg", ["lisa"])
    config = parse_config(LisaProbeConfig, flags(entry), "table2")
    assert config.training() == RECIPES[recipe][0]
    columns = dict.fromkeys(column for row in paper("2") for column in row.cells if column != "Avg")
    pairs = [column.split() for column in columns]
    assert config.splits == ",".join(f"{name.lower()}_{split}" for name, split in pairs)
