"""The Gaussian whose scores are those of a density: `matched`.

A hard block of k latents gets a Gaussian N(m, S) of any correlations, the others, N(0, I) a priori,
one each. Each step draws a batch x_1, ..., x_B of it, asks for the scores g_b = grad log p(x_b),
and moves the block's Gaussian so that its own scores are near them, but not far from where it was:

    U = c Cov g + c / (1 + c) g' g'^T,    V = S + c Cov x + c / (1 + c) (m - x')(m - x')^T,
    S_new = 2 V (I + (I + 4 U V)^(1/2))^-1,
    m_new = m / (1 + c) + c / (1 + c) (S_new g' + x'),

with g' and x' the means of the batch, Cov its covariances, and c = B k: a Gaussian density is found
in a few steps, whatever its condition. Where the ELBO falls by more than noise, or the density is
not finite at a draw, the step is taken again from where it began with an eighth of c. Of any other
density than a Gaussian the last batch's noise stays, as it may in what is only proposed from. The
other latents follow Stein's identity: with the part r = g + z of the score that the data have,
`SHARE` of the way in each step,

    1 / s^2 -> 1 - E[r (z - mu)] / s^2,    mu -> mu + s^2 (E r - mu).

Source: Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei and Saul (2024), Batch and match:
black-box variational inference with a score-based divergence; refs.bib: cai2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import mean, variance

import torch
from torch import Tensor

from bayesfs.errors import InferenceError
from bayesfs.inference.program.density import Density, draws_at_once
from bayesfs.inference.program.streams import Streams
from bayesfs.protocols import Progress

START = 0.1
"""Standard deviation of the block's latents at the start; the others start as they are a priori."""

SHARE = 0.3
"""Of the way that the latents beside the block go in a step."""

MOST = 1.5
"""Standard deviation of one of these at most; a priori they have 1."""

LEAST_AT_ONCE, MOST_AT_ONCE = 4, 32
"""Draws whose density or score is asked for at a time."""

FALL = 3.0
"""Standard errors, and nats, by which the ELBO may fall in a step."""

WINDOW = 5
"""Steps whose ELBO is averaged to judge whether it still grows."""


def portion(density: Density) -> int:
    """Draws of a population's density in one call."""
    return min(MOST_AT_ONCE, draws_at_once(density, LEAST_AT_ONCE))


@dataclass(frozen=True)
class Match:
    """A Gaussian: the block's, and independent ones for the rest.

    Attributes:
        mean: (size,) of all latents.
        sd: (size,) of the latents beside the block; 1 in it.
        root: (k, k) L, L L' the covariance of the block.
        elbo: (step,) estimates of the ELBO on the way, in nats.
    """

    mean: Tensor
    sd: Tensor
    root: Tensor
    elbo: Tensor


