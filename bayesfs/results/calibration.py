"""A run's predictions as ArviZ's pictures of calibration take them: `calibration_tree`.

`arviz_plots` judges one variable whose values mean the same everywhere. Classes do not: class 2 is
another thing for another person. Two quantities do. The smallest set of likely classes that holds
the truth has a probability, its PIT, which is uniform if the forecast is calibrated
(`bayesfs.metrics.pit`), and each pair of a video and a class is an event with a stated probability
(`bayesfs.metrics.pav`).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from bayesfs._utils.arrays import Floats, Ints
from bayesfs.errors import DataError
from bayesfs.metrics.pit import steps
from bayesfs.results.rows import labelled_items

MOST_DRAWS = 400
"""Draws of each event; a stated probability is kept to one part in so many."""

MOST_EVENTS = 2**22
"""Draws of all events together: of more videos there are fewer draws of each."""

FEWEST_DRAWS = 50


def calibration_tree(tree: xr.DataTree, *, seed: int = 0) -> xr.DataTree:
    """PIT of the class sets, and one class against the rest, of a run's labelled query videos.

    Args:
        tree: from `bayesfs.results.assemble.assemble_tree`.
        seed: of where within its step a PIT lies, and of the draws.

    Returns:
        Group `pit` with `class_set` over `query`; groups `posterior_predictive` and `observed_data`
        with `is_class` over `pair`.

    Raises:
        DataError: no query video is labelled.

    Example:
        >>> made = calibration_tree(tree)  # doctest: +SKIP
        >>> arviz_plots.plot_ecdf_pit(made, group="pit", sample_dims=["query"])  # doctest: +SKIP
        >>> arviz_plots.plot_ppc_pava(made)  # doctest: +SKIP
    """
    log_prob, rows = labelled_items(tree, "video")
    labels = rows["label"].to_numpy()
    if not len(labels):
        raise DataError("expected labelled query videos, got none")
    rng = np.random.default_rng(seed)
    lower, upper = (ends[np.arange(len(labels)), labels] for ends in steps(log_prob))
    pit = lower + (upper - lower) * rng.random(len(labels))
    pairs = np.isfinite(log_prob)
    count = int(np.clip(MOST_EVENTS // pairs.sum(), FEWEST_DRAWS, MOST_DRAWS))
    drawn = _even_labels(np.exp(log_prob), count, rng)
    way = np.arange(log_prob.shape[1])
    events = (drawn[..., None] == way)[:, pairs].astype(np.int64)
    happened = (labels[:, None] == way)[pairs].astype(np.int64)
    return xr.DataTree.from_dict(
        {
            "pit": xr.Dataset({"class_set": ("query", pit)}, {"query": np.arange(len(pit))}),
            "posterior_predictive": xr.Dataset(
                {"is_class": (("chain", "draw", "pair"), events[None])}
            ),
            "observed_data": xr.Dataset({"is_class": ("pair", happened)}),
        }
    )


def _even_labels(prob: Floats, draws: int, rng: np.random.Generator) -> Ints:
    """(draw, item) labels, each class of an item as often as it is likely, in random order."""
    cumulative = prob.cumsum(1) / prob.sum(1, keepdims=True)
    place = (np.arange(draws)[:, None] + rng.random(len(prob))) / draws
    labels = (cumulative[None] <= place[..., None]).sum(-1).clip(max=prob.shape[1] - 1)
    return np.asarray(rng.permuted(labels, axis=0), np.int64)
