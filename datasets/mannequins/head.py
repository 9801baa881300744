"""Heads: face, hair, glasses and headwear, seen from any side."""

from datasets.mannequins.body import Body
from datasets.mannequins.shapes import DARK, Pen, darker, lighter, mirrored

_CURLS = ((-0.04, -0.02), (0.04, -0.02), (-0.03, -0.052), (0.03, -0.052), (0, -0.064), (-0.045, 0.012), (0.045, 0.012))


def _centre(body: Body) -> Pen:
    return body.spot(body.upper(0, 0.927, 0.012))


def draw_loose_hair(body: Body) -> None:
    """Hair that falls behind the neck: drawn before the body where it faces the camera, else after it."""
    style, colour, centre = body.person.hair, body.look.hair, _centre(body)
    back = -0.022 * body.sin
    if style in ("long", "shoulder-length"):
        low, wide = (0.21, 0.066) if style == "long" else (0.1, 0.068)
        wide *= 0.78 + 0.22 * abs(body.cos)
        half = [(0, -0.07), (wide * 0.85, -0.04), (wide, 0.03), (wide * 0.95, low * 0.8), (0.02, low)]
        centre.outline([(dx + 1.6 * back * (0.5 + 2.5 * max(0, dy)), dy) for dx, dy in mirrored(half)], colour, steps=4)
        for dx in (-0.5 * wide, 0.0, 0.5 * wide):
            centre.line([(back + dx, 0), (1.5 * back + dx, low * 0.85)], 0.008, lighter(colour, 0.22), 110)
    if style == "ponytail":
        knot = body.spot(body.upper(0, 0.945, -0.062))
        tail = mirrored([(0.014, 0), (0.026, 0.06), (0.012, 0.15)])
        knot.outline([(dx - 0.4 * body.sin * dy, dy) for dx, dy in tail], colour, steps=4)
        knot.disc(0, 0, 0.018, 0.013, darker(colour, 0.5))
    if style == "bun":
        knot = body.spot(body.upper(0, 0.975, -0.05))
        knot.disc(0, 0, 0.032, 0.03, colour)
        knot.disc(body.brush.lit * 0.01, -0.01, 0.014, 0.012, lighter(colour, 0.2), 120)
    body.mark("hair", centre.at(-0.05, -0.07), centre.at(0.05, 0.02))


def draw_head(body: Body) -> None:
    """Everything above the neck that does not fall loose."""
    person, centre = body.person, _centre(body)
    wide = 0.047 + 0.006 * abs(body.sin)
    if person.hair == "curly":
        for dx, dy in _CURLS:
            centre.disc(dx - 0.018 * body.sin, dy, 0.034, 0.034, body.look.hair)
    centre.disc(0, 0, wide, 0.066, body.look.skin)
    if person.hair != "bald":
        _cap_of_hair(body, centre, wide)
    if body.cos > -0.3:
        _face(body, centre, wide)
    if person.hair not in ("long", "shoulder-length", "curly"):
        for sign in (-1, 1):
            if -sign * body.sin > -0.3:
                centre.disc(sign * body.cos * wide * 1.02, 0.01, 0.008, 0.014, body.blush())
    centre.disc(-body.brush.lit * 0.022, 0.006, 0.026, 0.056, darker(body.look.skin, 0.7), 34)
    if person.glasses != "none" and body.cos >= -0.25:
        _glasses(body, centre)
    if person.headwear != "none":
        _headwear(body, centre, wide)
    body.mark("face", centre.at(-wide, -0.03), centre.at(wide, 0.06))
    body.mark("headwear", centre.at(-wide, -0.07), centre.at(wide, 0))


