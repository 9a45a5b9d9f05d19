"""Similarities of a query to the taught classes, by inner products alone: `head_scores`.

N support videos are few and D features many, so that everything is done in the dual: with the
video means x_i as rows of X, the Gram matrix G = X X', and the cross products C = Q X' of query
frames q, each head is a ratio of sums of entries of G and C. No feature is thrown away, and no axes
fitted elsewhere stand between a query and its class. With class means mu_k and centre
c = mean_k mu_k, the heads are

    cosine     <q, mu_k> / |q| |mu_k|
    ridge      k(q)' (K + ridge I)^-1 Y,  K the centred cosines <x_i - c, x_j - c> / |..| |..|, and
               Y the labels, one column a class, minus 1/way: the mean of a Gaussian process
    whitened   the cosine of q - c and mu_k - c in the metric (I + F)^-1, F the scatter of videos
               about their object in other people's worlds (`WithinScatter`)
    own        the same with F the scatter of this task's own videos about their classes

each divided by its typical size at the best temperature, so that equal weights are a fair start.

Teaching one class more than another must not make everything look like it. Of n_k videos
x_i = m_k + e_i, the mean has |mu_k - c|^2 = |m_k - c|^2 + W / n_k on average, W = E |e|^2: it is
the shorter the more videos it is of, and cosines to it are the larger whatever the query shows;
of <mu_k, c>, W even_k / n_k is noise. So means are brought to one number of videos: with
u = mean_j 1 / n_j, S the mean over classes of |mu_k - c|^2 - W / n_k, and W the pooled variance of
the task's videos about their class means,

    |mu_k - c|^2 (S + W u) / (S + W / n_k),      <mu_k, c> + W (u - 1 / n_k) even_k,

even_k = 1 / way where there is a centre, and the ridge has the noise variance ridge n_k u, so that
every class has the same weight. Nothing changes where all classes have as many videos. A video that
is left out to be asked leaves its class with fewer videos than the others, too.

How sharply similarity tells objects apart differs between worlds. Among hand signs, or goods of one
shelf, two videos of different things are nearly as alike as two of one thing elsewhere. Differences
of plain cosines are small there of themselves; those of cosines about a centre, which are brought
to length 1, are not. After one video of each, which is mostly noise about so small a difference,
they are given back the size that they had: each head is multiplied by

    alike_factor^power,   alike_factor = ((1 - b) / (1 - unlike))^s,   powers `LIKENESS`,

b the mean cosine of two of the task's videos of different classes, unlike the same in other
people's worlds, and s the share of classes with one video. Of the others, videos that are left out
tell the scale.

Source: Snell, Swersky and Zemel (2017) for cosines to class means; Wang et al. (2019), SimpleShot,
for centring; Rasmussen and Williams (2006), equation 2.25, for the ridge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._linalg.directions import unit
from bayesfs._utils.threads import blas_threads
from bayesfs.errors import ShapeError
from bayesfs.models.per_batch import once_per_batch
from bayesfs.types import EpisodeBatch

HEADS = ("cosine", "ridge", "whitened", "own")
"""Names of the heads, in order."""

UNIT = (30.0, 18.0, 21.0, 16.0)
"""Inverse temperatures at which each head alone did best on average over development worlds."""

RIDGE = 0.3
"""Noise variance of the ridge in units of the kernel's diagonal."""

COSINES = ("like", "unlike")
"""What a scatter knows of two videos, if it does."""

LIKENESS = (0.0, 0.5, 1.0, 1.0)
"""Power of `alike_factor` in each head. Over 17 worlds the best log scale of plain cosines after
one video does not go with log(1 - b); that of the ridge has a slope of .7, those of the others of
1. In the pool .5 does as well as .7."""

LIKENESS_LIMITS = 0.05, 2.0
"""Least and most (1 - b) / (1 - unlike) that is gone along with; no world was met beyond."""

OWN_STRENGTH = 4.0
"""How far the task's own scatter stretches the metric, in units of its mean eigenvalue."""


