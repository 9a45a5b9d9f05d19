"""One step at a time for the camera, while it is held: `camera_step`; light and focus: `defect_of`.

A sentence after the recording says only what its frames prove (`bayesfs.explanation.framing`). A
step while the camera is held is cheap and is seen to help or not at once, so that it may be tried
on less: it is the first of these that is the case.

- Light: the frames are darker than `DARK` of what was taught, or more of their pixels are blown out
  by `BLOWN`: more light, less light.
- Blur: the focus, which light and contrast hardly move, lies `BLURRED` below that of what was
  taught: hold steadier.
- Place: with p the probabilities of the whole frame, and p_w and t_w those of a window and how
  typical it is, the log chance that the window shows the same thing, and something taught,

      a_w = log sum_k p(k) p_w(k) + log t_w,

  is `TURNED` above that of the opposite window: turn the camera there.
- Size: the middle of the frame, enlarged, is not much less typical than the whole: move closer.

Source: Pech-Pacheco et al. (2000) for the variance of the Laplacian; on steps of framing for people
who do not see the picture, Jayant et al. (2011) and Ahmetovic et al. (2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bayesfs.explanation.framing import OPPOSITE, Look, Side
from bayesfs.features.quality import COVARIATES
from bayesfs.features.windows import WHOLE

CameraStep = Literal[
    "", "steadier", "more light", "less light", "closer", "turn left", "turn right", "turn top",
    "turn bottom",
]  # fmt: skip
"""What to do with the camera; "" for nothing that is known to help."""

TURN: Mapping[Side, CameraStep] = {
    "left": "turn left",
    "right": "turn right",
    "top": "turn top",
    "bottom": "turn bottom",
}

Defect = Literal["dark", "bright", "blurred"]

MENDED: Mapping[Defect, CameraStep] = {
    "dark": "more light",
    "bright": "less light",
    "blurred": "steadier",
}

TURNED = 2.2
"""Nats by which a side agrees more than the opposite one before the camera is turned there.

On rendered development people, the NLL of what is cut off or too small after a step is .96 with a
threshold of 1 and a middle that is more typical than the whole, and .76 with these; 1.04 without
a step."""

NEAR = 0.5
"""The middle is at least so much as typical as the whole where coming closer may help."""

DARK = 0.5
"""Share of the mean brightness of what was taught."""

BLOWN = 0.2
"""Share of pixels that are blown out, above that of what was taught."""

BLURRED = 1.25
"""Nats of focus, as `bayesfs.features.quality.quality` has it."""


def camera_step(
    looks: Mapping[str, Look],
    measured: NDArray[np.float32],
    taught: NDArray[np.float32],
) -> CameraStep:
    """What to do next.

    Args:
        looks: `WHOLE` and windows -> what is said of them; windows may be missing.
        measured: (frame, covariate) quality of the latest frames, as
            `bayesfs.features.quality.quality` has it.
        taught: (frame, covariate) of what was taught.
    """
    if defect := defect_of(measured, taught):
        return MENDED[defect]
    side, nats = _side(looks)
    if nats >= TURNED:
        return TURN[side]
    middle, whole = looks.get("middle"), looks[WHOLE]
    return "closer" if middle is not None and middle.typical > NEAR * whole.typical else ""


def defect_of(measured: NDArray[np.float32], taught: NDArray[np.float32]) -> Defect | None:
    """What is wrong with the light or the focus of frames, beside what was taught.

    Args:
        measured: (frame, covariate) quality of the frames.
        taught: (frame, covariate) of what was taught.
    """
    now, usual = (_light_and_focus(q) for q in (measured, taught))
    if now[0] < DARK * usual[0]:
        return "dark"
    if now[1] > usual[1] + BLOWN:
        return "bright"
    return "blurred" if now[2] < usual[2] - BLURRED else None


def _light_and_focus(quality: NDArray[np.float32]) -> tuple[float, float, float]:
    """Mean brightness, share of blown pixels and focus."""
    mean = dict(zip(COVARIATES, quality.astype(float).mean(0), strict=True))
    return mean["brightness"], mean["bright_clipped"], mean["focus"]


def _side(looks: Mapping[str, Look]) -> tuple[Side, float]:
    """Where the same thing as in the whole frame is seen best, and by how many nats."""
    there = [(w, o) for w, o in OPPOSITE.items() if w in looks and o in looks]
    prob = looks[WHOLE].prob
    ahead = {w: looks[w].agrees(prob) - looks[o].agrees(prob) for w, o in there}
    side: Side = max(ahead, key=lambda w: ahead[w], default="left")
    return side, ahead.get(side, -math.inf)
