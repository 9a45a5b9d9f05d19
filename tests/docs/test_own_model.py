"""The model of docs/new-model.md goes all the way: a run, and every check there is of a model.

It has no plate "frame", a site of the population and one of every task, and there are as many
classes as tasks, so that an axis in the place of another would be seen.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from bayesfs.cli.main import main
from bayesfs.data.store import save_store
from bayesfs.diagnostics.convergence import diagnose
from bayesfs.diagnostics.loo import heldout_elpd, support_elpd
from bayesfs.diagnostics.predictive_checks import (
    posterior_check,
    prior_check,
    prior_label_prob,
    prior_predictive,
)
from bayesfs.diagnostics.prior_sensitivity import prior_sensitivity
from bayesfs.diagnostics.sbc import calibrate
from bayesfs.diagnostics.sbc_tasks import simulate_tasks
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.inference.program.simulation import Simulator
from bayesfs.inference.svi.svi import SVI
from bayesfs.protocols import Model
from bayesfs.recipes.load import recipe_folder
from bayesfs.results.store import load_datatree
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import EpisodeBatch, Posterior

PAGE = Path(__file__).parents[2] / "docs" / "new-model.md"
SMALL = [
    word
    for setting in ("population_engine.steps=30", "engine.steps=60", "engine.draws=120")
    for word in ("--set", setting)
]


def recipe_text() -> str:
    """The recipe that the page describes: its first block, and the model's name."""
    code = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    return f"{code[0]}\nmodel = SteadyHands()\n"


@pytest.fixture(scope="module")
def model() -> Model:
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(recipe_text(), PAGE.name, "exec"), names)
    found: Model = names["model"]
    return found


@pytest.fixture(scope="module")
def episodes() -> EpisodeBatch:
    """As many tasks as classes, and unequal numbers of videos and frames."""
    sizes = {"way": 3, "shots": 4, "frames": 2, "query_videos": 2, "dim": 4}
    return synthetic_episodes(users=3, ragged=True, seed=4, **sizes)[0].to(torch.float64)


@pytest.fixture(scope="module")
def population(model: Model, episodes: EpisodeBatch) -> Posterior:
    return Posterior("exact", {"s": torch.ones(1, dtype=torch.float64)}, {"s": ()})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, make_embeddings: Any) -> tuple[Path, Path]:
    """Two runs of the recipe on as many test users as classes and as many train users."""
    folder = tmp_path_factory.mktemp("own")
    recipe, store = folder / "my_model.py", folder / "store.zarr"
    recipe.write_text(recipe_text(), encoding="utf-8")
    save_store(store, make_embeddings(users=5, objects=2))
    parts = [
        recipe,
        recipe_folder() / "inference/svi.py",
        recipe_folder() / "evaluation/clutter.py",
    ]
    for name, noise in (("mine", 0.5), ("other", 0.3)):
        argv = ["run", *map(str, parts), "--data", str(store), "--out", str(folder / name)]
        assert main([*argv, *SMALL, "--set", f"model.noise={noise}"]) == 0
    return folder / "mine", folder / "other"


def test_it_runs_reports_and_explains(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs[0]
    assert "SteadyHands" in (run / "report.html").read_text(encoding="utf-8")
    assert main(["report", str(run), "--format", "md"]) == 0
    assert main(["explain", str(run), "--video", "u3-1-clutter-1", "--trust"]) == 0
    assert "doubt in nats" in capsys.readouterr().out


def test_its_results_hold_every_check(runs: tuple[Path, Path]) -> None:
    tree = load_datatree(runs[0] / "results-05.nc")
    assert {"s", "u", "c"} <= {*tree["posterior"].data_vars, *tree["population"].data_vars}
    for name in ("prior_check", "posterior_check"):
        p = tree[name].to_dataset()["p"].sel(quantity="between-video scatter")
        assert np.isfinite(p).all()
    assert not prior_sensitivity(tree).empty
    assert diagnose(tree) is not None
    for elpd in (heldout_elpd(tree), support_elpd(tree)):
        assert np.isfinite(elpd.elpd)


def test_its_runs_are_compared(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "both")]) == 0
    assert set(pd.read_csv(tmp_path / "both" / "elpd.csv")["view"]) == {"query", "support"}
    capsys.readouterr()


