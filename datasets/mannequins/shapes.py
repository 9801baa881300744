"""What figures are made of: rounded limbs and shells with shading and patterns, drawn as flat polygons.

A surface is addressed by (u, t): u from -1 (left edge in the image) to 1 (right edge), t from 0 (top) to 1.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from PIL import ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]
DARK = (14, 16, 30)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """A colour between two: share 0 is the first, 1 the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def darker(colour: Colour, share: float) -> Colour:
    """The colour in shadow."""
    return mix(colour, DARK, share)


def lighter(colour: Colour, share: float) -> Colour:
    """The colour in light."""
    return mix(colour, (255, 252, 240), share)


@dataclass(frozen=True)
class Limb:
    """A tapered capsule between two points."""

    start: Point
    end: Point
    r0: float
    r1: float
    breaks = (0.0, 1.0)  # the t at which its edges bend

    @cached_property
    def _axes(self) -> tuple[float, float, float, float]:
        """The way along the limb, and the unit normal that points right."""
        dx, dy = self.end[0] - self.start[0], self.end[1] - self.start[1]
        length = math.hypot(dx, dy) or 1e-6
        nx, ny = dy / length, -dx / length
        return (dx, dy, -nx, -ny) if nx < 0 or (nx == 0 and ny < 0) else (dx, dy, nx, ny)

    def at(self, u: float, t: float) -> Point:
        """The place of (u, t); u runs across the limb, leftmost first."""
        dx, dy, nx, ny = self._axes
        r = (self.r0 + (self.r1 - self.r0) * t) * u
        return self.start[0] + dx * t + nx * r, self.start[1] + dy * t + ny * r

    def part(self, t0: float, t1: float, grow: float = 1.0) -> "Limb":
        """A piece of the limb, perhaps thicker: a sleeve, a trouser leg."""
        (x0, y0), (x1, y1) = self.start, self.end
        ends = [(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for t in (t0, t1)]
        radii = [(self.r0 + (self.r1 - self.r0) * t) * grow for t in (t0, t1)]
        return Limb(*ends, *radii)


class Shell:
    """An upright body of ellipses, such as a torso or a skirt: (y, centre x, half width) from top to bottom."""

    def __init__(self, rings: Sequence[tuple[float, float, float]]) -> None:
        self.rings = rings
        top, height = rings[0][0], rings[-1][0] - rings[0][0]
        self.breaks = [(y - top) / height for y, _, _ in rings]

    def at(self, u: float, t: float) -> Point:
        """The place of (u, t)."""
        breaks = self.breaks
        i = bisect_left(breaks, t, 1, len(breaks) - 1) - 1
        share = (t - breaks[i]) / (breaks[i + 1] - breaks[i])
        (y0, x0, half0), (y1, x1, half1) = self.rings[i], self.rings[i + 1]
        return x0 + (x1 - x0) * share + u * (half0 + (half1 - half0) * share), y0 + (y1 - y0) * share


Surface = Limb | Shell


class Pen:
    """Draws plain shapes on a picture: points, distances and sizes are in units of ``scale`` from ``place``, y down."""

    def __init__(self, draw: ImageDraw.ImageDraw, place: Point = (0, 0), scale: float = 1) -> None:
        self.draw, self.place, self.scale = draw, place, scale

    def at(self, dx: float, dy: float) -> Point:
        """Where in the image."""
        return self.place[0] + dx * self.scale, self.place[1] + dy * self.scale

    def polygon(self, points: Sequence[Point], colour: Colour, alpha: int = 255) -> None:
        """A filled polygon."""
        self.draw.polygon([self.at(*point) for point in points], fill=(*colour, alpha))

    def outline(self, points: Sequence[Point], colour: Colour, steps: int = 3) -> None:
        """A filled smooth outline."""
        self.draw.polygon(spline([self.at(*point) for point in points], steps), fill=(*colour, 255))

    def disc(self, dx: float, dy: float, rx: float, ry: float, colour: Colour, alpha: int = 255) -> None:
        """A filled ellipse."""
        (x, y), rx, ry = self.at(dx, dy), rx * self.scale, ry * self.scale
        self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=(*colour, alpha))

    def line(self, points: Sequence[Point], width: float, colour: Colour, alpha: int = 255) -> None:
        """A line with round joints."""
        points, width = [self.at(*point) for point in points], max(1, round(width * self.scale))
        self.draw.line(points, fill=(*colour, alpha), width=width, joint="curve")


