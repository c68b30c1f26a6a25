"""Made-up words: whoever learns to read from a few hundred words learns the words, and not how to spell.

Syllables that can be pronounced, strings of any letters, and numbers; all of them lower case.
"""

from collections.abc import Collection

from rice.data.world.draws import Dice

_SINGLE = "bcdfghjklmnprstvwxyz"
_CLUSTERS = ("br", "ch", "cl", "cr", "dr", "fl", "fr", "gl", "gr", "pl", "pr", "qu", "sh", "sk", "sl", "sp", "st", "tr")
_ONSETS = (*_SINGLE, *_CLUSTERS, "str", "sw", "th")
_VOWELS = "aeiou"
_NUCLEI = (*_VOWELS, *_VOWELS, "ai", "ea", "ee", "ie", "oa", "oo", "ou", "y")
_CODAS = (
    *"bdgklmnprstx",
    "ck",
    "ct",
    "ft",
    "ld",
    "ll",
    "lt",
    "mp",
    "nd",
    "ng",
    "nk",
    "nt",
    "rd",
    "rn",
    "ss",
    "st",
    "th",
)
_LETTERS, _DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"

LONGEST = 10
_NUMBERS, _ANY_LETTERS = 0.15, 0.25
_CLOSED = 0.6


def draw_spelling(dice: Dice, reserved: Collection[str] = ()) -> str:
    """A made-up word of 2 to LONGEST letters or digits that is none of `reserved`."""
    while (text := _draw(dice)) in reserved:
        pass
    return text


def _draw(dice: Dice) -> str:
    share = dice.real(0, 1)
    if share < _NUMBERS:
        return "".join(dice.choice(_DIGITS) for _ in range(dice.integer(2, 4)))
    if share < _NUMBERS + _ANY_LETTERS:
        return "".join(dice.choice(_LETTERS) for _ in range(dice.integer(3, 9)))
    syllables = [dice.choice(_ONSETS) + dice.choice(_NUCLEI) for _ in range(dice.integer(1, 3))]
    coda = dice.choice(_CODAS) if dice.chance(_CLOSED) else ""
    return ("".join(syllables) + coda)[:LONGEST]
