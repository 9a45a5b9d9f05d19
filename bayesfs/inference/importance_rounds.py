"""Many tasks of few latents each, by adaptive importance sampling in lockstep: `ImportanceRounds`.

Where a task has a handful of latents, independent draws are to be had however bent its posterior
is: a Student's t that covers all of it wastes most of its draws, but draws are cheap. In
coordinates whitened by the mode, the first t is several times as wide as the curvature there says.
Each round r draws from its own q_r; all draws so far are weighed together,

    w_i = p(x_i) / [ sum_r q_r(x_i) / rounds ],

and the next t is fitted to them and widened, so that the tails of the weights stay bounded. All
tasks do the same rounds, so that an answer does not depend on the tasks beside it. The draws are
resampled by their Pareto-smoothed weights, whose k-hat says whether that is to be trusted.

Source: Cornuet, Marin, Mira and Robert (2012), Adaptive multiple importance sampling; tempered
weights: Koblents and Míguez (2015). refs.bib: cornuet2012, koblents2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._distributions.student import Student, with_heavy_tails
from bayesfs._utils.ranges import Count, check_ranges
from bayesfs.errors import InferenceError
from bayesfs.inference.adaptive_importance import tempered
from bayesfs.inference.program.batches import infer_in_batches
from bayesfs.inference.program.closeness import evenly_chosen, resampled, stein_statistics
from bayesfs.inference.program.density import Density
from bayesfs.inference.program.potential import Potential
from bayesfs.inference.program.streams import Streams
from bayesfs.inference.program.whiten import Whitened
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior

FEW = 8
"""Latents of a task at most: in more dimensions too few proposals would count."""

START = 3.0
"""Scale of the first t, in that of the curvature at the mode."""

WIDER = 1.5
"""Scale of the later ones, in that of the t fitted to the draws."""

LEAST = 200
"""Draws that the weights of a fit are worth at least: they are tempered until they are."""

FITTED = 1024
"""Points that a t is fitted to, resampled by these weights."""


@dataclass(frozen=True)
class ImportanceRounds(Engine):
    """Independent draws of tasks with up to `FEW` latents, by a Student's t that learns.

    Diagnostics in `Posterior.sample_stats`, each (task,):

        evidence_bound: log of the mean weight, an estimate of the log evidence, in nats.
        khat: Pareto k-hat of all weights; at most .7 passes.
        weight_ess: draws that the weights are worth, 1 / sum w^2; repeats: draws for each of them.
        stein_moments: see `bayesfs.inference.program.stein`.

    None of them sees a mode that no round has proposed.

    Attributes:
        rounds: of proposals; the t learns between them.
        proposals: draws of a round, of each task.
        degrees: of freedom of the t.
        draws: posterior draws returned.
        batch_size: tasks at a time; bounds the memory.
        population_draws: see `bayesfs.inference.svi.svi.SVI`.

    Raises:
        InferenceError: a number is below 1.

    Example:
        >>> engine = ImportanceRounds(draws=2000)
        >>> posterior = bf.infer(program, engine, data=data, batch_axis=0)  # doctest: +SKIP
        >>> posterior.sample_stats["khat"]  # doctest: +SKIP
    """

    rounds: Count = 6
    proposals: Count = 10000
    degrees: Count = 5
    draws: Count = 1000
    batch_size: Count = 64
    population_draws: Count = 1

    def __post_init__(self) -> None:
        check_ranges(self, InferenceError)

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
            InferenceError: a task has more than `FEW` latents.
        """
        return infer_in_batches(
            lambda density, draws, branch: self._fit(density, draws, branch, seed, progress),
            model,
            episodes,
            given,
            draws=self.draws,
            batch_size=self.batch_size,
            population_draws=self.population_draws,
            alike=("way", "shot"),
        )

    def _fit(
        self, density: Potential, draws: int, branch: int, seed: int, progress: Progress | None
    ) -> Posterior:
        if density.size > FEW:
            raise InferenceError(
                f"expected at most {FEW} latents a task, got {density.size}; take SVI or NUTS"
            )
        like = density.episodes.support.new_zeros(density.tasks, density.size)
        target = Whitened.at_mode(density, like)
        streams = Streams.of(density, seed, branch)
        u, log_weight = self._weighed(target, like, streams, progress)
        u, stats = resampled(u, log_weight, draws)
        stats |= stein_statistics(target, u, torch.arange(density.size, device=u.device))
        z = target.unwhiten(u)
        return density.posterior(z, kind="variational", seed=seed, sample_stats=stats)

    def _weighed(
        self, density: Density, like: Tensor, streams: Streams, progress: Progress | None
    ) -> tuple[Tensor, Tensor]:
        """Draws of all rounds (task, draw, size), and their log weights (task, draw)."""
        tasks, size = like.shape
        wide = START * torch.eye(size, dtype=like.dtype, device=like.device)
        proposed = [Student(like, wide.expand(tasks, -1, -1), self.degrees)]
        u, value = like.new_zeros(tasks, 0, size), like.new_zeros(tasks, 0)
        log_q = value
        for k in range(self.rounds):
            noise = streams.normal((self.proposals, size), like)
            new = proposed[-1].of_noise(with_heavy_tails(noise, self.degrees))
            with torch.no_grad():
                value = torch.cat([value, density.log_density(new)], 1)
            of_new = torch.stack([q.log_density(new) for q in proposed]).logsumexp(0)
            log_q = torch.cat([torch.logaddexp(log_q, proposed[-1].log_density(u)), of_new], 1)
            u = torch.cat([u, new], 1)
            log_weight = value - log_q + math.log(k + 1)
            log_weight = torch.where(torch.isnan(log_weight), -math.inf, log_weight)
            if progress is not None:
                progress(k + 1, self.rounds, "")
            if k + 1 < self.rounds:
                proposed.append(self._next(u, log_weight))
        return u, log_weight

    def _next(self, u: Tensor, log_weight: Tensor) -> Student:
        """The t of the next round, by the draws so far."""
        share = tempered(log_weight, min(LEAST, u.shape[1] // 2))
        points = u.take_along_dim(evenly_chosen(share, FITTED).unsqueeze(-1), 1)
        even = torch.full_like(points[..., 0], 1.0 / FITTED)
        fitted = Student.fitted(points, even, degrees=self.degrees)
        return Student(fitted.location, WIDER * fitted.root, self.degrees)
