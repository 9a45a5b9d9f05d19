"""Normal-inverse-Wishart algebra of classes whose covariance is unknown, videos being the units.

Start with `condition_niw`. The mean frame of a video of class k in condition q, of n frames (cut to
`most_frames`), is

    x = o_q + r_q mu_k + s_qn e,   e ~ N(0, Sigma_k),   s_qn^2 = video_q^2 + frame_q^2 / n,

    Sigma_k ~ IW(nu, Psi),   mu_k | Sigma_k ~ N(0, Sigma_k / kappa),

that is, y = (x - o) / s is a regression on g = r / s with one coefficient. Hence

    kappa_n = kappa + sum g^2,  nu_n = nu + videos,  m_n = sum g y / kappa_n,
    Psi_n = Psi + sum y y' - kappa_n m_n m_n',

and a further video of the class has a Student t with df = nu_n - D + 1 degrees of freedom:

    x ~ t_df(o + r m_n, Psi_n (r^2 / kappa_n + s^2) / df).

Source: Gelman et al. (2013), Bayesian Data Analysis, section 3.6; Minka (2000), Bayesian linear
regression, for the coefficient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from bayesfs.models.conjugate import normal, video_means
from bayesfs.models.covariance import cholesky
from bayesfs.types import EpisodeBatch, LabelDraws

LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class ClassPrior:
    """Values of the population parameters.

    Attributes:
        offset: (kind, feature) mean in each condition.
        loading: (kind,) how much of a class's mean survives; 1 for clean.
        video: (kind,) size of video effects relative to Sigma; 1 for clean.
        frame: (kind,) size of frame noise relative to Sigma.
        psi: (feature,) diagonal of Psi.
        nu: degrees of freedom, above D + 1.
        kappa: videos that the prior of the mean is worth.
        most_frames: independent frames that a video holds at most.
    """

    offset: Tensor
    loading: Tensor
    video: Tensor
    frame: Tensor
    psi: Tensor
    nu: Tensor
    kappa: Tensor
    most_frames: float

    def size(self, kind: Tensor, count: Tensor) -> Tensor:
        """S_qn of mean frames, with the axes of `kind` and `count`."""
        per_frame = self.frame[kind].square() / count.clamp(1.0, self.most_frames)
        return (self.video[kind].square() + per_frame).sqrt()


@dataclass(frozen=True)
class ClassPosterior:
    """Normal-inverse-Wishart posterior of each class.

    Attributes:
        mean: (task, way, feature) m_n.
        kappa: (task, way).
        nu: (task, way).
        root: (task, way, feature, feature) Cholesky factor of Psi_n.
    """

    mean: Tensor
    kappa: Tensor
    nu: Tensor
    root: Tensor

    def log_det(self) -> Tensor:
        """(task, way) log |Psi_n|."""
        return 2.0 * self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)


@dataclass(frozen=True)
class MeanFrames:
    """Videos as their mean frames.

    Attributes:
        centred: (..., feature) x - o.
        loading: (...) r.
        size: (...) s.
        exists: (...) bool.
    """

    centred: Tensor
    loading: Tensor
    size: Tensor
    exists: Tensor

    @classmethod
    def of(cls, x: Tensor, mask: Tensor, kind: Tensor, prior: ClassPrior) -> MeanFrames:
        """From frames (..., frame, feature), mask (..., frame) and condition (...)."""
        mean, count = video_means(x, mask)
        return cls(
            mean - prior.offset[kind], prior.loading[kind], prior.size(kind, count), count > 0
        )


def support_frames(episodes: EpisodeBatch, prior: ClassPrior) -> MeanFrames:
    """(task, way, shot) support videos."""
    return MeanFrames.of(episodes.support, episodes.support_mask, episodes.support_kind, prior)


def query_frames(episodes: EpisodeBatch, prior: ClassPrior) -> MeanFrames:
    """(task, video x frame): every query frame as a video of its own."""
    frames = episodes.query.shape[2]
    x = episodes.query.flatten(1, 2)[:, :, None]
    kind = episodes.query_kind.repeat_interleave(frames, 1)
    return MeanFrames.of(x, episodes.query_mask.flatten(1, 2)[..., None], kind, prior)


def query_videos(episodes: EpisodeBatch, prior: ClassPrior) -> MeanFrames:
    """(task, video) query videos."""
    return MeanFrames.of(episodes.query, episodes.query_mask, episodes.query_kind, prior)


def condition_niw(episodes: EpisodeBatch, prior: ClassPrior) -> ClassPosterior:
    """Exact posterior of every class given the support; see the module for the equations."""
    data = support_frames(episodes, prior)
    exists = data.exists.to(data.centred)
    g = exists * data.loading / data.size
    y = (exists / data.size)[..., None] * data.centred
    kappa = prior.kappa + g.square().sum(-1)
    mean = (g[..., None] * y).sum(2) / kappa[..., None]
    rest = y - g[..., None] * mean[:, :, None]
    pulled = prior.kappa.sqrt() * mean
    # Psi_n as a sum of squares, so that rounding leaves it positive definite
    scatter = rest.mT @ rest + pulled[..., None] * pulled[..., None, :]
    root = cholesky(torch.diag_embed(prior.psi.expand_as(mean)) + scatter)
    return ClassPosterior(mean, kappa, prior.nu + exists.sum(-1), root)


def log_evidence(episodes: EpisodeBatch, prior: ClassPrior) -> Tensor:
    """(task,) log density of the support videos' mean frames, in nats."""
    data, post = support_frames(episodes, prior), condition_niw(episodes, prior)
    dim, videos = episodes.dim, data.exists.to(data.centred).sum(-1)
    jacobian = dim * (data.size.log() * data.exists).sum(-1)
    gammas = torch.mvlgamma(0.5 * post.nu, dim) - torch.mvlgamma(0.5 * prior.nu, dim)
    dets = prior.nu * prior.psi.log().sum() - post.nu * post.log_det()
    mean = 0.5 * dim * (prior.kappa.log() - post.kappa.log())
    value = gammas + 0.5 * dets + mean - 0.5 * dim * videos * math.log(math.pi) - jacobian
    return value.sum(-1)


