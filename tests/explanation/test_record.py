"""What a run tells of its videos, kept as plain text and numbers."""

import math
from dataclasses import replace

import pytest
import torch

from bayesfs import SVI, Exact, GaussianHierarchy, HeldOutUsers, Study
from bayesfs.decisions.checks import check_words
from bayesfs.decisions.queries import judged
from bayesfs.errors import DataError
from bayesfs.explanation import recording
from bayesfs.explanation.evidence import gather
from bayesfs.explanation.record import ExplanationRecord, SaidOften, Statement
from bayesfs.explanation.recording import record_explanations, words_of
from bayesfs.runs.rules import rules_of

TOLD = ExplanationRecord(
    said={
        ("U1#1", "v1"): Statement("May be wrong: keys or mug.", {"population": 0.1, "class": 0.2}),
        ("U1#2", "v1"): Statement("Keys."),
    },
    advice=[("U1", "One more video of keys by itself would help.", 0.05), ("U2", "Enough.", None)],
    words=(SaidOften("probably", 12, 0.93, 0.95),),
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


def test_no_recording_is_advised_that_would_do_harm(make_embeddings, monkeypatch) -> None:
    """Own videos may say so of every object; that more would help little is another matter."""
    frames = make_embeddings()
    study = Study(
        GaussianHierarchy(), Exact(draws=20), HeldOutUsers(shots=(1,)), SVI(steps=20, draws=4)
    )
    learnt = study.learn(frames, seed=0)
    answer = study.infer(study.tasks(frames, learnt, seed=0), learnt, seed=0)

    def advice_where(sign: float, most: float) -> list[str]:
        def known(*given, **options):
            found = gather(*given, **options)
            gain, round_most = sign * found.gain.abs(), torch.full_like(found.round_most, most)
            return replace(found, gain=gain, round_most=round_most)

        monkeypatch.setattr(recording, "gather", known)
        return [text for _, text, _ in record_explanations(answer, learnt, None, seed=0).advice]

    assert advice_where(-1.0, 1.0) == []
    assert len(advice_where(1.0, 1.0)) == len(answer.episodes)
    assert set(advice_where(-1.0, 0.0)) == {"More videos would hardly help."}


def test_words_are_counted_as_the_command_does(make_embeddings) -> None:
    """As `bayesfs explain RUN --rules` ends; nothing is known without rules, or without labels."""
    frames = make_embeddings()
    study = Study(
        GaussianHierarchy(), Exact(draws=20), HeldOutUsers(shots=(1,)), SVI(steps=20, draws=4)
    )
    learnt = study.learn(frames, seed=0)
    train = study.train_tasks(frames, learnt, seed=0)
    assert train is not None
    known, asked = (
        study.infer(t, learnt, seed=0) for t in (train, study.tasks(frames, learnt, seed=0))
    )
    rules = rules_of(known, learnt)
    counted = check_words(
        *(judged(a.predictive, a.episodes, "video") for a in (asked, known)), rules.video
    )
    words = words_of(asked, rules)
    assert [(w.sentence, w.said, w.came_true, w.meant) for w in words] == [
        tuple(row) for row in counted.itertuples(index=False)
    ]
    assert sum(w.said for w in words) == int(asked.episodes.video_mask.sum())
    assert words_of(asked, None) == words_of(asked, replace(rules, meant={})) == ()
    labels = torch.full_like(asked.episodes.query_labels, -1)
    assert (
        words_of(replace(asked, episodes=asked.episodes.changed(query_labels=labels)), rules) == ()
    )


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
