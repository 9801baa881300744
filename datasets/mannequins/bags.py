"""Bags, on the back, at the side, in the hand or on wheels."""

from datasets.mannequins.body import SIDES, Body
from datasets.mannequins.shapes import Colour, Limb, Pen, Shell, darker, lighter, mirrored

_GOLD = (226, 196, 110)


def bag_layer(body: Body) -> str:
    """Whether the bag is covered by the body (behind), lies on it under the arms (on), or covers all (before)."""
    if body.person.bag == "backpack":
        return "behind" if body.cos > 0.3 else "on" if body.cos > -0.75 else "before"
    return "behind" if SIDES[body.person.bag_side] * body.sin > 0.4 else "before"


def bag_hidden(body: Body) -> bool:
    """Whether the wearer's own body covers too much of the bag to see it."""
    limit = {"shoulder bag": 0.6, "handbag": 0.85, "shopping bag": 0.9}.get(body.person.bag)
    return limit is not None and SIDES[body.person.bag_side] * body.sin > limit


def draw_bag(body: Body, layer: str) -> None:
    """Draw the bag if it belongs to this layer."""
    if body.person.bag != "none" and bag_layer(body) == layer:
        _DRAW[body.person.bag](body, body.look.colours["bag"])


def draw_straps(body: Body) -> None:
    """What holds the bag: lies on the clothes."""
    person, brush, colour = body.person, body.brush, darker(body.look.colours["bag"], 0.15)
    width = 0.022 * body.scale
    if person.bag == "backpack" and body.cos > -0.3:
        for sign in SIDES.values():
            if body.cos > 0.3 or sign * body.sin < 0:
                strap = ((sign * 0.066, 0.825, 0.02), (sign * 0.074, 0.73, 0.09), (sign * 0.1, 0.63, 0.02))
                points = [body.upper(*place) for place in strap]
                brush.line(points, width, colour)
                body.mark("bag", *points)
    if person.bag == "shoulder bag":
        sign, front = SIDES[person.bag_side], 1 if body.cos > 0 else -1
        strap = ((-sign * 0.05, 0.825, 0), (sign * 0.02, 0.69, 0.07 * front), (sign * 0.1, 0.54, 0.02 * front))
        brush.line([body.upper(*place) for place in strap], width * 0.8, colour)


def _block(body: Body, spot: Pen, half: float, top: float, bottom: float, colour: Colour, flare: float = 1.0) -> Shell:
    """A soft upright box with shading around a spot, marked as the bag; sizes in body heights."""
    high, low, width = spot.at(-half, -top), spot.at(half * flare, bottom), half * spot.scale
    # how far down, and how much of the upper and of the lower half width
    rings = ((0, 0.84, 0), (0.12, 1, 0), (0.5, 0.52, 0.52), (0.9, 0, 1), (1, 0, 0.88))
    x, y, height = spot.place[0], high[1], low[1] - high[1]
    shell = Shell([(y + height * t, x, width * (upper + lower * flare)) for t, upper, lower in rings])
    body.brush.strip(shell, (-1, 1), (0, 1), colour)
    body.brush.shade(shell)
    body.mark("bag", high, low)
    return shell


def _backpack(body: Body, colour: Colour) -> None:
    half, brush = 0.09 * abs(body.cos) + 0.058 * abs(body.sin), body.brush
    shell = _block(body, body.spot(body.upper(0, 0.7, -0.1)), half, 0.115, 0.125, colour, 1.06)
    if body.cos < 0.2:
        brush.strip(shell, (-0.75, 0.75), (0.55, 0.9), darker(colour, 0.22))
        brush.strip(shell, (-0.75, 0.75), (0.55, 0.585), lighter(colour, 0.35))
        brush.strip(shell, (-0.8, 0.8), (0.2, 0.225), darker(colour, 0.5))
        body.spot(shell.at(0, 0)).disc(0, 0, 0.018, 0.01, darker(colour, 0.4))


def _shoulder_bag(body: Body, colour: Colour) -> None:
    side = body.upper(SIDES[body.person.bag_side] * 0.118 * body.look.width, 0.53, 0.01)
    half = 0.014 + 0.036 * abs(body.cos) + 0.082 * abs(body.sin)
    shell = _block(body, body.spot(side), half, 0.05, 0.075, colour)
    body.brush.strip(shell, (-0.95, 0.95), (0.08, 0.5), darker(colour, 0.2))
    body.spot(shell.at(0, 0.5)).disc(0, 0, 0.009, 0.009, _GOLD)


def _hand(body: Body) -> Pen:
    """The hand that carries the bag."""
    return body.spot(body.at(*body.arms[body.person.bag_side][2]))


def _handbag(body: Body, colour: Colour) -> None:
    hand, half = _hand(body), 0.05 + 0.028 * abs(body.sin)
    box = (*hand.at(-half * 0.55, 0), *hand.at(half * 0.55, 0.085))
    body.brush.draw.arc(box, 180, 360, fill=darker(colour, 0.25), width=max(1, round(0.013 * body.scale)))
    shell = _block(body, body.spot(hand.at(0, 0.09)), half, 0.052, 0.052, colour, 1.16)
    body.brush.strip(shell, (-1, 1), (0.3, 0.36), darker(colour, 0.4))
    body.spot(shell.at(0, 0.36)).disc(0, 0, 0.01, 0.01, _GOLD)


def _shopping_bag(body: Body, colour: Colour) -> None:
    hand, half = _hand(body), 0.05 + 0.012 * abs(body.sin)
    for dx in (-0.03, 0.03):
        hand.line([(0, 0), (dx, 0.05)], 0.01, darker(colour, 0.2))
    hand.polygon(mirrored([(half, 0.045), (half * 1.02, 0.185)]), colour)
    wide = half * body.scale
    front = Limb(hand.at(0, 0.05), hand.at(0, 0.18), wide, wide)
    body.brush.strip(front, (-0.5, 0.5), (0.3, 0.7), lighter(colour, 0.55), 200)
    body.brush.shade(Limb(hand.at(0, 0.045), hand.at(0, 0.185), wide, wide))
    body.mark("bag", hand.at(-half, 0.045), hand.at(half * 1.02, 0.185))


def _suitcase(body: Body, colour: Colour) -> None:
    hand, half = _hand(body), 0.07 * abs(body.cos) + 0.05 * abs(body.sin)
    wheels = body.spot(body.at(SIDES[body.person.bag_side] * 0.19 * body.look.width, 0.012, -0.13))
    for dx in (-0.45 * half, 0.45 * half):
        body.brush.line([hand.at(dx * 0.8, 0), wheels.at(dx, -0.27)], 0.009 * body.scale, (120, 122, 126))
    hand.line([(-half * 0.4, 0), (half * 0.4, 0)], 0.014, (50, 50, 54))
    for dx in (-0.7 * half, 0.7 * half):
        wheels.disc(dx, -0.008, 0.014, 0.014, (30, 30, 32))
    shell = _block(body, body.spot(wheels.at(0, -0.14)), half, 0.13, 0.125, colour)
    for u in (-0.5, 0.0, 0.5):
        body.brush.strip(shell, (u - 0.06, u + 0.06), (0.08, 0.92), darker(colour, 0.28))


_DRAW = {
    "backpack": _backpack,
    "shoulder bag": _shoulder_bag,
    "handbag": _handbag,
    "shopping bag": _shopping_bag,
    "suitcase": _suitcase,
}
