"""A multivariate Student's t, and its fit to weighted points: `Student`.

    q(x) = t_nu(x; m, L L'),

a density whose tails are heavy enough to propose from, and which a few hundred weighted points of
an unknown density determine. The fit is EM: with the weight w_i of a point and
u_i = (nu + D) / (nu + |L^-1 (x_i - m)|^2), which makes little of far points,

    m = sum_i w_i u_i x_i / sum_i w_i u_i,
    S = (sum_i w_i u_i (x_i - m)(x_i - m)' + c C) / (1 + c),

with C the covariance of all points: some pseudo-points c keep S from collapsing onto few.

Source: Liu and Rubin (1995), ML estimation of the t distribution using EM and its extensions.
refs.bib: liu1995.
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
class Student:
    """Student's t in several dimensions.

    Attributes:
        location: (size,) m.
        root: (size, size) L, lower triangular.
        degrees: nu, a whole number.
    """

    location: Tensor
    root: Tensor
    degrees: int

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, size) independent draws."""
        like = self.location
        normal = normal_like((count, len(like)), generator, like)
        square = normal_like((count, self.degrees), generator, like).square().sum(-1, keepdim=True)
        return like + (normal * (self.degrees / square).sqrt()) @ self.root.mT

    def log_density(self, x: Tensor) -> Tensor:
        """(point, size) -> (point,)."""
        nu, size = self.degrees, x.shape[-1]
        constant = math.lgamma((nu + size) / 2) - math.lgamma(nu / 2)
        constant -= 0.5 * size * math.log(nu * math.pi)
        scale = self.root.diagonal().log().sum()
        return constant - scale - 0.5 * (nu + size) * torch.log1p(self._distance(x) / nu)

    def _distance(self, x: Tensor) -> Tensor:
        """(point,) |L^-1 (x - m)|^2."""
        rest = (x - self.location).mT
        scaled: Tensor = torch.linalg.solve_triangular(self.root, rest, upper=False)
        return scaled.square().sum(0)

    @classmethod
    def fitted(cls, x: Tensor, weight: Tensor, *, degrees: int) -> Student:
        """What EM finds for weighted points.

        Args:
            x: (point, size).
            weight: (point,), of sum 1.
            degrees: of freedom.
        """
        size = x.shape[-1]
        centre = weight @ x
        whole = ((x - centre).mT * weight) @ (x - centre)
        whole = whole + 1e-9 * whole.diagonal().mean() * torch.eye(size).to(whole)
        pseudo = PSEUDO * size * float(weight.square().sum())
        found = cls(centre, torch.linalg.cholesky(whole), degrees)
        for _ in range(STEPS):
            pull = weight * (degrees + size) / (degrees + found._distance(x))
            location = (pull @ x) / pull.sum()
            rest = x - location
            scatter = ((rest.mT * pull) @ rest + pseudo * whole) / (1.0 + pseudo)
            found = cls(location, torch.linalg.cholesky(scatter), degrees)
        return found
