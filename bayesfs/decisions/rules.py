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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesfs._utils.arrays import Floats
from bayesfs.decisions.abstention import answer_threshold
from bayesfs.decisions.novelty import absent_threshold
from bayesfs.decisions.prediction_sets import rank_of, set_threshold
from bayesfs.decisions.queries import Judged, judged
from bayesfs.errors import DataError
from bayesfs.metrics.selective import SLACK

if TYPE_CHECKING:
    from torch import Tensor

    from bayesfs.types import EpisodeBatch, Predictive


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
        meant: sentence -> how often it came true for these users; see `bayesfs.decisions.words`.
    """

    frame: UnitRules
    video: UnitRules
    level: float
    promised: float
    risk: float
    rejected: float
    users: int
    shots: int
    meant: Mapping[str, float] = field(default_factory=dict)

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
            numbers += [*rules.meant.values()]
            good = all(math.isfinite(float(number)) for number in numbers)
        except (KeyError, TypeError, ValueError) as e:
            raise DataError(f"expected rules as Rules.to_dict gives them, got {values!r}") from e
        if not good:
            raise DataError(f"expected finite thresholds, got {values!r}")
        return rules


def between(rules: Sequence[Rules], shots: float) -> Rules:
    """Thresholds at a number of support videos, from those at others; linear in 1 / shots.

    Args:
        rules: by increasing number of shots, at least one.
        shots: mean number of support videos of an object.
    """
    low = max((r for r in rules if r.shots <= shots), key=lambda r: r.shots, default=rules[0])
    high = min((r for r in rules if r.shots >= shots), key=lambda r: r.shots, default=rules[-1])
    if low.shots == high.shots:  # that number itself, or beyond the first or the last
        return low
    share = (1.0 / low.shots - 1.0 / shots) / (1.0 / low.shots - 1.0 / high.shots)

    def mixed(a: UnitRules, b: UnitRules) -> UnitRules:
        pairs = zip(asdict(a).values(), asdict(b).values(), strict=True)
        return UnitRules(*((1.0 - share) * x + share * y for x, y in pairs))

    return replace(low, frame=mixed(low.frame, high.frame), video=mixed(low.video, high.video))


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
