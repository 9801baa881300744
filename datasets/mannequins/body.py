"""The bones under the clothes: a little 3-d skeleton in a pose, turned to the camera and projected.

Body coordinates are in body heights: x to the wearer's left, y up from the ground, z forward.
"""

import math
from dataclasses import dataclass

from datasets.mannequins.colours import COLOURS, HAIR_COLOURS, Shade
from datasets.mannequins.dice import Dice
from datasets.mannequins.people import Person
from datasets.mannequins.shapes import Brush, Colour, Pen, Point, Shell, darker

Bone = tuple[float, float, float]
SKINS = {"light": (238, 202, 178), "tan": (214, 164, 124), "brown": (160, 108, 74), "dark": (96, 62, 44)}
_NONE = Shade((0, 0, 0), ())
SIDES = {"left": 1, "right": -1}
_TILT = 0.1
"""how much lower in the image something near the camera stands"""


@dataclass(frozen=True)
class Look:
    """What is the same in all images of an identity beyond its attributes: exact shades and build."""

    colours: dict[str, Colour]
    skin: Colour
    hair: Colour
    width: float
    height: float


def look_of(person: Person, dice: Dice) -> Look:
    """The exact shades of a person's colours."""

    def shade(base: Colour) -> Colour:
        light, tint = dice.between(-14, 14), [dice.between(-7, 7) for _ in range(3)]
        return tuple(min(250, max(12, round(c + light + t))) for c, t in zip(base, tint, strict=True))

    things = ("headwear_colour", "top_colour", "top_second", "jacket_colour", "lower_colour", "shoes_colour")
    colours = {thing.removesuffix("_colour"): getattr(person, thing) for thing in (*things, "bag_colour")}
    rgb = {thing: shade(COLOURS.get(name, _NONE).rgb) for thing, name in colours.items()}
    if person.lower == "jeans" and person.lower_colour in ("navy", "blue", "light blue"):
        rgb["lower"] = tuple(round(c * k) for c, k in zip(rgb["lower"], (1.0, 0.98, 0.84), strict=True))
    skin, hair = shade(SKINS[person.skin]), shade(HAIR_COLOURS.get(person.hair_colour, _NONE).rgb)
    slim = 0.94 if person.sex == "woman" else 1.0
    return Look(rgb, skin, hair, slim * dice.between(0.93, 1.12), slim**0.7 * dice.between(0.95, 1.03))


@dataclass(frozen=True)
class Pose:
    """How a figure stands in one image."""

    yaw: float
    """0 faces the camera, pi/2 faces the right edge of the image; from -pi to pi"""
    phase: float
    stride: float
    """0 stands, 1 takes long steps"""
    elbow: float

    @property
    def facing(self) -> str:
        """front, back, left or right: the way the figure looks in the image."""
        return ("front", "right", "back", "left")[round(self.yaw / (math.pi / 2)) % 4]


class Body:
    """A posed person on a picture: joints, projection, and where parts have been drawn (``marks``)."""

    def __init__(self, person: Person, look: Look, pose: Pose, foot: Point, scale: float, brush: Brush) -> None:
        self.person, self.look, self.pose, self.brush = person, look, pose, brush
        self.foot, self.scale = foot, scale * look.height
        self.cos, self.sin = math.cos(pose.yaw), math.sin(pose.yaw)
        self.marks: dict[str, list[tuple[float, float, float, float]]] = {}
        legs = {side: self._leg(side) for side in SIDES}
        self.drop = min(leg[2][1] for leg in legs.values()) - 0.045
        self.legs = {side: [(x, y - self.drop, z) for x, y, z in leg] for side, leg in legs.items()}
        self.arms = {side: self._arm(side) for side in SIDES}

    def _leg(self, side: str) -> list[Bone]:
        pose, sign = self.pose, SIDES[side]
        phase = pose.phase + (math.pi if sign < 0 else 0)
        thigh = 0.06 * sign + 0.42 * pose.stride * math.sin(phase)
        shin = thigh - 0.03 - 0.75 * pose.stride * max(0.0, math.cos(phase)) ** 1.5
        x = sign * 0.052 * self.look.width
        knee = (x * 1.05, 0.5 - 0.235 * math.cos(thigh), 0.235 * math.sin(thigh))
        ankle = (x, knee[1] - 0.225 * math.cos(shin), knee[2] + 0.225 * math.sin(shin))
        return [(x, 0.5, 0.0), knee, ankle]

    def _arm(self, side: str) -> list[Bone]:
        pose, sign, person = self.pose, SIDES[side], self.person
        loaded = person.bag_side == side
        phase = pose.phase + (math.pi if sign < 0 else 0)
        swing = (0.12 if loaded else 0.42) * pose.stride * -math.sin(phase)
        bend = swing + (0.08 if loaded else pose.elbow)
        if loaded and person.bag == "suitcase":
            swing, bend = -0.32, -0.22
        half = (0.1 if person.sex == "woman" else 0.116) * self.look.width
        shoulder = (sign * (half - 0.006), 0.79 - self.drop, 0.0)
        away = 0.09 + (0.05 if person.jacket != "none" else 0)
        elbow = self._swung(shoulder, sign * away * 1.3, 0.165, swing)
        return [shoulder, elbow, self._swung(elbow, sign * away * 0.3, 0.15, bend)]

    @staticmethod
    def _swung(start: Bone, out: float, length: float, angle: float) -> Bone:
        """The end of a bone that hangs from ``start``."""
        x, y, z = start
        return x + out * length, y - length * math.cos(angle), z + length * math.sin(angle)

    def near(self, bone: Bone) -> float:
        """How much nearer to the camera than the body's axis a place is."""
        return -bone[0] * self.sin + bone[2] * self.cos

    def at(self, x: float, y: float, z: float) -> Point:
        """Where a place of the body is in the image."""
        across, near = x * self.cos + z * self.sin, self.near((x, y, z))
        return self.foot[0] + self.scale * across, self.foot[1] - self.scale * (y - _TILT * near)

    def upper(self, x: float, y: float, z: float) -> Point:
        """Where a place above the legs is in the image: it sinks as the legs spread."""
        return self.at(x, y - self.drop, z)

    def spot(self, place: Point) -> Pen:
        """A place in the image, to draw around it in body heights."""
        return Pen(self.brush.draw, place, self.scale)

    def shell(self, rings: list[tuple[float, float, float, float]], grow: float = 1.0) -> Shell:
        """An upright shell from (y, half width, half depth, how far forward) rings, top first."""
        seen = []
        for y, wide, deep, forward in rings:
            x, height = self.upper(0, y, forward)
            half = self.scale * grow * math.hypot(wide * self.look.width * self.cos, deep * self.sin)
            seen.append((height, x, half))
        return Shell(seen)

    def around(self, angle: float) -> float | None:
        """The u at which something on a shell is seen, by its angle from the middle of the front; None if behind."""
        turned = self.pose.yaw + angle
        return math.sin(turned) if math.cos(turned) > 0 else None

    def mark(self, name: str, *points: Point, margin: float = 0.0) -> None:
        """Remember where a part has been drawn."""
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        edge = margin * self.scale
        self.marks.setdefault(name, []).append((min(xs) - edge, min(ys) - edge, max(xs) + edge, max(ys) + edge))

    def blush(self) -> Colour:
        """Skin in shadow: lips, ears, nose."""
        return darker(self.look.skin, 0.25)
