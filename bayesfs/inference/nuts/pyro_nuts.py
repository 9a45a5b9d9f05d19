"""Pyro's own NUTS, one task after another: `PyroNUTS`, a second reference.

It needs no translation of the model, and is some hundred times slower than
`bayesfs.inference.nuts.nuts.NUTS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer.mcmc import MCMC
from pyro.infer.mcmc import NUTS as PyroKernel
from torch import Tensor

from bayesfs._utils.ranges import Count, Share, check_ranges
from bayesfs.errors import InferenceError
from bayesfs.inference.program.batches import infer_in_batches
from bayesfs.inference.program.potential import Potential
from bayesfs.inference.program.sites import seeded
from bayesfs.inference.program.streams import Streams
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior


@dataclass(frozen=True)
class PyroNUTS(Engine):
    """Pyro's no-U-turn sampler on the density of `bayesfs.inference.program.potential`.

    Diagnostics in `Posterior.sample_stats`: diverging (draw, task).

    Attributes:
        warmup: transitions that adapt, and are discarded.
        draws: draws kept in each chain.
        chains: chains per task, one after another.
        target_accept: acceptance rate that the step size is adapted to.
        max_depth: trajectories have at most 2^max_depth - 1 steps.
        population_draws: see `bayesfs.inference.svi.svi.SVI`.

    Example:
        >>> PyroNUTS(warmup=100, draws=100).infer(model, episodes, seed=0, given=population)
        ... # doctest: +SKIP
    """

    warmup: Count = 500
    draws: Count = 500
    chains: Count = 2
    target_accept: Share = 0.8
    max_depth: Count = 10
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
        """Posterior of kind "mcmc"; see `bayesfs.protocols.Engine.infer`."""
        done = 0

        def fit(density: Potential, draws: int, branch: int) -> Posterior:
            nonlocal done
            kept = -(-draws // self.chains)
            first, runs = Streams.of(density, seed, branch).integers(2**31)[0], []
            for chain in range(self.chains):
                runs.append(self._chain(density, kept, first + chain))
                done += 1
                if progress is not None:
                    progress(done, len(episodes) * self.chains, f"Pyro, chain {chain + 1}")
            return density.posterior(
                torch.cat([z for z, _ in runs])[None],
                kind="mcmc",
                seed=seed,
                chains=self.chains,
                sample_stats={"diverging": torch.cat([d for _, d in runs])[:, None]},
            )

        return infer_in_batches(
            fit,
            model,
            episodes,
            given,
            draws=self.draws * self.chains,
            batch_size=1,
            population_draws=self.population_draws,
            alike=("way", "shot"),
        )

    def _chain(self, density: Potential, draws: int, seed: int) -> tuple[Tensor, Tensor]:
        """(draw, size) of one task and whether each transition diverged (draw,)."""

        def energy(sites: dict[str, Tensor]) -> Tensor:
            return -density.log_density(sites["z"][None, None])[0, 0]

        kernel: Any = PyroKernel(
            potential_fn=energy,
            target_accept_prob=self.target_accept,
            max_tree_depth=self.max_depth,
        )
        start = density.prior(1, seed=seed)[0, 0]
        with seeded(seed), pyro.validation_enabled(False):
            run: Any = MCMC(
                kernel,
                num_samples=draws,
                warmup_steps=self.warmup,
                initial_params={"z": start},
                disable_progbar=True,
            )
            run.run()
        diverging = torch.zeros(draws, dtype=torch.bool)
        diverging[run.diagnostics()["divergences"]["chain 0"]] = True
        return run.get_samples()["z"], diverging