def matched(
    density: Density,
    block: Tensor,
    like: Tensor,
    *,
    steps: int,
    batch: int,
    streams: Streams,
    progress: Progress | None = None,
) -> Match:
    """Fit it to a density of one row, until its ELBO has stopped growing.

    Args:
        density: log p, of one row.
        block: (k,) numbers of the latents of the block; the others are N(0, I) a priori.
        like: (size,) gives dtype and device.
        steps: at most.
        batch: draws of a step, an even number: half of them, and their mirror images.
        streams: of the row.
        progress: called with (step, steps, message).

    Raises:
        InferenceError: the density is finite at fewer than two draws about the start.
    """
    size, most, at_once = len(like), float(batch * len(block)), portion(density)
    root = START * torch.eye(len(block), dtype=like.dtype, device=like.device)
    found = Match(torch.zeros_like(like), torch.ones_like(like), root, like[:0])
    best, damping, history = None, most, []
    for step in range(1, steps + 1):
        half = streams.normal((batch // 2, size), like)[0]
        noise = torch.cat([half, -half])
        z = found.mean + found.sd * noise
        z[:, block] = found.mean[block] + noise[:, block] @ found.root.mT
        parts = [density.value_and_gradient(x) for x in torch.split(z.unsqueeze(0), at_once, 1)]
        value, score = (torch.cat(each, 1)[0] for each in zip(*parts, strict=True))
        log_q = -0.5 * (noise.square().sum(-1) + size * math.log(2 * math.pi))
        log_q = log_q - found.root.diagonal().log().sum() - found.sd.log().sum()
        there = torch.isfinite(value) & torch.isfinite(score).all(-1)
        if best is None and int(there.sum()) < 2:
            raise InferenceError(
                f"the log density is finite at {int(there.sum())} of {batch} draws about the "
                "start; does the model give an impossible observation?"
            )
        gain = (value - log_q)[there]
        elbo, error = float(gain.mean()), float(gain.std()) / math.sqrt(len(gain))
        if best is None or (bool(there.all()) and elbo >= best.least):
            history.append(elbo)
            best = _Batch(found, z[there], score[there], elbo - FALL * (1.0 + error))
            damping = min(2.0 * damping, most)
        else:
            damping /= 8.0
        found = _moved(best, block, damping)
        if progress is not None:
            progress(step, steps, f"ELBO {history[-1]:.2f} nats")
        if _has_settled(history):
            break
    told = torch.tensor(history, dtype=torch.float64)
    return replace(found if best is None else best.of, elbo=told)


@dataclass(frozen=True)
class _Batch:
    """Draws of a Gaussian.

    Attributes:
        of: the Gaussian.
        z: (draw, size).
        score: (draw, size) there.
        least: ELBO that the next Gaussian has to have.
    """

    of: Match
    z: Tensor
    score: Tensor
    least: float


def _moved(batch: _Batch, block: Tensor, damping: float) -> Match:
    """The next Gaussian, by a batch of the last one's draws."""
    old, z, score = batch.of, batch.z, batch.score
    own, root = _block_moved(old.mean[block], old.root, z[:, block], score[:, block], damping)
    mean, sd = _rest_moved(old.mean, old.sd, z, score)
    mean[block], sd[block] = own, 1.0
    return Match(mean, sd, root, old.elbo)


def _rest_moved(mean: Tensor, sd: Tensor, z: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """One step of means and sds (size,) of latents that are N(0, I) a priori."""
    data = score + z
    bend = 1.0 - (data * (z - mean)).mean(0) / sd.square()
    precision = sd.square().reciprocal().lerp(bend.clamp(min=MOST**-2), SHARE)
    return mean + SHARE * (data.mean(0) - mean) / precision, precision.rsqrt()


def _block_moved(
    mean: Tensor, root: Tensor, x: Tensor, score: Tensor, c: float
) -> tuple[Tensor, Tensor]:
    """One step of the block: mean and root after a batch x (draw, k) of it.

    With V = R R', S_new = 2 R Q (1 + (1 + 4 e)^(1/2))^-1 Q' R' for R' U R = Q diag(e) Q'.
    """
    share = c / (1.0 + c)
    middle, pull = x.mean(0), score.mean(0)
    off = (mean - middle).unsqueeze(-1)
    v = root @ root.mT + c * torch.cov(x.mT, correction=0) + share * off @ off.mT
    u = c * torch.cov(score.mT, correction=0) + share * torch.outer(pull, pull)
    half = torch.linalg.cholesky(v)
    values, vectors = torch.linalg.eigh(half.mT @ u @ half)
    axes = half @ vectors
    axes = axes * (2.0 / (1.0 + (1.0 + 4.0 * values.clamp(min=0.0)).sqrt())).sqrt()
    covariance = axes @ axes.mT
    new = (1.0 - share) * mean + share * (covariance @ pull + middle)
    return new, torch.linalg.cholesky(covariance)


def _has_settled(history: list[float]) -> bool:
    """Whether the ELBO's mean over a window exceeds that of the last by less than its error.

    An error above a nat says nothing.
    """
    if len(history) < 2 * WINDOW:
        return False
    before, last = history[-2 * WINDOW : -WINDOW], history[-WINDOW:]
    error = math.sqrt((variance(before) + variance(last)) / WINDOW)
    return mean(last) - mean(before) < error < 1.0
