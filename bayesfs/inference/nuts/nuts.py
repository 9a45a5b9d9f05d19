"""The no-U-turn sampler (NUTS) for every task at once: `NUTS`.

The model's Pyro program is recorded and translated to JAX (`bayesfs.inference.nuts.translate`); all
chains of all tasks of a batch then run in lockstep in one compiled function
(`bayesfs.inference.nuts.lockstep`), adapted by NumPyro's own step size and mass matrix schedule.
The compiled function is used again for every batch and every model call of the same shapes.
`bayesfs.inference.nuts.pyro_nuts.PyroNUTS` runs Pyro's sampler instead, as a second reference.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._utils.ranges import Count, Share, at_least, check_ranges, from_to
from bayesfs.errors import InferenceError
from bayesfs.inference.nuts.chains import Run, Sampler, safe_workers
from bayesfs.inference.nuts.lockstep import DEPTHS
from bayesfs.inference.nuts.pyro_nuts import PyroNUTS
from bayesfs.inference.nuts.translate import precision_of, translate
from bayesfs.inference.program.batches import Axis, alike_groups, infer_in_batches
from bayesfs.inference.program.informed import fit_informed
from bayesfs.inference.program.potential import Potential
from bayesfs.inference.program.streams import Streams
from bayesfs.inference.program.whiten import Whitened, is_worthwhile
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior

ALIKE: tuple[Axis, ...] = ("way", "shot")
"""What tasks of a batch have equally many of: a latent more would be another trajectory."""

SUPERCHAIN = "superchain"
"""Statistic (draw,): number of the point that the draw's chain started at."""

Depth = Annotated[int, from_to(1, DEPTHS)]