def distances(post: ClassPosterior, query: MeanFrames) -> Tensor:
    """(task, query, way) |L^-1 (x - o - r m_n)|^2 with Psi_n = L L'."""
    white = torch.linalg.solve_triangular(post.root, query.centred.mT[:, None], upper=False)
    centre = torch.linalg.solve_triangular(post.root, post.mean[..., None], upper=False)
    gap = white - query.loading[:, None, None] * centre
    return torch.as_tensor(gap.square().sum(-2).mT)


def student_density(post: ClassPosterior, query: MeanFrames) -> Tensor:
    """(task, query, way) log predictive density of each query under each class, in nats."""
    dim = post.mean.shape[-1]
    df = (post.nu - dim + 1)[:, None]
    r, s = query.loading[..., None], query.size[..., None]
    spread = (r.square() / post.kappa[:, None] + s.square()) / df
    constant = torch.lgamma(0.5 * (df + dim)) - torch.lgamma(0.5 * df)
    scale = 0.5 * dim * (df * math.pi * spread).log() + 0.5 * post.log_det()[:, None]
    quad = distances(post, query) / (spread * df)
    return constant - scale - 0.5 * (df + dim) * torch.log1p(quad)


def mode_density(post: ClassPosterior, query: MeanFrames) -> Tensor:
    """(task, query, way) log N(x; o + r m_n, s^2 Psi_n / (nu_n + D + 2)): the mode plugged in."""
    dim = post.mean.shape[-1]
    shrink = (post.nu + dim + 2)[:, None]
    s = query.size[..., None]
    log_det = post.log_det()[:, None] + dim * (2 * s.log() - shrink.log())
    return -0.5 * (distances(post, query) * shrink / s.square() + log_det + dim * LOG_2PI)


