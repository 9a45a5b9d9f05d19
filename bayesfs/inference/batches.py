"""Tasks a batch at a time, so that memory is bounded: `task_batches` and `join_tasks`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from bayesfs.contracts import Model
from bayesfs.types import EpisodeBatch, Posterior

HISTORY = "elbo"
"""Statistic over the steps of an optimiser: summed over batches, not joined along tasks."""


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
    joint = given is None and any("task" not in axes for axes in model.dims.values())
    size = len(episodes) if joint else batch_size
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
        for site, axes in first.dims.items()
    }
    stats = {
        name: _join(name, first, [p.sample_stats[name] for p in parts])
        for name in first.sample_stats
    }
    names = tuple(chain.from_iterable(p.coords.get("task", ()) for p in parts))
    coords: Mapping[str, tuple[str, ...]] = {**first.coords, **({"task": names} if names else {})}
    return Posterior(first.kind, draws, first.dims, first.chains, stats, coords, first.seed)


def _join(name: str, first: Posterior, values: Sequence[Tensor]) -> Tensor:
    if name == HISTORY:
        steps = max(len(v) for v in values)
        full = [torch.cat([v, v[-1:].expand(steps - len(v))]) for v in values]
        return torch.stack(full).sum(0)
    over_draws = values[0].ndim > 1 and values[0].shape[0] == first.num_draws
    return torch.cat(list(values), 1 if over_draws else 0)
