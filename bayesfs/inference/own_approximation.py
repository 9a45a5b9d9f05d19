"""Inference by the approximation that the model itself supplies: `OwnApproximation`.

For models that are exact but for something small, such as which frames of a video are poor
(`bayesfs.models.gaussian.robust`). Nothing is iterated, so it takes milliseconds where `SVI` takes
seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from bayesfs._utils.ranges import Count, check_ranges
from bayesfs.errors import InferenceError
from bayesfs.inference.exact import more_values, shared_out
from bayesfs.protocols import Approximable, Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior


@dataclass(frozen=True)
class OwnApproximation(Engine):
    """Draws from the approximation that the model brings along.

    Attributes:
        draws: posterior draws per task, shared evenly among the population draws.
        population_draws: how many draws of the population to carry through.

    Raises:
        InferenceError: a number is below 1.

    Example:
        >>> OwnApproximation(draws=64).infer(model, episodes, seed=0, given=population)
        ... # doctest: +SKIP
    """

    requires: ClassVar[type[Any]] = Approximable

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
        """Posterior of kind "variational", given the population.

        Raises:
            InferenceError: the model brings no approximation, or `given` is missing.
        """
        self.check_model(model)
        own = cast(Approximable, model)
        if given is None:
            raise InferenceError(
                "OwnApproximation needs given=: the posterior of the population, learnt by SVI on "
                "train users (in a Study by its population_engine, such as AdaptiveImportance())"
            )
        population, draws = shared_out(model, given, self.draws, self.population_draws)
        return own.approximate(episodes, population, draws=draws, seed=seed)

    def with_more_draws(self, factor: float, given: Posterior) -> OwnApproximation | None:
        """More values of the population, each with as many draws of the task level as before."""
        more = more_values(self.draws, self.population_draws, factor, given)
        return None if more is None else replace(self, draws=more[0], population_draws=more[1])
