"""Convergence of a posterior: `diagnose` a run's DataTree; read `Diagnostics.verdict` first.

What is checked depends on how the draws were made:

    mcmc         R-hat (nested R-hat of chains that start together), bulk and tail ESS, MCSE,
                 divergences, BFMI
    variational  trend of the ELBO at its end, Pareto k-hat of p / q, the mode's gradient (Laplace)
    particles    kernel Stein discrepancy: its ratio to that of as many independent draws, where the
                 engine tells it, or else what is left of its start
    exact        nothing: the draws are independent draws from the posterior

for a population that was learnt whether the data are in the units that its prior is made for, and
for all of them whether the draws suffice to weigh the query's own features. What does not
apply is nan, with the reason in words. Thresholds: `bayesfs.diagnostics.verdicts`.

Source of nested R-hat: Margossian et al. (2024), refs.bib: margossian2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesfs._utils.display import Card, Shown, short_number
from bayesfs._utils.spacing import evenly_spaced
from bayesfs.diagnostics.loo import weight_pareto_k
from bayesfs.diagnostics.verdicts import (
    ESS_MIN,
    KHAT_NEVER,
    MCSE_MAX,
    RHAT_MAX,
    Check,
    bfmi_check,
    divergence_check,
    elbo_check,
    ksd_check,
    rhat_check,
    site_check,
    task_check,
    units_check,
    weights_check,
    without,
)
from bayesfs.errors import DataError
from bayesfs.inference.program.limits import (
    GRADIENT_MAX,
    KHAT_MAX,
    KSD_RATIO_MAX,
    LATENTS_PER_PARTICLE_MAX,
    STEIN_MOMENTS_MAX,
)

MAX_SCALARS = 1000
"""Scalars per site that are looked at, evenly spread."""

TAILS = (0.05, 0.95)
"""Quantiles whose smaller ESS is the tail ESS: Vehtari et al. 2021; ArviZ's own are .11, .89."""

NESTED, SUPERCHAIN = "nested R-hat", "superchain"
"""The check of chains that start together, and the statistic that tells which ones do."""

_WHY_NOT = {
    "mcmc": "does not apply to MCMC",
    "variational": "does not apply: independent draws of an approximation",
    "particles": "does not apply: particles are not a chain",
    "exact": "does not apply: independent draws from the posterior itself",
}
_CHAIN = ("R-hat", "bulk ESS", "tail ESS", "MCSE / sd", "divergences", "BFMI")
_SUPERSEDED = {"KSD left": "KSD ratio", "R-hat": NESTED}
_ALL = (*_CHAIN, "ELBO trend", "k-hat", "KSD left")


