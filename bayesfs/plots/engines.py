"""The picture of engines side by side: `engine_picture`."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesfs.diagnostics.posterior_distance import EngineComparison

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's colours, told apart by colour-blind readers."""

MARKERS = "osD^vPX"


def engine_picture(comparison: EngineComparison) -> Figure:
    """Divergence against seconds, and the latents' means and sds by site, one mark per engine.

    Left: lower is closer to the reference, further left is faster; a thin line goes up to the worst
    task. Middle: 0 is the reference's mean. Right: 1 is the reference's sd; bars hold 90 % of the
    latents of a site.

    Args:
        comparison: from `bayesfs.diagnostics.posterior_distance.compare_engines`.
    """
    figure = Figure(figsize=(12.5, 4.2), layout="constrained")
    figure.suptitle(f"Against {_plain(comparison.reference)}")
    left, middle, right = figure.subplots(1, 3)
    _cost(left, comparison)
    names = [n for n in comparison.summary["engine"] if n != comparison.reference]
    sites = list(dict.fromkeys(comparison.by_site["site"]))
    for i, name in enumerate(names):
        rows = comparison.by_site[comparison.by_site["engine"] == name].set_index("site")
        rows = rows.reindex(sites)
        place = np.arange(len(sites)) + 0.12 * (i - (len(names) - 1) / 2)
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        middle.plot(rows["shift"], place, linestyle="", label=_plain(name), **style)
        spread = [rows["ratio"] - rows["ratio_low"], rows["ratio_high"] - rows["ratio"]]
        right.errorbar(rows["ratio"], place, xerr=spread, linestyle="", capsize=2, **style)
    for panel, line in ((middle, 0.0), (right, 1.0)):
        panel.set_yticks(range(len(sites)), sites if panel is middle else [])
        panel.set_ylim(len(sites) - 0.5, -0.5)
        panel.axvline(line, color="0.6", linestyle="--", linewidth=1)
    middle.set_xlabel("difference of means, reference sds (rms)")
    right.set_xlabel("sd / reference sd")
    if names:
        middle.legend(fontsize="small")
    return figure


def _cost(panel: Axes, comparison: EngineComparison) -> None:
    others = comparison.summary[comparison.summary["engine"] != comparison.reference]
    values = others[["seconds", "kl", "kl_worst"]].to_numpy(float)
    for i, (seconds, mean, worst) in enumerate(values.tolist()):
        low = max(mean, 1e-6)
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        panel.plot([seconds] * 2, [low, max(worst, low)], color=colour, lw=1)
        panel.plot([seconds], [low], color=colour, marker=marker, linestyle="")
    if len(others):
        panel.set(xscale="log", yscale="log")
    panel.set(xlabel="seconds", ylabel="KL of label predictives, nats")


def _plain(name: str) -> str:
    """A name that matplotlib does not read as mathematics."""
    return name.replace("$", r"\$")
