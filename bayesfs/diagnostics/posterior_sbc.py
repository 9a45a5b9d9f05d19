"""Simulation-based calibration near the data at hand: `calibrate_near`.

Prior simulation asks whether an engine is right on average over tasks that the prior makes, most of
which are unlike a person's. Near data y the same holds of the posterior: with

    theta ~ p(theta | y),    y' ~ p(y' | theta),

theta is a draw from p(theta | y, y'), so that its ranks among the draws that the engine gives for
y and y' together are uniform if the engine is right there. A task's y' is as many further videos of
each class as it has, of the same lengths and conditions, whose own effects come from their prior.

An engine that is as wrong about y as about (y, y') is seen less easily than one that is wrong about
(y, y') alone: both have to agree. Draws of the population are taken as they are: whether the
population was learnt well is another question.

Source: Säilynoja, Schmitt, Bürkner and Vehtari (2025), Posterior SBC, arXiv 2502.03279;
refs.bib: sailynoja2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from bayesfs._utils.spacing import evenly_spaced
from bayesfs.diagnostics.sbc import RANKED_DRAWS, Calibration, ranked
from bayesfs.diagnostics.sbc_tasks import Simulated, filled_frames
from bayesfs.errors import DataError
from bayesfs.inference.program.simulation import Simulator
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior

SCALARS = 2**25
"""Numbers among the draws of one inference; bounds the memory (256 MB in double precision)."""


def calibrate_near(
    model: Model,
    engine: Engine,
    episodes: EpisodeBatch,
    population: Posterior,
    *,
    simulations: int = 96,
    values: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Draw from the posterior of every task, simulate further videos, infer again, and rank.

    Args:
        model: what the tasks are inferred with.
        engine: what infers them, given the population.
        episodes: T tasks; only their support is used.
        population: what was learnt.
        simulations: at least so many in all, evenly over tasks and values of the population.
        values: draws of the population that the simulations are shared out over.
        seed: of simulations and inference.
        progress: called with (values done, values, message).

    Returns:
        The ranks, one per simulation and quantity.

    Raises:
        DataError: the model draws no features, the engine gives fewer draws than are ranked, or a
            number is below 1.
    """
    if min(simulations, values) < 1:
        raise DataError(
            f"expected simulations and values of at least 1, got {simulations} and {values}"
        )
    picks = evenly_spaced(population.num_draws, values)
    copies = -(-simulations // (len(picks) * len(episodes)))
    parts = []
    for done, pick in enumerate(picks):
        given = one_draw(population, pick)
        start = engine.infer(model, episodes, seed=seed + pick, given=given)
        needed = max(copies, RANKED_DRAWS)
        if start.num_draws < needed:
            raise DataError(
                f"expected at least {needed} posterior draws, got {start.num_draws}; "
                "let the engine take more"
            )
        truth = _dealt(start, copies)
        repeated = [*range(len(episodes))] * copies
        at_once = _at_once(start, len(episodes))
        for first in range(0, len(repeated), at_once):
            own = slice(first, first + at_once)
            some = {site: value[:, own] for site, value in truth.items()}
            told = with_replicates(
                model, episodes.select(repeated[own]), some, given, seed=seed + pick + first
            )
            found = engine.infer(model, told.episodes, seed=seed + pick + 1, given=given)
            parts.append(ranked(model, found, told, seed=seed + pick))
        if progress is not None:
            progress(done + 1, len(picks), "posterior SBC")
    return reduce(Calibration.joined, parts)


def _at_once(posterior: Posterior, tasks: int) -> int:
    """Tasks with twice the videos whose draws hold about `SCALARS` numbers, at least one."""
    own = [v for site, v in posterior.draws.items() if "task" in posterior.dims[site]]
    return max(1, SCALARS * tasks // (2 * sum(value.numel() for value in own)))


def one_draw(population: Posterior, pick: int) -> Posterior:
    """The population at one of its draws."""
    draws = {site: value[pick : pick + 1] for site, value in population.population.items()}
    return Posterior.of_own("exact", draws, {site: population.dims[site] for site in draws})


def _dealt(posterior: Posterior, copies: int) -> dict[str, Tensor]:
    """Site -> (1, copies x task, ...): another draw of every task for each copy."""
    index = torch.tensor(evenly_spaced(posterior.num_draws, copies))
    return {
        site: value[index.to(value.device)].flatten(0, 1)[None]
        for site, value in posterior.draws.items()
        if "task" in posterior.dims[site]
    }


def with_replicates(
    model: Model,
    episodes: EpisodeBatch,
    truth: Mapping[str, Tensor],
    given: Posterior,
    *,
    seed: int,
) -> Simulated:
    """Tasks with as many further support videos, drawn from the model at one draw of each task.

    Args:
        model: the model.
        episodes: T tasks.
        truth: task-level site -> (1, *dims), a draw from their posterior.
        given: one draw of the population.
        seed: of the further videos.

    Raises:
        DataError: the model draws no features.
    """
    shots = episodes.support.shape[2]
    doubled = _doubled(episodes)
    program = Simulator(model, doubled)
    known = {site: value[0] for site, value in given.population.items()}
    known |= {s: v[0] for s, v in truth.items() if "shot" not in model.dims[s]}
    fresh = program.prior(seed=seed, held=known)
    for site in truth.keys() - known.keys():
        axis = model.dims[site].index("shot")
        own = fresh[site].narrow(axis, shots, shots)
        known[site] = torch.cat([truth[site][0], own], axis)
    run = program.draw(seed=seed, held=known)
    made = [program.as_support(value) for value in run.observed.values()]
    if len(made) != 1 or made[0] is None:
        raise DataError(
            f"posterior SBC needs a model that draws the features of the support; "
            f"{type(model).__name__} draws {', '.join(sorted(run.observed))}"
        )
    new = filled_frames(made[0][:, :, shots:], episodes)
    support = torch.cat([episodes.support, new], 2)
    return Simulated(doubled.changed(support=support), {s: v[None] for s, v in known.items()})


def _doubled(episodes: EpisodeBatch) -> EpisodeBatch:
    """Every support video twice; the frames of the second half are to be replaced."""
    named = ("support", "support_mask", "support_condition", "support_quality")
    twice = {
        name: torch.cat([value, value], 2)
        for name in named
        if (value := getattr(episodes, name)) is not None
    }
    return episodes.changed(**twice, support_frame=None)
