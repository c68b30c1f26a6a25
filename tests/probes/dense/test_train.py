"""The choice of the learning rate."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import nn

from probes.dense.data import prepare
from probes.dense.probe import DenseConfig
from probes.dense.train import train_and_choose, validation_scores
from rice.data.coco import open_split
from rice.progress import SilentProgress


def test_validation_score_is_mean_iou_of_nearest_upsampling(make_root, make_encoder, murky, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = make_root(murky, edge=18)
    train, test = open_split(root, "train"), open_split(root, "val")
    config = DenseConfig(updates=20, batch=8, learning_rates=(1e-2, 1e-1))
    material = prepare(make_encoder(patch=4), train, test, 16, config, "key", tmp_path, SilentProgress())
    heads, chosen = train_and_choose(material, config, seed=0, progress=SilentProgress())
    scores = validation_scores(heads, material, 3)
    assert chosen == int(np.argmax(scores))

    for head in range(2):
        truth, predicted = [], []
        for item in material.parts.validation:
            (tokens_1TD,) = material.train.stream([[item]])
            logits_Chw = heads.one(tokens_1TD[0], head).detach().T.reshape(1, -1, 4, 4)
            up = nn.functional.interpolate(logits_Chw, (18, 18), mode="nearest-exact")[0].argmax(0)
            predicted.append(up.numpy().ravel())
            truth.append(train.semantic_map(material.parts.pool[item]).ravel())
        all_truth, all_predicted = np.concatenate(truth), np.concatenate(predicted)
        expected = jaccard_score(all_truth, all_predicted, labels=np.unique(all_truth), average="macro")
        assert scores[head] == pytest.approx(expected)


def test_the_seed_decides_the_heads(make_root, make_encoder, murky, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = make_root(murky)
    splits = open_split(root, "train"), open_split(root, "val")
    config = DenseConfig(updates=5, batch=8, train_fraction=1.0)
    material = prepare(make_encoder(), *splits, 16, config, "key", tmp_path, SilentProgress())
    weights = [
        train_and_choose(material, config, seed=seed, progress=SilentProgress())[0].weights[0] for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2], atol=1e-3)
