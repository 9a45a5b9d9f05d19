"""Label noise, and the error of the split into kinds."""

import numpy as np
import pytest
import torch

from bayesfs.benchmark.disentangle import Relabelled, disentanglement_error, relabel
from bayesfs.errors import DataError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.synthetic.tasks import synthetic_episodes


@pytest.fixture
def batch():
    return synthetic_episodes(users=40, way=5, shots=4, query_videos=3, ragged=True, seed=0)[0]


def test_no_noise_changes_nothing(batch) -> None:
    same = relabel(batch, 0.0, seed=3)
    assert torch.equal(same.support, batch.support)
    assert torch.equal(same.query_labels, batch.query_labels)


def test_noise_moves_videos_among_the_same_slots(batch) -> None:
    noisy = relabel(batch, 1.0, seed=0)
    assert torch.equal(noisy.shot_mask, batch.shot_mask)
    for t in range(3):
        a = batch.support[t].flatten(0, 1).flatten(1).sum(1).sort().values
        b = noisy.support[t].flatten(0, 1).flatten(1).sum(1).sort().values
        torch.testing.assert_close(a, b)
    known = batch.query_labels >= 0
    agree = (noisy.query_labels == batch.query_labels)[known].float().mean()
    chance = (1.0 / batch.way_mask.sum(-1, keepdim=True)).expand(known.shape)[known].mean()
    assert float(agree) == pytest.approx(float(chance), abs=0.08)
    assert torch.equal(noisy.query_labels < 0, batch.query_labels < 0)


def test_half_the_noise_changes_half_the_labels(batch) -> None:
    known = batch.query_labels >= 0
    noisy = relabel(batch, 0.5, seed=1)
    changed = float((noisy.query_labels != batch.query_labels)[known].float().mean())
    chance = float(
        (1 - 1.0 / batch.way_mask.sum(-1, keepdim=True)).expand(known.shape)[known].mean()
    )
    assert changed == pytest.approx(0.5 * chance, abs=0.06)


def test_error_is_zero_for_a_perfect_split_and_known_for_a_bad_one() -> None:
    accuracy = [0.5, 0.6, 0.7, 0.8]
    error = [1 - a for a in accuracy]
    flat = [1.0, -1.0, -1.0, 1.0]  # uncorrelated with an even grid
    assert disentanglement_error((flat, error, accuracy), (error, flat, accuracy)) == pytest.approx(
        0
    )
    assert disentanglement_error((error, flat, accuracy), (flat, error, accuracy)) == pytest.approx(
        1
    )
    same = (error, error, accuracy)
    assert disentanglement_error(same, same) == pytest.approx(0.5)


def test_what_cannot_be_correlated_is_refused_or_nan() -> None:
    with pytest.raises(DataError, match="at least 3 pairs"):
        disentanglement_error(([1, 2],) * 3, ([1, 2],) * 3)
    constant = ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [0.1, 0.2, 0.3])
    assert np.isnan(disentanglement_error(constant, constant))
    with pytest.raises(DataError, match="share between 0 and 1"):
        Relabelled(HeldOutUsers(), 1.5)
