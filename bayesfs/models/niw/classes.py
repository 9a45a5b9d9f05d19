"""Normal-inverse-Wishart classes: mean and covariance unknown, their prior learnt across users.

Start with `NIWClasses`, which integrates a class's mean and covariance out (Student-t predictive);
`NIWMode` plugs their posterior mode in. Both have the same Pyro program and population.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs._linalg.jitter import jittered_cholesky
from bayesfs._utils.ranges import Positive, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.gaussian.families import FLOOR, spectrum_log
from bayesfs.models.gaussian.labels import by_video, mixed
from bayesfs.models.niw.posterior import (
    ClassPrior,
    MeanFrames,
    NIWPosterior,
    PrecisionNormal,
    condition_niw,
    mode_density,
    niw_log_evidence,
    query_frames,
    query_videos,
    sample_labels,
    sample_niw,
    student_density,
    support_frames,
)
from bayesfs.models.population_draws import drawn_posterior, each_value
from bayesfs.protocols import Conjugate
from bayesfs.types import EpisodeBatch, LabelDraws, Posterior, Predictive

CLUTTER = math.exp(0.5)
"""Median of what clutter multiplies the sd of a video's mean by."""


@dataclass(frozen=True)
class NIWClasses(Conjugate):
    """Normal-inverse-Wishart classes; the video is the unit.

    The mean frame of a video v of n frames of class k, recorded in condition q:

        x_v = o_q + r_q mu_k + s_qn e_v,   e_v ~ N(0, Sigma_k),   s_qn^2 = v_q^2 + f_q^2 / n,
        Sigma_k ~ IW(D + 1 + dof, dof S),   mu_k | Sigma_k ~ N(0, Sigma_k / kappa),

    so that E Sigma_k = S, a diagonal that follows the features' spectrum as in `PowerLaw`:
    S_d = scale^2 w_d, w_d proportional to s_d^(2 exponent). r and v are 1 for clean. A large `dof`
    says that classes have one covariance. Classes are independent given the population: there is
    no task effect, which would not be conjugate. The frames' scatter about their mean is left out.

    Population sites: `offset_raw` ~ N(0, I) with o = offset_scale s_d offset_raw, `loading` (r of
    clutter), `clutter` (v of clutter), `frame` (f), `kappa`, `dof`, all log-normal, `scale` ~
    HalfNormal(scale), `exponent`.

    Task sites, non-centred: Sigma^-1 = P P' with P = (dof S)^(-1/2) L, where L is lower triangular
    with L_ii^2 = (nu - i) `precision_raw`_i, a Gamma of mean 1 (i from 0), and L_ij ~ N(0, 1) below
    (`lower_raw`); mu = P^-T `mean_raw` / kappa^(1/2).

    Attributes:
        spectrum: sd of each feature over the train frames; None for equal sds.
        loading: prior median of the clutter loading.
        loading_sd: prior sd of its log.
        clutter: prior median of v in clutter.
        clutter_sd: prior sd of its log.
        frame: prior median of f, in both conditions.
        frame_sd: prior sd of its log.
        kappa: prior median of kappa, in videos.
        kappa_sd: prior sd of its log.
        dof: prior median of dof, in multiples of the number of features.
        dof_sd: prior sd of its log.
        scale: prior scale of the root of the total variance.
        exponent: prior mean of the power of the spectrum.
        exponent_sd: prior sd of that power.
        offset_scale: prior sd of the offsets in units of the features' sd.
        most_frames: n is cut to this: neighbouring frames are near copies, and repeating the
            frames of a video must teach nothing.

    Source: Murphy (2007), Conjugate Bayesian analysis of the Gaussian distribution, section 9;
    Zhang et al. (2021), Shallow Bayesian meta learning for real-world few-shot recognition
    (MetaQDA), whose frames, however, count as independent shots.

    Example:
        >>> posterior = Exact().infer(model, episodes, seed=0, given=population)  # doctest: +SKIP
    """

    spectrum: tuple[float, ...] | None = None
    loading: Positive = 0.5
    loading_sd: Positive = 0.5
    clutter: Positive = CLUTTER
    clutter_sd: Positive = 0.5
    frame: Positive = 1.0
    frame_sd: Positive = 0.5
    kappa: Positive = 0.3
    kappa_sd: Positive = 1.0
    dof: Positive = 1.0
    dof_sd: Positive = 1.0
    scale: Positive = 1.0
    exponent: float = 0.6
    exponent_sd: Positive = 0.2
    offset_scale: Positive = 0.1
    most_frames: Positive = 8.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes; `pair` counts the entries below the diagonal, row by row."""
        return {
            **self.population_dims,
            "precision_raw": ("task", "way", "feature"),
            "lower_raw": ("task", "way", "pair"),
            "mean_raw": ("task", "way", "feature"),
        }

    @property
    def population_dims(self) -> Mapping[str, tuple[str, ...]]:
        """Population site -> axes."""
        scalars = ("loading", "clutter", "kappa", "dof", "scale", "exponent")
        return {
            "offset_raw": ("condition", "feature"),
            "frame": ("condition",),
            **dict.fromkeys(scalars, ()),
        }

    def fit_to(self, spectrum: tuple[float, ...]) -> Self:
        """The same model for features whose sds over the train frames are `spectrum`."""
        return replace(self, spectrum=spectrum)

    def sample_population(self, like: Tensor) -> dict[str, Tensor]:
        """Pyro program of the population sites; `like` (..., feature) gives size and dtype."""
        one, dim = like.new_ones(()), like.shape[-1]
        wide, two = like.new_ones(2, dim), like.new_ones(2)
        laws = {
            "offset_raw": dist.Normal(0.0 * wide, wide).to_event(2),
            "frame": dist.LogNormal(math.log(self.frame) * two, self.frame_sd * two).to_event(1),
            "loading": dist.LogNormal(math.log(self.loading) * one, self.loading_sd * one),
            "clutter": dist.LogNormal(math.log(self.clutter) * one, self.clutter_sd * one),
            "kappa": dist.LogNormal(math.log(self.kappa) * one, self.kappa_sd * one),
            "dof": dist.LogNormal(math.log(self.dof * dim) * one, self.dof_sd * one),
            "scale": dist.HalfNormal(self.scale * one),
            "exponent": dist.Normal(self.exponent * one, self.exponent_sd * one),
        }
        return {site: pyro.sample(site, law) for site, law in laws.items()}

    def prior(self, population: Mapping[str, Tensor], dim: int) -> ClassPrior:
        """Population parameters of one draw, without draw axis, as the algebra takes them."""
        log_sd = spectrum_log(self.spectrum, dim, population["scale"])
        weight = (2.0 * population["exponent"] * log_sd).softmax(-1) + FLOOR
        sd = log_sd.exp() if self.spectrum else log_sd.exp() / dim**0.5
        dof, one = population["dof"], torch.ones_like(population["loading"])
        return ClassPrior(
            offset=self.offset_scale * sd * population["offset_raw"],
            loading=torch.stack([one, population["loading"]]),
            video=torch.stack([one, population["clutter"]]),
            frame=population["frame"],
            psi=dof * population["scale"].square() * weight,
            nu=dim + 1 + dof,
            kappa=population["kappa"],
            most_frames=self.most_frames,
        )

    def __call__(self, episodes: EpisodeBatch) -> None:
        """The Pyro program over the support videos' mean frames."""
        tasks, ways, shots, _, dim = episodes.support.shape
        prior = self.prior(self.sample_population(episodes.support), dim)
        data = support_frames(episodes, prior)
        unit = dist.Normal(data.centred.new_zeros(()), 1.0)
        half = 0.5 * (prior.nu - torch.arange(dim).to(prior.nu))
        with pyro.plate("task", tasks, dim=-4), pyro.plate("way", ways, dim=-3):
            chi = pyro.sample("precision_raw", dist.Gamma(half, half).to_event(1))
            pairs = dim * (dim - 1) // 2
            lower = pyro.sample("lower_raw", unit.expand([pairs]).to_event(1))
            raw = pyro.sample("mean_raw", unit.expand([dim]).to_event(1))
            root = precision_root(chi[:, :, 0, 0], lower[:, :, 0, 0], prior)
            mean = class_mean(raw[:, :, 0, 0], root, prior)
            with pyro.plate("shot", shots, dim=-2):
                law = PrecisionNormal(
                    (data.loading[..., None] * mean[:, :, None])[..., None, :],
                    root[:, :, None, None],
                    data.size[..., None],
                )
                seen = data.centred[..., None, :]
                pyro.sample("videos", law.mask(data.exists[..., None]), obs=seen)

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, frame, way) log p(x | y, theta_s), a frame as a video of its own."""
        values = [
            _density(query_frames(episodes, prior), mean, root)
            for prior, mean, root in self._draw_by_draw(draws, episodes)
        ]
        shape = (*episodes.query.shape[:3], episodes.way)
        value = torch.stack(values).reshape(-1, *shape)
        return value.masked_fill(~episodes.way_mask[:, None, None], -torch.inf)

    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, way) log p(mean frame | y, theta_s)."""
        values = [
            _density(query_videos(episodes, prior), mean, root)
            for prior, mean, root in self._draw_by_draw(draws, episodes)
        ]
        return torch.stack(values).masked_fill(~episodes.way_mask[:, None], -torch.inf)

    def log_evidence(self, episodes: EpisodeBatch, population: Mapping[str, Tensor]) -> Tensor:
        """(task,) log p(support videos' mean frames | population), in nats."""
        return niw_log_evidence(episodes, self.prior(population, episodes.dim))

    def log_density(self, post: NIWPosterior, query: MeanFrames) -> Tensor:
        """(task, query, way) log p(x | y, support, population): Student t."""
        return student_density(post, query)

    def log_labels(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Exact log p(y | x, support, population) of frames and videos; no draw axis.

        Returns:
            (task, video, frame, way) and (task, video, way), in nats; -inf for padded classes.
        """
        prior = self.prior(population, episodes.dim)
        post = condition_niw(episodes, prior)
        absent = ~episodes.way_mask[:, None]
        frame, video = (
            self.log_density(post, query).masked_fill(absent, -torch.inf).log_softmax(-1)
            for query in (query_frames(episodes, prior), query_videos(episodes, prior))
        )
        return frame.reshape(*episodes.query.shape[:3], -1), video

    def condition(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Posterior:
        """Exact posterior: independent draws of every site, for each population draw in turn."""

        def sample(value: dict[str, Tensor], noise: Noise) -> Mapping[str, Tensor]:
            prior = self.prior(value, episodes.dim)
            return raw_sites(
                *self.sample_classes(condition_niw(episodes, prior), draws, noise), prior
            )

        return drawn_posterior(
            "exact", self.dims, episodes, population, sample, draws=draws, seed=seed
        )

    def sample_classes(self, post: NIWPosterior, draws: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """Means (draw, task, way, feature) and precision roots of draws from the posterior."""
        return sample_niw(post, draws, noise)

    def predictive(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Predictive:
        """Closed-form predictive, averaged over population draws; see `sample_labels`."""
        noise = Noise.of(episodes, seed, even=True)
        frames: list[LabelDraws] = []
        videos: list[LabelDraws] = []
        for value in each_value(population):
            prior = self.prior(value, episodes.dim)
            post = condition_niw(episodes, prior)
            for parts, query in (
                (frames, query_frames(episodes, prior)),
                (videos, query_videos(episodes, prior)),
            ):
                parts.append(self.label_draws(post, query, episodes.way_mask, draws, noise))
        return Predictive(frame=by_video(mixed(frames), episodes), video=mixed(videos))

    def label_draws(
        self,
        post: NIWPosterior,
        query: MeanFrames,
        exists: Tensor,
        draws: int,
        noise: Noise,
    ) -> LabelDraws:
        """Predictive of each query given one population draw, with draws of theta."""
        return sample_labels(post, query, exists, draws, noise)

    def _draw_by_draw(
        self, draws: Mapping[str, Tensor], episodes: EpisodeBatch
    ) -> list[tuple[ClassPrior, Tensor, Tensor]]:
        """Prior, class means and precision roots of each draw."""
        out = []
        for s, raw in enumerate(draws["mean_raw"]):
            prior = self.prior({v: draws[v][s] for v in self.population_dims}, episodes.dim)
            root = precision_root(draws["precision_raw"][s], draws["lower_raw"][s], prior)
            out.append((prior, class_mean(raw, root, prior), root))
        return out


@dataclass(frozen=True)
class NIWMode(NIWClasses):
    """`NIWClasses` with every class's mean and covariance at their joint posterior mode.

        mu = m_n,   Sigma = Psi_n / (nu_n + D + 2).

    `condition` and `predictive` give that one point, so that nothing is epistemic but what the
    population leaves open. MetaQDA calls this its MAP version.
    """

    def log_density(self, post: NIWPosterior, query: MeanFrames) -> Tensor:
        """(task, query, way) log N(x; o + r mu, s^2 Sigma) at the mode."""
        return mode_density(post, query)

    def sample_classes(self, post: NIWPosterior, draws: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """The mode, `draws` times."""
        eye = torch.eye(post.mean.shape[-1]).to(post.mean).expand_as(post.root)
        inverse = torch.linalg.solve_triangular(post.root, eye, upper=False)
        shrink = (post.nu + post.mean.shape[-1] + 2)[..., None, None]
        root = jittered_cholesky(shrink * inverse.mT @ inverse)
        mean = post.mean.expand(draws, *post.mean.shape)
        return mean, root.expand(draws, *root.shape)

    def label_draws(
        self,
        post: NIWPosterior,
        query: MeanFrames,
        exists: Tensor,
        draws: int,
        noise: Noise,
    ) -> LabelDraws:
        """The plug-in predictive as its own single draw, `draws` times."""
        density = mode_density(post, query).masked_fill(~exists[:, None], -torch.inf)
        log_prob = density.log_softmax(-1)
        given = log_prob.expand(draws, *log_prob.shape)
        return LabelDraws(log_prob, given, torch.full_like(given[..., 0], -math.log(draws)))


def precision_root(chi: Tensor, lower: Tensor, prior: ClassPrior) -> Tensor:
    """P (..., feature, feature), lower triangular, with Sigma^-1 = P P'; Bartlett (1933)."""
    dim = chi.shape[-1]
    row, column = torch.tril_indices(dim, dim, -1)
    place = torch.full((dim, dim), len(row))
    place[row, column] = torch.arange(len(row))
    padded = torch.cat([lower, torch.zeros_like(chi[..., :1])], -1)
    scatter = padded[..., place.flatten().to(chi.device)].reshape(*lower.shape[:-1], dim, dim)
    degrees = prior.nu - torch.arange(dim).to(chi)
    bartlett = scatter + torch.eye(dim).to(chi) * (degrees * chi).sqrt()[..., None]
    return bartlett / prior.psi.sqrt()[:, None]


def class_mean(raw: Tensor, root: Tensor, prior: ClassPrior) -> Tensor:
    """Mean mu = P^-T raw / kappa^(1/2)."""
    solved = torch.linalg.solve_triangular(root.mT, raw[..., None], upper=True)
    return torch.as_tensor(solved[..., 0] / prior.kappa.sqrt())


def raw_sites(mean: Tensor, root: Tensor, prior: ClassPrior) -> dict[str, Tensor]:
    """Task sites (draw, task, way, ...) of class means and of precisions P P'.

    Args:
        mean: (draw, task, way, feature).
        root: (draw, task, way, feature, feature), any P.
        prior: population parameters.
    """
    scaled = prior.psi.sqrt()[:, None] * root
    bartlett = jittered_cholesky(scaled @ scaled.mT)
    dim = mean.shape[-1]
    degrees = prior.nu - torch.arange(dim).to(mean)
    row, column = torch.tril_indices(dim, dim, -1, device=mean.device)
    own = bartlett / prior.psi.sqrt()[:, None]
    return {
        "precision_raw": bartlett.diagonal(dim1=-2, dim2=-1).square() / degrees,
        "lower_raw": bartlett[..., row, column],
        "mean_raw": prior.kappa.sqrt() * (own.mT @ mean[..., None])[..., 0],
    }


def _density(query: MeanFrames, mean: Tensor, root: Tensor) -> Tensor:
    """(task, query, way) log density of mean frames, given means and precision roots."""
    gap = query.centred[:, :, None] - query.loading[..., None, None] * mean[:, None]
    white = torch.einsum("tqwd,twde->tqwe", gap, root) / query.size[..., None, None]
    log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    dim = gap.shape[-1]
    const = log_det[:, None] - dim * query.size.log()[..., None]
    return const - 0.5 * (white.square().sum(-1) + dim * math.log(2 * math.pi))
