"""What `bayesfs export` wrote, run: NumPy and onnxruntime are all that this file needs.

    python recognise.py FRAMES.npy      # (frame, px, px, 3) uint8 RGB, squares of the side wanted

or, from a program,

    taught = TaughtObjects("folder")
    answer = taught(frames)
    answer.prob, answer.in_set, answer.aleatoric, answer.epistemic
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SHARE = 0.9
"""Probability that the named objects have together, where no threshold was learnt."""


class Recognised(NamedTuple):
    """What a video shows.

    Attributes:
        prob: object -> probability.
        in_set: the objects that it may show, likeliest first.
        aleatoric: nats that filming it again or better would lower.
        epistemic: nats that more examples would lower.
    """

    prob: dict[str, float]
    in_set: tuple[str, ...]
    aleatoric: float
    epistemic: float


class TaughtObjects:
    """Objects that a person taught; call it with the frames of a video.

    Args:
        folder: that `bayesfs export` wrote.
    """

    def __init__(self, folder: str | Path) -> None:
        onnxruntime: Any = importlib.import_module("onnxruntime")

        place = Path(folder)
        header: dict[str, Any] = json.loads((place / "taught.json").read_text(encoding="utf-8"))
        self.classes: tuple[str, ...] = tuple(header["classes"])
        self.px, self.frames = int(header["px"]), int(header["frames"])
        self.least_in_set: float | None = header["least_in_set"]
        self._place, self._options = place, onnxruntime.SessionOptions()
        # a third less memory
        self._options.enable_cpu_mem_arena = self._options.enable_mem_pattern = False
        self._open = onnxruntime.InferenceSession
        self._backbone = self._opened("backbone")
        self._heads: dict[int, Any] = {}

    def __call__(self, frames: np.ndarray[Any, Any]) -> Recognised:
        """(frame, px, px, 3) uint8 RGB frames of one video, of which some evenly spread count."""
        shape = (self.px, self.px, 3)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != shape:
            raise ValueError(f"expected uint8 (frame, *{shape}), got {frames.dtype} {frames.shape}")
        if not len(frames):
            raise ValueError("expected at least one frame, got none")
        count = min(len(frames), self.frames)
        images = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
        if count not in self._heads:
            self._heads[count] = self._opened(f"head-{count}")
        (features,) = self._backbone.run(None, {"images": images})
        prob, aleatoric, epistemic = self._heads[count].run(None, {"features": features})
        prob = prob[: len(self.classes)]
        order = np.argsort(-prob, kind="stable")
        if self.least_in_set is None:
            needed = 1 + int(np.searchsorted(np.cumsum(prob[order]), SHARE * prob.sum() - 1e-12))
        else:
            needed = max(1, int((prob >= self.least_in_set).sum()))
        return Recognised(
            {self.classes[i]: float(prob[i]) for i in order},
            tuple(self.classes[i] for i in order[:needed]),
            float(aleatoric),
            float(epistemic),
        )

    def _opened(self, name: str) -> Any:
        return self._open(str(self._place / f"{name}.onnx"), self._options)


def _main() -> None:
    """Recognised for the frames in a .npy file."""
    found = TaughtObjects(Path(__file__).parent)(np.load(sys.argv[1], allow_pickle=False))
    print(
        f"{', '.join(found.in_set)}; "
        + ", ".join(f"{name} {p:.3f}" for name, p in found.prob.items())
        + f"; aleatoric {found.aleatoric:.3f}, epistemic {found.epistemic:.3f} nats"
    )


if __name__ == "__main__":
    _main()
