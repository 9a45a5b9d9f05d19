"""What a population is learnt from: the evidence of the support, or the score of the labels.

Start with `PredictiveScore(model)` for a recogniser and `MarginalLikelihood(model)` for a
description of the data. Both are Pyro programs over the population sites alone, so that any engine
that handles a joint density learns them (`SVI` gives a posterior over the population; its draws go
to `given=`). They work for every model whose task level is known in closed form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pyro
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from bayesfs.errors import InferenceError
from bayesfs.models.per_batch import once_per_batch
from bayesfs.protocols import Collapsible, Conjugate, Model, NamesClasses, OpenSet
from bayesfs.types import EpisodeBatch


@dataclass(frozen=True)
class _Objective(Model):
    """Shared part: population sites only, label likelihood of the model itself."""

    model: Collapsible

    needs_query: ClassVar[bool] = False
    """Whether it learns from few-shot tasks with labelled queries, or from the support alone."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Population site -> axes."""
        return self.model.population_dims

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """That of the model; needs its task-level draws too."""
        return self.model.log_joint_frame(draws, episodes)

    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """That of the model; needs its task-level draws too."""
        return self.model.log_joint_video(draws, episodes)


class PopulationPrior(_Objective):
    """The population's prior alone, for a model of any kind: nothing is learnt from."""

    def __call__(self, episodes: EpisodeBatch) -> None:
        """The Pyro program: population sites, and nothing that scores them."""
        self.model.sample_population(episodes.support)


class MarginalLikelihood(_Objective):
    """Population learnt by marginal likelihood: p(phi) prod_t p(support_t | phi).

    Needs support videos of every condition, as `population_episodes` gives. Where classes are
    shared by name (`NamesClasses`), what they share is integrated out too, over all tasks together;
    a `Study` draws it afterwards.
    """

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Population site -> axes, of those that are not integrated out."""
        model = self.model
        return model.scale_dims if isinstance(model, NamesClasses) else model.population_dims

    def __call__(self, episodes: EpisodeBatch) -> None:
        """The Pyro program: population sites, and the evidence as a factor."""
        if isinstance(self.model, NamesClasses):
            scales = self.model.sample_scales(episodes.support)
            pyro.factor("evidence", self.model.log_evidence_together(episodes, scales))
            return
        population = self.model.sample_population(episodes.support)
        if not isinstance(self.model, Conjugate):
            raise InferenceError(
                "the marginal likelihood needs a model with the ability Conjugate "
                f"(bayesfs.protocols), got {type(self.model).__name__}; learn it by PredictiveScore"
            )
        evidence = self.model.log_evidence(episodes, population)
        pyro.factor("evidence", evidence.sum())


class PredictiveScore(_Objective):
    """Population learnt by the predictive log score of query labels.

    A generalised posterior:

        log p(phi | train) = log p(phi) + sum_u mean_{t of user u} sum_{videos v of t}
                             [ log p(y_v | x_v) + mean_f log p(y_v | x_vf) ] / 2 + const.

    Where the model knows the odds that nothing taught is shown (`OpenSet`), y_v is a taught class
    or none: log p(y_v | x) counts log p(taught | x) too, and a video without a label counts
    log p(none | x). So tasks with objects that were left out teach it what unknown things look
    like.

    Every video counts once however many frames it has, and every user once however many tasks
    were drawn from him. It asks of the population only what recognition needs, and is robust
    where the Gaussian hierarchy describes features badly; the evidence is not.

    Source: Bissiri, Holmes and Walker (2016), JRSS B 78; Patacchiola et al. (2020) for "PL" in
    few-shot learning.
    """

    needs_query: ClassVar[bool] = True

    def __call__(self, episodes: EpisodeBatch) -> None:
        """The Pyro program: population sites, and the score as a factor."""
        population = self.model.sample_population(episodes.support)
        model = self.model.for_learning()
        if isinstance(model, OpenSet):
            labels, odds = model.log_open_labels(episodes, population)
            score = label_score(*labels, episodes) + presence_score(*odds, episodes)
        else:
            episodes = fully_labelled(episodes)
            score = label_score(*model.log_labels(episodes, population), episodes)
        pyro.factor("score", (task_weight(episodes).to(score) * score).sum())


@once_per_batch
def fully_labelled(episodes: EpisodeBatch) -> EpisodeBatch:
    """The tasks whose query videos all have a label, if there are any; else all tasks.

    A model that does not know the odds that nothing taught is shown learns nothing from tasks in
    which objects were left out.
    """
    whole = ((episodes.query_labels >= 0) | ~episodes.video_mask).all(-1)
    keep = whole.nonzero()[:, 0].tolist()
    return episodes.select(keep) if keep else episodes


def label_score(frame: Tensor, video: Tensor, episodes: EpisodeBatch) -> Tensor:
    """(task,) sum over labelled query videos of the mean of video and mean frame log score.

    Raises:
        InferenceError: no query video is labelled.
    """
    known = (episodes.query_labels >= 0) & episodes.video_mask
    if not known.any():
        raise InferenceError(
            "expected labelled query videos to learn the population from, got none; "
            "were these episodes drawn for prediction?"
        )
    label = episodes.query_labels.clamp(min=0)
    by_video = video.gather(-1, label[..., None])[..., 0]
    index = label[:, :, None, None].expand(*frame.shape[:-1], 1)
    mask = episodes.query_mask
    by_frame = frame.gather(-1, index)[..., 0].masked_fill(~mask, 0.0)
    mean_frame = by_frame.sum(-1) / mask.sum(-1).clamp(min=1)
    both = 0.5 * (by_video + mean_frame)
    return both.masked_fill(~known, 0.0).sum(-1)


def presence_score(frame_odds: Tensor, video_odds: Tensor, episodes: EpisodeBatch) -> Tensor:
    """(task,) sum over query videos of the log score of whether a taught class is shown.

    Args:
        frame_odds: (task, video, frame) log odds that none is.
        video_odds: (task, video) the same of whole videos.
        episodes: a video without a label shows none.
    """
    sign = torch.where(episodes.query_labels >= 0, -1.0, 1.0).to(video_odds)
    mask = episodes.query_mask
    by_frame = logsigmoid(sign[..., None] * frame_odds).masked_fill(~mask, 0.0)
    mean_frame = by_frame.sum(-1) / mask.sum(-1).clamp(min=1)
    both = 0.5 * (logsigmoid(sign * video_odds) + mean_frame)
    return both.masked_fill(~episodes.video_mask, 0.0).sum(-1)


def task_weight(episodes: EpisodeBatch) -> Tensor:
    """(task,) one over the number of tasks of the same user."""
    tasks = Counter(episodes.users)
    weight = [1.0 / tasks[u] for u in episodes.users]
    return torch.tensor(weight, dtype=torch.float64, device=episodes.support.device)
