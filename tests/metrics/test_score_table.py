import numpy as np
import pandas as pd
import pytest
import torch

from bayesfs.cli.studies import print_scores
from bayesfs.errors import ShapeError
from bayesfs.metrics import score_table as bs
from bayesfs.metrics import scores
from bayesfs.metrics.calibration import ece
from bayesfs.metrics.items import frame_rows, video_rows
from bayesfs.metrics.paired import paired_difference
from bayesfs.metrics.selective import aurc
from bayesfs.types import EpisodeBatch, LabelDraws, LevelNames, Predictive, user_of

TASKS, WAY, VIDEOS, FRAMES = 16, 3, 6, 4


def draws_of(log_prob: torch.Tensor) -> LabelDraws:
    return LabelDraws(log_prob, log_prob[None], torch.zeros(1, *log_prob.shape[:-1]))


@pytest.fixture(scope="module")
def episodes() -> EpisodeBatch:
    """8 users with two tasks each; the last video of every task is unlabelled, some are short."""
    g = torch.Generator().manual_seed(0)
    support_mask = torch.ones(TASKS, WAY, 2, 3, dtype=torch.bool)
    support_mask[:2, 2] = False  # the first user has two objects
    labels = torch.arange(VIDEOS).repeat(TASKS, 1) % 2
    labels[:, -1] = -1
    query_mask = torch.ones(TASKS, VIDEOS, FRAMES, dtype=torch.bool)
    query_mask[:, 1, 2:] = False
    query_mask[3, 4] = False
    names = tuple(f"P{i // 2}#{i % 2 + 1}" for i in range(TASKS))
    return EpisodeBatch(
        support=torch.randn(TASKS, WAY, 2, 3, 5, generator=g) * support_mask[..., None],
        support_mask=support_mask,
        support_condition=torch.zeros(TASKS, WAY, 2, dtype=torch.long),
        query=torch.randn(TASKS, VIDEOS, FRAMES, 5, generator=g) * query_mask[..., None],
        query_mask=query_mask,
        query_condition=torch.ones(TASKS, VIDEOS, dtype=torch.long),
        query_labels=labels,
        tasks=names,
        classes=tuple(("bag", "cup", "key")[: 2 if i < 2 else 3] for i in range(TASKS)),
        videos=tuple(tuple(f"{n[:2]}-video{v}" for v in range(VIDEOS)) for n in names),
    )


def predict(episodes: EpisodeBatch, seed: int, skill: float = 1.0) -> Predictive:
    g = torch.Generator().manual_seed(seed)
    truth = torch.nn.functional.one_hot(episodes.query_labels.clamp(0), WAY)
    logits = torch.randn(TASKS, VIDEOS, FRAMES, WAY, generator=g) + skill * truth[:, :, None]
    logits = logits.masked_fill(~episodes.way_mask[:, None, None, :], -torch.inf)
    frame = logits.log_softmax(-1)
    video = logits.sum(2).log_softmax(-1)
    return Predictive(draws_of(frame), draws_of(video))


def test_rows_hold_every_labelled_frame(episodes: EpisodeBatch) -> None:
    rows = frame_rows(predict(episodes, 1), episodes)
    kept = episodes.query_mask & (episodes.query_labels >= 0)[..., None]
    assert len(rows) == int(kept.sum())
    assert rows["user"].nunique() == 8
    assert set(rows.loc[rows["user"] == "P0", "object"]) == {"P0/bag", "P0/cup"}
    assert (rows.loc[rows["user"] == "P0", "way"] == 2).all()
    assert not rows["video"].str.endswith("video5").any()
    videos = video_rows(predict(episodes, 1), episodes)
    assert len(videos) == TASKS * (VIDEOS - 1) - 1


def test_scores_are_those_of_the_arrays(episodes: EpisodeBatch) -> None:
    predictive = predict(episodes, 1)
    table = bs.score_table(predictive, episodes, draws=200)
    kept = episodes.query_mask & (episodes.query_labels >= 0)[..., None]
    logp = predictive.frame.log_prob[kept].numpy()
    y = episodes.query_labels[..., None].expand_as(episodes.query_mask)[kept].numpy()
    frame = table["estimate"].sel(item="frame")
    expected = {
        "accuracy": scores.accuracy(logp, y),
        "nll": scores.nll(logp, y),
        "brier": scores.brier(logp, y),
        "ece": ece(logp, y),
        "aurc": aurc(logp, y),
    }
    for name, value in expected.items():
        assert frame.sel(score=name).item() == pytest.approx(value, abs=1e-6), name
    inside = (table["low"] <= table["estimate"]) & (table["estimate"] <= table["high"])
    assert inside.sel(score=["accuracy", "nll", "brier", "ece", "mce", "aurc"]).all()
    assert table.attrs["units"] == 8
    assert table.attrs["interval_reason"] == ""


