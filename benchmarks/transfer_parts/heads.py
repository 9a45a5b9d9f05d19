"""Simple heads on whole videos, each with a temperature: start with `Lesson`, then `Heads`.

A video is the mean of its frames' features, scaled to length 1. With x the support videos, c their
mean (each object counting alike) and m_k the mean of object k's videos, the score of a video q is

    cosine     cos(q, m_k)
    centred    cos(q - c, m_k - c)
    whitened   cos(W (q - c), W (m_k - c)),  W^-2 = S/2 + tr(S)/(2 D) I,  S the scatter of videos
               about their object in the people's worlds, each world counting alike
    knn        max over videos x of object k of cos(q - c, x - c)
    logistic   logistic regression of x - c (C = 100)

and p(k | q) is proportional to exp(scale score_k). The scale (one over the temperature) is the
best of a grid for the log score, either of left-out videos of the task's own support, or of tasks
of the people's worlds, worlds counting alike. `pool` is the geometric mean of the five.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from bayesfs.types import EpisodeBatch
from transfer_parts.methods import Answer, Bools, Floats, Ints
from transfer_parts.tasks import Sizes, draw_tasks
from transfer_parts.worlds import World

Score = Callable[[Floats, Ints, Floats], Floats]
"""(support (n, feature), label (n,), query (q, feature)) -> (q, way)."""

COSINES = np.geomspace(2.0, 64.0, 31)
SHRINK = 0.5


@dataclass(frozen=True, eq=False)
class Videos:
    """One task at the level of videos.

    Attributes:
        support: (n, feature) of length 1.
        label: (n,) class of each.
        query: (q, feature) of length 1.
    """

    support: Floats
    label: Ints
    query: Floats

    @classmethod
    def of(cls, task: EpisodeBatch) -> Videos:
        """The videos of a batch of one task."""
        means, present = _video_means(task.support[0].numpy(), task.support_mask[0].numpy())
        query, _ = _video_means(task.query[0].numpy(), task.query_mask[0].numpy())
        label = np.nonzero(present)[0]
        return cls(means[present], label, query)

    def whitened(self, whitening: Whitening) -> Videos:
        """The same task in other coordinates."""
        return Videos(whitening(self.support), self.label, whitening(self.query))

    def small(self) -> Videos:
        """The same inner products with the support, and lengths, in n + 1 dimensions.

        Coordinates in a basis of the support's span, and what is left of a query's length.
        """
        basis, coordinates = np.linalg.qr(self.support.T)  # (feature, n), (n, n)
        inside = self.query @ basis
        left = np.square(self.query).sum(1) - np.square(inside).sum(1)
        return Videos(
            np.pad(coordinates.T, ((0, 0), (0, 1))),
            self.label,
            np.column_stack([inside, np.sqrt(left.clip(min=0.0))]),
        )

    def left_out(self, score: Score) -> tuple[Floats, Ints]:
        """Scores of each support video by the others, and its label, where another shows it."""
        scores, labels = [], []
        for i, label in enumerate(self.label):
            rest = np.arange(len(self.label)) != i
            if label in self.label[rest]:
                one = score(self.support[rest], self.label[rest], self.support[i : i + 1])
                scores.append(one)
                labels.append(label)
        way = int(self.label.max()) + 1
        return np.concatenate([np.zeros((0, way)), *scores]), np.array(labels, np.int64)


@dataclass(frozen=True, eq=False)
class Whitening:
    """x W up to a factor, for the scatter S = V diag(s) V^T shrunk by half to tr(S)/D I.

    Attributes:
        axes: (feature, k) V.
        gain: (k,) what is multiplied along each axis, less 1.
    """

    axes: Floats
    gain: Floats

    @classmethod
    def of(cls, worlds: Sequence[World]) -> Whitening | None:
        """Of the scatter of videos about their object; None where no object has two videos."""
        parts = [r for r in map(residuals, worlds) if len(r)]
        if not parts:
            return None
        rows = np.concatenate(parts) / np.sqrt(len(parts))
        _, sd, axes = np.linalg.svd(rows, full_matrices=False)
        isotropic = SHRINK * np.square(sd).sum() / rows.shape[1]
        if isotropic == 0.0:
            return None
        gain = np.sqrt(isotropic / ((1 - SHRINK) * np.square(sd) + isotropic)) - 1
        return cls(axes.T, gain)

    def __call__(self, x: Floats) -> Floats:
        """(n, feature) -> (n, feature)."""
        return np.asarray(x + ((x @ self.axes) * self.gain) @ self.axes.T)


def residuals(world: World) -> Floats:
    """(video, feature) less their object's mean; their sum of squares estimates the scatter."""
    table = world.videos
    frames = world.embeddings.features.astype(np.float64)
    videos = _unit(np.add.reduceat(frames, table.start))
    count = np.bincount(table.object)
    means = np.stack([videos[table.object == k].mean(0) for k in range(len(count))])
    several = count[table.object] > 1
    rest = (videos - means[table.object])[several]
    return np.asarray(rest / np.sqrt(max(len(rest) - int((count > 1).sum()), 1)))


