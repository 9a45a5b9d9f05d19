"""What a run tells of its videos, kept for the report: sentences, levels, and what to record next.

`record_explanations` explains every query video of a run's tasks; `ExplanationRecord` is what the
report shows of it, plain text and numbers, so that a report runs no recipe.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from bayesfs._utils.json_files import read_json
from bayesfs.decisions.queries import judged
from bayesfs.decisions.rules import Rules
from bayesfs.decisions.words import word_frequencies
from bayesfs.diagnostics.verdicts import SHARE_ERROR_MAX
from bayesfs.explanation.advice import matters, settled
from bayesfs.explanation.evidence import Evidence, gather
from bayesfs.explanation.explain import explain_all
from bayesfs.explanation.explanation import Explanation
from bayesfs.explanation.sentences import advice_text
from bayesfs.study import SPARE, Answer, Learnt
from bayesfs.uncertainty.by_level import ALL_PARTS, POPULATION_DRAWS, agreeing, by_level, told_apart
from bayesfs.uncertainty.decompose import decompose


@dataclass(frozen=True)
class NextRecording:
    """What to record next.

    Attributes:
        task: name of the task (the person).
        text: what to do, in a sentence.
        gain: expected drop of the uncertainty in nats, nan where it is not known.
    """

    task: str
    text: str
    gain: float = math.nan


@dataclass(frozen=True)
class Statement:
    """What a run says of one query video of one task, from `bayesfs.explain`.

    Attributes:
        text: the sentence for the person.
        levels: level of the hierarchy, such as "class", "video" or "frame" -> its share of the
            video's uncertainty, in nats, in the order to show; empty where that is not known.
    """

    text: str
    levels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SaidOften:
    """How often a kind of sentence was said of a run's labelled videos, and came true.

    Attributes:
        sentence: see `bayesfs.decisions.words`.
        said: number of videos.
        came_true: share of them for which it did, by Laplace's rule, each person counting alike.
        meant: the same for the people whom the rules of decision were learnt on.
    """

    sentence: str
    said: int
    came_true: float
    meant: float


MOST_TASKS = 64
"""A run explains so many tasks at most, some seconds each; `bayesfs explain` explains any."""


@dataclass(frozen=True)
class ExplanationRecord:
    """Explanations of a run's videos.

    Attributes:
        said: (task, video) -> sentence, and nats by level where the model knows its levels.
        advice: (task, sentence, expected gain in nats per query) of what to record next.
        level_errors: level -> Monte Carlo standard errors of its mean over the videos, in nats, and
            of its share of the total.
        words: how often each kind of sentence came true; empty where that is not known.
    """

    said: Mapping[tuple[str, str], Statement]
    advice: Sequence[tuple[str, str, float | None]]
    level_errors: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    words: Sequence[SaidOften] = ()

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        said = [[*key, asdict(one)] for key, one in self.said.items()]
        found = {
            "said": said,
            "advice": self.advice,
            "level_errors": self.level_errors,
            "words": [asdict(one) for one in self.words],
        }
        path.write_text(json.dumps(found, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> ExplanationRecord:
        """Read what `save` wrote; what an earlier layout holds is not told.

        Raises:
            DataError: the file is not that.
        """
        with read_json(path) as found:
            if "causes" in found:  # of a run made before 27 November 2026, keyed by video alone
                return cls({}, [])
            return cls(
                said={
                    (str(task), str(video)): Statement(
                        str(one["text"]), {str(k): float(x) for k, x in one["levels"].items()}
                    )
                    for task, video, one in found["said"]
                },
                advice=[
                    (str(task), str(text), None if gain is None else float(gain))
                    for task, text, gain in found["advice"]
                ],
                level_errors={
                    str(level): (float(nats), float(share))
                    for level, (nats, share) in found.get("level_errors", {}).items()
                },
                words=tuple(
                    SaidOften(
                        str(one["sentence"]),
                        int(one["said"]),
                        float(one["came_true"]),
                        float(one["meant"]),
                    )
                    for one in found.get("words", [])
                ),
            )

    def report_advice(self) -> list[NextRecording]:
        """The advice as the report takes it."""
        return [
            NextRecording(task, text, math.nan if gain is None else gain)
            for task, text, gain in self.advice
        ]


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
        answer.model, learnt.population, answer.episodes, answer.predictive, seed=seed
    )
    evidence = _settled(evidence, answer, learnt, seed=seed)
    found = explain_all(evidence, rules=rules)
    said = {
        (answer.episodes.task_name(t), e.video): Statement(e.sentence(), _levels(e))
        for t, explanations in enumerate(found)
        for e in explanations
    }
    advice, errors = list(_advice(answer, found)), _level_errors(evidence)
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


def _settled(evidence: Evidence, answer: Answer, learnt: Learnt, *, seed: int) -> Evidence:
    """The evidence, its levels from as many draws as their shares ask for, where there are such."""
    worst = max((share for _, share in _level_errors(evidence).values()), default=0.0)
    if worst <= SHARE_ERROR_MAX:
        return evidence
    draws = int(SPARE * POPULATION_DRAWS * (worst / SHARE_ERROR_MAX) ** 2) + 1
    draws = min(draws, learnt.population.num_draws)
    model, episodes, population = answer.model, answer.episodes, learnt.population
    levels = by_level(model, population, episodes, population_draws=draws, seed=seed)
    return replace(evidence, levels=agreeing(levels, decompose(answer.predictive, episodes)))


def _level_errors(evidence: Evidence) -> dict[str, tuple[float, float]]:
    if (levels := evidence.levels) is None:
        return {}
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
