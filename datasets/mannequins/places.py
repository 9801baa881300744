"""Where figures stand: street-like backgrounds, and things that stand before them."""

from PIL import Image, ImageDraw

from datasets.mannequins.dice import Dice
from datasets.mannequins.shapes import Colour, Pen, darker, lighter, mix

_PLASTER = ((196, 186, 170), (172, 178, 182), (206, 194, 176), (158, 150, 142), (186, 160, 142), (150, 160, 158))
_GROUND = ((150, 148, 144), (128, 130, 134), (168, 160, 150), (112, 112, 116))
_GREENS = ((74, 110, 62), (92, 126, 74), (60, 92, 64), (112, 130, 80))
_PAINTS = ((52, 60, 74), (140, 44, 44), (196, 198, 200), (60, 88, 120), (92, 96, 98), (168, 150, 110), (58, 92, 74))


class Place(Pen):
    """A canvas for one background; ``horizon`` is where ground and background meet."""

    def __init__(self, width: int, height: int, dice: Dice) -> None:
        self.width, self.height, self.dice = width, height, dice
        self.horizon = round(height * dice.between(0.5, 0.74))
        self.image = Image.new("RGB", (width, height))
        super().__init__(ImageDraw.Draw(self.image, "RGBA"))

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, alpha: int = 255) -> None:
        """A filled rectangle."""
        self.draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), fill=(*colour, alpha))

    def fade(self, y0: int, y1: int, top: Colour, bottom: Colour, steps: int = 12) -> None:
        """A vertical gradient over the whole width."""
        for step in range(steps):
            y = y0 + (y1 - y0) * step / steps
            self.box(0, y, self.width, y + (y1 - y0) / steps + 1, mix(top, bottom, step / (steps - 1)))

    def ground(self) -> None:
        """Pavement in perspective."""
        dice, width, height, horizon = self.dice, self.width, self.height, self.horizon
        colour = dice.pick(_GROUND)
        self.fade(horizon, height, darker(colour, 0.12), lighter(colour, 0.1), 8)
        joint = darker(colour, 0.25)
        y, step = float(horizon), 0.03 * height
        while y < height:
            self.line([(0, y), (width, y)], 1, joint, 110)
            y, step = y + step, step * 1.45
        middle = width * dice.between(0.1, 0.9)
        for k in range(-4, 5):
            self.line([(middle + k * width * 0.2, horizon), (middle + k * width * 0.62, height)], 1, joint, 90)


def _wall(place: Place) -> None:
    dice, width, horizon = place.dice, place.width, place.horizon
    colour = dice.pick(_PLASTER)
    place.fade(0, horizon, lighter(colour, 0.1), darker(colour, 0.12))
    if dice.chance(0.5):
        brick = mix((150, 84, 66), colour, dice.between(0.1, 0.6))
        place.fade(0, horizon, brick, darker(brick, 0.15))
        rows = 18
        for row in range(rows):
            y = horizon * row / rows
            place.line([(0, y), (width, y)], 1, lighter(brick, 0.3), 120)
            for k in range(6):
                x = (k + 0.5 * (row % 2)) * width / 5
                place.line([(x, y), (x, y + horizon / rows)], 1, lighter(brick, 0.3), 100)
    else:
        for _ in range(dice.whole(1, 3)):
            x, y = dice.between(-0.1, 0.8) * width, dice.between(0, 0.6) * horizon
            place.box(x, y, x + 0.34 * width, y + 0.3 * horizon, darker(colour, dice.between(0.15, 0.5)))
    place.box(0, horizon * 0.95, width, horizon, darker(colour, 0.35))
    place.ground()


def _shop(place: Place) -> None:
    dice, width, horizon = place.dice, place.width, place.horizon
    frame = dice.pick(_PAINTS)
    place.fade(0, horizon, lighter(frame, 0.1), darker(frame, 0.2))
    top = horizon * dice.between(0.2, 0.32)
    place.box(0, top * 0.35, width, top * 0.75, dice.pick(_PAINTS))
    for k in range(dice.whole(4, 7)):
        x = width * (0.1 + 0.13 * k)
        place.box(x, top * 0.47, x + width * 0.07, top * 0.63, (232, 228, 214), 220)
    panes = dice.whole(2, 3)
    start = -dice.between(0, 0.3) * width
    for pane in range(panes + 1):
        x0, x1 = start + pane * width / panes + 0.03 * width, start + (pane + 1) * width / panes - 0.03 * width
        place.box(x0, top, x1, horizon * 0.9, (96, 116, 128))
        for _ in range(4):
            x, y = dice.between(x0, x1), dice.between(top, horizon * 0.75)
            glow = dice.pick(((236, 214, 160), (190, 120, 90), (120, 150, 170), (214, 214, 206)))
            place.box(x, y, min(x1, x + 0.12 * width), y + 0.12 * horizon, glow, 170)
        place.polygon([(x0, top), (x0 + (x1 - x0) * 0.4, top), (x0, horizon * 0.6)], (255, 255, 255), 46)
    place.ground()


