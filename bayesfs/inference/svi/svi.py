"""Stochastic variational inference, batched over tasks: `SVI`.

Without a population to learn, tasks are independent and each has its own guide; they are fitted
`batch_size` at a time, all in the same tensor operations. With population sites to learn there is
one guide over everything. `bayesfs.inference.svi.autoguides.PyroSVI` runs Pyro's own guides
instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bayesfs._distributions.student import with_heavy_tails
from bayesfs._utils.ranges import Count, Natural, Positive, check_ranges
from bayesfs.errors import InferenceError
from bayesfs.inference.program.batches import infer_in_batches
from bayesfs.inference.program.closeness import closeness
from bayesfs.inference.program.informed import PosteriorOrFuture, fit_informed
from bayesfs.inference.program.potential import Potential
from bayesfs.inference.program.streams import Streams
from bayesfs.inference.program.whiten import Whitened, is_worthwhile
from bayesfs.inference.svi.elbo import Fit, Schedule, maximise_elbo
from bayesfs.inference.svi.guides import Guide, LowRank, MeanField
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior

START_SCALE = 0.4
"""Standard deviation that guides start from; the prior of a non-centred latent has 1."""

PROPOSALS = 4
"""Draws of a guide for each one that is kept, where they are resampled."""

DEGREES = 7
"""Degrees of freedom of such draws at least."""


@dataclass(frozen=True)
class SVI(Engine):
    """Variational inference with one guide per task, which no other task of a batch moves.

    Diagnostics in `Posterior.sample_stats`:

        elbo (step,): ELBO of each step, summed over tasks, in nats.
        evidence_bound (task,): ELBO at the end, a lower bound of log p(support).
        khat (task,): Pareto k-hat of importance weights p / q. Below 0.7 the guide is close
            enough for importance sampling; above, rely on the predictive only as far as another
            engine confirms it.
        repeats (task,), where corrected: draws for each that the weights are worth; at most 1.
        stein_moments (task,): how far the draws' score is from what that of the posterior has to
            be, see `bayesfs.inference.program.stein`; at most 1 passes.

    Attributes:
        guide: variational family: `MeanField`, `LowRank`, `FullRank` or `Flow`.
        steps: gradient steps at most.
        learning_rate: rate of Adam, in units of the (non-centred) latents.
        particles: draws per gradient step.
        early_stopping: leave the constant-rate half early once the ELBO has stopped growing.
        draws: posterior draws returned.
        khat_draws: how many of the draws give khat and evidence_bound; 0 leaves both out.
        corrected: draw four times as many with heavier tails, and resample them by their
            Pareto-smoothed weights p / q in tasks where k-hat is at most .7, so that the guide's
            own error goes. Not with `LowRank`, whose draws have more noise than latents.
        informed: fit only what the support informs, where the model knows it; see
            `bayesfs.inference.program.informed`.
        batch_size: tasks at a time; bounds the memory.
        population_draws: 1 conditions on the mean of a given population; more carry that many of
            its draws through, at so many times the cost.

    Example:
        >>> posterior = SVI(steps=500).infer(model, episodes, seed=0, given=population)
        ... # doctest: +SKIP
        >>> posterior.sample_stats["khat"]  # doctest: +SKIP
    """

    guide: Guide = field(default_factory=MeanField)
    steps: Count = 600
    learning_rate: Positive = 0.1
    particles: Count = 2
    early_stopping: bool = True
    draws: Count = 1000
    khat_draws: Natural = 1000
    corrected: bool = False
    informed: bool = True
    batch_size: Count = 256
    population_draws: Count = 1

    def __post_init__(self) -> None:
        check_ranges(self, InferenceError)
        if self.corrected and isinstance(self.guide, LowRank):
            raise InferenceError("corrected=True needs a guide with as much noise as latents")

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
            InferenceError: the ELBO becomes infinite, or the model breaks a convention.
        """

        def fit_batch(density: Potential, draws: int, branch: int) -> PosteriorOrFuture:
            streams = Streams.of(density, seed, branch)

            def fit(density: Potential, draws: int) -> Posterior:
                return self._fit(density, draws, streams, branch, seed, progress)

            if not self.informed:
                return fit(density, draws)
            return fit_informed(fit, density, draws, streams=streams)

        return infer_in_batches(
            fit_batch,
            model,
            episodes,
            given,
            draws=self.draws,
            batch_size=self.batch_size,
            population_draws=self.population_draws,
            alike=("way", "shot"),
        )

    def _fit(
        self,
        density: Potential,
        draws: int,
        streams: Streams,
        branch: int,
        seed: int,
        progress: Progress | None,
    ) -> Posterior:
        like = density.episodes.support.new_zeros(density.tasks, density.size)
        target: Potential | Whitened = density
        start = self.guide.start(like, START_SCALE)
        whiten = self.guide.whiten
        if is_worthwhile(density) if whiten is None else whiten:
            target = Whitened.at_mode(density, like)
            start = torch.where(target.has_mode[:, None], self.guide.start(like, 1.0), start)
        compared = draws * PROPOSALS if self.corrected else min(draws, self.khat_draws)
        whole = self.steps + compared // self.particles
        fit = maximise_elbo(
            target,
            self.guide,
            Schedule(self.steps, self.learning_rate, self.particles, self.early_stopping),
            start=start,
            generator=torch.Generator().manual_seed(seed + branch),
            progress=_part_of(progress, whole),
        )
        return sample_guide(
            density,
            target,
            self.guide,
            fit,
            draws=draws,
            khat_draws=self.khat_draws,
            corrected=self.corrected,
            streams=streams,
            seed=seed,
            progress=_part_of(progress, whole, after=self.steps, each=self.particles),
        )


