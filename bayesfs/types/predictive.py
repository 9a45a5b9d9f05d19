"""What is predicted, labels of frames and videos: `Predictive` and its `LabelDraws`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._utils.display import Card, Shown
from bayesfs.errors import ShapeError


@dataclass(frozen=True, repr=False)
class LabelDraws(Shown):
    """Posterior predictive of labels, with the conditional label distribution of each draw.

    For a query x, support D and parameters theta,

        p(y | x, D) = E_{theta | x, D} p(y | x, theta) = sum_s w_s p(y | x, theta_s).

    A generative model learns about theta from x itself, so that a draw theta_s ~ p(theta | D)
    carries the weight w_s proportional to p(x | theta_s); a discriminative model has w_s = 1/S.

    Attributes:
        log_prob: (..., way) log p(y | x, D); -inf for padded classes.
        log_prob_given: (draw, ..., way) log p(y | x, theta_s).
        log_weight: (draw, ...) log w_s; its logsumexp over draw is 0.
    """

    log_prob: Tensor
    log_prob_given: Tensor
    log_weight: Tensor

    def __post_init__(self) -> None:
        if self.log_prob_given.shape[1:] != self.log_prob.shape:
            raise ShapeError(
                f"expected log_prob_given (draw, *{tuple(self.log_prob.shape)}), "
                f"got {tuple(self.log_prob_given.shape)}"
            )
        if self.log_weight.shape != self.log_prob_given.shape[:-1]:
            raise ShapeError(
                f"expected log_weight {tuple(self.log_prob_given.shape[:-1])}, "
                f"got {tuple(self.log_weight.shape)}"
            )

    @property
    def prob(self) -> Tensor:
        """(..., way) p(y | x, D)."""
        return self.log_prob.exp()

    def to(self, device: torch.device | str) -> LabelDraws:
        """The same on another device."""
        held = (self.log_prob, self.log_prob_given, self.log_weight)
        return LabelDraws(*(value.to(device) for value in held))

    def _card(self) -> Card:
        shape = " × ".join(map(str, self.log_prob.shape))
        return Card("LabelDraws", [("query × way", shape), ("draws", len(self.log_weight))])


@dataclass(frozen=True, repr=False)
class Predictive(Shown):
    """Predictive of every query frame and, jointly over its frames, of every query video.

    Attributes:
        frame: LabelDraws over (task, video, frame).
        video: LabelDraws over (task, video); the frames of a video share the video's effect, so
            this is not the product of the frames' predictives.
        absent: (task, video, frame) probability that nothing taught is in the frame, or None
            where the model has no such component.
    """

    frame: LabelDraws
    video: LabelDraws
    absent: Tensor | None = None

    def to(self, device: torch.device | str) -> Predictive:
        """The same on another device."""
        absent = None if self.absent is None else self.absent.to(device)
        return Predictive(self.frame.to(device), self.video.to(device), absent)

    def _card(self) -> Card:
        """The first twenty query videos and their likeliest classes."""
        best = self.video.log_prob.max(-1)
        tasks, videos = best.values.shape
        cells = [(t, v) for t in range(tasks) for v in range(videos)][:20]
        rows = [
            (t, v, int(best.indices[t, v]), f"{float(best.values[t, v].exp()):.2f}")
            for t, v in cells
        ]
        shape = " × ".join(map(str, self.frame.log_prob.shape))
        facts = [("task × video × frame × way", shape), ("draws", len(self.video.log_weight))]
        columns = ("task", "video", "likeliest class", "probability")
        return Card("Predictive", facts, columns, rows)
