"""Single checks of a posterior, one number each against one stated threshold.

`bayesfs.diagnostics.convergence` decides which of them apply.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtri

from bayesfs.diagnostics.prior_sensitivity import DRAWS_MIN, MUTE, decided_by_prior
from bayesfs.inference.program.limits import KHAT_MAX
from bayesfs.metrics.reference import paired_gain

LABEL_ACCURACY = "label accuracy"
"""The one quantity of `bayesfs.diagnostics.predictive_checks.label_check`."""

EXTREME = 0.01
"""A quantity below this p, or above 1 minus it, is one that the model does not make."""

RHAT_MAX = 1.01
"""Vehtari et al. 2021. Among many scalars some pass it by chance: 1 % may, up to `RHAT_NEVER`."""

RHAT_NEVER = 1.05

ESS_MIN = 400.0
"""Bulk and tail, all chains together: Vehtari et al. 2021."""

MCSE_MAX = 0.05
"""Of the mean, in posterior standard deviations: what 400 independent draws give."""

BFMI_MIN = 0.3
"""Betancourt 2016."""

KHAT_NEVER = 2.0
"""K-hat beyond which nothing may be concluded: above 1 even the weights' mean is infinite, and
estimates of k near that are noisy."""

ELBO_GAIN_MAX = 0.5
"""Nats per task that the ELBO may still gain in its last tenth, if that is more than noise."""

ELBO_DOUBT_MAX = 0.1
"""Nats per latent of a task that its gain may be, noise included: beyond that nobody can say that
it has stopped."""

KSD_LEFT_MAX = 0.1
"""Share of the first kernel Stein discrepancy that may be left in the end."""

WEIGHTS_MAX = 0.05
"""Share of query videos whose weights may have a k-hat above `KHAT_MAX`."""

CALIBRATED_P_MIN = 0.01
"""Of the curves of class sets (PIT) and of one class against the rest (PAV)."""

CALIBRATED_NEEDS = 20
"""Labelled query videos below which calibration is not judged."""

UNLIKE_MAX = 0.1
"""Share of (task, quantity) pairs whose predictive p may be beyond 1 %; chance gives 2 %."""

TOGETHER_MAX = 3.5
"""|z| of a quantity over all tasks; of ten quantities by chance one in two hundred runs has it."""

LOO_MAX = 0.1
"""Share of support videos left out by weights whose k-hat may be above `KHAT_MAX`."""


BEYOND_GUESSING = 2.0
"""Standard errors over people by which answers beat guessing, at least."""

LITTLE = 0.05
"""Share of guessing's nats that is little: no more than it, and not surely, is as good as none."""

RECALIBRATE = "the curves below say where; learn from people whose videos are as these are"
"""The next step where stated probabilities do not come true."""

SHARE_ERROR_MAX = 0.01
"""Monte Carlo standard error of the share of the uncertainty that learning could lower."""

UNLIKE = 0.02
"""P-value below which a person's taught videos are said to be unlike other people's."""


@dataclass(frozen=True)
class Check:
    """One number held against one threshold.

    Attributes:
        name: what was computed.
        value: the number; nan where it does not apply.
        threshold: what it should be, in words.
        passed: whether it is; None where it does not apply.
        reason: where the worst value is, or why there is none.
        next_step: what to do where it is not passed.
        grave: whether nothing may be concluded where it is not passed.
    """

    name: str
    value: float
    threshold: str
    passed: bool | None
    reason: str = ""
    next_step: str = ""
    grave: bool = False


def without(name: str, reason: str) -> Check:
    """A check that does not apply, and why."""
    return Check(name, math.nan, "", None, reason)


def rhat_check(sites: pd.DataFrame, name: str = "R-hat") -> Check:
    """Worst rank-normalised split R-hat of all sites, and the share of scalars above the line.

    Args:
        sites: with columns `rhat`, `rhat_above` (number above `RHAT_MAX`) and `looked_at`.
        name: of the check, where it is another R-hat.
    """
    worst = sites["rhat"].max()
    if not np.isfinite(worst):
        return without(name, "needs at least two chains of four draws that move")
    share = sites["rhat_above"].sum() / sites["looked_at"].sum()
    passed = bool(worst <= RHAT_MAX or (worst <= RHAT_NEVER and share <= 0.01))
    line = f"≤ {RHAT_MAX}, or 99 % of scalars and none above {RHAT_NEVER}"
    reason = f"{sites['rhat'].idxmax()}; {100 * share:.1f} % of the scalars above {RHAT_MAX}"
    step = "more warm-up, or the site in other coordinates; the table by site says which"
    return Check(name, float(worst), line, passed, reason, step, grave=worst > RHAT_NEVER)


