"""Stein variational gradient descent, batched over tasks: `SVGD`.

Particles of every task move together to its posterior, along the direction in a kernel's space
that lowers their Kullback-Leibler divergence fastest. Kernels, and which one to use, are in
`bayesfs.inference.svgd.kernels`; the iteration is in `bayesfs.inference.svgd.flow`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from bayesfs._utils.ranges import Count, Positive, Several, check_ranges
from bayesfs.errors import InferenceError
from bayesfs.inference.program.batches import infer_in_batches
from bayesfs.inference.program.informed import PosteriorOrFuture, fit_informed
from bayesfs.inference.program.potential import Potential
from bayesfs.inference.program.streams import Streams
from bayesfs.inference.svgd.flow import Annealing, SteinSchedule, flow
from bayesfs.inference.svgd.kernels import LinearStein, SteinKernel
from bayesfs.inference.svgd.metric import IdentityMetric, Metric
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior


@dataclass(frozen=True)
class SVGD(Engine):
    """Interacting particles, many tasks at once, none of which moves another one's.

    Diagnostics in `Posterior.sample_stats`:

        ksd (check, task): kernelised Stein discrepancy under the kernel that moves the particles,
            every ten steps and at the end. It has no scale of its own; what counts is how far it
            fell.
        ksd_ratio (task,): squared discrepancy under `IMQ` at the end, as a multiple of what as
            many independent draws of the posterior would have: about 1 or less is good.
        stein_moments (task,): see `bayesfs.inference.program.stein`.
        latents_per_particle (task,): above one half `LinearStein` takes each latent apart: sds are
            then those given all other latents, and correlations are lost.

    Attributes:
        particles: per task.
        steps: at most; the second half decays.
        learning_rate: length of a step in units of the (non-centred) latents.
        kernel: see `bayesfs.inference.svgd.kernels`.
        precondition: move in coordinates in which the curvature, averaged over particles, is the
            identity, and start at the mode. Needed where latents are correlated or badly scaled;
            it costs some Hessians, which the non-centred latents of a head can do without.
        early_stopping: leave the constant-rate half once the discrepancy has stalled.
        annealing: for posteriors of several modes; start these without preconditioning.
        informed: move only what the support informs, where the model knows it; see
            `bayesfs.inference.program.informed`.
        completions: prior draws of the rest for each particle: the posterior then holds
            particles x completions draws.
        batch_size: tasks at a time; bounds the memory.
        population_draws: see `bayesfs.inference.svi.svi.SVI`; shares out the particles.

    Source: Liu and Wang (2016), algorithm 1; refs.bib: liu2016. Departures: the default kernel
    (`LinearStein`), preconditioning, and one step size per latent instead of one per particle and
    latent, so that particles remain exchangeable.

    Example:
        >>> posterior = SVGD(particles=100).infer(model, episodes, seed=0, given=population)
        ... # doctest: +SKIP
        >>> posterior.sample_stats["ksd_ratio"]  # doctest: +SKIP
    """

    particles: Several = 100
    steps: Count = 300
    learning_rate: Positive = 0.1
    kernel: SteinKernel = field(default_factory=LinearStein)
    precondition: bool = True
    early_stopping: bool = True
    annealing: Annealing | None = None
    informed: bool = True
    completions: Count = 10
    batch_size: Count = 32
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
        """Posterior of kind "particles"; see `bayesfs.protocols.Engine.infer`.

        Raises:
            InferenceError: a score is not finite, or there are too few particles for the kernel.
        """

        def fit_batch(density: Potential, particles: int, branch: int) -> PosteriorOrFuture:
            streams = Streams.of(density, seed, branch)

            def fit(density: Potential, particles: int) -> Posterior:
                return self._fit(density, max(particles, 2), streams, seed, progress)

            if not self.informed:
                return fit(density, particles)
            return fit_informed(
                fit, density, particles, streams=streams, completions=self.completions
            )

        return infer_in_batches(
            fit_batch,
            model,
            episodes,
            given,
            draws=self.particles,
            batch_size=self.batch_size,
            population_draws=self.population_draws,
            alike=("way", "shot", "frame"),
        )

    def _fit(
        self,
        density: Potential,
        particles: int,
        streams: Streams,
        seed: int,
        progress: Progress | None,
    ) -> Posterior:
        u, metric = start(density, particles, streams, precondition=self.precondition)
        flowed = flow(
            density,
            u,
            self.kernel,
            SteinSchedule(self.steps, self.learning_rate, self.early_stopping, self.annealing),
            metric=metric,
            blocks=tuple(density.blocks.values()),
            progress=progress,
        )
        stats = {
            "ksd": flowed.ksd,
            "ksd_ratio": flowed.ksd_ratio,
            "stein_moments": flowed.stein_moments,
            "latents_per_particle": flowed.ksd_ratio.new_full(
                flowed.ksd_ratio.shape, density.size / particles
            ),
        }
        return density.posterior(flowed.z, kind="particles", seed=seed, sample_stats=stats)


def start(
    density: Potential, particles: int, streams: Streams, *, precondition: bool = False
) -> tuple[Tensor, Metric | IdentityMetric]:
    """Where particles start (task, particle, size), and the coordinates that this is in.

    Independent draws from the prior; or, to precondition, from Laplace's approximation.
    """
    noise = streams.normal((particles, density.size), density.episodes.support)
    if all(block.standard for block in density.blocks.values()):
        prior = noise
    else:
        prior = density.prior_by_task(particles, streams.integers(2**31))
    return (noise, Metric.at_mode(density, prior)) if precondition else (prior, IdentityMetric())
