"""A cheap engine for all tasks, dearer ones for those that its own checks fail: `Checked`.

Among many tasks most are easy. The first engine does all of them in one batch; each task is then
judged by its own statistics, and only those that fail go on to the next engine, and so on to the
last, whose draws stand. `escalations` says who was escalated, to what, and why.

Source: the amortised workflow of Schmitt, Li, Vehtari, Acerbi, Bürkner and Radev (2024,
arXiv 2409.04332) goes from amortised draws over importance resampling to MCMC; here for tasks of a
hierarchy, with any engines.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bayesfs._utils.spacing import evenly_spaced
from bayesfs.errors import InferenceError
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.inference.program.batches import HISTORY, PER_STEP
from bayesfs.inference.program.limits import LIMITS, failures
from bayesfs.inference.svi.svi import SVI
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior

logger = logging.getLogger(__name__)

ESCALATED = "escalated"
"""Statistic (task,): number of the engine whose draws a task has; 0 is the first."""

FIRST = "first_"
"""Prefix of the first engine's statistics in what `Checked` returns."""


@dataclass(frozen=True)
class Checked(Engine):
    """One batch of the first engine; what fails its own checks goes to the engines after it.

    Diagnostics in `Posterior.sample_stats`, beside those of the engines, NaN for tasks that have
    none of their own:

        escalated (task,): number of the engine whose draws a task has.
        first_khat, first_stein_moments, ... (task,): what the first engine was judged by.

    Where draws of several engines stand side by side, the posterior is of kind "mcmc" if any of
    them is: independent draws are chains that mix at once. It has as many draws as the shortest.

    Attributes:
        first: engine of all tasks; its posterior needs some of the statistics in `until`.
        then: engines, one after another, of the tasks that fail.
        until: statistic (task,) -> the most that passes.

    Raises:
        InferenceError: there is no engine to go on with.

    Example:
        >>> engine = Checked(SVI(corrected=True), then=(NUTS(),))
        >>> posterior = engine.infer(model, episodes, seed=0, given=population)  # doctest: +SKIP
        >>> escalations(posterior)  # doctest: +SKIP
        ['P003: khat 0.93 > 0.7; drawn by engine 1']
    """

    first: Engine = field(default_factory=lambda: SVI(corrected=True))
    then: Sequence[Engine] = field(default_factory=lambda: (NUTS(),))
    until: Mapping[str, float] = field(default_factory=lambda: dict(LIMITS))

    def __post_init__(self) -> None:
        if not self.then:
            raise InferenceError("expected at least one engine in then=, got none")

    def check_model(self, model: Model) -> None:
        """Refuse a model that any of the engines refuses."""
        for engine in (self.first, *self.then):
            engine.check_model(model)

    def stand_in(self) -> Engine | None:
        """The last engine's."""
        return self.then[-1].stand_in()

    def infer(
        self,
        model: Model,
        episodes: EpisodeBatch,
        *,
        seed: int,
        given: Posterior | None = None,
        progress: Progress | None = None,
    ) -> Posterior:
        """Posterior of all tasks; see `bayesfs.protocols.Engine.infer`.

        A population that is to be learnt is one density: it is escalated as a whole.

        Raises:
            InferenceError: the first engine reports none of the statistics in `until`.
        """
        posterior = self.first.infer(model, episodes, seed=seed, given=given, progress=progress)
        failed = failures(posterior, self.until)
        if not failed:
            raise InferenceError(
                f"{type(self.first).__name__} reports none of {sorted(self.until)}, so that no "
                "task can be judged; use another first engine, or other names in until="
            )
        told = {f"{FIRST}{name}": posterior.sample_stats[name] for name in failed}
        left = _any(failed)
        number = torch.zeros(len(left))
        for k, engine in enumerate(self.then, 1):
            tasks = left.nonzero().flatten().tolist()
            if not tasks:
                break
            logger.info("%d of %d tasks go to %s", len(tasks), len(left), type(engine).__name__)
            whole = len(tasks) == len(left)
            some = episodes if whole else episodes.select(tasks)
            found = engine.infer(model, some, seed=seed, given=given, progress=progress)
            number[tasks] = k
            posterior = found if whole else _replaced(posterior, found, tasks)
            still = failures(found, self.until)
            left = torch.zeros_like(left)
            left[tasks] = _any(still) if still else torch.zeros(len(tasks), dtype=torch.bool)
        return posterior.changed(
            sample_stats={**posterior.sample_stats, **told, ESCALATED: number.to(left.device)}
        )