def site_check(name: str, values: pd.Series[float], limit: float, *, least: bool) -> Check:
    """The worst value over sites against a limit that it must reach (`least`) or not pass."""
    worst = values.min() if least else values.max()
    if not np.isfinite(worst):
        return without(name, "needs at least four draws that move")
    at = values.idxmin() if least else values.idxmax()
    passed = bool(worst >= limit if least else worst <= limit)
    line = f"{'≥' if least else '≤'} {limit:g}"
    return Check(name, float(worst), line, passed, str(at), "more draws")


def divergence_check(stats: xr.Dataset) -> Check:
    """Number of divergent transitions; none is right."""
    if "diverging" not in stats:
        return without("divergences", "the engine does not report them")
    diverging = stats["task_diverging" if "task_diverging" in stats else "diverging"]
    count = int(diverging.sum())
    reason = f"of {diverging.size} transitions"
    if count and "task" in diverging.dims:
        per_task = diverging.sum([d for d in diverging.dims if d != "task"]).to_numpy()
        reason += f", in {int((per_task > 0).sum())} of {per_task.size} tasks"
    step = "a higher target_accept, such as .95; if they stay, a non-centred model"
    return Check("divergences", float(count), "0", count == 0, reason, step)


def bfmi_check(stats: xr.Dataset) -> Check:
    """Smallest Bayesian fraction of missing information E[(e_n - e_{n-1})^2] / Var[e]."""
    if "energy" not in stats:
        return without("BFMI", "the engine does not report the energy")
    energy = stats["task_energy" if "task_energy" in stats else "energy"]
    values = energy.transpose("chain", "draw", ...).to_numpy().astype(float)
    change = (np.diff(values, axis=1) ** 2).mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        worst = float(np.nanmin(change / values.var(1)))
    step = "more warm-up, or a scale with lighter tails"
    return Check("BFMI", worst, f"≥ {BFMI_MIN}", worst >= BFMI_MIN, "worst chain", step)


def elbo_check(stats: xr.Dataset, tasks: int, latents: float) -> Check:
    """Gain g of the ELBO per task between its last two tenths, and twice its standard error e.

    Passed are |g| <= max(2 e, `ELBO_GAIN_MAX`), if |g| + 2 e, which the gain may be, is at most
    max(`ELBO_GAIN_MAX`, `ELBO_DOUBT_MAX` latents): an ELBO whose noise would hide any gain has not
    been seen to stop.

    Args:
        stats: with `elbo` (step, ...), summed over tasks.
        tasks: their number.
        latents: scalars of a task.
    """
    name = "ELBO trend"
    if "elbo" not in stats:
        return without(name, "the engine reports no ELBO")
    elbo = stats["elbo"].to_numpy().astype(float)
    elbo = elbo.reshape(len(elbo), -1).sum(1) / tasks
    tenth = len(elbo) // 10
    if tenth < 5 or not np.isfinite(elbo).all():
        return without(name, f"needs 50 finite steps, got {int(np.isfinite(elbo).sum())}")
    before, last = elbo[-2 * tenth : -tenth], elbo[-tenth:]
    gain = last.mean() - before.mean()
    noise = 2 * math.hypot(before.std(ddof=1), last.std(ddof=1)) / math.sqrt(tenth)
    most = max(ELBO_GAIN_MAX, ELBO_DOUBT_MAX * latents)
    passed = bool(abs(gain) <= max(noise, ELBO_GAIN_MAX) and abs(gain) + noise <= most)
    line = f"|gain| ≤ {ELBO_GAIN_MAX} nats per task, or within noise of at most {most:.2g}"
    reason = f"last {tenth} steps; noise {noise:.2g} nats"
    return Check(name, float(gain), line, passed, reason, "more steps")


def task_check(
    name: str,
    values: xr.DataArray,
    limit: float,
    tasks: NDArray[Any],
    *,
    never: float = np.inf,
) -> Check:
    """The largest value over tasks, and which tasks pass the limit; no tasks for a population.

    A value that is not below `never` is grave.
    """
    flat = np.atleast_1d(values.to_numpy().astype(float)).ravel()
    if np.isnan(flat).all() or (flat == -np.inf).all():
        return without(name, "there are too few draws for it")
    above = np.flatnonzero(~(flat <= limit))  # NaN is none that passes
    step = "a richer guide, more steps, or NUTS"
    grave = bool((~(flat < never)).any())
    if not len(tasks):
        return Check(name, float(np.nanmax(flat)), f"≤ {limit}", not len(above), "", step, grave)
    reason = f"{len(above)} of {flat.size} tasks above"
    if len(above) and flat.size == len(tasks):
        reason += ": " + ", ".join(str(t) for t in tasks[above[:5]])
        reason += ", ..." if len(above) > 5 else ""
    return Check(name, float(np.nanmax(flat)), f"≤ {limit}", not len(above), reason, step, grave)


