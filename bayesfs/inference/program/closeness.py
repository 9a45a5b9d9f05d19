"""How close an approximation is to a density, from its own draws: `closeness`.

Draws of q whose weights p / q have a finite variance can be resampled by them to be draws of p, at
some loss.

Source: Vehtari et al. (2024), Pareto smoothed importance sampling; Yao et al. (2018), Yes, but did
it work?
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._distributions.importance import smoothed
from bayesfs.inference.program.density import Density, draws_at_once
from bayesfs.inference.program.limits import KHAT_MAX
from bayesfs.inference.program.stein import along_widest, stein_moments
from bayesfs.protocols import Progress

DENSITY_DRAWS = 16
"""Draws whose densities are evaluated at a time at least."""

TOGETHER = 32
"""Latents whose widest directions are looked for at most: it takes eight draws for each."""

SCORED = 1000
"""Resampled draws whose scores are asked for."""


def closeness(
    density: Density,
    z: Tensor,
    log_q: Tensor,
    *,
    latents: Tensor | None = None,
    resampled: int = 0,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Statistics of draws z of an approximation q to p, and the draws resampled to be p's.

    Args:
        density: log p, unconstrained, not normalised.
        z: (task, draw, size).
        log_q: (task, draw) log density of q at them.
        latents: (k,) numbers of those that may correlate, where q has them independent; Stein's
            moments are looked at along these latents' widest directions too, if k <= `TOGETHER`.
        resampled: how many draws to take of them, systematically, by their Pareto-smoothed weights;
            0 takes none. Of a task whose k-hat is above `KHAT_MAX`, or not known, the first ones
            are taken as they are.
        progress: called now and then with (draws, all draws, message).

    Returns:
        z (task, resampled, size): where draws were resampled; the rest is then of these draws.
        evidence_bound (task,): mean of log p - log q, in nats.
        khat (task,): Pareto k-hat of the weights p / q.
        repeats (task,): `resampled` / number of draws that the weights are worth.
        stein_moments (task,): see `bayesfs.inference.program.stein`.
    """
    z, at_once = z.detach(), draws_at_once(density, DENSITY_DRAWS)
    evaluate = _values if resampled else _with_score
    parts = []
    for i, part in enumerate(torch.split(z, at_once, 1), 1):
        parts.append(evaluate(density, part))
        if progress is not None:
            progress(min(i * at_once, z.shape[1]), z.shape[1], "")
    value, *found = (torch.cat(each, 1) for each in zip(*parts, strict=True))
    log_weight = value - log_q
    smooth = [smoothed(weights) for weights in log_weight.double().cpu().numpy()]
    khat = log_weight.new_tensor([k for _, k in smooth])
    stats = {"evidence_bound": log_weight.mean(1), "khat": khat}
    if resampled:
        places = torch.stack([_places(w, k, resampled) for w, k in smooth]).unsqueeze(-1)
        stats["z"] = z.take_along_dim(places.to(z.device), 1)
        share = log_weight.new_tensor(np.stack([w for w, _ in smooth])).softmax(1)
        stats["repeats"] = resampled / worth(share)
        return stats | stein_statistics(density, stats["z"], latents)
    (score,) = found
    return stats | _stein(z, score, latents)


def stein_statistics(
    density: Density, z: Tensor, latents: Tensor | None = None
) -> dict[str, Tensor]:
    """`stein_moments` of the first `SCORED` of draws in a mixed order; see `closeness`."""
    at_once, z = draws_at_once(density, DENSITY_DRAWS), z[:, :SCORED]
    scores = [_with_score(density, part)[1] for part in torch.split(z, at_once, 1)]
    return _stein(z, torch.cat(scores, 1), latents)


def _stein(z: Tensor, score: Tensor, latents: Tensor | None) -> dict[str, Tensor]:
    moments = stein_moments(z, score)
    if latents is not None and 0 < len(latents) <= TOGETHER:
        moments = moments.fmax(along_widest(z[..., latents], score[..., latents]))
    return {"stein_moments": moments}


def resampled(z: Tensor, log_weight: Tensor, draws: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Draws resampled by their weights p / q, and what the weights say of themselves.

    Args:
        z: (task, draw, size).
        log_weight: (task, draw) log p - log q.
        draws: how many to take, systematically, by the Pareto-smoothed weights, whatever k-hat is.

    Returns:
        (task, draws, size), and statistics (task,): evidence_bound, the log of the mean weight in
        nats; khat of the weights; weight_ess, the number of draws that they are worth; repeats,
        draws / weight_ess.
    """
    smooth = [smoothed(weights) for weights in log_weight.double().cpu().numpy()]
    places = torch.stack([_systematic(w, draws) for w, _ in smooth]).unsqueeze(-1)
    share = log_weight.new_tensor(np.stack([w for w, _ in smooth])).softmax(1)
    stats = {
        "evidence_bound": log_weight.logsumexp(1) - math.log(log_weight.shape[1]),
        "khat": log_weight.new_tensor([k for _, k in smooth]),
        "weight_ess": worth(share),
        "repeats": draws / worth(share),
    }
    return z.take_along_dim(places.to(z.device), 1), stats


def worth(share: Tensor) -> Tensor:
    """Draws that weights (..., draw) of sum 1 are worth: 1 / sum of their squares."""
    return 1.0 / share.square().sum(-1)


def _places(log_weight: NDArray[np.float64], khat: float, count: int) -> Tensor:
    """(count,) numbers of draws, each as often as its smoothed weight says, in a mixed order."""
    if not khat <= KHAT_MAX:
        return torch.arange(count)
    return _systematic(log_weight, count)


def _systematic(log_weight: NDArray[np.float64], count: int) -> Tensor:
    """The same, whatever the shape of the weights' tail."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    return evenly_chosen(torch.from_numpy(log_weight).softmax(0), count)[order]


def evenly_chosen(share: Tensor, count: int) -> Tensor:
    """(..., count) numbers of draws, in order, each as often as its share (..., draw) says."""
    at = (torch.arange(count, device=share.device) + 0.5) / count
    at = at.to(share).expand(*share.shape[:-1], count).contiguous()
    return torch.searchsorted(share.cumsum(-1), at).clamp(max=share.shape[-1] - 1)


@torch.no_grad()
def _values(density: Density, z: Tensor) -> tuple[Tensor]:
    """(task, draw) log density."""
    return (density.log_density(z),)


def _with_score(density: Density, z: Tensor) -> tuple[Tensor, Tensor]:
    """(task, draw) log density, and its gradient (task, draw, size)."""
    with torch.enable_grad():
        point = z.requires_grad_()
        value = density.log_density(point)
        (score,) = torch.autograd.grad(value.sum(), point)
    return value.detach(), score
