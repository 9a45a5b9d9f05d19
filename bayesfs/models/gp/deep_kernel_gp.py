"""Deep-kernel Gaussian processes over features of video frames: `DeepKernelGP`.

    u_c = f_c(phi(x)) + level + video deviation + frame deviation    (gp_covariance)
    y | u ~ likelihood                                               (gp_regression, ...)

Hyperparameters are population sites with priors; the class functions are integrated out, in
closed form where the likelihood allows. So any engine infers the hyperparameters (their point or
their posterior) from the train users' support, and a new task costs a few Cholesky factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pyro
import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise, TaskOrder
from bayesfs.models.gp.approximations.latent import LEARNING_NODES, NODES
from bayesfs.models.gp.conditioning import TaskPrior
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.hyperparameters import (
    Hyperparameter,
    Values,
    merge,
    population_draws,
    sample_hyperparameters,
)
from bayesfs.models.gp.likelihood import Fitted, Likelihood, Scores
from bayesfs.models.gp.likelihoods.regression import LabelRegression
from bayesfs.models.gp.mixture import join_videos, log_mean, mix
from bayesfs.models.gp.objective import GPMarginalLikelihood, HyperparameterObjective
from bayesfs.models.gp.points import Query, by_support_size, places, query_points
from bayesfs.protocols import Conjugate
from bayesfs.types import EpisodeBatch, Posterior, Predictive

FUNCTION = "function"
"""Site of `condition`: draws of f + b at the support points."""


@dataclass(frozen=True)
class DeepKernelGP(Conjugate):
    """A Gaussian process classifier of videos with learnt kernel; fulfils Conjugate.

    It is also what the objectives of `bayesfs.models.objectives` ask for (`population_dims`,
    `sample_population`, `log_evidence`, `log_labels`).

    Attributes:
        covariance: feature map, base kernel, video kernel and the rest.
        likelihood: labels given class functions.
        objective: what the program scores the hyperparameters by, from the support alone.
        nodes: points of the integral over latent values in an answer, where the likelihood has no
            closed form.
        memory: largest number of elements of one intermediate tensor; queries are scored in
            pieces that respect it.

    Example:
        >>> model = DeepKernelGP()
        >>> sorted(model.dims)
        ['frame_scale', 'frame_shift', 'signal', 'video_scale', 'video_shift']
    """

    covariance: VideoCovariance = field(default_factory=VideoCovariance)
    likelihood: Likelihood = field(default_factory=LabelRegression)
    objective: HyperparameterObjective = field(default_factory=GPMarginalLikelihood)
    nodes: int = NODES
    memory: int = 2**25

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """All hyperparameters with their priors."""
        return merge(self.covariance.sites, self.likelihood.sites)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes; every site belongs to the population."""
        return {name: site.dims for name, site in self.sites.items()}

    @property
    def population_dims(self) -> Mapping[str, tuple[str, ...]]:
        """The same as `dims`."""
        return self.dims

    def for_learning(self) -> DeepKernelGP:
        """The model with integrals over few points, to learn hyperparameters with."""
        return replace(self, nodes=LEARNING_NODES)

    def prepare(self, episodes: EpisodeBatch) -> DeepKernelGP:
        """The model with its feature map's constants taken from the support of train users."""
        mask = episodes.support_mask
        condition = episodes.support_condition[..., None].expand(mask.shape)
        covariance = self.covariance.prepare(episodes.support[mask], condition[mask])
        return replace(self, covariance=covariance)

    def fit_to(self, spectrum: tuple[float, ...]) -> DeepKernelGP:
        """The model told the spread of the train frames along each feature (see `OrderedAxes`)."""
        return replace(self, covariance=self.covariance.fit_to(spectrum))

    def sample_population(self, like: Tensor) -> Mapping[str, Tensor]:
        """Pyro program of the hyperparameters; `like` (..., feature) gives width and dtype."""
        return sample_hyperparameters(self.sites, like)

    def __call__(self, episodes: EpisodeBatch) -> None:
        """Sample the hyperparameters and score them on the support."""
        values = self.sample_population(episodes.support)
        with pyro.plate("task", len(episodes), dim=-4):
            value = self.objective(self.likelihood.fit, self.covariance, values, episodes)
            pyro.factor("support", value[:, None, None, None])

    def fit(self, episodes: EpisodeBatch, values: Values) -> Fitted:
        """Posterior of the class functions at one value of the hyperparameters.

        Raises:
            NotPositiveDefiniteError: the kernel matrix has no Cholesky factor.
        """
        return self.likelihood.fit(TaskPrior.of(self.covariance, values, episodes))

    def log_evidence(self, episodes: EpisodeBatch, population: Values) -> Tensor:
        """(task,): log p(support labels | population), p averaged over population draws.

        For regression on labels it is the exact log density of the coded labels; other
        likelihoods say what they return.
        """
        draws = population_draws(self.sites, population, episodes.support)
        groups = by_support_size(episodes)
        each = [torch.cat([self.fit(part, v).log_evidence for _, part in groups]) for v in draws]
        return log_mean(torch.stack([e[places(groups)] for e in each]))

    def log_labels(self, episodes: EpisodeBatch, population: Values) -> tuple[Tensor, Tensor]:
        """Log p(y | x, support, population): (task, video, frame, way) and (task, video, way)."""
        scores = list(self._scores(population, episodes))
        frame = log_mean(torch.stack([s.frame for s in scores]))
        return frame, log_mean(torch.stack([s.video for s in scores]))

    @torch.no_grad()
    def condition(
        self, episodes: EpisodeBatch, population: Values, *, draws: int, seed: int
    ) -> Posterior:
        """Draws of the class functions at the support points, and the population beside them.

        Site "function" (task, way, point): f + b at the support frames, first those that exist
        (`bayesfs.models.gp.points.support_points` gives their order).

        Args:
            episodes: tasks.
            population: site -> value, with or without a leading `draw` axis.
            draws: number of draws for each population draw.
            seed: the same seed gives the same draws.
        """
        noise = Noise.of(episodes, seed)
        values = population_draws(self.sites, population, episodes.support)
        functions = [self.fit(episodes, v).function(draws, noise) for v in values]
        sites = {FUNCTION: torch.cat(functions)}
        for name in self.dims:
            sites[name] = torch.stack([v[name] for v in values]).repeat_interleave(draws, 0)
        dims = {FUNCTION: ("task", "way", "point"), **self.dims}
        coords = {"task": episodes.tasks} if episodes.tasks else {}
        return Posterior.of_own("exact", sites, dims, coords=coords, seed=seed)

    @torch.no_grad()
    def predictive(
        self, episodes: EpisodeBatch, population: Values, *, draws: int, seed: int
    ) -> Predictive:
        """Predictive of every query frame and video, with draws of the class functions.

        Args:
            episodes: tasks.
            population: site -> value, with or without a leading `draw` axis; several draws are
                mixed with equal weight.
            draws: draws of the class functions for each population draw.
            seed: the same seed gives the same draws.
        """
        query, order = query_points(episodes), TaskOrder.of(episodes)
        parts = []
        for number, value in enumerate(population_draws(self.sites, population, episodes.support)):
            fitted = self.fit(episodes, value)
            pieces = [
                fitted.predictive(p, draws, Noise(seed, order, number, even=True))
                for p in self.pieces(query, episodes.way, draws)
            ]
            parts.append(join_videos(pieces))
        return mix(parts)

    def pieces(self, query: Query, way: int, draws: int = 1) -> Iterator[Query]:
        """The query in pieces of videos whose intermediate tensors respect `memory`."""
        t, v, f, d = query.x.shape
        work = max(d, way * max(f, 4 * draws, 32))
        step = max(1, min(v, self.memory // (t * f * work)))
        for start in range(0, v, step):
            yield query.videos(start, min(start + step, v))

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, frame, way): log p(y | x, support, hyperparameters)."""
        return torch.stack([s.frame for s in self._scores(draws, episodes)])

    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, way): the same for whole query videos."""
        return torch.stack([s.video for s in self._scores(draws, episodes)])

    def running(self, episodes: EpisodeBatch, population: Values) -> Tensor:
        """(task, video, frame, way): log p(y | the video's frames so far), as frames arrive."""
        return log_mean(torch.stack([s.running for s in self._scores(population, episodes)]))

    def _scores(self, population: Values, episodes: EpisodeBatch) -> Iterator[Scores]:
        """Scores of the query at each population draw."""
        groups = by_support_size(episodes)
        place = places(groups)
        for values in population_draws(self.sites, population, episodes.support):
            each = [self._score(part, values) for _, part in groups]
            frame, running = (torch.cat(s)[place] for s in zip(*each, strict=True))
            yield Scores(frame, running)

    def _score(self, episodes: EpisodeBatch, values: Values) -> tuple[Tensor, Tensor]:
        """Frame and running scores of tasks of about one size, at one draw."""
        fitted = self.fit(episodes, values)
        pieces = [
            fitted.scores(p, self.nodes) for p in self.pieces(query_points(episodes), episodes.way)
        ]
        return torch.cat([p.frame for p in pieces], 1), torch.cat([p.running for p in pieces], 1)
