"""Small charts inside the page: intervals, bars and heat, as plain SVG that the page's style colours.

Each stands beside the numbers that it shows, so it is hidden from those who have the page read to them. Nothing but
numbers enters, and classes instead of colours, so that it is at home in light, in dark and on paper.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

from markupsafe import Markup

WIDTH, HEIGHT = 180, 16
LEVELS = 8


@dataclass(frozen=True)
class Scale:
    """From `start` to `end`, over the width of a chart, with room for a marker at either end."""

    start: float
    end: float
    width: int = WIDTH

    def at(self, value: float) -> float:
        share = (value - self.start) / (self.end - self.start) if self.end > self.start else 0.5
        return round(4 + min(max(share, 0), 1) * (self.width - 8), 1)


def around_zero(values: Iterable[float | None], width: int = WIDTH) -> Scale:
    """A scale on which zero is in the middle and every value has a place."""
    most = max((abs(value) for value in values if value is not None and isfinite(value)), default=0.0) or 1.0
    return Scale(-most, most, width)


def interval(scale: Scale, value: float, low: float | None, high: float | None, zero: bool = False) -> Markup:
    """A point with its interval on a line from end to end; `zero` marks where nothing is, else the line starts there."""
    middle, base = HEIGHT / 2, scale.at(0)
    parts = [f'<path class="axis" d="M4 {middle}H{scale.width - 4}"/>']
    parts.append(f'<path class="zero" d="M{base} 1V{HEIGHT - 1}"/>' if zero else "")
    if low is not None and high is not None and isfinite(low) and isfinite(high):
        parts.append(f'<path class="whisker" d="M{scale.at(low)} {middle}H{scale.at(high)}"/>')
    parts.append(f'<circle class="point" cx="{scale.at(value)}" cy="{middle}" r="3.5"/>')
    return _svg("strip", scale.width, HEIGHT, parts)


def bar(share: float, width: int = 100) -> Markup:
    """A bar for a share between nothing and all."""
    filled = round(min(max(share, 0), 1) * width, 1)
    return _svg(
        "bar", width, 10, [f'<path class="track" d="M0 0H{width}V10H0z"/><path class="fill" d="M0 0H{filled}V10H0z"/>']
    )


def bars(shares: Sequence[float], most: float = 1.0, width: int = 140) -> Markup:
    """Shares side by side as columns, the tallest possible being `most`; many become narrow."""
    step = min(7.0, width / max(len(shares), 1))
    parts = [f'<path class="axis" d="M0 19.5H{step * len(shares):g}"/>']
    for place, share in enumerate(shares):
        tall = round(min(max(share / most if most else 0, 0), 1) * 19, 1)
        wide = f"{step * 0.72:.3g}"
        parts.append(f'<path class="fill" d="M{step * place:.4g} {19 - tall:.3g}h{wide}v{tall:g}h-{wide}z"/>')
    return _svg("columns", round(step * len(shares)), 20, parts)


def push(scale: Scale, value: float) -> Markup:
    """A bar from zero to either side: to the right what speaks for something, to the left what speaks against it."""
    ends = sorted((scale.at(0), scale.at(value)))
    side = "for" if value >= 0 else "against"
    return _svg(
        "push",
        scale.width,
        12,
        [
            f'<path class="zero" d="M{scale.at(0)} 0V12"/>',
            f'<path class="{side}" d="M{ends[0]} 1H{ends[1]}V11H{ends[0]}z"/>',
        ],
    )


def level(value: float, largest: float) -> int:
    """How hot a value is, from 0 for nothing to LEVELS for the largest; whatever is there at all is at least 1."""
    if value <= 0 or largest <= 0:
        return 0
    return min(LEVELS, 1 + int(value / largest * (LEVELS - 0.001)))


def _svg(look: str, width: int, height: int, parts: list[str]) -> Markup:
    inside = "".join(parts)
    return Markup(  # noqa: S704 - numbers and classes of this module alone
        f'<svg class="{look}" width="{width}" height="{height}" viewBox="0 0 {width} {height}" aria-hidden="true">{inside}</svg>'
    )
