"""What a report says about the model itself: calibration curves, predictive checks, LOO, the prior.

`model_checks` gives the verdict's line; the tables and curves behind it are beside it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesfs.diagnostics.convergence import Diagnostics
from bayesfs.diagnostics.loo import can_leave_one_out, heldout_elpd, support_elpd
from bayesfs.diagnostics.prior_sensitivity import COLUMNS, MUTE, decided_by_prior, prior_sensitivity
from bayesfs.diagnostics.verdicts import (
    EXTREME,
    Check,
    baseline_check,
    calibration_check,
    guessing_check,
    is_extreme,
    loo_check,
    prior_check_of,
    share_error_check,
    unlike_check,
    without,
)
from bayesfs.inference.program.limits import KHAT_MAX
from bayesfs.metrics.pav import PavCurve, pav_curve
from bayesfs.metrics.pit import PitCurve, pit_curve
from bayesfs.metrics.reference import paired_gain
from bayesfs.plots.arviz_panels import Panel, panels_of
from bayesfs.results.calibration import calibration_tree
from bayesfs.results.rows import labelled_items

PREDICTIVE = {
    "prior_check": "prior predictive",
    "posterior_check": "posterior predictive",
    "label_check": "labels drawn",
}
"""Group of the tree -> name of the check."""


FEWEST_VIDEOS = 5
"""Labelled videos from which a curve of their calibration shows anything."""

FEWEST_FOR_TAIL = 25
"""Draws from which ArviZ fits the tail that its LOO-PIT asks for."""


@dataclass(frozen=True)
class LooRow:
    """One expected log predictive density, per video.

    Attributes:
        shots: number of support videos per object.
        what: which videos are predicted.
        elpd: mean log probability of the right object, in nats per video.
        se: its standard error, videos taken as independent.
        videos: number of them.
        parameters: effective number of parameters; nan where nothing is left out.
        risky: share of videos with a Pareto k above the line, or one that is not known.
    """

    shots: int
    what: str
    elpd: float
    se: float
    videos: int
    parameters: float
    risky: float


@dataclass(frozen=True)
class Borrowed:
    """What a person's answers take from other people.

    Attributes:
        task: name.
        share: posterior probability that the person is of the population.
        alike: p-value that the person's taught videos are like other people's; nan if not known.
    """

    task: str
    share: float
    alike: float


@dataclass(frozen=True)
class PredictiveRow:
    """One quantity of one predictive check, over all tasks.

    Attributes:
        check: name of the check.
        quantity: what was compared.
        observed: mean over tasks.
        low: 2.5 % point of the replicates' mean over tasks.
        high: 97.5 % point of it.
        task_low: mean over tasks of the replicates' 2.5 % point.
        task_high: mean over tasks of their 97.5 % point.
        tasks: tasks that have the quantity.
        unlike: of them, tasks with a p beyond `EXTREME`.
        worst: the task with the most extreme p.
        p: its p.
    """

    check: str
    quantity: str
    observed: float
    low: float
    high: float
    task_low: float
    task_high: float
    tasks: int
    unlike: int
    worst: str
    p: float


@dataclass(frozen=True)
class ModelView:
    """The model of a run, as its data see it.

    Attributes:
        trees: number of support videos -> the run's tree.
        log_prob: (video, way) of the labelled query videos at the largest number.
        labels: (video,) their classes.
    """

    trees: Mapping[int, xr.DataTree]
    log_prob: Any
    labels: Any

    @property
    def tree(self) -> xr.DataTree:
        """The run at the largest number of support videos."""
        return self.trees[max(self.trees)]

    @cached_property
    def pit(self) -> PitCurve | None:
        """Do sets of the likeliest objects hold the truth as often as they say?"""
        return pit_curve(self.log_prob, self.labels) if len(self.labels) else None

    @cached_property
    def pav(self) -> PavCurve | None:
        """Does a stated probability of any one object come true?"""
        return pav_curve(self.log_prob, self.labels) if len(self.labels) else None

    @cached_property
    def calibration(self) -> dict[str, Panel]:
        """ArviZ's pictures of the calibration: "pit", "pav" and "loo_pit", where there can be."""
        if len(self.labels) < FEWEST_VIDEOS:
            return {}
        import arviz_plots

        made, none = calibration_tree(self.tree), {"backend": "none"}
        pictures = {
            "pit": arviz_plots.plot_ecdf_pit(made, group="pit", sample_dims=["query"], **none),
            "pav": arviz_plots.plot_ppc_pava(made, **none),
        }
        draws = self.tree["log_likelihood"].to_dataset().sizes
        if draws["chain"] * draws["draw"] >= FEWEST_FOR_TAIL:
            pictures["loo_pit"] = arviz_plots.plot_loo_pit(self.tree, **none)
        return {name: panels_of(picture)[0] for name, picture in pictures.items()}

    @cached_property
    def predictive(self) -> tuple[PredictiveRow, ...]:
        """Every quantity of every check that the run made, where any task has it."""
        rows = (
            _predictive_row(name, self.tree[group].to_dataset(), quantity)
            for group, name in PREDICTIVE.items()
            if group in self.tree.children and "p" in self.tree[group].to_dataset()
            for quantity in self.tree[group]["quantity"].to_numpy().tolist()
        )
        return tuple(row for row in rows if row.tasks)

    @cached_property
    def sensitivity(self) -> pd.DataFrame:
        """Power scaling of the population; empty where its densities are not known."""
        if "population" not in self.tree.children:
            return pd.DataFrame(columns=list(COLUMNS))
        if "prior_sensitivity" in self.tree.children:
            return self.tree["prior_sensitivity"].to_dataset().to_dataframe()
        return prior_sensitivity(self.tree)

    @property
    def feel_prior(self) -> pd.DataFrame:
        """The rows of `sensitivity` that the prior decides."""
        return decided_by_prior(self.sensitivity)

    @property
    def mute(self) -> int:
        """Scalars of `sensitivity` of which the draws are too few to say."""
        return int((self.sensitivity["diagnosis"] == MUTE).sum())

    @property
    def scalars(self) -> int:
        """Scalars of the sites that `sensitivity` looks at some of."""
        sites = self.tree["population"].to_dataset()
        looked_at = self.sensitivity["site"].unique()
        draws = sites.sizes["chain"] * sites.sizes["draw"]
        return sum(int(sites[name].size) // draws for name in looked_at)

    @cached_property
    def pooling(self) -> dict[str, dict[int, NDArray[np.float64]]]:
        """Task -> number of support videos -> weight of each object's own videos, where known."""
        found: dict[str, dict[int, NDArray[np.float64]]] = {}
        for shots, tree in sorted(self.trees.items()):
            if "shrinkage" in tree.children:
                tasks = tree["constant_data"]["task"].to_numpy().tolist()
                weights = tree["shrinkage"].to_dataset()["weight"].to_numpy()
                for task, row in zip(tasks, weights, strict=True):
                    if np.isfinite(row).any():
                        found.setdefault(str(task), {})[shots] = row[np.isfinite(row)]
        return found

    @cached_property
    def left_out(self) -> dict[int, Any]:
        """Number of support videos -> ArviZ's leave-one-video-out of the support, where it is."""
        return {
            shots: _quietly(support_elpd, tree)
            for shots, tree in sorted(self.trees.items())
            if can_leave_one_out(tree)
        }

    @cached_property
    def borrowed(self) -> tuple[Borrowed, ...]:
        """What each person's answers take from other people, least first; empty if nothing says."""
        stats = self.tree["sample_stats"].to_dataset()
        if "borrowed" not in stats:
            return ()
        kept = stats["borrowed"].to_numpy()
        unknown = np.full(len(kept), np.nan)
        alike = stats["exchangeable"].to_numpy() if "exchangeable" in stats else unknown
        rows = zip(map(str, stats["task"].values), kept.tolist(), alike.tolist(), strict=True)
        return tuple(sorted((Borrowed(*row) for row in rows), key=lambda row: row.share))

    @cached_property
    def loo(self) -> tuple[LooRow, ...]:
        """Leave-one-video-out of the support and the score of the query, at every number.

        The score of the query is log p(y | x, D), the NLL's; its draws say whether they suffice.
        """
        rows = []
        for shots, tree in sorted(self.trees.items()):
            if shots in self.left_out:
                rows.append(_loo_row(shots, "support videos, each left out", self.left_out[shots]))
            if tree["observed_data"].sizes["query"]:
                draws = _loo_row(shots, "query videos", _quietly(heldout_elpd, tree))
                each = tree["log_likelihood"]["video_label"].mean(("chain", "draw")).to_numpy()
                error = float(each.std() / math.sqrt(len(each)))
                rows.append(replace(draws, elpd=float(each.mean()), se=error))
        return tuple(rows)

    @cached_property
    def gain(self) -> tuple[float, float] | None:
        """Nats a video won over the baseline, and their error over people; None where not known."""
        if "baseline" not in self.tree.children or not len(self.labels):
            return None
        own, other = (labelled_items(self.tree, "video", g)[1] for g in ("uncertainty", "baseline"))
        return paired_gain(own, other)

    @cached_property
    def verdict(self) -> Diagnostics:
        """The model's line: what the data say of it, each number against its threshold."""
        return Diagnostics("model", "predictive", tuple(self._checks()), pd.DataFrame())

    def _checks(self) -> list[Check]:
        count = len(self.labels)
        people = labelled_items(self.tree, "video")[1]["user"].to_numpy() if count else None
        checks = [guessing_check(np.asarray(self.log_prob), np.asarray(self.labels), people)]
        if self.gain is not None:
            checks.append(baseline_check(*self.gain, count))
        if "monte_carlo" in self.tree.children:
            found = self.tree["monte_carlo"].to_dataset()
            checks.append(share_error_check(float(found["share_error"]), int(found["blocks"])))
        pit, pav = self.pit, self.pav
        for name, p, words in (
            ("class sets (PIT)", pit.p if pit else 1.0, _pit_words(pit)),
            ("one against the rest", pav.p if pav else 1.0, _pav_words(pav)),
        ):
            checks.append(calibration_check(name, p, count, words))
        for group in PREDICTIVE:
            there = group in self.tree.children
            checked = self.tree[group].to_dataset() if there else xr.Dataset()
            checks.append(unlike_check(f"{PREDICTIVE[group]} check", checked, EXTREME))
        checks.append(self._left_out())
        return [*checks, prior_check_of(self.sensitivity)]

    def _left_out(self) -> Check:
        """Leave-one-video-out where a class keeps a video when one is left out."""
        if "support_log_likelihood" not in self.tree.children:
            return without("leave one video out", "the run kept no likelihoods of the support")
        if not can_leave_one_out(self.tree):
            return without("leave one video out", "needs two support videos of every object")
        found = self.left_out[max(self.trees)]
        return loo_check(np.asarray(found.pareto_k.to_numpy()))


def _quietly(scorer: Callable[[xr.DataTree], Any], tree: xr.DataTree) -> Any:
    """The score, without ArviZ's warning of a large k-hat, which stands in the table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return scorer(tree)


def _pit_words(curve: PitCurve | None) -> str:
    if curve is None:
        return ""
    side = "less often (overconfident)" if curve.bias < 0 else "more often (underconfident)"
    return f"sets hold the truth {100 * abs(curve.bias):.1f} % {side} than stated, on average"


def _pav_words(curve: PavCurve | None) -> str:
    if curve is None:
        return ""
    excess = curve.miscalibration / max(curve.expected, 1e-12)
    return f"{excess:.1f} times the miscalibration that chance gives"


def _loo_row(shots: int, what: str, found: Any) -> LooRow:
    count = int(found.n_data_points)
    pareto = np.asarray(found.pareto_k.to_numpy(), float)
    return LooRow(
        shots=shots,
        what=what,
        elpd=float(found.elpd) / count,
        se=float(found.se) / count,
        videos=count,
        parameters=float(found.p) if what.startswith("support") else float("nan"),
        risky=float((~(pareto <= KHAT_MAX)).mean()),
    )


def _predictive_row(check: str, checked: xr.Dataset, quantity: str) -> PredictiveRow:
    at = checked.sel(quantity=quantity)
    p = at["p"].to_numpy()
    known = np.isfinite(p)
    distance = np.where(known, np.abs(p - 0.5), -1.0)
    worst = int(distance.argmax())
    return PredictiveRow(
        check=check,
        quantity=quantity,
        observed=_mean(at["observed"], known),
        low=float(at["mean_low"]) if "mean_low" in at else float("nan"),
        high=float(at["mean_high"]) if "mean_high" in at else float("nan"),
        task_low=_mean(at["low"], known),
        task_high=_mean(at["high"], known),
        tasks=int(known.sum()),
        unlike=int(is_extreme(p, EXTREME).sum()),
        worst=str(at["task"].to_numpy()[worst]),
        p=float(p[worst]),
    )


def _mean(values: xr.DataArray, known: Any) -> float:
    """Mean over the tasks that have a value, nan if none has."""
    return float(values.to_numpy()[known].mean()) if known.any() else float("nan")
