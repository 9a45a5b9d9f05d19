"""Gibbs sampling of linear heads with Pólya-Gamma variables: `Gibbs`.

No gradients, no step size, no rejections: every class's weights are drawn exactly from their
conditional. It knows a model only through `bayesfs.protocols.LinearHead`; the conditionals are in
`bayesfs.inference.gibbs.sweep`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from bayesfs._distributions.keys import Keys
from bayesfs._utils.ranges import Count, Natural, check_ranges
from bayesfs.errors import InferenceError
from bayesfs.inference.gibbs.sweep import GibbsState, sweep
from bayesfs.inference.program.batches import infer_in_batches
from bayesfs.inference.program.informed import PosteriorOrFuture, fit_informed
from bayesfs.inference.program.potential import Potential
from bayesfs.inference.program.streams import Streams
from bayesfs.protocols import Engine, LinearHead, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior

REPORT = 20
"""Sweeps between two reports of progress."""


@dataclass(frozen=True)
class Gibbs(Engine):
    """All chains of all tasks of a batch together, started from independent draws of the prior.

    R-hat, effective sample sizes and MCSE are computed from the draws, which are chain-major, by
    `bayesfs.diagnostics.convergence`; there are no divergences and no energy.

    Attributes:
        burn_in: sweeps that are discarded.
        draws: draws kept in each chain.
        thin: sweeps between two draws.
        chains: chains per task.
        informed: sample only what the support informs, where the model knows it; see
            `bayesfs.inference.program.informed`.
        batch_size: tasks at a time; bounds the memory.
        population_draws: see `bayesfs.inference.svi.svi.SVI`.

    Example:
        >>> posterior = Gibbs().infer(model, episodes, seed=0, given=population)  # doctest: +SKIP
    """

    requires: ClassVar[type[Any]] = LinearHead

    burn_in: Natural = 100
    draws: Count = 250
    thin: Count = 2
    chains: Count = 4
    informed: bool = True
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
        """Posterior of kind "mcmc"; see `bayesfs.protocols.Engine.infer`.

        Raises:
            InferenceError: the model is no linear head, or its population is not given.
        """
        self.check_model(model)
        if given is None and any("task" not in axes for axes in model.dims.values()):
            raise InferenceError(
                "Gibbs needs given=: the posterior of the population, learnt by SVI on train users "
                "(in a Study by its population_engine, such as AdaptiveImportance())"
            )

        def fit_batch(density: Potential, draws: int, branch: int) -> PosteriorOrFuture:
            streams = Streams.of(density, seed, branch)

            def fit(density: Potential, draws: int) -> Posterior:
                return self._fit(density, -(-draws // self.chains), streams, seed, progress)

            if not self.informed:
                return fit(density, draws)
            return fit_informed(fit, density, draws, streams=streams)

        return infer_in_batches(
            fit_batch,
            model,
            episodes,
            given,
            draws=self.draws * self.chains,
            batch_size=self.batch_size,
            population_draws=self.population_draws,
            alike=("way", "shot"),
        )

    def _fit(
        self,
        density: Potential,
        draws: int,
        streams: Streams,
        seed: int,
        progress: Progress | None,
    ) -> Posterior:
        model, episodes = cast(LinearHead, density.model), density.episodes
        head = model.linear_logits(episodes, density.population)
        keys = Keys(streams.keys().extend(self.chains).value.mT)
        state = GibbsState.from_prior(head, keys.fold_in(0))
        kept, total = [], self.burn_in + draws * self.thin
        for i in range(1, total + 1):
            state = sweep(head, state, keys.fold_in(i))
            if i > self.burn_in and (i - self.burn_in) % self.thin == 0:
                kept.append(state)
            if progress is not None and (i % REPORT == 0 or i == total):
                progress(i, total, "Gibbs")
        e = _chain_major([s.e for s in kept])
        beta = _chain_major([s.beta for s in kept])
        z, u = beta.tensor_split([head.scaled.shape[-1]], -1)
        sites = model.from_linear(e, z, u, episodes, streams.normal)
        return density.posterior(
            density.unconstrain(sites), kind="mcmc", seed=seed, chains=self.chains
        )


def _chain_major(values: list[Tensor]) -> Tensor:
    """Draws of (chain, ...) -> (chain x draw, ...)."""
    return torch.stack(values, 1).flatten(0, 1)
