"""Prior sensitivity of the population by power scaling: `prior_sensitivity`.

The prior of a site, or the likelihood, is raised to a power near 1 and the posterior draws are
re-weighted accordingly (Pareto-smoothed); how far a scalar's marginal moves, per log2 of the power,
is its sensitivity. Above `SENSITIVE` for the prior alone, the prior speaks and the data hardly do;
above it for both, prior and data pull the posterior to different places.

With a few hundred draws, weights that have nothing to do with a scalar move its empirical marginal
too. So every value stands beside the largest that the scalars of its site get from weights dealt to
the draws at random; what does not pass that is noise.

Densities must be known at every draw: `bayesfs.diagnostics.densities` keeps them with a posterior
(of the population too, whose likelihood is the objective it was learnt by), from where a DataTree
has them in `sample_stats` as `log_prior_SITE` and `log_likelihood`.

Source: Kallioinen et al. 2024; `arviz_stats.psense` does the arithmetic.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesfs._utils.spacing import evenly_spaced
from bayesfs.errors import DataError

SENSITIVE = 0.05
"""Kallioinen et al. 2024."""

DEALS = 19
"""Random deals of the weights: of a site without effect, some scalar passes the largest of them
about once in 20."""

DRAWS_MIN = 100
"""Draws below which nothing is said."""

PRIOR = "log_prior_"

COLUMNS = ("site", "prior", "prior_chance", "likelihood", "likelihood_chance", "diagnosis")
"""Of the table of `prior_sensitivity`; `chance` is what weights dealt at random give."""

WEAK, DISAGREE = "strong prior, weak data", "prior and data disagree"
MUTE = "too few draws to say"
"""Diagnoses besides ✓; the last where weights dealt at random would move the scalar as far."""

Values = np.ndarray[Any, np.dtype[np.float64]]


def prior_sensitivity(
    tree: xr.DataTree, group: str = "population", *, per_site: int = 12, seed: int = 0
) -> pd.DataFrame:
    """Sensitivity of the scalars of each site to the site's own prior and to the likelihood.

    Args:
        tree: from `bayesfs.results.assemble.assemble_tree`, of a posterior with densities.
        group: "population", or "posterior" for the tasks.
        per_site: scalars of each site at most, evenly spread; of tasks' sites, the root mean square
            of each task instead.
        seed: of the random deals.

    Returns:
        One row per scalar with the columns `COLUMNS`; empty without densities, or with fewer than
        `DRAWS_MIN` draws.
    """
    if group not in tree.children:
        raise DataError(
            f"expected a tree with the group {group!r}, got {sorted(tree.children)}; a joint fit "
            "has its population in 'posterior'"
        )
    prefix = "population_" if group == "population" else ""
    posterior = tree[group].to_dataset()
    stats = tree[f"{prefix}sample_stats"].to_dataset()
    if group == "posterior" and not any(str(name).startswith(PRIOR) for name in stats):
        stats = _densities(tree)
    rows: list[tuple[object, ...]] = []
    if posterior.sizes.get("chain", 0) * posterior.sizes.get("draw", 0) < DRAWS_MIN:
        posterior = posterior[[]]
    for site in map(str, posterior.data_vars):
        if f"{PRIOR}{site}" in stats and "log_likelihood" in stats:
            rows += list(_of_site(posterior[site], stats, per_site, seed))
    return pd.DataFrame(rows, columns=["scalar", *COLUMNS]).set_index("scalar")


def _densities(tree: xr.DataTree) -> xr.Dataset:
    """The groups `log_prior` and `support_log_density` as statistics of the draws.

    As `with_densities`: of the population's sites if there are any, else of each task.
    """
    if not {"log_prior", "support_log_density"} <= set(tree.children):
        return xr.Dataset()
    sites = tree["log_prior"].to_dataset()
    population = [s for s in sites if "task" not in tree["posterior"][str(s)].dims]
    over = ("chain", "draw") if population else ("chain", "draw", "task")

    def summed(value: xr.DataArray) -> xr.DataArray:
        return value.sum([axis for axis in value.dims if axis not in over])

    told = [summed(v) for v in tree["support_log_density"].to_dataset().values()]
    own = population or [*sites]
    priors = {f"{PRIOR}{site}": summed(sites[site]) for site in own}
    return xr.Dataset({**priors, "log_likelihood": sum(told[1:], told[0])})


def learnt_from(tree: xr.DataTree) -> xr.DataTree:
    """The tree for ArviZ's power scaling by the likelihood: `psense_summary(learnt_from(tree))`.

    `psense(tree)` scales the priors. ArviZ's likelihood is the group `log_likelihood`, which here
    is of the query, held out, and so moves no draw; in the tree that this returns it is of the
    support, which the draws were learnt from.

    Args:
        tree: from `bayesfs.results.assemble.assemble_tree`, with densities.

    Raises:
        DataError: the tree has none.
    """
    if "support_log_density" not in tree.children:
        raise DataError(
            "expected the groups log_prior and support_log_density; give `model` to "
            "`assemble_tree`, or fewer draws and tasks where they were too many"
        )
    groups = {name: tree[name].to_dataset() for name in ("posterior", "log_prior")}
    likelihood = tree["support_log_density"].to_dataset()
    return xr.DataTree.from_dict({**groups, "log_likelihood": likelihood})


def _of_site(
    site: xr.DataArray, stats: xr.Dataset, per_site: int, seed: int
) -> Iterator[tuple[object, ...]]:
    """Rows of one site; of a site with tasks, one task after the other."""
    name, prior, likelihood = str(site.name), stats[f"{PRIOR}{site.name}"], stats["log_likelihood"]
    if "task" not in site.dims:
        values, labels = _spread(site, per_site)
        shared = likelihood.sum("task") if "task" in likelihood.dims else likelihood
        table = power_scaling(values, prior.to_numpy(), shared.to_numpy(), seed=seed)
        yield from ((label, name, *row) for label, row in zip(labels, table, strict=True))
        return
    rest = [d for d in site.dims if d not in ("chain", "draw", "task")]
    size: xr.DataArray = (site**2).mean(rest) ** 0.5 if rest else site
    for task in range(site.sizes["task"]):
        at = {"task": task}
        if np.isfinite(size.isel(at)).all():
            values = size.isel(at).transpose("chain", "draw").to_numpy()[..., None]
            pair = (prior.isel(at).to_numpy(), likelihood.isel(at).to_numpy())
            row = power_scaling(values, *pair, seed=seed)[0]
            yield f"rms of {name}[{site['task'].to_numpy()[task]}]", name, *row


def power_scaling(
    values: Values, log_prior: Values, log_likelihood: Values, *, seed: int = 0
) -> list[tuple[float, float, float, float, str]]:
    """(prior, its chance, likelihood, its chance, diagnosis) of every scalar.

    Args:
        values: (chain, draw, scalar).
        log_prior: (chain, draw) nats.
        log_likelihood: (chain, draw) nats.
        seed: of the random deals.
    """
    rng = np.random.default_rng(seed)
    rows = values.reshape(-1, values.shape[-1])
    (prior, low), (likelihood, high) = (
        _beside_chance(rows, weight.ravel(), rng) for weight in (log_prior, log_likelihood)
    )
    return [
        (p, low, x, high, diagnosis(p > low, p, x > high, x))
        for p, x in zip(prior.tolist(), likelihood.tolist(), strict=True)
    ]


def _beside_chance(
    rows: Values, log_weight: Values, rng: np.random.Generator
) -> tuple[Values, float]:
    """(scalar,) sensitivities, and the largest of any scalar to weights dealt at random.

    Dealing the weights to the draws is dealing the draws to the weights the other way round, so
    that the weights are smoothed once for all deals.
    """
    deals = (np.argsort(rng.permutation(len(rows))) for _ in range(DEALS))
    found = _psense(np.concatenate([rows, *(rows[deal] for deal in deals)], 1), log_weight)
    return found[: rows.shape[1]], float(found[rows.shape[1] :].max())


def diagnosis(prior_real: bool, prior: float, likelihood_real: bool, likelihood: float) -> str:
    """What the two sensitivities mean, in words; `real` is beyond chance."""
    if prior < SENSITIVE:
        return "✓"
    if not prior_real:
        return MUTE
    if likelihood < SENSITIVE or not likelihood_real:
        return WEAK
    return DISAGREE


def decided_by_prior(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of `prior_sensitivity` that the prior decides."""
    return table[table["diagnosis"].isin((WEAK, DISAGREE))]


