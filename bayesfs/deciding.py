"""When to answer, what to answer with, and when nothing taught is shown: start with `learn_rules`.

Three thresholds, learnt on train users only and then applied to other people.

**Sets.** A set holds every class of p_y >= t, and the likeliest in any case. With u running over
train users, t_u the largest t at which a share `level` of u's own queries are in their sets, and
t the k-th largest of the K values t_u, k = min(ceil((K + 1) share), K): if a new user is
exchangeable with the train users (recorded alike, tasks drawn alike, as many videos of each
object), then

    P(the new user's coverage >= level) >= k / (K + 1),

whatever the distribution and however wrong the model is. The unit is the person: nothing is asked
of the dependence among one person's queries. With few users no more than K / (K + 1) can be
promised (6 users: 86 %), and `Rules.promised` says what is. That the population was learnt on the
same users (a few numbers; features are cross-fitted) is left out of account.

**Answers.** Answer alone where max p >= c, the smallest c at which (errors + 1) / (answered + 1)
<= risk over train users, each user counting alike. The one error more is for the small sample;
there is no guarantee beyond that, since the risk among answered queries is not monotone in c.

**Nothing taught.** Say so where the probability of it exceeds the smallest a at which no more than
a share `rejected` of taught queries, and one more, would be turned away, each user counting alike.

Source: Vovk et al. (2005) for conformal sets; Dunn, Wasserman and Ramdas (2022), JASA, for new
groups (here the quantile over groups of the quantiles within); Geifman and El-Yaniv (2017) for
selection by risk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bayesfs.errors import DataError
from bayesfs.types import EpisodeBatch, Predictive

Floats = NDArray[np.float64]
Unit = Literal["frame", "video"]

NEVER = 2.0
"""A threshold that no probability reaches."""

SLACK = 1e-9
"""By which a probability may miss a threshold that it was itself taken for."""


@dataclass(frozen=True)
class UnitRules:
    """The thresholds for frames, or for videos.

    Attributes:
        least_in_set: a class belongs to the set where its probability is at least this.
        least_alone: the likeliest class is named alone where its probability is at least this.
        most_absent: nothing taught is shown where the probability of that is above this.
    """

    least_in_set: float
    least_alone: float
    most_absent: float

    def in_set(self, prob: Floats) -> NDArray[np.bool_]:
        """(..., way) classes of the set; the likeliest is always among them."""
        top = prob == prob.max(-1, keepdims=True)
        return np.asarray((prob >= self.least_in_set - SLACK) & (prob > 0) | top)

    def alone(self, prob: Floats) -> NDArray[np.bool_]:
        """(...) whether the likeliest class is named without alternatives."""
        return np.asarray(prob.max(-1) >= self.least_alone - SLACK)

    def absent(self, prob: Floats) -> NDArray[np.bool_]:
        """(...) whether nothing taught is shown, from the probability of that; NaN is no."""
        return np.asarray(prob > self.most_absent + SLACK)


@dataclass(frozen=True)
class Rules:
    """Thresholds and what they were learnt for; plain numbers.

    Attributes:
        frame: for single frames.
        video: for whole videos.
        level: share of a user's queries whose label should be in the set.
        promised: probability that a new user's share is at least that.
        risk: wanted share of errors among answers without alternatives.
        rejected: share of taught queries that may be taken for nothing taught.
        users: number of users they were learnt on.
        shots: most support videos of an object that they were learnt with.
    """

    frame: UnitRules
    video: UnitRules
    level: float
    promised: float
    risk: float
    rejected: float
    users: int
    shots: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Rules:
        """Rules from what `to_dict` gave.

        Raises:
            DataError: a field is missing or unknown, or a number is not finite.
        """
        try:
            units = {name: UnitRules(**values[name]) for name in ("frame", "video")}
            rules = cls(**{**values, **units})
            numbers = [*asdict(units["frame"]).values(), *asdict(units["video"]).values()]
            numbers += [rules.level, rules.promised, rules.risk, rules.rejected]
            good = all(math.isfinite(float(number)) for number in numbers)
        except (KeyError, TypeError, ValueError) as e:
            raise DataError(f"expected rules as Rules.to_dict gives them, got {values!r}") from e
        if not good:
            raise DataError(f"expected finite thresholds, got {values!r}")
        return rules


@dataclass(frozen=True, eq=False)
class Judged:
    """Labelled queries with what was said of them; one row a query.

    Attributes:
        user: (query,) whose it is.
        prob: (query, way) p(y | x, D); 0 for padded classes.
        label: (query,) true class.
        absent: (query,) probability that nothing taught is shown; NaN where it is not known.
    """

    user: NDArray[np.str_]
    prob: Floats
    label: NDArray[np.int64]
    absent: Floats

    def of(self, keep: NDArray[np.bool_]) -> Judged:
        """Some of the queries."""
        return Judged(self.user[keep], self.prob[keep], self.label[keep], self.absent[keep])


def judged(
    predictive: Predictive,
    episodes: EpisodeBatch,
    unit: Unit,
    absent: Tensor | None = None,
) -> Judged:
    """The labelled queries of tasks.

    Args:
        predictive: of the query of `episodes`.
        episodes: T tasks.
        unit: which queries; a frame has the label of its video.
        absent: (task, video) probability that a video shows nothing taught; frames take theirs
            from the predictive.

    Raises:
        DataError: no query is labelled.
    """
    mask = episodes.query_mask if unit == "frame" else episodes.video_mask
    label = episodes.query_labels
    if unit == "frame":
        label, absent = label[..., None].expand(mask.shape), predictive.absent
    keep = (mask & (label >= 0)).cpu().numpy()
    if not keep.any():
        raise DataError("expected labelled queries to learn rules from, got none")
    users = np.array(episodes.users).reshape(-1, *[1] * (keep.ndim - 1))
    values = getattr(predictive, unit).prob
    unknown = np.full(keep.shape, math.nan)
    return Judged(
        np.broadcast_to(users, keep.shape)[keep],
        values.detach().cpu().numpy().astype(np.float64)[keep],
        label.cpu().numpy()[keep],
        (unknown if absent is None else absent.detach().cpu().numpy().astype(np.float64))[keep],
    )


def learn_rules(
    predictive: Predictive,
    episodes: EpisodeBatch,
    *,
    absent: Tensor | None = None,
    level: float = 0.9,
    share: float = 0.9,
    risk: float = 0.1,
    rejected: float = 0.05,
) -> Rules:
    """Learn the thresholds on tasks of train users.

    Args:
        predictive: of these tasks, given the population; see `bayesfs.study.Study.train_tasks`.
        episodes: labelled tasks of train users, with as many support videos as in use; a user may
            have several.
        absent: (task, video) probability that nothing taught is shown, where it is known.
        level: share of each user's queries whose label should be in the set.
        share: of users for whom that should hold.
        risk: share of errors wanted among answers without alternatives.
        rejected: share of taught queries that may be taken for nothing taught.

    Raises:
        DataError: a share is not between 0 and 1, or no query is labelled.

    Example:
        >>> rules = learn_rules(answer.predictive, answer.episodes)  # doctest: +SKIP
        >>> rules.video.in_set(predictive.video.prob.numpy())  # doctest: +SKIP
    """
    wanted = {"level": level, "share": share, "risk": risk, "rejected": rejected}
    for name, value in wanted.items():
        if not 0.0 < value < 1.0:
            raise DataError(f"expected {name} between 0 and 1, got {value}")
    units = {
        "frame": judged(predictive, episodes, "frame"),
        "video": judged(predictive, episodes, "video", absent),
    }
    users = len(set(units["video"].user.tolist()))
    frame, video = (unit_rules(units[name], **wanted) for name in ("frame", "video"))
    shots = int(episodes.shot_mask.sum(-1).max())
    promised = rank_of(users, share) / (users + 1)
    return Rules(frame, video, level, promised, risk, rejected, users, shots)


def unit_rules(
    queries: Judged, *, level: float, share: float, risk: float, rejected: float
) -> UnitRules:
    """The thresholds of one unit."""
    return UnitRules(
        set_threshold(queries, level, share),
        answer_threshold(queries, risk),
        absent_threshold(queries, rejected),
    )


def rank_of(users: int, share: float) -> int:
    """Which of the users' thresholds, most lenient last, holds for such a share of new users."""
    return min(math.ceil((users + 1) * share - SLACK), users)


