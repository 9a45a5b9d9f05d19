"""Densities and weights of frames with Student-t noise that may show nothing taught.

Start with `video_log_density`. In coordinates where the frame noise is white, a video of a class
has frames

    d_f = u + e_f,   u ~ N(0, diag v),   e_f ~ t_dof(0, I)       with probability 1 - rho,
    d_f ~ background                                             with probability rho,

u being whatever the frames share (the video's effect; what is not known of the class). A Student t
is a Gaussian whose precision w ~ Gamma(dof / 2, dof / 2) differs from frame to frame.

For one frame the density is an integral over w alone, and exact up to quadrature:

    p(d) = (1 - rho) E_w N(d; 0, diag v + I / w) + rho background(d).

For several frames it is not known. Effective weights lambda_f = E[z_f w_f] come from coordinate
ascent (each frame belongs to the object with probability E z_f), the other frames' weighted mean
gives Gaussian knowledge N(m_f, c_f) of u, and each frame is then integrated exactly against that:

    log p(d_1..F) = log G + sum_f (log Z_f - log G_f),
    Z_f = (1 - rho) E_w N(d_f; m_f, c_f + I / w) + rho background(d_f),
    G   = E exp(-1/2 sum_f lambda_f |d_f - u|^2),   u ~ N(0, v),
    G_f = E exp(-1/2 lambda_f |d_f - u|^2),         u ~ N(m_f, c_f):

expectation propagation's evidence for Gaussian sites of precision lambda_f centred on their frames.
It is exact for one frame, and for Gaussian noise without background.

Source: Minka (2001), Expectation propagation for approximate Bayesian inference, section 3.2 (the
clutter problem); here the sites' precision is found by coordinate ascent instead of moment
matching, which has no negative precisions and costs one number a frame. Lange, Little and Taylor
(1989), JASA 84, for the weights of a Student t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from bayesfs.models.gaussian.conjugate import LOG_2PI

ASCENT_STEPS = 8
"""Steps of coordinate ascent for the frames' weights."""

NEWTON_STEPS = 6
"""Steps to the mode of the integrand over log w."""

REACH = ((32, 9), (math.inf, 5))
"""Trapezoid rule about that mode: with fewer features than the first number, nodes from so many
sds below it to half as many above, one sd apart. Few features leave a long left tail."""


class RobustFrame(TorchDistribution):  # type: ignore[misc]
    """Law of a frame: Student t about its centre, or the background; one event over features.

    Args:
        centre: (..., feature) location of the Student t.
        scale: (..., feature) its scale, so that its covariance is dof / (dof - 2) scale^2.
        dof: (...) degrees of freedom.
        background: laws of a frame that shows nothing taught, each as likely as the others.
        absent: (...) probability of that.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(
        self,
        centre: Tensor,
        scale: Tensor,
        dof: Tensor,
        background: Sequence[dist.Distribution],
        absent: Tensor,
    ) -> None:
        self.centre, self.scale, self.dof = centre, scale, dof
        self.background, self.absent = background, absent
        shape = (centre[..., 0] + scale[..., 0] + absent).shape
        super().__init__(shape, centre.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Size, _instance: object = None) -> RobustFrame:
        """The same law over a larger batch."""
        size, event = torch.Size(batch_shape), self.event_shape
        return RobustFrame(
            self.centre.expand(size + event),
            self.scale.expand(size + event),
            self.dof.expand(size),
            [law.expand(size) for law in self.background],
            self.absent.expand(size),
        )

    def sample(self, sample_shape: Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws (*sample_shape, ..., feature)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        half = (self.dof / 2).expand(shape)
        weight = torch.distributions.Gamma(half, half).sample()
        noise = torch.randn(shape + self.event_shape, dtype=weight.dtype, device=weight.device)
        taught = self.centre + self.scale * noise / weight.sqrt()[..., None]
        place = torch.rand(shape, dtype=weight.dtype, device=weight.device)
        for i, law in enumerate(self.background):
            other = law.expand(self.batch_shape).sample(sample_shape)
            # the share of the laws from this one on: the last one that applies stays
            share = self.absent * (1 - i / len(self.background))
            taught = torch.where((place < share)[..., None], other, taught)
        return taught

    def log_prob(self, value: Tensor) -> Tensor:
        """(...) log density in nats."""
        square = ((value - self.centre) / self.scale).square().sum(-1)
        taught = student_log(square, self.dof, value.shape[-1]) - self.scale.log().sum(-1)
        other = even_mixture([law.log_prob(value) for law in self.background])
        return torch.logaddexp(torch.log1p(-self.absent) + taught, self.absent.log() + other)


def even_mixture(log_density: Sequence[Tensor]) -> Tensor:
    """Log of the mean of densities."""
    return torch.stack(list(log_density)).logsumexp(0) - math.log(len(log_density))


def student_log(square: Tensor, dof: Tensor, dim: int) -> Tensor:
    """Log density of a `dim`-variate t_dof(0, I) at squared length `square`, in nats."""
    half = 0.5 * (dof + dim)
    constant = torch.lgamma(half) - torch.lgamma(0.5 * dof) - 0.5 * dim * (dof * math.pi).log()
    return constant - half * torch.log1p(square / dof)


def scale_mixture(d: Tensor, v: Tensor, dof: Tensor) -> Tensor:
    """Log E_w N(d; 0, diag v + I / w) with w ~ Gamma(dof / 2, dof / 2), in nats.

    Trapezoid rule in log w about the integrand's mode, which converges faster than any power of the
    nodes' distance.

    Args:
        d: (..., feature) deviation of a frame from its expected centre, frame noise being white.
        v: (..., feature) variance of the centre.
        dof: (...) degrees of freedom.

    Returns:
        (...,).
    """
    square = d.square()
    mode, width = _peak(square.detach(), v.detach(), dof.detach())
    reach = next(reach for features, reach in REACH if d.shape[-1] < features)
    nodes = range(-reach, (reach + 1) // 2 + 1)
    values = [_over_weight(mode + node * width, square, v, dof) for node in nodes]
    constant = 0.5 * dof * (0.5 * dof).log() - torch.lgamma(0.5 * dof)
    total = torch.stack(values).logsumexp(0) + width.log()
    return total + constant - 0.5 * d.shape[-1] * LOG_2PI


def _over_weight(u: Tensor, square: Tensor, v: Tensor, dof: Tensor) -> Tensor:
    """Integrand's log at w = exp u, without constants."""
    total = v + (-u).exp()[..., None]
    return 0.5 * dof * (u - u.exp()) - 0.5 * (total.log() + square / total).sum(-1)


