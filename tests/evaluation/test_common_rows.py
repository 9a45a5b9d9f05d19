"""What runs of different episodes share: the same videos of the same people, frame by frame."""

import pandas as pd
import pytest

from bayesfs.errors import DataError
from bayesfs.evaluation.common_rows import common_rows
from bayesfs.evaluation.comparison import compare_scores


def rows(people: dict[str, int], frames: int = 2, seed: int = 0, repeats: int = 1) -> dict:
    lines = [
        (user, f"{user}#{r}", f"{user}/mug", f"{user}-{v}", f, (v + f + r) % 3, 0.1 * v + seed)
        for user, videos in people.items()
        for r in range(repeats)
        for v in range(videos)
        for f in range(frames)
    ]
    columns = ["user", "task", "object", "video", "frame", "label", "nll"]
    table = pd.DataFrame(lines, columns=columns)
    table = table.assign(correct=True, confidence=0.5, brier=0.1)
    return {"frame": table, "video": table[table["frame"] == 0]}


def test_videos_of_the_people_whom_all_share_are_left() -> None:
    found, said = common_rows({"a": rows({"u": 3, "v": 2}), "b": rows({"v": 3, "w": 1}, seed=1)})
    for parts in found.values():
        assert sorted(set(parts["video"]["video"])) == ["v-0", "v-1"]
        assert len(parts["frame"]) == 4
    assert "compared on 2 videos (of up to 5) of 1 people (of 3)" in said
    pairs = compare_scores(found, ("nll",))
    assert all(pair.gap.overall.estimate == pytest.approx(1.0) for pair in pairs)


def test_a_video_with_other_frames_is_another_matter() -> None:
    with pytest.raises(DataError, match="with the same frames, got none"):
        common_rows({"a": rows({"u": 3}), "b": rows({"u": 3}, frames=3)})


def test_a_video_that_is_asked_about_twice_counts_twice_where_all_asked_twice() -> None:
    found, said = common_rows({"a": rows({"u": 2}, repeats=2), "b": rows({"u": 2}, repeats=3)})
    assert {len(parts["video"]) for parts in found.values()} == {4}
    assert "on 4 videos" in said
