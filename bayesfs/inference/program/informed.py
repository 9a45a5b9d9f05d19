"""Inference of only those latents that the support informs: `fit_informed`.

Few shots in many dimensions leave most directions of the latents at their prior. A model that
knows which may offer `informed(episodes, given)`: a smaller model with exactly the same
likelihood, and the map that completes its draws with independent draws of the prior. NUTS then
takes fewer and cheaper steps, and SVGD does not collapse in directions without information.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from bayesfs.inference.program.potential import Potential, potential
from bayesfs.inference.program.streams import Streams
from bayesfs.protocols import Reducible
from bayesfs.types import Posterior

PosteriorOrFuture = Posterior | Future[Posterior]


def fit_informed(
    fit: Callable[[Potential, int], PosteriorOrFuture],
    density: Potential,
    draws: int,
    *,
    streams: Streams,
    completions: int = 1,
) -> PosteriorOrFuture:
    """Fit the informed part of a density and complete its draws; or fit it as it is.

    Args:
        fit: (density, draws wanted) -> posterior or its future.
        density: the model's, with a population given.
        draws: draws wanted.
        streams: of the tasks, for the directions without information.
        completions: draws of the directions without information for each draw of the others; the
            posterior then holds so many times the draws, all of them once for each completion.

    Returns:
        Posterior of all sites of the model, or its future.
    """
    model, given = density.model, density.given
    if given is None or not isinstance(model, Reducible):
        return fit(density, draws)
    reduced = model.informed(density.episodes, given)
    if reduced is None:
        return fit(density, draws)
    smaller, episodes, population, lift = reduced

    def complete(posterior: Posterior) -> Posterior:
        sites = {
            site: value.repeat(completions, *[1] * (value.ndim - 1))
            for site, value in posterior.draws.items()
            if "task" in posterior.dims[site]
        }
        return density.posterior(
            density.unconstrain(lift(sites, streams.normal)),
            kind=posterior.kind,
            seed=posterior.seed,
            chains=posterior.chains,
            sample_stats=posterior.sample_stats,
        )

    return _then(fit(potential(smaller, episodes, population), draws), complete)


def _then(
    fitted: PosteriorOrFuture, function: Callable[[Posterior], Posterior]
) -> PosteriorOrFuture:
    """Apply a function to a posterior now, or to its future when it is asked for."""
    return function(fitted) if isinstance(fitted, Posterior) else _Mapped(fitted, function)


class _Mapped(Future[Posterior]):
    """A future of which the result is mapped by the thread that asks for it."""

    def __init__(
        self, future: Future[Posterior], function: Callable[[Posterior], Posterior]
    ) -> None:
        super().__init__()
        self._future, self._function = future, function

    def result(self, timeout: float | None = None) -> Posterior:
        """The mapped result."""
        return self._function(self._future.result(timeout))
