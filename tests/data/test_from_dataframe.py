"""A data frame, in its own words and units: from columns to a posterior and a report."""

import ast
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import bayesfs as bf
from bayesfs._utils.display import LINES
from bayesfs.data.store import open_store, save_store
from bayesfs.diagnostics.convergence import diagnose
from bayesfs.errors import DataError
from bayesfs.explanation.sentences import advice_text
from bayesfs.features.standardisation import Standardisation
from bayesfs.inference.svi.guides import FullRank
from bayesfs.metrics.score_table import score_table
from bayesfs.models.gaussian.families import PerFeature
from bayesfs.models.objectives import MarginalLikelihood
from bayesfs.report.view import ReportData
from bayesfs.report.write import render_html, render_markdown
from bayesfs.results.convert import in_words, to_pandas
from bayesfs.study import Answer, Learnt, Study
from bayesfs.training.checkpoint import load_projection, save_projection
from bayesfs.types import Embeddings, EpisodeBatch, LevelNames


def schools(groups: int = 6, visits: int = 5, rows: int = 3, seed: int = 0) -> pd.DataFrame:
    """Classes of schools, visited: rows of a visit share its effect."""
    rng = np.random.default_rng(seed)
    table = []
    for g in range(groups):
        school = rng.normal(size=2)
        for k in "ab":
            mean = school + 2 * rng.normal(size=2)
            for v in range(visits):
                x = mean + 0.5 * rng.normal(size=2) + 0.3 * rng.normal(size=(rows, 2))
                table += [(f"school {g}", k, v, *row) for row in x.tolist()]
    frame = pd.DataFrame(table, columns=["school", "class", "visit", "height", "weight"])
    frame["split"] = np.where(frame["school"] < "school 4", "train", "test")
    return frame


COLUMNS = {"label": "class", "group": "school", "cluster": "visit", "split": "split"}


def study(**settings: object) -> Study:
    evaluation = bf.HeldOutGroups(shots=(1, 3))
    engine = bf.SVI(steps=40, draws=40, khat_draws=0)
    return Study(
        bf.GaussianHierarchy(family=PerFeature()),
        bf.Exact(draws=16, population_draws=4),
        evaluation,
        engine,
        MarginalLikelihood,
        bf.Standardise(),
    )


@pytest.fixture(scope="module")
def answered() -> tuple[Embeddings, Learnt, EpisodeBatch, Answer]:
    data = Embeddings.from_dataframe(schools(), **COLUMNS)
    own = study()
    learnt = own.learn(data, seed=0)
    tasks = own.tasks(data, learnt, seed=0)
    return data, learnt, tasks, own.infer(tasks, learnt, seed=0)


def test_columns_become_levels_and_features_stay_as_they_are() -> None:
    frame = schools()
    data = Embeddings.from_dataframe(frame, **COLUMNS)
    np.testing.assert_array_equal(data.features, frame[["height", "weight"]].to_numpy())
    assert data.features.dtype == np.float64
    assert data.dataset["feature"].values.tolist() == ["height", "weight"]
    assert set(data.coord("user")) == {f"school {g}" for g in range(6)}
    assert data.coord("video")[0] == "school 0 / a / 0"  # visits are numbered within a class
    assert data.levels == LevelNames("class", "school", "visit", "row", recorded=False)


def test_rows_in_any_order_and_any_index_give_the_same_clusters() -> None:
    frame = schools()
    shuffled = frame.sample(frac=1.0, random_state=3)
    a, b = (Embeddings.from_dataframe(f, **COLUMNS) for f in (frame, shuffled))
    for data in (a, b):
        video = data.coord("video")
        assert (video[1:] != video[:-1]).sum() + 1 == len(set(video))
    means = [pd.DataFrame(d.features).groupby(d.coord("video")).mean() for d in (a, b)]
    pd.testing.assert_frame_equal(*means)


def test_polars_gives_what_pandas_gives() -> None:
    polars = pytest.importorskip("polars")
    frame = schools()
    a = Embeddings.from_dataframe(frame, **COLUMNS)
    table = {name: frame[name].tolist() for name in frame}
    b = Embeddings.from_dataframe(polars.DataFrame(table), **COLUMNS)
    xr.testing.assert_identical(a.dataset, b.dataset)


def test_only_a_label_is_needed() -> None:
    frame = schools()[["class", "height"]]
    data = Embeddings.from_dataframe(frame, label="class")
    assert data.levels == LevelNames("class", "group", "cluster", "row", recorded=False)
    assert len(set(data.coord("video"))) == len(frame)
    assert set(data.coord("user")) == {"all"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "klass"}, r"expected columns \['klass'\], got \['school', 'class'"),
        ({"features": ["height", "school"]}, "expected numbers in the column 'school', got String"),
        ({"features": "height"}, "as a list of columns"),
        ({"features": []}, "rows with features"),
    ],
)
def test_what_is_no_column_of_numbers_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Embeddings.from_dataframe(schools(), **{**COLUMNS, **change})


