"""What was believed before the support was seen: draws of the sites, and densities of every draw.

ArviZ's groups `prior` (for `plot_prior_posterior`) and `log_prior` (for `psense`). "Before" is
given the population where one was learnt beforehand, and given nothing where it was inferred
together with the tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import xarray as xr

from bayesfs._utils.arrays import numpy_of
from bayesfs._utils.spacing import evenly_spaced
from bayesfs.inference.program.simulation import Simulator
from bayesfs.prediction import complete_draws
from bayesfs.protocols import Model
from bayesfs.results.axes import draw_array, task_labels
from bayesfs.types import EpisodeBatch, Posterior

DRAWS = 100
"""Draws of the prior."""

MOST_VALUES = 50_000_000
"""Values of the support, times draws, beyond which these groups are left out: they would take
longer than the inference."""


def prior_draws(
    model: Model,
    episodes: EpisodeBatch,
    population: Posterior | None,
    sites: Sequence[str],
    posterior: Posterior,
) -> Posterior | None:
    """Draws of the prior of some sites, given the population if there is one.

    Args:
        model: the model.
        episodes: the tasks.
        population: learnt beforehand; its draws are taken in turn, evenly spread.
        sites: the sites wanted.
        posterior: whose seed and axes they share.

    Returns:
        The draws, as a posterior of kind "exact"; None where there are none to draw, or too many.
    """
    sites = [site for site in sites if site in model.dims]
    if not sites or DRAWS * episodes.support.numel() > MOST_VALUES:
        return None
    program, held = Simulator(model, episodes), {}
    if population is not None:
        index = evenly_spaced(population.num_draws, DRAWS)
        shared = [site for site, axes in model.dims.items() if "task" not in axes]
        held = {s: population.draws[s][index] for s in shared if s in population.draws}
    runs = []
    for s in range(DRAWS):
        values = {site: v[s % len(v)] for site, v in held.items()}
        runs.append(program.prior(seed=posterior.seed + s, held=values))
    draws = {site: torch.stack([run[site] for run in runs]) for site in sites}
    dims = {site: tuple(model.dims[site]) for site in sites}
    return Posterior.of_own("exact", draws, dims, coords=dict(posterior.coords))


def density_groups(
    model: Model,
    posterior: Posterior,
    episodes: EpisodeBatch,
    population: Posterior | None,
    sites: Sequence[str],
) -> dict[str, xr.Dataset]:
    """Log densities, in nats, at every draw of the posterior.

    Args:
        model: the model.
        posterior: the draws.
        episodes: the tasks.
        population: as in `prior_draws`; gives the sites that the posterior does not hold.
        sites: whose prior density is wanted.

    Returns:
        `log_prior`: site -> (chain, draw), or (chain, draw, task) of a site with tasks; and
        `support_log_density`: `support` (chain, draw, task), log p(support | theta_s). No group as
        in `prior_draws`.
    """
    sites = [site for site in sites if site in model.dims]
    if not sites or posterior.num_draws * episodes.support.numel() > MOST_VALUES:
        return {}
    program = Simulator(model, episodes)
    found = program.log_densities(complete_draws(model, posterior, population))
    found["support"] = torch.stack([found[name] for name in program.observed]).sum(0)

    def group(names: Sequence[str]) -> xr.Dataset:
        arrays = {
            name: draw_array(
                numpy_of(found[name]), posterior.chains, ["task"] if found[name].ndim > 1 else []
            )
            for name in names
        }
        ds = xr.Dataset(arrays)
        return ds.assign_coords(task=task_labels(episodes)) if "task" in ds.dims else ds

    return {"log_prior": group(sites), "support_log_density": group(["support"])}
