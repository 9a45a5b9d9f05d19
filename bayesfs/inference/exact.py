"""Exact inference for conjugate models: independent draws from the posterior itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from torch import Tensor

from bayesfs._utils.ranges import Count, check_ranges
from bayesfs._utils.spacing import evenly_spaced
from bayesfs.errors import InferenceError
from bayesfs.protocols import Conjugate, Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior

MOST_DRAWS = 1024
"""Values of the population that more draws are made of, at most."""


@dataclass(frozen=True)
class Exact(Engine):
    """Draws from the closed-form posterior of the task-level sites, given the population.

    Attributes:
        draws: posterior draws per task, shared evenly among the population draws.
        population_draws: how many draws of the population to carry through, evenly spaced over
            those of `given`; their spread is the population-level uncertainty.

    Example:
        >>> posterior = Exact(draws=200).infer(model, episodes, seed=0, given=population)
        ... # doctest: +SKIP
    """

    requires: ClassVar[type[Any]] = Conjugate

    draws: Count = 128
    population_draws: Count = 8

    def __post_init__(self) -> None:
        check_ranges(self, InferenceError)

    def infer(
        self,
        model: Model,
        episodes: EpisodeBatch,
        *,
        seed: int,
        given: Posterior | None = None,
        progress: Progress | None = None,
    ) -> Posterior:
        """Exact posterior given the population.

        Raises:
            InferenceError: the model is not conjugate, or `given` is missing.
        """
        self.check_model(model)
        conjugate = cast(Conjugate, model)
        if given is None:
            raise InferenceError(
                "Exact needs given=: the posterior of the population, learnt by SVI on train users "
                "(in a Study by its population_engine, such as AdaptiveImportance())"
            )
        population, draws = shared_out(model, given, self.draws, self.population_draws)
        return conjugate.condition(episodes, population, draws=draws, seed=seed)

    def with_more_draws(self, factor: float, given: Posterior) -> Exact | None:
        """More values of the population, each with as many draws of the task level as before."""
        more = more_values(self.draws, self.population_draws, factor, given)
        return None if more is None else replace(self, draws=more[0], population_draws=more[1])

    def closed_form(self, model: Model, given: Posterior) -> tuple[Mapping[str, Tensor], int]:
        """The draws of the population that `infer` carries through, and label draws for each."""
        return shared_out(model, given, self.draws, self.population_draws)


def more_values(
    draws: int, population_draws: int, factor: float, given: Posterior
) -> tuple[int, int] | None:
    """Draws, and values of the population that they share, so many times as many of both.

    Returns:
        Both, within the population's draws and `MOST_DRAWS`; None where there are no more.
    """
    values = min(MOST_DRAWS, given.num_draws, math.ceil(factor * population_draws))
    each = -(-draws // population_draws)
    return (values * each, values) if values > population_draws else None


def shared_out(
    model: Model, given: Posterior, draws: int, population_draws: int
) -> tuple[Mapping[str, Tensor], int]:
    """Population draws to carry through, and how many of the `draws` each of them gets."""
    population = thin_population(model, given, min(population_draws, draws))
    count = len(next(iter(population.values())))
    return population, -(-draws // count)


def thin_population(model: Model, given: Posterior, draws: int) -> Mapping[str, Tensor]:
    """Evenly spaced draws of the population sites of a model.

    Raises:
        InferenceError: `given` lacks a population site.
    """
    names = [site for site, axes in model.dims.items() if "task" not in axes]
    missing = sorted(set(names) - set(given.population))
    if missing:
        raise InferenceError(
            f"expected `given` to hold the population sites {sorted(names)}, missing {missing}; "
            "was it inferred with another model?"
        )
    index = evenly_spaced(given.num_draws, draws)
    return {site: given.draws[site][index] for site in names}
