"""Pictures of simulation-based calibration: `rank_picture` and `coverage_picture`.

They draw on figures of their own, so that no state of matplotlib is touched.
"""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesfs._utils.arrays import Floats, Ints
from bayesfs.diagnostics.sbc import Calibration, envelope


def rank_picture(calibration: Calibration, title: str) -> Figure:
    """ECDF of the ranks less uniformity, one panel per quantity, with the 95 % envelope.

    The envelope holds a whole curve of uniform ranks with probability .95. An S that starts above
    zero is a posterior that is too narrow, one that starts below is too wide, a hill or a valley is
    a shift.

    Args:
        calibration: from `bayesfs.diagnostics.sbc.calibrate`.
        title: above all panels, such as the names of model and engine.

    Source: Säilynoja, Bürkner and Vehtari 2022.
    """
    names, table = list(calibration.ranks), calibration.table
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.1 * columns, 2.3 * rows + 0.7), layout="constrained")
    figure.suptitle(f"{title!s}: {calibration.simulations} simulations, p = {calibration.p:.3g}")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    low, high = envelope(calibration.simulations, calibration.levels)
    for panel, name in zip(panels, names, strict=False):
        _difference(panel, calibration.ranks[name], calibration.levels, low, high)
        panel.set_title(f"{name}  p {float(table['p'][name]):.3g}", fontsize=9)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    figure.supxlabel("rank, scaled")
    figure.supylabel("ECDF less uniform")
    return figure


def _difference(panel: Axes, ranks: Ints, levels: int, low: Floats, high: Floats) -> None:
    place = (np.arange(levels) + 1) / (levels + 1)
    share = np.bincount(ranks, minlength=levels + 1)[:levels].cumsum() / len(ranks)
    panel.fill_between(place, low, high, step="post", color="0.85", linewidth=0)
    panel.axhline(0.0, color="0.4", linestyle="--", linewidth=0.8)
    panel.step(place, share - place, where="post", color="#0b5cad", linewidth=1.2)
    panel.tick_params(labelsize=8)


def coverage_picture(calibration: Calibration, title: str) -> Figure:
    """Expected coverage of balls about random points against their credibility (TARP).

    Below the diagonal the posterior is overconfident or biased, above it too wide.

    Source: Lemos et al. 2023.
    """
    ranks, levels = calibration.ranks["TARP"], calibration.levels
    place = (np.arange(levels) + 1) / (levels + 1)
    low, high = envelope(len(ranks), levels)
    covered = np.bincount(ranks, minlength=levels + 1)[:levels].cumsum() / len(ranks)
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    panel = figure.subplots()
    panel.fill_between(place, place + low, place + high, color="0.85", linewidth=0)
    panel.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=0.8)
    panel.step(place, covered, where="post", color="#0b5cad")
    panel.set(xlabel="credibility", ylabel="expected coverage", title=f"TARP: {title}")
    panel.set_aspect("equal")
    return figure