@dataclass(frozen=True, repr=False)
class Diagnostics(Shown):
    """All checks of one posterior.

    Attributes:
        name: whose posterior, such as "tasks" or "population".
        kind: how the draws were made.
        checks: what was checked and what does not apply.
        sites: per site `scalars`, `looked_at` (how many of them count), and of those the worst
            `rhat` (nested where chains start together), `rhat_above` (how many are above the
            line), `ess_bulk`, `ess_tail` and `mcse_over_sd`.
    """

    name: str
    kind: str
    checks: tuple[Check, ...]
    sites: pd.DataFrame

    def _card(self) -> Card:
        """The verdict, and what was judged, what does not pass first."""
        judged = [check for check in self.checks if check.passed is not None]
        rows = [
            (c.name, short_number(c.value), c.threshold, "yes" if c.passed else "NO")
            for c in sorted(judged, key=lambda check: bool(check.passed))
        ]
        facts = [("kind", self.kind), ("verdict", self.verdict)]
        return Card(f"Diagnostics of {self.name}", facts, ("check", "value", "limit", "ok"), rows)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that do not pass."""
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def is_grave(self) -> bool:
        """Whether a check fails after which nothing may be concluded."""
        return any(check.grave for check in self.failed)

    @property
    def verdict(self) -> str:
        """Fit for use, or what to look at; says so where there was nothing to judge by."""
        if self.failed:
            first = sorted(self.failed, key=lambda check: not check.grave)
            names = ", ".join(check.name for check in first)
            return f"do not use: {names}" if self.is_grave else f"usable, but look at {names}"
        if self.kind == "exact":
            return "fit for use: exact draws, given the population"
        if any(check.passed for check in self.checks):
            return "fit for use"
        return "not judged: the engine reports nothing to judge it by"


def diagnose(tree: xr.DataTree, *, group: str = "posterior", name: str = "tasks") -> Diagnostics:
    """Check one posterior of a run.

    Args:
        tree: from `bayesfs.results.assemble.assemble_tree` or
            `bayesfs.results.convert.to_datatree`, as it was made or read back by any library.
        group: "posterior" or "population".
        name: what to call it.

    Returns:
        Its diagnostics.

    Raises:
        DataError: the tree has no such group, or its kind is none of the four.
    """
    if group not in tree.children:
        raise DataError(f"expected a group {group!r}, got {list(tree.children)}")
    prefix = "population_" if group == "population" else ""
    kind = str(tree.attrs.get(f"{prefix}kind"))
    if kind not in _WHY_NOT:
        raise DataError(f"expected kind to be one of {tuple(_WHY_NOT)}, got {kind!r}")
    stats = _dataset(tree, f"{prefix}sample_stats")
    posterior = tree[group].to_dataset()
    sites = site_table(posterior, kind, superchains_of(stats))
    tasks = np.empty(0, str) if prefix else _task_names(tree)
    checks = _applicable(kind, sites, stats, tasks)
    have = {check.name for check in checks}
    superseded = {old for old, new in _SUPERSEDED.items() if new in have}
    checks += [without(n, _WHY_NOT[kind]) for n in _ALL if n not in have | superseded]
    if "units" in stats:
        checks.append(units_check(stats))
    if not prefix and "predictive_weights" in tree.children:
        weights = tree["predictive_weights"].to_dataset()["video"]
        checks.append(weights_check(weight_pareto_k(weights).to_numpy()))
    return Diagnostics(name, kind, tuple(checks), sites)


def _task_names(tree: xr.DataTree) -> NDArray[Any]:
    """(task,) names of the tasks; empty where the tree is of a posterior without any."""
    for group in ("constant_data", "posterior"):
        if group in tree.children and "task" in tree[group].dims:
            return np.asarray(tree[group]["task"].to_numpy())
    return np.empty(0, str)


def _dataset(tree: xr.DataTree, group: str) -> xr.Dataset:
    """A group's dataset; an empty one where a file did not keep an empty group."""
    return tree[group].to_dataset() if group in tree.children else xr.Dataset()


def _applicable(
    kind: str, sites: pd.DataFrame, stats: xr.Dataset, tasks: NDArray[Any]
) -> list[Check]:
    """The checks that this kind of draws can pass or fail."""
    if kind == "mcmc":
        return [
            rhat_check(sites, NESTED if SUPERCHAIN in stats else "R-hat"),
            site_check("bulk ESS", sites["ess_bulk"], ESS_MIN, least=True),
            site_check("tail ESS", sites["ess_tail"], ESS_MIN, least=True),
            site_check("MCSE / sd", sites["mcse_over_sd"], MCSE_MAX, least=False),
            divergence_check(stats),
            bfmi_check(stats),
        ]
    if kind == "particles":
        if "ksd_ratio" not in stats:
            return [ksd_check(stats)]
        moments = stein_check(stats, tasks)
        if "latents_per_particle" in stats:
            apart = stats["latents_per_particle"]
            moments.append(
                task_check("latents per particle", apart, LATENTS_PER_PARTICLE_MAX, tasks)
            )
        return [task_check("KSD ratio", stats["ksd_ratio"], KSD_RATIO_MAX, tasks), *moments]
    if kind == "exact":
        return []
    count = max(len(tasks), 1)
    checks = [elbo_check(stats, count, float(sites["scalars"].sum()) / count)]
    if "khat" in stats:
        checks.append(task_check("k-hat", stats["khat"], KHAT_MAX, tasks, never=KHAT_NEVER))
    else:
        checks.append(without("k-hat", "the engine does not report it"))
    if "gradient" in stats:
        checks.append(task_check("gradient at the mode", stats["gradient"], GRADIENT_MAX, tasks))
    return [*checks, *stein_check(stats, tasks)]


