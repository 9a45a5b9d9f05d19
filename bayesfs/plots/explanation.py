"""Uncertainty over the frames of one video, by kind, level and cause: `plot_explanation`.

Aleatoric parts are hatched and epistemic ones plain, as in the report, so that nothing depends on
colour; `describe` is the picture's text alternative.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bayesfs._utils.arrays import Floats
from bayesfs.explanation.evidence import Evidence
from bayesfs.explanation.explain import evident_cost
from bayesfs.explanation.sentences import part_text
from bayesfs.types import LevelNames
from bayesfs.uncertainty.parts import is_epistemic, told_apart

COLOURS: Mapping[str, str] = {
    "frame": "#e69f00",
    "video": "#d55e00",
    "class": "#56b4e9",
    "task": "#0072b2",
    "shared": "#5b8fb9",
    "population": "#004c7a",
    "aleatoric": "#e69f00",
    "epistemic": "#0072b2",
    "blurred": "#cc79a7",
    "dark": "#888888",
    "bright": "#f0e442",
    "flat": "#dddddd",
}
"""From Okabe and Ito, told apart by colour-blind readers; as in a report, what learning could lower
is blue and the rest orange."""

HATCH: Mapping[str, str] = {
    "frame": "////",
    "video": "\\\\\\\\",
    "aleatoric": "////",
    "blurred": "....",
    "dark": "xxxx",
    "bright": "oooo",
    "flat": "----",
}
"""Hatches of the aleatoric parts; epistemic parts are plain."""


def plot_explanation(
    evidence: Evidence, task: int, video: int, path: Path, *, most_absent: float = 0.5
) -> str:
    """Draw the entropy of every frame's label, stacked by kind and level, and by cause.

    Args:
        evidence: the numbers.
        task: whose video it is.
        video: which query video.
        path: picture to write; its suffix decides the format (png, svg, pdf).
        most_absent: probability above which nothing taught is said to be shown.

    Returns:
        The text alternative, in words.
    """
    parts, causes = frame_parts(evidence, task, video), frame_causes(evidence, task, video)
    absent = frame_absent(evidence, task, video)
    rows = 1 + (causes is not None) + (absent is not None)
    heights = [3.0, 2.0, 1.2][:rows] if causes is not None else [3.0, 1.2][:rows]
    figure = Figure(figsize=(8.4, 1.4 + 1.25 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    top = 1.05 * max(sum(parts.values()).max(), 0.05)  # type: ignore[union-attr]
    words = evidence.episodes.levels
    _stack(grid[0], parts, top, "doubt by level", words)
    if causes is not None:
        _stack(grid[1], causes, top, words.in_words("the video's own part by cause"), words)
    if absent is not None:
        _line(grid[-1], absent, most_absent)
    grid[-1].set_xlabel(words.row)
    grid[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=150, metadata={"Creator": "bayesfs"} if path.suffix == ".svg" else {})
    return words.in_words(describe(parts, causes, absent))


def frame_parts(evidence: Evidence, task: int, video: int) -> dict[str, Floats]:
    """Level, or kind where levels are not known -> (frame,) nats, from the bottom of the stack.

    Parts below zero by Monte Carlo error are drawn as zero, and the others shrunk to the total.
    """
    if (source := evidence.levels) is not None:
        names = told_apart(source)[::-1]
    else:
        names, source = ("aleatoric", "epistemic"), evidence.kinds
    mask = _mask(evidence, task, video)
    raw = np.stack([source[f"frame_{name}"].values[task, video][mask] for name in names])
    total, shown = raw.sum(0).clip(min=0.0), raw.clip(min=0.0)
    shown *= np.divide(total, shown.sum(0), out=np.zeros_like(total), where=shown.sum(0) > 0)
    return dict(zip(names, shown, strict=True))


def frame_causes(evidence: Evidence, task: int, video: int) -> dict[str, Floats] | None:
    """Cause, and "aleatoric" for no measured one -> (frame,) nats; None without causes.

    A frame has the costliest cause that its quality shows, and no more doubt than there is.
    """
    quality = evidence.episodes.query_quality
    if evidence.causes is None or quality is None or not evidence.causes.sizes["covariate"]:
        return None
    mask = _mask(evidence, task, video)
    measures = evidence.causes["covariate"].values.tolist()
    causes = evidence.causes["cause"].values.tolist()
    drops = evidence.causes["frame_cause"].values[task, video][mask]
    found: dict[str, Floats] = {cause: np.zeros(len(drops)) for cause in causes}
    for frame, q in enumerate(quality[task, video].cpu().numpy()[mask]):
        cost = evident_cost(measures, q, dict(zip(causes, drops[frame].tolist(), strict=True)))
        for cause, nats in list(cost.items())[:1]:
            found[cause][frame] = nats
    parts = frame_parts(evidence, task, video)
    own = sum((nats for part, nats in parts.items() if _is_aleatoric(part)), np.zeros(mask.sum()))
    summed = sum(found.values(), np.zeros(mask.sum()))
    share = np.minimum(1.0, np.divide(own, summed, out=np.ones_like(own), where=summed > 0))
    shown = {cause: nats * share for cause, nats in found.items() if (nats * share).max() > 1e-3}
    return {**shown, "aleatoric": own - sum(shown.values(), np.zeros_like(own))}


def frame_absent(evidence: Evidence, task: int, video: int) -> Floats | None:
    """(frame,) probability that nothing taught is shown, or None."""
    if evidence.causes is None:
        return None
    shown: Floats = evidence.causes["frame_absent"].values[task, video]
    return shown[_mask(evidence, task, video)]


def describe(
    parts: Mapping[str, Floats], causes: Mapping[str, Floats] | None, absent: Floats | None
) -> str:
    """The picture in words."""
    total = sum(parts.values(), np.zeros(1))
    worst = int(total.argmax())
    ranked = sorted(parts, key=lambda part: -parts[part].mean())
    text = (
        f"Doubt about each of {len(total)} frames in nats, {total.mean():.2f} on average and "
        f"largest at frame {worst + 1} with {total[worst]:.2f}. By level, on average: "
        + ", ".join(f"{part_text(p, 'en')} {parts[p].mean():.2f}" for p in ranked)
        + "."
    )
    measured = {c: v.mean() for c, v in (causes or {}).items() if c != "aleatoric"}
    if measured:
        order = sorted(measured, key=lambda cause: -measured[cause])
        text += " By cause: " + ", ".join(f"{part_text(c, 'en')} {measured[c]:.2f}" for c in order)
        text += "."
    elif causes is not None:
        text += " No measured cause."
    if absent is not None:
        text += (
            f" Probability that nothing taught is shown: {absent.mean():.2f} on average, "
            f"{absent.max():.2f} at most."
        )
    return text


def _mask(evidence: Evidence, task: int, video: int) -> NDArray[np.bool_]:
    return np.asarray(evidence.episodes.query_mask[task, video].cpu().numpy())


def _is_aleatoric(part: str) -> bool:
    return part != "epistemic" and not is_epistemic(part)


def _stack(
    axes: Axes, parts: Mapping[str, Floats], top: float, title: str, words: LevelNames
) -> None:
    """Stacked bands, a step a frame; a heavy line parts the video's own doubt from the rest."""
    base = np.zeros(len(next(iter(parts.values()))))
    edges = np.arange(len(base) + 1) + 0.5
    by_cause = not set(parts) & {"frame", "epistemic"}
    for part, nats in parts.items():
        rest = by_cause and part == "aleatoric"
        axes.stairs(
            base + nats,
            edges,
            baseline=base,
            fill=True,
            facecolor="white" if rest else COLOURS.get(part, "0.7"),
            edgecolor="0.25",
            linewidth=0.4,
            hatch=HATCH.get(part),
            label="no measured cause" if rest else part_text(part, "en", words),
        )
        base = base + nats
        if part in ("video", "aleatoric"):
            axes.stairs(base, edges, color="black", linewidth=1.6)
    axes.set(ylim=(0, top), xlim=(edges[0], edges[-1]), ylabel="nats", title=title)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        labels[::-1],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        fontsize="small",
        title=None if by_cause else "plain: what was taught\nhatched: the video itself",
        title_fontsize="small",
    )


def _line(axes: Axes, absent: Floats, most: float) -> None:
    axes.stairs(absent, np.arange(len(absent) + 1) + 0.5, color="black", linewidth=1.2)
    if most <= 1:
        axes.axhline(most, color="0.6", linestyle="--", linewidth=1, label="said above this")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")
    label = "nothing taught is shown"
    axes.set(ylim=(0, 1), ylabel="probability", title=label, yticks=(0, 0.5, 1))
