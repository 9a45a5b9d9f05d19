"""A population whose aleatoric uncertainty more videos leave alone: `flat_aleatoric`.

How surely people's videos are named tells a population how unsure to be, and hardly of which kind:
classes further apart beside noisier videos score as well. On real features, populations learnt so
take for aleatoric what further videos then remove, by 9 to 19 % from two to five of them. Yet by
the model's own law (tower property) the mean of

    A_n = E_theta H[p(y | x, theta)],    theta ~ p(theta | x, n support videos of each class),

over queries x is the same whatever n. That settles the split: of the populations whose classes have
e^c times and whose videos and frames e^s times the sd that was learnt, the one with

    sum_n (log n - mean log n) A_n = 0    and    sum_n T_n as before,

where A_n and T_n are mean aleatoric and total uncertainty of queries of train users, frames and
whole videos alike, by populations that were learnt without them. No label of a query is looked at,
and answers are as sure on the whole as the score would have them.

Source: Depeweg et al. (2018) for the split; Broyden (1965) for the steps.
refs.bib: depeweg2018, broyden1965.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs.errors import InferenceError
from bayesfs.models.gaussian.families import COVARIANCE_LEVELS
from bayesfs.prediction import thinned
from bayesfs.protocols import Conjugate
from bayesfs.study import Learnt, Study
from bayesfs.types import Embeddings, EpisodeBatch, Posterior
from bayesfs.uncertainty.decompose import decompose_draws

STEP, ROUNDS = 0.25, 20
"""Longest step of a log factor, and most steps."""

CLOSE = 0.01
"""Share of the total uncertainty by which either equation may fail."""

CLASSES = np.array([name == "class" for name in COVARIANCE_LEVELS])
NOISE = np.array([name.startswith(("video", "frame")) for name in COVARIANCE_LEVELS])


def flat_aleatoric(
    study: Study,
    learnt: Learnt,
    embeddings: Embeddings,
    *,
    folds: int = 3,
    draws: int = 32,
    population_draws: int = 4,
    seed: int,
) -> Learnt:
    """What was learnt, with the scales of classes and of noise that hold the model to its word.

    Args:
        study: its model has a scale for each of `COVARIANCE_LEVELS`, as `GaussianHierarchy` with
            most families; its evaluation scores at two numbers of support videos at least.
        learnt: by this study.
        embeddings: backbone features; of the train users' frames alone.
        folds: the train users are left out in so many groups.
        draws: label draws for each of these.
        population_draws: draws of the population, evenly spaced.
        seed: of what is learnt without a group, of the tasks and of the draws.

    Raises:
        InferenceError: the model has no such scales, there is one number of support videos or too
            few users, or no factors do it.

    Example:
        >>> learnt = flat_aleatoric(study, study.learn(data, seed=0), data, seed=0)
        ... # doctest: +SKIP
    """
    shots = study.evaluation.shots
    scale = learnt.population.population.get("scale")
    if scale is None or scale.shape[-1] != len(COVARIANCE_LEVELS):
        raise InferenceError(
            f"expected a population with a scale of each of {', '.join(COVARIANCE_LEVELS)}, got "
            f"the sites {', '.join(learnt.population.draws)} of {type(study.model).__name__}"
        )
    if len(shots) < 2:
        raise InferenceError(f"expected two numbers of support videos at least, got {shots}")
    groups = [*_left_out(study, embeddings, folds, seed=seed)]
    centred = np.log(shots) - np.mean(np.log(shots))

    def kinds(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        each = [
            [
                _kinds(model, tasks.limit_shots(n), thinned(moved, population_draws), draws, seed)
                for n in shots
            ]
            for model, tasks, population in groups
            for moved in [scaled(population, *logs)]
        ]
        return np.asarray(np.mean(each, axis=0), np.float64)

    before = kinds(np.zeros(2))[:, 0].mean()

    def off(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        total, aleatoric = kinds(logs).T
        return np.array([centred @ aleatoric, total.mean() - before])

    logs, left = solved(off, CLOSE * before)
    if left > CLOSE * before:
        raise InferenceError(
            f"no scales leave aleatoric uncertainty alone at {shots} support videos (tried factors "
            f"{np.exp(logs).round(2).tolist()} of classes and noise); are queries and support of "
            "one kind, and more than one class in a task?"
        )
    return replace(learnt, population=scaled(learnt.population, *logs))


def _left_out(
    study: Study, embeddings: Embeddings, folds: int, *, seed: int
) -> Iterator[tuple[Conjugate, EpisodeBatch, Posterior]]:
    """Model, tasks of a group of train users, and what the others teach; of one group each."""
    split = study.evaluation.train_split
    train = embeddings.where(split=split)
    user = train.coord("user")
    users = sorted(set(user.tolist()))
    if len(users) < max(folds, 2):
        raise InferenceError(f"expected {max(folds, 2)} train users at least, got {users}")
    for group in np.array_split(users, folds):
        there = np.where(np.isin(user, group), study.evaluation.test_split, split)
        people = Embeddings(train.dataset.assign_coords(split=("frame", there)))
        others = study.learn(people, seed=seed)
        model = study.model_of(others)
        if not isinstance(model, Conjugate):
            raise InferenceError(f"expected a Conjugate model, got {type(model).__name__}")
        yield model, study.tasks(people, others, seed=seed), others.population


def solved(
    off: Callable[[NDArray[np.float64]], NDArray[np.float64]], close: float
) -> tuple[NDArray[np.float64], float]:
    """Where `off` is near 0, from 0 on, by Broyden's steps of at most `STEP`; and how far it is.

    Args:
        off: of two variables, smooth but for rounding.
        close: largest part of `off` that is near enough.
    """
    x, now = np.zeros(2), off(np.zeros(2))
    slope = np.stack([off(h) - now for h in STEP * np.eye(2)], 1) / STEP
    for _ in range(ROUNDS):
        if np.abs(now).max() <= close:
            break
        step = np.linalg.lstsq(slope, -now, rcond=None)[0].clip(-STEP, STEP)
        x = x + step
        then = off(x)
        slope = slope + np.outer(then - now - slope @ step, step) / max(step @ step, 1e-12)
        now = then
    return x, float(np.abs(now).max())


def scaled(population: Posterior, classes: float, noise: float) -> Posterior:
    """The population with e^classes times the sd of classes, e^noise that of videos and frames."""
    scale = population.draws["scale"]
    factor = scale.new_tensor(np.exp(classes * CLASSES + noise * NOISE))
    return population.changed(draws={**population.draws, "scale": scale * factor})


def _kinds(
    model: Conjugate,
    tasks: EpisodeBatch,
    values: dict[str, Tensor],
    draws: int,
    seed: int,
) -> tuple[float, float]:
    """Mean total and aleatoric uncertainty, of frames and whole videos alike, in nats."""
    with torch.no_grad():
        found = model.predictive(tasks, values, draws=draws, seed=seed)
    pairs = (found.frame, tasks.query_mask), (found.video, tasks.video_mask)
    each = [[u[mask].mean() for u in decompose_draws(labels)[:2]] for labels, mask in pairs]
    total, aleatoric = torch.tensor(each).mean(0).tolist()
    return total, aleatoric
