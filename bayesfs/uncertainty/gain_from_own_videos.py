"""What one more video is worth, by the person's own videos as well: use `gain_from_own_videos`.

A simulated video (`bayesfs.uncertainty.information_gain`) is as the model believes that videos are:
it knows nothing of how far this object's recordings really move the answers, nor that answers lean
towards one object. Real videos are at hand, and with S(q, y) the log probability of label y for
query video q, averaged over the video and its frames, they say two things more.

Taken away: what a taught video v of object k in condition c did for the queries,

    J_kc = mean_v mean_q sum_y r_qy [S(q, y | D) - S(q, y | D without v)] (n - t_c) / (n + t_c),

n = n_0 + sum_c t_c n_kc the videos of k in units of a clean one: an estimate with n units has the
variance 1 / n, so that the last video took 1 / (n - t) - 1 / n off it and the next one will take
1 / n - 1 / (n + t).

Added: what a query video q' would do for the other queries if it were taught as object k,

    A_k = sum_q' r_q'k mean_{q != q'} sum_y r_qy [S(q, y | D and q' as k) - S(q, y | D)]
          / sum_q' r_q'k.

That is what a video of the queries' condition does. One of another condition c, of which there are
m = max(n_kc, 1), tells t_c / t times as much of the object, and 1 / (m (m + 1)) in place of the
first one's 1 / 2 of how it looks there: no number of clean videos shows it in clutter. So

    A_kc = A_k (t_c / t) 2 / (m (m + 1)).

The labels are not known. r_q is the law of q's label if the person asks about each of W objects
equally often, r_qy proportional to exp(S(q, y) + w_y) with mean_q r_qy = 1 / W as nearly as w
between minus `LEAN` and `LEAN` allows: an answer that is sure stays so, however often one object
is asked about.

Unlike an information gain these may be negative: one more video of an object that draws others'
queries to it already makes that worse.

The three are weighted by `WEIGHTS`; what is not known (a first video, a condition in which nothing
was taught, an object that no query resembles) has the simulated gain in its place. On rendered
development people (populations of 7 others) the Spearman of this and the realised gain, means over
recordings of an object, is .38, of the simulated gain .20, of what is taken away alone .32 and of
what is added .19; with w = 0, .22.

Source: Cook (1977) for deletion; Saerens et al. (2002) for priors of labels from unlabelled cases.
refs.bib: cook1977, saerens2002.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from bayesfs.data.leave_one_out import removable, without_videos
from bayesfs.errors import ShapeError
from bayesfs.prediction import thinned_values
from bayesfs.protocols import Collapsible
from bayesfs.types import CONDITIONS, EpisodeBatch, Posterior

WEIGHTS = 0.7, 0.7, 0.5
"""Of what is simulated, taken away and added; chosen on development people."""

TELLS = 1.0, 0.25
"""t, what a clean and a cluttered video tell of an object."""

BEFORE = 0.1
"""n_0, what is known of an object before its first video."""

LEAN = 1.0
"""Nats by which answers may lean towards an object."""

LIKELY = 0.1
"""A query video is tried as an object's video where it is of it with this probability."""

AT_ONCE = 32
"""Tasks with a video more or less that are asked together; bounds memory."""


def gain_from_own_videos(
    model: Collapsible,
    population: Posterior,
    episodes: EpisodeBatch,
    simulated: Tensor,
    *,
    population_draws: int = 2,
) -> Tensor:
    """Expected fall of the queries' log loss through one more video of each class.

    Args:
        model: such as `bayesfs.models.gaussian.hierarchy.GaussianHierarchy`.
        population: posterior of the population sites.
        episodes: T tasks, whose queries are all that the person asks.
        simulated: (task, way, condition) `expected_gain` in each of `CONDITIONS`.
        population_draws: draws of the population, evenly spaced over those of `population`.

    Returns:
        (task, way, condition) nats per query, averaged over whole videos and single frames; NaN
        for padded classes.

    Raises:
        ShapeError: `simulated` has another shape.
    """
    shape = (len(episodes), episodes.way, len(CONDITIONS))
    if tuple(simulated.shape) != shape:
        raise ShapeError(
            f"expected simulated (task, way, condition) = {shape}, got {tuple(simulated.shape)}; "
            "was it made for other tasks, or in one condition only?"
        )
    values = thinned_values(population, population_draws)

    def score(tasks: EpisodeBatch) -> Tensor:
        return label_scores(model, tasks, values)

    now = score(episodes)
    law, simulated = label_law(now, episodes), simulated.to(now)
    parts = (
        simulated,
        taken_away(score, episodes, now, law),
        added(score, episodes, now, law),
    )
    found = sum(
        w * torch.where(p.isnan(), simulated, p) for w, p in zip(WEIGHTS, parts, strict=True)
    )
    return torch.as_tensor(found).masked_fill(~episodes.way_mask[..., None], torch.nan)


Score = Callable[[EpisodeBatch], Tensor]
"""Tasks -> (task, video, way) S."""


def label_scores(
    model: Collapsible, episodes: EpisodeBatch, values: Sequence[Mapping[str, Tensor]]
) -> Tensor:
    """(task, video, way) log p(y | x, D), mean of the whole video and of its frames."""
    with torch.no_grad():
        each = [model.log_labels(episodes, value) for value in values]
    frame, video = (
        torch.stack(part).logsumexp(0).clamp(min=-1e4) for part in zip(*each, strict=True)
    )
    mask = episodes.query_mask[..., None]
    by_frame = frame.masked_fill(~mask, 0.0).sum(2) / mask.sum(2).clamp(min=1)
    return 0.5 * (by_frame + video)


