"""Train the tokenizer of text in pictures that is shipped with the package, on the project's own words alone.

    python benchmarks/train_tokenizer.py [--out FILE] [--count-words]

The text: words of signs, labels and receipts (tokenizer_signs.txt), words counted in the project's pages and docstrings
(tokenizer_prose.txt, written anew with --count-words), the generated world's words, the commonest alphabets
(tokenizer_letters.txt), and generated lines of prices, dates and numbers. Each word comes in small letters, in capitals
and with an initial.

Byte-level BPE: any text comes back from its tokens. Training again gives the same file.
"""

import ast
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import tyro
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from rice.curate.text.tokens import SHIPPED_FILE
from rice.data.world.draws import Dice
from rice.data.world.words import WORDS
from rice.files import atomic_write

ROOT = Path(__file__).parent.parent
PROSE, SIGNS, LETTERS = (Path(__file__).with_name(f"tokenizer_{name}.txt") for name in ("prose", "signs", "letters"))
SIZE = 8192
SEED = 0

SEEN = 3
"""How often the project must use a word for it to count."""
SIGN_WEIGHT, WORLD_WEIGHT, LETTER_WEIGHT = 40, 20, 60
LINES = 20_000

_WORD = re.compile(r"[^\W\d_]+")


def count() -> Counter[str]:
    """Words of the project's pages, docstrings and comments, in small letters, those that it uses a few times."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = [re.sub(r"`[^`]*`", " ", page.read_text(encoding="utf-8")) for page in pages]
    for package in ("rice", "probes", "tracking", "reports", "tests", "benchmarks"):
        for module in sorted((ROOT / package).rglob("*.py")):
            source = module.read_text(encoding="utf-8")
            nodes = ast.walk(ast.parse(source))
            kinds = ast.Module | ast.ClassDef | ast.FunctionDef
            texts += [ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds)]
            texts += re.findall(r"(?:^|\s)# (.*)", source)
    counts = Counter(word for text in texts for word in _WORD.findall(text.casefold()))
    return Counter({word: times for word, times in counts.items() if times >= SEEN})


def corpus() -> Iterator[str]:
    """Lines of training text, the same ones every time."""
    counts = Counter({word: 1 + math.isqrt(int(times)) for word, times in map(str.split, _rows(PROSE))})
    for row in _rows(SIGNS)[1:]:
        counts.update(dict.fromkeys(row.split(), SIGN_WEIGHT))
    counts.update({word: WORLD_WEIGHT for pool in WORDS.values() for word in pool})
    for word, times in sorted(counts.items()):
        for form in dict.fromkeys((word, word.upper(), word.capitalize())):
            yield from [form] * times
    yield from letters()
    yield from lines()


def letters() -> Iterator[str]:
    """Invented words in which every letter is frequent and hardly any pair is: whole letters become tokens."""
    for key, alphabet in enumerate(_rows(LETTERS)[1:]):
        for case, signs in enumerate(dict.fromkeys((alphabet, alphabet.upper()))):
            dice = Dice(SEED, 1, key, case)
            for _ in range(LETTER_WEIGHT * len(signs) // 4):
                yield "".join(dice.choice(signs) for _ in range(4))


def _rows(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def lines() -> Iterator[str]:
    """Prices, dates, times, telephone numbers, quantities, as receipts and signs have them."""
    dice = Dice(SEED, 2)
    for _ in range(LINES):
        yield dice.choice(FORMS)(dice)


_PRICES = ("{}", "${}", "RM {}", "€ {}", "{} €", "£{}", "Total: {}", "USD {}", "1 x {}", "-{}")
_DATES = (
    "{d:02}/{m:02}/{y}",
    "{d:02}-{m:02}-{s:02}",
    "{y}-{m:02}-{d:02}",
    "{d} {n} {y}",
    "{n} {d}, {y}",
    "{d}.{m}.{y}",
)
_TIMES = ("{h:02}:{m:02}", "{k}:{m:02} AM", "{k}:{m:02} PM", "{h}h{m:02}", "{k}am - {k}pm")
_NUMBERS = ("{}", "No. {}", "#{}", "Tel: {}", "({})", "{}%", "{} ml", "{}g", "{} kg", "{} km", "A{}", "ABC {}")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _price(dice: Dice) -> str:
    whole, point = dice.integer(0, dice.choice((9, 99, 999))), dice.choice(".....,")
    cents = dice.choice(("00", "50", "90", "95", "99", f"{dice.integer(0, 99):02}"))
    return dice.choice(_PRICES).format(f"{whole}{point}{cents}")


def _date(dice: Dice) -> str:
    day, month, year = dice.integer(1, 31), dice.integer(1, 12), dice.integer(1990, 2029)
    return dice.choice(_DATES).format(d=day, m=month, y=year, s=year % 100, n=_MONTHS[month - 1])


def _time(dice: Dice) -> str:
    hour = dice.integer(0, 23)
    return dice.choice(_TIMES).format(h=hour, k=hour % 12 + 1, m=dice.integer(0, 59))


def _number(dice: Dice) -> str:
    value = "".join(str(dice.integer(0, 9)) for _ in range(dice.integer(1, 8)))
    return dice.choice(_NUMBERS).format(value)


FORMS = (_price, _date, _time, _number)


def train() -> Tokenizer:
    """From the corpus. A space is set before each text, so that a word is the same at its start as within it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Prepend(" ")])
    digits = pre_tokenizers.Split(Regex(r" ?\d{1,2}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def main(*, out: Path = SHIPPED_FILE, count_words: bool = False) -> None:
    """Train and write.

    Args:
        out: The tokenizer.json.
        count_words: First count the project's words anew, into tokenizer_prose.txt.
    """
    if count_words:
        with atomic_write(PROSE) as file:
            file.writelines(f"{word} {times}\n" for word, times in sorted(count().items()))
    with atomic_write(out) as file:
        file.write(train().to_str() + "\n")
    print(f"wrote {out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    tyro.cli(main)
