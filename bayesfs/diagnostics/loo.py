"""Leave-one-video-out expected log predictive density (elpd); start with `heldout_elpd`.

Two different questions, each with its own right answer:

- *How well are the query videos predicted?* Their labels are not in the posterior, so that
  leaving them out has happened already. The score of query i is

      elpd_i = log sum_s w_is p(y_i | x_i, theta_s) = log p(y_i | x_i, D),

  without any importance weighting by labels: `heldout_elpd`. `arviz_stats.loo(tree)` gives the
  same, in closed form where the predictive is; `heldout_elpd` takes it from the draws and says
  whether they suffice.
- *How well would the support videos predict each other?* Their labels are in the posterior, and
  each is to be left out: log p(y_i | x_i, D without i), `support_elpd`. Where the posterior is
  exact and labels are known in closed form, the model is asked without the video, which is exact
  (`bayesfs.diagnostics.left_out.left_out_log_prob`, given to `to_datatree`). Any other is
  reweighted by PSIS (`support_log_prob` there): the weights for p(theta | D without i, x_i) are
  proportional to 1 / p(y_i | x_i, theta_s), for generative models too, since p(x_i | theta_s)
  cancels. Draws that were fitted to a video in many dimensions may all be sure of it; no weights
  can say what they would be without it, and its Pareto k is NaN, not known. (On drawn objects in
  256 features such weights gave 0.00 nats a video, the truth -0.41.)

For a posterior that is not exact or MCMC, PSIS corrects the leaving out but not the approximation.
Both return ArviZ's ELPDData, which `arviz_stats.compare` takes. ArviZ is imported inside functions:
that takes seconds, and a study that is not judged does without.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from bayesfs._distributions.importance import smoothed
from bayesfs.errors import DataError

EVEN = 1e-3
"""Log-weights that differ by no more, in nats, decide nothing: a fitted tail would be of noise."""


def heldout_elpd(tree: xr.DataTree) -> Any:
    """Score of the labelled query videos: elpd_i = log sum_s w_is p(y_i | x_i, theta_s).

    Args:
        tree: from `to_datatree`.

    Returns:
        ELPDData over `query`; its Pareto k is that of the weights w_is, which says whether the
        draws suffice for the query's features, see `weight_pareto_k`.

    Raises:
        DataError: no query video is labelled.
    """
    from arviz_stats import loo

    weight = tree["predictive_weights"].to_dataset()["video"]
    if not weight.size:
        raise DataError("expected labelled query videos to score, got none")
    pareto_k = weight_pareto_k(weight)
    groups = {
        "posterior": tree["posterior"].to_dataset(),
        "log_likelihood": tree["query_log_likelihood"].to_dataset(),
    }
    return loo(
        xr.DataTree.from_dict(groups),
        pointwise=True,
        var_name="video_label",
        reff=1.0,
        log_weights=weight,
        pareto_k=pareto_k,
    )


def weight_pareto_k(log_weight: xr.DataArray) -> xr.DataArray:
    """Pareto k of importance weights: 0 where the largest are equal, NaN where draws are too few.

    Args:
        log_weight: (chain, draw, query) log w_is.

    Returns:
        (query,) k; above 0.7 a few draws decide the prediction of that query.

    Source: Vehtari et al. 2024 (PSIS).
    """
    return smoothed_weights(log_weight, 1.0)[1]


def smoothed_weights(
    log_weight: xr.DataArray, efficiency: float
) -> tuple[xr.DataArray, xr.DataArray]:
    """Pareto-smoothed log-weights of each item, and their k.

    Where all weights of an item agree to `EVEN` nats, or the largest are all alike, there is no
    tail to smooth: the weights are kept and k is 0. They are kept, too, where there are too few
    draws for a tail (k is NaN) and where the fitted tail is not finite (k says so).

    Args:
        log_weight: (chain, draw, item) log importance weights, up to a constant per item.
        efficiency: relative efficiency of the draws.

    Returns:
        (chain, draw, item) log-weights whose logsumexp over draws is 0, and (item,) k.

    Source: Vehtari et al. 2024 (PSIS).
    """
    values = log_weight.to_numpy()
    out, k = np.empty(values.shape), np.empty(values.shape[-1])
    for i in range(values.shape[-1]):
        raw = values[..., i] - logsumexp(values[..., i])
        if np.ptp(raw) <= EVEN:
            out[..., i], k[i] = raw, 0.0
            continue
        smooth, k[i] = smoothed(raw.ravel(), efficiency)
        out[..., i] = smooth.reshape(raw.shape)
        k[i] = 0.0 if np.isneginf(k[i]) else k[i]
    of_item = log_weight.isel(dict.fromkeys(log_weight.dims[:-1], 0), drop=True)
    return log_weight.copy(data=out), of_item.copy(data=k)


def support_elpd(tree: xr.DataTree) -> Any:
    """Leave-one-video-out over the support: log p(y_i | x_i, D without i), exactly or by PSIS.

    Args:
        tree: from `to_datatree`, with `support_log_prob`.

    Returns:
        ELPDData over `support`. Its Pareto k is 0 where a video was left out indeed, and NaN where
        all draws are equally sure of it, so that no weights can leave it out.

    Raises:
        DataError: the tree was made without `support_log_prob`, or an object has one video only.
    """
    from arviz_stats import ess, loo

    if "support_log_likelihood" not in tree.children:
        raise DataError(
            "expected the group support_log_likelihood; give `support_log_prob` to `to_datatree`"
        )
    if "support_left_out" in tree.children:
        return _exact_elpd(tree)
    view, rows = _support_view(tree)
    posterior, efficiency = tree["posterior"].to_dataset(), 1.0
    if posterior.sizes["chain"] > 1:
        relative = [v.to_numpy().ravel() for v in ess(posterior, relative=True).data_vars.values()]
        efficiency = float(np.nanmean(np.concatenate(relative)))
    log_weight, pareto_k = smoothed_weights(-rows, efficiency)
    sure = (rows.max(("chain", "draw")) - rows.min(("chain", "draw"))) <= EVEN
    return loo(
        view,
        pointwise=True,
        var_name="support_label",
        reff=efficiency,
        log_weights=log_weight,
        pareto_k=pareto_k.where(~sure),
    )


def _support_view(tree: xr.DataTree) -> tuple[xr.DataTree, xr.DataArray]:
    """What ArviZ's `loo` takes, and (chain, draw, support) log p(y_i | x_i, theta_s) in it."""
    likelihood = tree["support_log_likelihood"].to_dataset()
    groups = {"posterior": tree["posterior"].to_dataset(), "log_likelihood": likelihood}
    rows = likelihood["support_label"].transpose("chain", "draw", "support")
    return xr.DataTree.from_dict(groups), rows


