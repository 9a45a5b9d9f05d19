"""A population's posterior by adaptive importance sampling: `AdaptiveImportance`.

The posterior of a population is hard in a dozen latents alone, its scales: they correlate, are
skewed, and trade with each other (of the scatter of videos and that of frames the data know the
sum). Its many offsets stay about N(0, I). A mean field is then several times too narrow in the
scales, and no Gaussian fits. So the mean field keeps the offsets, and the scales are proposed
from a mixture q of Student's t that learns from what it proposed. Each round r draws from its own
q_r; all draws so far are weighed together against the mixture of all that proposed them,

    w_i = p(x_i, o_i) / [ q(o_i) sum_r q_r(x_i) / rounds ],

which bounds the weight of a point that any of the rounds would have proposed, and the next mixture
is fitted to them. The draws are resampled by the weights, Pareto-smoothed, whose k-hat says
whether that is to be trusted. Only values of the density are asked for, no gradients.

Neither k-hat nor anything else here sees what no round has proposed. In a toy in which three pairs
of scales trade, each with two arms, six rounds of 512 left out half of the mass at a k-hat of .5 in
half of the seeds, and the sd of a log scale came out half as wide as it is.

Source: Cornuet, Marin, Mira and Robert (2012), Adaptive multiple importance sampling; the tempered
weights of the first fits: Koblents and Míguez (2015). refs.bib: cornuet2012, koblents2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._distributions.student_mixture import StudentMixture
from bayesfs._utils.ranges import Count, check_ranges
from bayesfs.errors import InferenceError
from bayesfs.inference.program.batches import infer_in_batches
from bayesfs.inference.program.closeness import resampled
from bayesfs.inference.program.potential import Potential
from bayesfs.inference.program.stein import stein_moments
from bayesfs.inference.program.streams import Streams
from bayesfs.inference.svi.correlated import correlated_block
from bayesfs.inference.svi.elbo import Fit, Schedule, maximise_elbo
from bayesfs.inference.svi.guides import MeanField
from bayesfs.inference.svi.svi import START_SCALE, SVI
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior

MAX_OWN = 32
"""Latents that are not N(0, I) a priori at most: in more dimensions few proposals would count."""

CURVATURE_DRAWS = 128
"""Draws of the mean field whose scores give the first proposal, and at least four a latent."""

AT_ONCE = 16
"""Draws whose density is evaluated at a time; bounds the memory."""

LEAST = 100
"""Draws that the weights of a fit are worth at least: they are tempered until they are."""

HALVINGS = 12
"""Of the interval that their power is looked for in."""

SCORED = 128
"""Draws whose score is asked for, for the Stein moments: resampled by themselves, they repeat less
than the posterior's."""