def test_tables_by_user_object_and_video(episodes: EpisodeBatch) -> None:
    predictive = predict(episodes, 1)
    rows = frame_rows(predictive, episodes)
    table = bs.score_table(predictive, episodes, draws=10)
    accuracy = table["by_user"].sel(item="frame", score="accuracy").to_series()
    pd.testing.assert_series_equal(
        accuracy, rows.groupby("user")["correct"].mean(), check_names=False
    )
    loss = table["by_object"].sel(item="frame", score="nll").to_series()
    pd.testing.assert_series_equal(loss, rows.groupby("object")["nll"].mean(), check_names=False)
    loss = table["by_video"].sel(item="frame", mean_score="nll").to_series()
    pd.testing.assert_series_equal(loss, rows.groupby("video")["nll"].mean(), check_names=False)
    assert table["rows_of_user"].sel(item="frame").sum() == len(rows)


def test_the_worst_users_are_named(episodes: EpisodeBatch) -> None:
    predictive = predict(episodes, 1)
    table = bs.score_table(predictive, episodes, draws=10, worst=0.2)
    by_user = table["by_user"].sel(item="frame")
    for score, worst in (("accuracy", np.sort), ("nll", lambda v: -np.sort(-v))):
        values = by_user.sel(score=score)
        expected = worst(values.to_numpy())[:2]
        got = table["worst_users"].sel(item="frame", score=score).to_numpy().tolist()
        np.testing.assert_allclose(values.sel(user=got), expected)
        assert table["worst"].sel(item="frame", score=score).item() == pytest.approx(
            expected.mean()
        )


def test_few_users_have_no_interval_but_videos_do(episodes: EpisodeBatch) -> None:
    few = episodes.select(range(4))
    predictive = predict(episodes, 1)
    frame, video = predictive.frame.log_prob[:4], predictive.video.log_prob[:4]
    predictive = Predictive(draws_of(frame), draws_of(video))
    table = bs.score_table(predictive, few, draws=50)
    assert table["low"].isnull().all()
    assert "too few" in table.attrs["interval_reason"]
    assert bs.score_table(predictive, few, draws=50, unit="video")["low"].notnull().all()


def test_batches_can_be_scored_one_by_one(episodes: EpisodeBatch) -> None:
    predictive = predict(episodes, 1)
    rows = {"frame": frame_rows(predictive, episodes), "video": video_rows(predictive, episodes)}
    parts = {k: pd.concat([v.iloc[:40], v.iloc[40:]]) for k, v in rows.items()}
    whole = bs.score_table(predictive, episodes, draws=50, seed=3)
    assert bs.table_of_rows(parts, draws=50, seed=3).identical(whole)


def test_better_method_is_found_by_pairs(episodes: EpisodeBatch) -> None:
    good = frame_rows(predict(episodes, 1, skill=2.0), episodes)
    bad = frame_rows(predict(episodes, 1, skill=1.0), episodes)
    gap = paired_difference(good, bad.sample(frac=1, random_state=0), "nll", draws=500)
    assert gap.overall.high < 0
    assert gap.overall.estimate == pytest.approx(good["nll"].mean() - bad["nll"].mean())
    assert gap.share_better == 1.0
    by_user = good.groupby("user")["nll"].mean() - bad.groupby("user")["nll"].mean()
    pd.testing.assert_series_equal(
        gap.by_unit["difference"].sort_index(), by_user, check_names=False
    )
    same = paired_difference(good, good, "accuracy", draws=50)
    assert (same.overall.low, same.overall.high, same.share_better) == (0.0, 0.0, 0.5)


def test_methods_on_different_frames_are_not_compared(episodes: EpisodeBatch) -> None:
    rows = frame_rows(predict(episodes, 1), episodes)
    with pytest.raises(ShapeError, match="same frames"):
        paired_difference(rows, rows.iloc[1:])
    with pytest.raises(ShapeError, match="expected a score"):
        paired_difference(rows, rows, "auc")


def test_predictions_of_other_episodes_are_refused(episodes: EpisodeBatch) -> None:
    predictive = predict(episodes, 1)
    with pytest.raises(ShapeError, match="these episodes"):
        frame_rows(predictive, episodes.select(range(3)))
    with pytest.raises(ShapeError, match="these episodes"):
        video_rows(predictive, episodes.select(range(3)))
    with pytest.raises(ShapeError, match="share of users"):
        bs.worst_users(bs.group_scores(frame_rows(predictive, episodes)), 0.0)


def test_user_of_a_task() -> None:
    assert [user_of(t) for t in ("P1", "P1#2", "a#b#10")] == ["P1", "P1", "a#b"]


def test_a_table_keeps_what_the_data_call_the_levels(
    episodes: EpisodeBatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = episodes.changed(levels=LevelNames("class", "school", "visit", "row"))
    print_scores({3: bs.score_table(predict(told, 0), told, draws=20)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 visits per class:"
    assert {line.split()[0] for line in lines if line.startswith("  ")} >= {"row", "visit"}