@dataclass(frozen=True)
class NUTS(Engine):
    """The no-U-turn sampler with a diagonal mass matrix, all tasks and chains in lockstep.

    Chains start from independent draws of the prior, so that R-hat means something. Many short
    ones (`chains=64, draws=20`) start together in a few superchains: nested R-hat compares these,
    and so asks whether the starts are forgotten, where R-hat would ask for long chains.

    Diagnostics in `Posterior.sample_stats`, each (draw, task); the draws are chain-major, and
    R-hat, bulk and tail ESS, MCSE and BFMI are computed from them by
    `bayesfs.diagnostics.convergence`:

        diverging: whether the trajectory's energy error became huge.
        energy: the Hamiltonian, for BFMI.
        acceptance_rate: mean Metropolis probability along the trajectory.
        n_steps: leapfrog steps.
        step_size: of the chain, after warm-up.
        superchain (draw,): which of the `superchains` the draw's chain belongs to, where they are
            set.

    Attributes:
        warmup: transitions that adapt step sizes and mass matrices, and are discarded.
        draws: draws kept in each chain.
        chains: chains per task.
        superchains: points that they start at, equally many chains at each; None gives each chain
            a point of its own.
        target_accept: acceptance rate that the step size is adapted to.
        max_depth: trajectories have at most 2^max_depth - 1 steps; at most 10.
        warmup_depth: the same in the first two fifths of warm-up, where one long tree would hold
            up all chains; the rest adapts to trees as they will be.
        batch_size: tasks in lockstep; bounds the memory. 8 tasks of 4 chains fit a core's cache.
        workers: batches that run at a time; None means one per core, where that is safe.
        whiten: sample in coordinates whitened by the mode and its curvature, which do away with
            scales and correlations; None does so where latents are not N(0, I) a priori. See
            `bayesfs.inference.program.whiten`.
        informed: sample only what the support informs, where the model knows it, and draw the
            rest from the prior: the same posterior in fewer latents. See
            `bayesfs.inference.program.informed`.
        population_draws: see `bayesfs.inference.svi.svi.SVI`.

    Source: see `bayesfs.inference.nuts.lockstep`; adaptation as in Stan, by NumPyro; superchains as
    in Margossian et al. (2024), refs.bib: margossian2024.

    Example:
        >>> posterior = NUTS(warmup=500, draws=500).infer(model, episodes, seed=0, given=population)
        ... # doctest: +SKIP
        >>> posterior.sample_stats["diverging"].any()  # doctest: +SKIP
    """

    reference: ClassVar[bool] = True

    warmup: Count = 500
    draws: Count = 500
    chains: Count = 4
    superchains: Annotated[int, at_least(2)] | None = None
    target_accept: Share = 0.8
    max_depth: Depth = DEPTHS
    warmup_depth: Depth = 4
    batch_size: Count = 8
    workers: int | None = None
    whiten: bool | None = None
    informed: bool = True
    population_draws: Count = 1

    def __post_init__(self) -> None:
        check_ranges(self, InferenceError)
        if self.superchains and self.chains % self.superchains:
            raise InferenceError(
                f"expected chains to be a multiple of superchains, got {self.chains} and "
                f"{self.superchains}"
            )

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
            InferenceError: the model has no translation to JAX, or its density is not finite
                where a chain starts.
        """
        whole = _whole_batches(model, episodes, given, self.batch_size)
        done = _Progress(progress)
        with ThreadPoolExecutor(self.workers or safe_workers()) as pool:
            posterior = infer_in_batches(
                lambda density, draws, branch: self._fit(pool, density, draws, branch, seed, done),
                model,
                whole,
                given,
                draws=self.draws * self.chains,
                batch_size=self.batch_size,
                population_draws=self.population_draws,
                alike=ALIKE,
            )
        posterior = _first_tasks(posterior, len(episodes)) if whole is not episodes else posterior
        if self.superchains is None:
            return posterior
        length = posterior.num_draws // posterior.chains * (self.chains // self.superchains)
        together = torch.arange(posterior.num_draws) // length
        return posterior.changed(sample_stats={**posterior.sample_stats, SUPERCHAIN: together})

    def stand_in(self) -> Engine:
        """Pyro's own sampler with the same lengths, which runs a program as it stands."""
        return PyroNUTS(
            warmup=self.warmup,
            draws=self.draws,
            chains=self.chains,
            target_accept=self.target_accept,
            max_depth=self.max_depth,
        )

    def _fit(
        self,
        pool: Executor,
        density: Potential,
        draws: int,
        branch: int,
        seed: int,
        done: _Progress,
    ) -> Posterior | Future[Posterior]:
        streams = Streams.of(density, seed, branch)

        def submit(density: Potential, draws: int) -> Future[Posterior]:
            return self._submit(pool, density, draws, streams, seed, done)

        if not self.informed:
            return submit(density, draws)
        return fit_informed(submit, density, draws, streams=streams)

    def _submit(
        self,
        pool: Executor,
        density: Potential,
        draws: int,
        streams: Streams,
        seed: int,
        done: _Progress,
    ) -> Future[Posterior]:
        """Record and compile here, sample in a thread: Pyro's tracing is not safe in threads."""
        like, kept = density.episodes.support, -(-draws // self.chains)
        done.expect(self.warmup + kept)
        whiten = is_worthwhile(density) if self.whiten is None else self.whiten
        origin = like.new_zeros(density.tasks, density.size)
        target = Whitened.at_mode(density, origin) if whiten else None
        program, data = translate(target or density, like)
        points = self.superchains or self.chains
        start = density.prior_by_task(points, streams.integers(2**31))
        start = start.repeat_interleave(self.chains // points, 1)
        if not torch.isfinite(density.value_and_gradient(start)[0]).all():
            raise InferenceError("the log density is not finite at draws from the prior")
        start = target.whiten(start) if target else start
        sampler = Sampler(
            program, self.warmup, self.target_accept, self.warmup_depth, self.max_depth
        )
        with precision_of(like):
            run = Run.prepare(sampler, data, start.cpu().numpy(), streams.integers(2**31))
        return pool.submit(self._sample, run, density, target, kept, seed, done)

    def _sample(
        self,
        run: Run,
        density: Potential,
        target: Whitened | None,
        draws: int,
        seed: int,
        done: _Progress,
    ) -> Posterior:
        like = density.episodes.support
        with precision_of(like):  # a setting of the thread
            chains = run.draw(draws, done)
        z = _flat(chains.position, like).movedim(0, 1)
        return density.posterior(
            target.unwhiten(z) if target else z,
            kind="mcmc",
            seed=seed,
            chains=self.chains,
            sample_stats={name: _flat(v, like) for name, v in chains.statistics.items()},
        )


class _Progress:
    """Adds up the transitions of batches that run side by side."""

    def __init__(self, callback: Progress | None) -> None:
        self._callback = callback
        self._lock = Lock()
        self._done = self._total = 0

    def expect(self, transitions: int) -> None:
        """A further batch, of so many transitions."""
        self._total += transitions

    def __call__(self, transitions: int) -> None:
        """So many transitions of some batch are made."""
        with self._lock:
            self._done += transitions
            if self._callback is not None:
                self._callback(self._done, self._total, "NUTS")


def _whole_batches(
    model: Model, episodes: EpisodeBatch, given: Posterior | None, batch_size: int
) -> EpisodeBatch:
    """The tasks, and behind them those that fill the batches of each shape, which are repeated.

    So one compiled sampler does all tasks of a shape.
    """
    joint = given is None and any("task" not in axes for axes in model.dims.values())
    more = [
        group[-1]
        for group in alike_groups(episodes, ALIKE)
        if len(group) > batch_size
        for _ in range(-len(group) % batch_size)
    ]
    return episodes if joint or not more else episodes.select([*range(len(episodes)), *more])


def _first_tasks(posterior: Posterior, tasks: int) -> Posterior:
    draws = {
        site: value.narrow(1 + posterior.dims[site].index("task"), 0, tasks)
        if "task" in posterior.dims[site]
        else value
        for site, value in posterior.draws.items()
    }
    stats = {name: value[:, :tasks] for name, value in posterior.sample_stats.items()}
    coords = {
        axis: names[:tasks] if axis == "task" else names for axis, names in posterior.coords.items()
    }
    return posterior.changed(draws=draws, sample_stats=stats, coords=coords)


def _flat(value: NDArray[Any], like: Tensor) -> Tensor:
    """(draw, task, chain, ...) -> (chain-major draw, task, ...)."""
    tensor = torch.from_numpy(np.array(value)).to(like.device)
    return tensor.movedim(2, 0).flatten(0, 1)
