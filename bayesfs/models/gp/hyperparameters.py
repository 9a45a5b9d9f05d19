"""Hyperparameters as named Pyro sites: a prior and axes each. Start with `positive`.

A component of a Gaussian process (feature map, kernel, likelihood) says which sites it has; the
model samples them all, outside every plate, and hands their values back as one mapping. Values
have exactly the axes of `Hyperparameter.dims`; several posterior draws are looped over or vmapped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesfs._linalg.cholesky import readable
from bayesfs.errors import InferenceError, ShapeError
from bayesfs.types import CONDITIONS

Values = Mapping[str, Tensor]
"""Site -> value, with exactly the axes of the site's dims."""

Prior = Callable[[Tensor], dist.Distribution]
"""An example of the component's input (..., feature) -> prior of its dtype and device."""


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter.

    Attributes:
        dims: its axes, such as ("condition",).
        prior: input (..., feature) -> prior whose event shape has these axes.
    """

    dims: tuple[str, ...]
    prior: Prior


def positive(median: float, spread: float = 1.0) -> Hyperparameter:
    """A positive scalar with log-normal prior: log value ~ N(log median, spread^2)."""
    return Hyperparameter(
        (), lambda x: dist.LogNormal(x.new_tensor(log(median)), x.new_tensor(float(spread)))
    )


def positive_per_condition(median: float, spread: float = 1.0) -> Hyperparameter:
    """A positive scalar for each recording condition of `CONDITIONS`."""
    return Hyperparameter(
        ("condition",), lambda x: _log_normal(x, (len(CONDITIONS),), median, spread).to_event(1)
    )


def positive_vector(size: int, axis: str, median: float, spread: float = 1.0) -> Hyperparameter:
    """`size` positive numbers along `axis`."""
    return Hyperparameter((axis,), lambda x: _log_normal(x, (size,), median, spread).to_event(1))


def real(mean: float, spread: float) -> Hyperparameter:
    """A real scalar with normal prior."""
    return Hyperparameter(
        (), lambda x: dist.Normal(x.new_tensor(float(mean)), x.new_tensor(float(spread)))
    )


def sample_hyperparameters(
    sites: Mapping[str, Hyperparameter], example: Tensor
) -> dict[str, Tensor]:
    """Sample every site in the running Pyro program, outside the plates."""
    return {name: pyro.sample(name, site.prior(example)) for name, site in sites.items()}


def by_condition(value: Tensor, condition: Tensor) -> Tensor:
    """Entries along "condition": value (condition, *rest), condition (*batch) -> (*batch, *rest).

    A product with indicators, since indexing by a tensor cannot be recorded and replayed.
    """
    conditions = torch.arange(len(CONDITIONS), device=condition.device)
    return (condition[..., None] == conditions).to(value) @ value


def merge(*parts: Mapping[str, Hyperparameter]) -> dict[str, Hyperparameter]:
    """All sites of several components.

    Raises:
        ShapeError: two components use one name.
    """
    names = [name for part in parts for name in part]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ShapeError(f"expected distinct site names, got {twice} twice; rename one component")
    return {name: site for part in parts for name, site in part.items()}


def population_draws(
    sites: Mapping[str, Hyperparameter], population: Values, like: Tensor
) -> list[dict[str, Tensor]]:
    """Values of each population draw, checked; one draw where there is no draw axis.

    Args:
        sites: the model's sites.
        population: site -> value with the site's axes, or with `draw` before them.
        like: tensor of the wanted dtype and device.

    Raises:
        InferenceError: a site is missing or not finite.
        ShapeError: a site has a wrong number of axes, or numbers of draws differ.
    """
    missing = sorted(set(sites) - set(population))
    if missing:
        raise InferenceError(
            f"expected hyperparameters {sorted(sites)}, missing {missing}; "
            "was the population inferred with another model, or not at all?"
        )
    values = {name: population[name].to(like) for name in sites}
    for name, value in values.items():
        if readable(torch.isfinite(value).all()) is False:
            raise InferenceError(
                f"hyperparameter {name!r} is not finite (NaN or infinite); "
                "did the inference of the population diverge?"
            )
    extra = {value.ndim - len(sites[name].dims) for name, value in values.items()}
    if extra == {0}:
        return [values]
    counts = {len(value) for value in values.values()} if extra == {1} else set()
    if len(counts) != 1:
        raise ShapeError(
            f"expected every hyperparameter with its axes, or all with the same number of draws "
            f"before them; got { ({n: tuple(v.shape) for n, v in values.items()}) }"
        )
    return [{n: v[i] for n, v in values.items()} for i in range(counts.pop())]


def _log_normal(x: Tensor, shape: tuple[int, ...], median: float, spread: float) -> dist.LogNormal:
    return dist.LogNormal(x.new_full(shape, log(median)), x.new_full(shape, float(spread)))
