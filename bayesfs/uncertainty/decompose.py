"""Predictive uncertainty by kind: start with `decompose`.

For a predictive p = E_theta p(. | theta) over the labels,

    total     = H[p]                          entropy of the predictive
    aleatoric = E_theta H[p(. | theta)]       what would remain if the classes were known exactly
    epistemic = total - aleatoric = I(y; theta | x, D) = E_theta KL[p(. | theta) || p]

in nats, with theta from p(theta | x, D) (see `bayesfs.types.LabelDraws`). The epistemic part is
estimated through the KL form, which is never negative. Where p is itself the average of the same S
draws, it is too small by a factor of about 1 - 1 / S_eff, with S_eff = 1 / sum_s w_s^2, and is
divided by it; where p is known in closed form, no correction is due.

Source: Depeweg et al. (2018), ICML, equations 5 and 6; Wimmer et al. (2023) on what mutual
information does and does not measure.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayesfs._utils.arrays import Floats
from bayesfs.types import EpisodeBatch, LabelDraws, Predictive

LEAST_LOG = -1e4
"""Of a log probability: no product with a probability of 0 is NaN."""


def decompose_draws(labels: LabelDraws) -> tuple[Tensor, Tensor, Tensor]:
    """Total, aleatoric and epistemic uncertainty of each query, (...), in nats.

    0 <= epistemic <= total <= log way, and aleatoric = total - epistemic.
    """
    prob, log_prob = labels.prob, labels.log_prob.clamp(min=LEAST_LOG)
    total = -(prob * log_prob).sum(-1)
    weight, given = labels.log_weight.exp(), labels.log_prob_given.exp()
    divergence = (given * (labels.log_prob_given.clamp(min=LEAST_LOG) - log_prob)).sum(-1)
    correction = _draw_correction(prob, given, weight)
    epistemic = ((weight * divergence).sum(0) * correction).clamp(min=0.0)
    epistemic = torch.minimum(epistemic, total)
    return total, total - epistemic, epistemic


def decompose_query(log_prob: Floats, log_prob_given: Floats) -> tuple[float, float, float]:
    """`decompose_draws` of one query and draws of even weight, in NumPy: a fifth of the time.

    Args:
        log_prob: (way,) of the predictive.
        log_prob_given: (draw, way) of each draw.
    """
    prob, given, draws = np.exp(log_prob), np.exp(log_prob_given), len(log_prob_given)
    log_prob = np.maximum(log_prob, LEAST_LOG)
    total = -float(prob @ log_prob)
    divergence = (given * (np.maximum(log_prob_given, LEAST_LOG) - log_prob)).sum() / draws
    own = draws > 1 and bool((np.abs(given.mean(0) - prob) <= 1e-6 + 1e-4 * prob).all())
    epistemic = min(max(float(divergence), 0.0) * (draws / (draws - 1) if own else 1.0), total)
    return total, total - epistemic, epistemic


def _draw_correction(prob: Tensor, given: Tensor, weight: Tensor) -> Tensor:
    """(...) factor S_eff / (S_eff - 1), or 1 where the predictive does not come from the draws.

    Args:
        prob: (..., way) the predictive.
        given: (draw, ..., way) label distribution of each draw.
        weight: (draw, ...) of each draw.
    """
    average = (weight[..., None] * given).sum(0)
    own = ((average - prob).abs() <= 1e-6 + 1e-4 * prob).all(-1)
    size = weight.square().sum(0).reciprocal()
    return torch.where(own & (size > 1.0 + 1e-6), size / (size - 1.0).clamp(min=1e-6), 1.0)


def decompose(predictive: Predictive, episodes: EpisodeBatch) -> xr.Dataset:
    """Uncertainty by kind of every query frame and video.

    Args:
        predictive: of the query of `episodes`.
        episodes: for masks and names.

    Returns:
        Dataset with frame_total, frame_aleatoric, frame_epistemic (task, video, frame) and
        video_total, video_aleatoric, video_epistemic (task, video), in nats; NaN for padding.
        `frame_draw_ess` and `video_draw_ess` are the effective numbers of draws behind them.
    """
    data: dict[str, tuple[tuple[str, ...], object]] = {}
    for unit, labels, mask in (
        ("frame", predictive.frame, episodes.query_mask),
        ("video", predictive.video, episodes.video_mask),
    ):
        axes = ("task", "video", "frame")[: mask.ndim]
        size = 1.0 / labels.log_weight.exp().square().sum(0)
        names = ("total", "aleatoric", "epistemic", "draw_ess")
        for name, value in zip(names, (*decompose_draws(labels), size), strict=True):
            filled = value.masked_fill(~mask, math.nan)
            data[f"{unit}_{name}"] = (axes, filled.detach().cpu().numpy())
    coords = {"task": list(episodes.tasks)} if episodes.tasks else {}
    return xr.Dataset(data, coords=coords, attrs={"units": "nats"})
