"""What measured defects cost, on tasks whose defects are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bayesfs.errors import InferenceError
from bayesfs.models.baselines.classifiers import Prototypes
from bayesfs.models.gaussian.families import PerFeature
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.prediction import thinned
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.types import Posterior
from bayesfs.uncertainty.by_quality import by_cause
from bayesfs.uncertainty.decompose import decompose_draws

NAMES = ("blur", "darkness", "glare")
SLOPES = (0.5, 0.35, 0.4)
DIM = 16
MODEL = GaussianHierarchy(PerFeature(), covariates=NAMES)


def tasks(**options):
    truth = Population.isotropic(DIM, offset=0.0, quality_slope=SLOPES, dtype=torch.float64)
    settings = {"users": 5, "way": 4, "shots": 3, "seed": 0}
    return synthetic_episodes(truth, **(settings | options))[0]


def known_population() -> Posterior:
    """The parameters that the tasks were drawn with."""
    scale = torch.tensor([0.5, 1.0, 0.4, 0.6, 0.4, 0.6], dtype=torch.float64) * DIM**0.5
    draws = {
        "offset_raw": torch.zeros(1, 2, DIM, dtype=torch.float64),
        "loading": torch.ones(1, dtype=torch.float64),
        "absent_odds": torch.full((1,), -3.0, dtype=torch.float64),
        "quality_slope": torch.tensor([[SLOPES, SLOPES]], dtype=torch.float64),
        "scale": scale[None],
        "relative": torch.ones(1, 6, DIM, dtype=torch.float64),
    }
    return Posterior("exact", draws, dict(MODEL.population_dims))


def with_defects(batch, seed=0):
    """Every query frame has one defect, 2.5 to 4 sds from typical, and is typical otherwise."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, len(NAMES), batch.query_mask.shape)
    size = rng.uniform(2.5, 4.0, which.shape)
    quality = np.zeros((*which.shape, len(NAMES)))
    np.put_along_axis(quality, which[..., None], size[..., None], -1)
    return replace(batch, query_quality=torch.from_numpy(quality)), which


def test_a_single_defect_is_named() -> None:
    batch, which = with_defects(tasks())
    found = by_cause(MODEL, known_population(), batch, draws=32, seed=0)
    assert list(found["covariate"].values) == list(NAMES)
    assert (found["frame_drop"].values.argmax(-1) == which).mean() > 0.9
    assert float(found["frame_drop"].max("covariate").mean()) > 0.02


def test_a_typical_frame_has_no_defect_to_name() -> None:
    batch = tasks(users=2)
    batch = replace(batch, query_quality=torch.zeros_like(batch.query_quality))
    found = by_cause(MODEL, known_population(), batch, seed=0)
    assert float(np.abs(found["frame_drop"]).max()) < 1e-12


def test_frames_of_strangers_are_absent_ones() -> None:
    own, others = tasks(), tasks(seed=1)
    strange = replace(own, query=others.query, query_quality=others.query_quality)
    a = by_cause(MODEL, known_population(), own, seed=0)["video_absent"].values
    b = by_cause(MODEL, known_population(), strange, seed=0)["video_absent"].values
    assert np.mean(b[..., None] > a.reshape(-1)) > 0.85  # area under the ROC curve


def test_padding_is_nan_and_models_that_cannot_say_are_refused() -> None:
    batch = tasks(users=2, ragged=True)
    found = by_cause(MODEL, known_population(), batch, draws=2, seed=0)
    assert (np.isnan(found["frame_absent"].values) == ~batch.query_mask.numpy()).all()
    with pytest.raises(InferenceError, match="expected a model with covariates"):
        by_cause(Prototypes(), known_population(), batch, seed=0)  # type: ignore[arg-type]


def test_a_defect_that_moves_two_measures_costs_what_both_do_together() -> None:
    """Too little light clips, too: with both typical, the frame is one without defects."""
    measures = ("brightness", "dark_clipped", "focus")
    model = replace(MODEL, covariates=measures)
    batch, _ = with_defects(tasks())
    both = torch.zeros_like(batch.query_quality)
    both[..., :2] = 0.7  # so little that the label is far from unknown
    dark, none = (replace(batch, query_quality=q) for q in (both, torch.zeros_like(both)))
    found = by_cause(model, known_population(), dark, draws=64, seed=0)
    assert found["cause"].values.tolist() == ["dark", "bright", "blurred"]
    values = thinned(known_population(), 1)
    spoilt, good = (
        decompose_draws(model.predictive(b, values, draws=64, seed=0).frame)[1]
        for b in (dark, none)
    )
    cost = found["frame_cause"].sel(cause="dark").values
    np.testing.assert_allclose(cost, (spoilt - good).numpy(), atol=1e-9)
    single = found["frame_drop"].sel(covariate="brightness").values
    np.testing.assert_allclose(found["frame_cause"].sel(cause="bright").values, single)
    assert cost.mean() > 1.2 * single.mean()
