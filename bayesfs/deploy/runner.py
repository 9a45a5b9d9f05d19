"""What `bayesfs export` wrote, run: NumPy and onnxruntime are all that this file needs.

    python recognise.py FRAMES.npy      # (frame, px, px, 3) uint8 RGB, squares of the side wanted

or, from a program,

    taught = TaughtObjects("folder")
    answer = taught(frames)
    answer.prob, answer.in_set, answer.aleatoric, answer.epistemic, answer.typical
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

REJECTED = 0.05
"""p-value below which none of the objects is named, where no threshold was learnt."""


class Recognised(NamedTuple):
    """What a video shows.

    Attributes:
        prob: object -> probability.
        in_set: the objects that it may show, likeliest first.
        aleatoric: nats that filming it again or better would lower.
        epistemic: nats that more examples would lower.
        typical: p-value of being like what was taught, below .05 for one taught video in twenty.
    """

    prob: dict[str, float]
    in_set: tuple[str, ...]
    aleatoric: float
    epistemic: float
    typical: float


class TaughtObjects:
    """Objects that a person taught; call it with the frames of a video.

    Args:
        folder: that `bayesfs export` wrote.
    """

    def __init__(self, folder: str | Path) -> None:
        onnxruntime: Any = importlib.import_module("onnxruntime")

        place = Path(folder)
        self.header: dict[str, Any] = json.loads((place / "taught.json").read_text("utf-8"))
        self.classes: tuple[str, ...] = tuple(self.header["classes"])
        self.px, self.frames = int(self.header["px"]), int(self.header["frames"])
        rules = self.header["rules"]
        self.least_in_set: float | None = None if rules is None else rules["video"]["least_in_set"]
        self.rejected: float = REJECTED if rules is None else rules["rejected"]
        self._place, self._options = place, onnxruntime.SessionOptions()
        # a third less memory
        self._options.enable_cpu_mem_arena = self._options.enable_mem_pattern = False
        self._open = onnxruntime.InferenceSession
        self._sessions: dict[str, Any] = {}

    def __call__(self, frames: np.ndarray[Any, Any]) -> Recognised:
        """(frame, px, px, 3) uint8 RGB frames of one video, of which some evenly spread count."""
        count = min(len(frames), self.frames)
        chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
        return self.recognised(self.features(frames[chosen] if count else frames))

    def features(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(frame, px, px, 3) uint8 RGB -> (frame, feature)."""
        shape = (self.px, self.px, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
            raise ValueError(f"expected uint8 (frame, *{shape}), got {images.dtype} {images.shape}")
        if not len(images):
            raise ValueError("expected at least one frame, got none")
        return np.asarray(self._opened("backbone").run(None, {"images": images})[0])

    def recognised(self, features: np.ndarray[Any, Any]) -> Recognised:
        """What (frame, feature) features of one video show, of at most `self.frames` frames."""
        prob, aleatoric, epistemic, typical = self._asked("head", features)
        prob = prob[: len(self.classes)]
        order = np.argsort(-prob, kind="stable")
        if typical < self.rejected:
            needed = 0
        elif self.least_in_set is None:
            needed = 1 + int(np.searchsorted(np.cumsum(prob[order]), SHARE * prob.sum() - 1e-12))
        else:
            needed = max(1, int((prob >= self.least_in_set).sum()))
        return Recognised(
            {self.classes[i]: float(prob[i]) for i in order},
            tuple(self.classes[i] for i in order[:needed]),
            float(aleatoric),
            float(epistemic),
            float(typical),
        )

    def gain(self, features: np.ndarray[Any, Any]) -> dict[str, float]:
        """Object -> nats that one more video of it would tell of a video of these features."""
        (found,) = self._asked("gain", features)
        return dict(zip(self.classes, found.tolist(), strict=False))

    def _asked(self, name: str, features: np.ndarray[Any, Any]) -> Any:
        padded = np.zeros((self.frames, features.shape[1]), np.float32)
        padded[: len(features)] = features
        mask = np.arange(self.frames) < len(features)
        return self._opened(name).run(None, {"features": padded, "mask": mask})

    def _opened(self, name: str) -> Any:
        if name not in self._sessions:
            path = str(self._place / f"{name}.onnx")
            self._sessions[name] = self._open(path, self._options)
        return self._sessions[name]


def _main() -> None:
    """Recognised for the frames in a .npy file."""
    found = TaughtObjects(Path(__file__).parent)(np.load(sys.argv[1], allow_pickle=False))
    print(
        f"{', '.join(found.in_set) or 'none of these'}; "
        + ", ".join(f"{name} {p:.3f}" for name, p in found.prob.items())
        + f"; aleatoric {found.aleatoric:.3f}, epistemic {found.epistemic:.3f} nats"
    )


if __name__ == "__main__":
    _main()