def stein_check(stats: xr.Dataset, tasks: NDArray[Any]) -> list[Check]:
    """Whether draws are where the density is and as wide, where the engine knows."""
    if "stein_moments" not in stats:
        return []
    return [task_check("Stein moments", stats["stein_moments"], STEIN_MOMENTS_MAX, tasks)]


def superchains_of(stats: xr.Dataset) -> NDArray[np.int64] | None:
    """(chain,) number of the superchain of each chain; None where each starts by itself."""
    if SUPERCHAIN not in stats:
        return None
    return np.asarray(stats[SUPERCHAIN].isel(draw=0).to_numpy().astype(np.int64))


def site_table(
    posterior: xr.Dataset, kind: str, superchains: NDArray[np.int64] | None = None
) -> pd.DataFrame:
    """Worst R-hat, ESS and relative MCSE of every site; nan for what does not apply to the kind.

    Padding is left out; of a site with more than `MAX_SCALARS` scalars, evenly spread ones count.

    Args:
        posterior: sites, each (chain, draw, ...).
        kind: how the draws were made.
        superchains: (chain,) which chains started at the same point: `rhat` is nested R-hat, the
            root of 1 + the variance between superchains / that within them. Where they have
            forgotten the start, that is 1 + 1 / (2 ESS of a superchain), however short the chains.
    """
    names = [str(site) for site in posterior.data_vars]
    rows = {site: _site_row(posterior[site], kind, superchains) for site in names}
    columns = ["scalars", "looked_at", "rhat", "rhat_above", "ess_bulk", "ess_tail", "mcse_over_sd"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _site_row(site: xr.DataArray, kind: str, superchains: NDArray[np.int64] | None) -> list[float]:
    flat = site.to_numpy().reshape(site.sizes["chain"], site.sizes["draw"], -1)
    there = np.flatnonzero(np.isfinite(flat).all((0, 1)))
    chosen = flat[..., spread(there, MAX_SCALARS)]
    counts = [len(there), chosen.shape[-1]]
    if not chosen.shape[-1] or kind == "particles":
        return [*counts, *[math.nan] * 5]
    if kind != "mcmc":  # independent draws: sd / sqrt(draws)
        return [*counts, *[math.nan] * 4, 1 / math.sqrt(chosen.shape[0] * chosen.shape[1])]
    from arviz_stats import ess, mcse, rhat, rhat_nested  # seconds to import; only chains need it

    data = xr.Dataset({"x": (("chain", "draw", "scalar"), chosen)})
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = mcse(data)["x"].to_numpy() / chosen.std((0, 1))
        found = rhat(data) if superchains is None else rhat_nested(data, superchain_ids=superchains)
        ratio = found["x"].to_numpy()
        bulk = ess(data, method="bulk")["x"].to_numpy()
        tail = ess(data, method="tail", prob=TAILS)["x"].to_numpy()
    above = float((ratio > RHAT_MAX).sum())
    least, most = np.fmin.reduce, np.fmax.reduce
    return [*counts, most(ratio), above, least(bulk), least(tail), most(relative)]


def spread(values: NDArray[Any], most: int) -> NDArray[Any]:
    """At most so many entries of the last axis, evenly spread from the first to the last."""
    return values[..., evenly_spaced(values.shape[-1], most)]
