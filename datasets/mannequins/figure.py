"""Draws a dressed figure: legs and shoes, tops, jackets, arms, in the order in which they cover each other."""

import math

from datasets.mannequins.bags import draw_bag, draw_straps
from datasets.mannequins.body import SIDES, Body
from datasets.mannequins.head import draw_head, draw_loose_hair
from datasets.mannequins.people import BARE_ARMS
from datasets.mannequins.shapes import Colour, Limb, Shell, chain, darker, lighter

Ring = tuple[float, float, float, float]
_HEMS = {"jacket": 0.475, "blazer": 0.45, "vest": 0.47, "cardigan": 0.42, "coat": 0.3}
_TORSO = {
    "woman": (
        (0.836, 0.036, 0.036, -0.005),
        (0.818, 0.088, 0.046, -0.005),
        (0.795, 0.104, 0.056, 0.0),
        (0.72, 0.092, 0.075, 0.012),
        (0.63, 0.078, 0.056, 0.0),
        (0.54, 0.097, 0.072, -0.006),
    ),
    "man": (
        (0.84, 0.042, 0.042, -0.005),
        (0.822, 0.1, 0.05, -0.005),
        (0.797, 0.12, 0.06, 0.0),
        (0.72, 0.11, 0.074, 0.004),
        (0.63, 0.097, 0.068, 0.004),
        (0.54, 0.097, 0.07, 0.0),
    ),
}
"""rings from the neck to the hips, as :meth:`Body.shell` takes them"""
_WHITE = (246, 246, 244)


def draw_figure(body: Body) -> None:
    """Draw the figure; afterwards ``body.marks`` says where its parts are."""
    away = body.cos < 0.25
    sides = sorted(SIDES, key=lambda side: SIDES[side] * -body.sin)  # the far one first
    draw_bag(body, "behind")
    if not away:
        draw_loose_hair(body)
    for side in sides:
        _leg(body, side)
    in_front = [side for side in sides if body.near(body.arms[side][1]) > -0.02]
    for side in sides:
        if side not in in_front:
            _arm(body, side)
    _lower_shell(body)
    _top(body)
    if body.person.jacket != "none":
        _jacket(body)
    draw_straps(body)
    draw_head(body)
    if away:
        draw_loose_hair(body)
    draw_bag(body, "on")
    for side in in_front:
        _arm(body, side)
    draw_bag(body, "before")


def _torso(body: Body, hem: float, flare: float = 1.0) -> list[Ring]:
    """Rings of the upper body down to a hem."""
    rings = _TORSO[body.person.sex]
    _, wide, deep, _ = rings[-1]
    below = max(0.0, 0.54 - hem)
    rings = [ring for ring in rings if ring[0] > hem + 0.01]
    return [*rings, (hem, wide * (1 + below * flare), deep * (1 + below * flare * 1.4), 0.0)]


def _hem(body: Body) -> float:
    if body.person.top == "dress":
        return 0.34
    return 0.55 if body.person.lower == "skirt" or body.person.top == "blouse" else 0.48


def _leg(body: Body, side: str) -> None:
    person, brush, scale = body.person, body.brush, body.scale
    colour = body.look.colours["lower"]
    joints = [body.at(*joint) for joint in body.legs[side]]
    _shoe(body, side)
    thigh, shin = chain(joints, [scale * r * body.look.width for r in (0.05, 0.034, 0.021)])
    if person.lower in ("none", "skirt", "shorts"):
        brush.limb(shin, body.look.skin)
        brush.limb(thigh, body.look.skin)
        if person.lower == "shorts":
            leg = thigh.part(0.0, 0.86, 1.2)
            brush.limb(Limb(leg.start, leg.end, leg.r0, leg.r0 * 0.94), colour, blunt=True)
    else:
        loose, hem = {"leggings": (1.04, 1.05), "jeans": (1.14, 1.35)}.get(person.lower, (1.2, 1.62))
        thigh = thigh.part(0, 1, loose)
        shin = Limb(shin.start, shin.at(0, 0.96), shin.r0 * loose, shin.r1 * hem)
        brush.limb(shin, colour)
        brush.limb(thigh, colour)
        if person.lower == "jeans":
            brush.strip(thigh, (-0.35, 0.35), (0.2, 0.95), lighter(colour, 0.5), 50)
            brush.strip(shin, (-1, 1), (0.95, 1.0), lighter(colour, 0.35))
        if person.lower_pattern == "side stripe":
            u = SIDES[side] * body.cos
            edges = (u - 0.2, u) if u > 0.3 else (u, u + 0.2) if u < -0.3 else (-0.12, 0.12)
            for piece in (thigh, shin):
                brush.strip(piece, edges, (0, 1), _WHITE)
    if person.shoes == "boots":
        boot = shin.part(0.5, 1.0, 1.25)
        brush.limb(Limb(boot.start, boot.end, boot.r0, boot.r0 * 0.92), body.look.colours["shoes"])
    body.mark("lower", *joints[: 2 if person.lower in ("shorts", "skirt", "none") else 3], margin=0.04)