@dataclass(frozen=True)
class WithinScatter:
    """Scatter of videos about their object in other worlds, as a metric (I + F)^-1 of low rank.

    Attributes:
        axes: (input feature, axis) orthonormal.
        excess: (axis,) eigenvalues of F, at least 0.
        videos: how many videos it was learnt from; 0 where that is not known.
        objects: how many objects these show.
        like: mean cosine of two videos of one object in one recording condition; NaN where that is
            not known. Objects count alike.
        unlike: the same of two videos of different objects of one person.
    """

    axes: NDArray[np.float32]
    excess: NDArray[np.float32]
    videos: int = 0
    objects: int = 0
    like: float = math.nan
    unlike: float = math.nan

    def __post_init__(self) -> None:
        if self.axes.ndim != 2 or self.excess.shape != self.axes.shape[1:]:
            raise ShapeError(
                f"expected axes (feature, axis) and excess (axis,), got {self.axes.shape} and "
                f"{self.excess.shape}"
            )
        for name in COSINES:
            if abs(value := getattr(self, name)) > 1.0:
                raise ShapeError(f"expected {name} to be a cosine, between -1 and 1, got {value}")

    @classmethod
    def fit(
        cls, videos: NDArray[np.float64], objects: NDArray[np.int64], rank: int = 128
    ) -> WithinScatter:
        """From unit-norm video means and the object of each.

        F = D S / trace S along the leading axes of the pooled within-object covariance S, less its
        mean eigenvalue among the axes that are left out: what other people's videos vary in, such
        as light and place, counts for less.

        Args:
            videos: (video, input feature).
            objects: (video,) number of the object; those with one video say nothing.
            rank: axes to keep.
        """
        means = np.zeros((objects.max(initial=-1) + 1, videos.shape[1]))
        count = np.bincount(objects).astype(float)
        np.add.at(means, objects, videos)
        rest = videos - means[objects] / count[objects, None]
        keep = count[objects] > 1
        rest = rest[keep] * np.sqrt(count[objects[keep]] / (count[objects[keep]] - 1.0))[:, None]
        counts = len(rest), len(np.unique(objects[keep]))
        if not len(rest) or not rest.any():
            none = np.zeros((videos.shape[1], 0), np.float32)
            return cls(none, np.zeros(0, np.float32), *counts)
        with blas_threads(1):
            _, size, axes = np.linalg.svd(rest, full_matrices=False)
        value = size**2 / (size**2).sum() * videos.shape[1]
        rank = min(rank, int((value > 1e-6 * value[0]).sum()))
        kept = axes[:rank].T.astype(np.float32), value[:rank].astype(np.float32)
        return cls(*kept, *counts)

    @classmethod
    def merged(cls, parts: Sequence[WithinScatter], rank: int = 128) -> WithinScatter:
        """Pooled scatter: the mean of F_i weighted by degrees of freedom, videos less objects.

        Every F_i is relative to its own world's mean eigenvalue, so that no world counts for more
        because its videos differ more.

        Args:
            parts: of the same features, each learnt from two videos of an object or more.
            rank: axes to keep.

        Raises:
            ShapeError: there is none, or the features differ.
        """
        if len({len(each.axes) for each in parts}) != 1:
            raise ShapeError(
                f"expected scatters of the same features, got {[len(p.axes) for p in parts]}"
            )
        freedom = np.array([max(each.videos - each.objects, 0) for each in parts], float)
        share = freedom / freedom.sum() if freedom.any() else np.full(len(parts), 1 / len(parts))
        root = [
            each.axes.astype(float) * np.sqrt(weight * each.excess)
            for each, weight in zip(parts, share, strict=True)
        ]
        axes, size, _ = np.linalg.svd(np.concatenate(root, 1), full_matrices=False)
        rank = min(rank, int((size > 1e-6).sum()))
        counts = sum(each.videos for each in parts), sum(each.objects for each in parts)
        kept = axes[:, :rank].astype(np.float32), np.square(size[:rank]).astype(np.float32)
        return cls(*kept, *counts, *(_known_mean(parts, name) for name in COSINES))


