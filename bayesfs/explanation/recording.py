"""Explain every query video of a run's tasks, for its report: `record_explanations`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from bayesfs.decisions.queries import judged
from bayesfs.decisions.rules import Rules
from bayesfs.decisions.words import word_frequencies
from bayesfs.diagnostics.verdicts import SHARE_ERROR_MAX
from bayesfs.explanation.advice import matters, settled
from bayesfs.explanation.evidence import gather
from bayesfs.explanation.explain import explain_all
from bayesfs.explanation.explanation import Explanation
from bayesfs.explanation.record import ExplanationRecord, SaidOften, Statement
from bayesfs.explanation.sentences import advice_text
from bayesfs.protocols import Decomposition, Hierarchical
from bayesfs.study import SPARE, Answer, Learnt
from bayesfs.uncertainty.by_level import POPULATION_DRAWS, by_level
from bayesfs.uncertainty.decompositions import LEVEL, level_of
from bayesfs.uncertainty.parts import ALL_PARTS, told_apart

PILOT_DRAWS = 64
"""Draws of the population that say how many the levels' shares ask for."""

MOST_TASKS = 64
"""A run explains so many tasks at most, some seconds each; `bayesfs explain` explains any."""


def record_explanations(
    answer: Answer, learnt: Learnt, rules: Rules | None, *, seed: int
) -> ExplanationRecord:
    """Explain every query video of an answer.

    Args:
        answer: about the tasks, at the number of support videos to explain.
        learnt: what they were inferred with.
        rules: thresholds learnt on train users.
        seed: of the draws behind levels, causes and gain.
    """
    evidence = gather(
        answer.model,
        learnt.population,
        answer.episodes,
        answer.predictive,
        level=_settled_level(answer, learnt, seed=seed),
        seed=seed,
    )
    found = explain_all(evidence, rules=rules)
    said = {
        (answer.episodes.task_name(t), e.video): Statement(e.sentence(), _levels(e))
        for t, explanations in enumerate(found)
        for e in explanations
    }
    advice = list(_advice(answer, found))
    errors = {} if evidence.levels is None else _level_errors(evidence.levels)
    return ExplanationRecord(said, advice, errors, words_of(answer, rules))


def words_of(answer: Answer, rules: Rules | None) -> tuple[SaidOften, ...]:
    """How often what is said came true, where labels and what it meant are known."""
    if rules is None or not rules.meant or not (answer.episodes.query_labels >= 0).any():
        return ()
    queries = judged(answer.predictive, answer.episodes, "video")
    return tuple(
        SaidOften(word, one.said, one.true, rules.meant[word])
        for word, one in word_frequencies(queries, rules.video).items()
        if word in rules.meant
    )


def _settled_level(answer: Answer, learnt: Learnt, *, seed: int) -> Decomposition:
    """The levels, from as many draws as their shares ask for, by the errors of a few."""
    model, population = answer.model, learnt.population
    if not isinstance(model, Hierarchical):
        return LEVEL
    few = by_level(model, population, answer.episodes, population_draws=PILOT_DRAWS, seed=seed)
    worst = max((share for _, share in _level_errors(few).values()), default=0.0)
    draws = int(SPARE * PILOT_DRAWS * (worst / SHARE_ERROR_MAX) ** 2) + 1
    return level_of(max(POPULATION_DRAWS, min(draws, population.num_draws)))


def _level_errors(levels: xr.Dataset) -> dict[str, tuple[float, float]]:
    errors = {
        part: (float(levels[f"video_{part}_mean_se"]), float(levels[f"video_{part}_share_se"]))
        for part in told_apart(levels)
    }
    return {part: error for part, error in errors.items() if np.isfinite(error).all()}


def _levels(explanation: Explanation) -> dict[str, float]:
    parts = explanation.parts
    return {part: parts[part] for part in ALL_PARTS if part in parts}


def _advice(
    answer: Answer, found: Sequence[Sequence[Explanation]]
) -> Iterator[tuple[str, str, float | None]]:
    """For each task the recording that is worth most, or that no more is needed.

    None where every recording is expected to do harm and it is not known that it would be little.
    """
    for t, explanations in enumerate(found):
        gain = explanations[0].gain if explanations else {}
        if not gain:
            continue
        (thing, condition), nats = max(gain.items(), key=lambda item: item[1])
        action = "enough" if settled(explanations[0]) else "record"
        if action == "record" and not nats > 0.0:
            continue
        reason = condition if matters(gain, thing) else ""
        names = {"name": thing}
        levels = answer.episodes.levels
        text = advice_text(action, reason=reason, names=names, levels=levels)
        yield answer.episodes.task_name(t), text, nats
