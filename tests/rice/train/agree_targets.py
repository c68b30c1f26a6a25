"""What the ranks of test_agree.py do."""

import torch.distributed as dist

from rice.errors import RiceError
from rice.train.agree import gather, lead, settle


def fail_on(rank: int, error: type[Exception]) -> str:
    """The kind and message of what this rank raises when `rank` fails; the group must be of use afterwards."""

    def action() -> int:
        if dist.get_rank() == rank:
            raise error("no such shard")
        return dist.get_rank()

    try:
        gather(action)
        said = "nothing"
    except Exception as caught:
        said = f"{type(caught).__name__}: {caught}"
    assert gather(dist.get_rank) == list(range(dist.get_world_size()))
    return said


def lead_fails() -> str:
    def action() -> None:
        raise RiceError("no folder")

    try:
        lead(action)
    except RiceError as error:
        return str(error)
    return "nothing"


def own_and_first() -> tuple[int, int]:
    return settle(dist.get_rank), lead(lambda: dist.get_rank() + 10)
