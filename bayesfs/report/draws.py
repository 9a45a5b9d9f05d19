"""The appendix of draws: a few scalars of every site, named by task and class, with numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bayesfs._utils.arrays import Floats
from bayesfs._utils.spacing import evenly_spaced
from bayesfs.diagnostics.convergence import TAILS, Diagnostics
from bayesfs.plots.arviz_panels import Panel, panels_of

PER_SITE = 6
"""Scalars of each site in the summary, evenly spread."""

MOST_SCALARS = 60
"""Scalars in the summary altogether."""

MOST_TRACES = 6

MOST_PAIRS = 3

RANK_BAND = {"n_chains": 1}
"""The band is that of one chain's independent draws, in which each is where the chains agree.

That of several chains is narrower by sqrt(1 - 1 / chains), but arviz-stats 0.8 makes the one of
two chains as wide as the picture, and takes two seconds for it.
"""

MOST_PRIORS = 18
"""Scalars whose prior is drawn over their posterior."""


@dataclass(frozen=True)
class Scalar:
    """One scalar of the posterior.

    Attributes:
        name: site and labels, such as "class_mean[P001, mug, 3]".
        draws: (chain, draw).
        prior: draws from its prior, where they are known.
    """

    name: str
    draws: Floats
    prior: Floats | None = None


def scalars(tree: xr.DataTree, group: str, per_site: int = PER_SITE) -> tuple[Scalar, ...]:
    """Evenly spread scalars of every site of a group, without padding.

    Sites of the population are left to its own group, where there is one.
    """
    classes = tree["constant_data"].to_dataset()["class_name"]
    posterior = tree[group].to_dataset()
    if group == "posterior" and "population" in tree.children:
        posterior = posterior[[s for s, v in posterior.items() if "task" in v.dims]]
    prior = f"{group}_prior"
    known = tree[prior].to_dataset() if prior in tree.children else xr.Dataset()
    found = [
        s
        for site in posterior.data_vars
        for s in _of_site(posterior[site], classes, per_site, known.get(site))
    ]
    return tuple(found[:MOST_SCALARS])


def _of_site(
    site: xr.DataArray, classes: xr.DataArray, most: int, prior: xr.DataArray | None
) -> Iterator[Scalar]:
    draws = site.transpose("chain", "draw", ...).to_numpy()
    there = np.argwhere(np.isfinite(draws).all((0, 1)))
    dims = [str(d) for d in site.dims if d not in ("chain", "draw")]
    for at in there[evenly_spaced(len(there), most)]:
        index = dict(zip(dims, at.tolist(), strict=True))
        labels = [_label(site, dim, index, classes) for dim in dims]
        name = f"{site.name}[{', '.join(labels)}]" if labels else str(site.name)
        alike = prior is not None and prior.dims == site.dims
        before = prior.isel(index).to_numpy().ravel() if prior is not None and alike else None
        yield Scalar(name, draws[(slice(None), slice(None), *at)].astype(float), before)


def _label(site: xr.DataArray, dim: str, index: dict[str, int], classes: xr.DataArray) -> str:
    """The class's name for `way` within a task, otherwise the coordinate's own label."""
    if dim == "way" and "task" in index:
        return str(classes[index["task"], index["way"]].item())
    return str(site[dim][index[dim]].item() if dim in site.coords else index[dim])


def summary_table(chosen: tuple[Scalar, ...], kind: str) -> pd.DataFrame:
    """ArviZ's summary of scalars; columns that do not apply to the kind of draws are left out."""
    import arviz_stats  # slow to import, and most commands make no table

    ds = _side_by_side(chosen)
    chain = kind == "mcmc"
    with np.errstate(divide="ignore", invalid="ignore"):
        table: pd.DataFrame = arviz_stats.summary(
            ds, kind="all" if chain else "stats", round_to="none"
        )
        if chain:
            tail = arviz_stats.ess(ds, method="tail", prob=TAILS)
            table["ess_tail"] = tail["draws"].values
    table.index = pd.Index([s.name for s in chosen])
    return table


def rank_panels(chosen: Sequence[Scalar]) -> dict[str, Panel]:
    """Scalar -> the picture of its ranks by chain, of `arviz_plots.plot_rank`."""
    from arviz_plots import plot_rank  # matplotlib comes with it; only chains have ranks

    if not chosen or chosen[0].draws.shape[0] < 2:
        return {}
    group = {"posterior": _side_by_side(chosen)}
    stats = {"ecdf_pit": RANK_BAND}
    made = plot_rank(xr.DataTree.from_dict(group), backend="none", stats=stats)
    return dict(zip((s.name for s in chosen), panels_of(made), strict=True))


def strongest_pairs(
    chosen: Sequence[Scalar], most: int = MOST_PAIRS
) -> tuple[tuple[Scalar, Scalar, float], ...]:
    """The scalars whose draws are correlated most, each pair once, and their correlation."""
    moving = [s for s in chosen if s.draws.std() > 0]
    if len(moving) < 2:
        return ()
    r = np.asarray(np.corrcoef(np.stack([s.draws.ravel() for s in moving])))
    one, other = np.triu_indices(len(moving), 1)
    order = np.argsort(-np.abs(r[one, other]), kind="stable")[:most]
    pairs = zip(one[order].tolist(), other[order].tolist(), strict=True)
    return tuple((moving[i], moving[j], float(r[i, j])) for i, j in pairs)


def _side_by_side(scalars: Sequence[Scalar]) -> xr.Dataset:
    """All as one variable, since ArviZ takes a variable at a time."""
    return xr.Dataset(
        {"draws": (("chain", "draw", "scalar"), np.stack([s.draws for s in scalars], -1))},
        {"scalar": np.arange(len(scalars))},
    )


def to_trace(chosen: tuple[Scalar, ...], fit: Diagnostics) -> tuple[Scalar, ...]:
    """The scalars to draw.

    For chains those with the largest R-hat; otherwise those whose prior is known, or else some
    spread over the sites.
    """
    import arviz_stats  # slow to import, and most commands make no table

    moving = [s for s in chosen if s.draws.std() > 0]
    believed = [s for s in moving if s.prior is not None]
    if fit.kind != "mcmc" and believed:
        return tuple(believed[i] for i in evenly_spaced(len(believed), MOST_PRIORS))
    if fit.kind == "mcmc" and len(moving) > MOST_TRACES:
        ratio = arviz_stats.rhat(_side_by_side(moving))["draws"].values
        order = np.argsort(-np.nan_to_num(ratio), kind="stable")
        return tuple(moving[i] for i in order[:MOST_TRACES])
    return tuple(moving[i] for i in evenly_spaced(len(moving), MOST_TRACES))
