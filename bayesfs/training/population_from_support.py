"""Population and axes from the support of one task alone: `support_population`, `SupportAxes`.

With no other users, the population (how far classes, videos and frames scatter) must come from the
support. Its evidence, log p(support | population), is a poor judge: features are not Gaussian, and
it pays for that with the labels. What counts is how well left-out videos are recognised, so the
population's generalised posterior is

    log p(phi | D) = log p(phi) + sum_v [ log p(y_v | x_v, D without v, phi)
                     + mean_f log p(y_v | x_vf, D without v, phi) ] / 2 + const,

over the support videos v (`bayesfs.models.objectives.PredictiveScore` of the folds of
`bayesfs.data.leave_one_out.leave_one_video_out`). Where no class has two videos there is nothing to
leave out, the sum is empty, and the posterior is the prior.

Source: Bissiri, Holmes and Walker (2016), JRSS B 78; Fong and Holmes (2020), Biometrika 107, for
the sum of leave-out scores in place of the evidence.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bayesfs._utils.spacing import evenly_spaced
from bayesfs.data.leave_one_out import leave_one_video_out
from bayesfs.errors import ShapeError
from bayesfs.features.projection import principal_axes
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.program.potential import potential
from bayesfs.models.objectives import PopulationPrior, PredictiveScore
from bayesfs.protocols import Collapsible, Model
from bayesfs.types import EpisodeBatch, Posterior

Array = NDArray[Any]

DRAWS = 16
"""Draws of the population: `Exact` carries half of them through, unless it is asked for more."""

FOLDS = 8
"""Leave-out folds at most; with more shots than that, evenly spaced ones are asked."""

SHOTS = 64
"""Videos of each class in the folds at most, evenly spaced: what is asked is the scatter, of which
more would hardly tell more, and every fold holds a copy of them."""


@dataclass(frozen=True)
class SupportAxes:
    """Centre, principal axes and one common scale, all from the support.

        z = (x - m) V / s,    s^2 = mean |x - m|^2,

    so that scales within the model are fractions of the support's root mean square.

    Attributes:
        mean: (input feature,) mean of the support frames.
        axes: (input feature, feature) principal axes divided by the scale.
        spectrum: sd of each projected feature over the support, largest first.
    """

    mean: Array
    axes: Array
    spectrum: tuple[float, ...]

    @classmethod
    def fit(cls, x: Array, components: int) -> SupportAxes:
        """Axes of support frames (frame, input feature), at most `components` of them.

        Frames that are all alike have no axes; then z is zero, and the answer is "no idea".

        Raises:
            ShapeError: components is below 1.
        """
        if components < 1:
            raise ShapeError(f"expected n_components >= 1, got {components}")
        mean = x.mean(0)
        centred = x - mean
        sd, axes = principal_axes(centred, components, size=float(np.abs(x).max()))
        if not len(sd):
            return cls(mean, np.zeros((x.shape[1], 1)), (1.0,))
        peak = np.abs(centred).max()  # no square under- or overflows
        scale = peak * np.sqrt(np.square(centred / peak).sum(1).mean())
        return cls(mean, axes / scale, tuple((sd / scale).tolist()))

    def __call__(self, x: Array) -> Array:
        """(frame, input feature) -> (frame, feature)."""
        return np.asarray((x - self.mean) @ self.axes)


def support_population(
    model: Model, episode: EpisodeBatch, *, seed: int, draws: int = DRAWS
) -> Posterior | None:
    """Posterior of the population sites given the support of a task alone.

    Args:
        model: any model. One whose task level is integrated out (`bayesfs.protocols.Collapsible`)
            gets the posterior described above, by Laplace's approximation; one with a
            `default_population` gets that.
        episode: one task; only its support is used.
        seed: of the draws.
        draws: their number.

    Returns:
        Draws of the population sites, or None for any other model: its engine infers population
        and task together.
    """
    if not isinstance(model, Collapsible):
        default = model.default_population(episode.dim)
        return None if default is None else _like(default, episode)
    if int(episode.shot_mask.sum(-1).max()) < 2 or int(episode.way_mask.sum()) < 2:
        return _prior(model, episode, seed, draws)
    fewer = _thinned(episode)
    shots = fewer.support.shape[2]
    folds = leave_one_video_out(fewer, evenly_spaced(shots, min(FOLDS, shots)))
    engine = Laplace(structure="diagonal", draws=draws)
    found = engine.infer(PredictiveScore(model), folds, seed=seed)
    if all(bool(torch.isfinite(v).all()) for v in found.draws.values()):
        return found
    warnings.warn(
        "leaving videos out does not settle the population (its scores have no maximum that can "
        "be reached), so that its prior is used; are there fewer features than the model needs?",
        stacklevel=2,
    )
    return _prior(model, episode, seed, draws)


def _thinned(episode: EpisodeBatch) -> EpisodeBatch:
    """The task with at most `SHOTS` support videos of each class."""
    if episode.support.shape[2] <= SHOTS:
        return episode
    index = torch.zeros(episode.way, SHOTS, dtype=torch.long)
    there = torch.zeros(episode.way, SHOTS, dtype=torch.bool)
    for k, videos in enumerate(episode.shot_mask[0].cpu()):
        own = videos.nonzero()[:, 0]
        own = own[evenly_spaced(len(own), SHOTS)]
        index[k, : len(own)], there[k, : len(own)] = own, True
    at = (slice(None), torch.arange(episode.way)[:, None], index)
    mask = episode.support_mask[at] & there[..., None].to(episode.support_mask.device)
    return episode.changed(
        support=episode.support[at] * mask[..., None],
        support_mask=mask,
        support_condition=episode.support_condition[at],
        support_quality=None,
        support_frame=None,
    )


def _prior(model: Collapsible, episode: EpisodeBatch, seed: int, count: int) -> Posterior:
    joint = potential(PopulationPrior(model), episode)
    with torch.no_grad():
        draws = joint.constrain(joint.prior(count, seed=seed))
    return Posterior.of_own("exact", draws, dict(model.population_dims), seed=seed)


def _like(population: Posterior, episode: EpisodeBatch) -> Posterior:
    draws = {site: v.to(episode.support) for site, v in population.draws.items()}
    return Posterior.of_own(population.kind, draws, population.dims, seed=population.seed)
