"""What a run tells of its videos, kept for the report: sentences, levels, and what to record next.

`ExplanationRecord` is plain text and numbers, so that a report runs no recipe;
`bayesfs.explanation.recording` makes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bayesfs._utils.json_files import read_json


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
