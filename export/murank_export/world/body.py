"""One person drawn on a background: painter's algorithm, at three times the size of the crop."""

from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from murank_export.world.people import (
    BAGS,
    CLOTHES,
    HAIR,
    HAIR_STYLES,
    HATS,
    LEGS,
    PATTERNS,
    SKIN,
    SLEEVES,
    Colour,
    Person,
)  # fmt: skip

HEIGHT, WIDTH = 128, 64  # of a crop, the customary size
SCALE = 3  # drawn larger, then averaged down: smooth edges
_H, _W = HEIGHT * SCALE, WIDTH * SCALE


@dataclass(frozen=True)
class Pose:
    """How a person stands before the camera. Lengths are shares of the crop's height."""

    turn: float  # radians; 0 faces the camera, pi shows the back
    swing: float = 0.0  # of the legs
    arms: float = 0.0
    lean: float = 0.0
    size: float = 1.0
    x: float = 0.0  # of the figure's middle
    y: float = 0.0
    elevation: float = 0.0  # of the camera: 0 at eye level, 1 steeply from above


def draw_person(person: Person, pose: Pose, background: Image.Image) -> None:
    """Draw a person onto an RGB image of 3 x the crop's size, in place."""
    _Figure(person, pose, background).draw()


class _Figure:
    """A body of height 1: y from the head (0.04) to the soles (0.97), x from the middle."""

    def __init__(self, person: Person, pose: Pose, image: Image.Image) -> None:
        self.person, self.pose, self.image = person, pose, image
        self.pen = ImageDraw.Draw(image)
        self.facing = cos(pose.turn)  # 1: towards the camera
        self.side = 1 if sin(pose.turn) >= 0 else -1  # where the face points, seen from the side
        self.profile = abs(sin(pose.turn))
        self.wide = (0.62 + 0.38 * abs(self.facing)) * person.width
        self.front, self.back = self.facing > 0.2, self.facing < -0.2
        self.top, self.skin = CLOTHES[person.top], SKIN[person.skin]
        self.legs, self.hair = CLOTHES[person.legs_colour], HAIR[person.hair]
        self.bag = CLOTHES[person.bag_colour]

    def draw(self) -> None:
        bag = BAGS[self.person.bag]
        if bag == "backpack" and self.front:
            self._ellipse(0, 0.31, 0.115 * self.wide, 0.1, self.bag)
        self._legs()
        self._torso()
        self._arms()
        if bag == "backpack":
            self._backpack()
        elif bag == "shoulder bag":
            self._shoulder_bag()
        elif bag == "hand bag":
            x = self._bag_x() * (0.105 * self.wide + 0.035)
            self._line([(x, 0.5), (x, 0.55)], 0.012, self.bag)
            self._box(x - 0.04, x + 0.04, 0.535, 0.64, self.bag)
        self._head()

    def _legs(self) -> None:
        kind, hip = LEGS[self.person.legs], 0.046 * self.wide
        wide = 0.036 * self.person.width
        swing = self.pose.swing * (0.4 + 0.6 * self.profile)
        knee = {"trousers": 1.0, "shorts": 0.45, "skirt": 0.0}[kind]
        for sign in (-1, 1):
            foot = sign * (hip + swing)
            self._capsule(sign * hip, 0.5, foot, 0.93, wide, self.skin)
            if knee:
                x = sign * hip + knee * (foot - sign * hip)
                self._capsule(sign * hip, 0.5, x, 0.5 + knee * 0.42, 1.08 * wide, self.legs)
            toe = foot + 0.014 * self.side * self.profile
            self._ellipse(toe, 0.945, 0.044, 0.023, CLOTHES[self.person.shoes])
        if kind == "skirt":
            narrow, broad = 0.085 * self.wide, 0.12 * self.wide
            self._polygon([(-narrow, 0.48), (narrow, 0.48), (broad, 0.7), (-broad, 0.7)], self.legs)
        self._box(-0.095 * self.wide, 0.095 * self.wide, 0.49, 0.55, self.legs)

    def _torso(self) -> None:
        shoulder, hem = 0.112 * self.wide, 0.098 * self.wide
        outline = [
            (-0.35 * shoulder, 0.172), (0.35 * shoulder, 0.172), (shoulder, 0.205), (hem, 0.525),
            (-hem, 0.525), (-shoulder, 0.205),
        ]  # fmt: skip
        points = [self._at(x, y) for x, y in outline]
        pattern = PATTERNS[self.person.pattern]
        self.pen.polygon(points, fill=self.top)
        if pattern == "badge":
            if self.front:
                self._box(-0.045 * self.wide, 0.045 * self.wide, 0.26, 0.36, self._second())
        elif pattern != "plain":
            mask = Image.new("1", self.image.size)
            ImageDraw.Draw(mask).polygon(points, fill=1)
            self.image.paste(self._cloth(pattern), mask=mask)

    def _cloth(self, pattern: str) -> Image.Image:
        """Return a picture that is the pattern of the clothes all over."""
        left, top = self._at(0, 0.17)
        scale = self.person.pattern_scale * SCALE * self.pose.size
        x = (np.arange(_W) - left) / (5.0 * scale * max(self.wide, 0.5))
        y = (np.arange(_H) - top) / (6.0 * scale)
        across, down = np.floor(y)[:, None] % 2, np.floor(x)[None, :] % 2
        which = {"hoops": across, "stripes": down, "checks": (across + down) % 2}[pattern]
        which = np.broadcast_to(which, (_H, _W)).astype(np.uint8)
        return Image.fromarray(np.array([self.top, self._second()], np.uint8)[which])

    def _second(self) -> Colour:
        second = CLOTHES[self.person.second]
        # A pattern of one colour would be none.
        return second if second != self.top else CLOTHES[(self.person.second + 3) % len(CLOTHES)]

    def _arms(self) -> None:
        shoulder = 0.105 * self.wide + 0.006
        sleeve = {"long": 0.9, "short": 0.4}[SLEEVES[self.person.sleeves]]
        shade = (int(0.92 * self.top[0]), int(0.92 * self.top[1]), int(0.92 * self.top[2]))
        for sign in (-1, 1):
            x = sign * shoulder
            hand = sign * (shoulder + 0.014 + abs(self.pose.arms) * 0.5)
            hand += self.pose.arms * 0.3 * self.side * self.profile
            wide = 0.026 * self.person.width
            self._capsule(x, 0.215, hand, 0.5, 0.85 * wide, self.skin)
            end = x + sleeve * (hand - x)
            self._capsule(x, 0.215, end, 0.215 + sleeve * 0.285, wide, shade)

    def _backpack(self) -> None:
        if self.back:
            wide = 0.08 * self.wide
            self._box(-wide, wide, 0.2, 0.43, self.bag, round_by=0.03)
        elif self.front:
            for sign in (-1, 1):
                x = sign * 0.062 * self.wide
                self._line([(x, 0.18), (x, 0.36)], 0.02, self.bag)
        else:
            self._ellipse(-self.side * 0.115 * self.wide, 0.31, 0.06, 0.11, self.bag)

    def _shoulder_bag(self) -> None:
        side, wide = self._bag_x(), 0.105 * self.wide
        self._line([(-side * 0.8 * wide, 0.19), (side * wide, 0.48)], 0.018, self.bag)
        x = side * 1.05 * wide
        self._box(x - 0.046, x + 0.046, 0.46, 0.585, self.bag, round_by=0.015)

    def _bag_x(self) -> int:
        carried = 1 if self.person.bag_side else -1
        return carried if self.facing >= 0 else -carried

    def _head(self) -> None:
        style = HAIR_STYLES[self.person.hair_style]
        look = self.side * self.profile  # where the face is
        if style == "long":
            self._ellipse(-0.012 * look, 0.145, 0.062, 0.095, self.hair)
        self._ellipse(0, 0.105, 0.05, 0.07, self.skin)
        if style != "bald":
            if self.back:
                low = 0.11 if style == "long" else 0.07
                self._ellipse(0, 0.1 + (low - 0.07), 0.055, low, self.hair)
            else:
                self._cap(-0.01 * look, 0.09, 0.054, 0.064, 0.088, self.hair)
                self._ellipse(-0.028 * look, 0.1, 0.034 * self.profile + 0.002, 0.06, self.hair)
        if HATS[self.person.hat] == "cap":
            colour = CLOTHES[self.person.hat_colour]
            self._cap(0, 0.08, 0.059, 0.058, 0.08, colour)
            if not self.back:
                self._box(-0.058 + 0.03 * look, 0.058 + 0.034 * look, 0.07, 0.082, colour)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        """From the body to the picture, in pixels."""
        pose, person = self.pose, self.person
        seen = max(y, 0.0) ** (1 / (1 + 0.5 * pose.elevation))  # from above, legs are short
        x *= 1 + 0.5 * pose.elevation * (0.5 - y)
        size = pose.size * person.height
        across = x * pose.size + pose.x + pose.lean * (0.5 - y)
        return _W / 2 + across * _H, ((seen - 0.5) * size + 0.5 + pose.y) * _H

    def _unit(self) -> float:
        return self.pose.size * _H

    def _ellipse(self, x: float, y: float, wide: float, high: float, colour: Colour) -> None:
        self.pen.ellipse(self._bounds(x, y, wide, high), fill=colour)

    def _cap(
        self, x: float, y: float, wide: float, high: float, bottom: float, colour: Colour
    ) -> None:
        """Draw the part of an ellipse above `bottom`."""
        left, top, right, end = self._bounds(x, y, wide, high)
        share = min(1.0, max(-1.0, (bottom - y) / high))
        angle = np.degrees(np.arcsin(share))
        self.pen.chord((left, top, right, end), 180 - angle, 360 + angle, fill=colour)

    def _bounds(
        self, x: float, y: float, wide: float, high: float
    ) -> tuple[float, float, float, float]:
        (left, top), (right, bottom) = self._at(x - wide, y - high), self._at(x + wide, y + high)
        return min(left, right), min(top, bottom), max(left, right), max(top, bottom)

    def _capsule(
        self, x: float, y: float, to_x: float, to_y: float, wide: float, colour: Colour
    ) -> None:
        radius = wide * self._unit()
        ends = [self._at(x, y), self._at(to_x, to_y)]
        self.pen.line(ends, fill=colour, width=max(1, round(2 * radius)))
        for px, py in ends:
            self.pen.ellipse((px - radius, py - radius, px + radius, py + radius), fill=colour)

    def _line(self, points: list[tuple[float, float]], wide: float, colour: Colour) -> None:
        self.pen.line(
            [self._at(x, y) for x, y in points], fill=colour, width=max(1, round(wide * _H))
        )

    def _polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self.pen.polygon([self._at(x, y) for x, y in points], fill=colour)

    def _box(
        self, left: float, right: float, top: float, bottom: float, colour: Colour,
        *, round_by: float = 0.0,
    ) -> None:  # fmt: skip
        if round_by:
            (x0, y0), (x1, y1) = self._at(left, top), self._at(right, bottom)
            self.pen.rounded_rectangle(
                (min(x0, x1), y0, max(x0, x1), y1), round_by * self._unit(), fill=colour
            )
        else:
            self._polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)


def random_pose(
    random: np.random.Generator, *, view: float, spread: float, jitter: float, elevation: float
) -> Pose:
    """Draw a pose for a camera that sees people from direction `view` (radians) as a rule."""
    normal = np.clip(random.standard_normal(7), -2, 2)
    return Pose(
        turn=float((view + spread * normal[0]) % (2 * pi)),
        swing=float(0.06 * normal[1]),
        arms=float(0.05 * normal[2]),
        lean=float(0.04 * normal[3]),
        size=float(np.clip(1 + 0.14 * jitter * normal[4], 0.72, 1.34)),
        x=float(0.03 * jitter * normal[5]),
        y=float(0.04 * jitter * normal[6]),
        elevation=elevation,
    )
