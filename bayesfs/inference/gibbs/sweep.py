r"""One sweep of Pólya-Gamma Gibbs sampling over a linear head: `sweep`.

A logistic factor with an exponent, sigma(psi)^(b y) sigma(-psi)^(b (1 - y)), becomes Gaussian in
psi given w ~ PG(b, psi): exp(kappa psi - w psi^2 / 2), kappa = b (y - 1/2). The likelihoods are
such factors in the logits eta_k of one class, given the other classes:

    softmax         psi = eta_k - log sum_{j != k} exp eta_j, with a new w for each class in turn;
    one-vs-each     psi = eta_y - eta_c for all c != y, with one w for each such pair.

So beta_k = (z_k, u_k) ~ N(0, I) has a Gaussian conditional, drawn exactly. The log scale of a task,
e ~ N(0, 1), is drawn twice, by elliptical slices: once with z fixed, once with the weights
w = exp(spread e) z fixed. Either alone mixes slowly where the other mixes well.

Source: Polson, Scott and Windle (2013), sections 3.1 and 6.3 (multinomial, after Holmes and Held),
refs.bib: polson2013; Snell and Zemel (2021) for one-vs-each, refs.bib: snell2021; Murray, Adams and
MacKay (2010), Elliptical slice sampling, refs.bib: murray2010; Yu and Meng (2011), To center or not
to center, refs.bib: yu2011.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from bayesfs._distributions.keys import Keys
from bayesfs._distributions.polya_gamma import sample_polya_gamma_of
from bayesfs.errors import NotPositiveDefiniteError
from bayesfs.protocols import LinearLogits


@dataclass(frozen=True)
class GibbsState:
    """Where the chains stand.

    Attributes:
        e: (chain, task) log scales.
        beta: (chain, task, way, p + q) weights and offsets of each class.
    """

    e: Tensor
    beta: Tensor

    @classmethod
    def from_prior(cls, head: LinearLogits, keys: Keys) -> GibbsState:
        """Independent draws; keys are (chain, task)."""
        ways, size = head.exists.shape[1], head.scaled.shape[-1] + head.fixed.shape[-1]
        e, beta = keys.fold_in(0), keys.fold_in(1).extend(ways, size)
        return cls(e.normal().to(head.scaled), beta.normal().to(head.scaled))


def sweep(head: LinearLogits, state: GibbsState, keys: Keys) -> GibbsState:
    """Every latent of every chain and task once, log scales twice; keys are (chain, task)."""
    design = _design(head, state.e)
    update = _softmax if head.link == "softmax" else _one_vs_each
    state = replace(state, beta=update(head, design, state.beta, keys.fold_in(0)))
    return _rescale(head, state, keys.fold_in(1)) if head.spread else state


def log_likelihood(head: LinearLogits, eta: Tensor) -> Tensor:
    """(..., task) log likelihood of logits eta (..., task, row, way)."""
    own = _own(head, eta)
    if head.link == "softmax":
        exists = head.exists[:, None]
        terms = own[..., 0] - eta.masked_fill(~exists, -math.inf).logsumexp(-1)
        return (head.weight * terms).sum(-1)
    return (_pairs(head) * logsigmoid(own - eta)).sum((-2, -1))


def _design(head: LinearLogits, e: Tensor) -> Tensor:
    """(chain, task, row, p + q)."""
    scale = (head.spread * e).exp()[..., None, None]
    return torch.cat([scale * head.scaled, head.fixed.expand(*e.shape, -1, -1)], -1)


def _softmax(head: LinearLogits, design: Tensor, beta: Tensor, keys: Keys) -> Tensor:
    """Class by class: w given the logits, then the class's weights given w."""
    beta = beta.clone()
    eta = (design @ beta.mT).masked_fill(~head.exists[:, None], -math.inf)
    for k in range(beta.shape[2]):
        of_rows, of_weights = _by_row(head, keys.fold_in(2 * k)), keys.fold_in(2 * k + 1)
        rest = torch.cat([eta[..., :k], eta[..., k + 1 :]], -1).logsumexp(-1)
        alone = torch.isinf(rest)  # no other class, or padding
        b = head.weight * head.exists[:, k, None] * ~alone
        rest = rest.masked_fill(alone, 0.0)
        psi = torch.where(b > 0, eta[..., k] - rest, 0.0)
        w = sample_polya_gamma_of(b, psi, of_rows)
        linear = w * rest + b * ((head.label == k).to(b) - 0.5)
        beta[:, :, k] = _gaussian(design, w, linear, of_weights)
        now = (design @ beta[:, :, k, :, None])[..., 0]
        eta[..., k] = torch.where(head.exists[:, k, None], now, -math.inf)
    return beta


