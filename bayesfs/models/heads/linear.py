"""A Bayesian softmax head per task, whose scales are learnt across tasks: `HierarchicalHead`.

Discriminative: it models labels given embeddings, and learns nothing from unlabelled frames.
Where frames of a video are to count as evidence about where a class lies, use the generative
`bayesfs.models.gaussian.hierarchy` instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import pyro
import pyro.distributions as dist
import scipy
import torch
from pyro import poutine
from torch import Tensor

from bayesfs._utils.ranges import NonNegative, Positive, at_least, check_ranges, even
from bayesfs.errors import ShapeError
from bayesfs.models.heads.informed import informed_head
from bayesfs.models.heads.logits import from_linear, linear_logits
from bayesfs.protocols import Lift, LinearHead, LinearLogits, Reducible, TaskNormal
from bayesfs.types import EpisodeBatch, Posterior

MASKED_LOGIT = -1e9
"""Logit of a padded class inside the program: finite, so that no gradient is 0 * inf."""


@dataclass(frozen=True)
class HierarchicalHead(LinearHead, Reducible):
    r"""Softmax head with a hierarchy over population, task, class and video; non-centred.

    For frame f of video v of task t, with classes k:

        w_tk   = m_t + s_t r * z_tk,              z_tk ~ N(0, I_D)       class weights
        m_t    = m_0 + s_m z_t,                   z_t  ~ N(0, I_D)       task mean
        s_t    = s_0 exp(scale_spread e_t),       e_t  ~ N(0, 1)         task scale
        u_vk   = s_v z_vk,                        z_vk ~ N(0, 1)         video offset
        y_v | x_f ~ Categorical(softmax_k(w_tk . x_f + u_vk)).

    Population: m_0 ~ N(0, mean_sd^2 I_D), s_m ~ HalfNormal(mean_scale),
    s_0 ~ LogNormal(log weight_scale, weight_scale_sd),
    relevance r_d ~ LogNormal(0, relevance_spread), s_v ~ HalfNormal(video_scale).

    All frames of a video share u_v, and the F frames of a video enter with the exponent
    min(F, effective_frames) / F: a video counts as at most `effective_frames` independent
    observations. With 1 (the default), repeating every frame changes nothing, and uncertainty
    shrinks with videos only. A still picture is a video of one frame.

    A softmax does not change when all classes move together, so data never inform m_t and m_0:
    they keep their priors and cancel in every prediction. They are there for reading w as a
    whole; `task_mean=False` leaves them out and gives the same predictive with fewer latents.

    A query video's own offset is integrated out of every prediction with `nodes` quasi-Monte
    Carlo points (shifted Sobol, in pairs of opposite sign), dealt to the classes in order of their
    logits, so that relabelling the classes permutes the result exactly.

    Attributes:
        weight_scale: prior median of s_0, in logits per unit of feature.
        weight_scale_sd: prior sd of its log.
        scale_spread: prior sd of log s_t about log s_0.
        relevance_spread: prior sd of log r_d; 0 fixes r = 1.
        video_scale: prior scale of s_v in logits; 0 removes the video offset.
        task_mean: whether m_t and m_0 are in the program.
        mean_sd: prior sd of m_0.
        mean_scale: prior scale of s_m.
        effective_frames: number of independent observations that one video can count as.
        nodes: integration points for the offset of a query video; even.

    Example:
        >>> model = HierarchicalHead(video_scale=0.0)
        >>> posterior = engine.infer(model, episodes, seed=0, given=model.default_population(64))
        ... # doctest: +SKIP
    """

    weight_scale: Positive = 5.0
    weight_scale_sd: Positive = 1.0
    scale_spread: NonNegative = 0.5
    relevance_spread: NonNegative = 0.3
    video_scale: NonNegative = 1.0
    task_mean: bool = True
    mean_sd: Positive = 1.0
    mean_scale: Positive = 1.0
    effective_frames: Positive = 1.0
    nodes: Annotated[int, at_least(2), even()] = 16

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes; the axis `logit` has one entry per class of the task."""
        dims: dict[str, tuple[str, ...]] = {"population_scale": ()}
        if self.relevance_spread:
            dims["relevance"] = ("feature",)
        if self.video_scale:
            dims["offset_scale"] = ()
        if self.task_mean:
            dims |= {"population_mean": ("feature",), "mean_scale": ()}
            dims["task_mean_raw"] = ("task", "feature")
        dims |= {"task_scale_raw": ("task",), "weight_raw": ("task", "way", "feature")}
        if self.video_scale:
            dims["offset_raw"] = ("task", "way", "shot", "logit")
        return dims

    def __call__(self, episodes: EpisodeBatch) -> None:
        """The Pyro program over the support; see the class for its equations."""
        x = episodes.support
        tasks, ways, shots, frames, dim = x.shape
        sites = self._sample_population(x)
        with pyro.plate("task", tasks, dim=-4):
            sites["task_scale_raw"] = pyro.sample("task_scale_raw", _normal(x)).reshape(tasks)
            if self.task_mean:
                raw = pyro.sample("task_mean_raw", _normal(x, dim))
                sites["task_mean_raw"] = raw.reshape(tasks, dim)
            with pyro.plate("way", ways, dim=-3):
                raw = pyro.sample("weight_raw", _normal(x, dim))
                sites["weight_raw"] = raw.reshape(tasks, ways, dim)
                with pyro.plate("shot", shots, dim=-2):
                    offset = self._sample_offset(sites, x)
                    with pyro.plate("frame", frames, dim=-1):
                        self._observe(episodes, self.weights(sites), offset)

    def weights(self, draws: Mapping[str, Tensor]) -> Tensor:
        """(draw, task, way, feature) class weights w, in logits per unit of feature.

        Args:
            draws: draws of the head's sites, population sites included.
        """
        scale = (
            draws["population_scale"][..., None]
            * (self.scale_spread * draws["task_scale_raw"]).exp()
        )
        w = scale[..., None, None] * draws["weight_raw"]
        if self.relevance_spread:
            w = w * draws["relevance"][..., None, None, :]
        if self.task_mean:
            shift = draws["mean_scale"][..., None, None] * draws["task_mean_raw"]
            w = w + (draws["population_mean"][..., None, :] + shift)[..., None, :]
        return w

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, frame, way): log p(y | x, theta_s), video offset integrated out."""
        logits = self._query_logits(draws, episodes)[..., None, :]
        one = logits.new_ones(())
        return self._integrate(logits, one, draws, episodes.way_mask[:, None, None])

    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, way): log p(y | all frames, theta_s); the frames share one offset."""
        logits = self._query_logits(draws, episodes)
        weight = self.exponent(episodes.query_mask).to(logits)[..., None] * episodes.query_mask
        return self._integrate(logits, weight[..., None], draws, episodes.way_mask[:, None])

    def informed(
        self, episodes: EpisodeBatch, given: Posterior
    ) -> tuple[HierarchicalHead, EpisodeBatch, Posterior, Lift] | None:
        """The part that the support informs; see `bayesfs.models.heads.informed`."""
        return informed_head(self, episodes, given)

    def linear_logits(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> LinearLogits:
        """The head for Gibbs sampling; see `bayesfs.protocols.LinearHead`."""
        return linear_logits(self, episodes, population)

    def from_linear(
        self,
        e: Tensor,
        z: Tensor,
        u: Tensor,
        episodes: EpisodeBatch,
        normal: TaskNormal,
    ) -> dict[str, Tensor]:
        """Sites of the program; see `bayesfs.protocols.LinearHead`."""
        return from_linear(self, e, z, u, episodes, normal)

    def default_population(self, dim: int) -> Posterior:
        """Prior medians of the population sites as one exact draw: infer a task without any other.

        Args:
            dim: number of features.
        """
        values = {
            "population_scale": torch.tensor(self.weight_scale),
            "relevance": torch.ones(dim),
            "offset_scale": torch.tensor(0.6745 * self.video_scale),
            "population_mean": torch.zeros(dim),
            "mean_scale": torch.tensor(0.6745 * self.mean_scale),
        }
        dims = {name: d for name, d in self.dims.items() if "task" not in d}
        draws = {name: values[name][None] for name in dims}
        return Posterior.of_own(kind="exact", draws=draws, dims=dims)

    def _sample_population(self, x: Tensor) -> dict[str, Tensor]:
        dim, one = x.shape[-1], x.new_ones(())
        law = dist.LogNormal(math.log(self.weight_scale) * one, self.weight_scale_sd * one)
        sites = {"population_scale": pyro.sample("population_scale", law)}
        if self.relevance_spread:
            spread = dist.LogNormal(x.new_zeros(dim), self.relevance_spread * one).to_event(1)
            sites["relevance"] = pyro.sample("relevance", spread)
        if self.video_scale:
            prior = dist.HalfNormal(self.video_scale * one)
            sites["offset_scale"] = pyro.sample("offset_scale", prior)
        if self.task_mean:
            mean = dist.Normal(x.new_zeros(dim), self.mean_sd * x.new_ones(dim)).to_event(1)
            sites["population_mean"] = pyro.sample("population_mean", mean)
            prior = dist.HalfNormal(self.mean_scale * one)
            sites["mean_scale"] = pyro.sample("mean_scale", prior)
        return sites

    def _sample_offset(self, sites: Mapping[str, Tensor], x: Tensor) -> Tensor | float:
        """(task, way, shot, 1, logit) video offsets; inside the "shot" plate."""
        if not self.video_scale:
            return 0.0
        raw: Tensor = pyro.sample("offset_raw", _normal(x, x.shape[1]))
        return sites["offset_scale"] * raw

    def _observe(self, episodes: EpisodeBatch, w: Tensor, offset: Tensor | float) -> None:
        mask = episodes.support_mask
        by_class = w @ episodes.support.flatten(1, 3).mT  # (task, class, frame): the quicker order
        logits = by_class.mT.reshape(*mask.shape, -1) + offset
        logits = logits.masked_fill(~episodes.way_mask[:, None, None, None], MASKED_LOGIT)
        label = torch.arange(mask.shape[1], device=mask.device)[:, None, None].expand(mask.shape)
        exponent = self.exponent(mask).to(w)[..., None]
        with poutine.mask(mask=mask), poutine.scale(scale=exponent):
            pyro.sample("label", dist.Categorical(logits=logits), obs=label)

    def exponent(self, mask: Tensor) -> Tensor:
        """Exponent of each frame's likelihood: (..., frame) mask -> (...), in double precision."""
        frames = mask.sum(-1, dtype=torch.float64).clamp(min=1)
        return frames.clamp(max=self.effective_frames) / frames

    def _query_logits(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, frame, way) logits without offsets, `MASKED_LOGIT` for padding."""
        missing = sorted(set(self.dims) - set(draws))
        if missing:
            raise ShapeError(
                f"expected draws of {sorted(self.dims)}, missing {missing}; "
                "was the population left out?"
            )
        w = self.weights(draws).to(episodes.query)
        logits = torch.einsum("stkd,tvfd->stvfk", w, episodes.query)
        return logits.masked_fill(~episodes.way_mask[:, None, None], MASKED_LOGIT)

    def _integrate(
        self, logits: Tensor, weight: Tensor, draws: Mapping[str, Tensor], exists: Tensor
    ) -> Tensor:
        """Log E_u prod_f softmax(logits_f + u)_k ^ weight_f, normalised over k.

        Args:
            logits: (draw, ..., frame, way).
            weight: exponents, broadcast to (..., frame, 1).
            draws: for the scale of u.
            exists: classes that exist, broadcast to (..., way).
        """
        order = (weight * logits).sum(-2, keepdim=True).argsort(-1, descending=True)
        ranked = logits.gather(-1, order.expand(logits.shape))
        total = torch.full_like(ranked[..., 0, :], -math.inf)
        for u in self._offsets(draws, ranked):
            term = (weight * (ranked + u).log_softmax(-1)).sum(-2)
            total = torch.logaddexp(total, term)
        result = total.gather(-1, order[..., 0, :].argsort(-1))
        return result.masked_fill(~exists, -math.inf).log_softmax(-1)

    def _offsets(self, draws: Mapping[str, Tensor], logits: Tensor) -> list[Tensor]:
        """Integration points for the offset, each broadcast to (draw, ..., way)."""
        if not self.video_scale:
            return [logits.new_zeros(())]
        scale = draws["offset_scale"].to(logits).reshape(-1, *[1] * (logits.ndim - 1))
        return [scale * node for node in normal_nodes(self.nodes, logits.shape[-1]).to(logits)]


def normal_nodes(nodes: int, dim: int) -> Tensor:
    """(nodes, dim) quasi-Monte Carlo points for E f(u), u ~ N(0, I), in pairs of opposite sign.

    Sobol points, shifted by multiples of the golden ratio, mapped by the normal quantile and
    scaled to unit variance in each dimension. The first columns do not depend on `dim`.

    Source: Owen (2013), Monte Carlo theory, methods and examples, chapter 17 (rotation).
    """
    golden = (math.sqrt(5.0) - 1.0) / 2.0
    shift = torch.arange(1, dim + 1, dtype=torch.float64) * golden
    pairs = nodes // 2
    engine = scipy.stats.qmc.Sobol(dim, scramble=False)
    points = engine.random_base2(max(0, (pairs - 1).bit_length()))
    sobol = torch.from_numpy(points[:pairs])  # of SciPy, so that they can be drawn within vmap
    half = torch.special.ndtri(((sobol + shift) % 1.0).clamp(1e-6, 1 - 1e-6))
    half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])


def _normal(x: Tensor, *event: int) -> dist.Distribution:
    return dist.Normal(x.new_zeros(event), x.new_ones(event)).to_event(len(event))
