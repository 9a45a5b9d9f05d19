import pytest
import torch

from bayesfs.data.leave_one_out import leave_one_video_out
from bayesfs.errors import DataError
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.types import UNLABELLED


def test_every_video_with_a_sibling_is_asked_once_from_the_rest():
    p = Population.isotropic(4, quality_slope=(0.3,))
    episodes, _ = synthetic_episodes(p, users=6, shots=3, ragged=True, seed=0)
    folds = leave_one_video_out(episodes)
    names = {
        t: [i for i, n in enumerate(folds.tasks) if n.startswith(f"{t} ")] for t in episodes.tasks
    }
    for task, name in enumerate(episodes.tasks):
        count = episodes.shot_mask[task].sum(-1)
        asked = sum(int(folds.video_mask[i].sum()) for i in names[name])
        assert asked == int(count[count > 1].sum())
        for i in names[name]:
            shot = int(folds.tasks[i][-1]) - 1
            for v in folds.video_mask[i].nonzero()[:, 0].tolist():
                k = int(folds.query_labels[i, v])
                original = episodes.support_mask[task, k, shot]
                assert torch.equal(folds.query_mask[i, v], original)
                assert torch.equal(folds.query[i, v], episodes.support[task, k, shot])
                assert torch.equal(
                    folds.query_quality[i, v], episodes.support_quality[task, k, shot]
                )
                assert not folds.support_mask[i, k, shot].any()
                assert folds.support_mask[i, k].any()
            total = folds.support_mask[i].sum() + folds.query_mask[i].sum()
            assert total == episodes.support_mask[task].sum()
    assert (folds.support[~folds.support_mask] == 0).all()
    assert (folds.query_labels[~folds.video_mask] == UNLABELLED).all()
    assert (folds.way_mask.sum(1) >= 2).all()


def test_one_video_per_class_cannot_be_left_out():
    with pytest.raises(DataError, match="two support videos"):
        leave_one_video_out(synthetic_episodes(shots=1)[0])
