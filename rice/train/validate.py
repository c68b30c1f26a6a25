"""Validation of a training run: how well its regions retrieve one another, over whole pictures."""

import torch

from rice.data.stream import RegionStream
from rice.train.learner import Learner
from rice.train.retrieval import Retrieval, retrieve


def validate(learner: Learner, stream: RegionStream) -> Retrieval:
    """Region retrieval over every picture of `stream`, whole, with all its regions, by their object labels.

    Of other training, which has no region layers, the class token of a picture answers for its most prominent label.
    Every rank computes all of it: a tower that is spread over ranks needs them all in every forward.
    """
    whole = learner.config.target != "regions"
    embeddings, labels, images = [], [], []
    with learner.evaluating():
        for batch in stream.all_regions(batch=max(learner.config.batch // learner.world.size, 1)):
            found_BND = learner.embed(batch.images, batch.boxes)
            labels_BN = batch.image_labels[:, :1] if whole else batch.object_labels[:, :, 0]
            known_BN = labels_BN >= 0
            embeddings.append(found_BND.cpu()[known_BN])
            labels.append(labels_BN[known_BN])
            images.append(batch.samples[:, None].expand_as(labels_BN)[known_BN])
    return retrieve(torch.cat(embeddings), torch.cat(labels), torch.cat(images))
