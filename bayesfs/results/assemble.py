"""One run as an `xarray.DataTree` in ArviZ's schema; use `assemble_tree` first.

Groups (each ArviZ function that takes a DataTree takes this one):

    posterior             every site, (chain, draw, *dims)
    sample_stats          elbo, ksd, diverging, energy, ...
    posterior_predictive  labels of query videos, drawn, of equal weight; their probabilities
    frame_predictive      the same of frames
    log_likelihood        log p(y | x, D) of each labelled query video, the unit: alike at all draws
    query_log_likelihood  log p(y | x, theta_s) of the same
    frame_log_likelihood  the same of their frames
    support_log_likelihood  the same of each support video, where it is given
    prior, log_prior      the posterior's sites before the support was seen, and their log prior
                          density at every draw; where the model is given
    support_log_density   log p(support | theta_s) of every task, where the model is given
    support_left_out      log p(y | x, D without it) of each support video, where it is exact
    predictive_weights    log w_s of the predictive's draws, per labelled query video
    observed_data         the query labels
    constant_data         names of classes and videos, conditions, numbers of shots and frames,
    quality uncertainty           total, aleatoric, epistemic in nats, and p(y | x, D)
    population(_sample_stats)  what meta-training learnt, where it is given
    population_prior      draws of its named numbers from their prior; a `Study` adds them

The query video is the unit: `observed_data`, `posterior_predictive` and `log_likelihood` have one
variable, `video_label` (query), and everything else is a coordinate (`label` over (task, video),
`video_prob`) or has a group of its own, so that ArviZ's functions work without being told which.

Padding is NaN (or the empty string), never a number. Levels and conditions have their names along
their axes, and so do classes that are the same in every task; others are numbered along "way",
and named in `bayesfs.results.convert.one_task`. Axes with names of their own:

    query        labelled query videos of all tasks, one after the other: no padding
    query_frame  their frames

Unequal weights. `LabelDraws` holds draws theta_s ~ p(theta | D) with weights
w_s proportional to p(x | theta_s), one set per query, since a generative model learns from the
query's own features:

- `posterior_predictive` is resampled by w_s (systematically, one stratum per draw kept), so its
  draws have equal weight, which is what ArviZ assumes.
- `query_log_likelihood` holds log p(y | x, theta_s) without w_s, a likelihood; log w_s is
  `predictive_weights/video`. The query's labels are not in the posterior, so their score is
  log p(y | x, D) = log sum_s w_s p(y | x, theta_s), which is what `log_likelihood` holds: ArviZ's
  leave-one-out gives it back. See `bayesfs.diagnostics.loo`, also for that of the support.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._utils.arrays import numpy_of
from bayesfs.errors import DataError, ShapeError
from bayesfs.inference.program.limits import LIMITS
from bayesfs.protocols import Model
from bayesfs.results.axes import (
    common_classes,
    draw_array,
    query_index,
    strings,
    task_labels,
    without_padding,
)
from bayesfs.results.prior import density_groups, prior_draws
from bayesfs.results.query import (
    by_query,
    constant_group,
    frame_predictive_group,
    heldout_group,
    log_likelihood_group,
    observed_group,
    predictive_group,
    support_rows,
    uncertainty_group,
)
from bayesfs.results.schema import SCHEMA, UNCERTAINTY
from bayesfs.types import CONDITIONS, EpisodeBatch, Posterior, Predictive

_ONE_A_DRAW: Mapping[str, Callable[[NDArray[Any]], Any]] = {
    "diverging": lambda x: x.any(1),
    "energy": lambda x: x.sum(1),
}
"""Statistics that ArviZ expects one a draw -> that from one a task; tasks are independent chains
side by side, whose energies add up. Those of each task are `task_NAME`."""

_STEPWISE = ("elbo", "loss", "ksd")
"""Statistics whose first axis is the step of an optimiser, not the draw."""

_PER_TASK = (
    "khat",
    "evidence_bound",
    "log_evidence",
    "gradient",
    "ridge",
    "ksd",
    "ksd_ratio",
    "stein_moments",
    "borrowed",
    "exchangeable",
    "alike_factor",
    "candidate_ess",
    "latents_per_particle",
    "escalated",
    *(f"first_{name}" for name in LIMITS),
)
"""Statistics that are one number per task, not per draw, where there are as many of them."""


def assemble_tree(
    posterior: Posterior,
    predictive: Predictive,
    uncertainty: xr.Dataset,
    episodes: EpisodeBatch,
    *,
    model: Model | None = None,
    population: Posterior | None = None,
    support_log_prob: Tensor | None = None,
    left_out_log_prob: Tensor | None = None,
    sites: Sequence[str] | None = None,
    predictive_draws: int = 100,
    max_values: int = 20_000_000,
    attrs: Mapping[str, str | int | float] | None = None,
) -> xr.DataTree:
    """Everything known about a batch of tasks, labelled, for ArviZ and for the report.

    Args:
        posterior: draws of the tasks' sites.
        predictive: its predictive of the query.
        uncertainty: what `bayesfs.uncertainty.decompose.decompose` made of that, see `UNCERTAINTY`.
        episodes: the tasks.
        model: what the posterior is of; names its axes and makes the groups `prior`, `log_prior`
            and `support_log_density`.
        population: posterior of the population sites, where they were learnt beforehand.
        support_log_prob: (draw, task, way, shot) log p(y | x, theta_s) of the support videos, from
            `bayesfs.diagnostics.left_out.support_log_prob`; makes leave-one-video-out possible.
        left_out_log_prob: (task, way, shot), from `bayesfs.diagnostics.left_out.left_out_log_prob`;
            leave-one-video-out then is exact.
        sites: the sites to keep; by default those of at most `max_values` values. The attribute
            `left_out` of the group names the others.
        predictive_draws: draws kept in `frame_predictive`, fewer where `max_values` asks.
        max_values: largest number of values of one array of draws.
        attrs: further root attributes, such as the names of model and engine.

    Returns:
        A DataTree with the groups listed in this module's docstring.

    Raises:
        ShapeError: posterior, predictive or uncertainty belong to other episodes.
        DataError: a variable of `UNCERTAINTY` is missing, or a site's name holds a slash.
    """
    _check(posterior, predictive, uncertainty, episodes)
    index = query_index(episodes)
    named = {"feature": episodes.columns} | ({} if model is None else dict(model.coords))
    if "level" in named:
        named["level"] = tuple(map(episodes.levels.of_level, named["level"]))
    groups = {
        "posterior": posterior_group(posterior, episodes, sites, max_values, named),
        "sample_stats": stats_group(posterior, task_labels(episodes)),
        "posterior_predictive": predictive_group(
            posterior, predictive, episodes, index, max_values
        ),
        "frame_predictive": frame_predictive_group(
            posterior, predictive, episodes, index, predictive_draws, max_values
        ),
        "predictive_weights": xr.Dataset({"video": by_query(posterior, predictive, index)}),
        "log_likelihood": heldout_group(posterior, predictive, index),
        "query_log_likelihood": log_likelihood_group(posterior, predictive, index, max_values),
        "frame_log_likelihood": log_likelihood_group(
            posterior, predictive, index, max_values, unit="frame"
        ),
        "observed_data": observed_group(episodes, index),
        "constant_data": constant_group(posterior, episodes),
        "uncertainty": uncertainty_group(predictive, uncertainty, episodes),
    }
    if support_log_prob is not None:
        rows = support_rows(posterior, support_log_prob, episodes)
        groups["support_log_likelihood"] = xr.Dataset({"support_label": rows})
    if left_out_log_prob is not None:
        exact = support_rows(posterior, left_out_log_prob[None], episodes)
        exact = exact.isel(chain=0, draw=0, drop=True)
        groups["support_left_out"] = xr.Dataset({"support_label": exact})
    if population is not None:
        groups["population"] = posterior_group(population, None, None, max_values, named)
        groups["population_sample_stats"] = stats_group(population, None)
    if model is not None:
        kept = [str(site) for site in groups["posterior"].data_vars]
        before = prior_draws(model, episodes, population, kept, posterior)
        if before is not None:
            groups["prior"] = posterior_group(before, episodes, None, max_values, named)
        groups |= density_groups(model, posterior, episodes, population, kept)
    if (classes := common_classes(episodes)) is not None:
        named_groups = (name for name, ds in groups.items() if ds.sizes.get("way") == len(classes))
        groups |= {name: groups[name].assign_coords(way=classes) for name in [*named_groups]}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {
        "bayesfs_schema": SCHEMA,
        "inference_library": "bayesfs",
        "inference_library_version": version("bayesfs"),
        "kind": posterior.kind,
        "population_kind": population.kind if population is not None else "",
        "seed": posterior.seed,
        "levels": episodes.levels.to_json(),
        **(attrs or {}),
    }
    return tree


def _check(
    posterior: Posterior, predictive: Predictive, uncertainty: xr.Dataset, episodes: EpisodeBatch
) -> None:
    expected = (*episodes.query_mask.shape, episodes.way)
    got = tuple(predictive.frame.log_prob.shape)
    if got != expected:
        raise ShapeError(
            f"expected a predictive over (task, video, frame, way) {expected}, got {got}; "
            "was it made from other episodes?"
        )
    for site, value in posterior.draws.items():
        if "/" in site:
            raise DataError(f"site {site!r} holds a slash, which Zarr and netCDF take for a group")
        sizes = dict(zip(posterior.dims[site], value.shape[1:], strict=True))
        if sizes.get("task", len(episodes)) != len(episodes):
            raise ShapeError(
                f"site {site!r} has {sizes['task']} tasks but episodes have {len(episodes)}; "
                "was the posterior inferred from other episodes?"
            )
    missing = [name for name in UNCERTAINTY if name not in uncertainty]
    if missing:
        raise DataError(f"expected uncertainty with variables {UNCERTAINTY}, missing {missing}")
    for name in UNCERTAINTY:
        size = expected[:-1] if name.startswith("frame") else expected[:2]
        if uncertainty[name].shape != size:
            raise ShapeError(
                f"expected uncertainty {name!r} of shape {size}, got {uncertainty[name].shape}"
            )


def _axis_coords(
    posterior: Posterior, episodes: EpisodeBatch | None, labels: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[Any]]:
    """Labels of the axes: the posterior's own, names of tasks, classes, levels and conditions."""
    known = {"condition": CONDITIONS, **posterior.coords, **labels}
    coords: dict[str, NDArray[Any]] = {axis: strings(names) for axis, names in known.items()}
    if episodes is not None:
        coords["task"] = task_labels(episodes)
        if (classes := common_classes(episodes)) is not None:
            coords["way"] = classes
    return coords