@dataclass(frozen=True)
class AdaptiveImportance(Engine):
    """A mean field of the offsets, adaptive importance sampling of the scales.

    Given a population, and where none or more than `MAX_OWN` of the latents are not N(0, I) a
    priori, it is `SVI(steps, draws)`, and k-hat says what that is worth.

    Diagnostics in `Posterior.sample_stats`:

        elbo (step,): ELBO of each step of the mean field's fit, in nats.
        evidence_bound (1,): log of the mean weight, an estimate of the log evidence, in nats.
        khat (1,): Pareto k-hat of all weights; at most .7 passes.
        weight_ess (1,): draws that the weights are worth, 1 / sum w^2.
        stein_moments (1,): see `bayesfs.inference.program.stein`.

    Attributes:
        steps: gradient steps of the mean field at most.
        rounds: how often the mixture learns.
        proposals: draws of a round.
        components: of the mixture.
        degrees: of freedom of its components.
        draws: posterior draws returned.

    Raises:
        InferenceError: a number is below 1.

    Example:
        >>> engine = AdaptiveImportance()
        >>> population = engine.infer(objective, train, seed=0)  # doctest: +SKIP
        >>> population.sample_stats["khat"]  # doctest: +SKIP
    """

    steps: Count = 300
    rounds: Count = 6
    proposals: Count = 512
    components: Count = 1
    degrees: Count = 5
    draws: Count = 500

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
            InferenceError: the ELBO becomes infinite, or the model breaks a convention.
        """
        return infer_in_batches(
            lambda density, draws, branch: self._fit(density, draws, branch, seed, progress),
            model,
            episodes,
            given,
            draws=self.draws,
            batch_size=256,
            population_draws=1,
            alike=("way", "shot"),
        )

    def _fit(
        self, density: Potential, draws: int, branch: int, seed: int, progress: Progress | None
    ) -> Posterior:
        own = own_latents(density)
        if not density.joint or not 0 < len(own) <= MAX_OWN:
            return SVI(steps=self.steps, draws=draws, khat_draws=draws).infer(
                density.model,
                density.episodes,
                seed=seed + branch,
                given=density.given,
                progress=progress,
            )
        guide, like = MeanField(), density.episodes.support.new_zeros(1, density.size)
        whole = self.steps + self.rounds * self.proposals
        fit = maximise_elbo(
            density,
            guide,
            Schedule(self.steps, 0.1, 2, early_stopping=True),
            start=guide.start(like, START_SCALE),
            generator=torch.Generator().manual_seed(seed + branch),
            progress=progress and (lambda done, _, text: progress(done, whole, text)),
        )
        streams = Streams.of(density, seed, branch)
        z, log_weight = self._weighed(density, fit, own, streams, progress)
        scored = resampled(z, log_weight, SCORED)[0]
        z, stats = resampled(z, log_weight, draws)
        score = torch.cat([density.gradient(part) for part in torch.split(scored, AT_ONCE, 1)], 1)
        stats |= {"elbo": fit.elbo, "stein_moments": stein_moments(scored, score)}
        return density.posterior(z, kind="variational", seed=seed, sample_stats=stats)

    def _weighed(
        self,
        density: Potential,
        fit: Fit,
        own: Tensor,
        streams: Streams,
        progress: Progress | None,
    ) -> tuple[Tensor, Tensor]:
        """Draws of all rounds (1, draw, size), and their log weights (1, draw)."""
        mean, sd = (x.squeeze(0) for x in _moments(fit))
        generator = torch.Generator().manual_seed(streams.integers(2**31)[0])
        first = _start(density, fit, own, streams, self.degrees)
        whole = self.steps + self.rounds * self.proposals
        proposed, kept, values = [first], [], []
        for k in range(self.rounds):
            noise = streams.normal((self.proposals, density.size), mean)[0]
            z = mean + sd * noise
            z[:, own] = proposed[-1].draw(self.proposals, generator)
            log_offsets = -0.5 * noise.square() - sd.log() - 0.5 * math.log(2 * math.pi)
            log_offsets[:, own] = 0.0
            kept.append(z)
            values.append(_values(density, z) - log_offsets.sum(-1))
            x = torch.cat(kept)[:, own]
            log_q = torch.stack([q.log_density(x) for q in proposed]).logsumexp(0)
            log_weight = torch.cat(values) - log_q + math.log(len(proposed))
            if progress is not None:
                progress(self.steps + (k + 1) * self.proposals, whole, f"round {k + 1}")
            if k + 1 < self.rounds:
                proposed.append(self._learnt(x, log_weight, generator))
        return torch.cat(kept).unsqueeze(0), log_weight.unsqueeze(0)

    def _learnt(self, x: Tensor, log_weight: Tensor, generator: torch.Generator) -> StudentMixture:
        """The next round's mixture."""
        weight = tempered(log_weight, min(LEAST, len(x) // 2))
        start = torch.multinomial(weight.cpu(), self.components, generator=generator).to(x.device)
        return StudentMixture.fitted(
            x, weight, components=self.components, degrees=self.degrees, start=start
        )


def tempered(log_weight: Tensor, least: float) -> Tensor:
    """Weights w^a / sum w^a of the largest a <= 1 at which they are worth `least` draws.

    Args:
        log_weight: (draw,), some finite.
        least: 1 / sum of their squares, at least; fewer than draws of a weight above 0.
    """

    def weight(power: float) -> Tensor:
        return torch.where(torch.isfinite(log_weight), power * log_weight, -math.inf).softmax(0)

    def enough(power: float) -> bool:
        return float(1.0 / weight(power).square().sum()) >= least

    low, high = 0.0, 1.0
    if enough(high):
        return weight(high)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if enough(middle) else (low, middle)
    return weight(low)


def _moments(fit: Fit) -> tuple[Tensor, Tensor]:
    """(task, size) means and sds of a mean field."""
    mean, log_scale = fit.parameters.chunk(2, -1)
    return mean, log_scale.exp()


def _start(
    density: Potential, fit: Fit, own: Tensor, streams: Streams, degrees: int
) -> StudentMixture:
    """The first proposal: the Gaussian of `correlated_block`, with heavier tails."""
    mean, sd = _moments(fit)
    noise = streams.normal((max(CURVATURE_DRAWS, 4 * len(own)), density.size), mean)
    z = mean.unsqueeze(1) + sd.unsqueeze(1) * noise
    location, root = correlated_block(density, z, mean, sd, own)
    return StudentMixture(location.new_zeros(1), location, root, degrees)


def own_latents(density: Potential) -> Tensor:
    """(k,) numbers of the latents that are not N(0, I) a priori."""
    places = [
        place
        for block in density.blocks.values()
        if not block.standard
        for place in range(block.start, block.stop)
    ]
    return torch.tensor(places, dtype=torch.long, device=density.episodes.support.device)


def _values(density: Potential, z: Tensor) -> Tensor:
    """(draw,) log density of z (draw, size); -inf where it is none."""
    count = len(z)
    whole = torch.cat([z, z[-1:].expand(-count % AT_ONCE, -1)])
    parts = [density.value(part.unsqueeze(0))[0] for part in torch.split(whole, AT_ONCE)]
    value = torch.cat(parts)[:count]
    return torch.where(torch.isfinite(value), value, -math.inf)
