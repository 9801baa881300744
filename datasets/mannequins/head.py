"""Heads: face, hair, glasses and headwear, seen from any side."""

from datasets.mannequins.body import Body
from datasets.mannequins.shapes import Point, darker, lighter, spline


def _centre(body: Body) -> Point:
    return body.at(0, 0.927 - body.drop, 0.012)


def draw_loose_hair(body: Body) -> None:
    """Hair that falls behind the neck: drawn before the body where it faces the camera, else after it."""
    style, colour, brush, scale = body.person.hair, body.look.hair, body.brush, body.scale
    x, y = _centre(body)
    back = -0.022 * body.sin * scale
    if style in ("long", "shoulder-length"):
        low, wide = (0.21, 0.066) if style == "long" else (0.1, 0.068)
        wide *= 0.78 + 0.22 * abs(body.cos)
        outline = [(0, -0.07), (wide * 0.85, -0.04), (wide, 0.03), (wide * 0.95, low * 0.8), (0.02, low)]
        outline += [(-dx, dy) for dx, dy in reversed(outline[1:])]
        points = [(x + 1.6 * back * (0.5 + 2.5 * max(0, dy)) + dx * scale, y + dy * scale) for dx, dy in outline]
        brush.polygon(spline(points), colour)
        for share in (-0.5, 0.0, 0.5):
            top, end = (
                (x + back + share * wide * scale, y),
                (x + 1.5 * back + share * wide * scale, y + low * 0.85 * scale),
            )
            brush.line([top, end], 0.008 * scale, lighter(colour, 0.22), 110)
    if style == "ponytail":
        knot = body.at(0, 0.945 - body.drop, -0.062)
        sway = -0.05 * body.sin * scale
        points = [(-0.014, 0), (0.014, 0), (0.026, 0.06), (0.012, 0.15), (-0.012, 0.15), (-0.026, 0.06)]
        tail = [(knot[0] + dx * scale + sway * dy * 8, knot[1] + dy * scale) for dx, dy in points]
        brush.polygon(spline(tail), colour)
        brush.disc(knot, 0.018 * scale, 0.013 * scale, darker(colour, 0.5))
    if style == "bun":
        knot = body.at(0, 0.975 - body.drop, -0.05)
        brush.disc(knot, 0.032 * scale, 0.03 * scale, colour)
        brush.disc(
            (knot[0] + body.brush.lit * 0.01 * scale, knot[1] - 0.01 * scale),
            0.014 * scale,
            0.012 * scale,
            lighter(colour, 0.2),
            120,
        )
    body.mark("hair", (x - 0.05 * scale, y - 0.07 * scale), (x + 0.05 * scale, y + 0.02 * scale))


def draw_head(body: Body) -> None:
    """Everything above the neck that does not fall loose."""
    person, brush, scale, colour = body.person, body.brush, body.scale, body.look.hair
    x, y = _centre(body)
    wide = 0.047 + 0.006 * abs(body.sin)
    if person.hair == "curly":
        for dx, dy in (
            (-0.04, -0.02),
            (0.04, -0.02),
            (-0.03, -0.052),
            (0.03, -0.052),
            (0, -0.064),
            (-0.045, 0.012),
            (0.045, 0.012),
        ):
            brush.disc((x + (dx - 0.018 * body.sin) * scale, y + dy * scale), 0.034 * scale, 0.034 * scale, colour)
    brush.disc((x, y), wide * scale, 0.066 * scale, body.skin)
    if person.hair != "bald":
        _cap_of_hair(body, x, y, wide)
    if body.cos > -0.3:
        _face(body, x, y, wide)
    _ears(body, x, y, wide)
    shadow = -brush.lit * 0.022 * scale
    brush.disc((x + shadow, y + 0.006 * scale), 0.026 * scale, 0.056 * scale, darker(body.skin, 0.7), 34)
    if person.glasses != "none":
        _glasses(body, x, y)
    if person.headwear != "none":
        _headwear(body, x, y, wide)
    body.mark("face", (x - wide * scale, y - 0.03 * scale), (x + wide * scale, y + 0.06 * scale))
    body.mark("headwear", (x - wide * scale, y - 0.07 * scale), (x + wide * scale, y))


def _cap_of_hair(body: Body, x: float, y: float, wide: float) -> None:
    """Hair around the skull; the face is drawn over its front."""
    scale, colour = body.scale, body.look.hair
    back = 1 - max(0.0, body.cos)
    low = (0.012 + 0.036 * back) if body.person.hair in ("short", "curly", "ponytail", "bun") else 0.05
    w = wide * 1.09
    lean = -0.008 * body.sin
    points = [(0, -0.075), (w * 0.72, -0.058), (w, -0.012), (w * 0.94, low * 0.8), (w * 0.5, low), (0, low)]
    points += [(-dx, dy) for dx, dy in reversed(points[1:-1])]
    body.brush.polygon(spline([(x + (dx + lean) * scale, y + dy * scale) for dx, dy in points], 3), colour)
    shine = (x + body.brush.lit * 0.016 * scale, y - 0.048 * scale)
    body.brush.disc(shine, 0.02 * scale, 0.013 * scale, lighter(colour, 0.3), 90)


