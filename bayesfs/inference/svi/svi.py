"""Stochastic variational inference, batched over tasks: `SVI`.

Without a population to learn, tasks are independent and each has its own guide; they are fitted
`batch_size` at a time, all in the same tensor operations. With population sites to learn there is
one guide over everything. `bayesfs.inference.svi.autoguides.PyroSVI` runs Pyro's own guides
instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bayesfs._distributions.importance import smoothed
from bayesfs.errors import InferenceError
from bayesfs.inference.program.batches import infer_in_batches
from bayesfs.inference.program.potential import Potential
from bayesfs.inference.program.stein import stein_moments
from bayesfs.inference.program.streams import Streams
from bayesfs.inference.program.whiten import Whitened, is_worthwhile
from bayesfs.inference.svi.elbo import Fit, Schedule, maximise_elbo
from bayesfs.inference.svi.guides import Guide, MeanField
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior

START_SCALE = 0.4
"""Standard deviation that guides start from; the prior of a non-centred latent has 1."""

DENSITY_DRAWS = 16
"""Draws whose densities are evaluated at a time for the diagnostics; bounds the memory."""


@dataclass(frozen=True)
class SVI(Engine):
    """Variational inference with one guide per task, which no other task of a batch moves.

    Diagnostics in `Posterior.sample_stats`:

        elbo (step,): ELBO of each step, summed over tasks, in nats.
        evidence_bound (task,): ELBO at the end, a lower bound of log p(support).
        khat (task,): Pareto k-hat of importance weights p / q. Below 0.7 the guide is close
            enough for importance sampling; above, rely on the predictive only as far as another
            engine confirms it.
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
        batch_size: tasks at a time; bounds the memory.
        population_draws: 1 conditions on the mean of a given population; more carry that many of
            its draws through, at so many times the cost.

    Example:
        >>> posterior = SVI(steps=500).infer(model, episodes, seed=0, given=population)
        ... # doctest: +SKIP
        >>> posterior.sample_stats["khat"]  # doctest: +SKIP
    """

    guide: Guide = field(default_factory=MeanField)
    steps: int = 600
    learning_rate: float = 0.1
    particles: int = 2
    early_stopping: bool = True
    draws: int = 1000
    khat_draws: int = 200
    batch_size: int = 256
    population_draws: int = 1

    def __post_init__(self) -> None:
        counts = (self.steps, self.particles, self.draws, self.batch_size, self.population_draws)
        if min(counts) < 1 or self.learning_rate <= 0:
            raise InferenceError(
                "expected steps, particles, draws, batch_size, population_draws and learning_rate "
                f"above 0, got {counts} and {self.learning_rate}"
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
        """Posterior of kind "variational"; see `bayesfs.protocols.Engine.infer`.

        Raises:
            InferenceError: the ELBO becomes infinite, or the model breaks a convention.
        """
        return infer_in_batches(
            lambda density, draws, branch: self._fit_batch(density, draws, branch, seed, progress),
            model,
            episodes,
            given,
            draws=self.draws,
            batch_size=self.batch_size,
            population_draws=self.population_draws,
            alike=("way", "shot"),
        )

    def _fit_batch(
        self,
        density: Potential,
        draws: int,
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
        fit = maximise_elbo(
            target,
            self.guide,
            Schedule(self.steps, self.learning_rate, self.particles, self.early_stopping),
            start=start,
            generator=torch.Generator().manual_seed(seed + branch),
            progress=progress,
        )
        return sample_guide(
            density,
            target,
            self.guide,
            fit,
            draws=draws,
            khat_draws=self.khat_draws,
            streams=Streams.of(density, seed, branch),
            seed=seed,
        )


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
) -> Posterior:
    """Posterior drawn from fitted guides, with their diagnostics.

    Args:
        density: the model's density.
        target: the density that the guides were fitted to: the same, or its whitened form.
        guide: family.
        fit: its parameters, and the history of the ELBO.
        draws: draws per task.
        khat_draws: how many of them give the diagnostics.
        streams: source of the noise.
        seed: recorded in the posterior.
    """
    parameters = fit.parameters
    noise = streams.normal((draws, guide.noise_size(target.size)), parameters)
    z = guide.draw(parameters, noise)
    stats = {"elbo": fit.elbo}
    if khat_draws:
        some = torch.split(z[:, :khat_draws].detach(), DENSITY_DRAWS, 1)
        values, scores = zip(*(_with_score(target, part) for part in some), strict=True)
        log_p = torch.cat(values, 1)
        log_weight = log_p - guide.log_density(parameters, noise[:, :khat_draws])
        stats |= {
            "evidence_bound": log_weight.mean(1),
            "khat": pareto_khat(log_weight),
            "stein_moments": stein_moments(z[:, :khat_draws].detach(), torch.cat(scores, 1)),
        }
    if isinstance(target, Whitened):
        z = target.unwhiten(z)
    return density.posterior(z, kind="variational", seed=seed, sample_stats=stats)


def _with_score(target: Potential | Whitened, z: Tensor) -> tuple[Tensor, Tensor]:
    """(task, draw) log density, and its gradient (task, draw, size)."""
    with torch.enable_grad():
        point = z.requires_grad_()
        value = target.log_density(point)
        (score,) = torch.autograd.grad(value.sum(), point)
    return value.detach(), score


def pareto_khat(log_weight: Tensor) -> Tensor:
    """(task, draw) log importance weights -> (task,) Pareto k-hat.

    See `bayesfs._distributions.importance.smoothed` for what it is where no tail can be fitted.
    """
    each = [smoothed(weights)[1] for weights in log_weight.double().cpu().numpy()]
    return log_weight.new_tensor(each)
