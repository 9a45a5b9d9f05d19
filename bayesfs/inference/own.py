"""The approximation that a model brings along: `OwnApproximation`.

For models that are exact but for something small, such as which frames of a video are poor
(`bayesfs.models.robust`). Nothing is iterated, so it takes milliseconds where `SVI` takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from bayesfs.contracts import Model
from bayesfs.errors import InferenceError
from bayesfs.inference.exact import check_counts, shared_out
from bayesfs.types import EpisodeBatch, Posterior


@runtime_checkable
class Approximable(Model, Protocol):
    """A model with an approximation of its task-level posterior, given the population."""

    def approximate(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Posterior:
        """Independent draws of every site, `draws` for each population draw; kind "variational"."""
        ...


@dataclass(frozen=True)
class OwnApproximation:
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

    draws: int = 128
    population_draws: int = 8

    def __post_init__(self) -> None:
        check_counts(self.draws, self.population_draws)

    def infer(
        self, model: Model, episodes: EpisodeBatch, *, seed: int, given: Posterior | None = None
    ) -> Posterior:
        """Posterior of kind "variational", given the population.

        Raises:
            InferenceError: the model brings no approximation, or `given` is missing.
        """
        own = _approximable(model)
        if given is None:
            raise InferenceError(
                "OwnApproximation needs given=: the posterior of the population, learnt by SVI on "
                "train users"
            )
        population, draws = shared_out(model, given, self.draws, self.population_draws)
        return own.approximate(episodes, population, draws=draws, seed=seed)

    def check_model(self, model: Model) -> None:
        """Refuse a model that this engine cannot infer; see `bayesfs.contracts.Choosy`."""
        _approximable(model)


def _approximable(model: Model) -> Approximable:
    if not isinstance(model, Approximable):
        raise InferenceError(
            f"OwnApproximation needs a model with a method `approximate`, got "
            f"{type(model).__name__}; use SVI, NUTS or, for conjugate models, Exact"
        )
    return model
