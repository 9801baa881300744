"""One photo of a Mannequin: figure, place, light, obstacles, and what can be seen of it all."""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datasets.mannequins.bags import bag_hidden
from datasets.mannequins.body import Body, Look, Pose, look_of
from datasets.mannequins.dice import Dice
from datasets.mannequins.figure import draw_figure
from datasets.mannequins.people import Level, Person, stranger
from datasets.mannequins.places import background
from datasets.mannequins.shapes import DARK, Brush, darker, lighter

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Sight:
    """What a describer could see in a photo."""

    facing: str
    walking: bool
    seen: frozenset[str]
    """of top, lower, shoes, hair, face, headwear, jacket, logo, inner (the top under a jacket), bag: what there is"""


def photograph(person: Person, look: Look, yaw: float, height: int, level: Level, dice: Dice) -> tuple[bytes, Sight]:
    """Draw a person from one side, as a JPEG file; the dice decide everything else about the photo."""
    tall = round(height * dice.between(0.65, 1.35))
    wide = round(tall * dice.between(0.36, 0.46))
    fine = 2.0 if tall < 300 else 1.5
    size = (round(wide * fine), round(tall * fine))
    canvas = background(wide, tall, dice).resize(size, Image.Resampling.BILINEAR)
    brush = Brush(ImageDraw.Draw(canvas, "RGBA"), dice.pick((-1, 1)), 0.5 + level.light * dice.between(0.2, 1.0))
    walking = dice.chance(0.7)
    phase, stride = dice.between(0, 2 * math.pi), dice.between(0.55, 1.0) if walking else 0.08
    pose = Pose(yaw, phase, stride, dice.between(0.15, 0.6))
    occluded = dice.chance(level.occlusion)
    cut = occluded and dice.chance(0.3)
    foot, scale = _stand(size, level, dice, cut)
    if dice.chance(0.45 * level.light):
        _passer(brush, size, level, dice)
    body = Body(person, look, pose, foot, scale, brush)
    for grow, alpha in ((1.3, 34), (1.0, 48), (0.65, 60)):  # the shadow on the ground
        alpha = round(alpha * brush.depth)
        body.spot(foot).disc(-brush.lit * 0.06, -0.012, 0.15 * grow, 0.026 * grow, DARK, alpha)
    draw_figure(body)
    covers = [_obstacle(brush, size, foot, level, dice)] if occluded and not cut else []
    seen = _seen(body, [*covers, (-9e9, size[1], 9e9, 9e9)])
    jpeg = _expose(canvas, (wide, tall), level.light, dice)
    return jpeg, Sight(pose.facing, walking, seen)


def _stand(size: tuple[int, int], level: Level, dice: Dice, cut: bool) -> tuple[tuple[float, float], float]:
    """Where the feet are and how large the figure is."""
    wide, tall = size
    loose = level.light
    x = wide * (0.5 + dice.between(-0.1, 0.1) * loose)
    if cut:
        scale = tall * dice.between(1.12, 1.4)
        return (x, scale + tall * dice.between(0.02, 0.06)), scale
    scale = tall * dice.between(0.93 - 0.14 * loose, 0.94)
    bottom = tall * (0.965 - dice.between(0, 0.06 * loose))
    return (x, min(bottom, scale + tall * 0.05)), scale


def _passer(brush: Brush, size: tuple[int, int], level: Level, dice: Dice) -> None:
    """Somebody farther away."""
    other = stranger(dice, level)
    wide, tall = size
    scale = tall * dice.between(0.4, 0.62)
    foot = (wide * dice.pick((dice.between(-0.05, 0.15), dice.between(0.85, 1.05))), tall * dice.between(0.78, 0.88))
    pose = Pose(dice.between(-math.pi, math.pi), dice.between(0, 6), 0.7, 0.3)
    draw_figure(Body(other, look_of(other, dice), pose, foot, scale, brush))


