"""Variational inference without optimisation per task: `AmortisedSVI`.

Most of what data say about a non-centred latent is in one number: the derivative of the log density
at the prior's centre. So the guides of many tasks nearly lie on one map, learnt once:

    q_t(z_i) = N(a g_ti + b, s^2),    g_t = grad log p(z, data_t) at z = 0,

with a, b and s per site, shared by all tasks and latents of the site. Padded latents keep their
prior N(0, 1). A short refinement takes each task from there to its own optimum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bayesfs._utils.ranges import Count, Natural, Positive, check_ranges
from bayesfs.errors import InferenceError
from bayesfs.inference.program.batches import infer_in_batches
from bayesfs.inference.program.canonical import canonical
from bayesfs.inference.program.potential import Potential, potential
from bayesfs.inference.program.sites import Block
from bayesfs.inference.program.streams import Streams
from bayesfs.inference.svi.elbo import Fit, Schedule, maximise_elbo
from bayesfs.inference.svi.guides import MeanField
from bayesfs.inference.svi.svi import START_SCALE, SVI, sample_guide
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior

SMALL_SCORE = 1e-4
"""Spread of scores (in nats per unit) below which they are rounding errors."""

ENOUGH = 30
"""Informed latents that a slope is fitted to, at least; with fewer, the map is a constant."""


@dataclass(frozen=True)
class SiteMap:
    """How the guide of a site follows from its derivative at the prior's centre.

    Attributes:
        slope: a, in units of the latent per nat per unit.
        intercept: b.
        log_scale: log s.
    """

    slope: float
    intercept: float
    log_scale: float


@dataclass(frozen=True)
class AmortisedSVI(Engine):
    """Mean-field guides predicted by a shared map, then refined.

    `learn` once on many tasks, and `infer` takes a fraction of a second for a new user; without
    `learn`, `infer` learns the map on the first tasks it is given. The map holds for tasks like
    those that it was learnt on: as many classes and support videos, the same population. The
    refinement makes up for small differences, and khat tells of large ones.

    Attributes:
        maps: site -> SiteMap, as learnt; None means not yet.
        learner: fits the tasks that the map is learnt on; its guide must be `MeanField()`.
        learn_from: tasks to learn from, at most.
        refine: gradient steps per task after the prediction; 0 keeps the prediction.
        learning_rate: Adam's rate in the refinement.
        draws: posterior draws returned.
        khat_draws: see `bayesfs.inference.svi.svi.SVI`.
        batch_size: tasks at a time.

    Source: the prediction of a guide from the score is one step of Marino, Yue and Mandt (2018),
    Iterative amortized inference, eq. 8, with an affine map per site; refs.bib: marino2018.

    Example:
        >>> engine = AmortisedSVI().learn(model, train, seed=0, given=population)  # doctest: +SKIP
        >>> posterior = engine.infer(model, new_user, seed=0, given=population)  # doctest: +SKIP
    """

    maps: Mapping[str, SiteMap] | None = None
    learner: SVI = field(default_factory=SVI)
    learn_from: Count = 64
    refine: Natural = 100
    learning_rate: Positive = 0.02
    draws: Count = 1000
    khat_draws: Natural = 200
    batch_size: Count = 256

    def __post_init__(self) -> None:
        check_ranges(self, InferenceError)
        if self.learner.guide != MeanField():
            raise InferenceError(f"expected a MeanField() learner, got {self.learner.guide}")

    def learn(
        self,
        model: Model,
        episodes: EpisodeBatch,
        *,
        seed: int,
        given: Posterior | None = None,
        progress: Progress | None = None,
    ) -> AmortisedSVI:
        """The same engine with the map learnt on (the first `learn_from` of) these tasks."""
        some = episodes.select(range(min(self.learn_from, len(episodes))))
        some = canonical(model, some).episodes
        density = _separable(potential(model, some, given))
        like = some.support.new_zeros(density.tasks, density.size)
        fit = maximise_elbo(
            density,
            MeanField(),
            Schedule(self.learner.steps, self.learner.learning_rate, self.learner.particles, True),
            start=MeanField().start(like, START_SCALE),
            generator=torch.Generator().manual_seed(seed),
            progress=progress,
        )
        score, (mean, log_scale) = _score_at_zero(density), fit.parameters.chunk(2, 1)
        maps = {
            name: _site_map(
                score[:, block.slice], mean[:, block.slice], log_scale[:, block.slice], block
            )
            for name, block in density.blocks.items()
        }
        return replace(self, maps=maps)

    def infer(
        self,
        model: Model,
        episodes: EpisodeBatch,
        *,
        seed: int,
        given: Posterior | None = None,
        progress: Progress | None = None,
    ) -> Posterior:
        """Posterior of kind "variational"; see `bayesfs.protocols.Engine.infer`.

        Raises:
            InferenceError: there is no `given` although the model has a population, or the map
                was learnt for another model.
        """
        if self.maps is None:
            learnt = self.learn(model, episodes, seed=seed, given=given, progress=progress)
            return learnt.infer(model, episodes, seed=seed, given=given)
        return infer_in_batches(
            lambda density, draws, _: self._fit_batch(_separable(density), draws, seed),
            model,
            episodes,
            given,
            draws=self.draws,
            batch_size=self.batch_size,
            alike=("way", "shot"),
        )

    def _fit_batch(self, density: Potential, draws: int, seed: int) -> Posterior:
        start = self._predict(density)
        fit = Fit(start, start.new_zeros(0))
        if self.refine:
            schedule = Schedule(self.refine, self.learning_rate, self.learner.particles, False)
            noise = torch.Generator().manual_seed(seed)
            fit = maximise_elbo(density, MeanField(), schedule, start=start, generator=noise)
        return sample_guide(
            density,
            density,
            MeanField(),
            fit,
            draws=draws,
            khat_draws=self.khat_draws,
            streams=Streams.of(density, seed),
            seed=seed,
        )

    def _predict(self, density: Potential) -> Tensor:
        """(task, 2 size): mean-field parameters from the score at the prior's centre."""
        maps = self.maps or {}
        if set(maps) != set(density.blocks):
            raise InferenceError(
                f"expected a map for the sites {sorted(density.blocks)}, got {sorted(maps)}; "
                "was it learnt for another model?"
            )
        score = _score_at_zero(density)
        means, scales = [], []
        for name, block in density.blocks.items():
            x, site = score[:, block.slice], maps[name]
            informed = _informed(x, block)
            means.append(torch.where(informed, site.slope * x + site.intercept, 0.0))
            scales.append(torch.where(informed, torch.full_like(x, site.log_scale), 0.0))
        return torch.cat([*means, *scales], 1)


