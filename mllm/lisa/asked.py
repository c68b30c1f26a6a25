"""How a model is asked for masks. Imports no torch."""

from dataclasses import dataclass

from rice.errors import RiceError

MOST = 64
"""Tokens of an answer."""

TOGETHER = 8
"""Expressions of a picture that are answered at a time."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """limit: only the first pictures of a split; most: tokens of an answer; together: expressions of a picture at a
    time, on which answers do not depend but for rounding."""

    limit: int | None = None
    most: int = MOST
    together: int = TOGETHER

    def __post_init__(self) -> None:
        """Errors: RiceError for a number below 1."""
        for flag, value in (("limit", self.limit), ("max-new-tokens", self.most), ("batch-size", self.together)):
            if value is not None and value < 1:
                raise RiceError(f"expected --{flag} of at least 1, got {value}")