def _cap_of_hair(body: Body, centre: Pen, wide: float) -> None:
    """Hair around the skull; the face is drawn over its front."""
    colour, w, lean = body.look.hair, wide * 1.09, -0.008 * body.sin
    back = 1 - max(0.0, body.cos)
    low = (0.012 + 0.036 * back) if body.person.hair in ("short", "curly", "ponytail", "bun") else 0.05
    half = [(0, -0.075), (w * 0.72, -0.058), (w, -0.012), (w * 0.94, low * 0.8), (w * 0.5, low), (0, low)]
    centre.outline([(dx + lean, dy) for dx, dy in mirrored(half)], colour)
    centre.disc(body.brush.lit * 0.016, -0.048, 0.02, 0.013, lighter(colour, 0.3), 90)


def _face(body: Body, head: Pen, wide: float) -> None:
    """The face over the hair, eyes, nose and mouth."""
    half = wide * (0.62 + 0.27 * (0.5 + 0.5 * max(0.0, body.cos)))
    centre = body.spot(head.at(body.sin * (wide - half) * 0.98, 0))
    fringe = -0.03 if body.person.hair != "bald" else -0.05
    side = [(0, fringe), (half * 0.8, fringe + 0.004), (half, 0.006), (half * 0.72, 0.046), (half * 0.3, 0.066)]
    centre.outline(mirrored(side), body.look.skin)
    dark = (44, 32, 30)
    for angle in (-0.42, 0.42):
        if (u := body.around(angle)) is not None:
            centre.disc(u * half, 0.004, 0.0065, 0.006, dark)
            centre.line([(u * half - 0.01, -0.009), (u * half + 0.01, -0.009)], 0.005, dark, 170)
    blush = body.blush()
    centre.disc(body.sin * (half + 0.006), 0.02, 0.007, 0.009, blush if abs(body.sin) < 0.7 else body.look.skin)
    if (u := body.around(0.0)) is not None:
        lips = (min(255, blush[0] + 14), max(0, blush[1] - 14), max(0, blush[2] - 8))
        centre.disc(u * half * 0.8, 0.041, 0.012 * (0.4 + 0.6 * abs(body.cos)), 0.004, lips)


def _glasses(body: Body, centre: Pen) -> None:
    dark, show = (18, 18, 22), 0.45 + 0.55 * abs(body.cos)
    lenses = [body.sin * 0.046 + angle * body.cos * 0.05 for angle in (-0.46, 0.46)]
    for dx in lenses:
        centre.disc(dx, 0.006, 0.018 * show, 0.014, dark)
        if body.person.glasses == "glasses":
            centre.disc(dx, 0.006, 0.011 * show, 0.008, (214, 224, 230))
    centre.line([(sum(lenses) / 2, 0.002), (-0.046 * body.sin * 0.3, 0.002)], 0.006, dark)


def _headwear(body: Body, centre: Pen, wide: float) -> None:
    kind, colour = body.person.headwear, body.look.colours["headwear"]
    w, brow = wide * 1.16, -0.02
    dome = [(0, -0.088), (w * 0.7, -0.074), (w, -0.04), (w, brow), (0, brow + 0.01)]
    if kind == "beanie":
        dome = [(dx, dy - (0.01 if dy < -0.05 else 0)) for dx, dy in dome]
    centre.outline(mirrored(dome), colour)
    dark = darker(colour, 0.3)
    if kind == "cap":
        if body.cos > -0.4:
            drop = 0.012 if body.cos > 0 else 0.0
            centre.disc(body.sin * 0.068, brow + drop, w * (0.3 + 0.62 * abs(body.cos)), 0.015, dark)
        centre.disc(0, -0.088, 0.006, 0.004, dark)
    elif kind == "beanie":
        centre.polygon(mirrored([(w, brow - 0.022), (w * 1.03, brow + 0.006)]), dark)
        centre.disc(0, -0.102, 0.018, 0.016, lighter(colour, 0.2))
    else:
        centre.disc(0, brow, 0.096, 0.021, darker(colour, 0.12))
        centre.polygon(mirrored([(w, brow - 0.018), (w, brow - 0.004)]), darker(colour, 0.55))
    shadow = [(-w, brow), (-w, -0.05), (-w * 0.35, -0.08), (-w * 0.3, brow)]
    centre.polygon([(body.brush.lit * dx, dy) for dx, dy in shadow], DARK, 50)
