"""What one rank finds, all ranks learn: no rank waits for one that has already failed.

Collective, over the CPU backend of the group. What travels is small, and pickled between the run's own processes only.
Errors: where the action fails on any rank, every rank raises: RiceError with the message of the first rank that met
one; for any other exception its own where it happened, and RuntimeError naming it on the others.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import torch.distributed as dist

from rice.errors import RiceError

T = TypeVar("T")


def gather(action: Callable[[], T], group: dist.ProcessGroup | None = None) -> list[T]:
    """Run `action` on every rank; every rank gets all results, in the order of ranks."""
    result: T | None = None
    failure: Exception | None = None
    try:
        result = action()
    except Exception as error:  # raised below, once the other ranks know
        failure = error
    said = None if failure is None else (isinstance(failure, RiceError), str(failure) or repr(failure))
    heard: list[tuple[tuple[bool, str] | None, T | None]] = [(None, None)] * dist.get_world_size(group)
    dist.all_gather_object(heard, (said, result), group=group)
    if failure is not None and not isinstance(failure, RiceError):
        raise failure
    for rank, (words, _) in enumerate(heard):
        if words is not None:
            expected, message = words
            raise (RiceError(message) if expected else RuntimeError(f"rank {rank}: {message}")) from failure
    return [cast(T, value) for _, value in heard]


def settle(action: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """Run `action` on every rank; each gets its own result, which may be large, once all have one."""
    own: list[T] = []
    gather(lambda: own.append(action()), group)
    return own[0]


def lead(action: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """Run `action` on the first rank only; every rank gets its result."""
    first = dist.get_rank(group) == 0
    return cast(T, gather(lambda: action() if first else None, group)[0])