def _shoe(body: Body, side: str) -> None:
    brush, scale, kind, colour = body.brush, body.scale, body.person.shoes, body.look.colours["shoes"]
    x, y, z = body.legs[side][2]
    lift = max(0.0, y - 0.05)
    heel = body.at(x, y - 0.028, z - 0.022)
    toe = body.at(x + SIDES[side] * 0.014, max(0.014, y - 0.034 - lift * 0.9), z + 0.088)
    foot = Limb(heel, toe, scale * 0.025, scale * 0.02)
    if kind == "heels":
        brush.line([heel, (heel[0], heel[1] + scale * 0.034)], scale * 0.012, darker(colour, 0.2))
    else:
        sole = _WHITE if kind == "sneakers" and sum(colour) < 560 else darker(colour, 0.45)
        under = [(across, down + scale * 0.008) for across, down in (heel, toe)]
        brush.limb(Limb(*under, scale * 0.024, scale * 0.019), sole)
    if kind == "sandals":
        brush.limb(foot, body.look.skin)
        for t in (0.15, 0.6, 0.8):
            brush.strip(foot, (-1.1, 1.1), (t, t + 0.16), colour)
    else:
        brush.limb(foot, colour)
        brush.limb(Limb(body.at(x, y, z), heel, scale * 0.024, scale * 0.025), colour)
    if kind == "sneakers":
        for t in (0.35, 0.6):
            brush.strip(foot, (-0.5, 0.5), (t, t + 0.1), lighter(colour, 0.65))
    body.mark("shoes", heel, toe, margin=0.02)


def _lower_shell(body: Body) -> None:
    """The part of the lower garment that goes around the hips."""
    person, colour = body.person, body.look.colours["lower"]
    if person.lower == "none":
        return
    rings = [(0.575, 0.09, 0.066, 0.0), (0.53, 0.099, 0.074, 0.0)]
    if person.lower == "skirt":
        rings += [(0.46, 0.112, 0.088, 0.0), (0.31, 0.135, 0.118, 0.0)]
    else:
        rings += [(0.485, 0.1, 0.074, 0.0), (0.455, 0.085, 0.06, 0.0)]
    shell = body.shell(rings)
    body.brush.strip(shell, (-1, 1), (0, 1), colour)
    second = _WHITE if sum(colour) < 420 else darker(colour, 0.6)
    body.brush.pattern(shell, person.lower_pattern, second, size=0.24 * body.scale)
    body.brush.shade(shell)
    if person.lower == "skirt":
        for u in (-0.55, 0.0, 0.55):
            body.brush.strip(shell, (u, u + 0.06), (0.35, 1), darker(colour, 0.5), 90)
        body.mark("lower", shell.at(-1, 0.3), shell.at(1, 1))


def _top(body: Body) -> None:
    person, brush = body.person, body.brush
    colour, second = body.look.colours["top"], body.look.colours["top_second"]
    shell = body.shell(_torso(body, _hem(body), flare=2.2 if person.top == "dress" else 0.4), 1.04)
    brush.strip(shell, (-1, 1), (0, 1), colour)
    brush.pattern(shell, person.top_pattern, second, size=0.22 * body.scale)
    _details(body, shell, colour)
    brush.shade(shell)
    if person.top == "dress":
        waist = second if person.top_pattern != "plain" else darker(colour, 0.4)
        brush.strip(shell, (-1, 1), (0.41, 0.445), waist)
    body.mark("top", shell.at(-1, 0.1), shell.at(1, 1))
    _neckline(body)


def _neckline(body: Body) -> None:
    """The neck and what is around it."""
    top, colour, scale = body.person.top, body.look.colours["top"], body.scale
    neck = body.spot(body.upper(0, 0.826, 0.0))
    if top == "hoodie":
        neck.disc(-0.03 * body.sin, 0, 0.062, 0.034, darker(colour, 0.25))
        neck.disc(-0.03 * body.sin, -0.006, 0.052, 0.026, colour)
    if body.cos > -0.2:
        depth = {"tank top": 0.036, "dress": 0.034, "blouse": 0.03, "t-shirt": 0.022}.get(top, 0.014)
        neck.disc(0.02 * body.sin, -0.006, 0.022 + 0.02 * abs(body.cos), depth, body.look.skin)
    body.brush.limb(Limb(body.upper(0, 0.872, 0.012), neck.place, scale * 0.029, scale * 0.032), body.look.skin)
    if top in ("shirt", "polo shirt", "blouse"):
        light = lighter(colour, 0.25)
        for u in (math.sin(body.pose.yaw - 0.5), math.sin(body.pose.yaw + 0.5)):
            neck.polygon([(0, -0.012), (0.042 * u, -0.018), (0.05 * u + 0.01 * body.sin, 0.034)], light)
        if body.cos < 0:
            neck.disc(0, 0, 0.04, 0.014, light)


