"""Values as ArviZ, pandas and NumPy want them, and as a notebook shows them."""

from dataclasses import replace
from html.parser import HTMLParser

import arviz_stats
import numpy as np
import pandas as pd
import pytest
import torch

from bayesfs.errors import DataError
from bayesfs.prediction import label_draws
from bayesfs.results.convert import to_datatree, to_numpy, to_pandas, to_polars, to_xarray
from bayesfs.synthetic.tasks import synthetic_embeddings, synthetic_episodes
from bayesfs.types import EpisodeBatch, Posterior, Predictive
from bayesfs.uncertainty.decompose import decompose


@pytest.fixture(scope="module")
def episodes() -> EpisodeBatch:
    batch, _ = synthetic_episodes(users=3, way=4, shots=2, ragged=True, dim=4, seed=3)
    return batch


@pytest.fixture(scope="module")
def posterior(episodes: EpisodeBatch) -> Posterior:
    noise = torch.Generator().manual_seed(0)
    draws = {
        "mean": torch.randn(20, 3, 4, 4, generator=noise),
        "scale": torch.rand(20, generator=noise),
    }
    dims = {"mean": ("task", "way", "feature"), "scale": ()}
    return Posterior("mcmc", draws, dims, chains=2, sample_stats={"diverging": torch.zeros(20, 3)})


@pytest.fixture(scope="module")
def predictive(episodes: EpisodeBatch) -> Predictive:
    noise = torch.Generator().manual_seed(1)
    frame = torch.randn(20, *episodes.query_mask.shape, episodes.way, generator=noise)
    exists = episodes.way_mask[:, None, None]
    frame = frame.masked_fill(~exists, -torch.inf)
    return Predictive(label_draws(frame), label_draws(frame.mean(3)))


def test_a_posterior_as_arrays(posterior: Posterior) -> None:
    arrays = to_numpy(posterior)
    assert arrays["mean"].shape == (20, 3, 4, 4)
    np.testing.assert_array_equal(arrays["scale"], posterior.draws["scale"])


def test_a_posterior_as_a_table_has_a_row_a_draw(posterior: Posterior) -> None:
    table = to_pandas(posterior)
    assert table.shape == (20, 3 * 4 * 4 + 1)
    assert table.loc[(1, 3), "mean[2, 1, 0]"] == posterior.draws["mean"][13, 2, 1, 0]
    assert table.loc[(0, 9), "scale"] == posterior.draws["scale"][9]


def test_names_of_tasks_and_padding_come_from_the_episodes(
    posterior: Posterior, episodes: EpisodeBatch
) -> None:
    table = to_pandas(posterior, episodes)
    t, k = (~episodes.way_mask).nonzero()[0].tolist()
    assert table[f"mean[{episodes.tasks[t]}, {k}, 0]"].isna().all()
    assert table[f"mean[{episodes.tasks[t]}, 0, 0]"].notna().all()


def test_a_posterior_as_datatree_is_what_arviz_takes(posterior: Posterior) -> None:
    tree = to_datatree(posterior)
    assert tree["posterior/mean"].dims == ("chain", "draw", "task", "way", "feature")
    assert tree["sample_stats/diverging"].dims[:2] == ("chain", "draw")
    mean = arviz_stats.summary(tree, round_to="none")["mean"]["scale"]
    assert float(mean) == pytest.approx(float(posterior.draws["scale"].mean()))


def test_a_predictive_as_arrays_and_as_datatree(
    predictive: Predictive, episodes: EpisodeBatch
) -> None:
    arrays = to_numpy(predictive)
    exists = episodes.video_mask
    np.testing.assert_allclose(arrays["video"][exists].sum(-1), 1.0, rtol=1e-5)
    assert set(to_numpy(replace(predictive, absent=episodes.query_mask.float()))) == {
        "frame",
        "video",
        "absent",
    }
    tree = to_datatree(predictive, episodes)
    group = tree["posterior_predictive"]
    again = (group["label_prob_given"] * np.exp(group["log_weight"])).sum("draw")[0]
    np.testing.assert_allclose(again.values[exists], arrays["video"][exists], atol=1e-6)
    assert np.isnan(group["label_prob"].values[~exists]).all()
    assert group["task"].values.tolist() == list(episodes.tasks)
    assert "class_name" not in to_datatree(predictive)["posterior_predictive"].coords


