"""The report's figures as inline SVG, each with its text alternative; data in, markup out.

Colours, fonts and dashes are in the page's CSS (`templates/style.css`). Aleatoric is hatched and
epistemic is solid, so that no figure depends on colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from bayesfs._utils.arrays import Floats
from bayesfs.plots.svg import Plot, nice_ticks, svg, text
from bayesfs.plots.text import number, share, visible

STEPS = 200
"""Points that a line is thinned to."""

BAND_FRAMES = 40
"""Frames of a video that its band shows at most."""


def reliability_figure(table: pd.DataFrame, unit: str) -> Markup:
    """Share right against confidence, with intervals, the band of calibration, and counts below.

    Args:
        table: from `bayesfs.metrics.calibration.reliability`.
        unit: what was predicted, such as "videos".
    """
    rows = _records(table)
    plot = Plot((0, 1), (0, 1), width=380, height=400, bottom=100)
    body = plot.axes("", f"share of {unit} named right")
    for row in rows:
        low, high = [row["consistent_low"]] * 2, [row["consistent_high"]] * 2
        body.append(plot.area([row["lo"], row["hi"]], low, high, "expected"))
    body.append(plot.line([0, 1], [0, 1], "ideal"))
    for row in rows:
        x, y = float(plot.px(row["confidence"])), float(plot.py(row["accuracy"]))
        bottom, top = plot.py([row["accuracy_low"], row["accuracy_high"]])
        body.append(f'<path class="interval" d="M{x:.1f} {bottom:.1f}V{top:.1f}"/>')
        body.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
    body += _counts(plot, rows, unit)
    worst = max(rows, key=lambda row: abs(row["accuracy"] - row["confidence"]))
    label = (
        f"Reliability of {unit}: {sum(row['count'] for row in rows):.0f} {unit} in {len(rows)} "
        f"bins of confidence. Largest gap: where confidence is {share(worst['confidence'])}, "
        f"{share(worst['accuracy'])} are right ({worst['count']:.0f} {unit})."
    )
    return svg(body, plot.width, plot.height, label)


def _records(table: pd.DataFrame) -> list[dict[str, float]]:
    return [{str(k): float(v) for k, v in row.items()} for row in table.to_dict("records")]


def _counts(plot: Plot, rows: list[dict[str, float]], unit: str) -> list[str]:
    """Bars of the number of items per bin, below the horizontal axis' ticks."""
    base = plot.height - 24
    most = max(row["count"] for row in rows)
    bars = []
    for row in rows:
        left, right = plot.px([row["lo"], row["hi"]])
        tall = 44 * row["count"] / most
        bars.append(f"M{left + 0.5:.1f} {base:g}V{base - tall:.1f}H{right - 0.5:.1f}V{base:g}Z")
    return [
        f'<path class="count" d="{"".join(bars)}"/>',
        text(plot.left - 6, base - 34, f"{most:.0f}", "tick", "end"),
        text(plot.left - 6, base, unit, "tick", "end"),
        text((plot.left + plot.width - plot.right) / 2, plot.height - 6, "confidence", "name"),
    ]


def shots_figure(
    cells: Mapping[int, tuple[float, float, float]], name: str, baseline: float, chance: float
) -> Markup:
    """A score at every number of support videos, with its intervals.

    Args:
        cells: number -> (estimate, lower end, upper end); ends may be nan.
        name: of the score.
        baseline: the simplest classifier's, at the largest number; nan where not known.
        chance: of guessing; nan where not known.
    """
    shots = np.array(sorted(cells))
    value, low, high = np.array([cells[s] for s in shots.tolist()], float).T
    shown = np.concatenate([value, low, high, [baseline, chance, 0.0]])
    top = float(np.nanmax(shown)) * 1.08 or 1.0
    plot = Plot((0, float(shots[-1]) * 1.08), (0, top), width=380, height=260, left=52)
    body = plot.axes("support videos per object", name, x_ticks=shots.tolist())
    if chance == chance:
        body.append(plot.line(plot.x, [chance, chance], "ideal"))
    for s, a, b in zip(shots, low, high, strict=True):
        if a == a:
            x, ends = float(plot.px(s)), plot.py([a, b])
            body.append(f'<path class="interval" d="M{x:.1f} {ends[0]:.1f}V{ends[1]:.1f}"/>')
    body.append(plot.line(shots, value, "series0"))
    for x, y in zip(plot.px(shots), plot.py(value), strict=True):
        body.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
    if baseline == baseline:
        x, y = float(plot.px(shots[-1])), float(plot.py(baseline))
        body.append(f'<path class="wrongcross" d="M{x - 4:.1f} {y - 4:.1f}l8 8m-8 0l8-8"/>')
    told = [f"{number(v)} at {s}" for s, v in zip(shots.tolist(), value.tolist(), strict=True)]
    label = f"{name} by support videos per object: {', '.join(told)}."
    return svg(body, plot.width, plot.height, label)