def test_missing_numbers_and_names_are_refused_with_their_rows() -> None:
    for column, row, mend in (("height", 3, "fill them in"), ("school", 5, "give each a name")):
        frame = schools()
        frame.loc[row, column] = None
        with pytest.raises(DataError, match=f"{column} in every row.* row {row}.*{mend}"):
            Embeddings.from_dataframe(frame, **COLUMNS)
    with pytest.raises(DataError, match="data frame of pandas, polars"):
        Embeddings.from_dataframe({"class": ["a"]}, label="class")


def test_a_store_keeps_the_words(tmp_path: Path) -> None:
    data = Embeddings.from_dataframe(schools(), **COLUMNS)
    save_store(tmp_path / "s.zarr", data)
    kept = open_store(tmp_path / "s.zarr")
    assert kept.levels == data.levels
    np.testing.assert_allclose(kept.features, data.features, rtol=1e-6)


def test_every_value_shows_itself_in_a_dozen_lines(
    answered: tuple[Embeddings, Learnt, EpisodeBatch, Answer],
) -> None:
    data, learnt, tasks, answer = answered
    many = tasks.select([i % len(tasks) for i in range(200)])
    values = [
        data, learnt, tasks, many, answer, answer.posterior, answer.predictive,
        answer.predictive.video, learnt.population, study(),
        diagnose(answer.to_datatree(learnt, {})),
    ]  # fmt: skip
    for value in values:
        text = repr(value)
        assert text.count("\n") < LINES, text
        assert max(map(len, text.splitlines())) <= 104
        assert value._repr_html_().startswith("<div>")
    assert "schools  class names  visits  rows" in repr(data)
    assert "features: 2 (height, weight)" in repr(data)
    assert "... and 195 more" in repr(many) or "... and" in repr(many)


def test_axes_tables_and_sentences_speak_of_schools(
    answered: tuple[Embeddings, Learnt, EpisodeBatch, Answer],
) -> None:
    _, learnt, tasks, answer = answered
    table = to_pandas(answer.predictive, tasks)
    assert table.index.names == ["school", "visit"]
    tree = in_words(answer.to_datatree(learnt, {}))
    sizes = tree["posterior"].sizes
    assert sizes["school"] == len(tasks)
    assert tree["posterior"]["class"].values.tolist() == ["a", "b"]
    assert not {"task", "way", "video", "shot", "frame"} & set(sizes)
    for group in ("posterior", "population", "prior"):
        assert tree[group]["feature"].values.tolist() == ["height", "weight"]
    levels = ["school", "class", "visit_clean", "visit_clutter", "row_clean", "row_clutter"]
    assert tree["posterior"]["level"].values.tolist() == levels
    words = tasks.levels
    assert advice_text("record", reason="clean", names={"name": "video"}, levels=words) == (
        "One more visit of video would help."
    )
    assert advice_text("closer", names={}, levels=words) == ""


def test_the_report_speaks_of_schools_and_leaves_names_as_they_are(
    answered: tuple[Embeddings, Learnt, EpisodeBatch, Answer],
) -> None:
    _, learnt, tasks, answer = answered
    tree = answer.to_datatree(learnt, {"shots": 3, "model": "m", "engine": "e", "evaluation": "v"})
    scores = {3: score_table(answer.predictive, tasks)}
    data = ReportData("bayesfs: a person video", {3: tree}, scores, {"Users": "2 videos"})
    text, page = render_markdown(data), render_html(data)
    assert "| School | Visits |" in text
    assert "visits were named right" in page
    for own in ("a person video", "2 videos"):  # what comes from the data is not translated
        assert own in page
    assert 'class="' in page
    assert 'href="#scores"' in page
    told = re.sub(r"video\\_raw", "", text.replace("a person video", "").replace("2 videos", ""))
    left = re.findall(
        r"\b(?:videos?|persons?|people|users?)\b", told.split("## Appendix: draws")[0]
    )
    assert len(left) <= 3, left  # reasons, which name things of the data, stay as they are


