"""Who is drawn: the attributes of a Mannequin, how common they are, and what each difficulty makes of them."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from datasets.mannequins.colours import COLOURS, HAIR_COLOURS
from datasets.mannequins.dice import WHO, Dice

SPLITS = ("train", "val", "test")

_STREET = {"black": 7, "white": 4, "grey": 4, "navy": 4, "blue": 3, "red": 2, "brown": 2, "beige": 2, "light blue": 1.5}
"""How much more common than the rest (1) a colour is on a street."""
_ALIKE = {
    "black": ("navy", "brown", "maroon"),
    "navy": ("blue", "purple"),
    "blue": ("light blue", "purple"),
    "white": ("beige", "light blue"),
    "grey": ("light blue", "beige"),
    "red": ("maroon", "orange"),
    "maroon": ("brown", "purple"),
    "olive": ("green", "brown", "grey"),
    "yellow": ("beige", "orange"),
    "orange": ("brown",),
}
"""Colours that are easily mistaken for each other, each pair once."""

PALETTES = {
    "hair": tuple(HAIR_COLOURS),
    "headwear": ("black", "white", "red", "blue", "grey", "yellow", "green", "beige"),
    "top": tuple(COLOURS),
    "jacket": ("black", "navy", "grey", "brown", "olive", "red", "blue", "beige", "green", "orange"),
    "trousers": ("black", "grey", "navy", "beige", "brown", "olive", "white", "red"),
    "jeans": ("blue", "navy", "light blue", "black", "grey"),
    "leggings": ("black", "grey", "navy", "purple"),
    "shorts": ("black", "grey", "beige", "blue", "red", "white", "olive", "green"),
    "skirt": ("black", "red", "white", "blue", "pink", "grey", "yellow", "green", "beige"),
    "shoes": ("black", "white", "brown", "red", "grey", "blue", "yellow"),
    "bag": ("black", "brown", "red", "blue", "grey", "white", "green", "yellow", "pink", "orange"),
}
_GLASSES = ("none", "glasses", "sunglasses")
BARE_ARMS = ("t-shirt", "polo shirt", "tank top")


@dataclass(frozen=True)
class Person:
    """The ground truth of one identity. 'none' stands for an absent thing and its colour."""

    sex: str
    skin: str
    hair: str
    hair_colour: str
    headwear: str
    headwear_colour: str
    glasses: str
    top: str
    """a dress counts as a top without a lower garment"""
    sleeves: str
    top_colour: str
    top_pattern: str
    top_second: str
    """the pattern's other colour"""
    jacket: str
    """worn open over the top"""
    jacket_colour: str
    lower: str
    lower_colour: str
    lower_pattern: str
    shoes: str
    shoes_colour: str
    bag: str
    bag_colour: str
    bag_side: str
    """the wearer's side"""


@dataclass(frozen=True)
class Level:
    """One difficulty."""

    street: float
    """0: all colours equally likely; 1: as on a street, where most clothes are black, grey, white or blue"""
    twins: float
    """share of identities that differ from another one of their split in one detail"""
    close: bool
    """whether that detail may be a side, glasses, hair or a similar colour"""
    mention: float
    """chance that a caption mentions a visible detail"""
    vague: float
    """chance that a colour or a noun is imprecise"""
    extras: float
    """how often people carry bags, wear headwear, jackets and patterns, relative to medium"""
    occlusion: float
    """share of images with something in front of the figure, or legs cut off"""
    light: float
    """strength of brightness, cast, blur, noise and placement, from 0 to 1"""


LEVELS = {
    "easy": Level(0.0, 0.0, False, 0.98, 0.01, 1.2, 0.03, 0.1),
    "medium": Level(0.2, 0.12, False, 0.93, 0.08, 1.1, 0.15, 0.5),
    "hard": Level(0.5, 0.4, True, 0.8, 0.22, 1.0, 0.3, 0.75),
    "extreme": Level(0.8, 0.7, True, 0.64, 0.42, 0.9, 0.45, 1.0),
}


def _alike(one: str, other: str) -> bool:
    return other in _ALIKE.get(one, ()) or one in _ALIKE.get(other, ())