def cosine(x: Floats, label: Ints, q: Floats) -> Floats:
    """Cosine with the mean of each class."""
    return _unit(q) @ _unit(_class_means(x, label)).T


def centred(x: Floats, label: Ints, q: Floats) -> Floats:
    """The same about the mean of the support."""
    centre = _class_means(x, label).mean(0)
    return cosine(x - centre, label, q - centre)


def knn(x: Floats, label: Ints, q: Floats) -> Floats:
    """Cosine with the nearest video of each class, about the mean of the support."""
    centre = _class_means(x, label).mean(0)
    near = _unit(q - centre) @ _unit(x - centre).T
    return np.stack([near[:, label == k].max(1) for k in range(int(label.max()) + 1)], 1)


def logistic(x: Floats, label: Ints, q: Floats) -> Floats:
    """Logits of logistic regression, about the mean of the support."""
    centre = _class_means(x, label).mean(0)
    fitted = LogisticRegression(C=100.0, max_iter=2000).fit(x - centre, label)
    logits = np.asarray(fitted.decision_function(q - centre))
    return np.stack([-logits / 2, logits / 2], 1) if logits.ndim == 1 else logits


SCORES: Mapping[str, Score] = {
    "cosine": cosine,
    "centred": centred,
    "whitened": centred,
    "knn": knn,
    "logistic": logistic,
}
SCALES: Mapping[str, Floats] = {
    name: COSINES / 10 if name == "logistic" else COSINES for name in SCORES
}
FIXED: Mapping[str, float] = {name: float(grid[len(grid) // 2]) for name, grid in SCALES.items()}
"""Where neither a left-out video nor another world tells the scale."""

Tuning = str
"""What told the scale: "left out", "people", or "fixed" where neither can."""


@dataclass(frozen=True, eq=False)
class HeadAnswers:
    """What the heads say of one task.

    Attributes:
        answers: (head, tuning) -> answer; its novelty is minus the largest probability.
        distance: head -> (query,) minus the largest cosine.
    """

    answers: Mapping[tuple[str, Tuning], Answer]
    distance: Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class Heads:
    """The heads at one number of videos.

    Attributes:
        whitening: of the people's worlds; None leaves `whitened` out.
        scales: head -> scale learnt on the people's worlds; empty where there are none.
    """

    whitening: Whitening | None
    scales: Mapping[str, float]

    def answer(self, task: EpisodeBatch) -> HeadAnswers:
        """Every head with every tuning that the task allows."""
        spaces = head_videos(task, self.whitening)
        scores = {name: SCORES[name](v.support, v.label, v.query) for name, v in spaces.items()}
        tunings = {"people": self.scales} if self.scales else {}
        folds = {name: v.left_out(SCORES[name]) for name, v in spaces.items()}
        if all(len(label) for _, label in folds.values()):
            tunings["left out"] = {
                name: best_scale(name, [nll_curve(name, *fold)]) for name, fold in folds.items()
            }
        answers = {}
        for tuning, scales in (tunings or {"fixed": FIXED}).items():
            logits = {name: scales[name] * score for name, score in scores.items()}
            logits["pool"] = np.mean([log_softmax(z, -1) for z in logits.values()], 0)
            for name, z in logits.items():
                prob = np.exp(log_softmax(z, -1))
                answers[name, tuning] = Answer(prob, novelty=-prob.max(1))
        distance = {name: -s.max(1) for name, s in scores.items() if name != "logistic"}
        return HeadAnswers(answers, distance)


@dataclass(frozen=True, eq=False)
class Lesson:
    """What the heads may learn from: the people's worlds.

    Attributes:
        worlds: of the people.
        sizes: of the tasks that scales are learnt on.
        seed: of these tasks.
    """

    worlds: tuple[World, ...]
    sizes: Sizes
    seed: int

    @cached_property
    def whitening(self) -> Whitening | None:
        """Of all worlds with features of the same backbone."""
        return Whitening.of([w for w in self.worlds if w.comparable])

    @cached_property
    def folds(self) -> list[list[tuple[World, Whitening | None]]]:
        """Of each world, what tasks are drawn from, with a whitening that has not seen its objects.

        That of the other worlds of its backbone; a world without any is parted into two halves of
        its objects.
        """
        out = []
        for world in self.worlds:
            peers = [o for o in self.worlds if o is not world and o.seen_from(world).comparable]
            out.append([(world, Whitening.of(peers))] if peers else self._halves(world))
        return out

    def _halves(self, world: World) -> list[tuple[World, Whitening | None]]:
        order = np.random.default_rng(self.seed).permutation(world.objects)
        one, two = (world.only(np.sort(order[i::2])) for i in range(2))
        return [(one, Whitening.of([two])), (two, Whitening.of([one]))]

    def heads(self, shots: int) -> Heads:
        """The heads, with scales for so many videos of each object."""
        curves: dict[str, list[Floats]] = {}
        for parts in self.folds:
            scored: dict[str, list[tuple[Floats, Ints]]] = {}
            for world, whitening in parts:
                for task in draw_tasks(world, shots, self.sizes, seed=self.seed):
                    label = task.query_labels[0].numpy()
                    taught = label >= 0
                    for name, v in head_videos(task, whitening).items():
                        score = SCORES[name](v.support, v.label, v.query)
                        scored.setdefault(name, []).append((score[taught], label[taught]))
            for name, found in scored.items():
                scores, labels = map(np.concatenate, zip(*found, strict=True))
                curve = nll_curve(name, scores, labels)
                curves.setdefault(name, []).append(curve)
        scales = {name: best_scale(name, found) for name, found in curves.items()}
        whitening = self.whitening if "whitened" in scales or not scales else None
        return Heads(whitening, scales)


def head_videos(task: EpisodeBatch, whitening: Whitening | None) -> dict[str, Videos]:
    """The task as each head sees it; `whitened` only where there is a whitening."""
    videos = Videos.of(task)
    small = videos.small()
    out = dict.fromkeys(SCORES, small)
    if whitening is None:
        del out["whitened"]
    else:
        out["whitened"] = videos.whitened(whitening).small()
    return out


def nll_curve(head: str, scores: Floats, label: Ints) -> Floats:
    """(scale,) mean NLL of the scores' labels at each scale of the head's grid."""
    logits = SCALES[head][:, None, None] * scores
    log_prob = log_softmax(logits, -1)[:, np.arange(len(label)), label]
    return np.asarray(-log_prob.mean(1))


def best_scale(head: str, curves: Sequence[Floats]) -> float:
    """The scale with the lowest mean over the curves."""
    return float(SCALES[head][int(np.mean(curves, 0).argmin())])


def _class_means(x: Floats, label: Ints) -> Floats:
    one_hot = np.eye(int(label.max()) + 1)[label]
    return np.asarray(one_hot.T @ x / one_hot.sum(0)[:, None])


def _unit(x: Floats) -> Floats:
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.asarray(x / np.where(norm > 0, norm, 1.0))


def _video_means(x: Floats, mask: Bools) -> tuple[Floats, Bools]:
    """(..., feature) mean of the frames at length 1, and (...) whether there is a frame."""
    total = (x * mask[..., None]).sum(-2)
    return _unit(total), np.asarray(mask.any(-1))
