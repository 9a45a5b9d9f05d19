"""A population whose aleatoric uncertainty more videos leave alone: `flat_aleatoric`.

How surely people's videos are named tells a population how unsure to be, and hardly of which kind:
classes further apart beside noisier videos score as well. On real features, populations learnt so
take for aleatoric what further videos then remove, by 9 to 19 % from two to five of them. Yet by
the model's own law (tower property) the mean of

    A_n = E_theta H[p(y | x, theta)],    theta ~ p(theta | x, n support videos of each class),

over queries x is the same whatever n. That settles the split: of the populations whose classes have
e^c times and whose videos and frames e^s times the sd that was learnt, the one with

    sum_n (log n - mean log n) A_n = 0    and    sum_n T_n as before,

where A_n and T_n are mean aleatoric and total uncertainty of the train users' queries, frames and
whole videos alike. No label of a query is looked at, and answers are as sure on the whole as the
score would have them.

Source: Depeweg et al. (2018) for the split; Broyden (1965) for the steps.
"""

from __future__ import annotations

from collections.abc import Callable
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

CLASSES = torch.tensor([name == "class" for name in COVARIANCE_LEVELS])
NOISE = torch.tensor([name.startswith(("video", "frame")) for name in COVARIANCE_LEVELS])


def flat_aleatoric(
    study: Study,
    learnt: Learnt,
    embeddings: Embeddings,
    *,
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
        draws: label draws for each of these.
        population_draws: draws of the population, evenly spaced.
        seed: of the train users' tasks and of the draws.

    Raises:
        InferenceError: the model has no such scales, there is one number of support videos or no
            task, or no factors do it.

    Example:
        >>> learnt = flat_aleatoric(study, study.learn(data, seed=0), data, seed=0)
        ... # doctest: +SKIP
    """
    model, shots = study.model_of(learnt), study.evaluation.shots
    tasks = study.train_tasks(embeddings, learnt, seed=seed)
    levels = learnt.population.population.get("scale", torch.zeros(0)).shape[-1:]
    if not isinstance(model, Conjugate) or levels != (len(COVARIANCE_LEVELS),):
        raise InferenceError(
            f"expected a population with a scale of each of {', '.join(COVARIANCE_LEVELS)}, got "
            f"the sites {', '.join(learnt.population.draws)} of {type(model).__name__}"
        )
    if tasks is None or len(shots) < 2:
        raise InferenceError(
            f"expected tasks of train users with two numbers of support videos, got {shots}"
        )
    batches = [tasks.limit_shots(n) for n in shots]
    centred = np.log(shots) - np.mean(np.log(shots))

    def kinds(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        values = thinned(scaled(learnt.population, *logs), population_draws)
        return np.array([_kinds(model, batch, values, draws=draws, seed=seed) for batch in batches])

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
    log = (classes * CLASSES + noise * NOISE).to(scale)
    return population.changed(draws={**population.draws, "scale": scale * log.exp()})


def _kinds(
    model: Conjugate,
    tasks: EpisodeBatch,
    values: dict[str, Tensor],
    *,
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
