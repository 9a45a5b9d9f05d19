"""A log-linear pool of similarities whose weights each person's own videos correct.

Start with `SimilarityPool`. A population learnt in one world (rendered, turntable) misleads in
another: worlds differ several-fold in how sharply similarity tells objects apart, and in which
similarity does. What every world shares is the form. With the head scores h_m(x, k) of
`bayesfs.models.similarity.heads` for a frame x and class k of a task,

    u(x, k) = exp(a) sum_m w_m h_m(x, k),      w = softmax(log weights),
    log p(y = k | video) = log mean_f exp u(x_f, k) + exp(a - scale) b_k + const,
    b_k ~ N(0, class_sd^2 / n_k)

a: the person's log scale, `scale` that of the prior, w: how much each head is trusted, b_k: what
the n_k videos of class k leave open of its similarity, which counts as similarity does: where that
tells little, as with labels that are noise, neither would more videos. The mean over frames stands
inside the logarithm: somewhere in the video a frame shows the object, and the best frame says most;
frames that show nothing take little away. That is the likelihood of a mixture in which one frame,
nobody knows which, comes from the class, and it is what makes frames of one video count as one
video. A frame by itself, of a video of F, need not be that one: e_kf ~ N(0, frame_sd^2 (1 - 1/F))
is added to its logits and integrated out by the probit approximation,

    log p(y = k | frame) =
        (1 + pi/4 frame_sd^2 (1 - 1/F))^-1/2 (u(x, k) + exp(a - scale) b_k) + const,

which is the law of a video for its only frame.

A person's a and w are drawn from the population of people and, with probability `vague`, from a
wide prior instead, so that a foreign population can be left (a robust, meta-analytic-predictive
prior). They are corrected by the person's own support, by the exact leave-one-video-out score,

    p(a, w | D) proportional to p(a, w | population) prod_v p(y_v | x_v, D without v, a, w),

a generalised posterior, as importance weights of `CANDIDATES` draws of the prior. With one video
of each object nothing can be left out, and the prior decides.

Source: Genest and Zidek (1986) for logarithmic pools; Yao et al. (2022), Bayesian hierarchical
stacking; Schmidli et al. (2014) for the vague component; Bissiri, Holmes and Walker (2016) for
scores as likelihoods.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs._utils.ranges import NonNegative, Positive, Share, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.heads.linear import normal_nodes
from bayesfs.models.population_draws import drawn_posterior, each_value
from bayesfs.models.similarity.heads import HEADS, WithinScatter
from bayesfs.models.similarity.levels import Drawn, entropies, foreseen_gain
from bayesfs.models.similarity.scores import (
    FOLDS,
    LeftOut,
    Scatters,
    centred_cosines,
    left_out_scores,
    likeness_factor,
    query_scores,
    scatters_of,
)
from bayesfs.models.similarity.table_heads import (
    TABLE_HEADS,
    table_left_out_scores,
    table_query_scores,
)
from bayesfs.models.similarity.typicality import Typicality
from bayesfs.protocols import Approximable, Foresees, Hierarchical, KnowsTypical
from bayesfs.types import EpisodeBatch, Posterior

CANDIDATES = 4096
"""Draws of a person's scale and weights that the leave-one-out score chooses from, over all draws
of the population; at least `LEAST` for each of these."""

LEAST = 64

LEAST_BIASES = 16
"""Draws of the class biases at least, evenly spread, behind uncertainty by level."""

PROPOSED = 0.5, 0.25, 0.25
"""Shares of candidates from the population, the vague component, and one twice as wide."""

TELLS = 3.0
"""What one more video takes off an answer, over the information of its class's bias alone, which
all queries share: the video also shows the side that is asked. Of unsure answers in three
development worlds 3.6, 3.5 and 2.1 after one video of each thing, 5, 2 and 2 after more."""

Draws = Mapping[str, Tensor]
"""Site -> (draw, ...)."""

QueryUnit = Literal["frame", "video"]
UNITS: tuple[QueryUnit, QueryUnit] = ("frame", "video")

LEARNING = 32, 12
"""The same, and videos left out at most, where a population is learnt: gradients are smooth in the
population's sites at any number, and hundreds are asked for."""


