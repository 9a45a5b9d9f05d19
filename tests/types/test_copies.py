"""An exact copy of a support frame is that frame read twice."""

from dataclasses import replace

import pytest
import torch

from bayesfs.inference.exact import Exact
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.prediction import predict
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing.models import ModelContract
from bayesfs.types import EpisodeBatch


def tasks() -> EpisodeBatch:
    episodes, _ = synthetic_episodes(users=2, way=3, shots=2, frames=3, dim=6, seed=0)
    return episodes.to(torch.float64)


def doubled(episodes: EpisodeBatch) -> EpisodeBatch:
    names = ("support", "support_mask", "support_frame", "support_quality")
    values = {n: getattr(episodes, n) for n in names}
    return replace(
        episodes, **{n: torch.cat([v, v], 3) for n, v in values.items() if v is not None}
    )


def test_copies_are_padding_and_the_first_of_them_stays():
    once, twice = tasks(), doubled(tasks())
    assert torch.equal(twice.support_mask[:, :, :, :3], once.support_mask)
    assert not twice.support_mask[:, :, :, 3:].any()
    again = replace(twice, support_condition=twice.support_condition)
    assert torch.equal(again.support_mask, twice.support_mask)


def test_the_same_frame_in_two_videos_or_two_classes_is_no_copy():
    once = tasks()
    support = once.support.clone()
    support[:, 1, 0] = support[:, 0, 0]
    support[:, 0, 1] = support[:, 0, 0]
    assert torch.equal(replace(once, support=support).support_mask, once.support_mask)


def test_frames_of_one_sum_are_no_copies():
    once = tasks()
    assert torch.equal(
        replace(once, support=once.support - once.support.mean(-1, keepdim=True)).support_mask,
        once.support_mask,
    )
    swapped = once.support.clone()
    swapped[..., 0, :] = 4 * swapped[..., 0, :].round()
    swapped[..., 1, :] = swapped[..., 0, :].flip(-1)
    assert replace(once, support=swapped).support_mask[..., :2].all()


def test_every_pair_of_one_sum_is_compared():
    """Frames 1 2 1 2 1 by values [1, 2], [2, 1]: all have one sum, the first two differ."""
    once = tasks()
    support = once.support.clone()
    support[..., 0::2, :] = torch.arange(support.shape[-1], dtype=support.dtype)
    support[..., 1::2, :] = torch.arange(support.shape[-1], dtype=support.dtype).flip(-1)
    seen = once.support_mask.cumsum(-1)
    expected = once.support_mask & (seen <= 2)
    assert torch.equal(replace(once, support=support).support_mask, expected)


@pytest.mark.parametrize("shots", [1, 2])
def test_copies_change_no_predictive(shots: int):
    model, episodes = GaussianHierarchy(), tasks().limit_shots(shots)
    given = ModelContract.make_population(_Checks(), model, episodes)
    answers = [
        predict(model, Exact().infer(model, e, seed=0, given=given), e, given=given).frame
        for e in (episodes, doubled(episodes))
    ]
    torch.testing.assert_close(answers[0].log_prob, answers[1].log_prob, atol=1e-12, rtol=0.0)


class _Checks(ModelContract):
    __test__ = False

    def make_model(self) -> GaussianHierarchy:
        return GaussianHierarchy()