def _psense(rows: Values, log_weight: Values) -> Values:
    """(scalar,) sensitivity of draws (draw, scalar) to a density (draw,) known at every draw."""
    from arviz_stats import psense  # takes seconds to import, and a study does without

    names = ("chain", "draw")  # as one chain: ArviZ cannot smooth chains of one draw
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"x": ((*names, "scalar"), rows[None])}),
            "log_prior": xr.Dataset({"x": (names, log_weight[None])}),
        }
    )
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = psense(tree, group="prior")
    return np.asarray(found["x"].to_numpy(), np.float64)


def _spread(site: xr.DataArray, most: int) -> tuple[Values, list[str]]:
    """(chain, draw, scalar) of evenly spread scalars, and their names."""
    draws = site.transpose("chain", "draw", ...).to_numpy()
    shape = draws.shape[2:]
    flat = draws.reshape(*draws.shape[:2], -1)
    index = evenly_spaced(flat.shape[-1], most)
    labels = []
    for i in index:
        at = np.unravel_index(i, shape) if shape else ()
        where = ", ".join(
            str(site[d].to_numpy()[j] if d in site.coords else j)
            for d, j in zip(site.dims[2:], at, strict=True)
        )
        labels.append(f"{site.name}[{where}]" if where else str(site.name))
    return flat[..., index], labels
