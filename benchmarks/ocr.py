"""How much of annotated text `rice curate ocr` finds, and how fast it reads.

    python benchmarks/ocr.py --data FOLDER [--json FILE]

FOLDER/sroie: receipts (ICDAR 2019 SROIE), box/NAME.csv with a quad and a text for each line, img/NAME.jpg.
FOLDER/icdar15: photos (ICDAR 2015) in MMOCR's layout, textdet_test.json. It has quads alone: texts of words that count
were read off the pictures, and stand below. Ignored words are left out of the truth.

A word is a run of letters and digits, compared without case. Of all pictures together:

recall    share of annotated words that are read: in a picture a word counts as often as it is both annotated and read
placed    the same, where the centre of the word read lies in the annotated line's box, grown by half its height on each
          side; each word read serves once. A word's centre is where its letters' share of the line puts it
precision share of words read that are annotated, likewise (receipts alone: photos have words that are ignored)
lines     share of annotated lines read as one line with the same letters and digits, whatever the spaces

All at the paper's confidence, above 0.7, and for everything that the engine reads.
"""

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.timing import begin, finish
from rice.curate.text.config import TextConfig
from rice.curate.text.reader import Line, TextReader, build_reader
from rice.curate.text.select import select
from rice.data.icdar import read_truth
from rice.data.picture import open_upright
from rice.files import read_object

ICDAR15_TEXTS = {
    "img_1": {0: "Genexis Theatre", 1: "[06]", 3: "[82-03]", 4: "Carpark"},
    "img_2": {0: "EXIT", 1: "I2R"},
    "img_3": {0: "fusionopolis", 5: "fusionopolis"},
    "img_6": {5: "Reserve", 7: "CAUTION"},
    "img_7": {2: "citi", 3: "SMRT"},
    "img_8": {0: "WHY", 1: "PAY", 2: "FOR", 3: "NOTHING?"},
    "img_9": {0: "EXIT", 2: "STAGE"},
    "img_10": {1: "HarbourFront", 2: "CC22", 3: "Buona"},
}
"""Picture -> number of the instance -> what is to be read there."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        data: Folder with sroie/ and icdar15/.
        text: How text is read; its confidence is the threshold of the second figures.
        threads: Of the engine.
        json: Write the figures here, too.
    """

    data: Path
    text: TextConfig = field(default_factory=TextConfig)
    threads: int = 1
    json: Path | None = None


class Truth(NamedTuple):
    """An annotated line. quad: (4, 2), x and y in pixels, from the first letter's top, clockwise."""

    quad: NDArray[np.float64]
    text: str


Picture = tuple[Path, list[Truth]]


class Word(NamedTuple):
    """A word in small letters, its centre, and the box (xyxy) that a word read for it must have its own centre in."""

    text: str
    centre: NDArray[np.float64]
    reach: NDArray[np.float64]


def main(config: Config) -> int:
    """Read everything once, and count."""
    report = begin(config)
    reader = build_reader(config.text, "cpu", config.threads)
    report["engine"] = reader.identity
    print(reader.identity)
    sets = {"sroie": list(sroie(config.data / "sroie")), "icdar15": list(icdar15(config.data / "icdar15"))}
    report["sets"] = {name: _measure(name, pictures, reader, config) for name, pictures in sets.items()}
    return finish(report, config.json, holds=True)


def _measure(name: str, pictures: Sequence[Picture], reader: TextReader, config: Config) -> dict[str, Any]:
    """One set."""
    read, seconds = [], {"wall": 0.0, "cpu": 0.0}
    reader([np.array(open_upright(pictures[0][0]))])  # the first picture of all is slower
    for path, _ in pictures:
        pixels = np.array(open_upright(path))
        began, began_cpu = time.perf_counter(), time.process_time()
        read.append((pixels.shape[1], pixels.shape[0], reader([pixels])[0]))
        seconds["wall"] += time.perf_counter() - began
        seconds["cpu"] += time.process_time() - began_cpu
    speed = {kind: len(pictures) / value for kind, value in seconds.items()}
    print(f"  {name}: {len(pictures)} pictures, {speed['wall']:.2f} a second, {speed['cpu']:.2f} a second of processor")
    truths = [truth for _, truth in pictures]
    figures = {}
    for above in (config.text.confidence, 0.0):
        shares = figures[str(above)] = counts(truths, read, above, name)
        print(f"    above {above}: " + ", ".join(f"{key} {value:.4g}" for key, value in shares.items()))
    return {"pictures": len(pictures), "pictures_per_second": speed, "above_confidence": figures}