def colour(dice: Dice, level: Level, palette: str, old: str | None = None) -> str:
    """A colour from a palette; with ``old``, one that can be told from it."""
    weights = {name: _STREET.get(name, 1) ** level.street for name in PALETTES[palette] if name != old}
    if old and not level.close:
        weights = {name: weight for name, weight in weights.items() if not _alike(name, old)} or weights
    return dice.weighted(weights)


def _top(dice: Dice, level: Level, sex: str) -> dict[str, str]:
    kinds = {"t-shirt": 5, "shirt": 3, "sweater": 2.5, "hoodie": 2, "polo shirt": 1.5, "tank top": 0.8}
    if sex == "woman":
        kinds |= {"dress": 2.5, "blouse": 2, "polo shirt": 0.5}
    top = dice.weighted(kinds)
    long = {"shirt": 0.6, "blouse": 0.6, "sweater": 1.0, "hoodie": 1.0, "dress": 0.25}.get(top, 0.0)
    sleeves = "long" if dice.chance(long) else "short"
    if top == "tank top" or (top == "dress" and sleeves == "short" and dice.chance(0.5)):
        sleeves = "none"
    first = colour(dice, level, "top")
    return {"top": top, "sleeves": sleeves, "top_colour": first} | _pattern(dice, level, top, first)


def _pattern(dice: Dice, level: Level, top: str, first: str, old: str | None = None) -> dict[str, str]:
    kinds = {"plain": 5 / level.extras, "striped": 2, "checked": 1.5, "dotted": 1, "logo": 1.5}
    if top in ("shirt", "blouse", "dress"):
        del kinds["logo"]
    kinds.pop(old, None)
    pattern = dice.weighted(kinds)
    seconds = [c for c in ("white", "black", "red", "yellow", "grey", "navy") if c != first and not _alike(c, first)]
    return {"top_pattern": pattern, "top_second": "none" if pattern == "plain" else dice.pick(seconds)}


def _jacket(dice: Dice, level: Level, sex: str, top: str) -> dict[str, str]:
    if top in ("hoodie", "tank top") or not dice.chance(0.28 * level.extras):
        return {"jacket": "none", "jacket_colour": "none"}
    kinds = {"jacket": 4, "coat": 2, "blazer": 2, "vest": 1.2, "cardigan": 2 if sex == "woman" else 0.3}
    return {"jacket": dice.weighted(kinds), "jacket_colour": colour(dice, level, "jacket")}


def _lower(dice: Dice, level: Level, sex: str, top: str) -> dict[str, str]:
    if top == "dress":
        return {"lower": "none", "lower_colour": "none", "lower_pattern": "none"}
    kinds = {"trousers": 4, "jeans": 4, "shorts": 2}
    if sex == "woman":
        kinds |= {"skirt": 2.5, "leggings": 1.2, "trousers": 2.5}
    lower = dice.weighted(kinds)
    patterns = {"skirt": {"plain": 4, "checked": 1, "dotted": 1}, "trousers": {"plain": 8, "side stripe": 1}}
    pattern = dice.weighted(patterns.get(lower, {"plain": 1}))
    return {"lower": lower, "lower_colour": colour(dice, level, lower), "lower_pattern": pattern}


def _shoes(dice: Dice, level: Level, sex: str, lower: str) -> dict[str, str]:
    kinds = {"sneakers": 5, "leather shoes": 2, "boots": 1.5, "sandals": 0.8}
    if sex == "woman":
        kinds |= {"heels": 1.5, "leather shoes": 0.7, "boots": 2}
    if lower == "shorts":
        kinds = {"sneakers": 5, "sandals": 1.5}
    return {"shoes": dice.weighted(kinds), "shoes_colour": colour(dice, level, "shoes")}


def _bag(dice: Dice, level: Level, sex: str, old: str | None = None) -> dict[str, str]:
    kinds = {"none": 4 / level.extras, "backpack": 3, "shoulder bag": 2, "handbag": 0.5, "suitcase": 0.8}
    kinds |= {"shopping bag": 0.8} | ({"handbag": 2.5} if sex == "woman" else {})
    kinds.pop(old, None)
    bag = dice.weighted(kinds)
    if bag == "none":
        return {"bag": "none", "bag_colour": "none", "bag_side": "none"}
    side = "none" if bag == "backpack" else dice.pick(("left", "right"))
    return {"bag": bag, "bag_colour": colour(dice, level, "bag"), "bag_side": side}