def pooling_figure(rows: Mapping[str, Mapping[int, Floats]]) -> Markup:
    """Weight of each object's own videos, a line a person; rings at the fewest videos.

    Args:
        rows: person -> number of support videos -> (object,) weights.
    """
    each = np.concatenate([w for by_shots in rows.values() for w in by_shots.values()])
    limits = min(0.0, float(each.min())), max(1.0, float(each.max()))
    plot = Plot(limits, (len(rows), 0), 380, 50 + 26 * len(rows), left=90)
    body = plot.axes("weight of own videos", "", y_ticks=[])
    for i, (person, by_shots) in enumerate(rows.items()):
        y = float(plot.py(i + 0.5))
        body.append(text(plot.left - 8, y + 4, visible(person, 11), "tick", "end"))
        ends = {min(by_shots): "ring", max(by_shots): "dot"}
        for shots, css in ends.items():
            for x in plot.px(by_shots[shots]):
                body.append(f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
    told = [
        f"{person}: " + ", ".join(f"{number(float(w.mean()))} at {s}" for s, w in by_shots.items())
        for person, by_shots in rows.items()
    ]
    label = f"Mean weight of own videos by number of support videos; {'; '.join(told)}."
    return svg(body, plot.width, plot.height, label)


def pair_figure(x: Floats, y: Floats, x_name: str, y_name: str) -> Markup:
    """Draws of two scalars against each other, `STEPS` of them at most.

    Args:
        x: (chain, draw).
        y: (chain, draw).
        x_name: of the first.
        y_name: of the second.
    """
    a, b = _thin(x.ravel(), y.ravel())
    limits = [(float(v.min()), float(v.max())) for v in (a, b)]
    plot = Plot(limits[0], limits[1], width=260, height=200, left=48)
    body = plot.axes(x_name, y_name, nice_ticks(*limits[0], 4), nice_ticks(*limits[1], 4))
    points = zip(plot.px(a), plot.py(b), strict=True)
    dots = "".join(f"M{p:.0f} {q:.0f}h0" for p, q in points)
    body.append(f'<path class="draws" d="{dots}"/>')
    r = float(np.corrcoef(x.ravel(), y.ravel())[0, 1])
    label = f"Draws of {x_name} and {y_name}: correlation {number(r)}."
    return svg(body, plot.width, plot.height, label)


def coverage_figure(curves: Mapping[str, tuple[Floats, Floats]], unit: str) -> Markup:
    """Accuracy over the surest share of items, one line per ranking, from a tenth on.

    Args:
        curves: name of the ranking -> (coverage, accuracy).
        unit: what was predicted.
    """
    curves = {
        name: (coverage[coverage >= 0.1], accuracy[coverage >= 0.1])
        for name, (coverage, accuracy) in curves.items()
    }
    low = min(float(acc.min()) for _, acc in curves.values())
    floor = max(0.0, np.floor(low * 10 - 0.5) / 10)
    plot = Plot((0, 1), (floor, 1.0), width=380, height=400)
    body = plot.axes(f"share of {unit} answered, surest first", "share of the answered named right")
    told = []
    for i, (name, (coverage, accuracy)) in enumerate(curves.items()):
        body.append(plot.line(*_thin(coverage, accuracy), f"series{i}"))
        at_half = float(np.interp(0.5, coverage, accuracy))
        told.append(f"by {name} {share(at_half)}")
    end = next(iter(curves.values()))[1][-1]
    label = (
        f"Accuracy against coverage: all {unit} {share(float(end))}; the surer half "
        f"{', '.join(told)}."
    )
    return svg(body, plot.width, plot.height, label)


def scatter_figure(aleatoric: Floats, epistemic: Floats, right: NDArray[np.bool_]) -> Markup:
    """Every labelled video by its two kinds of uncertainty; a cross was named wrong."""
    top = max(float(aleatoric.max(initial=0)), float(epistemic.max(initial=0)), 0.1) * 1.05
    plot = Plot((0, top), (0, top), width=380, height=400)
    body = plot.axes("aleatoric, nats", "epistemic, nats")
    body.append(plot.line([0, top], [0, top], "ideal"))
    x, y = plot.px(aleatoric), plot.py(epistemic)
    dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x[right], y[right], strict=True))
    crosses = "".join(
        f"M{a - 3:.1f} {b - 3:.1f}l6 6m-6 0l6-6" for a, b in zip(x[~right], y[~right], strict=True)
    )
    body.append(f'<path class="rightdot" d="{dots}"/>' if dots else "")
    body.append(f'<path class="wrongcross" d="{crosses}"/>' if crosses else "")
    means = [
        number(float(v[m].mean())) if m.any() else "–"
        for m in (right, ~right)
        for v in (aleatoric, epistemic)
    ]
    label = (
        f"{len(right)} videos by kind of uncertainty. Named right: {int(right.sum())}, mean "
        f"aleatoric {means[0]} and epistemic {means[1]} nats. Named wrong: {int((~right).sum())}, "
        f"mean aleatoric {means[2]} and epistemic {means[3]} nats."
    )
    return svg(body, plot.width, plot.height, label)