def _exact_elpd(tree: xr.DataTree) -> Any:
    """ELPDData of support videos that were left out indeed; nothing rests on weights."""
    from arviz_stats import loo

    exact = tree["support_left_out"].to_dataset()["support_label"]
    if bool(exact.isnull().any()):
        raise DataError("expected two support videos or more of every object, to leave one out")
    view, rows = _support_view(tree)
    constant = exact.broadcast_like(rows).transpose(*rows.dims)
    view["log_likelihood"] = xr.DataTree(xr.Dataset({"support_label": constant}))
    even = xr.full_like(rows, -np.log(rows.sizes["chain"] * rows.sizes["draw"]))
    with warnings.catch_warnings():  # of the line for k, which is below 0 for very few draws
        warnings.simplefilter("ignore", UserWarning)
        found = loo(
            view,
            pointwise=True,
            var_name="support_label",
            reff=1.0,
            log_weights=even,
            pareto_k=xr.zeros_like(exact),
        )
    found.p = float((logsumexp(rows + even, axis=(0, 1)) - exact).sum())
    found.warning = False
    return found


def can_leave_one_out(tree: xr.DataTree) -> bool:
    """Whether the run kept what `support_elpd` needs, and every object has two support videos."""
    shots = tree["constant_data"].to_dataset()["shots"].to_numpy()
    return "support_log_likelihood" in tree.children and float(np.nanmin(shots)) >= 2
