"""Two classifiers of a table of rows, each one a score of every class: `table_scores`.

Everything is an inner product, so that rows are few and columns may be many. With the support
videos z_i (their mean rows, centred at the mean of all and divided by the root mean square, so that
no unit matters) and their one-hot labels Y,

    logistic   L a,  a = Y - softmax(L a),  L_ij = STRENGTH (<z_i, z_j> + 1): the mode of Bayesian
               logistic regression whose weights are N(0, STRENGTH)
    kernel     k(z)' (K + NOISE I)^-1 (Y - 1 / way),  k(z, z') = exp(-|z - z'|^2 / m), m the mean
               square distance of two videos: the mean of a Gaussian process on the labels

The first does what rows that a line separates allow; the second bends, and knows that a row far
from all others says nothing. Each is multiplied by the inverse temperature at which it did best on
average, so that equal weights are a fair start.

Source: Böhning (1992) for the bound that steps towards the mode are made on; Nesterov (1983) for
their momentum; Rasmussen and Williams (2006), equation 2.25, for the Gaussian process.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesfs.models.per_batch import once_per_batch
from bayesfs.models.similarity.heads import Products, examples
from bayesfs.models.similarity.scores import FOLDS, Folds, LeftOut
from bayesfs.types import EpisodeBatch

TABLE_HEADS = ("logistic", "kernel")
"""Names of the heads, in order."""

UNIT = (1.2, 8.0)
"""Inverse temperatures at which each head alone did best on average over development tables."""

STRENGTH = 16.0
"""Prior variance of a logistic weight, where rows have a mean square of 1."""

NOISE = 0.3
"""Noise variance of the kernel in units of its diagonal."""

STEPS = 100
"""Steps towards the mode of logistic regression."""

ENTRIES = 4_000_000
"""Entries of the matrices of as many folds as are worked on at a time; bounds the memory."""


@once_per_batch
def table_query_scores(episodes: EpisodeBatch) -> Tensor:
    """(task, video, frame, way, head) scores of every query frame."""
    support, query = _centred(episodes)
    means, label = examples(support, episodes)
    rows = query.flatten(1, 2)
    products = Products(means @ means.mT, rows @ means.mT, rows.square().sum(-1))
    scores = table_scores(products, label)
    return scores.reshape(*query.shape[:3], *scores.shape[2:])


@once_per_batch
def table_left_out_scores(episodes: EpisodeBatch, most: int = FOLDS) -> LeftOut | None:
    """Scores of every support video whose class has another one; None where no class has."""
    support, _ = _centred(episodes)
    means, label = examples(support, episodes)
    if (folds := Folds.of(episodes, label, most)) is None:
        return None
    rows = folds.frames(support).flatten(1, 2)
    found = folds.products(Products(means @ means.mT, rows @ means.mT, rows.square().sum(-1)))
    step = max(1, ENTRIES // (len(label) * label.shape[1] ** 2))
    parts = [
        table_scores(Products(found.gram, cross, square), rest)
        for cross, square, rest in zip(
            torch.split(found.cross, step, 1),
            torch.split(found.square, step, 1),
            torch.split(folds.rest, step, 1),
            strict=True,
        )
    ]
    return folds.left_out(torch.cat(parts, 1))


def table_scores(products: Products, label: Tensor) -> Tensor:
    """(..., query, way, head) score of every query frame for every class.

    Args:
        products: of the features, from any origin.
        label: (..., example, way) one-hot classes; a row of zeros is left out or padding.
    """
    present, exists = label.sum(-1), (label.sum(-2) > 0).to(label)
    count = present.sum(-1)[..., None, None]
    pair = present[..., :, None] * present[..., None, :]
    z = _standardised(products, present)
    size = z.gram.diagonal(dim1=-2, dim2=-1)
    near = 0.5 * (count - 1.0).clamp(min=1.0) / count  # 1 / m, as the mean of |z|^2 is 1

    def kernel(inner: Tensor, square: Tensor) -> Tensor:
        apart = square[..., :, None] + size[..., None, :] - 2.0 * inner
        return (-near * apart.clamp(min=0.0)).exp()

    even = exists / exists.sum(-1, keepdim=True)
    target = (label - even[..., None, :]) * present[..., None]
    eye = torch.eye(label.shape[-2], dtype=label.dtype, device=label.device)
    weight = torch.linalg.solve(kernel(z.gram, size) * pair + NOISE * eye, target)
    similar = kernel(z.cross, z.square) @ weight
    linear = STRENGTH * (z.cross + 1.0) @ _mode(STRENGTH * (z.gram + 1.0) * pair, label, exists)
    unit = torch.tensor(UNIT, dtype=label.dtype, device=label.device)
    scores: Tensor = torch.stack([linear, similar], -1) * unit
    return scores


def _standardised(products: Products, present: Tensor) -> Products:
    """Products of the features centred at the examples' mean and divided by their size."""
    share = present / present.sum(-1, keepdim=True)
    pull = (products.gram @ share[..., None])[..., 0]  # <x_i, c>
    own = (pull * share).sum(-1)[..., None]  # <c, c>
    of_query = (products.cross @ share[..., None])[..., 0]
    gram = products.gram - pull[..., None] - pull[..., None, :] + own[..., None]
    cross = products.cross - pull[..., None, :] - of_query[..., None] + own[..., None]
    square = products.square - 2.0 * of_query + own
    scale = (gram.diagonal(dim1=-2, dim2=-1) * share).sum(-1)[..., None]
    scale = torch.where(scale > torch.finfo(scale.dtype).eps, scale, 1.0)  # all alike: no size
    return Products(gram / scale[..., None], cross / scale[..., None], square / scale)


def _mode(kernel: Tensor, label: Tensor, exists: Tensor) -> Tensor:
    """(..., example, way) weights a = Y - softmax(L a) of logistic regression.

    The curvature of each example's loss is at most 1/2, so that a step

        (I + L / 2) a' = Y - softmax(L a) + L a / 2

    never goes too far; its momentum is k / (k + 3).
    """
    present = label.sum(-1)[..., None]
    eye = torch.eye(label.shape[-2], dtype=label.dtype, device=label.device)
    factor = torch.linalg.cholesky(eye + 0.5 * kernel)
    weight = before = torch.zeros_like(label)
    for step in range(STEPS):
        ahead = weight + step / (step + 3.0) * (weight - before)
        score = kernel @ ahead
        missing = exists[..., None, :] == 0
        chance = score.masked_fill(missing, -torch.inf).softmax(-1)
        right = (label - chance + 0.5 * score) * present
        before, weight = weight, torch.cholesky_solve(right, factor)
    return weight


def _centred(episodes: EpisodeBatch) -> tuple[Tensor, Tensor]:
    """Support and query about the support's mean frame, so that no digits are lost to an offset."""
    mask = episodes.support_mask[..., None]
    total = (episodes.support * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)
    support = (episodes.support - total[:, None, None, None]) * mask
    peak = support.abs().amax((1, 2, 3, 4))
    peak = torch.where(peak > 0, peak, 1.0)
    query = episodes.query - total[:, None, None]
    return support / peak[:, None, None, None, None], query / peak[:, None, None, None]
