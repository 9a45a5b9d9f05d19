"""A mixture of multivariate Student's t, and its fit to weighted points: `StudentMixture`.

    q(x) = sum_k pi_k t_nu(x; m_k, L_k L_k'),

a density whose tails are heavy enough to propose from, and which a few hundred weighted points of
an unknown density determine. The fit is EM: with responsibilities r_ik times the weight w_i of a
point and u_ik = (nu + D) / (nu + |L_k^-1 (x_i - m_k)|^2), which makes little of far points,

    m_k = sum_i r_ik u_ik x_i / sum_i r_ik u_ik,
    S_k = (sum_i r_ik u_ik (x_i - m_k)(x_i - m_k)' + c S) / (sum_i r_ik + c),

with S the covariance of all points: some pseudo-points c keep S_k from collapsing onto few.

Source: Peel and McLachlan (2000), Robust mixture modelling using the t distribution;
Cappé et al. (2008), Adaptive importance sampling in general mixture classes. refs.bib: peel2000,
cappe2008.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._distributions.noise import normal_like

STEPS = 30
"""Steps of EM."""

PSEUDO = 0.3
"""Pseudo-points of the covariance of all, for each axis; weighted points count as 1 / sum w^2."""


@dataclass(frozen=True)
class StudentMixture:
    """A mixture of Student's t of equal degrees of freedom.

    Attributes:
        log_share: (component,) log pi, whose logsumexp is 0.
        location: (component, size) m.
        root: (component, size, size) L, lower triangular.
        degrees: nu, a whole number.
    """

    log_share: Tensor
    location: Tensor
    root: Tensor
    degrees: int

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, size) independent draws.

        Components are taken by turns as often as their share says, so that only the rounding of the
        last turn is left to chance.
        """
        size, like = self.location.shape[-1], self.location
        cuts = (torch.arange(count) + torch.rand((), generator=generator)) / count
        edges = self.log_share.exp().cumsum(0).cpu()
        chosen = torch.searchsorted(edges, cuts.to(edges)).clamp(max=len(edges) - 1).to(like.device)
        normal = normal_like((count, size), generator, like)
        square = normal_like((count, self.degrees), generator, like).square().sum(-1, keepdim=True)
        t = normal * (self.degrees / square).sqrt()
        return self.location[chosen] + (self.root[chosen] @ t.unsqueeze(-1)).squeeze(-1)

    def log_density(self, x: Tensor) -> Tensor:
        """(point, size) -> (point,)."""
        return self._parts(x)[0].logsumexp(0)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(component, point) log of pi_k t_nu, and the squared distance |L^-1 (x - m)|^2."""
        nu, size = self.degrees, x.shape[-1]
        rest = (x - self.location.unsqueeze(1)).mT
        distance = torch.linalg.solve_triangular(self.root, rest, upper=False).square().sum(-2)
        constant = math.lgamma((nu + size) / 2) - math.lgamma(nu / 2)
        constant -= 0.5 * size * math.log(nu * math.pi)
        scale = self.root.diagonal(0, -2, -1).log().sum(-1) - self.log_share
        log_t = constant - 0.5 * (nu + size) * torch.log1p(distance / nu)
        return log_t - scale.unsqueeze(-1), distance

    @classmethod
    def fitted(
        cls, x: Tensor, weight: Tensor, *, components: int, degrees: int, start: Tensor
    ) -> StudentMixture:
        """The mixture that EM finds for weighted points.

        Args:
            x: (point, size).
            weight: (point,), of sum 1.
            components: at most.
            degrees: of freedom.
            start: (component,) numbers of the points where components start.
        """
        size = x.shape[-1]
        centre = weight @ x
        whole = ((x - centre).mT * weight) @ (x - centre)
        whole = whole + 1e-9 * whole.diagonal().mean() * torch.eye(size).to(whole)
        pseudo = PSEUDO * size * float(weight.square().sum())
        own = x[start] if components > 1 else centre.unsqueeze(0)
        share = x.new_full((components,), 1.0 / components)
        found = cls(share.log(), own, _root(whole.expand(components, size, size)), degrees)
        for _ in range(STEPS):
            log_part, distance = found._parts(x)
            belongs = log_part.softmax(0) * weight
            pull = belongs * (degrees + size) / (degrees + distance)
            share = belongs.sum(-1)
            location = (pull @ x) / pull.sum(-1, keepdim=True).clamp(min=1e-300)
            rest = x - location.unsqueeze(1)
            scatter = (rest.mT * pull.unsqueeze(1)) @ rest + pseudo * whole
            scatter = scatter / (share + pseudo)[:, None, None]
            found = cls(share.clamp(min=1e-300).log(), location, _root(scatter), degrees)
        return found


def _root(matrix: Tensor) -> Tensor:
    root: Tensor = torch.linalg.cholesky(matrix)
    return root
