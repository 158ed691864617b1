"""Line charts and scatter plots as SVG text, coloured by the page's own styles (``s0`` to ``s7``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 14, 50
STYLES = 8  # colours; beyond them they repeat with other markers
_MARKERS = ("circle", "square", "triangle", "diamond", "cross")
_MOST_POINTS = 200
_LETTER, _ASCENT = 7.5, 11  # pixels of a text of 13: a letter's width, rather too much, and the height above its line


@dataclass(frozen=True)
class Series:
    """Lines or points of one group. number: chooses colour and marker. lines: (x, y) points of each."""

    label: str
    number: int
    lines: tuple[tuple[tuple[float, float], ...], ...]


def line_chart(name: str, title: str, text: str, series: Sequence[Series], x_label: str, y_label: str) -> str:
    """Curves over pictures seen.

    Args:
        name: unique on the page. title, text: for whoever does not see it.
        series: at least one point in all.
    """
    frame = _Frame([point for one in series for line in one.lines for point in line])
    parts = [frame.axes(x_label, y_label)]
    for one in series:
        for line in one.lines:
            every = -(-len(line) // _MOST_POINTS)
            places = [frame.place(*point) for point in [*line[:-1:every], line[-1]]]
            corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline class="line s{one.number % STYLES}" points="{corners}"/>')
            step = max(1, len(places) // 8)
            parts += [marker(one.number, *place) for place in places[::step]]
    return _svg(name, title, text, parts)


def scatter(
    name: str,
    title: str,
    text: str,
    points: Sequence[tuple[str, int, float, float, float]],
    front: Sequence[int],
    x_label: str,
    y_label: str,
) -> str:
    """Points with their names, bars of the spread, and the front as a staircase.

    Args:
        points: (label, number, x, y, standard deviation of y or nan).
        front: indices of the points on the Pareto front, by rising x.
    """
    spread = [(x, y + sign * (0 if math.isnan(d) else d)) for _, _, x, y, d in points for sign in (-1, 1)]
    frame = _Frame(spread, from_zero=True, pad=0.12)
    parts = [frame.axes(x_label, y_label)]
    if front:
        steps: list[tuple[float, float]] = []
        for index in front:
            x, y = points[index][2:4]
            steps += [(x, steps[-1][1]), (x, y)] if steps else [(x, y)]
        steps.append((frame.right, steps[-1][1]))
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (frame.place(*step) for step in steps))
        parts.append(f'<polyline class="front" points="{places}"/>')
    taken = [_mark_box(*frame.place(x, y)) for _, _, x, y, _ in points]
    for label, number, x, y, deviation in points:
        at, high = frame.place(x, y)
        if not math.isnan(deviation):
            top, bottom = (frame.place(x, y + sign * deviation)[1] for sign in (1, -1))
            parts.append(f'<path class="line s{number % STYLES}" d="M{at:.1f} {top:.1f}V{bottom:.1f}"/>')
        parts.append(marker(number, at, high, 6))
        left = at > WIDTH * 0.6
        anchor, shift = ("end", -11) if left else ("start", 11)
        across, line = at + shift, _free_line(at + shift, high - 9, len(label) * (-1 if left else 1), taken)
        parts.append(f'<text x="{across:.1f}" y="{line:.1f}" text-anchor="{anchor}">{escape(label)}</text>')
    return _svg(name, title, text, parts)


def _mark_box(x: float, y: float) -> tuple[float, float, float, float]:
    return x - 7, y - 7, x + 7, y + 7


def _free_line(x: float, y: float, letters: int, taken: list[tuple[float, float, float, float]]) -> float:
    """The line nearest to ``y`` where a text covers nothing of ``taken``, to which it is added.

    Args:
        letters: their number; negative of a text that ends at ``x``.
    """
    left, right = sorted((x, x + letters * _LETTER))
    lines = [y + sign * step for step in range(0, HEIGHT, 5) for sign in (1, -1)]
    inside = [line for line in lines if _TOP + _ASCENT < line < HEIGHT - _BOTTOM - 4]
    boxes = [(left, line - _ASCENT, right, line + 3) for line in inside or [y]]
    free = (box for box in boxes if not any(_overlap(box, other) for other in taken))
    found = next(free, boxes[0])
    taken.append(found)
    return found[3] - 3


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def marker(number: int, x: float, y: float, size: float = 4) -> str:
    """The mark of a group at a place: its shape tells groups apart where colours do not."""
    shape = _MARKERS[number % len(_MARKERS)]
    style = f'class="mark s{number % STYLES}"'
    if shape == "circle":
        return f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="{size}"/>'
    r = size * 1.2
    corners = {
        "square": ((-r, -r), (r, -r), (r, r), (-r, r)),
        "triangle": ((0, -r), (r, r), (-r, r)),
        "diamond": ((0, -r * 1.2), (r * 1.2, 0), (0, r * 1.2), (-r * 1.2, 0)),
        "cross": ((-r, -r / 3), (r, -r / 3), (r, r / 3), (-r, r / 3)),
    }[shape]
    return f'<polygon {style} points="{" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)}"/>'


def swatch(number: int) -> str:
    """The mark of a group for a legend or a table, which names the group itself."""
    return f'<svg class="swatch" viewBox="0 0 16 16" aria-hidden="true">{marker(number, 8, 8, 5)}</svg>'


def short(value: float) -> str:
    """12000 -> 12k, for axes and tables."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


class _Frame:
    """Where values stand in the picture."""

    def __init__(self, points: Sequence[tuple[float, float]], from_zero: bool = False, pad: float = 0.04) -> None:
        xs, ys = zip(*points, strict=True)
        low, high = min(ys), max(ys)
        room = (high - low or abs(high) or 1.0) * pad
        self.left = 0.0 if from_zero or min(xs) >= 0 else min(xs)
        self.right = max(xs) * (1 + (pad if from_zero else 0)) or 1.0
        self.low, self.high = low - room, high + room
        if low >= 0:
            self.low = max(0.0, self.low)

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.left) / (self.right - self.left or 1)
        up = (y - self.low) / (self.high - self.low or 1)
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)

    def axes(self, x_label: str, y_label: str) -> str:
        parts = []
        for value in _ticks(self.low, self.high):
            y = self.place(self.left, value)[1]
            parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
        for value in _ticks(self.left, self.right):
            x = self.place(value, self.low)[0]
            parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>')
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{short(value)}</text>')
        middle = (_TOP + HEIGHT - _BOTTOM) / 2
        parts.append(
            f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
        )
        parts.append(
            f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
        )
        return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5 or 1.0
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _svg(name: str, title: str, text: str, parts: Sequence[str]) -> str:
    labels = f'aria-labelledby="{name}-t" aria-describedby="{name}-d"'
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" {labels}>'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(text)}</desc>{"".join(parts)}</svg>'
    )
