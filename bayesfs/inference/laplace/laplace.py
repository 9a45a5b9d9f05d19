"""Laplace's approximation, batched over tasks: `Laplace`.

    p(z | data) ~ N(mode, H^-1),    H = -Hessian of log p(z, data) at the mode,
    log p(data) ~ log p(mode, data) + (size / 2) log 2 pi - (1 / 2) log |H|,

in the unconstrained space of `bayesfs.inference.program.potential`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from bayesfs._utils.ranges import Count, Natural, Several, check_ranges
from bayesfs.errors import InferenceError
from bayesfs.inference.laplace.factors import (
    Factor,
    dense_factor,
    diagonal_factor,
    kronecker_factor,
)
from bayesfs.inference.laplace.nested import (
    Pinned,
    correlated_noise,
    laplace_evidence,
    nested_laplace,
)
from bayesfs.inference.program.batches import infer_in_batches
from bayesfs.inference.program.closeness import closeness
from bayesfs.inference.program.curvature import maximise
from bayesfs.inference.program.density import Density
from bayesfs.inference.program.potential import Potential
from bayesfs.inference.program.sites import Block
from bayesfs.inference.program.streams import Streams
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior

Structure = Literal["full", "kronecker", "diagonal"]

MAX_DENSE = 8192
"""Largest number of latents for a dense precision (256 MB per task in single precision)."""


@dataclass(frozen=True)
class Laplace(Engine):
    """A Gaussian at the mode, with the curvature there.

    Diagnostics in `Posterior.sample_stats`:

        log_evidence (task,): Laplace's estimate of log p(support), in nats.
        gradient (task,): largest absolute derivative at the mode; far from 0 means no mode.
        ridge (task,): added to the precision's diagonal to make it positive definite.
        khat, stein_moments, evidence_bound (task,): without a grid, how close it is; see
            `bayesfs.inference.program.closeness`.

    Attributes:
        structure: "full": one dense precision per task. "kronecker": independent sites; the
            weights of a head (a standard normal site with two axes) get
            I + A (x) B, with A over classes and B over features: see
            `bayesfs.inference.laplace.factors`. "diagonal": independent latents.
        grid: name of a site with one standard normal latent per task, to be integrated over a grid
            instead: the log scale of a head, whose joint mode is far from the bulk. See
            `bayesfs.inference.laplace.nested`.
        nodes: points of that grid.
        draws: posterior draws returned.
        khat_draws: how many of the draws are held against the density, where there is no grid; 0
            leaves the diagnostics out.
        steps: L-BFGS iterations at most.
        batch_size: tasks at a time; bounds the memory.
        population_draws: see `bayesfs.inference.svi.svi.SVI`.

    Source: MacKay (1992), A practical Bayesian framework for backpropagation networks; Ritter,
    Botev and Barber (2018), A scalable Laplace approximation, for the Kronecker form.
    refs.bib: mackay1992, ritter2018.

    Example:
        >>> engine = Laplace(grid="task_scale_raw")
        >>> posterior = engine.infer(model, episodes, seed=0, given=population)  # doctest: +SKIP
        >>> posterior.sample_stats["log_evidence"]  # doctest: +SKIP
    """

    structure: Structure = "full"
    grid: str | None = None
    nodes: Several = 15
    draws: Count = 1000
    khat_draws: Natural = 1000
    steps: Count = 200
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
            InferenceError: there are too many latents for a dense precision.
            NotPositiveDefiniteError: the search ended where the density has no maximum.
        """
        done = 0

        def fit(density: Potential, draws: int, branch: int) -> Posterior:
            nonlocal done
            posterior = self._fit_batch(density, draws, Streams.of(density, seed, branch), seed)
            done += len(density.episodes)
            if progress is not None:
                progress(done, len(episodes) * self.population_draws, "Laplace")
            return posterior

        return infer_in_batches(
            fit,
            model,
            episodes,
            given,
            draws=self.draws,
            batch_size=self.batch_size,
            population_draws=self.population_draws,
            alike=("way", "shot"),
        )

    def _fit_batch(self, density: Potential, draws: int, streams: Streams, seed: int) -> Posterior:
        like = density.episodes.support.new_zeros(density.tasks, density.size)
        if self.grid is None:
            z, stats = self._plain(density, draws, streams, like)
        else:
            z, stats = nested_laplace(
                density,
                _grid_index(density, self.grid),
                self._factors,
                nodes=self.nodes,
                steps=self.steps,
                draws=draws,
                streams=streams,
                like=like,
            )
        return density.posterior(z, kind="variational", seed=seed, sample_stats=stats)

    def _plain(
        self, density: Potential, draws: int, streams: Streams, like: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        mode, gradient = maximise(density, like, steps=self.steps)
        factors = self._factors(density, mode)
        noise = streams.normal((draws, density.size), like)
        z = mode.unsqueeze(1) + correlated_noise(factors, noise)
        stats = {
            "log_evidence": laplace_evidence(density, mode, factors),
            "gradient": gradient,
            "ridge": torch.stack([f.ridge for f in factors]).amax(0),
        }
        if self.khat_draws:
            some = noise[:, : self.khat_draws]
            constant = sum((f.log_det for f in factors), like.new_zeros(len(like)))
            constant = constant - density.size * math.log(2 * math.pi)
            log_q = 0.5 * (constant.unsqueeze(1) - some.square().sum(-1))
            stats |= closeness(density, z[:, : self.khat_draws], log_q, latents=density.own)
        return z, stats

    def _factors(self, density: Density, mode: Tensor) -> list[Factor]:
        if self.structure == "kronecker":
            return [_site_factor(density, mode, block) for block in _blocks(density)]
        everything = slice(0, density.size)
        if self.structure == "diagonal":
            return [diagonal_factor(density, mode, everything)]
        if density.size > MAX_DENSE:
            raise InferenceError(
                f"expected at most {MAX_DENSE} latents for a dense precision, got {density.size}; "
                "give a population, or use structure='kronecker'"
            )
        return [dense_factor(density, mode, everything)]


def _blocks(density: Density) -> list[Block]:
    """Blocks of a potential, also where one latent of it is pinned."""
    if isinstance(density, Potential):
        return list(density.blocks.values())
    if not isinstance(density, Pinned):
        raise InferenceError(f"expected a potential, got {type(density).__name__}")
    blocks = [b for b in _blocks(density.density) if b.start != density.index]
    return [
        replace(b, start=b.start - 1, stop=b.stop - 1) if b.start > density.index else b
        for b in blocks
    ]


def _grid_index(density: Potential, site: str) -> int:
    block = density.blocks.get(site)
    if block is None or block.stop - block.start != 1 or not block.standard:
        fit = [n for n, b in density.blocks.items() if b.stop - b.start == 1 and b.standard]
        raise InferenceError(
            f"expected grid to name a site with one N(0, 1) latent per task, one of {fit}, "
            f"got {site!r}"
        )
    return block.start


def _site_factor(density: Density, mode: Tensor, block: Block) -> Factor:
    if block.standard and len(block.shape) == 2:
        return kronecker_factor(density, mode, block.slice, block.shape[0])
    return dense_factor(density, mode, block.slice)