def interval_figure(value: float, low: float, high: float, reference: float) -> Markup:
    """A dot with its interval on [0, 1]; the dashed line is the reference. For table cells."""
    plot = Plot((0, 1), (0, 1), width=140, height=18, left=4, right=4, top=0, bottom=0)
    a, b, c, r = (float(v) for v in plot.px([low, high, value, reference]))
    body = [
        '<path class="grid" d="M4 9H136M4 5v8M70 6v6M136 5v8"/>',
        f'<path class="ideal" d="M{r:.1f} 0V18"/>',
        f'<path class="interval" d="M{a:.1f} 9H{b:.1f}"/>',
        f'<circle class="dot" cx="{c:.1f}" cy="9" r="4"/>',
    ]
    return _silent(body, 140, 18)


def parts_figure(aleatoric: float, epistemic: float, most: float) -> Markup:
    """Aleatoric (hatched) and epistemic (solid) side by side, to the scale of `most` nats."""
    scale = 136 / (most or 1.0)
    a, e = max(aleatoric, 0) * scale, max(epistemic, 0) * scale
    body = [
        '<path class="grid" d="M2 3v12M2 15.5H138V3"/>',
        f'<rect class="ale" x="2" y="4" width="{a:.1f}" height="11"/>',
        f'<rect class="epi" x="{2 + a:.1f}" y="4" width="{e:.1f}" height="11"/>',
    ]
    return _silent(body, 140, 18)


def _silent(body: list[str], width: int, height: int) -> Markup:
    """A picture of numbers that stand beside it in words."""
    head = f'<svg class="cell" viewBox="0 0 {width} {height}" aria-hidden="true">'
    return Markup(head + "".join(body) + "</svg>")


def band_paths(
    aleatoric: Floats,
    epistemic: Floats,
    right: NDArray[np.bool_],
    most: float,
    frames: int = BAND_FRAMES,
) -> tuple[str, str, str, int]:
    """Path data of a video's uncertainty over its frames, on a grid of 1 by 40 per frame.

    Args:
        aleatoric: (frame,) nats.
        epistemic: (frame,) nats.
        right: (frame,) whether the frame was named right.
        most: nats at the top, log of the number of classes.
        frames: how many to show at most, evenly spread.

    Returns:
        Paths of aleatoric (from 0), of epistemic (on top of it) and of the frames named wrong, and
        the width.
    """
    chosen = np.linspace(0, len(right) - 1, min(len(right), frames)).round().astype(int)
    scale = 40 / (most or 1.0)
    low = 40 - np.clip(aleatoric[chosen] * scale, 0, 40).round().astype(int)
    high = 40 - np.clip((aleatoric + epistemic)[chosen] * scale, 0, 40).round().astype(int)
    x = np.arange(len(chosen) + 1)
    return (
        _stairs(x, low, np.full_like(low, 40)),
        _stairs(x, high, low),
        _runs(~right[chosen]),
        len(chosen),
    )


def _runs(marked: NDArray[np.bool_]) -> str:
    """A dash under every run of marked frames."""
    edges = np.flatnonzero(np.diff(marked.astype(int), prepend=0, append=0))
    return "".join(f"M{a} 42h{b - a}" for a, b in edges.reshape(-1, 2))


