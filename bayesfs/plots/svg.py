"""A small plot frame that writes inline SVG: text stays text, colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike

from bayesfs.plots.text import harmless


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most so many round numbers (1, 2 or 5 times a power of ten) that span [low, high].

    Example:
        >>> nice_ticks(0, 1)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [float(low)]
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-6)
    last = math.floor(high / step + 1e-6)
    return [round(i * step, 10) for i in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A tick's number, without trailing zeros."""
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def svg(body: Iterable[str], width: float, height: float, label: str, css: str = "plot") -> Markup:
    """The image, with its text alternative."""
    head = (
        f'<svg class="{css}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(harmless(label))}">'
    )
    return Markup(head + "".join(body) + "</svg>")


def text(x: float, y: float, words: object, css: str = "", anchor: str = "middle") -> str:
    """A piece of text, escaped."""
    kind = f' class="{css}"' if css else ""
    shown = escape(harmless(words))
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{shown}</text>'


def polyline(x: ArrayLike, y: ArrayLike) -> str:
    """Path data through points in pixels, to a tenth."""
    points = zip(np.asarray(x, float).ravel(), np.asarray(y, float).ravel(), strict=True)
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


@dataclass(frozen=True)
class Plot:
    """A frame with linear axes.

    Attributes:
        x: range of the horizontal axis.
        y: range of the vertical axis.
        width: of the image.
        height: of the image.
        left: margin for the tick labels.
        bottom: margin for tick labels and the axis' name.
        top: margin.
        right: margin.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    width: float = 400
    height: float = 300
    left: float = 46
    bottom: float = 42
    top: float = 10
    right: float = 12

    def px(self, values: Any) -> Any:
        """Horizontal place of values."""
        low, high = self.x
        room = self.width - self.left - self.right
        return self.left + room * (np.asarray(values, float) - low) / ((high - low) or 1.0)

    def py(self, values: Any) -> Any:
        """Vertical place of values."""
        low, high = self.y
        room = self.height - self.top - self.bottom
        return (
            self.height
            - self.bottom
            - room * (np.asarray(values, float) - low) / ((high - low) or 1.0)
        )

    def axes(
        self,
        x_name: str,
        y_name: str,
        x_ticks: Sequence[float] | None = None,
        y_ticks: Sequence[float] | None = None,
    ) -> list[str]:
        """Grid lines, ticks and the names of the axes."""
        x_ticks = nice_ticks(*self.x) if x_ticks is None else x_ticks
        y_ticks = nice_ticks(*self.y) if y_ticks is None else y_ticks
        end, base = self.width - self.right, self.height - self.bottom
        grid = "".join(f"M{self.left:g} {self.py(t):.1f}H{end:g}" for t in y_ticks)
        marks = "".join(f"M{self.px(t):.1f} {base:g}v4" for t in x_ticks)
        out = [
            f'<path class="grid" d="{grid}"/>' if grid else "",
            f'<path class="axis" d="M{self.left:g} {base:g}H{end:g}{marks}"/>',
        ]
        out += [text(self.px(t), base + 16, tick_text(t), "tick") for t in x_ticks]
        out += [text(self.left - 6, self.py(t) + 4, tick_text(t), "tick", "end") for t in y_ticks]
        if x_name:
            out.append(text((self.left + end) / 2, self.height - 6, x_name, "name"))
        if y_name:
            place = f'transform="translate(11 {(self.top + base) / 2:.1f}) rotate(-90)"'
            out.append(f'<text class="name" {place} text-anchor="middle">{escape(y_name)}</text>')
        return out

    def line(self, x: ArrayLike, y: ArrayLike, css: str) -> str:
        """A line through points in data units."""
        return f'<path class="line {css}" d="{polyline(self.px(x), self.py(y))}"/>'

    def area(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, css: str) -> str:
        """A band between two curves in data units."""
        along = np.asarray(x, float)
        edge = polyline(
            np.concatenate([self.px(along), self.px(along)[::-1]]),
            np.concatenate([self.py(high), self.py(low)[::-1]]),
        )
        return f'<path class="{css}" d="{edge}Z"/>'
