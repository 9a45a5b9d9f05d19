"""A population's posterior by adaptive importance sampling: `AdaptiveImportance`.

The posterior of a population is hard in a dozen latents alone, its scales: they correlate, are
skewed, and trade with each other (of the scatter of videos and that of frames the data know a
sum). Its many offsets stay about N(0, I). A mean field is then several times too narrow in the
scales, and no Gaussian fits. So a Gaussian is matched to the density first (`batch_and_match`):
correlated in the scales, independent in the offsets. It keeps the offsets, and the scales are
proposed from a Student's t q that learns from what it proposed. Each round r draws from its own
q_r; all draws so far are weighed together against the mixture of all that proposed them,

    w_i = p(x_i, o_i) / [ q(o_i) sum_r q_r(x_i) / rounds ],

which bounds the weight of a point that any of the rounds would have proposed, and the next t is
fitted to them. The draws are resampled by the weights, Pareto-smoothed, whose k-hat says whether
that is to be trusted.

All this is done in coordinates in which scales whose squares add up lie along an axis
(`bayesfs.inference.program.polar`). Neither k-hat nor anything else here sees what no round has
proposed.

Source: Cornuet, Marin, Mira and Robert (2012), Adaptive multiple importance sampling; the tempered
weights of the first fits: Koblents and Míguez (2015). refs.bib: cornuet2012, koblents2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._distributions.student import Student
from bayesfs._utils.ranges import Count, check_ranges
from bayesfs.errors import InferenceError
from bayesfs.inference.batch_and_match import Match, matched, portion
from bayesfs.inference.program.batches import infer_in_batches
from bayesfs.inference.program.closeness import resampled, worth
from bayesfs.inference.program.polar import Polar
from bayesfs.inference.program.potential import Potential
from bayesfs.inference.program.stein import stein_moments
from bayesfs.inference.program.streams import Streams
from bayesfs.inference.svi.svi import SVI
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior

MAX_OWN = 32
"""Latents that are not N(0, I) a priori at most: in more dimensions few proposals would count."""

OTHERWISE = 300
"""Steps of SVI where the density is not such a population's."""

BATCH = 32
"""Draws of a step of the match."""

WIDER = 1.3
"""Scale of the first t, in that of the matched Gaussian, which is narrower than the density."""

LEAST = 100
"""Draws that the weights of a fit are worth at least: they are tempered until they are."""

HALVINGS = 12
"""Of the interval that their power is looked for in."""

SCORED = 128
"""Draws whose score is asked for, for the Stein moments."""