def test_a_predictive_as_a_table_has_a_row_a_video(
    predictive: Predictive, episodes: EpisodeBatch
) -> None:
    table = to_pandas(predictive, episodes)
    assert len(table) == int(episodes.video_mask.sum())
    first = table.loc[episodes.tasks[0]].iloc[0]
    assert first["object 01"] == pytest.approx(float(predictive.video.prob[0, 0, 0]))
    assert first["epistemic"] == pytest.approx(
        float(decompose(predictive, episodes)["video_epistemic"][0, 0])
    )
    bare = to_pandas(predictive)
    assert bare.shape == (predictive.video.log_prob[..., 0].numel(), episodes.way + 3)
    assert bare["total"].iloc[0] == pytest.approx(first["total"])


def test_mistakes_are_told(predictive: Predictive, episodes: EpisodeBatch) -> None:
    with pytest.raises(DataError, match="predicted from other episodes"):
        to_pandas(predictive, episodes.select([0]))
    for convert in (to_numpy, to_pandas, to_datatree):
        with pytest.raises(DataError, match="got EpisodeBatch"):
            convert(episodes)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def shown(value: object) -> str:
    """Text of a value's HTML, which must be well formed."""
    parser = _Tags()
    parser.feed(value._repr_html_())  # type: ignore[attr-defined]
    assert parser.open == []
    return " ".join(parser.text)


def test_what_a_notebook_shows(
    posterior: Posterior, predictive: Predictive, episodes: EpisodeBatch
) -> None:
    assert "task 3 × way 4 × feature 4" in shown(posterior)
    assert "likeliest class" in shown(predictive)
    evil = replace(episodes, tasks=("<script>", "b", "c"))
    assert "<script>" in shown(evil)
    assert "<script>" not in evil._repr_html_()
    assert "object 01, object 02" in shown(episodes)
    frames, _ = synthetic_embeddings(users=2, test_users=1, way=2, seed=0)
    assert "train" in shown(frames)
    assert "test" in shown(frames)


def test_tables_of_polars_have_the_index_as_columns(
    posterior: Posterior, predictive: Predictive, episodes: EpisodeBatch
) -> None:
    pytest.importorskip("polars")
    for value in (posterior, predictive):
        table, found = to_pandas(value, episodes), to_polars(value, episodes)
        assert found.columns == [*table.index.names, *table.columns]
        column = table.columns[-1]
        np.testing.assert_array_equal(found[column].to_numpy(), table[column])
    scores = pd.DataFrame({"nll": [0.5, 0.7]})
    assert to_polars(scores).columns == ["nll"]  # rows without names are not numbered


def test_tables_as_datasets_have_axes_where_all_combinations_are_there(
    posterior: Posterior, predictive: Predictive, episodes: EpisodeBatch
) -> None:
    draws = to_xarray(posterior, episodes)
    assert dict(draws.sizes) == {"chain": 2, "draw": 10}
    np.testing.assert_array_equal(draws["scale"].values.ravel(), posterior.draws["scale"].numpy())
    videos, table = to_xarray(predictive, episodes), to_pandas(predictive, episodes)
    assert dict(videos.sizes) == {"row": len(table)}  # a video is of one task only
    assert set(videos.coords) == {"row", "task", "video"}
    np.testing.assert_array_equal(videos["total"], table["total"])
    assert dict(to_xarray(pd.DataFrame({"nll": [0.5, 0.7]})).sizes) == {"row": 2}