def label_law(scores: Tensor, episodes: EpisodeBatch, rounds: int = 30) -> Tensor:
    """(task, video, way) r, the law of each query's label if objects are asked equally often.

    Args:
        scores: (task, video, way) S, up to a constant.
        episodes: T tasks.
        rounds: of the fixed point; each multiplies e^w by what is missing of an equal share.
    """
    exists, asked = episodes.way_mask, episodes.video_mask[..., None]
    own = scores.masked_fill(~exists[:, None], -torch.inf)
    number = exists.sum(-1, keepdim=True)
    lean = torch.zeros_like(scores[:, 0])
    for _ in range(rounds):
        share = ((own + lean[:, None]).softmax(-1) * asked).sum(1) / asked.sum(1).clamp(min=1)
        lean = lean - (share * number).clamp(min=1e-6).log().masked_fill(~exists, 0.0)
        lean = lean - lean.sum(-1, keepdim=True) / number
        lean = lean.clamp(-LEAN, LEAN).masked_fill(~exists, 0.0)
    return (own + lean[:, None]).softmax(-1) * asked


def taken_away(score: Score, episodes: EpisodeBatch, now: Tensor, law: Tensor) -> Tensor:
    """(task, way, condition) J; NaN where nothing of the kind can be taken away."""
    places = removable(episodes)
    total = now.new_zeros(len(episodes), episodes.way, len(CONDITIONS))
    count = torch.zeros_like(total)
    for part in _parts(places):
        task, way, shot = part.T
        change = now[task] - score(without_videos(episodes, part))
        condition = episodes.support_condition[task, way, shot]
        worth = _mean((law[task] * change).sum(-1), episodes.video_mask[task])
        total.index_put_((task, way, condition), worth, accumulate=True)
        count.index_put_((task, way, condition), torch.ones_like(worth), accumulate=True)
    tells = torch.tensor(TELLS).to(now)
    known = BEFORE + (taught_videos(episodes) * tells).sum(-1, keepdim=True)
    return total / count * (known - tells) / (known + tells)  # 0 / 0 where there is none


def added(score: Score, episodes: EpisodeBatch, now: Tensor, law: Tensor) -> Tensor:
    """(task, way, condition) A; NaN where no query can be taken for such a video."""
    enough = episodes.video_mask.sum(-1)[:, None, None] > 1
    places = ((law > LIKELY) & enough).nonzero()
    tells, taught = torch.tensor(TELLS).to(now), taught_videos(episodes).to(now).clamp(min=1.0)
    total = now.new_zeros(len(episodes), episodes.way, len(CONDITIONS))
    weight = torch.zeros_like(total)
    for part in _parts(places):
        task, video, way = part.T
        change = score(with_query_taught(episodes, part)) - now[task]
        others = episodes.video_mask[task].clone()
        others[torch.arange(len(part), device=part.device), video] = False
        worth = _mean((law[task] * change).sum(-1), others)
        share = law[task, video, way]
        here = episodes.query_condition[task, video]
        other = tells / tells[here][:, None] * 2.0 / (taught * (taught + 1.0))[task, way]
        factor = torch.where(here[:, None] == torch.arange(len(tells)).to(here), 1.0, other)
        total.index_put_((task, way), (share * worth)[:, None] * factor, accumulate=True)
        weight.index_put_((task, way), share[:, None].expand(-1, len(tells)), accumulate=True)
    return total / weight


def taught_videos(episodes: EpisodeBatch) -> Tensor:
    """(task, way, condition) number of support videos."""
    each = [episodes.support_condition == c for c in range(len(CONDITIONS))]
    return torch.stack([(episodes.shot_mask & own).sum(-1) for own in each], -1)


def _parts(places: Tensor) -> Iterator[Tensor]:
    return (places[start : start + AT_ONCE] for start in range(0, len(places), AT_ONCE))


def _mean(worth: Tensor, mask: Tensor) -> Tensor:
    """(place,) mean over the videos of a mask."""
    return worth.masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)


def with_query_taught(episodes: EpisodeBatch, places: Tensor) -> EpisodeBatch:
    """One task for each place, in which a query video is taught as well; it is still asked.

    Args:
        episodes: T tasks.
        places: (place, 3) task, query video and the class that it is taught as.
    """
    task, video, way = places.T
    wide = episodes.select(task.tolist())
    row, frames = torch.arange(len(places), device=places.device), episodes.query.shape[2]
    room = max(episodes.support.shape[3], frames)

    def grown(value: Tensor) -> Tensor:
        size = (*value.shape[:2], value.shape[2] + 1, room, *value.shape[4:])
        out = value.new_zeros(size)
        out[:, :, :-1, : value.shape[3]] = value
        return out

    mask, support = grown(wide.support_mask), grown(wide.support)
    mask[row, way, -1, :frames] = wide.query_mask[row, video]
    support[row, way, -1, :frames] = wide.query[row, video] * wide.query_mask[row, video][..., None]
    condition = torch.cat(
        [wide.support_condition, torch.zeros_like(wide.support_condition[..., :1])], -1
    )
    condition[row, way, -1] = wide.query_condition[row, video]
    quality = None
    if wide.support_quality is not None:
        quality = grown(wide.support_quality)
        if wide.query_quality is not None:
            quality[row, way, -1, :frames] = wide.query_quality[row, video]
    return wide.changed(
        support=support,
        support_mask=mask,
        support_condition=condition,
        support_quality=quality,
        support_frame=None,
    )