def _part_of(
    progress: Progress | None, whole: int, *, after: int = 0, each: int = 1
) -> Progress | None:
    """Progress of a part, told as progress of the whole; `each` of its units are one of these."""
    if progress is None:
        return None
    return lambda done, _, message: progress(after + done // each, whole, message)


def sample_guide(
    density: Potential,
    target: Potential | Whitened,
    guide: Guide,
    fit: Fit,
    *,
    draws: int,
    khat_draws: int,
    streams: Streams,
    seed: int,
    corrected: bool = False,
    progress: Progress | None = None,
) -> Posterior:
    """Posterior drawn from fitted guides, with their diagnostics.

    Args:
        density: the model's density.
        target: the density that the guides were fitted to: the same, or its whitened form.
        guide: family.
        fit: its parameters, and the history of the ELBO.
        draws: draws per task.
        khat_draws: how many of them give the diagnostics.
        corrected: resample them from four times as many, see `SVI`.
        streams: source of the noise.
        seed: recorded in the posterior.
        progress: called now and then with (draws, all draws, message).
    """
    parameters = fit.parameters
    proposals = draws * (PROPOSALS if corrected else 1)
    noise = streams.normal((proposals, guide.noise_size(target.size)), parameters)
    if corrected:
        noise, log_ratio = heavier(noise)
    z = guide.draw(parameters, noise)
    stats = {"elbo": fit.elbo}
    latents = density.own if target is density else torch.arange(target.size, device=z.device)
    if corrected:
        log_q = guide.log_density(parameters, noise) + log_ratio
        made = closeness(target, z, log_q, latents=latents, resampled=draws, progress=progress)
        z = made.pop("z")
        stats |= made
    elif khat_draws:
        log_q = guide.log_density(parameters, noise[:, :khat_draws])
        stats |= closeness(target, z[:, :khat_draws], log_q, latents=latents, progress=progress)
    z = target.unwhiten(z) if isinstance(target, Whitened) else z
    return density.posterior(z, kind="variational", seed=seed, sample_stats=stats)


def heavier(noise: Tensor) -> tuple[Tensor, Tensor]:
    """Normal noise made Student's t, whose tails reach beyond those of most posteriors.

    It has max(`DEGREES`, size) degrees of freedom, so that the spread of |t| stays near that of |e|
    in many dimensions.

    Args:
        noise: (task, draw, size) standard normal.

    Returns:
        t, and (task, draw) log density of t under Student's t less that under N(0, I).
    """
    size = noise.shape[-1]
    degrees = max(DEGREES, size)
    t = with_heavy_tails(noise, degrees)
    length = t.square().sum(-1)
    constant = math.lgamma((degrees + size) / 2) - math.lgamma(degrees / 2)
    constant += 0.5 * size * math.log(2 / degrees)
    return t, constant - 0.5 * (degrees + size) * torch.log1p(length / degrees) + 0.5 * length
