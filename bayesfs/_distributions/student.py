"""A multivariate Student's t, and its fit to weighted points: `Student`.

    q(x) = t_nu(x; m, L L'),

a density whose tails are heavy enough to propose from, and which a few hundred weighted points of
an unknown density determine. The fit is EM: with the weight w_i of a point and
u_i = (nu + D) / (nu + |L^-1 (x_i - m)|^2), which makes little of far points,

    m = sum_i w_i u_i x_i / sum_i w_i u_i,
    S = (sum_i w_i u_i (x_i - m)(x_i - m)' + c C) / (1 + c),

with C the covariance of all points: some pseudo-points c keep S from collapsing onto few. Leading
axes are of many t's side by side.

Source: Liu and Rubin (1995), ML estimation of the t distribution using EM and its extensions.
refs.bib: liu1995.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import gammaincinv
from torch import Tensor

from bayesfs._distributions.noise import normal_like

STEPS = 30
"""Steps of EM."""

PSEUDO = 0.3
"""Pseudo-points of the covariance of all, for each axis; weighted points count as 1 / sum w^2."""


def with_heavy_tails(noise: Tensor, degrees: int) -> Tensor:
    """Normal noise made Student's t: t = e (nu / chi^2_nu)^(1/2).

    Of S draws, those of chi^2_nu are its quantiles at (k + 1/2) / S in a mixed order, the same for
    all rows: spread out better than at random, at no cost.

    Args:
        noise: (..., draw, size) standard normal.
        degrees: nu.
    """
    draws = noise.shape[-2]
    mixed = torch.randperm(draws, generator=torch.Generator().manual_seed(draws))
    square = 2.0 * gammaincinv(0.5 * degrees, (mixed.numpy() + 0.5) / draws)
    return noise * torch.from_numpy((degrees / square) ** 0.5).to(noise).unsqueeze(-1)


@dataclass(frozen=True)
class Student:
    """Student's t in several dimensions.

    Attributes:
        location: (..., size) m.
        root: (..., size, size) L, lower triangular.
        degrees: nu, a whole number.
    """

    location: Tensor
    root: Tensor
    degrees: int

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, size) independent draws, of one t."""
        like = self.location
        normal = normal_like((count, len(like)), generator, like)
        square = normal_like((count, self.degrees), generator, like).square().sum(-1, keepdim=True)
        return self.of_noise(normal * (self.degrees / square).sqrt())

    def of_noise(self, noise: Tensor) -> Tensor:
        """(..., draw, size) draws of the t with m = 0, L = I -> draws of this one."""
        return self.location.unsqueeze(-2) + noise @ self.root.mT

    def log_density(self, x: Tensor) -> Tensor:
        """(..., point, size) -> (..., point)."""
        nu, size = self.degrees, x.shape[-1]
        constant = math.lgamma((nu + size) / 2) - math.lgamma(nu / 2)
        constant -= 0.5 * size * math.log(nu * math.pi)
        scale = self.root.diagonal(0, -2, -1).log().sum(-1, keepdim=True)
        return constant - scale - 0.5 * (nu + size) * torch.log1p(self._distance(x) / nu)

    def _distance(self, x: Tensor) -> Tensor:
        """(..., point) |L^-1 (x - m)|^2."""
        rest = (x - self.location.unsqueeze(-2)).mT
        scaled: Tensor = torch.linalg.solve_triangular(self.root, rest, upper=False)
        return scaled.square().sum(-2)

    @classmethod
    def fitted(cls, x: Tensor, weight: Tensor, *, degrees: int) -> Student:
        """What EM finds for weighted points.

        Args:
            x: (..., point, size).
            weight: (..., point), of sum 1.
            degrees: of freedom.
        """
        size, row = x.shape[-1], weight.unsqueeze(-2)
        centre = (row @ x).squeeze(-2)
        rest = x - centre.unsqueeze(-2)
        whole = (rest.mT * row) @ rest
        length = whole.diagonal(0, -2, -1).mean(-1)[..., None, None]
        whole = whole + 1e-9 * length * torch.eye(size).to(whole)
        pseudo = PSEUDO * size * weight.square().sum(-1)[..., None, None]
        found = cls(centre, torch.linalg.cholesky(whole), degrees)
        for _ in range(STEPS):
            pull = row * ((degrees + size) / (degrees + found._distance(x))).unsqueeze(-2)
            location = ((pull @ x) / pull.sum(-1, keepdim=True)).squeeze(-2)
            rest = x - location.unsqueeze(-2)
            scatter = ((rest.mT * pull) @ rest + pseudo * whole) / (1.0 + pseudo)
            found = cls(location, torch.linalg.cholesky(scatter), degrees)
        return found
