"""Bags, on the back, at the side, in the hand or on wheels."""

from datasets.mannequins.body import SIDES, Body
from datasets.mannequins.shapes import Colour, Limb, Point, Shell, darker, lighter


def bag_layer(body: Body) -> str:
    """Whether the bag is covered by the body (behind), lies on it under the arms (on), or covers all (before)."""
    person = body.person
    if person.bag == "backpack":
        return "behind" if body.cos > 0.3 else "on" if body.cos > -0.75 else "before"
    near = -SIDES[person.bag_side] * body.sin
    return "behind" if near < -0.4 else "before"


def bag_hidden(body: Body) -> bool:
    """Whether the wearer's own body covers too much of the bag to see it."""
    person = body.person
    limits = {"shoulder bag": 0.6, "handbag": 0.85, "shopping bag": 0.9}
    return person.bag in limits and SIDES[person.bag_side] * body.sin > limits[person.bag]


def draw_bag(body: Body, layer: str) -> None:
    """Draw the bag if it belongs to this layer."""
    if body.person.bag != "none" and bag_layer(body) == layer:
        _DRAW[body.person.bag](body, body.look.colours["bag"])


def draw_straps(body: Body) -> None:
    """What holds the bag: lies on the clothes."""
    person, brush, colour = body.person, body.brush, darker(body.look.colours["bag"], 0.15)
    width = 0.022 * body.scale
    top, drop = 0.825 - body.drop, body.drop
    if person.bag == "backpack" and body.cos > -0.3:
        for sign in SIDES.values():
            if body.cos > 0.3 or sign * body.sin < 0:
                points = [
                    body.at(sign * 0.066, top, 0.02),
                    body.at(sign * 0.074, 0.73 - drop, 0.09),
                    body.at(sign * 0.1, 0.63 - drop, 0.02),
                ]
                brush.line(points, width, colour)
                body.mark("bag", *points)
    if person.bag == "shoulder bag":
        sign = SIDES[person.bag_side]
        front = 1 if body.cos > 0 else -1
        points = [
            body.at(-sign * 0.05, top, 0),
            body.at(sign * 0.02, 0.69 - drop, 0.07 * front),
            body.at(sign * 0.1, 0.54 - drop, 0.02 * front),
        ]
        brush.line(points, width * 0.8, colour)


def _block(body: Body, corners: list[Point], colour: Colour) -> Shell:
    """A soft upright box with shading, given as left top, right top, right bottom, left bottom."""
    (x0, y0), (x1, _), (x2, y1), (x3, _) = corners
    middle = (y0 + y1) / 2
    shell = Shell(
        [
            (y0, (x0 + x1) / 2, (x1 - x0) * 0.42),
            (y0 + (y1 - y0) * 0.12, (x0 + x1) / 2, (x1 - x0) * 0.5),
            (middle, (x0 + x1 + x2 + x3) / 4, (x1 - x0 + x2 - x3) * 0.26),
            (y1 - (y1 - y0) * 0.1, (x2 + x3) / 2, (x2 - x3) * 0.5),
            (y1, (x2 + x3) / 2, (x2 - x3) * 0.44),
        ]
    )
    body.brush.shell(shell, colour)
    body.brush.shade(shell)
    return shell


def _box_at(body: Body, centre: Point, half: float, top: float, bottom: float, flare: float = 1.0) -> list[Point]:
    """Corners of a box around a place; sizes in body heights."""
    x, y = centre
    s = body.scale
    return [
        (x - half * s, y - top * s),
        (x + half * s, y - top * s),
        (x + half * flare * s, y + bottom * s),
        (x - half * flare * s, y + bottom * s),
    ]


def _backpack(body: Body, colour: Colour) -> None:
    centre = body.at(0, 0.7 - body.drop, -0.1)
    half = 0.09 * abs(body.cos) + 0.058 * abs(body.sin)
    corners = _box_at(body, centre, half, 0.115, 0.125, 1.06)
    shell = _block(body, corners, colour)
    if body.cos < 0.2:
        body.brush.strip(shell, (-0.75, 0.75), (0.55, 0.9), darker(colour, 0.22))
        body.brush.strip(shell, (-0.75, 0.75), (0.55, 0.585), lighter(colour, 0.35))
        body.brush.strip(shell, (-0.8, 0.8), (0.2, 0.225), darker(colour, 0.5))
        handle = shell.at(0, 0)
        body.brush.disc(handle, 0.018 * body.scale, 0.01 * body.scale, darker(colour, 0.4))
    body.mark("bag", corners[0], corners[2])


