"""The simultaneous band is the same whichever ArviZ is there, and holds what it says."""

import arviz_plots
import numpy as np
import pytest
import xarray as xr

from bayesfs.plots.arviz_panels import BAND, panels_of, simultaneous_band

RNG = np.random.default_rng(0)


def test_nearly_all_uniform_samples_lie_within_the_band_throughout() -> None:
    x, low, high = simultaneous_band(60)
    samples = np.sort(RNG.uniform(size=(2000, 60)))
    ecdf = np.stack([np.searchsorted(s, x, side="right") for s in samples]) / 60 - x
    inside = ((ecdf >= low - 1e-9) & (ecdf <= high + 1e-9)).all(1).mean()
    assert abs(inside - BAND) < 0.01


@pytest.mark.parametrize("count", [20, 75])
def test_a_picture_has_that_band_and_its_own_line(count: int) -> None:
    values = np.sort(RNG.uniform(size=count))
    data = xr.Dataset({"u": ("query", values)}, {"query": np.arange(count)})
    made = arviz_plots.plot_ecdf_pit(
        xr.DataTree.from_dict({"pit": data}), group="pit", sample_dims=["query"], backend="none"
    )
    (panel,) = panels_of(made)
    assert not panel.diagonal
    for found, wanted in zip(panel.band, simultaneous_band(count), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-9)
    largest = np.abs(np.arange(1, count + 1) / count - values).max()
    assert abs(abs(panel.departure[1]) - largest) < 2 / count