def _peak(square: Tensor, v: Tensor, dof: Tensor) -> tuple[Tensor, Tensor]:
    """Mode of the integrand over u = log w, and the sd that its curvature gives; by Newton."""
    u = (square.sum(-1) * 0.0) + dof * 0.0
    for _ in range(NEWTON_STEPS):
        slope, curvature = _slopes(u, square, v, dof)
        u = u + (slope / curvature).clamp(-1.5, 1.5)
    return u, _slopes(u, square, v, dof)[1].rsqrt()


def _slopes(u: Tensor, square: Tensor, v: Tensor, dof: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and minus curvature (at least a quarter of the prior's) of the integrand's log."""
    noise = (-u).exp()[..., None]
    share = noise / (v + noise)
    pull = square / (v + noise)
    slope = 0.5 * (share - pull * share).sum(-1) + 0.5 * dof * (1 - u.exp())
    bend = 0.5 * (share * (1 - share) + pull * share * (2 * share - 1)).sum(-1)
    prior = 0.5 * dof * u.exp()
    return slope, (bend + prior).clamp(min=0.25 * prior + 0.02)


def robust_frame_weights(
    d: Tensor, v: Tensor, mask: Tensor, background: Tensor, absent: Tensor, dof: Tensor
) -> Tensor:
    """Effective weights lambda_f = E[z_f w_f] of a video's frames, by coordinate ascent.

    Args:
        d: (..., frame, feature) deviations, frame noise being white.
        v: (..., feature) variance of what the frames share.
        mask: (..., frame) bool.
        background: (..., frame) log density of the background.
        absent: (..., 1) probability of the background.
        dof: degrees of freedom, no axes.

    Returns:
        (..., frame); 0 for padding. 1 is a frame as the Gaussian model has it.
    """
    dim = d.shape[-1]
    exists = mask.to(d)
    weight = (exists * (1 - absent)).expand(d.shape[:-1])
    prior = torch.log1p(-absent) - absent.log()
    for _ in range(ASCENT_STEPS):
        c = 1.0 / (1.0 / v + weight.sum(-1, keepdim=True))
        m = c * (weight[..., None] * d).sum(-2)
        square = (d - m[..., None, :]).square().sum(-1) + c.sum(-1, keepdim=True)
        taught = prior + student_log(square, dof, dim) - background
        weight = exists * taught.sigmoid() * (dof + dim) / (dof + square)
    return weight


def video_log_density(
    d: Tensor, v: Tensor, mask: Tensor, background: Tensor, absent: Tensor, dof: Tensor
) -> Tensor:
    """Log density of a video's frames, jointly; arguments as `robust_frame_weights`.

    Returns:
        (...,) in nats, in the coordinates where the frame noise is white.
    """
    if d.shape[-2] == 1:
        alone = _frame(d, v[..., None, :], background, absent, dof)
        return (mask.to(d) * alone).sum(-1)
    weight = robust_frame_weights(d, v, mask, background, absent, dof)
    pulled = weight[..., None] * d
    total, pull = weight.sum(-1, keepdim=True), pulled.sum(-2)
    c = 1.0 / (1.0 / v[..., None, :] + (total - weight)[..., None])
    rest = d - c * (pull[..., None, :] - pulled)
    site = 1.0 + weight[..., None] * c
    alone = -0.5 * (site.log() + weight[..., None] * rest.square() / site).sum(-1)
    each = _frame(rest, c, background, absent, dof) - alone
    together = (pulled * d).sum((-2, -1)) - (pull.square() / (1.0 / v + total)).sum(-1)
    joint = -0.5 * (torch.log1p(v * total).sum(-1) + together)
    return (mask.to(d) * each).sum(-1) + joint


def _frame(d: Tensor, v: Tensor, background: Tensor, absent: Tensor, dof: Tensor) -> Tensor:
    """Log Z_f, the exact density of a frame whose centre is N(0, v)."""
    taught = torch.log1p(-absent) + scale_mixture(d, v, dof)
    return torch.logaddexp(taught, absent.log() + background)
