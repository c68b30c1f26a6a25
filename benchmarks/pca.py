"""Streaming PCA against scikit-learn's: time, agreement, memory. Prints ratios of one run; exits 1 where one fails.

    python benchmarks/pca.py [--frames 64] [--tokens 1024] [--width 768] [--rounds 9] [--threads 1] [--json FILE]

Same tokens for both: an offset, a decaying spectrum, fp32. Rounds alternate ours, scikit-learn on one matrix that is
already there (the hardest case for us), and scikit-learn from the stream of frames (it has to gather them first).
Memory is the peak of a process that makes each frame's tokens when they are needed.

Shapes: F frames, T tokens of a frame, D width.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.timing import alternate, begin, finish, process_mib, ratios, shown, spread
from probes.visual.pca.components import Components, StreamingPca

Float32 = NDArray[np.float32]
Method = Literal["ours", "sklearn"]

COMPONENTS = 3
FEW_FRAMES = 8
COSINE = 0.9999
FLAT = 1.05
"""Our peak memory at all frames over that at 8."""
VARIANCE_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        frames: Frames of the stream.
        tokens: Tokens of a frame.
        width: Length of a token.
        rounds: Alternating rounds; the median of their ratios counts.
        threads: BLAS threads of both.
        json: Write the figures here, too.
    """

    frames: int = 64
    tokens: int = 1024
    width: int = 768
    rounds: int = 9
    threads: int = 1
    json: Path | None = None


def main(config: Config) -> int:
    """Run everything; 0 where every figure holds."""
    memory = {
        method: [_peak_mib(method, frames, config) for frames in (FEW_FRAMES, config.frames)]
        for method in ("ours", "sklearn")
    }
    import scipy.linalg  # noqa: F401 - limits bind the libraries that are loaded by now
    import sklearn.decomposition  # noqa: F401
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(config.threads):
        frames = list(stream(config.frames, config.tokens, config.width))
        figures = _times(frames, config.rounds) | _agreement(frames) | {"peak_mib": memory}
    report = begin(config) | {"threads": config.threads} | figures
    checks = _print(report, config)
    return finish(report | {"checks": checks}, config.json, holds=all(checks.values()))


def stream(frames: int, tokens: int, width: int) -> Iterator[Float32]:
    """Tokens (T, D) of each frame: low-rank structure that decays, on an offset, plus noise."""
    generator = np.random.default_rng(0)
    scales = np.geomspace(8, 0.3, width).astype(np.float32)
    mixing = np.linalg.qr(generator.standard_normal((width, width)))[0].astype(np.float32) * scales[:, None]
    offset = generator.normal(0, 10, width).astype(np.float32)
    for _ in range(frames):
        yield generator.standard_normal((tokens, width), dtype=np.float32) @ mixing + offset


def ours(frames: list[Float32] | Iterator[Float32], width: int) -> Components:
    """Frame by frame."""
    pca = StreamingPca(width)
    for tokens_TD in frames:
        pca.update(tokens_TD)
    return pca.finish(COMPONENTS)


def scikit_learn(tokens_ND: Float32) -> Any:
    """scikit-learn's own choice of solver."""
    from sklearn.decomposition import PCA

    return PCA(COMPONENTS, random_state=0).fit(tokens_ND)


def _times(frames: list[Float32], rounds: int) -> dict[str, Any]:
    matrix = np.concatenate(frames)
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours(frames, matrix.shape[1]),
        "sklearn_matrix": lambda: scikit_learn(matrix),
        "sklearn_stream": lambda: scikit_learn(np.concatenate(frames)),
    }
    seconds = alternate(runs, rounds)
    flop = matrix.shape[0] * matrix.shape[1] ** 2  # 2 N D^2 of a product, halved: it is symmetric
    return {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio_to_matrix": ratios(seconds, "ours", "sklearn_matrix"),
        "ratio_to_stream": ratios(seconds, "ours", "sklearn_stream"),
        "gflop": flop / 1e9,
        "limit_seconds": flop / _peak_flops(),
    }


def _agreement(frames: list[Float32]) -> dict[str, Any]:
    theirs, mine = scikit_learn(np.concatenate(frames)), ours(frames, frames[0].shape[1])
    cosines = np.abs((mine.axes * theirs.components_).sum(axis=1))
    error = np.abs(mine.explained / theirs.explained_variance_ratio_ - 1)
    return {"cosine": cosines.tolist(), "explained_variance_error": float(error.max())}


def _peak_flops() -> float:
    """Of a large square fp32 product with the same threads: what this machine's BLAS can do at its best."""
    matrix = np.random.default_rng(0).standard_normal((2048, 2048), dtype=np.float32)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - began)
    return 2 * 2048**3 / min(times)


def _peak_mib(method: Method, frames: int, config: Config) -> float:
    """Peak memory of a fresh process that fits `frames` frames."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_fit_and_weigh, (method, frames, config))


def _fit_and_weigh(method: Method, frames: int, config: Config) -> float:
    tokens = stream(frames, config.tokens, config.width)
    if method == "ours":
        ours(tokens, config.width)
    else:
        scikit_learn(np.concatenate(list(tokens)))
    return process_mib("VmHWM")


def _print(report: dict[str, Any], config: Config) -> dict[str, bool]:
    memory, mine = report["peak_mib"], report["seconds"]["ours"]["median"]
    growth = {method: values[1] / values[0] for method, values in memory.items()}
    checks = {
        "time": report["ratio_to_matrix"]["median"] <= 1.0,
        "cosine": min(report["cosine"]) >= COSINE,
        "explained variance": report["explained_variance_error"] <= VARIANCE_TOLERANCE,
        "memory": growth["ours"] <= FLAT,
    }
    print(f"{config.threads} BLAS thread(s), {config.frames} x {config.tokens} x {config.width} fp32")
    for name, values in report["seconds"].items():
        print(f"  {name:<15} {shown(values)} s")
    for name in ("ratio_to_matrix", "ratio_to_stream"):
        print(f"  {name:<15} {shown(report[name])}")
    print(
        f"  limit           {report['limit_seconds']:.3f} s  for {report['gflop']:.1f} GFLOP at this BLAS's best; "
        f"ours reaches {report['limit_seconds'] / mine:.0%} of it"
    )
    error = report["explained_variance_error"]
    print(f"  |cosine|        {min(report['cosine']):.7f}; explained variance within {error:.1e}")
    for method, (few, many) in memory.items():
        grown = f"{few:.0f} -> {many:.0f} MiB from {FEW_FRAMES} to {config.frames} frames (x {growth[method]:.2f})"
        print(f"  memory {method:<8} {grown}")
    print("  " + ", ".join(f"{name}: {'holds' if holds else 'FAILS'}" for name, holds in checks.items()))
    return checks


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
