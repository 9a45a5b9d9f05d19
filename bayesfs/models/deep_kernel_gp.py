"""Deep-kernel Gaussian processes over features of video frames: `DeepKernelGP`.

    u_c = f_c(phi(x)) + level + video deviation + frame deviation    (gp_covariance)
    y | u ~ likelihood                                               (gp_regression, ...)

Hyperparameters are population sites with priors; the class functions are integrated out, in
closed form where the likelihood allows. So any engine infers the hyperparameters (their point or
their posterior) from the train users' support, and a new task costs a few Cholesky factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import pyro
import torch
from torch import Tensor

from bayesfs.errors import InferenceError
from bayesfs.models.gp_covariance import VideoCovariance
from bayesfs.models.gp_gaussian import TaskPrior
from bayesfs.models.gp_likelihood import Fitted, Likelihood
from bayesfs.models.gp_mixture import join_videos, mix, thin
from bayesfs.models.gp_objective import HeldOutScore, Objective
from bayesfs.models.gp_points import Query, query_points
from bayesfs.models.gp_regression import LabelRegression
from bayesfs.models.gp_sites import Site, Values, merge, population_draws, sample_sites
from bayesfs.types import EpisodeBatch, Posterior, Predictive

FUNCTION = "function"
"""Site of `condition`: draws of f + b at the support points."""


@dataclass(frozen=True)
class DeepKernelGP:
    """A Gaussian process classifier of videos with learnt kernel; fulfils ConjugateModel.

    Attributes:
        covariance: feature map, base kernel, video kernel and the rest.
        likelihood: labels given class functions.
        objective: what the hyperparameters are learnt from.
        population_draws: at most this many draws of the hyperparameters are used per prediction.
        memory: largest number of elements of one intermediate tensor; queries are scored in
            pieces that respect it.

    Example:
        >>> model = DeepKernelGP().prepare(train_episodes)  # doctest: +SKIP
        >>> population = SVI().infer(model, train_episodes, seed=0).population  # doctest: +SKIP
        >>> predictive = model.predictive(test, population, draws=100, seed=0)  # doctest: +SKIP
    """

    covariance: VideoCovariance = field(default_factory=VideoCovariance)
    likelihood: Likelihood = field(default_factory=LabelRegression)
    objective: Objective = field(default_factory=HeldOutScore)
    population_draws: int = 8
    memory: int = 2**24

    @property
    def sites(self) -> Mapping[str, Site]:
        """All hyperparameters with their priors."""
        return merge(self.covariance.sites, self.likelihood.sites)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes; every site belongs to the population."""
        return {name: site.dims for name, site in self.sites.items()}

    def prepare(self, episodes: EpisodeBatch) -> DeepKernelGP:
        """The model with its feature map's constants taken from the support of train users."""
        mask = episodes.support_mask
        kind = episodes.support_kind[..., None].expand(mask.shape)
        covariance = self.covariance.prepare(episodes.support[mask], kind[mask])
        return replace(self, covariance=covariance)

    def __call__(self, episodes: EpisodeBatch) -> None:
        """Sample the hyperparameters and score them on the support."""
        values = sample_sites(self.sites, episodes.support)
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
        """(task,): log p(support labels | population), averaged in p over population draws.

        For regression on labels it is the exact log density of the coded labels; other
        likelihoods say what they return.
        """
        draws = thin(self._draws(episodes, population), self.population_draws)
        with torch.no_grad():
            each = torch.stack([self.fit(episodes, v).log_evidence for v in draws])
        return each.logsumexp(0) - torch.tensor(float(len(draws))).log().to(each)

    def condition(
        self, episodes: EpisodeBatch, population: Values, *, draws: int, seed: int
    ) -> Posterior:
        """Draws of the class functions at the support points, and the population beside them.

        Site "function" (task, way, point): f + b at the support frames, first those that exist
        (`gp_points.support_points` gives their order).
        """
        generator = torch.Generator().manual_seed(seed)
        values = thin(self._draws(episodes, population), min(draws, self.population_draws))
        sizes = shares(draws, len(values))
        with torch.no_grad():
            functions = [
                self.fit(episodes, v).function(n, generator)
                for v, n in zip(values, sizes, strict=True)
            ]
        sites = {FUNCTION: torch.cat(functions)}
        for name in self.dims:
            sites[name] = torch.cat(
                [v[name].expand(n, *v[name].shape) for v, n in zip(values, sizes, strict=True)]
            )
        dims = {FUNCTION: ("task", "way", "point"), **self.dims}
        coords = {"task": episodes.tasks} if episodes.tasks else {}
        return Posterior("exact", sites, dims, coords=coords, seed=seed)

    def predictive(
        self, episodes: EpisodeBatch, population: Values, *, draws: int, seed: int
    ) -> Predictive:
        """Predictive of every query frame and video, with draws of the class functions.

        Args:
            episodes: tasks.
            population: site -> value, with or without a leading `draw` axis; several draws are
                mixed with equal weight.
            draws: number of draws of the class functions, shared out over the population draws.
            seed: the same seed gives the same draws.
        """
        generator = torch.Generator().manual_seed(seed)
        values = thin(self._draws(episodes, population), min(draws, self.population_draws))
        sizes = shares(draws, len(values))
        with torch.no_grad():
            parts = []
            for value, size in zip(values, sizes, strict=True):
                fitted = self.fit(episodes, value)
                pieces = [
                    fitted.predictive(piece, size, generator)
                    for piece in self.pieces(query_points(episodes), size)
                ]
                parts.append(join_videos(pieces))
        return mix(parts)

    def pieces(self, query: Query, draws: int = 1, points: int = 0) -> Iterator[Query]:
        """The query in pieces of videos whose intermediate tensors respect `memory`."""
        t, v, f, _ = query.x.shape
        per_video = t * f * max(f, points, draws, query.x.shape[-1])
        step = max(1, min(v, self.memory // max(per_video, 1)))
        for start in range(0, v, step):
            yield query.videos(start, min(start + step, v))

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, frame, way): log p(y | x, support, hyperparameters)."""
        return self._each(draws, episodes, lambda fitted, query: fitted.scores(query).frame)

    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, way): the same for whole query videos."""
        return self._each(draws, episodes, lambda fitted, query: fitted.scores(query).video)

    def _each(
        self,
        draws: Mapping[str, Tensor],
        episodes: EpisodeBatch,
        score: Callable[[Fitted, Query], Tensor],
    ) -> Tensor:
        results = []
        for values in self._draws(episodes, draws):
            fitted = self.fit(episodes, values)
            pieces = [score(fitted, p) for p in self.pieces(query_points(episodes))]
            results.append(torch.cat(pieces, 1))
        return torch.stack(results)

    def _draws(self, episodes: EpisodeBatch, population: Values) -> list[dict[str, Tensor]]:
        if not population:
            raise InferenceError(
                f"expected the hyperparameters {sorted(self.dims)}, got none; infer the population "
                "from train episodes first"
            )
        return population_draws(self.sites, population, episodes.support)


def shares(draws: int, parts: int) -> list[int]:
    """`draws` divided among `parts`, as evenly as can be."""
    return [draws // parts + (i < draws % parts) for i in range(parts)]
