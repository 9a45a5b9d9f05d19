"""Rules of decision of a run: learnt on its train users, and checked user by user: `rules_at`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
from torch import Tensor

from bayesfs._utils.json_files import read_json
from bayesfs._utils.progress import terminal_safe
from bayesfs.decisions.checks import check_left_out, check_rules, check_words
from bayesfs.decisions.queries import Judged, Unit, judged
from bayesfs.decisions.rules import Rules, between, learn_rules
from bayesfs.decisions.words import word_frequencies
from bayesfs.errors import RunError
from bayesfs.protocols import OpenSet
from bayesfs.runs.directory import RunDirectory
from bayesfs.study import Answer, Learnt, Seeds, Study
from bayesfs.types import Embeddings
from bayesfs.uncertainty.by_quality import absent_probability


def rules_at(
    run: RunDirectory,
    study: Study,
    learnt: Learnt,
    embeddings: Embeddings,
    shots: int,
    *,
    seeds: Seeds,
) -> Rules | None:
    """Thresholds at a number of support videos, as the run keeps them or learnt on its train users.

    Nothing is written. None where the evaluation has no tasks of train users.
    """
    if (kept := run.kept(_name(shots))) is not None:
        return load_rules(kept)
    tasks = study.train_tasks(embeddings, learnt, seed=seeds.episodes)
    if tasks is None:
        return None
    return rules_of(study.infer(tasks.limit_shots(shots), learnt, seed=seeds.fit), learnt)


def rules_for(run: RunDirectory, shots: float) -> Rules | None:
    """The thresholds for a number of support videos an object, between those that the run keeps.

    Linear in 1 / shots, as the part of the doubt that videos take away is; the nearest ones beyond
    the least and the largest number. None where the run keeps none.
    """
    names = sorted(name for name in run.state()["files"] if name.startswith("rules-"))
    kept = [load_rules(path) for name in names if (path := run.kept(name)) is not None]
    return between(sorted(kept, key=lambda rules: rules.shots), shots) if kept else None


def keep_rules(
    run: RunDirectory, study: Study, learnt: Learnt, embeddings: Embeddings, *, seeds: Seeds
) -> dict[int, Rules]:
    """Number of support videos -> thresholds, kept in a run that is being written.

    A person is taught by as many videos as there are: see `rules_for`. What the run keeps already
    is not learnt again. Empty where the evaluation has no tasks of train users.
    """
    found: dict[int, Rules] = {}
    if (tasks := study.train_tasks(embeddings, learnt, seed=seeds.episodes)) is None:
        return found
    for shots in study.evaluation.shots:
        if shots < 1:  # nothing of a person's own to be unsure about
            continue
        if (kept := run.kept(_name(shots))) is not None:
            found[shots] = load_rules(kept)
            continue
        answer = study.infer(tasks.limit_shots(shots), learnt, seed=seeds.fit)
        found[shots] = rules_of(answer, learnt)
        run.keep(_name(shots), partial(_save, found[shots]))
    return found


def _save(rules: Rules, path: Path) -> None:
    text = json.dumps(rules.to_dict(), indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _name(shots: int) -> str:
    return f"rules-{shots:02d}.json"


def load_rules(path: Path) -> Rules:
    """Rules that a run keeps.

    Raises:
        DataError: the file does not hold rules.
    """
    with read_json(path) as found:
        return Rules.from_dict(found)


def rules_of(answer: Answer, learnt: Learnt) -> Rules:
    """Thresholds from what was said of train users' tasks."""
    absent = absent_of(answer, learnt)
    rules = learn_rules(answer.predictive, answer.episodes, absent=absent)
    known = word_frequencies(_judged(answer, learnt, "video"), rules.video)
    return replace(rules, meant={word: one.true for word, one in known.items()})


def absent_of(answer: Answer, learnt: Learnt) -> Tensor | None:
    """(task, video) probability that nothing taught is shown, as `absent_probability` has it."""
    if not isinstance(answer.model, OpenSet):
        return None
    return absent_probability(answer.model, learnt.population, answer.episodes)[1]


def check_users(
    rules: Rules | None,
    study: Study,
    learnt: Learnt,
    embeddings: Embeddings,
    shots: int,
    *,
    seeds: Seeds,
) -> Iterator[str]:
    """Tables of what the rules do for each user: train users by the others' rules, then test users.

    Sets are beside plain ones, the likeliest classes up to a probability of `Rules.level`. Last,
    how often what is said of videos comes true for test users, and did for train users.

    Args:
        rules: from `rules_at`.
        study: that they are of.
        learnt: by it.
        embeddings: its frames.
        shots: number of support videos per object.
        seeds: of its tasks and of the inference.

    Raises:
        RunError: the evaluation has no tasks of train users, or there is one train user only.
    """
    tasks = study.train_tasks(embeddings, learnt, seed=seeds.episodes)
    if tasks is None or rules is None or rules.users < 2:
        found = 0 if rules is None else rules.users
        raise RunError(f"rules are checked on two train users or more, the run has {found}")
    train = tasks.limit_shots(shots)
    test = study.tasks(embeddings, learnt, seed=seeds.episodes).limit_shots(shots)
    answers = {
        "train users, each by rules learnt on the others": study.infer(
            train, learnt, seed=seeds.fit
        ),
        "test users": study.infer(test, learnt, seed=seeds.fit),
    }
    for whose, answer in answers.items():
        for unit in ("video", "frame"):
            table = _table(answer, learnt, rules, unit, left_out=answer.episodes is train)
            yield f"{unit}s of {whose}, {shots} video{'s' if shots > 1 else ''} per object:"
            yield table.round(2).to_string(index=False, formatters={"user": terminal_safe})
    known, asked = (_judged(answer, learnt, "video") for answer in answers.values())
    yield "what is said of test users' videos, how often it comes true, and did for train users:"
    yield check_words(asked, known, rules.video).round(2).to_string(index=False)


def _table(
    answer: Answer, learnt: Learnt, rules: Rules, unit: Unit, *, left_out: bool
) -> pd.DataFrame:
    queries = _judged(answer, learnt, unit)
    if left_out:
        wanted = {"level": rules.level, "risk": rules.risk, "rejected": rules.rejected}
        return check_left_out(queries, **wanted)
    return check_rules(queries, getattr(rules, unit), rules.level)


def _judged(answer: Answer, learnt: Learnt, unit: Unit) -> Judged:
    return judged(answer.predictive, answer.episodes, unit, absent_of(answer, learnt))