def _stairs(x: NDArray[np.int_], top: NDArray[np.int_], bottom: NDArray[np.int_]) -> str:
    """A band in steps, one frame wide each, in relative moves to keep it short."""
    out = [f"M0 {bottom[0]}V{top[0]}"]
    out += [f"h1v{b - a}" if b != a else "h1" for a, b in pairwise(top)]
    out.append(f"h1V{bottom[-1]}")
    back = bottom[::-1]
    out += [f"h-1v{b - a}" if b != a else "h-1" for a, b in pairwise(back)]
    return "".join(out) + "Z"


def history_figure(values: ArrayLike, name: str) -> Markup:
    """An optimiser's history; what lies below where it was after a tenth of the steps is cut."""
    history = np.asarray(values, float)
    history = history.reshape(len(history), -1).sum(1)
    rest = history[len(history) // 10 :]
    low, high = float(np.nanmin(rest)), float(np.nanmax(rest))
    room = (high - low) * 0.05 or 1.0
    plot = Plot((0, len(history)), (low - room, high + room), width=400, height=220, left=56)
    inside = np.flatnonzero(history >= low - room)
    body = plot.axes("step", name)
    body.append(plot.line(*_thin(inside, history[inside], 2 * STEPS), "series0"))
    label = f"{name} over {len(history)} steps: from {number(history[0])} to {number(history[-1])}."
    return svg(body, plot.width, plot.height, label)


def trace_figure(draws: Floats, name: str) -> Markup:
    """The draws of one scalar in order, one line per chain.

    Args:
        draws: (chain, draw).
        name: of the scalar.
    """
    low, high = float(draws.min()), float(draws.max())
    plot = Plot((0, draws.shape[1]), (low, high), width=380, height=104, left=52, bottom=20, top=6)
    body = plot.axes("", "", y_ticks=nice_ticks(low, high, 4))
    for i, chain in enumerate(draws):
        body.append(plot.line(*_thin(np.arange(len(chain)), chain), f"chain{i % 4}"))
    label = f"Trace of {name}: {draws.shape[0]} chains of {draws.shape[1]} draws, mean "
    label += f"{number(float(draws.mean()))}, sd {number(float(draws.std()))}."
    return svg(body, plot.width, plot.height, label)


def marginal_figure(
    draws: Floats, name: str, prior: Floats | None = None, bins: int = 30
) -> Markup:
    """Histogram of independent draws of one scalar, with its mean, and an outline of its prior.

    Args:
        draws: (chain, draw).
        name: of the scalar.
        prior: draws from its prior; nine tenths of them are in the picture.
        bins: of the histogram.
    """
    flat = draws.ravel()
    ends = flat if prior is None else np.append(flat, np.quantile(prior, (0.05, 0.95)))
    count, edges = np.histogram(flat, bins, (ends.min(), ends.max()), density=True)
    prior = np.empty(0) if prior is None else prior
    before = np.histogram(prior, edges)[0] / max(len(prior), 1) / np.diff(edges)
    x, top = (float(edges[0]), float(edges[-1])), float(max(count.max(), before.max()))
    plot = Plot(x, (0, top), width=260, height=104, left=8, bottom=20, top=6)
    corners = np.repeat(edges, 2)[1:-1]
    body = plot.axes("", "", x_ticks=nice_ticks(*x, 5), y_ticks=[])
    body.append(plot.area(corners, np.zeros(len(corners)), np.repeat(count, 2), "count"))
    if len(prior):
        body.append(plot.line(corners, np.repeat(before, 2), "series1"))
    middle = float(plot.px(flat.mean()))
    body.append(f'<path class="ideal" d="M{middle:.1f} 6V{plot.height - plot.bottom:g}"/>')
    label = f"Draws of {name}: mean {number(float(flat.mean()))}, sd {number(float(flat.std()))}"
    if len(prior):
        label += f"; before any data mean {number(float(prior.mean()))}, "
        label += f"sd {number(float(prior.std()))}"
    label += "."
    return svg(body, plot.width, plot.height, label)


def _thin(x: ArrayLike, y: ArrayLike, most: int = STEPS) -> tuple[Floats, Floats]:
    a, b = np.asarray(x, float), np.asarray(y, float)
    if len(a) <= most:
        return a, b
    keep = np.linspace(0, len(a) - 1, most).round().astype(int)
    return a[keep], b[keep]
