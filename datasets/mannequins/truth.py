"""What is true of drawn figures, and which of it a caption says: for probing what a model reads.

A detail is what can change between look-alikes: a colour, a pattern, sleeves, glasses, a bag, the side it is on.
"""

import re
from collections.abc import Sequence
from dataclasses import fields

from datasets.json_file import load_json
from datasets.mannequins import vocabulary
from datasets.mannequins.colours import COLOURS, HAIR_COLOURS
from datasets.mannequins.people import Person
from datasets.records import Dataset, ImageRecord

_TOGETHER = {
    "bag": {"bag", "bag_colour", "bag_side"},
    "headwear": {"headwear", "headwear_colour"},
    "top_pattern": {"top_pattern", "top_second"},
    "top_colour": {"top_colour", "top_second"},
}
"""fields that change with another one, which gives the detail its name"""

DETAILS = {
    "top_colour": "colour of the top",
    "jacket_colour": "colour of the jacket",
    "lower_colour": "colour of trousers or skirt",
    "shoes_colour": "colour of the shoes",
    "headwear_colour": "colour of the headwear",
    "bag_colour": "colour of the bag",
    "hair_colour": "colour of the hair",
    "top_pattern": "pattern of the top",
    "sleeves": "length of the sleeves",
    "headwear": "cap, beanie, hat",
    "glasses": "glasses",
    "bag": "kind of bag",
    "bag_side": "side of the bag",
}
"""names of the details, in the order of tables"""


def read_truth(dataset: Dataset, records: Sequence[ImageRecord]) -> list[Person] | None:
    """Who is on each of some images of a data set; None unless it was drawn by this program."""
    path = dataset.annotation
    if path is None or path.suffix != ".json" or not (path.parent / "mannequins.json").is_file():
        return None
    folder, names = path.parent / "imgs", {field.name for field in fields(Person)}
    truth, content = {}, load_json(path)
    for row in content if isinstance(content, list) else ():
        attributes, image = row.get("attributes"), row.get("file_path", row.get("img_path"))
        if not isinstance(attributes, dict) or attributes.keys() != names or image is None:
            return None
        truth[folder / image] = Person(**attributes)
    return [truth[record.path] for record in records] if all(record.path in truth for record in records) else None


def changed_detail(one: Person, other: Person) -> str | None:
    """The key of DETAILS in which alone two people differ, as look-alikes do; None for any other two."""
    changed = {field.name for field in fields(Person) if getattr(one, field.name) != getattr(other, field.name)}
    for detail, together in _TOGETHER.items():
        if detail in changed and changed <= together:
            return detail
    return next(iter(changed)) if len(changed) == 1 and changed <= DETAILS.keys() else None


def has_detail(person: Person, detail: str) -> bool:
    """Whether there is something to say about a detail: of someone without a bag a caption says nothing of its side."""
    return getattr(person, detail) not in ("none", "plain")


def names_detail(caption: str, person: Person, detail: str) -> bool:
    """Whether a caption of a person says what is true of a detail, in however loose words."""
    return has_detail(person, detail) and bool(re.search(_pattern(person, detail), caption.lower()))


def _pattern(person: Person, detail: str) -> str:
    value = getattr(person, detail)
    if detail == "hair_colour":
        return rf"\b{_one_of(HAIR_COLOURS[value].words)} (?:hair|ponytail|bun)\b"
    if detail.endswith("_colour"):
        return _coloured(value, _nouns(getattr(person, detail.removesuffix("_colour"))))
    if detail == "top_pattern":
        words = ("logo", "print", "graphic") if value == "logo" else vocabulary.PATTERN_WORDS[value]
        return rf"\b{_one_of(words)}\b"
    if detail == "bag_side":
        return rf"\b{value} (?:side|hip|hand)\b"
    words = {"sleeves": vocabulary.SLEEVES, "glasses": vocabulary.GLASSES}.get(detail, {}).get(value)
    return rf"\b{_one_of(words or _nouns(value))}\b"


def _nouns(kind: str) -> tuple[str, ...]:
    return (*vocabulary.NOUNS.get(kind, (kind,)), *vocabulary.LOOSE_NOUNS.get(kind, ()))


def _coloured(colour: str, nouns: Sequence[str]) -> str:
    """A noun with its colour before it, and at most a second colour, a pattern and sleeves in between."""
    _, exact, loose = COLOURS[colour]
    every = _one_of([word for shade in COLOURS.values() for word in (*shade.words, *shade.loose)])
    between = r"(?:[ -](?!and\b|with\b|over\b|an?\b|on\b)[\w-]+){0,3}?"
    return rf"\b{_one_of((*exact, *loose))}(?: and {every})?{between} {_one_of(nouns)}\b"


def _one_of(words: Sequence[str]) -> str:
    return f"(?:{'|'.join(re.escape(word) for word in sorted(set(words), key=len, reverse=True))})"
