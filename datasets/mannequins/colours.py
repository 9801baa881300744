"""The colours of clothes and hair: in pixels and in words."""

from typing import NamedTuple

from datasets.mannequins.shapes import Colour


class Shade(NamedTuple):
    """One colour: as it is drawn, and exact and loose words for it."""

    rgb: Colour
    words: tuple[str, ...]
    loose: tuple[str, ...] = ()


COLOURS = {
    "black": Shade((30, 30, 34), ("black",), ("dark", "dark-coloured")),
    "white": Shade((238, 238, 235), ("white",), ("light", "light-coloured", "pale")),
    "grey": Shade((138, 140, 145), ("grey", "gray"), ("greyish", "light gray")),
    "navy": Shade((34, 42, 86), ("navy", "navy blue", "dark blue"), ("blue", "dark")),
    "blue": Shade((44, 94, 192), ("blue", "bright blue", "royal blue"), ("blue",)),
    "light blue": Shade((142, 188, 230), ("light blue", "sky blue", "pale blue"), ("blue", "light-coloured")),
    "red": Shade((202, 38, 42), ("red", "bright red"), ("reddish", "bright")),
    "maroon": Shade((112, 28, 44), ("maroon", "dark red", "burgundy"), ("red", "dark")),
    "green": Shade((46, 142, 72), ("green",), ("greenish", "green")),
    "olive": Shade((98, 104, 60), ("olive", "olive green", "army green"), ("green", "dark green")),
    "yellow": Shade((242, 206, 62), ("yellow",), ("bright", "yellowish")),
    "orange": Shade((236, 124, 38), ("orange",), ("bright", "reddish")),
    "pink": Shade((242, 152, 182), ("pink",), ("pinkish", "light red")),
    "purple": Shade((122, 68, 164), ("purple", "violet"), ("purplish", "dark")),
    "brown": Shade((114, 74, 46), ("brown",), ("dark", "brownish")),
    "beige": Shade((214, 192, 154), ("beige", "tan", "khaki"), ("light-coloured", "light brown", "cream")),
}
HAIR_COLOURS = {
    "black": Shade((32, 27, 26), ("black", "dark")),
    "brown": Shade((92, 58, 34), ("brown", "dark brown")),
    "blonde": Shade((216, 178, 104), ("blonde", "blond", "fair")),
    "grey": Shade((168, 166, 164), ("grey", "gray")),
    "red": Shade((160, 70, 32), ("red", "ginger")),
}