def units_check(stats: xr.Dataset) -> Check:
    """Size of the data against what the prior of the population is made for."""
    value = float(stats["units"])
    reason = "length of the data against the prior's range"
    step = "centre and scale the features, as `Standardise` does"
    return Check("units of the data", value, "≤ 1", value <= 1, reason, step)


def ksd_check(stats: xr.Dataset) -> Check:
    """What is left of the kernel Stein discrepancy at the end, as a share of its start."""
    name = "KSD left"
    if "ksd" not in stats:
        return without(name, "the engine reports no KSD")
    ksd = stats["ksd"]
    if not any(str(d).endswith("_step") for d in ksd.dims) or len(ksd) < 2:
        return without(name, "only its last value is known, and it has no scale of its own")
    history = ksd.to_numpy().astype(float).reshape(len(ksd), -1)
    left = float((history[-1] / history[0]).max())
    line = f"≤ {KSD_LEFT_MAX} of the start"
    return Check(name, left, line, left <= KSD_LEFT_MAX, "worst task", "more steps or particles")


def weights_check(pareto_k: NDArray[Any]) -> Check:
    """Share of query videos for which a few draws carry the weights p(x | theta_s).

    Args:
        pareto_k: (query,) from `bayesfs.diagnostics.loo.weight_pareto_k`.
    """
    name = "weights of the draws"
    known = pareto_k[np.isfinite(pareto_k)]
    if not known.size:
        return without(name, "no labelled query video, or too few draws")
    if not known.any():
        return without(name, "all draws weigh the same")
    share = float((known > KHAT_MAX).mean())
    line = f"≤ {100 * WEIGHTS_MAX:.0f} % of the query videos with k-hat above {KHAT_MAX}"
    reason = f"worst k-hat {known.max():.2f}"
    return Check(name, share, line, share <= WEIGHTS_MAX, reason, "more draws")


def calibration_check(name: str, p: float, items: int, reason: str) -> Check:
    """The p value of a calibration curve of so many labelled videos."""
    if items < CALIBRATED_NEEDS:
        return without(name, f"{items} labelled query videos, {CALIBRATED_NEEDS} are needed")
    line = f"p ≥ {CALIBRATED_P_MIN}"
    return Check(name, p, line, p >= CALIBRATED_P_MIN, reason, RECALIBRATE)


def guessing_check(
    log_prob: NDArray[Any], labels: NDArray[Any], people: NDArray[Any] | None = None
) -> Check:
    """Nats a video that the answers win over guessing among the taught objects, on average.

    Labels that are dealt at random win nothing but luck: what is won has to be beyond it, or, where
    one person does not tell what luck is, more than a little.

    Args:
        log_prob: (video, way) of the labelled query videos; -inf for padding.
        labels: (video,) their classes.
        people: (video,) whose they are; None for one person's.
    """
    name = "better than guessing"
    if not len(labels):
        return without(name, "no labelled query video")
    guessed = np.log(np.maximum(np.isfinite(log_prob).sum(1), 1))
    own = -log_prob[np.arange(len(labels)), labels]
    users = np.zeros(len(labels)) if people is None else people
    won, error = paired_gain(
        pd.DataFrame({"user": users, "nll": own}), pd.DataFrame({"nll": guessed})
    )
    reason, little = f"guessing has {guessed.mean():.2f} nats each", LITTLE * float(guessed.mean())
    least, line = little, f"> {100 * LITTLE:.0f} % of that"
    if not math.isnan(error):
        reason += f"; standard error {error:.2f}"
        least, line = BEYOND_GUESSING * error, f"> 0 nats each by {BEYOND_GUESSING:g} such errors"
    step = "look for labels that are mixed up; if there are none, take features that tell more"
    return Check(name, won, line, won > least, reason, step, grave=not won > little)


def baseline_check(gain: float, error: float, videos: int) -> Check:
    """Nats a video that the answers win over the nearest class mean, on average.

    Args:
        gain: mean fall of the NLL.
        error: its standard error over people; what is lost by more than that is grave.
        videos: labelled query videos.
    """
    name = "better than the nearest class mean"
    if not videos:
        return without(name, "no labelled query video")
    known = "" if math.isnan(error) else f"standard error {error:.2f}"
    step = "use the simpler one, or learn the population from people whose videos are as these are"
    grave = gain < (0.0 if math.isnan(error) else -error)
    return Check(name, gain, "> 0 nats each", gain > 0, known, step, grave=grave)