def _headwear(dice: Dice, level: Level, old: str | None = None) -> dict[str, str]:
    kinds = {"none": 5 / level.extras, "cap": 1, "beanie": 0.6, "hat": 0.4}
    kinds.pop(old, None)
    kind = dice.weighted(kinds)
    return {"headwear": kind, "headwear_colour": "none" if kind == "none" else colour(dice, level, "headwear")}


def _hair(dice: Dice, sex: str) -> dict[str, str]:
    if sex == "man":
        style = dice.weighted({"short": 7, "curly": 1.2, "bald": 1, "shoulder-length": 0.5})
    else:
        style = dice.weighted({"long": 3, "shoulder-length": 2.5, "ponytail": 2.5, "bun": 1.2, "short": 1, "curly": 1})
    shade = dice.weighted({"black": 4, "brown": 3, "blonde": 2, "grey": 0.8, "red": 0.8})
    return {"hair": style, "hair_colour": "none" if style == "bald" else shade}


def stranger(dice: Dice, level: Level) -> Person:
    """A random person."""
    sex = dice.pick(("man", "woman"))
    parts = {"sex": sex, "skin": dice.weighted({"light": 4, "tan": 2, "brown": 1.5, "dark": 1.5})}
    parts |= _hair(dice, sex) | _headwear(dice, level)
    parts["glasses"] = dice.weighted(dict(zip(_GLASSES, (7, 1.5, 1), strict=True)))
    parts |= _top(dice, level, sex)
    parts |= _jacket(dice, level, sex, parts["top"]) | _lower(dice, level, sex, parts["top"])
    parts |= _shoes(dice, level, sex, parts["lower"]) | _bag(dice, level, sex)
    return Person(**parts)


def _twin(dice: Dice, level: Level, one: Person) -> Person:
    """A look-alike: the same attributes but for one detail (with a thing, its colour and side come or go)."""
    details = ["top_colour", "lower_colour", "shoes_colour", "bag_colour", "jacket_colour", "headwear_colour"]
    details += ["bag", "headwear", "pattern", "sleeves"]
    if level.close:
        details += ["hair_colour", "bag_side", "glasses"]
    details = [d for d in details if getattr(one, d, "") != "none" or d in ("bag", "headwear", "glasses")]
    detail = dice.pick([d for d in details if d != "sleeves" or one.top in ("shirt", "blouse", "dress")])
    choices = {"sleeves": ("long", "short"), "bag_side": ("left", "right"), "glasses": _GLASSES}
    if detail == "bag":
        change = _bag(dice, level, one.sex, old=one.bag)
    elif detail == "headwear":
        change = _headwear(dice, level, old=one.headwear)
    elif detail == "pattern":
        change = _pattern(dice, level, one.top, one.top_colour, old=one.top_pattern)
    elif detail in choices:
        change = {detail: dice.pick([value for value in choices[detail] if value != getattr(one, detail)])}
    else:
        thing = detail.removesuffix("_colour")
        palette = one.lower if thing == "lower" else thing
        change = {detail: colour(dice, level, palette, old=getattr(one, detail))}
    if change.get("top_colour") == one.top_second:
        change["top_second"] = one.top_colour
    return dataclasses.replace(one, **change)


def people(seed: int, level: Level, counts: Sequence[int]) -> Iterator[tuple[str, int, Person]]:
    """All identities as (split, number within the split, person); no two of them have the same attributes."""
    known: set[Person] = set()
    for number, (split, size) in enumerate(zip(SPLITS, counts, strict=True)):
        drawn: list[Person] = []
        for identity in range(size):
            attempts = (_candidate(Dice(seed, number, identity, WHO, n), level, drawn) for n in count())
            person = next(each for each in attempts if each not in known)
            known.add(person)
            drawn.append(person)
            yield split, identity, person


def _candidate(dice: Dice, level: Level, drawn: list[Person]) -> Person:
    twin = drawn and dice.chance(level.twins)
    return _twin(dice, level, dice.pick(drawn)) if twin else stranger(dice, level)
