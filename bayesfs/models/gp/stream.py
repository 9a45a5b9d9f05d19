"""Frames as they arrive: `watch` one video, `score_frames` of a long recording.

Both take any iterable (a camera, a decoder, a memory-mapped file) and hold one piece of it at a
time, so that a million frames need no more memory than a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._distributions.categorical import entropy
from bayesfs.errors import ShapeError
from bayesfs.models.gp.likelihood import Fitted
from bayesfs.models.gp.points import Query


@dataclass(frozen=True)
class Glimpse:
    """What is known about a video's class after some of its frames.

    Attributes:
        frames: how many frames have been seen.
        log_prob: (task, way) log p(y | frames so far).
        entropy: (task,) of it, in nats.
    """

    frames: int
    log_prob: Tensor
    entropy: Tensor


@torch.no_grad()
def watch(
    fitted: Fitted, frames: Iterable[Tensor], condition: Tensor, *, window: int = 60
) -> Iterator[Glimpse]:
    """Posterior of a video's class after each new frame, all frames so far jointly.

    Args:
        fitted: tasks conditioned on their support, from `DeepKernelGP.fit`.
        frames: (task, feature) embeddings, one after the other.
        condition: (task,) recording condition of the video.
        window: number of latest frames that are scored jointly; two seconds at 30 per second.

    Yields:
        Glimpse after each frame; the entropies are the video's trace.

    Example:
        >>> for glimpse in watch(fitted, camera, condition):  # doctest: +SKIP
        ...     if glimpse.entropy < 0.3:
        ...         break
    """
    seen: list[Tensor] = []
    for count, frame in enumerate(frames, start=1):
        seen = [*seen[-window + 1 :], frame] if window > 1 else [frame]
        x = torch.stack(seen, 1)[:, None]
        mask = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
        log_prob = fitted.scores(Query(x, condition[:, None], mask)).video[:, 0]
        yield Glimpse(count, log_prob, entropy(log_prob))


@torch.no_grad()
def score_frames(fitted: Fitted, pieces: Iterable[Tensor], condition: int) -> Iterator[Tensor]:
    """Class probabilities of the frames of a long recording of one task, each by itself.

    Args:
        fitted: one task conditioned on its support.
        pieces: (frame, feature) embeddings, piece by piece.
        condition: recording condition of all of them.

    Yields:
        (frame, way) log probabilities of each piece.

    Raises:
        ShapeError: a piece is not (frame, feature), or holds NaN or infinite features.
    """
    for number, piece in enumerate(pieces):
        if piece.ndim != 2 or not bool(torch.isfinite(piece).all()):
            raise ShapeError(
                f"expected piece {number} to be (frame, feature) and finite, got shape "
                f"{tuple(piece.shape)}; was a frame corrupt?"
            )
        conditions = torch.full((1, len(piece)), condition, device=piece.device)
        mask = torch.ones(1, len(piece), 1, dtype=torch.bool, device=piece.device)
        yield fitted.scores(Query(piece[None, :, None], conditions, mask)).frame[0, :, 0]
