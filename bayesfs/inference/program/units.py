"""Are the data in the units that a prior is made for? `with_units`, before a population is learnt.

Priors of scales, such as HalfNormal(1), suit features of about unit length with mean zero. Data a
hundred times as large, or far from the origin, pull the population to where its prior has no mass,
and its scales come out wrong without any sign in an engine's own diagnostics. What a prior expects
is read off the model's program, run forwards: with l the root mean square length of what it
observes,

    units = max(l / (SLACK max_s l_s), min_s l_s / (SLACK_BELOW l)),    s = 1..DRAWS simulations,

which is 1 at most where the data are of a size that the prior knows.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import torch
from pyro import poutine
from pyro.distributions import Unit
from torch import Tensor

from bayesfs.inference.program.sites import TraceSite, sampled_sites, seeded, trace_program
from bayesfs.protocols import Model
from bayesfs.types import EpisodeBatch, Posterior

UNITS = "units"
"""Name of the statistic."""

DRAWS = 32
"""Simulations of the prior."""

TASKS = 4
"""Tasks that are simulated."""

SLACK = 2.0
"""How far beyond the longest simulation data may be."""

SLACK_BELOW = 10.0
"""How far below the shortest: priors of scales are flat there, so that small data do less harm."""


def with_units(model: Model, episodes: EpisodeBatch, posterior: Posterior) -> Posterior:
    """The posterior with `units` among its statistics; warns where it is above 1.

    Args:
        model: what the population was learnt with: a program, or an objective around one.
        episodes: what it was learnt from.
        posterior: of the population, and of the tasks where they were inferred together.

    Returns:
        The posterior as it is where the program observes no features.
    """
    program = getattr(model, "model", model)
    found = data_length(program, episodes)
    if found is None:
        return posterior
    low, high = prior_lengths(program, episodes)
    units = max(found / (SLACK * high), low / (SLACK_BELOW * max(found, 1e-300)))
    if units > 1:
        warnings.warn(
            f"expected data of root mean square length {low / SLACK_BELOW:.2g} to "
            f"{SLACK * high:.2g}, which the prior of {type(program).__name__} is made for, got "
            f"{found:.3g}: the population's scales are wrong. Centre the features and divide them "
            "by their common scale (bayesfs.features.projection.fit_projection does both), or "
            "widen the prior",
            stacklevel=2,
        )
    stats = {**posterior.sample_stats, UNITS: torch.tensor(units, dtype=torch.float64)}
    return replace(posterior, sample_stats=stats)


def data_length(program: Model, episodes: EpisodeBatch) -> float | None:
    """Root mean square length of what the program observes; None if that is no features."""
    with torch.no_grad(), seeded(0):
        sites = _features(trace_program(program, episodes, {}), episodes)
    if not sites:
        return None
    value = sites[0].double()
    there = (value != 0).any(-1)
    scale = float(value.abs().max()) or 1.0
    square = float(((value / scale).square().sum(-1) * there).sum() / there.sum().clamp(min=1))
    return scale * math.sqrt(square)


def prior_lengths(program: Model, episodes: EpisodeBatch) -> tuple[float, float]:
    """Shortest and longest root mean square length in simulations from the prior."""
    few = episodes.select(range(min(TASKS, len(episodes))))
    lengths = []
    with torch.no_grad(), seeded(0):
        for _ in range(DRAWS):
            trace = poutine.trace(poutine.uncondition(program)).get_trace(few)
            (value, *_) = _features(trace, few)
            lengths.append(float(value.double().square().sum(-1).mean().sqrt()))
    return min(lengths), max(lengths)


def _features(trace: poutine.Trace, episodes: EpisodeBatch) -> list[Tensor]:
    """Values (..., feature) of the sites of features, observed or drawn in their place."""
    return [
        site["value"]
        for _, site in sampled_sites(trace)
        if _is_of_data(site) and site["value"].shape[-1:] == (episodes.dim,)
    ]


def _is_of_data(site: TraceSite) -> bool:
    observed = site["is_observed"] or site["infer"].get("was_observed", False)
    return observed and not isinstance(site["fn"], Unit) and site["value"].is_floating_point()
