"""Aleatoric uncertainty by measured cause: start with `by_cause`.

The model states how much each measured quality widens a frame's noise. What a defect costs is then
a counterfactual within the model:

    drop_j = A(x, q) - A(x, q with q_j as in a typical frame),

with A the aleatoric uncertainty of the frame's label, in nats, and all else as it is. Typical means
0 in standardised quality: the mean of the train frames of the same condition. It is positive where
the defect blurs the label; it is a statement about the model's noise, not an image that was taken
again. Drops of several qualities do not add up, as entropy is not linear in the noise.

What mending a defect would save is the drop with the measures that it moves (`REACH`) typical at
once, as those of a picture taken again would be: too much light clips, too, and too little takes up
to `CARRIED` sds of focus with it; what has less is blurred besides, and stays so. Filmed again
without its defect by the renderer, frames lose as much doubt (benchmarks/uncertainty.py,
`cause_spearman`).

A frame that shows nothing taught has the probability `frame_absent` of doing so; the model's own
reasons are given there, not those of measured quality.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import xarray as xr
from torch import Tensor

from bayesfs.errors import InferenceError
from bayesfs.prediction import thinned, thinned_values
from bayesfs.protocols import Conjugate, Model, OpenSet
from bayesfs.types import EpisodeBatch, Posterior
from bayesfs.uncertainty.decompose import decompose_draws

REACH: Mapping[str, tuple[str, ...]] = {
    "dark": ("brightness", "dark_clipped"),
    "bright": ("brightness", "bright_clipped"),
    "flat": ("contrast",),
    "blurred": ("focus",),
}
"""Defect -> the measures that it moves, its own one first."""

CARRIED, CARRIES = 3.0, ("dark", "flat")
"""Sds of focus that these defects take with them at most; what has less is blurred besides."""


def by_cause(
    model: Model,
    population: Posterior,
    episodes: EpisodeBatch,
    *,
    draws: int = 16,
    population_draws: int = 4,
    seed: int,
) -> xr.Dataset:
    """How many nats each measured defect costs every query frame.

    Args:
        model: such as `GaussianHierarchy(covariates=...)`.
        population: posterior of the population sites.
        episodes: T tasks with query_quality, standardised.
        draws: draws of the classes for each population draw; the same for every counterfactual.
        population_draws: draws of the population, evenly spaced over those of `population`.
        seed: of the draws.

    Returns:
        Dataset with `frame_drop` (task, video, frame, covariate) in nats, `frame_cause` (task,
        video, frame, cause) the same for each defect of `REACH` whose own measure the model has,
        `frame_absent` (task, video, frame) and `video_absent` (task, video) probabilities; NaN for
        padding. Without covariates in the model, the first two have no columns.

    Raises:
        InferenceError: the model cannot say.
    """
    if not (isinstance(model, Conjugate) and isinstance(model, OpenSet)):
        raise InferenceError(
            "expected a model with covariates that is Conjugate and OpenSet, got "
            f"{type(model).__name__}; causes are known for GaussianHierarchy(covariates=...)"
        )
    values = thinned(population, population_draws)

    def aleatoric(tasks: EpisodeBatch) -> Tensor:
        return decompose_draws(model.predictive(tasks, values, draws=draws, seed=seed).frame)[1]

    names = list(model.covariates)
    causes = [cause for cause, moved in REACH.items() if moved[0] in names]
    sets = [[j] for j in range(len(names))]
    sets += [[names.index(m) for m in REACH[cause] if m in names] for cause in causes]
    soft = [[names.index("focus")] if "focus" in names and c in CARRIES else [] for c in causes]
    each = zip(sets, [[] for _ in names] + soft, strict=True)
    with torch.no_grad():
        now = [aleatoric(episodes) for _ in sets[:1]]  # none where nothing is measured
        drops = [now[0] - aleatoric(typical(episodes, *moved)) for moved in each]
    absent = absent_probability(model, population, episodes, population_draws=population_draws)
    shape = episodes.query_mask.shape
    drop = torch.stack(drops, -1) if drops else absent[0].new_zeros(*shape, 0)
    by_set = drop.masked_fill(~episodes.query_mask[..., None], math.nan).cpu().numpy()
    mask, axes = ~episodes.query_mask, ("task", "video", "frame")
    data = {
        "frame_drop": ((*axes, "covariate"), by_set[..., : len(names)]),
        "frame_cause": ((*axes, "cause"), by_set[..., len(names) :]),
        "frame_absent": (
            axes,
            absent[0].masked_fill(mask, math.nan).cpu().numpy(),
        ),
        "video_absent": (
            ("task", "video"),
            absent[1].masked_fill(~episodes.video_mask, math.nan).cpu().numpy(),
        ),
    }
    coords: dict[str, list[str]] = {"covariate": names, "cause": causes}
    if episodes.tasks:
        coords["task"] = list(episodes.tasks)
    return xr.Dataset(data, coords=coords, attrs={"units": "nats"})


def typical(
    episodes: EpisodeBatch, covariates: Sequence[int], carried: Sequence[int] = ()
) -> EpisodeBatch:
    """The same tasks with some qualities of every query frame as in a typical frame.

    Args:
        episodes: T tasks.
        covariates: which are 0 then.
        carried: which are 0 then where they are less than `CARRIED` below.

    Raises:
        InferenceError: the episodes have no measured quality.
    """
    if episodes.query_quality is None:
        raise InferenceError(
            "expected episodes with query_quality, got none; was the feature store made without?"
        )
    quality = episodes.query_quality.clone()
    quality[..., list(covariates)] = 0.0
    low = quality[..., list(carried)]
    quality[..., list(carried)] = torch.where(low > -CARRIED, low.clamp(min=0.0), low)
    return episodes.changed(query_quality=quality)


def absent_probability(
    model: OpenSet, population: Posterior, episodes: EpisodeBatch, *, population_draws: int = 4
) -> tuple[Tensor, Tensor]:
    """Probabilities that nothing taught is shown, averaged over population draws.

    Returns:
        (task, video, frame) of frames and (task, video) of whole videos.
    """
    with torch.no_grad():
        found = [
            model.log_absent_odds(episodes, value)
            for value in thinned_values(population, population_draws)
        ]
    frame = torch.stack([f.sigmoid() for f, _ in found]).mean(0)
    return frame, torch.stack([v.sigmoid() for _, v in found]).mean(0)
