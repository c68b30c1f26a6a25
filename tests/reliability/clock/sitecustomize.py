"""Read at the start of every Python process of a test: a wall clock that is off by the seconds in the file
$CLOCK_SHIFT, read anew each time, and file times by the same clock, or by a server's own ($FILE_SHIFT). Then the file
$CLOCK_THEN is run.

`time.monotonic` and `time.perf_counter` go on as on any machine.
"""

import datetime
import os
import time
from typing import Any

_time, _time_ns, _replace = time.time, time.time_ns, os.replace


def _shift(name: str = "CLOCK_SHIFT") -> float:
    with open(os.environ[name], encoding="utf-8") as file:  # noqa: PTH123
        return float(file.read() or 0)


class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return cls.fromtimestamp(_time() + _shift(), tz)


def _replace_and_stamp(source: Any, target: Any, **options: Any) -> None:
    _replace(source, target, **options)
    now = _time() + _shift("FILE_SHIFT" if "FILE_SHIFT" in os.environ else "CLOCK_SHIFT")
    os.utime(target, (now, now))


if "CLOCK_SHIFT" in os.environ:
    time.time = lambda: _time() + _shift()
    time.time_ns = lambda: _time_ns() + int(_shift() * 1e9)
    datetime.datetime = _Datetime  # type: ignore[misc]
    os.replace = _replace_and_stamp
    with open(os.environ["CLOCK_THEN"], encoding="utf-8") as file:  # noqa: PTH123
        exec(compile(file.read(), file.name, "exec"), globals())
