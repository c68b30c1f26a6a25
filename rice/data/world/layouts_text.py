"""The world's printed words in the layout of ICDAR 2015's incidental scene text, challenge 4, tasks 1 and 4.

write_icdar   ch4_training_images/, ch4_training_localization_transcription_gt/gt_img_1.txt; ch4_test_images/,
              Challenge4_Test_Task4_GT/
"""

from collections.abc import Iterable
from pathlib import Path

from rice.data.icdar import ICDAR_2015, TRUTH_PREFIX
from rice.data.world.layouts import picture_suffix, save_picture
from rice.data.world.scene import Scene
from rice.data.world.words import Word
from rice.files import atomic_write


def write_icdar(folder: Path, split: str, scenes: Iterable[Scene]) -> None:
    """Write scenes as ICDAR 2015's `train` or `test`: pictures, and beside them a file of quads and words for each.

    As the set has it: corners in whole pixels from the first letter's top, clockwise; a byte-order mark; CRLF.
    """
    pictures, truths = (folder / name for name in ICDAR_2015[split])
    pictures.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes, start=1):
        save_picture(pictures / f"img_{number}{picture_suffix(scene.image)}", scene.image)
        with atomic_write(truths / f"{TRUTH_PREFIX}img_{number}.txt", "wb") as file:
            file.write("".join(map(_line, scene.words)).encode("utf-8-sig"))


def _line(word: Word) -> str:
    corners = ",".join(f"{round(x)},{round(y)}" for x, y in word.quad)
    return f"{corners},{word.text}\r\n"
