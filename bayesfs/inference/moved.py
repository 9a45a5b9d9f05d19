"""Draws of a quick engine, moved to where the posterior is: `Moved`.

What an approximation gets wrong of a shape, such as skewed weights under a softmax or a scale that
a few particles underrate, some Hamiltonian transitions put right: they leave the posterior as it
is, and nothing else. Each draw goes its own way, so that there is no chain to wait for: the draws
of the first engine are the spread-out starts that a chain would need a warm-up for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from bayesfs._utils.ranges import Count, Several, check_ranges
from bayesfs._utils.spacing import evenly_spaced
from bayesfs.errors import InferenceError
from bayesfs.inference.program.batches import infer_in_batches
from bayesfs.inference.program.moves import moved
from bayesfs.inference.program.potential import Potential
from bayesfs.inference.program.stein import stein_moments
from bayesfs.inference.program.streams import Streams
from bayesfs.inference.svi.svi import SVI
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior

OWN = 1 << 20
"""Added to the number of a population's draw: the numbers are not those of the first engine."""


@dataclass(frozen=True)
class Moved(Engine):
    """Draws of another engine, each moved by Hamiltonian transitions of its own.

    Diagnostics in `Posterior.sample_stats`, in place of those of the first engine:

        acceptance_rate (task,): mean over the second half of the transitions.
        stein_moments (task,): see `bayesfs.inference.program.stein`.

    Neither sees a mode that no draw of the first engine is near: transitions keep to theirs.

    Attributes:
        first: engine of the draws that are moved.
        transitions: of each draw, 8 leapfrog steps each.
        draws: draws that are moved at most, evenly spaced.
        batch_size: tasks at a time; bounds the memory.
        population_draws: see `bayesfs.inference.svi.svi.SVI`.

    Example:
        >>> engine = Moved(SVI(draws=64))
        >>> posterior = engine.infer(model, episodes, seed=0, given=population)  # doctest: +SKIP
        >>> posterior.sample_stats["acceptance_rate"]  # doctest: +SKIP
    """

    first: Engine = field(default_factory=SVI)
    transitions: Several = 32
    draws: Several = 256
    batch_size: Count = 32
    population_draws: Count = 1

    def __post_init__(self) -> None:
        check_ranges(self, InferenceError)

    def check_model(self, model: Model) -> None:
        """Refuse a model that the first engine refuses."""
        self.first.check_model(model)

    def stand_in(self) -> Engine | None:
        """The first engine's."""
        return self.first.stand_in()

    def infer(
        self,
        model: Model,
        episodes: EpisodeBatch,
        *,
        seed: int,
        given: Posterior | None = None,
        progress: Progress | None = None,
    ) -> Posterior:
        """Posterior of kind "particles"; see `bayesfs.protocols.Engine.infer`.

        Raises:
            InferenceError: a draw of the first engine has no finite density.
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
        first = self.first.infer(
            density.model,
            density.episodes,
            seed=seed + branch,
            given=density.given,
            progress=progress,
        )
        kept = torch.tensor(evenly_spaced(first.num_draws, draws))
        sites = {site: first.draws[site] for site in density.blocks}
        start = density.unconstrain({s: v[kept.to(v.device)] for s, v in sites.items()})
        state, rate = moved(
            density, start, self.transitions, Streams.of(density, seed, branch + OWN)
        )
        stats = {"acceptance_rate": rate, "stein_moments": stein_moments(state.z, state.score)}
        return density.posterior(state.z, kind="particles", seed=seed, sample_stats=stats)
