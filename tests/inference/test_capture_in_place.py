"""Changes in place are recorded where nobody else sees them, and refused elsewhere."""

import pytest
import torch

from bayesfs.inference.program.capture import CannotRecord, capture, record


def steps(z):
    """A tensor filled by selections and slices, then masked."""
    p = torch.zeros(2, 3)
    p[..., 0] = z
    p[..., 1:] = z[:, None] * 2
    r = p * 2
    r[r < 0] = -1.0
    return (p.square() + r).sum(-1)


def test_it_replays_what_is_written_into_new_tensors():
    replay = capture(steps, torch.ones(2))
    for seed in range(3):
        z = torch.randn(2, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(replay(z), steps(z))


OUTSIDE = torch.zeros(2)


def outside(z):
    OUTSIDE.copy_(z)
    return OUTSIDE + z


def used_before(z):
    p = torch.ones(2)
    q = p + z
    p.copy_(z)
    return q + p


def stale(z):
    p = torch.zeros(2)
    part = p[:1]
    p.copy_(z)
    return part + z


@pytest.mark.parametrize("function", [outside, used_before, stale])
def test_what_others_may_see_is_not_recorded(function):
    with pytest.raises(CannotRecord):
        record(function, torch.ones(2))
    z = torch.tensor([1.0, -2.0])
    assert torch.equal(capture(function, torch.ones(2))(z), function(z))