def set_threshold(queries: Judged, level: float, share: float) -> float:
    """Least probability of a class in the set; see the module."""
    true = queries.prob[np.arange(len(queries.label)), queries.label]
    own = []
    for user in np.unique(queries.user):
        p = np.sort(true[queries.user == user])[::-1]
        own.append(p[math.ceil(level * len(p) - SLACK) - 1])
    return float(np.sort(own)[::-1][rank_of(len(own), share) - 1])


def answer_threshold(queries: Judged, risk: float) -> float:
    """Least probability at which the likeliest class is named alone, or `NEVER`."""
    top = queries.prob.max(-1)
    wrong = queries.prob.argmax(-1) != queries.label
    weight = _user_weights(queries.user)
    order = np.argsort(-top, kind="stable")
    ends = np.append(np.diff(top[order]) < 0, True)  # a threshold takes all queries of its value
    answered, errors = weight[order].cumsum(), (weight * wrong)[order].cumsum()
    good = np.flatnonzero(ends & ((errors + 1) / (answered + 1) <= risk + SLACK))
    return float(top[order][good[-1]]) if len(good) else NEVER


def absent_threshold(queries: Judged, rejected: float) -> float:
    """Probability of nothing taught above which that is said, or `NEVER`."""
    known = np.isfinite(queries.absent)
    if not known.any():
        return NEVER
    value, weight = queries.absent[known], _user_weights(queries.user[known])
    order = np.argsort(-value, kind="stable")
    above = weight[order].cumsum() - weight[order]  # turned away by a threshold at this value
    good = np.flatnonzero(above + 1 <= rejected * (weight.sum() + 1) + SLACK)
    return float(value[order][good[-1]]) if len(good) else NEVER


def _user_weights(user: NDArray[np.str_]) -> Floats:
    """(query,) weights of mean 1 in which every user counts alike."""
    _, place, count = np.unique(user, return_inverse=True, return_counts=True)
    return np.asarray(len(user) / (len(count) * count[place]), np.float64)
