"""Which frames are used: as many as asked for, evenly over time."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesfs.data.padding import rows_of_frames
from bayesfs.errors import DataError
from bayesfs.features.decoding.sampling import Sampling, Spread

gaps = st.lists(st.floats(1e-3, 5.0), min_size=1, max_size=60)


@given(st.integers(1, 5000), st.integers(1, 40), st.integers(1, 300) | st.none())
def test_at_a_constant_rate_the_steps_are_equal(frames: int, every: int, most: int | None) -> None:
    picks = Sampling(every=every, max_frames=most).select(np.arange(frames) / 30.0).tolist()
    step = max(every, frames / most) if most else every
    assert picks[0] == 0
    assert picks[-1] < frames
    assert all(b > a for a, b in pairwise(picks))
    late = np.array(picks) - (np.arange(len(picks)) * step - 0.1)
    assert (late > -1e-6).all()
    assert (late < 1 + 1e-6).all()
    assert len(picks) == min(math.ceil(frames / every), most or frames)


@given(gaps, st.integers(1, 70))
def test_as_many_as_there_are_and_spread_over_the_time(gap: list[float], most: int) -> None:
    seconds = np.cumsum([0.0, *gap])
    picks = Sampling(max_frames=most).select(seconds)
    assert len(picks) == min(most, len(seconds))
    assert (np.diff(picks) > 0).all()
    assert picks[0] == 0
    step = float(np.median(np.diff(seconds)))
    for k, pick in enumerate(picks.tolist()):  # none is late but where there is nothing earlier
        target = k * (seconds[-1] + step) / most
        earlier = seconds[(picks[k - 1] + 1 if k else 0) : pick]
        assert (earlier < target).all()


@given(gaps, st.floats(0.1, 50.0))
def test_frames_a_second_are_the_first_of_each_interval(gap: list[float], fps: float) -> None:
    seconds = np.cumsum([0.0, *gap])
    early = 0.1 * float(np.median(gap))
    want, cell = [], -1
    for n, t in enumerate(seconds.tolist()):
        if math.floor((t + early) * fps) > cell:
            cell = math.floor((t + early) * fps)
            want.append(n)
    assert Sampling(fps=fps).select(seconds).tolist() == want


def test_stamps_rounded_to_milliseconds_change_next_to_nothing() -> None:
    exact = np.arange(900) / 29.97
    for sampling in (Sampling(fps=7), Sampling(max_frames=8), Sampling(max_frames=91)):
        want, got = sampling.select(exact), sampling.select(np.round(exact, 3))
        assert len(want) == len(got)
        assert (want == got).mean() > 0.95
        assert np.abs(want - got).max() <= 1


def test_a_burst_of_frames_does_not_count_for_more() -> None:
    """Ten frames in the first second, then one a second: fps and max_frames go by time."""
    seconds = np.concatenate([np.arange(10) / 10, np.arange(1, 11)])
    assert Sampling(fps=1).select(seconds).tolist() == [0, *range(10, 20)]
    assert Sampling(max_frames=5).select(seconds).tolist()[:4] == [0, 12, 14, 16]


def test_no_frame_and_one() -> None:
    assert Sampling(max_frames=3).select(np.zeros(0)).tolist() == []
    assert Sampling(fps=3).select(np.zeros(1)).tolist() == [0]
    assert Sampling(max_frames=2).select(np.zeros(5)).tolist() == [0, 1]


@pytest.mark.parametrize("wrong", [{"every": 0}, {"fps": -1.0}, {"fps": 0.0}, {"max_frames": 0}])
def test_impossible_sampling(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="positive"):
        Sampling(**wrong)
    with pytest.raises(DataError, match="not both"):
        Sampling(every=2, fps=3)


@given(st.integers(1, 200), st.integers(1, 40) | st.none(), st.integers(1, 12))
def test_a_spread_is_what_an_episode_takes_of_a_sampling(
    frames: int, most: int | None, count: int
) -> None:
    seconds = np.arange(frames) / 30.0
    sampling = Sampling(max_frames=most)
    stored = sampling.select(seconds)
    nought = np.zeros(1, np.int64)
    *_, rows = rows_of_frames(nought, np.array([len(stored)]), None, nought, count)
    assert Spread.of(sampling, count).select(seconds).tolist() == stored[rows].tolist()
    assert Spread.of(sampling, None).select(seconds).tolist() == stored.tolist()
