"""Is a video typical of what was taught? `Typicality`, a p-value by each person's own videos.

The statistic of a video is its largest cosine to any class mean, over frames and classes: its best
frame says most. What it is for taught things is known from the person's own support, each video
left out once. Left out, a class has n - 1 videos; a mean of n unit vectors with pairwise cosine rho
has squared length (1 + (n - 1) rho) / n, and its cosine to another vector grows as that length
falls, so each left-out cosine is multiplied by

    sqrt(((1 + (n - 2) rho) / (n - 1)) / ((1 + (n - 1) rho) / n)).

A cosine c counts as the log distance t = log(1 - c): over 14 worlds, from things in homes to hand
signs that are all alike, t spreads about its mean with an sd of .2 to .4, where c itself has one of
.02 to .12. With the left-out values o_v, that of a taught query is taken as normal,

    t ~ N(m + shift, s^2),   m ~ N(m_0, tau^2) updated by the o_v,   shift ~ N(d, e^2),

s^2 the sample variance shrunk to `log_sd` squared, and the shift that of another day, or of another
recording condition where the query is of one (s is `log_sd` then); where it is not known whether it
is, p is the mean of both. m_0 is the mean log distance of support videos to the *other* classes
less `closer`, and, where the population tells how alike two videos of one object are, log(1 - r) of

    r = like / sqrt((1 + (n - 1) like) / n),

the cosine to a mean of n videos; the two are weighted by their precision. What other people's
videos say is of no use where all taught things are more alike than two videos of one thing are
there: as far as the two differ by more than their sds explain, d^2 - sd_1^2 - sd_2^2, its variance
is larger. With one video of each class m_0 is all there is.

What all of a person's videos have in common, light, place, hands, makes every cosine large. So a
second statistic is the largest cosine about the mean of what was taught, in the metric of other
people's scatter (`bayesfs.models.similarity.scores.centred_cosines`), with a normal law of its own,
its mean, for n videos, as above with `centred` for like. With the standardised values z of the two
and their correlation r, p = P(Z <= (z_1 + z_2) / sqrt(2 + 2 r)): below .05 for one taught video in
twenty, if the person's videos are exchangeable with what is asked (recorded by them in the same
way). The population's numbers here are from development worlds: homes, a room, a shop, turntable,
hand signs.

Source: Vovk et al. (2005) for p-values from left-out examples; Gelman et al. (2013), section 2.5,
for the normal update; DerSimonian and Laird (1986) for what two estimates differ in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from bayesfs._linalg.directions import unit
from bayesfs._utils.ranges import Positive, Share, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.similarity.heads import likeness, support_examples
from bayesfs.types import EpisodeBatch

NEAREST = 1e-3
"""Distances of unit vectors, 1 - cosine, below which they are the same."""


@dataclass(frozen=True)
class Typicality:
    """What is believed of similarities before a person's videos are seen.

    Attributes:
        closer: how much smaller the log distance to the own class is than that to the others.
        closer_sd: its sd between people.
        like_log_sd: sd between people of the log distance of two videos of one object.
        log_sd: sd of the log distance among a person's taught videos.
        sd_weight: how many videos that is worth.
        log_shift: mean change of the log distance from what was taught to what is asked, in the
            same recording condition.
        log_shift_sd: its sd between people.
        other_log_shift: mean change into another recording condition.
        other_log_shift_sd: its sd between people.
        centred: mean cosine of two videos of one object about the mean of what was taught.
        centred_like_sd: its sd between people.
        centred_sd: sd of that cosine among a person's taught videos.
        centred_shift_sd: sd between people of its change in the same recording condition.
        centred_other_shift: mean change into another recording condition.
        centred_other_shift_sd: its sd between people.
        agreement: correlation of the two statistics among taught videos.

    Example:
        >>> p = Typicality().p_values(episodes)  # doctest: +SKIP
        >>> new = p < 0.05  # doctest: +SKIP
    """

    closer: float = 0.45
    closer_sd: Positive = 0.35
    like_log_sd: Positive = 0.2
    log_sd: Positive = 0.3
    sd_weight: Positive = 6.0
    log_shift: float = 0.0
    log_shift_sd: Positive = 0.1
    other_log_shift: float = 0.55
    other_log_shift_sd: Positive = 0.2
    centred: float = 0.4
    centred_like_sd: Positive = 0.06
    centred_sd: Positive = 0.14
    centred_shift_sd: Positive = 0.04
    centred_other_shift: float = -0.25
    centred_other_shift_sd: Positive = 0.1
    agreement: Share = 0.5

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    def p_values(
        self,
        episodes: EpisodeBatch,
        like: Sequence[float] | None = None,
        *,
        centred: tuple[Tensor, Tensor] | None = None,
        condition_known: bool = True,
    ) -> Tensor:
        """(task, video) P(a taught video is at most as similar as this one); 0 for padding.

        Args:
            episodes: T tasks, features as they come from a backbone; no labels of queries are used.
            like: for each task, the cosine of two videos of one object, as other people's are of
                the same backbone; NaN, or None for all, where that is not known.
            centred: the second statistic, of queries and of what is left out, NaN where there is
                none; None for the first alone.
            condition_known: whether queries are in the condition that the batch says; if not, they
                are as likely in that of most of the support as in another one.
        """
        mean, variance, other = (part[:, None] for part in self.taught(episodes, like))
        below = mean - log_distance(largest_cosines(episodes))
        z = [
            (below + self.log_shift) / (variance + self.log_shift_sd**2).sqrt(),
            (below + self.other_log_shift) / (other + self.other_log_shift_sd**2).sqrt(),
        ]
        if centred is not None:
            z = [
                torch.where(
                    more.isfinite(), (each + more) / math.sqrt(2 + 2 * self.agreement), each
                )
                for each, more in zip(z, self._centred(episodes, *centred), strict=True)
            ]
        both = [torch.special.ndtr(each) for each in z]
        moved = episodes.query_condition != _usual_condition(episodes)[:, None]
        p = torch.where(moved, both[1], both[0]) if condition_known else 0.5 * (both[0] + both[1])
        return p.masked_fill(~episodes.video_mask, 0.0)

    def likeness_p_values(self, episodes: EpisodeBatch, like: Sequence[float]) -> Tensor:
        """(task,) two-sided p-values of the likeness of a person's videos, given other people's.

        The log distance log(1 - c), c the mean over K classes of the cosines of two videos of one
        class, is taken as N(log(1 - like), like_log_sd^2 + log_sd^2 / K). A small p says that the
        person records otherwise than those who were learnt from, or other things; NaN where no
        class has two videos.

        Args:
            episodes: T tasks; only their support is used.
            like: for each task, the cosine of two videos of one object of other people, or NaN.
        """
        means, label = support_examples(episodes)
        found = []
        for task, told in enumerate(like):
            there = label[task].sum(-1) > 0
            videos = unit(means[task, there]).double().cpu().numpy()
            group = label[task, there].argmax(-1).cpu().numpy()
            several = int((np.bincount(group) > 1).sum())
            sd = math.sqrt(self.like_log_sd**2 + self.log_sd**2 / max(several, 1))
            pair = log_distance(means.new_tensor([likeness(videos, group), told]))
            found.append(2.0 * float(ndtr(-abs(float(pair[0] - pair[1])) / sd)))
        return means.new_tensor(found)

    def taught(
        self, episodes: EpisodeBatch, like: Sequence[float] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The law of the log distance of a taught video, before any shift.

        Returns:
            (task,) mean, variance in the same recording condition, and in another one.
        """
        count = _videos_each(episodes)
        near = [to_mean(c, n) for c, n in zip(like or [math.nan] * len(count), count, strict=True)]
        found = [
            self._of_task(*left_out_cosines(episodes, t), near[t]) for t in range(len(episodes))
        ]
        mean, spread, error = (torch.stack(part) for part in zip(*found, strict=True))
        return mean, spread + error, self.log_sd**2 + error

    def _centred(
        self, episodes: EpisodeBatch, asked: Tensor, left_out: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(task, video) standardised second statistic, in the same condition and in another one."""
        laws = []
        for task, n in enumerate(_videos_each(episodes)):
            own = left_out[task][left_out[task].isfinite()]
            if len(own):
                pair = pair_cosine(float(own.mean()), n)
                own = own * to_mean(pair, n) / to_mean(pair, n - 1.0)
            known = [(own.new_tensor(to_mean(self.centred, n)), self.centred_like_sd)]
            laws.append(self._update(own, known, self.centred_sd))
        mean, spread, error = (torch.stack(part)[:, None] for part in zip(*laws, strict=True))
        variance = spread + error
        same = (asked - mean) / (variance + self.centred_shift_sd**2).sqrt()
        other = asked - mean - self.centred_other_shift
        return same, other / (variance + self.centred_other_shift_sd**2).sqrt()

    def _of_task(self, own: Tensor, other: Tensor, near: float) -> tuple[Tensor, Tensor, Tensor]:
        """The normal update of one task.

        Args:
            own: (example,) left-out similarity to the own class, of classes with several videos.
            other: (example,) similarity to the other classes; empty with one class.
            near: cosine of a video to the mean of its class in other people's data, or NaN.
        """
        known = []
        if len(other):
            known.append((log_distance(other).mean() - self.closer, self.closer_sd))
        if not math.isnan(near):
            mean, sd = log_distance(own.new_tensor(near)), self.like_log_sd
            if known:
                apart = float(mean - known[0][0]) ** 2 - sd**2 - self.closer_sd**2
                sd = math.sqrt(sd**2 + max(apart, 0.0))
            known.append((mean, sd))
        return self._update(log_distance(own), known, self.log_sd)

    def _update(
        self, own: Tensor, known: Sequence[tuple[Tensor, float]], sd: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean of a taught query's statistic, its variance about that, and that of the mean.

        Args:
            own: (example,) left-out values.
            known: means and sds that are believed of their mean, each by itself.
            sd: of a value, believed as firmly as `sd_weight` values would tell it.
        """
        count = len(own)
        centre = own.mean() if count else own.new_tensor(0.0)
        rest = (own - centre).square().sum()
        weight = self.sd_weight + max(count - 1, 0)
        variance = (self.sd_weight * sd**2 + rest) / weight
        if not known:
            return centre, variance, variance / max(count, 1)
        precision = sum(1.0 / error**2 for _, error in known)
        prior = torch.stack([mean / error**2 for mean, error in known]).sum() / precision
        trust = 1.0 / (1.0 + precision * variance / count) if count else centre * 0.0
        mean = prior + trust * (centre - prior)
        return mean, variance, (1.0 - trust) / precision


def log_distance(cosine: Tensor) -> Tensor:
    """log(1 - cosine), of a cosine of .999 at most: nearer than that is the same picture."""
    return (1.0 - cosine).clamp(min=NEAREST).log()


def to_mean(pair: float, n: float) -> float:
    """Cosine of a video to the mean of n others, where two have this cosine; see the module."""
    return pair / math.sqrt((1.0 + (n - 1.0) * pair) / n)


def pair_cosine(left_out: float, n: float) -> float:
    """The cosine of two videos at which `to_mean` of n - 1 others gives this, at least .01."""
    square, rest = max(left_out, 0.0) ** 2, max(n - 1.0, 1.0)
    return max(
        (square * (rest - 1.0) + math.sqrt((square * (rest - 1.0)) ** 2 + 4.0 * rest * square))
        / (2.0 * rest),
        0.01,
    )


def _videos_each(episodes: EpisodeBatch) -> list[float]:
    """Mean number of videos of a class, for each task."""
    each: list[float] = (episodes.shot_mask.sum((1, 2)) / episodes.way_mask.sum(1)).tolist()
    return each


def largest_cosines(episodes: EpisodeBatch) -> Tensor:
    """(task, video) largest cosine of a query frame to a class mean; -1 for padding."""
    mean = unit(_class_means(episodes))
    cosine = torch.einsum("tvfd,tkd->tvfk", unit(episodes.query), mean)
    there = episodes.query_mask[..., None] & episodes.way_mask[:, None, None]
    return cosine.masked_fill(~there, -1.0).amax((2, 3))


def left_out_cosines(episodes: EpisodeBatch, task: int) -> tuple[Tensor, Tensor]:
    """Similarities of one task's support videos, each left out of its class.

    Returns:
        (example,) largest cosine to any class, of videos whose class has another one, as it would
        be if the class were complete; and (example,) largest cosine to another class, of all.
    """
    frames = unit(episodes.support[task])
    mask = episodes.support_mask[task]
    means = (frames * mask[..., None]).sum(2) / mask.sum(2).clamp(min=1)[..., None]
    there = episodes.shot_mask[task]
    classes = there.any(1).nonzero()[:, 0].tolist()
    centre = {k: unit(means[k][there[k]].mean(0)) for k in classes}
    own, other = [], []
    for k in classes:
        videos = means[k][there[k]]
        away = [centre[j] for j in classes if j != k]
        factor = _growth(videos)
        for i, place in enumerate(there[k].nonzero()[:, 0].tolist()):
            asked = frames[k, place][mask[k, place]]
            far = (asked @ torch.stack(away, 1)).amax() if away else None
            if far is not None:
                other.append(far)
            if len(videos) > 1:
                rest = torch.cat([videos[:i], videos[i + 1 :]]).mean(0)
                near = (asked @ unit(rest)).amax() * factor
                own.append(near if far is None else torch.maximum(near, far))
    empty = frames.new_zeros(0)
    return (torch.stack(own) if own else empty), (torch.stack(other) if other else empty)


def _growth(videos: Tensor) -> Tensor:
    """By how much the cosine to a class mean grows with the last of its (video, feature) videos."""
    n = len(videos)
    ways = unit(videos)
    if n < 2:
        return videos.new_tensor(1.0)
    rho = ((ways.sum(0).square().sum() - n) / (n * (n - 1))).clamp(0.0, 1.0)
    fewer = (1.0 + (n - 2) * rho) / (n - 1)
    return (fewer / ((1.0 + (n - 1) * rho) / n)).sqrt()


def _class_means(episodes: EpisodeBatch) -> Tensor:
    """(task, way, feature) mean of the mean frames of each class's videos."""
    means, label = support_examples(episodes)
    return label.mT @ means / label.sum(1).clamp(min=1.0)[..., None]


def _usual_condition(episodes: EpisodeBatch) -> Tensor:
    """(task,) recording condition of most support videos."""
    there, condition = episodes.shot_mask.flatten(1), episodes.support_condition.flatten(1)
    share = (condition * there).sum(1) / there.sum(1).clamp(min=1)
    return share.round().long()
