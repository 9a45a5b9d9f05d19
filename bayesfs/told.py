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
from bayesfs.evaluation.report_view import Advice
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
        causes: video -> sentence.
        levels: video -> level -> nats; empty where the model does not know its levels.
        advice: (task, sentence, expected gain in nats per query) of what to record next.
    """

    causes: Mapping[str, str]
    levels: Mapping[str, Mapping[str, float]]
    advice: Sequence[tuple[str, str, float | None]]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Told:
        """Read what `save` wrote.

        Raises:
            DataError: the file is not that.
        """
        with kept_json(path) as found:
            return cls(
                causes={str(k): str(v) for k, v in found["causes"].items()},
                levels={
                    str(k): {str(part): float(x) for part, x in v.items()}
                    for k, v in found["levels"].items()
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
    each = [explanation for task in found for explanation in task]
    return Told(
        causes={e.video: e.sentence() for e in each},
        levels={e.video: parts for e in each if (parts := _levels(e))},
        advice=list(_advice(answer, found)),
    )


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