def share_error_check(error: float, blocks: int) -> Check:
    """The Monte Carlo error of the epistemic share, and how many draws would make it small enough.

    Args:
        error: standard error of the share; nan where there are too few draws to say.
        blocks: independent blocks of draws that it is from.
    """
    name = "Monte Carlo error of the epistemic share"
    if math.isnan(error):
        return without(name, "too few independent draws")
    needed = math.ceil(blocks * (error / SHARE_ERROR_MAX) ** 2)
    step = f"some {needed} draws, each with a value of the population of its own"
    reason = f"from {blocks} independent blocks of draws"
    passed = error <= SHARE_ERROR_MAX
    return Check(name, error, f"≤ {SHARE_ERROR_MAX:g}", passed, reason, step)


def unlike_check(name: str, checked: xr.Dataset, extreme: float) -> Check:
    """Share of (quantity, task) pairs that the model does not make.

    Args:
        name: of the check.
        checked: from `bayesfs.diagnostics.predictive_checks`.
        extreme: p below it, or above 1 minus it, is one.
    """
    if "p" not in checked:
        return without(name, str(checked.attrs.get("reason", "this run did not make it")))
    p = checked["p"].transpose("quantity", "task").to_numpy()
    known = np.isfinite(p)
    if not known.any():
        return without(name, "too few videos or classes for any quantity")
    beyond = is_extreme(p, extreme)
    share = float(beyond.sum() / known.sum())
    often = beyond.sum(1) / np.maximum(known.sum(1), 1)
    worst = checked["quantity"].to_numpy()[int(often.argmax())]
    line = (
        f"≤ {100 * UNLIKE_MAX:.0f} % of tasks and quantities beyond {100 * extreme:.0f} %, and no "
        "quantity off in all tasks together"
    )
    off = checked["quantity"].to_numpy()[np.abs(stouffer_z(p)) > TOGETHER_MAX]
    reason = f"most often {worst}" if share else ""
    if len(off):
        reason = f"off in all tasks together: {', '.join(map(str, off))}"
    step = "the table below says how; another tail (that of RobustHierarchy is heavy) or covariance"
    if LABEL_ACCURACY in checked["quantity"].to_numpy():
        step = RECALIBRATE
    return Check(name, share, line, share <= UNLIKE_MAX and not len(off), reason, step)


def stouffer_z(p: NDArray[Any]) -> NDArray[np.float64]:
    """(quantity, task) p values -> (quantity,) Stouffer's z = sum_t Phi^-1(p_t) / sqrt(tasks).

    Predictive p values are nearer 1/2 than uniform ones, so that z is smaller than N(0, 1).
    """
    known = np.isfinite(p)
    z = ndtri(np.where(known, np.clip(p, 1e-3, 1 - 1e-3), 0.5))
    return np.asarray(z.sum(1) / np.sqrt(np.maximum(known.sum(1), 1)))


def is_extreme(p: NDArray[Any], extreme: float) -> NDArray[np.bool_]:
    """Which p values are below it or above 1 minus it; nan is not."""
    return np.asarray((p < extreme) | (p > 1 - extreme))


def loo_check(pareto_k: NDArray[Any]) -> Check:
    """Share of support videos whose leaving out rests on a few draws, or on none.

    Args:
        pareto_k: (support video,) from `bayesfs.diagnostics.loo.support_elpd`.
    """
    name = "leave one video out"
    known = pareto_k[~np.isnan(pareto_k)]
    if not known.size:
        return without(name, "too few draws, or all are as sure of each video")
    share = float((~(pareto_k <= KHAT_MAX)).mean())
    line = f"≤ {100 * LOO_MAX:.0f} % of the support videos with k-hat above {KHAT_MAX} or not known"
    reason = f"worst k-hat {known.max():.2f}"
    if unknown := len(pareto_k) - len(known):
        reason += f"; {unknown} not known, since all draws are as sure of the video"
    step = "fewer effective parameters, or exact refits of those videos"
    return Check(name, share, line, share <= LOO_MAX, reason, step)


def prior_check_of(table: pd.DataFrame) -> Check:
    """Scalars of the population that the prior decides, from `prior_sensitivity`."""
    name = "prior sensitivity"
    if not len(table):
        return without(name, f"fewer than {DRAWS_MIN} draws of the population, or no densities")
    if (table["diagnosis"] == MUTE).all():
        return without(name, MUTE)
    off = decided_by_prior(table)
    reason = ", ".join(map(str, off.index[:4])) + (", ..." if len(off) > 4 else "")
    line = "0 of the population's scalars that the prior decides"
    reason = reason or f"of {len(table)} scalars looked at"
    step = "say why the prior is as it is, or learn from more people"
    return Check(name, len(off), line, len(off) == 0, reason, step)
