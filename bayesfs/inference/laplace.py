"""Laplace's approximation, batched over tasks: `Laplace`.

    p(z | data) ~ N(mode, H^-1),    H = -Hessian of log p(z, data) at the mode,
    log p(data) ~ log p(mode, data) + (size / 2) log 2 pi - (1 / 2) log |H|,

in the unconstrained space of `bayesfs.inference.potential`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from bayesfs.contracts import Model, Progress
from bayesfs.errors import InferenceError
from bayesfs.inference.batches import infer_in_batches
from bayesfs.inference.curvature import maximise
from bayesfs.inference.factors import Factor, dense_factor, diagonal_factor, kronecker_factor
from bayesfs.inference.potential import Block, Potential
from bayesfs.types import EpisodeBatch, Posterior

Structure = Literal["full", "kronecker", "diagonal"]

MAX_DENSE = 8192
"""Largest number of latents for a dense precision (256 MB per task in single precision)."""


@dataclass(frozen=True)
class Laplace:
    """A Gaussian at the mode, with the curvature there.

    Diagnostics in `Posterior.sample_stats`:
        log_evidence (task,): Laplace's estimate of log p(support), in nats.
        gradient (task,): largest absolute derivative at the mode; far from 0 means no mode.
        ridge (task,): added to the precision's diagonal to make it positive definite.

    Attributes:
        structure: "full": one dense precision per task. "kronecker": independent sites; the
            weights of a head (a standard normal site with two axes) get
            I + A (x) B, with A over classes and B over features: see `bayesfs.inference.factors`.
            "diagonal": independent latents.
        draws: posterior draws returned.
        steps: L-BFGS iterations at most.
        batch_size: tasks at a time; bounds the memory.
        population_draws: see `bayesfs.inference.svi.SVI`.
        progress: called with (tasks done, tasks, message).

    Source: MacKay (1992), A practical Bayesian framework for backpropagation networks; Ritter,
    Botev and Barber (2018), A scalable Laplace approximation, for the Kronecker form.
    refs.bib: mackay1992, ritter2018.

    Example:
        >>> posterior = Laplace().infer(model, episodes, seed=0, given=population)
        >>> posterior.sample_stats["log_evidence"]
    """

    structure: Structure = "full"
    draws: int = 1000
    steps: int = 200
    batch_size: int = 64
    population_draws: int = 1
    progress: Progress | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.draws, self.steps, self.batch_size, self.population_draws) < 1:
            raise InferenceError(
                "expected draws, steps, batch_size and population_draws of at least 1"
            )

    def infer(
        self, model: Model, episodes: EpisodeBatch, *, seed: int, given: Posterior | None = None
    ) -> Posterior:
        """Posterior of kind "variational"; see `bayesfs.contracts.Engine.infer`.

        Raises:
            InferenceError: there are too many latents for a dense precision.
            NotPositiveDefiniteError: the search ended where the density has no maximum.
        """
        generator = torch.Generator(episodes.support.device).manual_seed(seed)
        done = 0

        def fit(density: Potential, draws: int) -> Posterior:
            nonlocal done
            posterior = self._fit_batch(density, draws, generator, seed)
            done += len(density.episodes)
            if self.progress is not None:
                self.progress(done, len(episodes) * self.population_draws, "Laplace")
            return posterior

        return infer_in_batches(
            fit,
            model,
            episodes,
            given,
            draws=self.draws,
            batch_size=self.batch_size,
            population_draws=self.population_draws,
        )

    def _fit_batch(
        self, density: Potential, draws: int, generator: torch.Generator, seed: int
    ) -> Posterior:
        start = density.episodes.support.new_zeros(density.tasks, density.size)
        mode, gradient = maximise(density, start, steps=self.steps)
        factors = self._factors(density, mode)
        value, _ = density.value_and_gradient(mode.unsqueeze(1))
        log_det = torch.stack([f.log_det for f in factors]).sum(0)
        stats = {
            "log_evidence": value[:, 0] + 0.5 * (density.size * math.log(2 * math.pi) - log_det),
            "gradient": gradient,
            "ridge": torch.stack([f.ridge for f in factors]).amax(0),
        }
        shape = (density.tasks, draws, density.size)
        noise = torch.randn(shape, generator=generator, dtype=mode.dtype, device=mode.device)
        parts = torch.split(noise, [f.size for f in factors], -1)
        spread = torch.cat([f.spread(n) for f, n in zip(factors, parts, strict=True)], -1)
        z = mode.unsqueeze(1) + spread
        return density.posterior(z, kind="variational", seed=seed, sample_stats=stats)

    def _factors(self, density: Potential, mode: Tensor) -> list[Factor]:
        if self.structure == "kronecker":
            return [_site_factor(density, mode, block) for block in density.blocks.values()]
        everything = slice(0, density.size)
        if self.structure == "diagonal":
            return [diagonal_factor(density, mode, everything)]
        if density.size > MAX_DENSE:
            raise InferenceError(
                f"expected at most {MAX_DENSE} latents for a dense precision, got {density.size}; "
                "give a population, or use structure='kronecker'"
            )
        return [dense_factor(density, mode, everything)]


def _site_factor(density: Potential, mode: Tensor, block: Block) -> Factor:
    if block.standard and len(block.shape) == 2:
        return kronecker_factor(density, mode, block.slice, block.shape[0])
    return dense_factor(density, mode, block.slice)