def sample_niw(post: ClassPosterior, draws: int, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws of every class's mean and precision.

    Returns:
        mean (draw, task, way, feature), and P (draw, task, way, feature, feature) with
        Sigma^-1 = P P'.
    """
    tasks, ways, dim = post.mean.shape
    shape = (draws, tasks, ways)
    order = torch.arange(dim).to(post.nu)
    chi = _chi_square((post.nu[..., None] - order).expand(*shape, dim), noise)
    lower = normal((*shape, dim, dim), post.mean, noise).tril(-1)
    bartlett = lower + torch.diag_embed(chi.sqrt())
    eps = normal((*shape, dim, 1), post.mean, noise)
    away = post.root @ torch.linalg.solve_triangular(bartlett.mT, eps, upper=True)
    mean = post.mean + away[..., 0] / post.kappa.sqrt()[..., None]
    root = torch.linalg.solve_triangular(post.root.mT, bartlett, upper=True)
    return mean, root


def sample_labels(
    post: ClassPosterior,
    query: MeanFrames,
    exists: Tensor,  # (task, way)
    draws: int,
    noise: torch.Generator,
) -> LabelDraws:
    """Exact predictive of each query, and label distributions of draws from p(theta | x, D).

    The label y* of a draw comes from p(y | x, D); class y* has learnt from x, the others have not.
    A Wishart matrix does not change in law when rotated, so the axis of the query's deviation may
    be the first: with |e|^2 = `distances`, chi ~ chi2 and eps ~ N(0, 1),

        log p(x | theta) = 1/2 log |Sigma^-1| - D log s
                           - 1/(2 s^2) [(chi_1^(1/2) h |e| - r eps_1 / kappa^(1/2))^2
                                        + r^2 (eps_2^2 + ... + eps_D^2) / kappa],
        log |Sigma^-1| = sum_i log chi_i - log |Psi|,   chi_i ~ chi2(nu - i + 1),

    with h = 1 and the posterior's kappa, nu, Psi where the class has not learnt from x; where it
    has, kappa' = kappa + r^2 / s^2, nu' = nu + 1, |Psi'| = |Psi| (1 + c |e|^2), c = kappa / (kappa'
    s^2), h = (kappa / kappa') (1 + c |e|^2)^(-1/2).
    """
    density = student_density(post, query).masked_fill(~exists[:, None], -torch.inf)
    log_prob = density.log_softmax(-1)
    chosen = torch.nn.functional.one_hot(_classes(log_prob.exp(), draws, noise), exists.shape[1])
    plain = _log_joint(post, query, draws, noise, learnt=False)
    after = _log_joint(post, query, draws, noise, learnt=True)
    joint = torch.where(chosen.bool(), after, plain).masked_fill(~exists[:, None], -torch.inf)
    given = joint.log_softmax(-1)
    return LabelDraws(log_prob, given, torch.full_like(given[..., 0], -math.log(draws)))


def _log_joint(
    post: ClassPosterior, query: MeanFrames, draws: int, noise: torch.Generator, *, learnt: bool
) -> Tensor:
    """(draw, task, query, way) log p(x | theta) of fresh draws for every query."""
    dim, square = post.mean.shape[-1], distances(post, query)
    r, s = query.loading[..., None], query.size[..., None]
    kappa, nu = post.kappa[:, None], post.nu[:, None]
    log_det, h = post.log_det()[:, None], torch.ones_like(square)
    if learnt:
        after = kappa + (r / s).square()
        grown = 1.0 + kappa / (after * s.square()) * square
        h, log_det = kappa / after * grown.rsqrt(), log_det + grown.log()
        kappa, nu = after, nu + 1
    shape = (draws, *square.shape)
    order = torch.arange(1, dim).to(nu)
    degrees = (nu[..., None] - order).expand(draws, len(square), 1, square.shape[-1], dim - 1)
    rest = _chi_square(degrees, noise).log().sum(-1)
    first = _chi_square(nu.expand(shape), noise)
    along = first.sqrt() * h * square.sqrt() - r * normal(shape, square, noise) / kappa.sqrt()
    across = square.new_zeros(shape)
    if dim > 1:
        across = _chi_square(square.new_full(shape, dim - 1.0), noise) * r.square() / kappa
    precision = first.log() + rest - log_det
    return 0.5 * precision - dim * s.log() - 0.5 * (along.square() + across) / s.square()


def _classes(prob: Tensor, draws: int, noise: torch.Generator) -> Tensor:
    """(draw, task, query) classes with the given probabilities (task, query, way)."""
    flat = prob.flatten(0, 1).cpu()
    chosen = torch.multinomial(flat, draws, replacement=True, generator=noise)
    return chosen.T.reshape(draws, *prob.shape[:-1]).to(prob.device)


def _chi_square(degrees: Tensor, noise: torch.Generator) -> Tensor:
    """Chi-square draws, made on the CPU so that every device gives the same ones."""
    half = torch._standard_gamma(0.5 * degrees.cpu(), generator=noise)
    return 2.0 * half.to(degrees)


class PrecisionNormal(TorchDistribution):  # type: ignore[misc]
    """Normal law with covariance size^2 (P P')^-1; one event over features.

    Args:
        centre: (..., feature).
        root: (..., feature, feature) lower triangular P.
        size: (...).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, centre: Tensor, root: Tensor, size: Tensor) -> None:
        self.centre, self.root, self.size = centre, root, size
        shape = (centre[..., 0] + root[..., 0, 0] + size).shape
        super().__init__(shape, centre.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Size, _instance: object = None) -> PrecisionNormal:
        """The same law over a larger batch."""
        shape, event = torch.Size(batch_shape), self.event_shape
        return PrecisionNormal(
            self.centre.expand(shape + event),
            self.root.expand(shape + event + event),
            self.size.expand(shape),
        )

    def sample(self, sample_shape: Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws (*sample_shape, ..., feature)."""
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        white = dist.Normal(self.centre.new_zeros(()), 1.0).expand(shape).sample()
        away = torch.linalg.solve_triangular(self.root.mT, white[..., None], upper=True)
        return torch.as_tensor(self.centre + self.size[..., None] * away[..., 0])

    def log_prob(self, value: Tensor) -> Tensor:
        """(...) log density in nats."""
        return precision_log(value - self.centre, self.root, self.size)


def precision_log(gap: Tensor, root: Tensor, size: Tensor) -> Tensor:
    """Log N(gap; 0, size^2 (P P')^-1), in nats; gap (..., feature), P (..., feature, feature)."""
    dim = gap.shape[-1]
    white = (gap[..., None, :] @ root)[..., 0, :] / size[..., None]
    log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return log_det - dim * size.log() - 0.5 * (white.square().sum(-1) + dim * LOG_2PI)