def test_data_that_it_makes_are_its_own(
    model: Model, episodes: EpisodeBatch, population: Posterior
) -> None:
    """Simulated videos scatter about s c by the sd that u says."""
    made = simulate_tasks(model, episodes, population=population, seed=1)
    mask = episodes.support_mask[..., None]
    mean = (made.episodes.support * mask).sum(-2) / mask.sum(-2).clamp(min=1)
    sd = model.noise * (made.truth["u"][0] / 2).exp()  # type: ignore[attr-defined]
    z = (mean - made.truth["s"][0] * made.truth["c"][0][:, :, None]) / sd[:, None, None, None]
    assert z[episodes.shot_mask].std() == pytest.approx(1.0, abs=0.25)
    drawn = prior_predictive(model, episodes, draws=5, given=population)["support"]
    assert drawn.dims == ("draw", "task", "way", "shot", "frame", "feature")
    there = np.isfinite(drawn.to_numpy()).all((0, 4, 5))
    np.testing.assert_array_equal(there, episodes.shot_mask.numpy())
    assert prior_label_prob(model, episodes, draws=5).sizes["way"] == 3


def test_predictive_checks_tell_its_data_from_others(
    model: Model, episodes: EpisodeBatch, population: Posterior
) -> None:
    posterior = SVI(steps=150, draws=100, khat_draws=0).infer(
        model, episodes, seed=0, given=population
    )
    made = simulate_tasks(model, episodes, population=population, seed=1).episodes
    own = prior_check(model, made, given=population)["p"].sel(quantity="between-video scatter")
    assert ((own > 0.01) & (own < 0.99)).all()
    wild = made.changed(support=30.0 * made.support)
    far = prior_check(model, wild, given=population)["p"].sel(quantity="between-video scatter")
    assert (far < 0.01).all()
    checked = posterior_check(model, posterior, episodes, given=population)
    assert isinstance(checked, xr.Dataset)
    assert np.isfinite(checked["p"].sel(quantity="nearest-class distance")).all()
    assert np.isnan(checked["p"].sel(quantity="within-video scatter")).all()


def test_an_engine_is_calibrated_on_it_and_a_wrong_one_is_not(
    model: Model, population: Posterior
) -> None:
    sizes = {"way": 2, "shots": 3, "frames": 1, "query_videos": 1, "dim": 2}
    template = synthetic_episodes(users=60, seed=4, **sizes)[0].to(torch.float64)
    engine = NUTS(draws=64, warmup=150, chains=1)
    assert calibrate(model, engine, template, population=population).p > 0.001

    class Narrow(NUTS):
        def infer(self, *args: Any, **kwargs: Any) -> Posterior:
            found = super().infer(*args, **kwargs)
            draws = {s: v.mean(0) + 0.3 * (v - v.mean(0)) for s, v in found.draws.items()}
            return found.changed(draws=draws)

    wrong = Narrow(draws=64, warmup=150, chains=1)
    assert calibrate(model, wrong, template, population=population).p < 0.001


def test_its_log_density_is_that_of_each_task(model: Model, episodes: EpisodeBatch) -> None:
    """As many tasks as classes: u's prior is each task's own, not a sum over them."""
    simulated = Simulator(model, episodes).draw(seed=0)
    draws = {site: value[None] for site, value in simulated.draws.items()}
    found = Simulator(model, episodes).log_densities(draws)
    torch.testing.assert_close(
        found["u"], torch.distributions.Normal(0.0, 1.0).log_prob(draws["u"])
    )
