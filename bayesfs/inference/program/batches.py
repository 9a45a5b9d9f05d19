"""Tasks a batch at a time, so that memory is bounded: `infer_in_batches`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

from bayesfs._utils.spacing import evenly_spaced
from bayesfs.inference.program.canonical import canonical
from bayesfs.inference.program.potential import Potential, potential
from bayesfs.inference.program.units import with_units
from bayesfs.protocols import Model
from bayesfs.types import EpisodeBatch, Posterior

HISTORY = "elbo"
"""Statistic over the steps of an optimiser: summed over batches, not joined along tasks."""

PER_STEP = ("ksd",)
"""Statistics (step, task): joined along tasks, the last value of an early stop repeated."""

WORST = (
    "khat",
    "gradient",
    "ridge",
    "ksd_ratio",
    "stein_moments",
    "latents_per_particle",
    "repeats",
)
"""Statistics that warn: over draws of the population, the largest counts, not the mean."""


Axis = Literal["way", "shot", "frame"]
"""What of the support of a task may have to be as long as another one's."""


def infer_in_batches(
    fit: Callable[[Potential, int, int], Posterior | Future[Posterior]],
    model: Model,
    episodes: EpisodeBatch,
    given: Posterior | None,
    *,
    draws: int,
    batch_size: int,
    population_draws: int = 1,
    alike: tuple[Axis, ...] = (),
) -> Posterior:
    """Run an engine on `batch_size` tasks at a time, for one or several draws of the population.

    The engine gets the tasks in canonical order (`bayesfs.inference.program.canonical`), so that
    neither names nor places of classes and videos change a draw.

    Args:
        fit: (density of a batch, draws wanted, number of the draw of the population) -> posterior
            of that batch, or its future where batches run side by side.
        model: Pyro program.
        episodes: T tasks.
        given: posterior of the population, or None.
        draws: posterior draws in all, at least.
        batch_size: tasks at a time; a joint density is never divided.
        population_draws: 1 conditions on the population's mean; more take that many evenly spaced
            draws of it, so that its uncertainty is part of the posterior, at so many times the
            cost.
        alike: what tasks of one batch have equally many of, for engines whose answer to a task
            padding would move: where latents that are not there count in a kernel or a step.

    Returns:
        Posterior of all tasks. With several population draws, the draws stand draw by draw of the
        population, and statistics per task are means over them (the worst, for `WORST`). Where a
        population was learnt, `units` says whether the data are of a size that its prior knows.
    """
    picks = _population_picks(model, given, min(population_draws, draws))
    share = -(-draws // len(picks))

    def inferred(tasks: EpisodeBatch) -> Posterior:
        order = canonical(model, tasks)
        parts = []
        for branch, pick in enumerate(picks):
            batches = task_batches(model, order.episodes, batch_size, given)
            densities = (potential(model, batch, given, draw=pick) for batch in batches)
            parts.append([fit(density, share, branch) for density in densities])
        joined = join_draws([join_tasks([_result(fitted) for fitted in part]) for part in parts])
        return order.restored(joined, model, given)

    if _is_joint(model, given):
        return with_units(model, episodes, inferred(episodes))
    groups = alike_groups(episodes, alike)
    if len(groups) == 1:
        return inferred(episodes)
    joined = join_tasks([inferred(episodes.select(group)) for group in groups])
    return _in_order(joined, [*chain.from_iterable(groups)])


def alike_groups(episodes: EpisodeBatch, alike: tuple[Axis, ...]) -> list[list[int]]:
    """Tasks with equally many ways, support videos of a class at most, or frames of a video."""
    lengths: Mapping[Axis, Tensor] = {
        "way": episodes.way_mask.sum(-1),
        "shot": episodes.shot_mask.sum(-1).amax(-1),
        "frame": episodes.support_mask.sum(-1).amax((1, 2)),
    }
    found: dict[tuple[int, ...], list[int]] = {}
    for task in range(len(episodes)):
        found.setdefault(tuple(int(lengths[axis][task]) for axis in alike), []).append(task)
    return [*found.values()]


def _in_order(posterior: Posterior, places: Sequence[int]) -> Posterior:
    """Tasks, the k-th of which belongs to place `places[k]`, at their places."""
    order = torch.as_tensor(places).argsort()
    draws = {
        site: value.index_select(1 + axes.index("task"), order.to(value.device))
        if "task" in (axes := posterior.dims[site])
        else value
        for site, value in posterior.draws.items()
    }
    stats = {
        name: value
        if name == HISTORY
        else value.index_select(_task_axis(name, posterior), order.to(value.device))
        for name, value in posterior.sample_stats.items()
    }
    coords = dict(posterior.coords)
    if "task" in coords:
        coords["task"] = tuple(coords["task"][k] for k in order.tolist())
    return posterior.changed(draws=draws, sample_stats=stats, coords=coords)


def _result(fitted: Posterior | Future[Posterior]) -> Posterior:
    return fitted.result() if isinstance(fitted, Future) else fitted


def _population_picks(model: Model, given: Posterior | None, count: int) -> list[int | None]:
    has_population = any("task" not in axes for axes in model.dims.values())
    if given is None or not has_population or count == 1:
        return [None]
    return [*evenly_spaced(given.num_draws, count)]


def _is_joint(model: Model, given: Posterior | None) -> bool:
    """Whether a population is to be learnt."""
    return given is None and any("task" not in axes for axes in model.dims.values())


def task_batches(
    model: Model, episodes: EpisodeBatch, batch_size: int, given: Posterior | None
) -> Iterator[EpisodeBatch]:
    """The tasks in order, `batch_size` at a time; all at once where a population is to be learnt.

    Args:
        model: its `dims` tell whether there is a population.
        episodes: T tasks.
        batch_size: tasks at a time.
        given: posterior that holds the population, or None.
    """
    size = len(episodes) if _is_joint(model, given) else batch_size
    for start in range(0, len(episodes), size):
        tasks = range(start, min(start + size, len(episodes)))
        yield episodes if len(tasks) == len(episodes) else episodes.select(tasks)


def join_tasks(parts: Sequence[Posterior]) -> Posterior:
    """Posteriors of consecutive batches of tasks as one posterior of all of them.

    Sites and statistics are joined along their task axis: statistics have it after the draw axis
    if they have one, else first. The optimiser's history `elbo` is summed, the last value of a
    batch that stopped early counting for its missing steps.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    draws = {
        site: torch.cat([p.draws[site] for p in parts], 1 + axes.index("task"))
        if "task" in axes
        else first.draws[site]
        for site, axes in first.dims.items()
    }
    stats = {
        name: _join(name, first, [p.sample_stats[name] for p in parts])
        for name in first.sample_stats
    }
    names = tuple(chain.from_iterable(p.coords.get("task", ()) for p in parts))
    coords: Mapping[str, tuple[str, ...]] = {**first.coords, **({"task": names} if names else {})}
    return Posterior.of_own(first.kind, draws, first.dims, first.chains, stats, coords, first.seed)


def join_draws(parts: Sequence[Posterior]) -> Posterior:
    """Posteriors of the same tasks, one per draw of the population, as their equal mixture."""
    first = parts[0]
    if len(parts) == 1:
        return first
    draws = {site: torch.cat([p.draws[site] for p in parts]) for site in first.draws}
    stats = {}
    for name in first.sample_stats:
        values = [p.sample_stats[name] for p in parts]
        if _is_over_draws(name, first):
            stats[name] = torch.cat(values)
            continue
        stacked = torch.stack(_same_length(values))
        stats[name] = stacked.amax(0) if name in WORST else stacked.mean(0)
    chains = sum(p.chains for p in parts) if first.kind == "mcmc" else first.chains
    return first.changed(draws=draws, sample_stats=stats, chains=chains)


def _is_over_draws(name: str, posterior: Posterior) -> bool:
    """Whether a statistic has the axes (draw, task)."""
    value = posterior.sample_stats[name]
    return name not in PER_STEP and value.ndim > 1 and len(value) == posterior.num_draws


def _same_length(values: Sequence[Tensor]) -> list[Tensor]:
    """Histories of optimisers, the last value of one that stopped early repeated."""
    steps = max(len(v) for v in values)
    return [torch.cat([v, v[-1:].expand(steps - len(v), *v.shape[1:])]) for v in values]


def _join(name: str, first: Posterior, values: Sequence[Tensor]) -> Tensor:
    if name == HISTORY:
        return torch.stack(_same_length(values)).sum(0)
    if name in PER_STEP:
        return torch.cat(_same_length(values), 1)
    return torch.cat(list(values), _task_axis(name, first))


def _task_axis(name: str, posterior: Posterior) -> int:
    """Which axis of a statistic runs over tasks."""
    return 1 if name in PER_STEP or _is_over_draws(name, posterior) else 0