def _details(body: Body, shell: Shell, colour: Colour) -> None:
    """What tells a shirt from a sweater: buttons, pockets, ribs; and the logo."""
    brush, person, scale = body.brush, body.person, body.scale
    middle, dark = body.sin, darker(colour, 0.4)
    if person.top in ("sweater", "hoodie"):
        brush.strip(shell, (-1, 1), (0.93, 1.0), darker(colour, 0.22))
    if body.cos < 0.15:
        return
    if person.top in ("shirt", "blouse", "polo shirt"):
        down = 0.35 if person.top == "polo shirt" else 1.0
        brush.strip(shell, (middle - 0.03, middle + 0.03), (0.06, down), dark, 150)
        for t in (0.2, 0.4, 0.6, 0.8):
            if t < down:
                brush.disc(*shell.at(middle, t), scale * 0.006, scale * 0.006, lighter(colour, 0.7))
    if person.top == "hoodie":
        left, right = math.sin(body.pose.yaw - 0.6), math.sin(body.pose.yaw + 0.6)
        brush.strip(shell, (left, right), (0.66, 0.88), dark, 110)
    if person.top_pattern == "logo":
        left, right = math.sin(body.pose.yaw - 0.48), math.sin(body.pose.yaw + 0.48)
        brush.strip(shell, (left, right), (0.24, 0.44), body.look.colours["top_second"])
        brush.strip(shell, (left * 0.6 + right * 0.4, left * 0.2 + right * 0.8), (0.3, 0.38), colour)
        body.mark("logo", shell.at(left, 0.24), shell.at(right, 0.44))


def _jacket(body: Body) -> None:
    """An open jacket: the whole shell, then the top again where the fronts part."""
    person, brush, colours = body.person, body.brush, body.look.colours
    colour, hem = colours["jacket"], _HEMS[person.jacket]
    shell = body.shell(_torso(body, hem, flare=0.9), 1.13)
    brush.strip(shell, (-1, 1), (0, 1), colour)
    half = math.pi / 2 - 0.05
    left, right = (max(-half, min(half, body.pose.yaw + angle)) for angle in (-0.5, 0.5))
    if body.cos > 0 and right > left + 0.2:
        across = (math.sin(left), math.sin(right))
        end = min(1.0, (0.836 - max(_hem(body), hem)) / (0.836 - hem))
        brush.strip(shell, across, (0.04, end), colours["top"])
        inner = Shell([ring for ring in shell.rings if ring[0] <= shell.at(0, end)[1]] or shell.rings)
        brush.pattern(inner, person.top_pattern, colours["top_second"], 0.2 * body.scale, across)
        if end < 1 and person.lower != "none":
            brush.strip(shell, across, (end, 1.0), colours["lower"])
        for u in across:
            brush.strip(shell, (u - 0.05, u + 0.05), (0.03, 1), darker(colour, 0.45))
        if person.jacket in ("blazer", "coat"):
            for u, v in ((across[0], -0.28), (across[1], 0.28)):
                brush.polygon([shell.at(u, 0.04), shell.at(u + v, 0.2), shell.at(u, 0.45)], lighter(colour, 0.14))
        _neckline(body)
    else:
        body.spot(body.upper(0, 0.835, -0.01)).disc(0, 0, 0.05, 0.022, darker(colour, 0.2))
    brush.shade(shell)
    body.mark("jacket", shell.at(-1, 0.1), shell.at(1, 1))


def _arm(body: Body, side: str) -> None:
    person, brush, scale = body.person, body.brush, body.scale
    joints = [body.at(*joint) for joint in body.arms[side]]
    upper, fore = chain(joints, [scale * r * body.look.width for r in (0.028, 0.024, 0.017)])
    brush.disc(*fore.at(0, 1.08), scale * 0.02, scale * 0.024, body.look.skin)
    covered = person.jacket not in ("none", "vest")
    colour = body.look.colours["jacket" if covered else "top"]
    pattern = ("plain" if covered else person.top_pattern, body.look.colours["top_second"])
    grow = 1.35 if covered else 1.25 if person.top in ("hoodie", "sweater") else 1.15
    if covered or person.sleeves == "long":
        sleeve = Limb(fore.start, fore.at(0, 0.94), fore.r0 * grow, fore.r1 * grow * 1.15)
        brush.limb(sleeve, colour, pattern)
        brush.strip(sleeve, (-1, 1), (0.92, 1.02), darker(colour, 0.3))
        brush.limb(_narrow(upper, grow), colour, pattern)
    else:
        brush.limb(fore, body.look.skin)
        brush.limb(upper, body.look.skin)
        if person.sleeves == "short":
            short = _narrow(upper, 1.35).part(0, 0.68 if person.top in BARE_ARMS else 0.6)
            brush.limb(short, colour, pattern, blunt=True)
            brush.strip(short, (-1, 1), (0.92, 1.02), darker(colour, 0.3), 120)


def _narrow(limb: Limb, grow: float) -> Limb:
    """A sleeve: loose below, but with no puff at the shoulder."""
    return Limb(limb.start, limb.end, limb.r0 * min(grow, 1.1), limb.r1 * grow)
