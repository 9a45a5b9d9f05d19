"""Engines side by side: against closed forms of Gaussians, SciPy's divergence, and as a command."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from bayesfs.cli.compare_engines import run_engine_comparison as command
from bayesfs.diagnostics.posterior_distance import (
    Inferred,
    compare_engines,
    mean_shift_and_ratio,
    predictive_kl,
)
from bayesfs.errors import RecipeError, ShapeError
from bayesfs.plots.engines import engine_picture
from bayesfs.prediction import label_draws
from bayesfs.recipes.load import recipe_folder
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import Posterior, Predictive


@pytest.fixture(scope="module")
def episodes():
    return synthetic_episodes(users=3, way=3, shots=2, frames=2, dim=2, ragged=True, seed=3)[0]


def predictive_of(episodes, seed, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    shape = (20, *episodes.query.shape[:3], episodes.way)
    logits = scale * torch.randn(shape, generator=g, dtype=torch.float64)
    logits = logits.masked_fill(~episodes.way_mask[:, None, None], -torch.inf).log_softmax(-1)
    return Predictive(frame=label_draws(logits), video=label_draws(logits[:, :, :, 0]))


def posterior_of(episodes, seed, mean=0.0, sd=1.0):
    g = torch.Generator().manual_seed(seed)
    tasks, ways, dim = len(episodes), episodes.way, episodes.dim
    draws = mean + sd * torch.randn(5000, tasks, ways, dim, generator=g)
    return Posterior("mcmc", {"class_mean": draws}, {"class_mean": ("task", "way", "feature")})


def test_divergence_is_scipys(episodes):
    p, q = (predictive_of(episodes, seed) for seed in (0, 1))
    got = predictive_kl(p, q, episodes)
    for task in range(len(episodes)):
        mask, ways = episodes.query_mask[task], episodes.way_mask[task]
        first, second = (x.frame.prob[task][mask][:, ways].numpy() for x in (p, q))
        assert np.isclose(got[task], entropy(first, second, axis=1).mean())
    assert predictive_kl(p, p, episodes).abs().max() == 0


def test_shift_and_ratio_of_known_gaussians(episodes):
    truth, other = posterior_of(episodes, 0), posterior_of(episodes, 1, mean=0.5, sd=2.0)
    inferred = {
        "a": Inferred(truth, predictive_of(episodes, 0), 3.0),
        "b": Inferred(other, predictive_of(episodes, 1), 1.0),
    }
    result = compare_engines(inferred, "a", episodes)
    row = result.by_site.iloc[0]
    assert (row["engine"], row["site"]) == ("b", "class_mean")
    assert abs(row["shift"] - 0.5) < 0.05
    assert abs(row["ratio"] - 2.0) < 0.1
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    summary = result.summary.set_index("engine")
    assert summary.loc["a", "kl"] == 0
    assert 0 < summary.loc["b", "kl"] < summary.loc["b", "kl_worst"]
    assert len(result.tasks) == 2 * len(episodes)


def test_padded_classes_do_not_count(episodes):
    truth, other = posterior_of(episodes, 0), posterior_of(episodes, 0)
    other.draws["class_mean"][:, ~episodes.way_mask] += 100
    p = predictive_of(episodes, 0)
    inferred = {"a": Inferred(truth, p, 1.0), "b": Inferred(other, p, 1.0)}
    assert compare_engines(inferred, "a", episodes).by_site["shift"].item() == 0


def test_a_latent_that_does_not_vary_has_no_scale():
    shift, ratio = mean_shift_and_ratio(torch.zeros(5, 1), torch.randn(5, 1))
    assert shift.isnan().all()
    assert ratio.isnan().all()


def test_other_tasks_and_a_missing_reference_are_told(episodes):
    p = predictive_of(episodes, 0)
    with pytest.raises(ShapeError, match="among the engines"):
        compare_engines({"a": Inferred(posterior_of(episodes, 0), p, 1.0)}, "b", episodes)
    with pytest.raises(ShapeError, match="same queries"):
        predictive_kl(p, predictive_of(episodes.select([0]), 0), episodes)


def test_command_prints_tables_and_draws_a_picture(small_store, tmp_path, capsys):
    shipped = recipe_folder()
    engines = [shipped / "inference" / f"{name}.py" for name in ("svi", "svgd")]
    model = shipped / "models" / "linear_head.py"
    result = command(model, engines, small_store, out=tmp_path / "out", smoke=True, tasks=2)
    assert result.reference == "nuts"
    assert set(result.summary["engine"]) == {"svi", "svgd", "nuts"}
    printed = capsys.readouterr().out
    assert "svgd" in printed
    assert "weight_raw" in printed
    assert (tmp_path / "out" / "engines.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        ".bayesfs-made",
        "engines.csv",
        "engines.png",
        "sites.csv",
        "tasks.csv",
    }
    assert len(engine_picture(result).axes) == 3
    with pytest.raises(RecipeError, match="two engines are called"):
        command(model, [engines[0], engines[0]], small_store)
