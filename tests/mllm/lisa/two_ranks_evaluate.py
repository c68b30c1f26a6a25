"""What each of several ranks runs: `python -m torch.distributed.run two_ranks_evaluate.py MODEL OUT`. Each keeps what
it got (OUT-RANK.parquet) and how many pictures it looked at (OUT-RANK.txt)."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd

_HERE = Path(__file__).parent
sys.path[:0] = [str(folder) for folder in (_HERE, _HERE.parent, _HERE.parent / "llava")]

from tiny_lisa import Material, load  # noqa: E402

from mllm.lisa.asked import Asked  # noqa: E402
from mllm.lisa.evaluate import evaluate_splits  # noqa: E402
from mllm.llava.train import ranks  # noqa: E402
from rice.progress import SilentProgress  # noqa: E402


def main(model: Path, out: Path) -> None:
    """All splits."""
    material: Any = Material()
    with ranks("cpu") as world:
        trained = load(model)
        found = evaluate_splits(
            trained, material, "all", out, asked=Asked(most=3), progress=SilentProgress(), world=world
        )
        items = pd.concat([one.items for one in found], ignore_index=True)
        items.to_parquet(out.with_name(f"{out.name}-{world.rank}.parquet"))
        out.with_name(f"{out.name}-{world.rank}.txt").write_text(str(trained.lisa.segmenter.encoded))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
