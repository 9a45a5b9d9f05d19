"""What is said of one video: `Explanation`, with its `Advice`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bayesfs.explanation.framing import Framing
from bayesfs.explanation.sentences import advice_text, answer_text
from bayesfs.types.level_names import VIDEOS, LevelNames

Action = Literal[
    "nothing", "enough", "record it", "steadier", "more light", "less light", "show", "other side",
    "teach", "turn", "one at a time",
]  # fmt: skip


@dataclass(frozen=True)
class Advice:
    """The one thing to do.

    Attributes:
        action: "nothing" needs no words, "record it" is to record what the video shows once more,
            "teach" what was not recognised, as it is, "enough" says that more teaching would hardly
            help.
        reason: the cause that it mends, the condition to record in, or the side to turn to;
            "" where there is none.
        thing: object to turn to, or "".
        nats: what it is expected to take off: per query for "enough", per frame for a measured
            cause, of this video for what else is to be done; NaN where that is not known.
    """

    action: Action
    reason: str = ""
    thing: str = ""
    nats: float = math.nan


@dataclass(frozen=True)
class Explanation:
    """One query video, explained.

    Attributes:
        video: its name.
        answer: objects that it may show, likeliest first; empty where that is none of them.
        prob: object -> probability.
        absent: probability that nothing taught is shown; NaN where the model does not know.
        typical: p-value of being like what was taught, below .05 for one taught video in twenty;
            NaN where the model does not know.
        kind: "aleatoric" or "epistemic", whichever part is larger.
        level: the level of the hierarchy that adds most; "" where levels are not known.
        parts: "total", "aleatoric", "epistemic" and each level -> nats, of the whole video.
        causes: measured cause -> nats per frame that it costs, costliest first; NaN where the
            model does not know what it costs.
        confusable: the likeliest wrong object, or "".
        gain: (object, condition) -> expected fall in nats per query after one more such video.
        own_gain: the same for this video.
        advice: what to do.
        round_most: nats that one more video of every object takes off a query at most, nine times
            out of ten; NaN where that is not known.
        levels: what the data call the levels.
        framing: what windows of the frames show that the whole does not; None where that is
            nothing, or they were not looked at.
    """

    video: str
    answer: tuple[str, ...]
    prob: Mapping[str, float]
    absent: float
    typical: float
    kind: Literal["aleatoric", "epistemic"]
    level: str
    parts: Mapping[str, float]
    causes: Mapping[str, float]
    confusable: str
    gain: Mapping[tuple[str, str], float]
    own_gain: Mapping[tuple[str, str], float]
    advice: Advice
    round_most: float = math.nan
    levels: LevelNames = VIDEOS
    framing: Framing | None = None

    def sentence(self, language: str | None = None) -> str:
        """What is said, such as "May be wrong: keys or wallet. It is dark; use more light".

        Args:
            language: such as "de"; that of the environment by default.
        """
        only = next(iter(self.prob)) if len(self.prob) == 1 else ""
        said = answer_text(
            self.answer, none=not self.answer, only=only, language=language, levels=self.levels
        )
        sure = len(self.answer) == 1
        advice = self.advice
        if sure and advice.action == "enough":
            return said
        first, second = self.answer[0] if self.answer else "", self.confusable
        if advice.action == "one at a time" and self.framing is not None:
            first, second = self.framing.things[:2]
        names = {"name": advice.thing, "first": first, "second": second}
        done = advice_text(
            advice.action, reason=advice.reason, names=names, language=language, levels=self.levels
        )
        return f"{said} {done}".strip()