@dataclass(frozen=True)
class Candidates:
    """Weighted draws of a person's scale and weights, before the person's videos are seen.

    Attributes:
        scale: (candidate, task) log scales.
        weight: (candidate, task, head) log weights.
        log_weight: (candidate, 1) log of the prior density over that of the proposal.
        of_population: (candidate, 1) probability that it is of the population, not vague.
    """

    scale: Tensor
    weight: Tensor
    log_weight: Tensor
    of_population: Tensor


@dataclass(frozen=True, kw_only=True)
class LogLinearPool(Foresees, Approximable, Hierarchical):
    """A pool of heads that a person's own videos weigh; which heads, a subclass says.

    Population sites: `scale_mean` ~ N(scale, scale_sd^2), the mean log scale of people, and
    `head_mean` ~ N(0, head_sd^2) for each head, their log weights. Task sites: `log_scale` ~
    (1 - vague) N(scale_mean, between^2) + vague N(scale, vague_sd^2), `head_log_weight` ~
    N(head_mean, head_between^2), and `class_bias` ~ N(0, class_sd^2 / videos of the class).

    Attributes:
        scale: prior mean of the log scale; heads are in units in which 0 suits on average.
        scale_sd: prior sd of the population's mean.
        between: sd of people's log scales about the population's mean. Development worlds had .4.
        head_sd: prior sd of the population's log weights.
        head_between: sd of people's log weights about those.
        class_sd: sd of what one video leaves open of its class's score, at the prior's scale.
        vague: prior probability that a person is not of the population.
        vague_sd: sd of the log scales of such people about `scale`.
        frame_sd: sd of what one frame of many leaves open of its video's score.
    """

    scale: float = 0.3
    scale_sd: Positive = 0.2
    between: Positive = 0.4
    head_sd: Positive = 0.3
    head_between: Positive = 1.0
    class_sd: Positive = 1.5
    vague: Share = 0.2
    vague_sd: Positive = 0.8
    frame_sd: NonNegative = 0.8

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    @abstractmethod
    def heads(self) -> tuple[str, ...]:
        """Names of the heads, in order."""

    @abstractmethod
    def query_scores(self, episodes: EpisodeBatch) -> Tensor:
        """(task, video, frame, way, head) scores of every query frame."""

    @abstractmethod
    def left_out_scores(self, episodes: EpisodeBatch, most: int = FOLDS) -> LeftOut | None:
        """Scores of support videos, each left out of the task; None where none can be.

        Args:
            episodes: T tasks; only their support is used.
            most: videos that are left out at most.
        """

    def heads_share(self, known: Tensor) -> Tensor:
        """(draw, task) share that the heads have in an answer, 1 unless another member has one.

        Args:
            known: (draw, task) probability that the person is of the population.
        """
        return torch.ones_like(known)

    def other_member(
        self, unit: QueryUnit, episodes: EpisodeBatch, population: Draws
    ) -> Tensor | None:
        """(draw, task, video[, frame], way) log probabilities by another member; none here.

        It has what the heads leave it of the answer. Padded classes have 0.

        Args:
            unit: whether single frames are asked, or whole videos.
            episodes: T tasks.
            population: sites, several draws of them or one.
        """
        return None

    @property
    def coords(self) -> Mapping[str, tuple[str, ...]]:
        """Axis -> names."""
        return {"head": self.heads}

    @property
    def population_dims(self) -> Mapping[str, tuple[str, ...]]:
        """Population site -> axes."""
        return {"scale_mean": (), "head_mean": ("head",)}

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes."""
        return {
            **self.population_dims,
            "log_scale": ("task",),
            "head_log_weight": ("task", "head"),
            "class_bias": ("task", "way"),
        }

    def sample_population(self, like: Tensor) -> dict[str, Tensor]:
        """Pyro program of the population sites; `like` gives dtype and device."""
        one, each = like.new_ones(()), like.new_ones(len(self.heads))
        return {
            "scale_mean": pyro.sample(
                "scale_mean", dist.Normal(self.scale * one, self.scale_sd * one)
            ),
            "head_mean": pyro.sample(
                "head_mean", dist.Normal(0.0 * each, self.head_sd * each).to_event(1)
            ),
        }

    def default_population(self, dim: int) -> Posterior:
        """Draws of the population's prior: what is believed before any other person was met."""
        z = normal_nodes(16, 1 + len(self.heads)).to(torch.float64)
        draws = {
            "scale_mean": self.scale + self.scale_sd * z[:, 0],
            "head_mean": self.head_sd * z[:, 1:],
        }
        return Posterior("exact", draws, dict(self.population_dims))

    def __call__(self, episodes: EpisodeBatch) -> None:
        """The Pyro program over the support: priors, and the leave-one-video-out score."""
        population = self.sample_population(episodes.support)
        left_out = self.left_out_scores(episodes)
        one = episodes.support.new_ones(())
        with pyro.plate("task", len(episodes), dim=-4):
            mean = population["scale_mean"]
            scale = pyro.sample("log_scale", dist.Normal(mean, self.between * one))
            pyro.factor("vague", self._log_vague(scale, mean))
            law = dist.Normal(population["head_mean"], self.head_between * one).to_event(1)
            weight = pyro.sample("head_log_weight", law)
            with pyro.plate("way", episodes.way, dim=-3):
                sd = self._bias_sd(episodes).to(one)[..., None, None]
                pyro.sample("class_bias", dist.Normal(0.0 * sd, sd))
            person = scale.reshape(1, -1), weight.reshape(1, -1, len(self.heads))
            score = self._left_out(left_out, *person)[0]
            pyro.factor("left_out", score[:, None, None, None])

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, frame, way) log p(y | x, theta_s) of each frame by itself."""
        scores = self.query_scores(episodes)[:, :, :, None]
        return self._given("frame", scores, episodes.query_mask[..., None], draws, episodes)

    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, way) log p(y | video, theta_s), whichever frame shows the class."""
        scores = self.query_scores(episodes)
        return self._given("video", scores, episodes.query_mask, draws, episodes)

    def log_labels(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log p(y | x, support, population) of frames and videos; no draw axis.

        A mixture over candidates of the person's scale and weights, with class biases integrated
        by the probit approximation: smooth in the population's sites, to learn those by.

        Returns:
            (task, video, frame, way) and (task, video, way), in nats; -inf for padded classes.
        """
        candidates, folds = LEARNING
        left_out = self.left_out_scores(episodes, folds)
        found = self._candidates(len(episodes), population, candidates)
        scale, weight = found.scale, found.weight
        log_weight = self._log_chance(found, left_out)
        scores = self.query_scores(episodes)
        spread = self._mean_variance(episodes.shot_mask.sum(-1).to(scale))
        one = {site: v[None] for site, v in population.items()}
        share = self.heads_share(found.of_population.expand(-1, len(episodes)))
        spread = (share * self._relative(scale)).square() * spread
        scale = scale + share.log()
        both = []
        for unit in UNITS:
            value, mask = scores, episodes.query_mask
            if unit == "frame":
                value, mask = scores[:, :, :, None], mask[..., None]
            logits = pooled(value, mask, scale, weight)
            trust = self._unit_trust(unit, episodes, logits)
            variance = spread.reshape(*share.shape, *[1] * (logits.ndim - 2))
            logits = trust * logits / (1.0 + 0.25 * math.pi * trust**2 * variance).sqrt()
            given = self._normalised(self._joined(logits, unit, episodes, one, share), episodes)
            lead = log_weight.reshape(*log_weight.shape, *[1] * (given.ndim - 2))
            padded = ~self._exists(episodes, given.ndim)  # -inf under every candidate
            total = (given.masked_fill(padded, 0.0) + lead).logsumexp(0)
            both.append(total.masked_fill(padded[0], -torch.inf))
        return both[0], both[1]

    def approximate(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Posterior:
        """Candidates of the prior, resampled by their leave-one-video-out scores.

        `sample_stats` holds, for each task, `borrowed`: the posterior probability that the person
        is of the population, not of the vague component; and `candidate_ess`: the effective number
        of candidates, over all draws of the population.

        Args:
            episodes: T tasks; only their support is used.
            population: site -> (population draw, ...).
            draws: number of draws for each population draw.
            seed: of the draws.
        """
        borrowed, size, count = [], [], _count(population)
        left_out = self.left_out_scores(episodes)

        def sample(value: dict[str, Tensor], noise: Noise) -> dict[str, Tensor]:
            found = self._candidates(len(episodes), value, count)
            scale, weight = found.scale, found.weight
            chance = self._log_chance(found, left_out).exp()
            borrowed.append((chance * found.of_population).sum(0))
            size.append(1.0 / chance.square().sum(0))
            chosen = _systematic(chance, draws, noise)  # (draw, task)
            task = torch.arange(len(episodes), device=chosen.device)
            bias = noise.normal(draws, "way", (), scale) * self._bias_sd(episodes).to(scale)
            return {
                "log_scale": scale[chosen, task],
                "head_log_weight": weight[chosen, task],
                "class_bias": bias,
            }

        posterior = drawn_posterior(
            "variational",
            self.dims,
            episodes,
            population,
            sample,
            draws=draws,
            seed=seed,
            even=True,
        )
        stats = {
            "borrowed": torch.stack(borrowed).mean(0),
            "candidate_ess": torch.stack(size).sum(0),
        }
        return replace(posterior, sample_stats=stats)

    def level_entropies(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Label entropies as one level after the other becomes known, at every draw.

        See `bayesfs.models.similarity.levels`; `bayesfs.uncertainty.by_level.by_level` makes parts
        of them.
        """
        tasks = [episodes.select([t]) for t in range(len(episodes))]
        drawn = [self._drawn(task, population, draws, seed) for task in tasks]
        frame, video = zip(*(map(entropies, each) for each in drawn), strict=True)
        return torch.cat(frame, 3), torch.cat(video, 3)

    def video_gain(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Tensor:
        """(task, video, way) expected fall of a query's entropy by one more video of each class.

        `TELLS` times `bayesfs.models.similarity.levels.foreseen_gain`; the same in every condition.
        """
        falls = []
        for t in range(len(episodes)):
            task = episodes.select([t])
            video = self._drawn(task, population, draws, seed)[1]
            bias = foreseen_gain(video, task.shot_mask.sum(-1).to(video.bias_sd))
            falls.append(TELLS * bias)
        return torch.cat(falls)

    def _drawn(
        self, task: EpisodeBatch, population: Mapping[str, Tensor], draws: int, seed: int
    ) -> tuple[Drawn, Drawn]:
        """Frames by themselves, and videos, under draws of all that the support leaves open."""
        noise = Noise.of(task, seed, even=True)
        left_out = self.left_out_scores(task)
        scores = self.query_scores(task)
        found_of: tuple[list[Tensor], ...] = ([], [])
        share_of: tuple[list[Tensor], ...] = ([], [])
        for value in each_value(population):
            found = self._candidates(1, value, _count(population))
            chance = self._log_chance(found, left_out).exp()
            chosen = _fixed(_systematic(chance, draws, noise)[:, 0])
            one = {site: v[None] for site, v in value.items()}
            share = self.heads_share(found.of_population[chosen])
            own = frame_logits(scores, found.scale[chosen] + share.log(), found.weight[chosen])
            factor = share * self._relative(found.scale[chosen])
            for place, unit in enumerate(UNITS):
                trust = self._unit_trust(unit, task, own)
                # what another member says of a video it says of each of its frames
                found_of[place].append(self._joined(trust * own, unit, task, one, share))
                share_of[place].append(factor[..., None] * trust[..., 0, 0])
        bias = _fixed(noise.normal(max(draws, LEAST_BIASES), "way", (), scores))
        frames, videos = (
            self._drawn_of(task, torch.stack(logits), bias, torch.stack(shares))
            for logits, shares in zip(found_of, share_of, strict=True)
        )
        return replace(frames, frames=frames.frames[..., None, :]), videos

    def _drawn_of(self, task: EpisodeBatch, logits: Tensor, bias: Tensor, share: Tensor) -> Drawn:
        """With (population draw, person draw, task, video, frame, way) logits."""
        logits = logits.masked_fill(~task.query_mask[..., None], -torch.inf)
        logits = logits.masked_fill(~task.way_mask[:, None, None], -torch.inf)
        return Drawn(logits, bias, self._bias_sd(task).to(logits), share, task.way_mask)

    def _relative(self, scale: Tensor) -> Tensor:
        """exp(a - scale) of log scales a: what a class's bias counts, beside the prior's scale."""
        return (scale - self.scale).exp()

    def _log_vague(self, scale: Tensor, mean: Tensor) -> Tensor:
        """Log of the mixture prior of log scales, relative to its first component."""
        known, vague = self._log_prior(scale, mean)
        own = dist.Normal(mean, mean.new_tensor(self.between)).log_prob(scale)
        relative: Tensor = torch.logaddexp(known, vague) - own
        return relative

    def _log_prior(self, scale: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Log joint densities of a log scale and its component: of the population, and vague."""
        own: Tensor = dist.Normal(mean, mean.new_tensor(self.between)).log_prob(scale)
        wide = dist.Normal(mean.new_tensor(self.scale), mean.new_tensor(self.vague_sd))
        vague: Tensor = wide.log_prob(scale)
        return math.log1p(-self.vague) + own, math.log(self.vague) + vague

    def _candidates(self, tasks: int, population: Mapping[str, Tensor], count: int) -> Candidates:
        """Quasi-Monte Carlo draws of a person's scale and weights, the same for every task.

        Scales are of a mixture with longer tails than the prior's, and weighted back.
        """
        like = population["scale_mean"]
        z = normal_nodes(count, 1 + len(self.heads)).to(like)
        part = (torch.arange(count, device=z.device) * 0.6180339887) % 1.0
        edges = torch.tensor(PROPOSED, dtype=torch.float64).cumsum(0)[:-1].to(part)
        part = torch.bucketize(part, edges)
        centre = torch.stack([like, *[like * 0.0 + self.scale] * 2])
        spread = self.between * torch.tensor([1.0, 2.0, 4.0]).to(like)
        scale = (centre + spread * z[:, :1]).gather(1, part[:, None])  # (candidate, 1)
        known, vague = self._log_prior(scale, like)
        proposed = dist.Normal(centre, spread).log_prob(scale) + torch.tensor(PROPOSED).log().to(z)
        prior = torch.logaddexp(known, vague)
        weight = population["head_mean"] + self.head_between * z[:, 1:]
        return Candidates(
            scale.expand(-1, tasks),
            weight[:, None].expand(-1, tasks, -1),
            prior - proposed.logsumexp(1, keepdim=True),
            (known - prior).exp(),
        )

    def _log_chance(self, found: Candidates, left_out: LeftOut | None) -> Tensor:
        """(candidate, task) log posterior probabilities, by the person's own videos."""
        score = self._left_out(left_out, found.scale, found.weight) + found.log_weight
        return score.log_softmax(0)

    def _left_out(self, left_out: LeftOut | None, scale: Tensor, weight: Tensor) -> Tensor:
        """(draw, task) sum of log p(y_v | x_v, D without v) over what can be left out."""
        if left_out is None:
            return scale * 0.0
        logits = pooled(left_out.scores, left_out.mask, scale, weight)
        spread = self._relative(scale).square()[..., None] * self._mean_variance(
            left_out.count.to(scale)
        )
        logits = logits / (1.0 + 0.25 * math.pi * spread).sqrt()[..., None]
        real = left_out.mask.any(-1)
        exists = (left_out.count > 0) | ~real[..., None]  # some class, for finite gradients
        log_p = logits.masked_fill(~exists, -torch.inf).log_softmax(-1)
        label = left_out.label[None, ..., None].expand(len(scale), -1, -1, 1)
        own = log_p.gather(-1, label)[..., 0]
        own = own.masked_fill(~real, 0.0)
        return own.sum(-1) * left_out.share.to(own)

    def _given(
        self, unit: QueryUnit, scores: Tensor, mask: Tensor, draws: Draws, episodes: EpisodeBatch
    ) -> Tensor:
        """(draw, task, video, ..., way) log label probabilities of each draw."""
        own, vague = self._log_prior(draws["log_scale"], draws["scale_mean"][:, None])
        share = self.heads_share((own - torch.logaddexp(own, vague)).exp())
        scale = draws["log_scale"] + share.log()
        logits = pooled(scores, mask, scale, draws["head_log_weight"])
        bias = draws["class_bias"] * (share * self._relative(draws["log_scale"]))[..., None]
        logits = logits + bias.reshape(*bias.shape[:2], *[1] * (logits.ndim - 3), -1)
        logits = self._unit_trust(unit, episodes, logits) * logits
        return self._normalised(self._joined(logits, unit, episodes, draws, share), episodes)

    def _joined(
        self,
        logits: Tensor,
        unit: QueryUnit,
        episodes: EpisodeBatch,
        population: Draws,
        share: Tensor,
    ) -> Tensor:
        """(draw, task, video, ..., way) logits of the heads with another member's, if any.

        Args:
            logits: (draw, task, video, ..., way) of the heads; of a video, also those of each frame
                that may be the one that shows the object.
            unit: as `other_member`.
            episodes: T tasks.
            population: sites, with the same draws or with one.
            share: (draw, task) that the heads have.
        """
        other = self.other_member(unit, episodes, population)
        if other is None:
            return logits
        if other.ndim < logits.ndim:
            other = other[..., None, :]
        rest = (1.0 - share).reshape(*share.shape, *[1] * (logits.ndim - share.ndim))
        return logits + rest * other

    def _normalised(self, logits: Tensor, episodes: EpisodeBatch) -> Tensor:
        exists = self._exists(episodes, logits.ndim)
        return logits.masked_fill(~exists, -torch.inf).log_softmax(-1)

    def _exists(self, episodes: EpisodeBatch, ndim: int) -> Tensor:
        """(1, task, ..., way) classes that are no padding."""
        return episodes.way_mask.reshape(1, len(episodes), *[1] * (ndim - 3), -1)

    def _unit_trust(self, unit: QueryUnit, episodes: EpisodeBatch, like: Tensor) -> Tensor:
        """(task, video, 1...) factor of logits (draw, task, video, ...); 1 of whole videos."""
        count = episodes.query_mask.sum(-1).clamp(min=1).to(like)
        if unit == "video":
            count = torch.ones_like(count)
        variance = self.frame_sd**2 * (1.0 - 1.0 / count)
        factor = (1.0 + 0.25 * math.pi * variance).rsqrt()
        return factor.reshape(*factor.shape, *[1] * (like.ndim - 3))

    def _bias_sd(self, episodes: EpisodeBatch) -> Tensor:
        """(task, way) sd of the class biases; padded classes have that of one video."""
        return self.class_sd / episodes.shot_mask.sum(-1).clamp(min=1).to(torch.float64).sqrt()

    def _mean_variance(self, count: Tensor) -> Tensor:
        """(...) mean variance of the biases of classes with (..., way) videos."""
        exists = count > 0
        each = torch.where(exists, self.class_sd**2 / count.clamp(min=1.0), 0.0)
        return each.sum(-1) / exists.sum(-1).clamp(min=1)


@dataclass(frozen=True)
class SimilarityPool(LogLinearPool, KnowsTypical):
    """Log-linear pool of similarity heads; full features, no projection.

    Features are taken at unit length; no projection is applied to them. Recording conditions are
    not told apart: what clutter changes, the scale and the weights take up.

    Attributes:
        scatter: of videos about their objects in other worlds; None for none, so that the head
            "whitened" is the centred cosine; or one for each user, by name, to learn from people
            whose own videos the scatter of all of them is of.
        typical: what is believed of similarities, to tell what shows nothing that was taught.

    Example:
        >>> model = SimilarityPool()
        >>> OwnApproximation().infer(model, task, seed=0, given=model.default_population(1280))
        ... # doctest: +SKIP
    """

    scatter: Scatters = None
    typical: Typicality = field(default_factory=Typicality)

    @property
    def heads(self) -> tuple[str, ...]:
        """Those of `bayesfs.models.similarity.heads`."""
        return HEADS

    def query_scores(self, episodes: EpisodeBatch) -> Tensor:
        """(task, video, frame, way, head) similarities of every query frame."""
        return query_scores(episodes, self.scatter)

    def left_out_scores(self, episodes: EpisodeBatch, most: int = FOLDS) -> LeftOut | None:
        """The same of support videos, each left out of the task."""
        return left_out_scores(episodes, self.scatter, most)

    def with_scatter(self, scatter: WithinScatter) -> SimilarityPool:
        """The model with this scatter of videos about their objects in other worlds."""
        return replace(self, scatter=scatter)

    def with_scatters(self, scatters: Mapping[str, WithinScatter]) -> SimilarityPool:
        """The model with a scatter for each user, which the user's own videos had no part in."""
        return replace(self, scatter=dict(scatters))

    def approximate(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Posterior:
        """As `LogLinearPool.approximate`, with more `sample_stats`.

        `exchangeable` is `exchangeability`; `alike_factor` is below 1 where objects taught by one
        video each are more alike than other people's, see `bayesfs.models.similarity.heads`.
        """
        found = super().approximate(episodes, population, draws=draws, seed=seed)
        more = {
            "exchangeable": self.exchangeability(episodes),
            "alike_factor": likeness_factor(episodes, self.scatter),
        }
        return replace(found, sample_stats={**found.sample_stats, **more})

    def typicality(self, episodes: EpisodeBatch, *, condition_known: bool = True) -> Tensor:
        """(task, video) p-values of `bayesfs.models.similarity.typicality.Typicality`."""
        scatters = scatters_of(episodes, self.scatter)
        like = None if scatters is None else [each.like for each in scatters]
        centred = centred_cosines(episodes, self.scatter)
        return self.typical.p_values(
            episodes, like, centred=centred, condition_known=condition_known
        )

    def exchangeability(self, episodes: EpisodeBatch) -> Tensor:
        """(task,) p-values that two videos of one thing are as alike as other people's are.

        NaN where other people's likeness is not known, or no class has two videos.
        """
        scatters = scatters_of(episodes, self.scatter)
        like = [math.nan] * len(episodes) if scatters is None else [s.like for s in scatters]
        return self.typical.likeness_p_values(episodes, like)


@dataclass(frozen=True, kw_only=True)
class TablePool(LogLinearPool):
    """Log-linear pool of classifiers of a table's rows: logistic regression, and a kernel's.

    For rows of numbers of which nothing else is known: no unit length, no other people's videos.
    Their common unit and origin do not matter; bring columns of different units to one first
    (`sklearn.preprocessing.StandardScaler`). Recording conditions are not told apart.

    Example:
        >>> model = TablePool()
        >>> OwnApproximation().infer(model, task, seed=0, given=model.default_population(4))
        ... # doctest: +SKIP
    """

    class_sd: Positive = 2.0
    vague_sd: Positive = 1.6
    frame_sd: NonNegative = 0.0

    @property
    def heads(self) -> tuple[str, ...]:
        """Those of `bayesfs.models.similarity.table_heads`."""
        return TABLE_HEADS

    def query_scores(self, episodes: EpisodeBatch) -> Tensor:
        """(task, video, frame, way, head) scores of every query frame."""
        return table_query_scores(episodes)

    def left_out_scores(self, episodes: EpisodeBatch, most: int = FOLDS) -> LeftOut | None:
        """The same of support videos, each left out of the task."""
        return table_left_out_scores(episodes, most)


def pooled(scores: Tensor, mask: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    """Log-linear pool of the heads, and the log of the mean over frames of its exponential.

    Args:
        scores: (task, ..., frame, way, head) head scores.
        mask: (task, ..., frame) frames that exist.
        scale: (draw, task) log scales.
        weight: (draw, task, head) log weights, up to a constant.

    Returns:
        (draw, task, ..., way) logits; 0 where there is no frame.
    """
    u = frame_logits(scores, scale, weight)
    none = ~mask.any(-1)
    if u.shape[-2] == 1:  # one frame is its own mean
        return u[..., 0, :].masked_fill(none[None, ..., None], 0.0)
    u = u.masked_fill_(~mask[None, ..., None], -torch.inf)  # it is ours, and large
    u = u.masked_fill_(none[None, ..., None, None], 0.0)
    frames = mask.sum(-1).clamp(min=1).to(u).log()
    total = u.logsumexp(-2) - frames[None, ..., None]
    return total.masked_fill(none[None, ..., None], 0.0)


def frame_logits(scores: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    """(draw, task, ..., way) u(x, k) of every frame; arguments as those of `pooled`."""
    trust = weight.softmax(-1) * scale.exp()[..., None]
    return torch.einsum("t...m,stm->st...", scores, trust.to(scores))


def _count(population: Mapping[str, Tensor]) -> int:
    """Candidates for each draw of the population; an even number, as nodes come in pairs."""
    return max(CANDIDATES // len(population["scale_mean"]) // 2 * 2, LEAST)


def _fixed(x: Tensor) -> Tensor:
    """The same numbers; a trace of a query's way takes them as such, not how they came about."""
    return torch.from_numpy(x.detach().cpu().numpy()).to(x.device)


def _systematic(chance: Tensor, draws: int, noise: Noise) -> Tensor:
    """(draw, task) candidates by systematic resampling, in random order.

    Args:
        chance: (candidate, task) probabilities.
        draws: number of candidates to choose, with repetition.
        noise: of the tasks.

    Source: Kitagawa (1996).
    """
    order = noise.uniform(draws, "task", (), chance).argsort(0)
    at = (order + noise.uniform(1, "task", (), chance)) / draws
    edges = chance.cumsum(0).T.contiguous()
    return torch.searchsorted(edges, at.T.contiguous()).T.clamp(max=len(chance) - 1)