def _shoulder_bag(body: Body, colour: Colour) -> None:
    sign = SIDES[body.person.bag_side]
    centre = body.at(sign * 0.118 * body.look.width, 0.53 - body.drop, 0.01)
    half = 0.036 * abs(body.cos) + 0.082 * abs(body.sin)
    corners = _box_at(body, centre, half + 0.014, 0.05, 0.075)
    shell = _block(body, corners, colour)
    body.brush.strip(shell, (-0.95, 0.95), (0.08, 0.5), darker(colour, 0.2))
    body.brush.disc(shell.at(0, 0.5), 0.009 * body.scale, 0.009 * body.scale, (226, 196, 110))
    body.mark("bag", corners[0], corners[2])


def _held(body: Body) -> Point:
    return body.at(*body.arms[body.person.bag_side][2])


def _handbag(body: Body, colour: Colour) -> None:
    x, y = _held(body)
    s = body.scale
    half = 0.05 + 0.028 * abs(body.sin)
    box = (x - half * 0.55 * s, y, x + half * 0.55 * s, y + 0.085 * s)
    body.brush.draw.arc(box, 180, 360, fill=darker(colour, 0.25), width=max(1, round(0.013 * s)))
    corners = _box_at(body, (x, y + 0.09 * s), half, 0.052, 0.052, 1.16)
    shell = _block(body, corners, colour)
    body.brush.strip(shell, (-1, 1), (0.3, 0.36), darker(colour, 0.4))
    body.brush.disc(shell.at(0, 0.36), 0.01 * s, 0.01 * s, (226, 196, 110))
    body.mark("bag", corners[0], corners[2])


def _shopping_bag(body: Body, colour: Colour) -> None:
    x, y = _held(body)
    s = body.scale
    for side in (-1, 1):
        body.brush.line([(x, y), (x + side * 0.03 * s, y + 0.05 * s)], 0.01 * s, darker(colour, 0.2))
    half = 0.05 + 0.012 * abs(body.sin)
    corners = _box_at(body, (x, y + 0.11 * s), half, 0.065, 0.075, 1.02)
    body.brush.polygon(corners, colour)
    body.brush.strip(
        Limb((x, y + 0.05 * s), (x, y + 0.18 * s), half * s, half * s),
        (-0.5, 0.5),
        (0.3, 0.7),
        lighter(colour, 0.55),
        200,
    )
    body.brush.shade(Limb((x, y + 0.045 * s), (x, y + 0.185 * s), half * s, half * s))
    body.mark("bag", corners[0], corners[2])


def _suitcase(body: Body, colour: Colour) -> None:
    hand = _held(body)
    s = body.scale
    sign = SIDES[body.person.bag_side]
    wheel = body.at(sign * 0.19 * body.look.width, 0.012, -0.13)
    half = 0.07 * abs(body.cos) + 0.05 * abs(body.sin)
    top = (wheel[0], wheel[1] - 0.27 * s)
    for side in (-0.45, 0.45):
        body.brush.line(
            [(hand[0] + side * half * 0.8 * s, hand[1]), (top[0] + side * half * s, top[1])], 0.009 * s, (120, 122, 126)
        )
    body.brush.line([(hand[0] - half * 0.4 * s, hand[1]), (hand[0] + half * 0.4 * s, hand[1])], 0.014 * s, (50, 50, 54))
    corners = _box_at(body, (wheel[0], wheel[1] - 0.14 * s), half, 0.13, 0.125)
    for side in (-0.7, 0.7):
        body.brush.disc((wheel[0] + side * half * s, wheel[1] - 0.008 * s), 0.014 * s, 0.014 * s, (30, 30, 32))
    shell = _block(body, corners, colour)
    for u in (-0.5, 0.0, 0.5):
        body.brush.strip(shell, (u - 0.06, u + 0.06), (0.08, 0.92), darker(colour, 0.28))
    body.mark("bag", corners[0], corners[2])


_DRAW = {
    "backpack": _backpack,
    "shoulder bag": _shoulder_bag,
    "handbag": _handbag,
    "shopping bag": _shopping_bag,
    "suitcase": _suitcase,
}
