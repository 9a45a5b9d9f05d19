"""The Gaussian whose scores are those of a density: `matched`.

A hard block of k latents gets a Gaussian N(m, S) of any correlations, the others, N(0, I) a priori,
one each. Each step draws a batch x_1, ..., x_B of it, asks for the scores g_b = grad log p(x_b),
and moves the block's Gaussian so that its own scores are near them, but not far from where it was:

    U = c Cov g + c / (1 + c) g' g'^T,    V = S + c Cov x + c / (1 + c) (m - x')(m - x')^T,
    S_new = 2 V (I + (I + 4 U V)^(1/2))^-1,
    m_new = m / (1 + c) + c / (1 + c) (S_new g' + x'),

with g' and x' the means of the batch, Cov its covariances, and c = B k: a Gaussian density is found
in a few steps, whatever its condition. Of any other the last batch's noise stays, as it may in what
is only proposed from. The other latents follow Stein's identity: with the part r = g + z of the
score that the data have, `SHARE` of the way in each step,

    1 / s^2 -> 1 - E[r (z - mu)] / s^2,    mu -> mu + s^2 (E r - mu).

Source: Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei and Saul (2024), Batch and match:
black-box variational inference with a score-based divergence; refs.bib: cai2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs.errors import InferenceError
from bayesfs.inference.program.density import Density
from bayesfs.inference.program.streams import Streams
from bayesfs.protocols import Progress

START = 0.1
"""Standard deviation of the block's latents at the start; the others start as they are a priori."""

SHARE = 0.2
"""Of the way that the latents beside the block go in a step."""

MOST = 1.5
"""Standard deviation of one of these at most; a priori they have 1."""

AT_ONCE = 4
"""Draws whose density or score is asked for at a time; bounds the memory."""

WINDOW = 5
"""Steps whose ELBO is averaged to judge whether it still grows."""


@dataclass(frozen=True)
class Match:
    """A Gaussian: the block's, and independent ones for the rest.

    Attributes:
        mean: (size,) of all latents.
        sd: (size,) of the latents beside the block; 1 in it.
        root: (k, k) L, L L' the covariance of the block.
        elbo: (step,) estimate of the ELBO before each step, in nats.
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
        InferenceError: the density is finite at fewer than two draws of a step.
    """
    mean, sd = torch.zeros_like(like), torch.ones_like(like)
    root = START * torch.eye(len(block)).to(like)
    history: list[Tensor] = []
    for step in range(1, steps + 1):
        half = streams.normal((batch // 2, len(like)), like)[0]
        noise = torch.cat([half, -half])
        z = mean + sd * noise
        z[:, block] = mean[block] + noise[:, block] @ root.mT
        parts = [density.value_and_gradient(x) for x in torch.split(z.unsqueeze(0), AT_ONCE, 1)]
        value, score = (torch.cat(each, 1)[0] for each in zip(*parts, strict=True))
        log_q = -0.5 * (noise.square().sum(-1) + len(like) * math.log(2 * math.pi))
        log_q = log_q - root.diagonal().log().sum() - sd.log().sum()
        there = torch.isfinite(value) & torch.isfinite(score).all(-1)
        if int(there.sum()) < 2:
            raise InferenceError(
                f"the log density is finite at {int(there.sum())} of {batch} draws after "
                f"{step - 1} steps; does the model give an impossible observation?"
            )
        history.append((value - log_q)[there].mean())
        z, score = z[there], score[there]
        own, root = _moved(mean[block], root, z[:, block], score[:, block], batch)
        mean, sd = _rest_moved(mean, sd, z, score)
        mean[block], sd[block] = own, 1.0
        if progress is not None:
            progress(step, steps, f"ELBO {float(history[-1]):.2f} nats")
        if _has_settled(history):
            break
    return Match(mean, sd, root, torch.stack(history))


def _rest_moved(mean: Tensor, sd: Tensor, z: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """One step of means and sds (size,) of latents that are N(0, I) a priori."""
    data = score + z
    bend = 1.0 - (data * (z - mean)).mean(0) / sd.square()
    precision = sd.square().reciprocal().lerp(bend.clamp(min=MOST**-2), SHARE)
    return mean + SHARE * (data.mean(0) - mean) / precision, precision.rsqrt()


def _moved(
    mean: Tensor, root: Tensor, x: Tensor, score: Tensor, batch: int
) -> tuple[Tensor, Tensor]:
    """One step of the block: mean and root after a batch x (draw, k) of it.

    With V = R R', S_new = 2 R Q (1 + (1 + 4 e)^(1/2))^-1 Q' R' for R' U R = Q diag(e) Q'.
    """
    c = batch * len(mean)
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


def _has_settled(history: list[Tensor]) -> bool:
    """Whether the ELBO's mean over a window exceeds that of the last by less than its error."""
    if len(history) < 2 * WINDOW:
        return False
    windows = torch.stack(history[-2 * WINDOW :]).reshape(2, WINDOW)
    error = (windows.var(1).sum() / WINDOW).sqrt()
    return bool(windows[1].mean() - windows[0].mean() < error)
