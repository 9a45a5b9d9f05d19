"""Held-out users: who teaches, who is scored, and how tasks of different shots are nested."""

import numpy as np
import pytest
import torch

from bayesfs.errors import DataError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.protocols import Evaluation
from bayesfs.types import Embeddings


def tree(splits: tuple[str, ...] = ("train", "train", "test")) -> Embeddings:
    """Users u0, u1, ... of these splits, with 3 objects of 3 clean and 2 cluttered videos of 4."""
    rows = [
        (f"u{u}", f"thing{o}", f"u{u}-o{o}-{condition}-{v}", condition, split)
        for u, split in enumerate(splits)
        for o in range(3)
        for condition, videos in (("clean", 3), ("clutter", 2))
        for v in range(videos)
        for _ in range(4)
    ]
    user, thing, video, condition, split = zip(*rows, strict=True)
    x = np.random.default_rng(0).normal(size=(len(rows), 5))
    return Embeddings.from_arrays(
        x, object=thing, video=video, user=user, condition=condition, split=split
    )


def test_learns_from_train_users_and_scores_test_users() -> None:
    evaluation: Evaluation = HeldOutUsers(shots=(1, 2))
    train = evaluation.train_episodes(tree(), seed=0)
    test = evaluation.test_episodes(tree(), seed=0)
    assert train.tasks == ("u0", "u1")
    assert test.tasks == ("u2",)
    assert train.shot_mask.sum((1, 2)).tolist() == [15, 15]
    assert test.shot_mask.sum((1, 2)).tolist() == [6]
    assert (test.query_condition[test.video_mask] == 1).all()


def test_tasks_of_fewer_shots_are_nested_and_ask_the_same() -> None:
    test = HeldOutUsers(shots=(1, 3)).test_episodes(tree(), seed=1)
    one = test.limit_shots(1)
    assert torch.equal(one.support, test.support[:, :, :1])
    assert torch.equal(one.query, test.query)


def test_a_clean_study_uses_no_cluttered_video_at_all() -> None:
    evaluation = HeldOutUsers(shots=(2,), query_conditions=("clean",))
    for episodes in (
        evaluation.train_episodes(tree(), seed=0),
        evaluation.test_episodes(tree(), seed=0),
    ):
        assert (episodes.support_condition[episodes.shot_mask] == 0).all()
        assert (episodes.query_condition[episodes.video_mask] == 0).all()


@pytest.mark.parametrize("shots", [(), (0,), (5, 1), (2, 2)])
def test_shots_that_are_not_increasing_are_refused(shots: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="increasing"):
        HeldOutUsers(shots=shots)


def test_a_missing_split_is_named() -> None:
    with pytest.raises(DataError, match=r"split 'test', found only \['train'\]"):
        HeldOutUsers().test_episodes(tree(("train",)), seed=0)