def sroie(folder: Path) -> Iterator[Picture]:
    """Pictures with their lines."""
    for path in sorted((folder / "box").glob("*.csv")):
        picture = folder / "img" / f"{path.stem}.jpg"
        yield picture, [Truth(np.reshape(box.quad, (4, 2)), box.text) for box in read_truth(path, picture)]


def icdar15(folder: Path) -> Iterator[Picture]:
    """Pictures with those of their words that are not to be ignored."""
    for picture in read_object(folder / "textdet_test.json")["data_list"]:
        path = folder / picture["img_path"]
        texts, instances = ICDAR15_TEXTS.get(path.stem, {}), picture["instances"]
        if texts.keys() != {number for number, each in enumerate(instances) if not each["ignore"]}:
            raise ValueError(f"{path.name}: other words than those that were read off it")
        quads = {number: np.array(instances[number]["polygon"], dtype=np.float64).reshape(4, 2) for number in texts}
        yield path, [Truth(quads[number], text) for number, text in texts.items()]


def counts(
    truths: Sequence[list[Truth]], read: Sequence[tuple[int, int, list[Line]]], above: float, name: str
) -> dict[str, float]:
    """The shares of one set, and how many words and lines they are of."""
    config = replace(TextConfig(), confidence=above)
    totals: Counter[str] = Counter()
    for truth, (width, height, lines) in zip(truths, read, strict=True):
        kept = select(lines, width, height, config)
        shown = [Truth(_corners(box), text) for box, text in zip(kept.boxes, kept.texts, strict=True)]
        annotated, found = words(truth), words(shown)
        matched = (Counter(word.text for word in annotated) & Counter(word.text for word in found)).total()
        same = Counter(letters(line.text) for line in truth) & Counter(letters(text) for text in kept.texts)
        totals.update(words=len(annotated), found=len(found), matched=matched, placed=placed(annotated, found))
        totals.update(lines=sum(bool(letters(line.text)) for line in truth), same=same.total() - same[""])
    shares = {"recall": totals["matched"] / totals["words"], "placed": totals["placed"] / totals["words"]}
    if name == "sroie":
        shares["precision"] = totals["matched"] / totals["found"]
    shares["lines"] = totals["same"] / totals["lines"]
    return shares | {"of_words": totals["words"], "of_lines": totals["lines"]}


def _corners(box_4: NDArray[np.uint16]) -> NDArray[np.float64]:
    left, top, right, bottom = map(float, box_4)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def letters(text: str) -> str:
    """Letters and digits alone, in small letters."""
    return "".join(_WORD.findall(text.casefold()))


def words(lines: Sequence[Truth]) -> list[Word]:
    """Of all lines."""
    found = []
    for quad, text in lines:
        folded = text.casefold()
        start, end = (quad[0] + quad[3]) / 2, (quad[1] + quad[2]) / 2
        low, high = quad.min(axis=0), quad.max(axis=0)
        margin = (high[1] - low[1]) / 2
        reach = np.concatenate([low - margin, high + margin])
        for match in _WORD.finditer(folded):
            share = (match.start() + match.end()) / 2 / len(folded)
            found.append(Word(match.group(), start + share * (end - start), reach))
    return found


def placed(annotated: Sequence[Word], found: Sequence[Word]) -> int:
    """How many annotated words have a read one of their own in their place; each takes the nearest that is left."""
    left = list(found)
    count = 0
    for word in annotated:
        low, high = word.reach[:2], word.reach[2:]
        near = [w for w in left if w.text == word.text and (low <= w.centre).all() and (w.centre <= high).all()]
        if near:
            nearest = min(near, key=lambda other: float(((other.centre - word.centre) ** 2).sum()))
            left = [other for other in left if other is not nearest]
            count += 1
    return count


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
