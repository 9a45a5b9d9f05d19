"""Time to teach a recogniser, to correct a video and to recognise a frame, on one core.

Beside nearest centroid.

Both begin with backbone features, so both project them: that is the floor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import torch
from numpy.typing import NDArray

from bayesfs.deploy.recogniser import teach
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.projection import Projection
from bayesfs.inference.exact import Exact
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.study import Learnt, Study
from bayesfs.types import Posterior

OBJECTS, VIDEOS, FRAMES = 6, 5, 8


def latency(
    width: int = 1280, dim: int = 256, repeats: int = 30, seed: int = 0
) -> dict[str, float]:
    """Medians over repeats, in milliseconds of one core, with the exact recipe's draws.

    Processor time, which is the wall time of an idle core: other people's work on the machine that
    measures is not the device's. `personalise_wall_ms` is the wall time, for comparison. What is
    compared is timed by turns, a block of each: what else the machine does slows both.

    Args:
        width: features of the backbone.
        dim: features of the model.
        repeats: of each measurement; frames are timed ten times as often.
        seed: of features and population.
    """
    rng, threads = np.random.default_rng(seed), torch.get_num_threads()
    study, learnt = setting(width, dim, seed)
    videos = {f"object {k}": _videos(rng, width) for k in range(OBJECTS)}
    frame = next(iter(videos.values()))[0][0]
    torch.set_num_threads(1)
    try:
        taught = teach(study, learnt, videos)
        centroids = _centroids(learnt.projection, videos)
        teaching = beside(
            lambda: teach(study, learnt, videos),
            lambda: _centroids(learnt.projection, videos),
            repeats,
        )
        recognition = beside(
            lambda: taught.frame(frame),
            lambda: _nearest(learnt.projection, centroids, frame),
            10 * repeats,
        )
        names = ("personalise_ms", "centroid_ms", "personalise_vs_centroid")
        found = dict(zip(names, teaching, strict=True))
        names = ("predict_ms_per_frame", "centroid_ms_per_frame", "predict_vs_centroid")
        found |= dict(zip(names, recognition, strict=True))
        found["personalise_wall_ms"] = median_ms(
            lambda: teach(study, learnt, videos), repeats, time.perf_counter
        )
        found["correct_ms"] = median_ms(lambda: taught.correct("object 0/1", "object 1"), repeats)
    finally:
        torch.set_num_threads(threads)
    return found


def beside(
    work: Callable[[], object], other: Callable[[], object], repeats: int, blocks: int = 10
) -> tuple[float, float, float]:
    """Median times of two works in milliseconds, and the median of their ratios over blocks."""
    each = max(1, repeats // blocks)
    times = [(median_ms(work, each), median_ms(other, each)) for _ in range(blocks)]
    first, second = (statistics.median(t) for t in zip(*times, strict=True))
    return first, second, statistics.median(a / b for a, b in times)


def setting(width: int, dim: int, seed: int = 0) -> tuple[Study, Learnt]:
    """The default recipe's study, with a population drawn from the model's prior."""
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, dim)))[0]
    spectrum = np.arange(1, dim + 1) ** -0.5
    spectrum /= np.sqrt((spectrum**2).sum())
    projection = Projection(np.full((2, width), 0.9 * width**-0.5), axes, spectrum)
    model = GaussianHierarchy().fit_to(tuple(spectrum.tolist()))
    with torch.random.fork_rng():
        pyro.set_rng_seed(seed)
        like = torch.zeros(1, dim, dtype=torch.float64)
        draws = [model.sample_population(like) for _ in range(8)]
    sites = {s: torch.stack([d[s].detach() for d in draws]) for s in draws[0]}
    population = Posterior("variational", sites, {s: model.population_dims[s] for s in sites})
    return Study(model, Exact(), HeldOutUsers()), Learnt(projection, population)


def median_ms(
    work: Callable[[], object], repeats: int, clock: Callable[[], float] = time.process_time
) -> float:
    """Median time of some work, in milliseconds, after one warm-up."""
    work()
    times = []
    for _ in range(repeats):
        began = clock()
        work()
        times.append(clock() - began)
    return 1e3 * statistics.median(times)


def _videos(rng: np.random.Generator, width: int) -> list[NDArray[Any]]:
    centre = rng.normal(size=width)
    shift = [0.5 * rng.normal(size=width) for _ in range(VIDEOS)]
    return [np.abs(centre + s + rng.normal(size=(FRAMES, width))) for s in shift]


def _centroids(projection: Projection, videos: dict[str, list[NDArray[Any]]]) -> NDArray[Any]:
    rows = np.concatenate([video for each in videos.values() for video in each])
    z = projection.of_features(rows, "clean")
    return np.asarray(z.reshape(OBJECTS, VIDEOS * FRAMES, -1).mean(1))


def _nearest(projection: Projection, centroids: NDArray[Any], frame: NDArray[Any]) -> int:
    z = projection.of_features(frame[None], "clutter")
    return int(((centroids - z) ** 2).sum(1).argmin())