def _park(place: Place) -> None:
    dice, width, height, horizon = place.dice, place.width, place.height, place.horizon
    place.fade(0, horizon, (196, 212, 224), (222, 226, 220))
    for _ in range(dice.whole(3, 6)):
        x, green = dice.between(-0.1, 1.1) * width, dice.pick(_GREENS)
        place.box(x - 0.025 * width, horizon * 0.4, x + 0.025 * width, horizon * 1.02, (84, 66, 50))
        for _ in range(6):
            cx, cy = x + dice.between(-0.2, 0.2) * width, dice.between(0.02, 0.5) * horizon
            r, high = dice.between(0.1, 0.24) * width, cy <= 0.25 * horizon
            shade = lighter(green, dice.between(0, 0.25)) if high else darker(green, dice.between(0, 0.3))
            place.disc(cx, cy, r, r, shade, 235)
    place.box(0, horizon * 0.9, width, horizon, darker(dice.pick(_GREENS), 0.2))
    grass = dice.pick(_GREENS)
    place.fade(horizon, height, darker(grass, 0.05), lighter(grass, 0.15), 8)
    path = dice.pick(((190, 178, 156), (170, 166, 158)))
    shift = dice.between(-0.15, 0.15) * width
    far = [(width * 0.35 + shift, horizon), (width * 0.65 + shift, horizon)]
    place.polygon([*far, (width * 1.15, height), (-width * 0.15, height)], path)


def _road(place: Place) -> None:
    dice, width, height, horizon = place.dice, place.width, place.height, place.horizon
    place.fade(0, horizon, (176, 192, 208), (206, 210, 212))
    x = -dice.between(0, 0.4) * width
    while x < width:
        house, w, top = dice.pick(_PLASTER), dice.between(0.35, 0.7) * width, dice.between(0, 0.3) * horizon
        place.box(x, top, x + w, horizon, darker(house, 0.1))
        for row in range(4):
            for column in range(3):
                wx, wy = x + w * (0.12 + 0.3 * column), top + horizon * (0.06 + 0.18 * row)
                place.box(wx, wy, wx + w * 0.16, wy + horizon * 0.1, (90, 104, 118), 220)
        x += w + 1
    asphalt = dice.pick(((92, 94, 98), (108, 108, 110)))
    place.fade(horizon, height, darker(asphalt, 0.05), lighter(asphalt, 0.15), 8)
    if dice.chance(0.4):
        for k in range(-3, 8):
            left = k * width * 0.26
            far = [(width * share + left * 0.62, height * 0.86) for share in (0.32, 0.25)]
            place.polygon([(left, height), (left + width * 0.13, height), *far], (226, 226, 222), 200)
    for _ in range(dice.whole(1, 2)):
        _car(place, dice.between(-0.5, 0.8) * width, horizon * dice.between(1.0, 1.06))


def _car(place: Place, x: float, bottom: float) -> None:
    car = Pen(place.draw, (x, bottom), place.width * place.dice.between(0.7, 1.0))
    paint = place.dice.pick(_PAINTS)
    roof = [(0.2, -0.2), (0.32, -0.36), (0.68, -0.36), (0.84, -0.2)]
    car.polygon([(0.0, -0.06), (0.02, -0.19), (0.2, -0.21), *roof, (0.98, -0.18), (1.0, -0.06)], paint)
    car.polygon([(0.26, -0.21), (0.34, -0.33), (0.66, -0.33), (0.76, -0.21)], (64, 76, 88))
    place.box(*car.at(0, -0.12), *car.at(1, -0.05), darker(paint, 0.25))
    for wheel in (0.2, 0.78):
        car.disc(wheel, -0.0525, 0.075, 0.075, (26, 26, 28))
        car.disc(wheel, -0.0525, 0.0375, 0.0375, (140, 142, 146))


def _hall(place: Place) -> None:
    dice, width, height, horizon = place.dice, place.width, place.height, place.horizon
    colour = dice.pick(((206, 210, 212), (188, 196, 198), (214, 206, 190)))
    place.fade(0, horizon, darker(colour, 0.2), colour)
    for k in range(5):
        place.line([(k * width / 4, 0), (k * width / 4, horizon)], 1, darker(colour, 0.25), 150)
    for _ in range(dice.whole(1, 2)):
        x, y = dice.between(-0.1, 0.7) * width, dice.between(0.05, 0.4) * horizon
        poster = dice.pick(_PAINTS)
        place.box(x, y, x + 0.36 * width, y + 0.34 * horizon, poster)
        place.box(x + 0.05 * width, y + 0.05 * horizon, x + 0.3 * width, y + 0.16 * horizon, lighter(poster, 0.5))
    tile = dice.pick(((170, 168, 162), (148, 152, 156)))
    place.fade(horizon, height, darker(tile, 0.1), lighter(tile, 0.25), 8)
    for _ in range(4):
        x = dice.between(0, 1) * width
        place.box(x, horizon, x + dice.between(0.05, 0.2) * width, height, (255, 255, 250), 30)
    place.box(0, horizon - 0.02 * height, width, horizon, darker(colour, 0.45))


def _crowd_haze(place: Place) -> None:
    """Nothing recognisable: a far street out of focus."""
    dice, width, height = place.dice, place.width, place.height
    colour = dice.pick(_PLASTER + _GREENS)
    place.fade(0, height, lighter(colour, 0.2), darker(colour, 0.3))
    for _ in range(22):
        x, y = dice.between(-0.2, 1.0) * width, dice.between(-0.05, 0.9) * height
        tone = mix(colour, dice.pick(_PAINTS + _PLASTER), dice.between(0.2, 0.8))
        place.box(x, y, x + dice.between(0.08, 0.4) * width, y + dice.between(0.04, 0.3) * height, tone, 120)
    place.ground()


_PLACES = (_wall, _shop, _park, _road, _hall, _crowd_haze)


def background(width: int, height: int, dice: Dice) -> Image.Image:
    """A random place."""
    place = Place(width, height, dice)
    dice.pick(_PLACES)(place)
    return place.image