def _one_vs_each(head: LinearLogits, design: Tensor, beta: Tensor, keys: Keys) -> Tensor:
    """All w given the logits, then class by class its weights given w and the other classes."""
    beta = beta.clone()
    eta = design @ beta.mT
    pairs = _pairs(head).expand(eta.shape)
    of_pairs = _by_row(head, keys.fold_in(0)).extend(beta.shape[2])
    w = sample_polya_gamma_of(pairs, _own(head, eta) - eta, of_pairs)
    for k in range(beta.shape[2]):
        mine = (head.label == k).to(eta)
        precision = mine * w.sum(-1) + w[..., k]
        right = mine * (w * eta + 0.5 * pairs).sum(-1)
        wrong = w[..., k] * _own(head, eta)[..., 0] - 0.5 * pairs[..., k]
        beta[:, :, k] = _gaussian(design, precision, right + wrong, keys.fold_in(1 + k))
        eta[..., k] = (design @ beta[:, :, k, :, None])[..., 0]
    return beta


def _gaussian(design: Tensor, precision: Tensor, linear: Tensor, keys: Keys) -> Tensor:
    """Draw of N(0, I) times exp(sum_r linear_r eta_r - precision_r eta_r^2 / 2), eta = design beta.

    Args:
        design: (chain, task, row, size).
        precision: (chain, task, row).
        linear: (chain, task, row).
        keys: (chain, task).

    Raises:
        NotPositiveDefiniteError: rounding made the precision indefinite.
    """
    eye = torch.eye(design.shape[-1], dtype=design.dtype, device=design.device)
    matrix = eye + design.mT @ (precision[..., None] * design)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed.any():
        raise NotPositiveDefiniteError(
            "the conditional precision of a class has no Cholesky factor; are the features of a "
            "very different scale from 1? Try double precision"
        )
    right = torch.linalg.solve_triangular(factor, design.mT @ linear[..., None], upper=False)
    noise = keys.extend(right.shape[-2]).normal().to(right)[..., None]
    drawn: Tensor = torch.linalg.solve_triangular(factor.mT, right + noise, upper=True)
    return drawn[..., 0]


def _rescale(head: LinearLogits, state: GibbsState, keys: Keys) -> GibbsState:
    """New log scales, with z fixed and then with the weights fixed."""
    size = head.scaled.shape[-1]
    z, u = state.beta[..., :size], state.beta[..., size:]
    part, rest = head.scaled @ z.mT, head.fixed @ u.mT

    def of_data(e: Tensor) -> Tensor:
        return log_likelihood(head, (head.spread * e).exp()[..., None, None] * part + rest)

    e = elliptical_slice(state.e, of_data, keys.fold_in(0))
    exists = head.exists[..., None]
    square = ((head.spread * e).exp() ** 2) * (z.square() * exists).sum((-2, -1))
    count = size * head.exists.to(square).sum(-1)

    def of_weights(new: Tensor) -> Tensor:
        return -count * head.spread * new - 0.5 * square * (-2 * head.spread * new).exp()

    new = elliptical_slice(e, of_weights, keys.fold_in(1))
    ratio = (head.spread * (e - new)).exp()[..., None, None]
    z = torch.where(exists, ratio * z, z)
    return GibbsState(new, torch.cat([z, u], -1))


def elliptical_slice(x: Tensor, log_likelihood: Callable[[Tensor], Tensor], keys: Keys) -> Tensor:
    """A transition that keeps N(x; 0, 1) exp(log_likelihood(x)), for each entry of x apart.

    Source: Murray, Adams and MacKay (2010), figure 2.
    """
    other = keys.fold_in(0).normal().to(x)
    level = log_likelihood(x) + keys.fold_in(1).uniform().log().to(x)
    angle = 2 * math.pi * keys.fold_in(2).uniform().to(x)
    low, high = angle - 2 * math.pi, angle
    result, open_ = x.clone(), torch.ones_like(x, dtype=torch.bool)
    for proposals in itertools.count(3):
        if not open_.any():
            break
        proposal = x * angle.cos() + other * angle.sin()
        inside = log_likelihood(proposal) > level
        tiny = high - low < 1e-6  # the slice is x itself, up to rounding
        result = torch.where(open_ & inside & ~tiny, proposal, result)
        open_ = open_ & ~inside & ~tiny
        low = torch.where(angle < 0, angle, low)
        high = torch.where(angle >= 0, angle, high)
        angle = low + (high - low) * keys.fold_in(proposals).uniform().to(x)
    return result


def _pairs(head: LinearLogits) -> Tensor:
    """(task, row, way): exponent of sigmoid(eta_y - eta_c); 0 for c = y and for padding."""
    ways = torch.arange(head.exists.shape[1], device=head.label.device)
    other = (head.label[..., None] != ways) & head.exists[:, None]
    return head.weight[..., None] * other


def _own(head: LinearLogits, eta: Tensor) -> Tensor:
    """(..., task, row, 1): logit of each row's own class."""
    return eta.gather(-1, head.label[..., None].expand(*eta.shape[:-1], 1))


def _by_row(head: LinearLogits, keys: Keys) -> Keys:
    """(chain, task) -> (chain, task, row), by the place among the rows that exist."""
    place = (head.weight > 0).cumsum(-1).cpu()
    return Keys(keys.value[..., None]).fold_in(place)
