"""Rules of decision of a run: learnt on its train users, kept, and checked user by user."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from torch import Tensor

from bayesfs.causes import Attributable, absent_probability
from bayesfs.data.kept import kept_json
from bayesfs.deciding import Rules, Unit, judged, learn_rules
from bayesfs.errors import RunError
from bayesfs.evaluation.rule_checks import check_left_out, check_rules
from bayesfs.progress import terminal_safe
from bayesfs.rundir import RunDirectory
from bayesfs.study import Answer, Learnt, Study
from bayesfs.types import Embeddings


def kept_rules(
    run: RunDirectory, study: Study, learnt: Learnt, embeddings: Embeddings, shots: int
) -> Rules | None:
    """Thresholds learnt on the run's train users, and kept in the run; None where it has none."""
    name = f"rules-{shots:02d}.json"
    if (kept := run.kept(name)) is not None:
        return load_rules(kept)
    if not hasattr(study.evaluation, "calibration_episodes"):
        return None
    seed = run.state()["inputs"]["seed"]
    tasks = study.train_tasks(embeddings, learnt, seed=seed).limit_shots(shots)
    rules = rules_of(study.infer(tasks, learnt, seed=seed), learnt)
    text = json.dumps(rules.to_dict(), indent=2, allow_nan=False) + "\n"
    run.keep(name, lambda path: path.write_text(text, encoding="utf-8"))
    return rules


def load_rules(path: Path) -> Rules:
    """Rules that a run keeps.

    Raises:
        DataError: the file does not hold rules.
    """
    with kept_json(path) as found:
        return Rules.from_dict(found)


def rules_of(answer: Answer, learnt: Learnt) -> Rules:
    """Thresholds from what was said of train users' tasks."""
    absent = absent_of(answer, learnt)
    return learn_rules(answer.predictive, answer.episodes, absent=absent)


def absent_of(answer: Answer, learnt: Learnt) -> Tensor | None:
    """(task, video) probability that nothing taught is shown, as `bayesfs.causes` has it."""
    if not isinstance(answer.model, Attributable):
        return None
    return absent_probability(answer.model, learnt.population, answer.episodes)[1]


def check_users(
    run: RunDirectory, study: Study, learnt: Learnt, embeddings: Embeddings, shots: int
) -> Iterator[str]:
    """Tables of what the rules do for each user: train users by the others' rules, then test users.

    Sets are beside plain ones, the likeliest classes up to a probability of `Rules.level`.

    Raises:
        RunError: the evaluation has no tasks of train users, or there is one train user only.
    """
    rules = kept_rules(run, study, learnt, embeddings, shots)
    if rules is None or rules.users < 2:
        raise RunError(f"{run.path}: rules are checked on two train users or more, it has fewer")
    seed = run.state()["inputs"]["seed"]
    train = study.train_tasks(embeddings, learnt, seed=seed).limit_shots(shots)
    test = study.tasks(embeddings, learnt, seed=seed).limit_shots(shots)
    answers = {
        "train users, each by rules learnt on the others": study.infer(train, learnt, seed=seed),
        "test users": study.infer(test, learnt, seed=seed),
    }
    for whose, answer in answers.items():
        for unit in ("video", "frame"):
            table = _table(answer, learnt, rules, unit, left_out=answer.episodes is train)
            yield f"{unit}s of {whose}, {shots} video{'s' if shots > 1 else ''} per object:"
            yield table.round(2).to_string(index=False, formatters={"user": terminal_safe})


def _table(
    answer: Answer, learnt: Learnt, rules: Rules, unit: Unit, *, left_out: bool
) -> pd.DataFrame:
    absent = absent_of(answer, learnt)
    queries = judged(answer.predictive, answer.episodes, unit, absent)
    if left_out:
        wanted = {"level": rules.level, "risk": rules.risk, "rejected": rules.rejected}
        return check_left_out(queries, **wanted)
    return check_rules(queries, getattr(rules, unit), rules.level)
