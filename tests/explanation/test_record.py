"""What a run tells of its videos, kept as plain text and numbers."""

import math

import pytest

from bayesfs import SVI, Exact, GaussianHierarchy, HeldOutUsers, Study
from bayesfs.errors import DataError
from bayesfs.explanation.record import ExplanationRecord, Statement, record_explanations

TOLD = ExplanationRecord(
    said={
        ("U1#1", "v1"): Statement("May be wrong: keys or mug.", {"population": 0.1, "class": 0.2}),
        ("U1#2", "v1"): Statement("Keys."),
    },
    advice=[("U1", "One more video of keys by itself would help.", 0.05), ("U2", "Enough.", None)],
)


def test_it_comes_back_as_it_was_kept(tmp_path) -> None:
    TOLD.save(tmp_path / "told.json")
    assert ExplanationRecord.load(tmp_path / "told.json") == TOLD
    advice = TOLD.report_advice()
    assert advice[0].gain == 0.05
    assert math.isnan(advice[1].gain)


def test_a_video_asked_in_two_tasks_is_told_for_each(make_embeddings) -> None:
    """Two tasks of one user ask about the same videos, and teach with others."""
    frames = make_embeddings()
    evaluation = HeldOutUsers(shots=(1,), episodes_per_user=2)
    study = Study(GaussianHierarchy(), Exact(draws=20), evaluation, SVI(steps=20, draws=4))
    learnt = study.learn(frames, seed=0)
    tasks = study.tasks(frames, learnt, seed=0)
    told = record_explanations(study.infer(tasks, learnt, seed=0), learnt, None, seed=0)
    assert {task for task, _ in told.said} == set(tasks.tasks)
    assert len(told.said) == int(tasks.video_mask.sum()) > len({video for _, video in told.said})


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"said": 1, "advice": []}', '{"said": [], "advice"']
)
def test_a_damaged_file_is_named(tmp_path, text: str) -> None:
    path = tmp_path / "told.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"told\.json: not what bayesfs wrote there"):
        ExplanationRecord.load(path)


def test_what_an_earlier_layout_holds_is_not_told(tmp_path) -> None:
    """Keyed by video alone, it may be of another task: a report is made without it."""
    path = tmp_path / "told.json"
    path.write_text('{"causes": {"v1": "Keys."}, "levels": {}, "advice": []}')
    assert ExplanationRecord.load(path) == ExplanationRecord({}, [])
