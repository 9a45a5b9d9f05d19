"""Posteriors draw by draw of the population: `drawn_posterior`, `each_value`, `distinct_rows`.

`with_repeats` and `with_again` are for sites that are known exactly given the others: one draw of
them for each draw of the others, and more where it matters how much they alone leave open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs._utils.spacing import evenly_spaced
from bayesfs.types import EpisodeBatch, Posterior, PosteriorKind

AGAIN = 4
"""Draws of a site that is drawn again, for each draw of the others."""

MOST = 32
"""Draws of the others for which it is."""


def each_value(population: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Population sites without their draw axis, one draw after the other."""
    for p in range(len(next(iter(population.values())))):
        yield {site: v[p] for site, v in population.items()}


def distinct_rows(population: Mapping[str, Tensor]) -> list[int]:
    """First index of each run of equal population draws."""
    count = len(next(iter(population.values())))
    keep = [0]
    for s in range(1, count):
        if any(not torch.equal(v[s], v[s - 1]) for v in population.values()):
            keep.append(s)
    return keep


def with_repeats(
    posterior: Posterior,
    dims: Mapping[str, tuple[str, ...]],
    draw: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
) -> Posterior:
    """A population with sites that are drawn given its others, and drawn again for some draws.

    Args:
        posterior: of the others, and of the drawn sites where they were not integrated out.
        dims: of the sites to draw, site -> axes.
        draw: values of the others -> an independent draw of each site for each value.

    Returns:
        The posterior with `dims` among its sites, and for `MOST` draws evenly spaced over it
        `AGAIN` - 1 more of these sites, as `sample_stats["SITE_again"]` (draw, again, ...).
    """
    given = {site: v for site, v in posterior.draws.items() if site not in dims}
    few = evenly_spaced(posterior.num_draws, MOST)
    more = {s: torch.cat([v, v[few].repeat_interleave(AGAIN - 1, 0)]) for s, v in given.items()}
    drawn = draw(more)
    once = {site: v[: posterior.num_draws] for site, v in drawn.items()}
    again = {
        f"{site}_again": v[posterior.num_draws :].reshape(len(few), AGAIN - 1, *v.shape[1:])
        for site, v in drawn.items()
    }
    return posterior.changed(
        draws={**once, **posterior.draws},
        dims={**posterior.dims, **dims},
        sample_stats={**posterior.sample_stats, **again},
    )


def with_again(posterior: Posterior, count: int) -> dict[str, Tensor] | None:
    """Evenly spaced draws of a population of `with_repeats`, those that share others in a row.

    Args:
        posterior: of a population.
        count: most draws.

    Returns:
        Site -> (draw, ...), `AGAIN` draws with the same values of what was not drawn again; None
        where nothing was, or fewer draws are asked for.
    """
    again = {site: posterior.sample_stats.get(f"{site}_again") for site in posterior.population}
    kept = next((len(v) for v in again.values() if v is not None), 0)
    if not kept or count < AGAIN:
        return None
    rows = evenly_spaced(kept, count // AGAIN)
    at = [evenly_spaced(posterior.num_draws, kept)[row] for row in rows]
    found = {}
    for site, value in posterior.population.items():
        more = again[site]
        if more is None:
            found[site] = value[at].repeat_interleave(AGAIN, 0)
        else:
            found[site] = torch.cat([value[at][:, None], more[rows]], 1).flatten(0, 1)
    return found


def alike(population: Mapping[str, Tensor], sites: Iterable[str]) -> int:
    """How many draws after each other share the values of some sites and differ in the others.

    1 where that varies, or where draws are repeated as a whole.
    """
    runs = distinct_rows({site: population[site] for site in sites})
    count = len(next(iter(population.values())))
    if len(distinct_rows(population)) < count:
        return 1
    lengths = {b - a for a, b in pairwise([*runs, count])}
    return lengths.pop() if len(lengths) == 1 else 1


def drawn_posterior(
    kind: PosteriorKind,
    dims: Mapping[str, tuple[str, ...]],
    episodes: EpisodeBatch,
    population: Mapping[str, Tensor],
    sample: Callable[[dict[str, Tensor], Noise], Mapping[str, Tensor]],
    *,
    draws: int,
    seed: int,
    even: bool = False,
) -> Posterior:
    """Posterior of independent draws for each population draw in turn.

    Args:
        kind: of the posterior.
        dims: site -> axes.
        episodes: T tasks.
        population: site -> (population draw, ...).
        sample: (population value, noise) -> task-level sites (draw, ...).
        draws: number of draws that `sample` makes.
        seed: of the draws.
        even: whether the noise of each population draw is evenly spread, for smaller errors.
    """
    noise = Noise.of(episodes, seed, even=even)
    parts = [
        {**{s: v.expand(draws, *v.shape) for s, v in value.items()}, **sample(value, noise)}
        for value in each_value(population)
    ]
    joined = {site: torch.cat([part[site] for part in parts]) for site in dims}
    coords = {"task": episodes.tasks} if episodes.tasks else {}
    return Posterior.of_own(kind, joined, dict(dims), coords=coords, seed=seed)