def _obstacle(brush: Brush, size: tuple[int, int], foot: tuple[float, float], level: Level, dice: Dice) -> Box:
    """Put something in front of the figure and say where."""
    wide, tall = size
    kind = dice.pick(("pole", "bin", "person", "hedge", "bonnet"))
    side = dice.pick((-1, 1))
    if kind == "person":
        other = stranger(dice, level)
        x = foot[0] + side * wide * dice.between(0.46, 0.56)
        scale = tall * dice.between(0.98, 1.1)
        look, pose = look_of(other, dice), Pose(dice.between(-3, 3), 1.0, 0.3, 0.3)
        draw_figure(Body(other, look, pose, (x, tall * 1.06), scale, brush))
        return (x - scale * 0.1, tall * 0.15, x + scale * 0.1, tall)
    if kind == "pole":
        x, half = foot[0] + side * wide * dice.between(0.05, 0.3), wide * dice.between(0.04, 0.075)
        paint = dice.pick(((92, 96, 98), (60, 84, 70), (150, 150, 148)))
        box = (x - half, 0.0, x + half, float(tall))
    elif kind == "bin":
        x, half = foot[0] + side * wide * dice.between(0.0, 0.2), wide * dice.between(0.16, 0.24)
        paint = dice.pick(((52, 84, 66), (70, 74, 80), (150, 92, 40)))
        box = (x - half, tall * dice.between(0.7, 0.78), x + half, float(tall))
    else:
        paint = (70, 100, 60) if kind == "hedge" else dice.pick(((120, 40, 40), (70, 80, 96), (190, 192, 194)))
        box = (0.0, tall * dice.between(0.74, 0.86), float(wide), float(tall))
    x0, y0, x1, y1 = box
    for band in range(8):
        left, right = x0 + (x1 - x0) * band / 8, x0 + (x1 - x0) * (band + 1) / 8
        lit = (band / 7 - 0.5) * brush.lit if kind != "hedge" else dice.between(-0.3, 0.3)
        colour = lighter(paint, 0.5 * lit) if lit > 0 else darker(paint, -0.7 * lit)
        brush.polygon([(left, y0), (right, y0), (right, y1), (left, y1)], colour)
    if kind == "hedge":
        for _ in range(26):
            r = wide * dice.between(0.04, 0.09)
            tone = lighter(paint, dice.between(0, 0.25)) if dice.chance(0.5) else darker(paint, dice.between(0, 0.35))
            brush.disc(dice.between(0, wide), dice.between(y0, y1), r, r * 0.8, tone)
    if kind in ("bin", "bonnet"):
        brush.polygon([(x0, y0), (x1, y0), (x1, y0 + tall * 0.02), (x0, y0 + tall * 0.02)], lighter(paint, 0.35))
    return box


def _hidden_share(boxes: list[Box], covers: list[Box]) -> float:
    """How much of a part is behind something or outside the picture."""
    total = hidden = 0.0
    for x0, y0, x1, y1 in boxes:
        area = max(1e-6, (x1 - x0) * (y1 - y0))
        total += area
        for a0, b0, a1, b1 in covers:
            hidden += max(0.0, min(x1, a1) - max(x0, a0)) * max(0.0, min(y1, b1) - max(y0, b0))
    return min(1.0, hidden / total)


def _seen(body: Body, covers: list[Box]) -> frozenset[str]:
    person = body.person
    unseen = {
        "bag": bag_hidden(body),
        "face": body.cos < -0.2,
        "hair": person.headwear != "none" and person.hair in ("short", "curly"),
        "headwear": person.headwear == "none",
        "logo": body.cos < 0.35,
        "lower": person.lower == "none" or (person.jacket == "coat" and person.lower in ("shorts", "skirt")),
    }
    seen = {name for name, at in body.marks.items() if not unseen.get(name) and _hidden_share(at, covers) < 0.5}
    return frozenset(seen | {"inner"} if "top" in seen and body.cos > 0.4 else seen)


def _expose(canvas: Image.Image, size: tuple[int, int], light: float, dice: Dice) -> bytes:
    """Light, lens and file: what a cheap camera makes of the scene."""
    draw = ImageDraw.Draw(canvas, "RGBA")
    wide, tall = canvas.size
    if dice.chance(0.35 * light):
        x, lean = dice.between(-0.3, 0.8) * wide, dice.between(-0.5, 0.5) * wide
        corners = [(x, 0), (x + 0.6 * wide, 0), (x + 0.6 * wide + lean, tall), (x + lean, tall)]
        draw.polygon(corners, fill=(*DARK, round(90 * light)))
    image = canvas.resize(size, Image.Resampling.BOX if canvas.width == 2 * size[0] else Image.Resampling.BICUBIC)
    blur = dice.between(0, 1.1) * light * size[1] / 256
    if blur > 0.25:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    gain = math.exp(dice.between(-0.45, 0.3) * light)
    warm = dice.between(-0.12, 0.12) * light
    contrast, lift = 1 + dice.between(-0.3, 0.12) * light, dice.between(0, 18) * light
    channels = [gain * (1 + warm), gain, gain * (1 - warm)]
    steps = np.arange(256, dtype=np.float64)
    curves = [np.clip(((steps - 118) * contrast + 118) * k + lift, 0, 255).round().astype(int) for k in channels]
    image = image.point([int(value) for curve in curves for value in curve])
    grain = dice.between(0, 7) * light
    pixels = np.asarray(image, dtype=np.float32) + dice.noise((size[1], size[0], 1), grain)
    image = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=round(92 - dice.between(0, 28) * light))
    return file.getvalue()