class Brush(Pen):
    """Draws surfaces in light; ``lit`` is the side the light comes from, -1 left or 1 right."""

    def __init__(self, draw: ImageDraw.ImageDraw, lit: int, depth: float) -> None:
        super().__init__(draw)
        self.lit, self.depth = lit, depth

    def strip(
        self, surface: Surface, across: Sequence[float], down: Sequence[float], colour: Colour, alpha: int = 255
    ) -> None:
        """A part of a surface."""
        (u0, u1), (t0, t1) = across, down
        steps = [t0, *(t for t in surface.breaks if t0 < t < t1), t1]
        points = [surface.at(u0, t) for t in steps] + [surface.at(u1, t) for t in reversed(steps)]
        self.polygon(points, colour, alpha)

    def shade(self, surface: Surface) -> None:
        """Light on one side of a surface and shadow on the other."""
        for start, alpha in ((-0.1, 22), (0.3, 34), (0.66, 46)):
            self.strip(surface, sorted((-self.lit * start, -self.lit)), (0, 1), DARK, round(alpha * self.depth))
        light = sorted((self.lit * 0.45, self.lit * 0.85))
        self.strip(surface, light, (0, 1), (255, 250, 235), round(26 * self.depth))

    def limb(
        self, limb: Limb, colour: Colour, pattern: tuple[str, Colour] = ("plain", (0, 0, 0)), *, blunt: bool = False
    ) -> None:
        """A limb with its pattern and its shading; with round ends, or cut straight (blunt) at the lower one."""
        self.disc(*limb.start, limb.r0, limb.r0, colour)
        if not blunt:
            self.disc(*limb.end, limb.r1, limb.r1, colour)
        self.strip(limb, (-1, 1), (0, 1), colour)
        self.pattern(limb, *pattern, size=2.4 * limb.r0)
        self.shade(limb)

    def pattern(
        self, surface: Surface, kind: str, colour: Colour, size: float, across: tuple[float, float] = (-1, 1)
    ) -> None:
        """Stripes, checks or dots; ``size`` is the width of the surface in pixels, which sets their number."""
        (x0, y0), (x1, y1) = surface.at(0, 0), surface.at(0, 1)
        rows = max(1, round(math.hypot(x1 - x0, y1 - y0) / max(size, 1) * 5.5))
        if kind in ("striped", "checked"):
            alpha = 255 if kind == "striped" else 150
            for row in range(rows):
                self.strip(surface, across, ((row + 0.3) / rows, (row + 0.75) / rows), colour, alpha)
        if kind == "checked":
            columns = 5 if across == (-1, 1) else 3
            width = (across[1] - across[0]) / columns
            for column in range(columns):
                left = across[0] + width * (column + 0.3)
                self.strip(surface, (left, left + width * 0.45), (0, 1), colour, 130)
        if kind == "dotted":
            radius = max(1.0, size * 0.05)
            for row in range(rows):
                for u in (-0.72, -0.24, 0.24, 0.72) if row % 2 else (-0.48, 0.0, 0.48):
                    if across[0] < u < across[1]:
                        self.disc(*surface.at(u, (row + 0.5) / rows), radius, radius, colour)


def mirrored(half: Sequence[Point]) -> list[Point]:
    """A symmetric outline, from its right half. Starts at the top left: Pillow's edges depend on the start."""
    left = [(-dx, dy) for dx, dy in reversed(half) if dx]
    return [left[-1], *half, *left[:-1]] if half[0][0] else [*half, *left]


def spline(points: Sequence[Point], steps: int) -> list[Point]:
    """A closed smooth outline through points (Catmull-Rom), for hair and hats."""
    weights = [
        ((-s + 2 * s**2 - s**3) / 2, (2 - 5 * s**2 + 3 * s**3) / 2, (s + 4 * s**2 - 3 * s**3) / 2, (s**3 - s**2) / 2)
        for s in (step / steps for step in range(steps))
    ]
    after = [*points[1:], *points[:2]]
    return [
        (a * ax + b * bx + c * cx + d * dx, a * ay + b * by + c * cy + d * dy)
        for (ax, ay), (bx, by), (cx, cy), (dx, dy) in zip([points[-1], *points], points, after, after[1:], strict=False)
        for a, b, c, d in weights
    ]


def chain(points: Sequence[Point], radii: Sequence[float]) -> list[Limb]:
    """Limbs from joint to joint."""
    return [Limb(*ends, *both) for ends, both in zip(pairwise(points), pairwise(radii), strict=True)]
