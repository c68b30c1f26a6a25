"""Region cluster discrimination (section 3.3): the loss, its sampling, and class centres sharded over ranks."""

from rice.loss.centers import CenterBank
from rice.loss.cluster import region_cluster_loss
from rice.loss.equations import ClusterLoss

__all__ = ["CenterBank", "ClusterLoss", "region_cluster_loss"]
