"""Prior and posterior predictive checks: `prior_check`, `posterior_check`, `label_check`.

`prior_predictive` and `prior_label_prob` give the prior's own support sets and labels.

A replicate is what the model would record again, reduced to the numbers of
`bayesfs.diagnostics.support_quantities`, and held against the same numbers of the support:

- `prior_check`: another user's whole support, the tasks drawn anew given the population (or the
  population too). Do tasks like these occur under the model?
- `posterior_check`: other videos of the same objects: task and class effects from the posterior,
  video effects and frames anew, so that the video level, too, can disagree with the data.
- `label_check`: the query's labels drawn from their predictive against the true ones, by the share
  that the model's own answer names right. For every model, also those that draw no features.

p is the share of replicates above the data (ties half): near 0 or 1 the model does not make such
data. Posterior p values are conservative, since the data are used twice.

Source: Rubin 1984; Gelman, Meng and Stern 1996; Marshall and Spiegelhalter 2003 for drawing the
lower levels anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._utils.arrays import numpy_of
from bayesfs.diagnostics.support_quantities import support_quantities
from bayesfs.diagnostics.verdicts import LABEL_ACCURACY
from bayesfs.errors import DataError
from bayesfs.inference.program.simulation import Simulator
from bayesfs.protocols import Model
from bayesfs.results.axes import task_labels, without_padding
from bayesfs.types import EpisodeBatch, Posterior

Array = NDArray[Any]

REPLICATES = 100
"""Data sets that are simulated for a check."""

LARGEST = 500_000_000
"""Simulated values of a check beyond which there are fewer replicates."""

NO_DATA = "the model draws no frames, so that it has none to replicate"


def prior_predictive(
    model: Model,
    episodes: EpisodeBatch,
    *,
    draws: int = REPLICATES,
    seed: int = 0,
    given: Posterior | None = None,
) -> xr.Dataset:
    """Support sets that the model expects before it has seen one.

    Args:
        model: the model.
        episodes: sizes, masks and conditions of the tasks.
        draws: number of support sets.
        seed: of the draws.
        given: population, whose draws are taken in turn; None draws it from its prior.

    Returns:
        Dataset with `support` (draw, task, way, shot, frame, feature), padding nan, for ArviZ's
        group `prior_predictive`. A model of whole videos makes one frame a video.

    Raises:
        DataError: the model draws no features.
    """
    held = _population_in_turn(model, given, draws)
    runs = _replicates(Simulator(model, episodes), held, seed)
    values = torch.stack(list(runs))
    mask = _frames_of(values, episodes)
    whole = torch.where(mask[..., None], values, torch.nan)
    dims = ("draw", "task", "way", "shot", "frame", "feature")
    coords = {"task": task_labels(episodes), "draw": np.arange(draws)}
    return xr.Dataset({"support": (dims, numpy_of(whole))}, coords=coords)


def prior_label_prob(
    model: Model,
    episodes: EpisodeBatch,
    *,
    draws: int = REPLICATES,
    seed: int = 0,
    given: Posterior | None = None,
) -> xr.Dataset:
    """How sure the model is of the query's labels before it has seen the support; for any model.

    A prior under which nearly every draw is sure of some class, whichever, is too wide: weights in
    logits that no data will be able to shrink. Arguments as in `prior_predictive`.

    Returns:
        Dataset with `video_prob` (draw, task, video, way), p(y | x, theta_s) of prior draws, and
        `confidence` (draw, task, video), the largest of each; padding nan.
    """
    program = Simulator(model, episodes)
    held = _population_in_turn(model, given, draws)
    runs = [program.prior(seed=seed + s, held=values) for s, values in enumerate(held)]
    sites = {site: torch.stack([run[site] for run in runs]) for site in model.dims}
    with torch.no_grad():
        prob = numpy_of(model.log_joint_video(sites, episodes).softmax(-1))
    dims = ("draw", "task", "video", "way")
    coords = {"task": task_labels(episodes), "draw": np.arange(draws)}
    whole = without_padding(xr.DataArray(prob, dims=dims, coords=coords), episodes)
    return xr.Dataset({"video_prob": whole, "confidence": whole.max("way")})


def prior_check(
    model: Model,
    episodes: EpisodeBatch,
    *,
    given: Posterior | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """The support against tasks drawn anew; arguments as in `prior_predictive`.

    With draws None there are `REPLICATES` of them, fewer where the support is very large.

    Returns:
        Over (quantity, task): `observed`, `mean`, `low` and `high` (central 95 % of the
        replicates), `p`; over quantity: `mean_low` and `mean_high`, the same of the mean over
        tasks, within replicates, which share a value of the population. Without variables, and
        with the attribute `reason`, where the model draws no features.
    """
    count = draws or affordable(episodes)
    return _check(model, episodes, _population_in_turn(model, given, count), seed)


def posterior_check(
    model: Model,
    posterior: Posterior,
    episodes: EpisodeBatch,
    *,
    given: Posterior | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """The support against new videos of the same objects.

    Args:
        model: the model.
        posterior: of the tasks.
        episodes: the tasks.
        given: population, where the posterior does not hold its sites.
        draws: number of replicates, evenly spread over the posterior's draws; None as in
            `prior_check`.
        seed: of the replicates.

    Returns:
        As `prior_check`.
    """
    upper = [site for site, axes in model.dims.items() if "shot" not in axes]
    lacking = [site for site in upper if site not in posterior.draws]
    if lacking and (given is None or not set(lacking) <= set(given.draws)):
        raise DataError(f"expected draws of {upper}, missing {lacking}; give the population")
    count = draws or affordable(episodes)
    index = np.linspace(0, posterior.num_draws - 1, count).round().astype(int)

    def held() -> Iterator[dict[str, Tensor]]:
        for s in index.tolist():
            at = {site: posterior.draws[site][s] for site in upper if site in posterior.draws}
            if given is not None:
                at |= {site: given.draws[site].mean(0) for site in lacking}
            yield at

    return _check(model, episodes, held(), seed)


def affordable(episodes: EpisodeBatch) -> int:
    """Replicates that take a minute or so: `REPLICATES`, or at least 40 of a very large support."""
    return min(REPLICATES, max(40, LARGEST // max(1, episodes.support.numel())))


def label_check(tree: xr.DataTree, *, seed: int = 0, draws: int = 1000) -> xr.Dataset:
    """Share of query videos that the model names right, against what it expects of itself.

    Args:
        tree: from `bayesfs.results.assemble.assemble_tree`.
        seed: of the labels drawn from p(y | x, D).
        draws: how many times all labels are drawn.

    Returns:
        As `prior_check`, with the one quantity "label accuracy"; nan for tasks without labels.
    """
    prob = tree["uncertainty"].to_dataset()["video_prob"].to_numpy()
    label = tree["observed_data"].to_dataset()["label"].to_numpy()
    known = ~np.isnan(label) & np.isfinite(prob).any(-1)
    said = np.nan_to_num(prob, nan=-1.0).argmax(-1)
    sure = np.nan_to_num(prob.max(-1, initial=0.0, where=np.isfinite(prob)))
    count = np.where(known.any(1), known.sum(1), np.nan)
    rng = np.random.default_rng(seed)
    drawn = ((rng.random((draws, *sure.shape)) < sure) & known).sum(-1) / count
    observed = ((said == np.where(known, label, -1)) & known).sum(-1) / count
    task = tree["constant_data"]["task"].to_numpy()
    return _summary({LABEL_ACCURACY: (observed, drawn)}, task)


def _population_in_turn(
    model: Model, given: Posterior | None, draws: int
) -> Iterator[dict[str, Tensor]]:
    """Values of the population sites for each replicate; none without a population."""
    sites = [] if given is None else [s for s, a in model.dims.items() if "task" not in a]
    for s in range(draws):
        yield {} if given is None else {n: given.draws[n][s % given.num_draws] for n in sites}


def _replicates(
    program: Simulator, held: Iterator[Mapping[str, Tensor]], seed: int
) -> Iterator[Tensor]:
    """Features (task, way, shot, frame, feature) of each replicate's support."""
    if not program.makes_features:
        raise DataError(f"{type(program.model).__name__}: {NO_DATA}")
    for s, values in enumerate(held):
        (drawn,) = program.draw(seed=seed + s, held=values).observed.values()
        features = program.as_support(drawn)
        if features is not None:
            yield features