@dataclass(frozen=True)
class AdaptiveImportance(Engine):
    """Gaussian offsets, and scales by adaptive importance sampling.

    It is for a population alone, as the objectives of `bayesfs.models.objectives` have it. Where
    latents of tasks stand beside it, and where none or more than `MAX_OWN` latents are not N(0, I)
    a priori, it is `SVI(steps=OTHERWISE)`, and k-hat says what that is worth.

    Diagnostics in `Posterior.sample_stats`:

        elbo (step,): ELBO of the matched Gaussian at each step, in nats.
        evidence_bound (1,): log of the mean weight, an estimate of the log evidence, in nats.
        khat (1,): Pareto k-hat of all weights; at most .7 passes.
        weight_ess (1,): draws that the weights are worth, 1 / sum w^2.
        stein_moments (1,): see `bayesfs.inference.program.stein`.

    Attributes:
        steps: of the match, 32 gradients each, at most.
        rounds: of proposals, at most; the t learns between them.
        proposals: draws of a round.
        worth: rounds end where the weights are worth so many draws.
        degrees: of freedom of the t.
        draws: posterior draws returned.

    Raises:
        InferenceError: a number is below 1.

    Example:
        >>> engine = AdaptiveImportance()
        >>> population = engine.infer(objective, train, seed=0)  # doctest: +SKIP
        >>> population.sample_stats["khat"]  # doctest: +SKIP
    """

    steps: Count = 60
    rounds: Count = 12
    proposals: Count = 400
    worth: Count = 400
    degrees: Count = 5
    draws: Count = 200

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
        own = density.own
        alone = all(block.level == "population" for block in density.blocks.values())
        if not alone or not 0 < len(own) <= MAX_OWN:
            return SVI(steps=OTHERWISE, draws=draws, khat_draws=draws).infer(
                density.model,
                density.episodes,
                seed=seed + branch,
                given=density.given,
                progress=progress,
            )
        target, streams = Polar(density), Streams.of(density, seed, branch)
        whole = self.steps * BATCH + self.rounds * self.proposals
        match = matched(
            target,
            own,
            density.episodes.support.new_zeros(density.size),
            steps=self.steps,
            batch=BATCH,
            streams=streams,
            progress=progress and (lambda done, _, text: progress(done * BATCH, whole, text)),
        )
        z, log_weight = self._weighed(target, match, own, streams, progress)
        scored = resampled(z, log_weight, SCORED)[0]
        z, stats = resampled(z, log_weight, draws)
        parts = [
            target.value_and_gradient(part) for part in torch.split(scored, portion(target), 1)
        ]
        score = torch.cat([part[1] for part in parts], 1)
        stats |= {"elbo": match.elbo, "stein_moments": stein_moments(scored, score)}
        z = target.latents(z)
        return density.posterior(z, kind="variational", seed=seed, sample_stats=stats)

    def _weighed(
        self,
        density: Polar,
        match: Match,
        own: Tensor,
        streams: Streams,
        progress: Progress | None,
    ) -> tuple[Tensor, Tensor]:
        """Draws of all rounds (1, draw, size), and their log weights (1, draw)."""
        generator = torch.Generator().manual_seed(streams.integers(2**31)[0])
        proposed = [Student(match.mean[own], WIDER * match.root, self.degrees)]
        done, kept, values = self.steps * BATCH, [], []
        for k in range(self.rounds):
            noise = streams.normal((self.proposals, density.size), match.mean)[0]
            z = match.mean + match.sd * noise
            z[:, own] = proposed[-1].draw(self.proposals, generator)
            log_offsets = -0.5 * noise.square() - match.sd.log() - 0.5 * math.log(2 * math.pi)
            log_offsets[:, own] = 0.0
            kept.append(z)
            values.append(_values(density, z) - log_offsets.sum(-1))
            x = torch.cat(kept)[:, own]
            log_q = torch.stack([q.log_density(x) for q in proposed]).logsumexp(0)
            log_weight = torch.cat(values) - log_q + math.log(len(proposed))
            done += self.proposals
            if progress is not None:
                whole = self.steps * BATCH + self.rounds * self.proposals
                progress(done, whole, f"round {k + 1}")
            if float(worth(log_weight.softmax(0))) >= self.worth:
                break
            weight = tempered(log_weight, min(LEAST, len(x) // 2))
            proposed.append(Student.fitted(x, weight, degrees=self.degrees))
        return torch.cat(kept).unsqueeze(0), log_weight.unsqueeze(0)


def tempered(log_weight: Tensor, least: float) -> Tensor:
    """Weights w^a / sum w^a of the largest a <= 1 at which they are worth `least` draws.

    Args:
        log_weight: (..., draw), some of each row finite.
        least: 1 / sum of their squares, at least; fewer than draws of a weight above 0.
    """

    def weight(power: Tensor) -> Tensor:
        return torch.where(torch.isfinite(log_weight), power * log_weight, -math.inf).softmax(-1)

    def enough(power: Tensor) -> Tensor:
        return (worth(weight(power)) >= least).unsqueeze(-1)

    high = torch.ones_like(log_weight[..., :1])
    low = torch.zeros_like(high)
    whole = enough(high)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        passes = enough(middle)
        low, high = torch.where(passes, middle, low), torch.where(passes, high, middle)
    return weight(torch.where(whole, 1.0, low))


def _values(density: Polar, z: Tensor) -> Tensor:
    """(draw,) log density of z (draw, size); -inf where it is none."""
    count, at_once = len(z), portion(density)
    whole = torch.cat([z, z[-1:].expand(-count % at_once, -1)])
    parts = [density.value(part.unsqueeze(0))[0] for part in torch.split(whole, at_once)]
    value = torch.cat(parts)[:count]
    return torch.where(torch.isfinite(value), value, -math.inf)
