"""What was borrowed from other people, in the report of a run whose model says so."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.models.similarity.pool import SimilarityPool
from bayesfs.prediction import predict
from bayesfs.report.view import ReportData
from bayesfs.report.write import write_report
from bayesfs.results.assemble import assemble_tree
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.uncertainty.decompose import decompose


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    """Three people; one of them records in another way."""
    batch, _ = synthetic_episodes(users=3, way=3, shots=3, frames=2, dim=8, seed=0)
    model = SimilarityPool()
    population = model.default_population(4)
    posterior = OwnApproximation(draws=32, population_draws=4).infer(
        model, batch, seed=0, given=population
    )
    assert {"borrowed", "exchangeable"} <= set(posterior.sample_stats)
    answer = predict(model, posterior, batch, given=population)
    return assemble_tree(posterior, answer, decompose(answer, batch), batch)


def test_it_says_how_much_of_the_population_each_person_keeps(
    tree: xr.DataTree, tmp_path: Path
) -> None:
    kept = tree["sample_stats"]["borrowed"].to_numpy()
    text = write_report(
        ReportData("Run", {3: tree}), tmp_path / "report.md", format="md"
    ).read_text(encoding="utf-8")
    part = text[text.index("### What was borrowed") :]
    assert part.count("not known") == 3
    least = str(tree["sample_stats"]["task"].values[kept.argmin()])
    assert part.index(least) == min(part.index(str(t)) for t in tree["sample_stats"]["task"].values)


def test_people_who_are_unlike_the_others_are_told(tree: xr.DataTree, tmp_path: Path) -> None:
    changed = tree.copy()
    alike = xr.DataArray([0.4, 0.001, 0.9], dims="task")
    changed["sample_stats"] = changed["sample_stats"].assign(exchangeable=alike)
    page = write_report(ReportData("Run", {3: changed}), tmp_path / "report.html")
    text = page.read_text(encoding="utf-8")
    assert "Of 1 person the videos of one object are not as alike" in text
    assert text.count("⚠ unlike") == 1


def test_a_model_that_borrows_nothing_says_nothing(tree: xr.DataTree, tmp_path: Path) -> None:
    silent = tree.copy()
    silent["sample_stats"] = silent["sample_stats"].to_dataset().drop_vars(["borrowed"])
    text = write_report(ReportData("Run", {3: silent}), tmp_path / "r.md", format="md").read_text()
    assert "borrowed" not in text
    assert np.isfinite(tree["sample_stats"]["candidate_ess"]).all()