def _frames_of(support: Tensor, episodes: EpisodeBatch) -> Tensor:
    """(task, way, shot, frame) which frames exist of features that `Simulator.as_support` gives."""
    whole = support.shape[-2] == episodes.support_mask.shape[-1]
    return episodes.support_mask if whole else episodes.shot_mask[..., None]


def _check(
    model: Model, episodes: EpisodeBatch, held: Iterator[Mapping[str, Tensor]], seed: int
) -> xr.Dataset:
    program = Simulator(model, episodes)
    if (data := program.data) is None:
        return xr.Dataset(attrs={"reason": f"{type(model).__name__}: {NO_DATA}"})
    mask = _frames_of(data, episodes)
    observed = support_quantities(data, mask)
    runs = [support_quantities(x, mask) for x in _replicates(program, held, seed)]
    pairs = {
        name: (numpy_of(value), np.stack([numpy_of(run[name]) for run in runs]))
        for name, value in observed.items()
    }
    return _summary(pairs, task_labels(episodes))


def _summary(pairs: Mapping[str, tuple[Array, Array]], task: Array) -> xr.Dataset:
    """Observed (task,) and replicated (draw, task) values of each quantity, side by side."""
    observed = np.stack([o for o, _ in pairs.values()])
    drawn = np.stack([d for _, d in pairs.values()], 1)
    missing = np.isnan(observed) | np.isnan(drawn).any(0)
    above = (drawn > observed).mean(0) + 0.5 * (drawn == observed).mean(0)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    values = {"observed": observed, "mean": drawn.mean(0), "low": low, "high": high, "p": above}
    dims = ("quantity", "task")
    data = {name: (dims, np.where(missing, np.nan, value)) for name, value in values.items()}
    ends = np.array([_mean_ends(drawn[:, i, ~gone]) for i, gone in enumerate(missing)])
    of_mean = {"mean_low": ("quantity", ends[:, 0]), "mean_high": ("quantity", ends[:, 1])}
    coords = {"quantity": np.asarray(list(pairs), dtype=str), "task": task}
    return xr.Dataset({**data, **of_mean}, coords=coords, attrs={"replicates": len(drawn)})


def _mean_ends(drawn: Array) -> tuple[float, float]:
    """Central 95 % of the mean over tasks of (draw, task) replicates; nan without a task."""
    if not drawn.shape[1]:
        return math.nan, math.nan
    low, high = np.quantile(drawn.mean(1), [0.025, 0.975])
    return float(low), float(high)
