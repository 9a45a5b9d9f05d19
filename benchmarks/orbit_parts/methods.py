"""Who answers ORBIT's tasks: `methods_of`.

Every method has an embedding of its own, and gives the predictive of a batch of tasks. Nothing is
learnt from a test user but what their support shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.explanation.evidence import QUERY
from bayesfs.features.reduction import UnitNorm
from bayesfs.models.baselines.classifiers import Logistic, Prototypes, fit_temperature
from bayesfs.models.similarity.pool import SimilarityPool
from bayesfs.prediction import predict
from bayesfs.protocols import Engine, Model
from bayesfs.study import Study, scatter_of
from bayesfs.training.shared_population import BACKBONES, ENGINE, default_population
from bayesfs.types import Embeddings, EpisodeBatch, LabelDraws, Posterior, Predictive
from orbit_parts.people import People

DEFAULT = "bayesfs"
"""Whose results.json is written."""

PIECE = 1024
"""Frames, padded ones too, that are answered for at a time."""

PEERS = {"cosine_prototypes": Prototypes(metric="cosine"), "logistic_regression": Logistic()}


@dataclass(frozen=True)
class Method:
    """One that answers.

    Attributes:
        embed: frames -> the frames that it sees.
        answer: tasks of such frames -> their predictive.
    """

    embed: Callable[[Embeddings], Embeddings]
    answer: Callable[[EpisodeBatch], Predictive]


def methods_of(people: People, evaluation: HeldOutUsers, recipe: Study | None) -> dict[str, Method]:
    """The library's default, two peers, and a recipe where one is given.

    The default is `SimilarityPool` with the scatter of the train users' videos, and what comes with
    bayesfs of the backbone, or the prior of another one. The peers have temperatures from the
    train users' tasks. A recipe learns its population from the train users, which takes long.
    """
    unit = UnitNorm().fit(people.train)
    seen = unit(people.train)
    train = evaluation.train_tasks(seen, seed=0).to(torch.float64)
    model = SimilarityPool(scatter_of(seen))
    found = {DEFAULT: Method(unit, partial(_answer, model, ENGINE, _population(people)))}
    for name, peer in PEERS.items():
        found[name] = Method(unit, fit_temperature(peer, train).predictive)
    if recipe is not None:
        learnt = recipe.learn(people.train, seed=0)
        own = recipe.model_of(learnt)
        answer = partial(_answer, own, recipe.engine, learnt.population)
        found["recipe"] = Method(learnt.projection, answer)
    return found


def _population(people: People) -> Posterior:
    """What comes along for the backbone, or the prior of the model."""
    for name in BACKBONES:
        shared = default_population(name)
        if shared.backbone == people.backbone:
            return shared.population
    return SimilarityPool().default_population(people.train.features.shape[1])


def _answer(
    model: Model, engine: Engine, population: Posterior, episodes: EpisodeBatch
) -> Predictive:
    """In pieces of the query, whose draws are not kept: a whole one takes gigabytes."""
    posterior = None
    frame = torch.full((*episodes.query_mask.shape, episodes.way), -torch.inf, dtype=torch.float64)
    frame[..., 0] = 0.0  # padding: any distribution
    video = frame[:, :, 0].clone()
    for videos, length in pieces(episodes.query_mask):
        cut = {n: v[:, videos] for n in QUERY if (v := getattr(episodes, n)) is not None}
        cut |= {n: v[:, :, :length] for n, v in cut.items() if v.ndim > 2}
        piece = episodes.changed(**cut, videos=()).to(torch.float64)
        posterior = posterior or engine.infer(model, piece, seed=0, given=population)
        found = predict(model, posterior, piece, given=population)
        frame[:, videos, :length], video[:, videos] = found.frame.log_prob, found.video.log_prob
    return Predictive(*(_mean_alone(p) for p in (frame, video)))


def pieces(mask: Tensor) -> Iterator[tuple[list[int], int]]:
    """Query videos of like length, and the longest one's, so that padding is little.

    Args:
        mask: (task, video, frame) frames that exist.
    """
    places = torch.arange(1, mask.shape[-1] + 1)
    lengths = (mask * places).amax((0, 2)).clamp(min=1).tolist()
    piece: list[int] = []
    for video in sorted(range(len(lengths)), key=lengths.__getitem__):
        if piece and (len(piece) + 1) * lengths[video] > PIECE:
            yield piece, lengths[piece[-1]]
            piece = []
        piece.append(video)
    yield piece, lengths[piece[-1]]


def _mean_alone(log_prob: Tensor) -> LabelDraws:
    return LabelDraws(log_prob, log_prob[None], torch.zeros_like(log_prob[None, ..., 0]))
