"""What a run tells of its videos, kept for the report: sentences, levels, and what to record next.

`tell` explains every query video of a run's tasks; `Told` is what the report shows of it, plain
text and numbers, so that a report runs no recipe.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bayesfs.data.kept import kept_json
from bayesfs.deciding import Rules
from bayesfs.evaluation.report_view import Advice, Said
from bayesfs.explain import ENOUGH, Explanation, explain
from bayesfs.levels import PARTS
from bayesfs.study import Answer, Learnt
from bayesfs.wording import advice_text

MOST_TASKS = 64
"""A run explains so many tasks at most, some seconds each; `bayesfs explain` explains any."""


@dataclass(frozen=True)
class Told:
    """Explanations of a run's videos.

    Attributes:
        said: (task, video) -> sentence, and nats by level where the model knows its levels.
        advice: (task, sentence, expected gain in nats per query) of what to record next.
    """

    said: Mapping[tuple[str, str], Said]
    advice: Sequence[tuple[str, str, float | None]]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        said = [[*key, asdict(one)] for key, one in self.said.items()]
        found = {"said": said, "advice": self.advice}
        path.write_text(json.dumps(found, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Told:
        """Read what `save` wrote; what an earlier layout holds is not told.

        Raises:
            DataError: the file is not that.
        """
        with kept_json(path) as found:
            if "causes" in found:  # of a run made before 27 November 2026, keyed by video alone
                return cls({}, [])
            return cls(
                said={
                    (str(task), str(video)): Said(
                        str(one["text"]), {str(k): float(x) for k, x in one["levels"].items()}
                    )
                    for task, video, one in found["said"]
                },
                advice=[
                    (str(task), str(text), None if gain is None else float(gain))
                    for task, text, gain in found["advice"]
                ],
            )

    def report_advice(self) -> list[Advice]:
        """The advice as the report takes it."""
        return [
            Advice(task, text, math.nan if gain is None else gain)
            for task, text, gain in self.advice
        ]


def tell(answer: Answer, learnt: Learnt, rules: Rules | None, *, seed: int) -> Told:
    """Explain every query video of an answer.

    Args:
        answer: about the tasks, at the number of support videos to explain.
        learnt: what they were inferred with.
        rules: thresholds learnt on train users.
        seed: of the draws behind levels, causes and gain.
    """
    found = explain(
        answer.model,
        learnt.population,
        answer.episodes,
        answer.predictive,
        rules=rules,
        seed=seed,
    )
    said = {
        (answer.episodes.task_name(t), e.video): Said(e.sentence(), _levels(e))
        for t, explanations in enumerate(found)
        for e in explanations
    }
    return Told(said=said, advice=list(_advice(answer, found)))


def _levels(explanation: Explanation) -> dict[str, float]:
    parts = explanation.parts
    return {part: parts[part] for part in PARTS if part in parts}


def _advice(
    answer: Answer, found: Sequence[Sequence[Explanation]]
) -> Iterator[tuple[str, str, float | None]]:
    """For each task the recording that is worth most, or that no more is needed."""
    for t, explanations in enumerate(found):
        gain = explanations[0].gain if explanations else {}
        if not gain:
            continue
        (thing, condition), nats = max(gain.items(), key=lambda item: item[1])
        action = "record" if nats >= ENOUGH else "enough"
        text = advice_text(action, reason=condition, names={"name": thing})
        yield answer.episodes.task_name(t), text, nats