def test_ten_lines_lead_from_a_frame_to_a_posterior() -> None:
    """Those of docs/data-frame.md, which is run by the tests of the pages."""
    page = (Path(__file__).parents[2] / "docs" / "data-frame.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    code = next(block for block in blocks if "from_dataframe" in block)
    assert "study.infer" in code
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    statements = ast.parse(code).body
    assert len(statements) <= 10


def test_learning_tells_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    data = Embeddings.from_dataframe(schools(), **COLUMNS)
    own = study()
    own.learn(data, seed=0)
    assert "population" in capsys.readouterr().err
    heard: list[int] = []
    own.learn(data, seed=0, progress=lambda done, total, message: heard.append(done))
    assert capsys.readouterr().err == ""


def test_units_and_origin_change_nothing(
    answered: tuple[Embeddings, Learnt, EpisodeBatch, Answer],
) -> None:
    """Centimetres for metres, pounds for kilograms, and years since the birth of Christ."""
    _, learnt, _, answer = answered
    frame = schools()
    frame["height"] = 100 * frame["height"] + 2000
    frame["weight"] = 1e-3 * frame["weight"] - 7
    data = Embeddings.from_dataframe(frame, **COLUMNS)
    own = study()
    other = own.learn(data, seed=0)
    again = own.infer(own.tasks(data, other, seed=0), other, seed=0)
    prob, same = answer.predictive.video.prob, again.predictive.video.prob
    assert (prob - same).abs().max() < 1e-6
    projection = other.projection
    assert isinstance(projection, Standardisation)
    first = learnt.projection
    assert isinstance(first, Standardisation)
    np.testing.assert_allclose(projection.scale, first.scale * [100, 1e-3], rtol=1e-10)
    centre = projection.in_data_units(np.zeros(2), centred=True)
    train = frame[frame["split"] == "train"][["height", "weight"]]
    np.testing.assert_allclose(centre, train.mean(), rtol=1e-12)
    sds = projection.in_data_units(np.full(2, 1 / 2**0.5), centred=False)
    np.testing.assert_allclose(sds, train.std(ddof=0), rtol=1e-10)


def test_the_mean_of_a_population_is_not_shrunk_and_scales_come_back_in_the_data_s_units() -> None:
    """A mean of 3 with sd .5 between schools, and that times a thousand."""
    rng = np.random.default_rng(5)
    rows = []
    for school in range(30):
        centre = 3 + 0.5 * rng.normal(size=2)
        for name in ("a", "b"):
            own = centre + 0.3 * rng.normal(size=2)
            for visit in range(6):
                x = own + 0.6 * rng.normal(size=2) + 0.8 * rng.normal(size=(4, 2))
                rows += [(f"s{school}", name, visit, *row) for row in x.tolist()]
    frame = pd.DataFrame(rows, columns=["school", "class", "visit", "x", "y"])
    truth, found = {"school": 0.5, "class in school": 0.3, "visit": 0.6, "row": 0.8}, []
    for factor in (1.0, 1000.0):
        table = frame.assign(x=factor * frame["x"], y=factor * frame["y"])
        data = Embeddings.from_dataframe(table, label="class", group="school", cluster="visit")
        engine = bf.SVI(FullRank(), steps=400, khat_draws=0)
        parts = bf.Exact(), bf.HeldOutGroups(), engine, MarginalLikelihood, bf.Standardise()
        learnt = Study(bf.SharedClasses(), *parts).learn(data, seed=0)
        model = bf.SharedClasses().with_labels(learnt.labels)
        moments = model.moments(learnt.population.population, 2)
        projection = learnt.projection
        assert isinstance(projection, Standardisation)
        label = projection.in_data_units(moments["label_mean"].numpy(), centred=True) / factor
        sd = projection.in_data_units(moments["sd"].numpy(), centred=False) / factor
        assert (np.abs(label.mean(0) - 3) < 3 * label.std(0)).all()
        assert ((label.std(0) > 0.05) & (label.std(0) < 0.3)).all()
        for value, level in zip(truth.values(), (0, 2, 3, 4), strict=True):
            low, high = np.quantile(sd[:, level].mean(-1), [0.005, 0.995])
            assert low < value < high
        found.append((label, sd))
    for a, b in zip(*found, strict=True):
        # data are kept in single precision, whose rounding 400 steps carry on
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_a_standardisation_is_kept_in_a_file(
    tmp_path: Path, answered: tuple[Embeddings, Learnt, EpisodeBatch, Answer]
) -> None:
    data, learnt, _, _ = answered
    save_projection(learnt.projection, tmp_path / "p.npz")
    kept = load_projection(tmp_path / "p.npz")
    assert isinstance(kept, Standardisation)
    np.testing.assert_array_equal(kept(data).features, learnt.projection(data).features)
    row = kept.of_features(data.features[:2], "clean")
    np.testing.assert_array_equal(row, kept(data).features[:2])


def test_a_feature_that_never_varies_is_refused_by_its_name() -> None:
    frame = schools()
    frame["weight"] = 3.0
    data = Embeddings.from_dataframe(frame, **COLUMNS)
    with pytest.raises(DataError, match=r"same value in all train rows of \['weight'\]"):
        bf.Standardise().fit(data)


def test_rows_that_nobody_taught_exist_and_teach_nothing(
    answered: tuple[Embeddings, Learnt, EpisodeBatch, Answer],
) -> None:
    _, learnt, tasks, _answer = answered
    none = tasks.limit_shots(0)
    assert torch.equal(none.way_mask, tasks.way_mask)
    assert not none.support_mask.any()
    asked = study().infer(none, learnt, seed=0).predictive.video.prob
    even = torch.full_like(asked, 0.5)
    torch.testing.assert_close(asked[none.video_mask], even[none.video_mask])
    assert torch.equal(none.permute_classes([1, 0]).way_mask, none.way_mask.flip(1))
    assert torch.equal(none.select([1]).way_mask, none.way_mask[[1]])
