r"""Kernels of Stein variational gradient descent: start with `LinearStein`.

A kernel k moves particles x_1, ..., x_P of a density p with score s = grad log p along

    phi(x_i) = 1/P sum_j [ k(x_j, x_i) s(x_j) + grad_{x_j} k(x_j, x_i) ],

and measures how far they are from p by the squared kernelised Stein discrepancy, in which u is the
Stein kernel,

    KSD^2   = 1/P^2 sum_ij u(x_i, x_j)        (the squared length of phi, and minus dKL/dt),
    u(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + div_x grad_y k.

Which one? Radial kernels (`RBFStein`, `IMQ`) see distances only; in many dimensions all distances
are alike, and the particles collapse. `LinearStein` matches first and second moments at any
dimension, and is exact for Gaussians. `PerBlock` applies a kernel to the sites, or rows, or single
latents of the model apart. Bandwidths and moments follow the particles, and count as constants in
gradients.

Source: Liu and Wang (2016), eq. 8; Liu, Lee and Jordan (2016), eq. 6; refs.bib: liu2016,
liu2016ksd.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from bayesfs.errors import InferenceError
from bayesfs.inference.program.sites import Block

Pair = tuple[Tensor, Tensor]


class SteinKernel(Protocol):
    """A positive definite kernel, scalar or matrix valued."""

    def direction(self, x: Tensor, score: Tensor, blocks: Sequence[Block]) -> Tensor:
        """(..., particle, size) -> phi (..., particle, size); `blocks` tell where sites lie."""
        ...

    def discrepancy(self, x: Tensor, score: Tensor, blocks: Sequence[Block]) -> Pair:
        """KSD^2 (...), and what P independent draws of p would have on average (...).

        As u(x, .) has mean 0 under p, the latter is the mean of u(x_i, x_i) / P.
        """
        ...


@dataclass(frozen=True)
class LinearStein:
    r"""First and second moments: k(x, y) = 1 + (x - m)' S^-1 (y - m).

    m and S are mean and covariance of the particles. The direction is affine in x,

        phi(x) = E s + (E[s (x - m)'] + I) S^-1 (x - m),

    and it is 0 exactly where Stein's identity holds for all affine functions: the optimum of a
    full-rank Gaussian variational family. For a Gaussian p, mean and covariance are then exact,
    in any dimension. With S diagonal, kernel and direction take each latent apart (a mean-field
    family), which needs no more particles than two.

    Attributes:
        structure: "full", which needs more particles than latents; "diagonal"; or "auto", which is
            "full" where there are at least twice as many particles as latents.

    Source: Liu and Wang (2018), Stein variational gradient descent as moment matching, theorem
    3.3; refs.bib: liu2018. S^-1 in the kernel is ours: it makes the speed of covariances
    independent of their scale.
    """

    structure: Literal["auto", "full", "diagonal"] = "auto"

    def direction(self, x: Tensor, score: Tensor, blocks: Sequence[Block]) -> Tensor:
        """Affine in x; see the class."""
        centred = x - x.mean(-2, keepdim=True)
        mean = score.mean(-2, keepdim=True)
        if self._is_full(x):
            factor, moment = self._full(centred, score)
            return mean + centred @ torch.cholesky_solve(moment.mT, factor)
        variance, moment = self._diagonal(centred, score)
        return torch.addcmul(mean, centred, moment / variance)

    def discrepancy(self, x: Tensor, score: Tensor, blocks: Sequence[Block]) -> Pair:
        """|E s|^2 + tr M S^-1 M', with M = E[s (x - m)'] + I."""
        count = x.shape[-2]
        centred = x - x.mean(-2, keepdim=True)
        squared = score.mean(-2).square().sum(-1)
        if self._is_full(x):
            factor, moment = self._full(centred, score)
            inverse = torch.cholesky_inverse(factor)
            white = centred @ inverse
            squared = squared + (moment @ inverse * moment).sum((-2, -1))
            own = score.square().sum(-1) * (1 + (white * centred).sum(-1))
            own = own + 2 * (score * white).sum(-1)
            trace = inverse.diagonal(0, -2, -1).sum(-1)
        else:
            variance, moment = self._diagonal(centred, score)
            white = centred / variance
            squared = squared + (moment.square() / variance).sum((-2, -1))
            own = (score.square() * (1 + white * centred) + 2 * score * white).sum(-1)
            trace = (1 / variance).sum((-2, -1))
        return squared, (own.mean(-1) + trace) / count

    def _is_full(self, x: Tensor) -> bool:
        particles, size = x.shape[-2:]
        if self.structure == "full" and particles <= size:
            raise InferenceError(
                f"LinearStein(structure='full') needs more particles than latents, got {particles} "
                f"particles of {size} latents; use 'diagonal' or more particles"
            )
        if self.structure == "auto":
            return size > 1 and particles >= 2 * size
        return self.structure == "full"

    def _full(self, centred: Tensor, score: Tensor) -> Pair:
        """Cholesky factor of S (..., size, size), and M."""
        count = centred.shape[-2]
        covariance = centred.mT @ centred / count
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if failed.any():
            raise InferenceError(
                "the particles lie in a plane, so their covariance has no inverse; start them "
                "apart, or use LinearStein('diagonal')"
            )
        eye = torch.eye(centred.shape[-1], dtype=centred.dtype, device=centred.device)
        return factor, score.mT @ centred / count + eye

    def _diagonal(self, centred: Tensor, score: Tensor) -> Pair:
        """Diagonals of S and M, each (..., 1, size)."""
        tiny = torch.finfo(centred.dtype).tiny
        variance = centred.square().mean(-2, keepdim=True).clamp_min(tiny)
        return variance, (centred * score).mean(-2, keepdim=True) + 1


@dataclass(frozen=True)
class _Radial:
    """k(x, y) = f(|x - y|^2 / h^2).

    Attributes:
        scale: h; None takes a multiple of the median distance between particles.
    """

    scale: float | None = None

    def direction(self, x: Tensor, score: Tensor, blocks: Sequence[Block]) -> Tensor:
        """Attraction to high density by neighbours' scores, repulsion from neighbours."""
        distance, scale = self._distance(x)
        value, slope, _ = self.profile(distance / scale)
        push = -2 * slope / scale
        moved = value @ score + push.sum(-1, keepdim=True) * x - push @ x
        return moved / x.shape[-2]

    def discrepancy(self, x: Tensor, score: Tensor, blocks: Sequence[Block]) -> Pair:
        """Mean of u over all pairs; see the module."""
        count, size = x.shape[-2:]
        distance, scale = self._distance(x)
        value, slope, bend = self.profile(distance / scale)
        along = score @ x.mT  # s(x_i) . x_j
        gap = along.diagonal(0, -2, -1).unsqueeze(-1) - along  # s(x_i) . (x_i - x_j)
        trace = -(2 * size * slope + 4 * bend * distance / scale) / scale
        u = value * (score @ score.mT) - 2 * slope / scale * (gap + gap.mT) + trace
        own = u.diagonal(0, -2, -1).mean(-1)
        return u.mean((-2, -1)), own / count

    def profile(self, ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F, f' and f'' at |x - y|^2 / h^2."""
        raise NotImplementedError

    def _spread(self, median: Tensor, count: int) -> Tensor:
        """h^2, given the median squared distance."""
        return median

    def _distance(self, x: Tensor) -> Pair:
        """Squared distances (..., particle, particle) and h^2 (..., 1, 1)."""
        distance = _squared_distances(x)
        if self.scale is not None:
            return distance, x.new_full((), self.scale**2)
        median = distance.flatten(-2).median(-1).values[..., None, None]
        return distance, self._spread(median, x.shape[-2]).clamp_min(torch.finfo(x.dtype).tiny)


@dataclass(frozen=True)
class RBFStein(_Radial):
    """k(x, y) = exp(-|x - y|^2 / (2 l^2)); by default l^2 = median / (2 log(P + 1)).

    Source: Liu and Wang (2016), section 5; refs.bib: liu2016.
    """

    def profile(self, ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F(t) = exp(-t / 2)."""
        value = (-0.5 * ratio).exp()
        return value, -0.5 * value, 0.25 * value

    def _spread(self, median: Tensor, count: int) -> Tensor:
        return median / (2 * math.log(count + 1))


@dataclass(frozen=True)
class IMQ(_Radial):
    """Inverse multiquadric, k(x, y) = (1 + |x - y|^2 / h^2)^(-1/2); by default h^2 = median.

    Its tails are heavy, so that its discrepancy goes to 0 only if the particles do converge.

    Source: Gorham and Mackey (2017), Measuring sample quality with kernels, theorem 8;
    refs.bib: gorham2017.
    """

    def profile(self, ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F(t) = (1 + t)^(-1/2)."""
        base = 1 + ratio
        value = base.rsqrt()
        return value, -0.5 * value / base, 0.75 * value / base.square()


@dataclass(frozen=True)
class PerBlock:
    """One kernel apart on every block of the latents: message passing, or graphical, SVGD.

    A latent's move then depends on its own block only, whose dimension is small, so that a radial
    kernel does not collapse. What holds at the fixed point is Stein's identity within each block,
    with all other latents integrated out.

    Attributes:
        kernel: of a block.
        by: what a block is: a "site" of the model, a "row" of a site (its last axis: the features
            of one class), or a single "latent".

    Source: Zhuo et al. (2018), Message passing Stein variational gradient descent, which takes
    Markov blankets; refs.bib: zhuo2018. Here a block sees itself only, as in a non-centred
    hierarchy everything is in the Markov blanket of the scales.
    """

    kernel: SteinKernel
    by: Literal["site", "row", "latent"] = "site"

    def direction(self, x: Tensor, score: Tensor, blocks: Sequence[Block]) -> Tensor:
        """Each block's own direction."""
        parts = []
        for block, width in self._widths(blocks):
            z, s = (_grouped(t[..., block.slice], width) for t in (x, score))
            parts.append(_ungrouped(self.kernel.direction(z, s, ())))
        return torch.cat(parts, -1)

    def discrepancy(self, x: Tensor, score: Tensor, blocks: Sequence[Block]) -> Pair:
        """Sum over blocks: the kernel is block diagonal."""
        totals = [x.new_zeros(x.shape[:-2]), x.new_zeros(x.shape[:-2])]
        for block, width in self._widths(blocks):
            z, s = (_grouped(t[..., block.slice], width) for t in (x, score))
            pair = self.kernel.discrepancy(z, s, ())
            totals = [a + b.sum(-1) for a, b in zip(totals, pair, strict=True)]
        return totals[0], totals[1]

    def _widths(self, blocks: Sequence[Block]) -> Iterator[tuple[Block, int]]:
        for block in blocks:
            whole = block.stop - block.start
            row = block.shape[-1] if block.shape else 1
            yield block, {"site": whole, "row": row, "latent": 1}[self.by]


@dataclass(frozen=True)
class Mixture:
    """A weighted sum of kernels, which is a kernel again.

    Attributes:
        kernels: the terms.
        weights: one above 0 for each; all 1 if None.
    """

    kernels: tuple[SteinKernel, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.kernels or (self.weights and len(self.weights) != len(self.kernels)):
            raise InferenceError("expected kernels, and one weight for each of them or none")
        if self.weights and min(self.weights) <= 0:
            raise InferenceError(f"expected weights above 0, got {self.weights}")

    def direction(self, x: Tensor, score: Tensor, blocks: Sequence[Block]) -> Tensor:
        """Weighted sum."""
        total = torch.zeros_like(x)
        for weight, kernel in self._terms():
            total = total + weight * kernel.direction(x, score, blocks)
        return total

    def discrepancy(self, x: Tensor, score: Tensor, blocks: Sequence[Block]) -> Pair:
        """Weighted sum."""
        pairs = [(w, k.discrepancy(x, score, blocks)) for w, k in self._terms()]
        squared, expected = (torch.stack([w * p[i] for w, p in pairs]).sum(0) for i in (0, 1))
        return squared, expected

    def _terms(self) -> Iterator[tuple[float, SteinKernel]]:
        yield from zip(self.weights or (1.0,) * len(self.kernels), self.kernels, strict=True)


def _squared_distances(x: Tensor) -> Tensor:
    """(..., particle, particle), by products: exact enough for a bandwidth, 0 on the diagonal."""
    centred = x - x.mean(-2, keepdim=True)
    square = centred.square().sum(-1)
    gram = centred @ centred.mT
    distance = (square.unsqueeze(-1) + square.unsqueeze(-2) - 2 * gram).clamp_min(0)
    off_diagonal = 1 - torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    return distance * off_diagonal


def _grouped(x: Tensor, width: int) -> Tensor:
    """(..., particle, group x width) -> (..., group, particle, width)."""
    return x.reshape(*x.shape[:-1], -1, width).transpose(-3, -2)


def _ungrouped(x: Tensor) -> Tensor:
    """(..., group, particle, width) -> (..., particle, group x width)."""
    return x.transpose(-3, -2).flatten(-2)