def posterior_group(
    posterior: Posterior,
    episodes: EpisodeBatch | None,
    sites: Sequence[str] | None = None,
    max_values: int = 20_000_000,
    labels: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> xr.Dataset:
    """Draws of the sites (chain, draw, *dims) with labelled axes; padding is NaN.

    Args:
        posterior: the draws.
        episodes: the tasks, for names and masks; None leaves axes numbered.
        sites: the sites to keep; by default those of at most `max_values` values.
        max_values: see `sites`; the attribute `left_out` names the others.
        labels: axis -> names along it, as `Model.coords` has them.

    Raises:
        DataError: there is no such site.
    """
    unknown = sorted(set(sites or ()) - set(posterior.draws))
    if unknown:
        raise DataError(f"expected sites of {sorted(posterior.draws)}, got {unknown}")
    small = [site for site, value in posterior.draws.items() if value.numel() <= max_values]
    data = {}
    for site in small if sites is None else sites:
        values, dims = numpy_of(posterior.draws[site]), tuple(posterior.dims[site])
        array = draw_array(values, posterior.chains, dims)
        data[site] = array if episodes is None else without_padding(array, episodes)
    ds = xr.Dataset(
        data, attrs={"left_out": ", ".join(s for s in posterior.draws if s not in data)}
    )
    given = _axis_coords(posterior, episodes, labels)
    coords = {}
    for dim, size in ds.sizes.items():
        if dim not in ("chain", "draw"):
            label = given.get(str(dim))
            coords[dim] = label if label is not None and len(label) == size else np.arange(size)
    return ds.assign_coords(coords)


def stats_group(posterior: Posterior, task: NDArray[Any] | None) -> xr.Dataset:
    """Statistics over draws as (chain, draw, ...), histories of optimisers as (step, ...).

    Args:
        posterior: the draws.
        task: (task,) names of the tasks; None for a population, of which no statistic has tasks.
    """
    tasks = -1 if task is None else len(task)
    data: dict[str, xr.DataArray] = {}
    for name, value in posterior.sample_stats.items():
        array = numpy_of(value)
        per_task = name in _PER_TASK and array.shape == (tasks,)
        by_step = name in _STEPWISE and array.ndim > 0 and not per_task
        over_draws = array.shape[:1] == (posterior.num_draws,) and name not in _STEPWISE + _PER_TASK
        skip = int(over_draws or by_step)
        if tasks not in array.shape[skip:]:  # one of all tasks together
            array = array.reshape((*array.shape[:skip], *(n for n in array.shape[skip:] if n > 1)))
        dims = [f"{name}_dim_{i}" for i in range(array.ndim)]
        if by_step:
            dims[0] = f"{name}_step"
        if tasks in array.shape[skip:]:
            dims[array.shape.index(tasks, skip)] = "task"
        if not over_draws:
            data[name] = xr.DataArray(array, dims=dims)
            continue
        if name in _ONE_A_DRAW and dims[1:] == ["task"]:
            data[f"task_{name}"] = draw_array(array, posterior.chains, dims[1:])
            array, dims = np.asarray(_ONE_A_DRAW[name](array)), dims[:1]
        data[name] = draw_array(array, posterior.chains, dims[1:])
    found = xr.Dataset(data)
    return found.assign_coords(task=task) if "task" in found.dims else found
