"""Captions are truthful, and vaguer where the data set is to be harder."""

import dataclasses
import re

import pytest

from datasets.mannequins.captions import caption
from datasets.mannequins.colours import COLOURS, HAIR_COLOURS
from datasets.mannequins.dice import Dice
from datasets.mannequins.people import LEVELS, Person, people
from datasets.mannequins.photo import Sight

ALL_SEEN = frozenset({"top", "lower", "shoes", "hair", "face", "headwear", "jacket", "logo", "inner", "bag"})


def _near(one: Person, other: Person) -> bool:
    differences = {
        name.removesuffix("_colour").removesuffix("_side").removesuffix("_second").removesuffix("_pattern")
        for name, value in dataclasses.asdict(one).items()
        if value != getattr(other, name)
    }
    return len(differences) == 1


def test_harder_means_more_look_alikes_and_vaguer_captions():
    twins, words, exact = [], [], []
    for level in LEVELS.values():
        crowd = [person for _, _, person in people(2, level, (150, 0, 0))]
        twins.append(sum(any(_near(a, b) for b in crowd) for a in crowd))
        texts = [caption(p, Sight("front", True, ALL_SEEN), level, Dice(2, n)) for n, p in enumerate(crowd)]
        words.append(sum(len(text.split()) for text in texts) / len(texts))
        exact.append(sum(re.search(rf"\b{p.top_colour}\b", t) is not None for p, t in zip(crowd, texts, strict=True)))
    assert twins == sorted(twins)
    assert twins[0] < 0.1 * 150
    assert twins[-1] > 0.8 * 150
    assert words == sorted(words, reverse=True)
    assert exact == sorted(exact, reverse=True)
    assert 26 <= words[list(LEVELS).index("hard")] <= 33
    assert len(words) >= 3


def _colours_in(text: str) -> set[str]:
    shades = [*COLOURS.values(), *HAIR_COLOURS.values()]
    known = {word for shade in shades for word in shade.words + shade.loose}
    longest_first = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    return set(re.findall(rf"(?<![\w-])(?:{longest_first})(?![\w-])", text))


def _allowed(person: Person) -> set[str]:
    names = [value for name, value in dataclasses.asdict(person).items() if name.endswith(("_colour", "_second"))]
    allowed = {word for name in names if name in COLOURS for word in COLOURS[name].words + COLOURS[name].loose}
    allowed |= set(HAIR_COLOURS[person.hair_colour].words) if person.hair != "bald" else set()
    allowed |= {"white"} if person.lower_pattern == "side stripe" else set()
    return allowed | ({"dark"} if person.glasses == "sunglasses" else set())


@pytest.mark.parametrize("difficulty", LEVELS)
def test_captions_are_truthful(difficulty):
    level = LEVELS[difficulty]
    for _, number, person in people(7, level, (300, 0, 0)):
        text = caption(person, Sight("right", False, ALL_SEEN), level, Dice(7, number)).lower()
        assert _colours_in(text) <= _allowed(person), (text, person)
        assert not re.search(r"\b(none|an? (?:a|an))\b|  |\{|\ba [aeio]", text), text
        if person.sex == "man":
            assert not re.search(r"\b(woman|lady|she|her)\b", text)
        if person.bag == "none":
            assert not re.search(r"\b(bag|backpack|rucksack|suitcase|handbag|luggage|carrying)\b", text)
        if person.glasses == "none":
            assert "glasses" not in text


def test_captions_name_no_more_than_is_seen():
    level = LEVELS["easy"]
    for _, number, person in people(8, level, (150, 0, 0)):
        text = caption(person, Sight("back", True, frozenset({"top", "jacket"})), level, Dice(8, number)).lower()
        assert not re.search(
            r"\b(hair|shoes|boots|sneakers|jeans|trousers|skirt|shorts|bag|glasses|cap|logo)\b", text
        ), text
        assert person.jacket == "none" or not re.search(r" (over|on top of) ", text)
