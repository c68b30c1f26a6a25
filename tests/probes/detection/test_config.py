"""A configuration that could not train is refused by the names and values of its fields."""

from typing import Any

import pytest

from probes.detection.config import DetectionConfig, HeadsConfig
from probes.detection.recipe import RECIPES
from rice.errors import RiceError


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (HeadsConfig, "channels", 0),
        (HeadsConfig, "rpn_convs", -1),
        (HeadsConfig, "rpn_nms", 1.5),
        (HeadsConfig, "anchor_scale", -8.0),
        (HeadsConfig, "anchor_ratios", ()),
        (HeadsConfig, "anchor_ratios", (1.0, 0.0)),
        (HeadsConfig, "rpn_samples", 1),  # none of which is positive
        (HeadsConfig, "roi_samples", 3),  # of which a quarter is
        (HeadsConfig, "cascade_ious", (0.5, 0.6, 1.2)),
        (HeadsConfig, "cascade_weights", ((10.0, 5.0),)),
        (HeadsConfig, "cascade_weights", ((10.0, 5.0), (20.0, 10.0), (30.0, 0.0))),
        (HeadsConfig, "score_threshold", 1.5),
        (HeadsConfig, "detections", 0),
        (HeadsConfig, "federated_power", -0.5),
        (DetectionConfig, "epochs", 0),
        (DetectionConfig, "learning_rate", 0.0),
        (DetectionConfig, "clip", 0.0),
        (DetectionConfig, "milestones", (0.9, 0.5)),
        (DetectionConfig, "jitter", (2.0, 1.0)),
        (DetectionConfig, "evaluate_every", -1),
    ],
)
def test_what_is_out_of_range_is_named_with_its_value(kind: Any, field: str, value: Any) -> None:
    with pytest.raises(RiceError) as caught:
        kind(**{field: value})
    assert str(caught.value) == f"{field}={value} is out of range; see rice detect train --help"


def test_every_recipe_is_in_range_and_the_edges_are() -> None:
    assert all(isinstance(config, DetectionConfig) for config, _ in RECIPES.values())
    HeadsConfig(roi_samples=4, rpn_samples=2, score_threshold=0.0, federated_power=0.0, cascade_ious=(1.0,) * 3)


def test_evaluations_come_every_so_many_epochs() -> None:
    assert DetectionConfig(epochs=12, evaluate_every=0).evaluation_steps(1200) == 0
    assert DetectionConfig(epochs=12, evaluate_every=3).evaluation_steps(1200) == 300
    assert DetectionConfig(epochs=12, evaluate_every=1).evaluation_steps(5) == 1, "never less than a step"
