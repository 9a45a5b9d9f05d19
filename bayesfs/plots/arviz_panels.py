"""Pictures that `arviz_plots` makes, as inline SVG in the page's colours: `panels_of`, `panel_svg`.

ArviZ computes what is seen, its curves and their simultaneous bands. Its backend "none" hands that
over without a picture, so that text stays text, colours come from the page's CSS, the numbers can
stand in a table beside it, and no picture is drawn twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import ArrayLike

from bayesfs._utils.arrays import Floats
from bayesfs._utils.spacing import evenly_spaced
from bayesfs.plots.svg import Plot, nice_ticks, svg
from bayesfs.plots.text import number, share

MOST_POINTS = 200
"""Points that a line is thinned to."""

BAND = 0.99
"""Of simultaneous bands."""

PLACES = 11
"""Places at which a panel's table tells its lines."""


@dataclass(frozen=True)
class Panel:
    """One panel of a picture.

    Attributes:
        lines: (x, y) of every curve; not of the line of reference.
        band: x, lower and upper end of where calibrated curves lie.
        diagonal: whether the reference is y = x; otherwise it is y = 0.
    """

    lines: tuple[tuple[Floats, Floats], ...]
    band: tuple[Floats, Floats, Floats]
    diagonal: bool = False

    @property
    def departure(self) -> tuple[float, float]:
        """Where a curve is furthest from the reference, and by how much."""
        off = [(x, y - x if self.diagonal else y) for x, y in self.lines]
        x, y = max(off, key=lambda line: float(np.abs(line[1]).max()))
        at = int(np.abs(y).argmax())
        return float(x[at]), float(y[at])

    @property
    def outside(self) -> float:
        """Share of the band at which some curve leaves it, by more than a step of the band."""
        at, low, high = self.band
        step = 1 / (len(at) + 1)
        curves = np.stack([self._curve(at, *line) for line in self.lines])
        return float(((curves < low - step) | (curves > high + step)).any(0).mean())

    def _curve(self, at: Floats, x: Floats, y: Floats) -> Floats:
        """A line at some places; an ECDF is 0 before its first step and 1 after its last."""
        found = np.interp(at, x, y)
        if self.diagonal:
            return found
        return np.where(at < x[0], -at, np.where(at > x[-1], 1 - at, found))

    def table(self, names: tuple[str, ...]) -> pd.DataFrame:
        """The curves and their band at `PLACES` places.

        Args:
            names: of the horizontal axis, and of each curve.
        """
        x, low, high = self.band
        at = np.linspace(float(x.min()), float(x.max()), PLACES)
        columns = [at, *(self._curve(at, *line) for line in self.lines)]
        columns += [np.interp(at, x, low), np.interp(at, x, high)]
        heads = (*names, "if calibrated, from", "to")
        return pd.DataFrame(dict(zip(heads, columns, strict=True)))


def panels_of(made: Any) -> tuple[Panel, ...]:
    """The panels of an `arviz_plots.PlotCollection` made with `backend="none"`, in order."""
    drawn = made.viz["plot"].data_vars.values()
    return tuple(_panel(held) for panels in drawn for held in panels.to_numpy().ravel() if held)


def _panel(visuals: list[Mapping[str, Any]]) -> Panel:
    bands = [v for v in visuals if v["function"] == "fill_between_y"]
    curves = [v for v in visuals if v["function"] in ("line", "step")]
    reference = [v for v in curves if "linestyle" in v]
    lines = tuple(line for v in curves if "linestyle" not in v for line in _lines(v["x"], v["y"]))
    if bands:
        x, low, high = (np.asarray(bands[0][end], float) for end in ("x", "y_bottom", "y_top"))
    else:
        x, low, high = simultaneous_band(len(lines[0][0]))
    return Panel(lines, (x, low, high), any(np.ptp(v["y"]) > 0 for v in reference))


def simultaneous_band(count: int) -> tuple[Floats, Floats, Floats]:
    """Where `BAND` of the ECDFs of so many uniform numbers lie throughout, less the diagonal.

    The band that ArviZ 0.8 draws; ArviZ 1 marks the points that a test suspects in its place.

    Returns:
        Places within (0, 1), and the lower and upper end there.

    Source: Säilynoja et al. (2022), by ArviZ's simulation.
    """
    from arviz_stats.ecdf_utils import ecdf_pit  # takes seconds to import

    x, _, low, high = ecdf_pit(np.linspace(0, 1, count), BAND, n_simulations=1000)
    inside = (x > 0) & (x < 1)
    return x[inside], (low - x)[inside], (high - x)[inside]


def _lines(x: ArrayLike, y: ArrayLike) -> Iterator[tuple[Floats, Floats]]:
    """Each row as a line of its own."""
    along, up = np.atleast_2d(np.asarray(x, float)), np.atleast_2d(np.asarray(y, float))
    yield from zip(np.broadcast_to(along, up.shape), up, strict=True)


def panel_svg(panel: Panel, label: str, axes: tuple[str, str], width: int, height: int) -> Markup:
    """One panel as an image.

    Args:
        panel: from `panels_of`.
        label: what it is of; what is seen is added.
        axes: names of the horizontal and of the vertical axis.
        width: of the image.
        height: of the image.
    """
    x, low, high = panel.band
    seen = np.concatenate([low, high, *(y for _, y in panel.lines)])
    reach = 1.1 * float(np.abs(seen).max())
    limits = (0.0, 1.0) if panel.diagonal else (-reach, reach)
    bottom = 42 if axes[0] else 20
    plot = Plot((0, 1), limits, width=width, height=height, left=52, bottom=bottom)
    body = plot.axes(*axes, y_ticks=nice_ticks(*limits, 4 if height < 200 else 6))
    kept = evenly_spaced(len(x), MOST_POINTS)
    body.append(plot.area(x[kept], low[kept], high[kept], "expected"))
    body.append(plot.line([0, 1], [0, 1] if panel.diagonal else [0, 0], "ideal"))
    many = len(panel.lines) > 1
    for i, (along, up) in enumerate(panel.lines):
        kept = evenly_spaced(len(along), MOST_POINTS)
        body.append(plot.line(along[kept], up[kept], f"chain{i % 4}" if many else "series0"))
    at, off = panel.departure
    told = (
        f"{label} Furthest from calibrated at {number(at)}, by {number(off)}; outside the band at "
        f"{share(panel.outside)} of the places."
    )
    return svg(body, plot.width, plot.height, told)