def _separable(density: Potential) -> Potential:
    if density.joint:
        raise InferenceError(
            "AmortisedSVI needs given=, the population: without it, tasks share their latents"
        )
    return density


def _score_at_zero(density: Potential) -> Tensor:
    """(task, size): gradient of the log density at the prior's centre."""
    zero = density.episodes.support.new_zeros(density.tasks, 1, density.size)
    return density.value_and_gradient(zero)[1].squeeze(1)


def _informed(score: Tensor, block: Block) -> Tensor:
    """(task, latent): False for padded classes, videos and frames, whose score is exactly 0.

    A latent of the whole task, such as a scale, is informed even where its score is 0 at z = 0.
    """
    return (score != 0) | (block.level == "task")


def _site_map(score: Tensor, mean: Tensor, log_scale: Tensor, block: Block) -> SiteMap:
    """Least squares of the guides' means on their scores, over informed latents of all tasks."""
    informed = _informed(score, block)
    if not informed.any():
        return SiteMap(0.0, 0.0, 0.0)
    x, y = score[informed].double(), mean[informed].double()
    x_mean, y_mean = x.mean(), y.mean()
    variance = (x - x_mean).square().mean()
    enough = len(x) > ENOUGH and float(variance) > SMALL_SCORE**2
    slope = float(((x - x_mean) * (y - y_mean)).mean() / variance) if enough else 0.0
    intercept = float(y_mean) - slope * float(x_mean)
    return SiteMap(slope, intercept, float(log_scale[informed].double().mean()))