def escalations(posterior: Posterior, limits: Mapping[str, float] = LIMITS) -> list[str]:
    """One line for each task that the first engine's checks failed: who, why, and whose draws.

    Args:
        posterior: from `Checked`.
        limits: its `until`.
    """
    lines = []
    names = posterior.coords.get("task", ())
    for task, engine in enumerate(posterior.sample_stats[ESCALATED].tolist()):
        reasons = [
            f"{name} {value:.2g} > {most:g}"
            for name, most in limits.items()
            if (found := posterior.sample_stats.get(f"{FIRST}{name}")) is not None
            for value in [float(found.reshape(-1)[task])]
            if not value <= most
        ]
        if reasons:
            who = names[task] if names else f"task {task}"
            lines.append(f"{who}: {', '.join(reasons)}; drawn by engine {int(engine)}")
    return lines


def _any(failed: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([*failed.values()]).any(0).cpu()


def _replaced(base: Posterior, other: Posterior, tasks: list[int]) -> Posterior:
    """The base with the draws and statistics of some tasks taken from another posterior."""
    chains = other.chains if other.kind == "mcmc" else base.chains
    kept = min(base.num_draws, other.num_draws) // chains
    own, new = (_thinned(p, chains, kept) for p in (base, other))
    draws = {}
    for site, value in base.draws.items():
        draws[site] = value[own.to(value.device)]
        if "task" in base.dims[site]:
            axis = 1 + base.dims[site].index("task")
            index = torch.tensor(tasks, device=value.device)
            at = new.to(value.device)
            draws[site] = draws[site].index_copy(axis, index, other.draws[site][at])
    stats = _statistics(base, other, tasks, own, new)
    kind = "mcmc" if "mcmc" in (base.kind, other.kind) else base.kind
    return base.changed(draws=draws, sample_stats=stats, chains=chains, kind=kind)


def _thinned(posterior: Posterior, chains: int, kept: int) -> Tensor:
    """Numbers of draws: `kept` of each of so many equal stretches, evenly spaced."""
    length = posterior.num_draws // chains
    each = torch.tensor([*evenly_spaced(length, kept)])
    return (torch.arange(chains)[:, None] * length + each).flatten()


def _statistics(
    base: Posterior, other: Posterior, tasks: list[int], own: Tensor, new: Tensor
) -> dict[str, Tensor]:
    """Statistics of a task or of its draws; histories of optimisers are left out."""
    count = _tasks(base)
    found: dict[str, Tensor] = {}
    for posterior, at, places in ((base, own, [*range(count)]), (other, new, tasks)):
        for name, value in posterior.sample_stats.items():
            shape: tuple[int, ...] = (count,)
            if name == HISTORY or name in PER_STEP:
                continue
            if value.shape == (len(places),):
                part = value
            elif value.shape == (posterior.num_draws, len(places)):
                part, shape = value[at.to(value.device)], (len(at), count)
            else:
                continue
            missing = False if part.dtype == torch.bool else float("nan")
            kind = part.dtype if part.dtype == torch.bool else torch.get_default_dtype()
            if name not in found or posterior is base:
                found[name] = torch.full(shape, missing, dtype=kind, device=part.device)
            found[name][..., places] = part.to(kind)
    for name in set(base.sample_stats) - set(other.sample_stats):
        if name in found and found[name].is_floating_point():
            found[name][..., tasks] = float("nan")
    return found


def _tasks(posterior: Posterior) -> int:
    """Number of tasks."""
    return next(
        value.shape[1 + posterior.dims[site].index("task")]
        for site, value in posterior.draws.items()
        if "task" in posterior.dims[site]
    )