def _known_mean(parts: Sequence[WithinScatter], name: str) -> float:
    """Mean of a cosine over those that know it; NaN where none does."""
    known = [value for each in parts if not math.isnan(value := getattr(each, name))]
    return float(np.mean(known)) if known else math.nan


def likeness(videos: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Mean cosine of two videos of one group, groups counting alike; NaN where none has two.

    Args:
        videos: (video, feature) at unit length.
        groups: (video,) number of the object and the condition that it was recorded in.
    """
    count = np.bincount(groups)
    total = np.zeros((len(count), videos.shape[1]))
    np.add.at(total, groups, videos)
    several = count > 1
    n = count[several]
    pairs = (np.square(total[several]).sum(1) - n) / (n * (n - 1.0))
    return float(pairs.mean()) if len(pairs) else math.nan


def unlikeness(
    videos: NDArray[np.float64], things: NDArray[np.int64], places: NDArray[np.int64]
) -> float:
    """Mean cosine of two videos of different things in one place, places counting alike.

    Args:
        videos: (video, feature) at unit length.
        things: (video,) number of the object.
        places: (video,) number of what is compared within, such as a person and condition.

    Returns:
        The mean; NaN where no place has two things.
    """
    found = []
    for place in np.unique(places):
        own, thing = videos[places == place], things[places == place]
        each = np.stack([own[thing == k].sum(0) for k in np.unique(thing)])
        count = np.unique(thing, return_counts=True)[1]
        pairs = count.sum() ** 2 - np.square(count).sum()
        if pairs:
            found.append((np.square(own.sum(0)).sum() - np.square(each).sum()) / pairs)
    return float(np.mean(found)) if found else math.nan


@dataclass(frozen=True)
class Products:
    """Inner products of a batch of tasks; any leading axes.

    Attributes:
        gram: (..., example, example) of the support videos.
        cross: (..., query, example) of query frames with support videos.
        square: (..., query) of query frames with themselves.
    """

    gram: Tensor
    cross: Tensor
    square: Tensor

    def stretched(self, support: Tensor, query: Tensor, factor: Tensor) -> Products:
        """The same products in the metric I + V diag(factor) V'.

        Args:
            support: (..., example, axis) support videos along V.
            query: (..., query, axis) query frames along V.
            factor: (..., axis).
        """
        scaled = support * factor[..., None, :]
        return Products(
            self.gram + scaled @ support.mT,
            self.cross + query @ scaled.mT,
            self.square + (query.square() * factor[..., None, :]).sum(-1),
        )


@once_per_batch
def support_examples(episodes: EpisodeBatch) -> tuple[Tensor, Tensor]:
    """Mean frame of each support video (task, example, feature), and its class, one-hot.

    Returns:
        (task, example, feature) and (task, example, way); example = way x shot, zero for padding.
    """
    return examples(unit(episodes.support), episodes)


def examples(support: Tensor, episodes: EpisodeBatch) -> tuple[Tensor, Tensor]:
    """`support_examples` of other features (task, way, shot, frame, feature) of the support."""
    mask = episodes.support_mask
    total = (support * mask[..., None]).sum(3) / mask.sum(3).clamp(min=1)[..., None]
    tasks, ways, shots, dim = total.shape
    eye = torch.eye(ways, dtype=support.dtype, device=support.device)
    label = eye[:, None].expand(ways, shots, ways) * episodes.shot_mask[..., None]
    return total.reshape(tasks, -1, dim), label.reshape(tasks, -1, ways)


@dataclass(frozen=True)
class Classes:
    """Which support videos each class has; any leading axes.

    Attributes:
        label: (..., example, way) one-hot classes; a row of zeros is left out or padding.
        count: (..., way) videos.
        mean: (..., way, example) weights that make the class means.
        even: (..., way) 1 over the number of classes, 0 for those without a video.
        usual: (..., 1) mean_j 1 / n_j.
    """

    label: Tensor
    count: Tensor
    mean: Tensor
    even: Tensor
    usual: Tensor

    @classmethod
    def of(cls, label: Tensor) -> Classes:
        """From (..., example, way) one-hot classes."""
        count = label.sum(-2)
        mean = (label / count.clamp(min=1.0)[..., None, :]).mT
        exists = (count > 0).to(label)
        even = exists / exists.sum(-1, keepdim=True).clamp(min=1.0)  # none in padding
        usual = (even / count.clamp(min=1.0)).sum(-1, keepdim=True)
        return cls(label, count, mean, even, usual)

    def gram(self, products: Products) -> Tensor:
        """(..., way, way) inner products of the class means."""
        return self.mean @ products.gram @ self.mean.mT

    def within(self, products: Products) -> Tensor:
        """(..., 1) W, pooled variance of the videos about their class means; 0 if not known."""
        square = products.gram.diagonal(dim1=-2, dim2=-1) * self.label.sum(-1)
        of_means = self.gram(products).diagonal(dim1=-2, dim2=-1) * self.count
        freedom = (self.count - (self.count > 0).to(self.count)).sum(-1).clamp(min=1.0)
        return ((square.sum(-1) - of_means.sum(-1)) / freedom).clamp(min=0.0)[..., None]


def head_scores(products: Products, foreign: Products, label: Tensor) -> Tensor:
    """(..., query, way, head) similarity of every query frame to every class.

    Args:
        products: of the features as they are.
        foreign: of the features in the metric of other worlds.
        label: (..., example, way) one-hot classes; a row of zeros is left out or padding.
    """
    classes = Classes.of(label)
    own, none = _own_metric(products, classes), 0.0 * classes.even
    scores = [
        _cosine(products, classes, none, classes.within(products)),
        _ridge(products, classes),
        _cosine(foreign, classes, classes.even, classes.within(foreign)),
        _cosine(own, classes, classes.even, classes.within(own)),
    ]
    size = torch.tensor(UNIT, dtype=label.dtype, device=label.device)
    return torch.stack(scores, -1) * size


def cosines_about_mean(products: Products, label: Tensor) -> Tensor:
    """(..., query, way) cosine of q - c and mu_k - c, of as many videos as each class has."""
    classes = Classes.of(label)
    return _cosine(products, classes, classes.even, 0.0 * classes.usual)


def alike_factor(gram: Tensor, label: Tensor, unlike: Tensor) -> Tensor:
    """(...) ((1 - b) / (1 - unlike))^s, below 1 where what was taught is alike.

    1 where other people's likeness is not known, or only one class was taught.

    Args:
        gram: (..., example, example) inner products of the support videos.
        label: (..., example, way) one-hot classes; a row of zeros is left out or padding.
        unlike: (...) mean cosine of two videos of different objects of other people, or NaN.
    """
    square = gram.diagonal(dim1=-2, dim2=-1)
    present, count = label.sum(-1), label.sum(-2)
    unit = label / _root(square)[..., None]
    whole = unit.sum(-1)
    total = ((gram @ whole[..., None])[..., 0] * whole).sum(-1)
    within = ((gram @ unit) * unit).sum((-2, -1))
    pairs = present.sum(-1).square() - count.square().sum(-1)
    known = (pairs > 0) & (unlike < 1.0)  # not so of NaN
    between = (total - within) / torch.where(known, pairs, 1.0)
    ratio = (1.0 - between) / torch.where(known, 1.0 - unlike, 1.0)
    single = (count == 1).sum(-1) / (count > 0).sum(-1).clamp(min=1)
    found = ratio.clamp(*LIKENESS_LIMITS).pow(single)
    return torch.where(known, found, 1.0)


def _cosine(products: Products, classes: Classes, centre: Tensor, within: Tensor) -> Tensor:
    """(..., query, way) cosine of q - c and mu_k - c.

    Args:
        products: inner products.
        classes: whose means mu_k are.
        centre: (..., way) weights of the classes that make c.
        within: (..., 1) W by which means are brought to one number of videos, 0 for none.
    """
    usual, noise = within * classes.usual, within / classes.count.clamp(min=1.0)  # of the means
    gram = classes.gram(products)
    pull = (gram @ centre[..., None])[..., 0]  # <mu_k, c>
    own = (pull * centre).sum(-1)[..., None]  # <c, c>
    cross = products.cross @ classes.mean.mT  # <q, mu_k>
    of_query = (cross @ centre[..., None])[..., 0]
    size = gram.diagonal(dim1=-2, dim2=-1) - 2.0 * pull + own
    real = ((size - noise) * classes.even).sum(-1, keepdim=True).clamp(min=0.0)
    equal = within <= 0.0
    longer = (real + usual) / (real + noise).masked_fill(equal, 1.0)
    longer = longer.masked_fill(equal, 1.0)
    pull = pull + (usual - noise) * centre
    inner = cross - pull[..., None, :] - of_query[..., None] + own[..., None]
    query_size = products.square - 2.0 * of_query + own
    return inner / _root(query_size)[..., None] / (_root(size) * longer.sqrt())[..., None, :]


def _ridge(products: Products, classes: Classes) -> Tensor:
    """(..., query, way) posterior mean of one regression a class on centred cosines."""
    centre = (classes.mean * classes.even[..., None]).sum(-2)  # (..., example)
    pull = (products.gram @ centre[..., None])[..., 0]
    own = (pull * centre).sum(-1)[..., None]
    size = products.gram.diagonal(dim1=-2, dim2=-1) - 2.0 * pull + own
    present = classes.label.sum(-1)
    scale = present / _root(size)
    kernel = products.gram - pull[..., None] - pull[..., None, :] + own[..., None]
    kernel = kernel * scale[..., None] * scale[..., None, :]
    target = (classes.label - classes.even[..., None, :]) * present[..., None]
    videos = (classes.label @ classes.count[..., None])[..., 0]  # of each example's class
    noise = (RIDGE * videos * classes.usual).masked_fill(present == 0, RIDGE)
    weight: Tensor = torch.linalg.solve(kernel + torch.diag_embed(noise), target)
    of_query = (products.cross @ centre[..., None])[..., 0]
    inner = products.cross - pull[..., None, :] - of_query[..., None] + own[..., None]
    query_size = products.square - 2.0 * of_query + own
    similar: Tensor = inner * scale[..., None, :] / _root(query_size)[..., None]
    return similar @ weight


def _own_metric(products: Products, classes: Classes) -> Products:
    """Products in the metric (I + F)^-1, F the task's scatter of videos about their classes.

    With residuals R = J X and R R' = U diag(e) U', the axes are V = R' U e^-1/2, and
    (I + F)^-1 = I + V diag(1 / (1 + strength e / mean e) - 1) V'.
    """
    present = classes.label.sum(-1)
    residual = torch.diag_embed(present) - classes.label @ classes.mean  # J, zero for what is out
    value, axes = torch.linalg.eigh(residual @ products.gram @ residual.mT)
    top = value[..., -1:].clamp(min=0.0)
    whole = products.gram.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True)
    real = (value > 1e-6 * top) & (top > 1e-10 * whole)
    turn = residual.mT @ axes / torch.where(real, value, 1.0).sqrt()[..., None, :]
    turn = turn * real[..., None, :]
    count = real.sum(-1, keepdim=True).clamp(min=1)
    even = torch.where(real, value, 0.0).sum(-1, keepdim=True) / count
    share = torch.where(real, value / torch.where(even > 0, even, 1.0), 0.0)
    factor = 1.0 / (1.0 + OWN_STRENGTH * share) - 1.0
    return products.stretched(products.gram @ turn, products.cross @ turn, factor)


def _root(square: Tensor) -> Tensor:
    """Square root of a squared length; a length of zero counts as one, its products being zero."""
    tiny = torch.finfo(square.dtype).eps
    return torch.where(square > tiny, square, 1.0).sqrt()