def _face(body: Body, x: float, y: float, wide: float) -> None:
    """The face over the hair, eyes, nose and mouth."""
    brush, scale, skin = body.brush, body.scale, body.skin
    show = 0.5 + 0.5 * max(0.0, body.cos)
    half = wide * (0.62 + 0.27 * show)
    x += body.sin * (wide - half) * scale * 0.98
    fringe = -0.03 if body.person.hair != "bald" else -0.05
    points = [(0, fringe), (half * 0.8, fringe + 0.004), (half, 0.006), (half * 0.72, 0.046), (half * 0.3, 0.066)]
    points += [(-dx, dy) for dx, dy in reversed(points[1:])]
    brush.polygon(spline([(x + dx * scale, y + dy * scale) for dx, dy in points], 3), skin)
    dark = (44, 32, 30)
    for angle in (-0.42, 0.42):
        u = body.around(angle)
        if u is not None:
            eye = (x + u * half * scale, y + 0.004 * scale)
            brush.disc(eye, 0.0065 * scale, 0.006 * scale, dark)
            brush.line(
                [(eye[0] - 0.01 * scale, eye[1] - 0.013 * scale), (eye[0] + 0.01 * scale, eye[1] - 0.013 * scale)],
                0.005 * scale,
                dark,
                170,
            )
    tip = (x + body.sin * (half + 0.006) * scale, y + 0.02 * scale)
    brush.disc(tip, 0.007 * scale, 0.009 * scale, body.blush() if abs(body.sin) < 0.7 else skin)
    if (u := body.around(0.0)) is not None:
        lips = mix_lips(body)
        brush.disc(
            (x + u * half * 0.8 * scale, y + 0.041 * scale),
            0.012 * scale * (0.4 + 0.6 * abs(body.cos)),
            0.004 * scale,
            lips,
        )


def mix_lips(body: Body) -> tuple[int, int, int]:
    """The colour of the mouth."""
    red, green, blue = body.blush()
    return (min(255, red + 14), max(0, green - 14), max(0, blue - 8))


def _ears(body: Body, x: float, y: float, wide: float) -> None:
    if body.person.hair in ("long", "shoulder-length", "curly"):
        return
    for sign in (-1, 1):
        side = sign * body.cos * wide * 1.02
        if -sign * body.sin > -0.3:
            body.brush.disc(
                (x + side * body.scale, y + 0.01 * body.scale), 0.008 * body.scale, 0.014 * body.scale, body.blush()
            )


def _glasses(body: Body, x: float, y: float) -> None:
    brush, scale = body.brush, body.scale
    if body.cos < -0.25:
        return
    dark = (18, 18, 22)
    places = [body.sin * 0.046 + angle * body.cos * 0.05 for angle in (-0.46, 0.46)]
    for place in places:
        lens = (x + place * scale, y + 0.006 * scale)
        brush.disc(lens, 0.018 * scale * (0.45 + 0.55 * abs(body.cos)), 0.014 * scale, dark)
        if body.person.glasses == "glasses":
            brush.disc(lens, 0.011 * scale * (0.45 + 0.55 * abs(body.cos)), 0.008 * scale, (214, 224, 230))
    end = x - 0.046 * body.sin * scale * 0.3
    brush.line([(x + sum(places) / 2 * scale, y + 0.002 * scale), (end, y + 0.002 * scale)], 0.006 * scale, dark)


def _headwear(body: Body, x: float, y: float, wide: float) -> None:
    brush, scale, kind = body.brush, body.scale, body.person.headwear
    colour = body.look.colours["headwear"]
    w = wide * 1.16
    brow = -0.02
    dome = [
        (0, -0.088),
        (w * 0.7, -0.074),
        (w, -0.04),
        (w, brow),
        (0, brow + 0.01),
        (-w, brow),
        (-w, -0.04),
        (-w * 0.7, -0.074),
    ]
    if kind == "beanie":
        dome = [(dx, dy - (0.01 if dy < -0.05 else 0)) for dx, dy in dome]
    brush.polygon(spline([(x + dx * scale, y + dy * scale) for dx, dy in dome], 3), colour)
    dark = darker(colour, 0.3)
    if kind == "cap":
        tip = body.sin * 0.068
        half = w * (0.3 + 0.62 * abs(body.cos))
        drop = 0.012 if body.cos > 0 else 0.0
        if body.cos > -0.4:
            brush.disc((x + tip * scale, y + (brow + drop) * scale), half * scale, 0.015 * scale, dark)
        brush.disc((x, y - 0.088 * scale), 0.006 * scale, 0.004 * scale, dark)
    elif kind == "beanie":
        band = [(-w, brow - 0.022), (w, brow - 0.022), (w * 1.03, brow + 0.006), (-w * 1.03, brow + 0.006)]
        brush.polygon([(x + dx * scale, y + dy * scale) for dx, dy in band], dark)
        brush.disc((x, y - 0.102 * scale), 0.018 * scale, 0.016 * scale, lighter(colour, 0.2))
    else:
        brush.disc((x, y + brow * scale), 0.096 * scale, 0.021 * scale, darker(colour, 0.12))
        band = [(-w, brow - 0.018), (w, brow - 0.018), (w, brow - 0.004), (-w, brow - 0.004)]
        brush.polygon([(x + dx * scale, y + dy * scale) for dx, dy in band], darker(colour, 0.55))
    shadow = [(-w, brow), (-w, -0.05), (-w * 0.35, -0.08), (-w * 0.3, brow)]
    brush.polygon([(x + brush.lit * dx * scale, y + dy * scale) for dx, dy in shadow], (14, 16, 30), 50)
