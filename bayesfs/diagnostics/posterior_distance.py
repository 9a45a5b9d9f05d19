r"""Several engines' posteriors of the same tasks, beside a reference: `compare_engines`.

Two questions. Do they say the same about labels? By the divergence of the predictive of every
query frame, p the reference's and q the engine's, in nats,

    KL(p || q) = sum_k p_k log (p_k / q_k).

And about the latents, those of the population too where it was fitted together with the tasks? By
the difference of means in the reference's standard deviations, and the
ratio of standard deviations, of every single latent; `by_site` sums up each site.

A reference of S draws is itself off by about (way - 1) / (2 S_eff) nats for a discriminative model;
another seed of it, entered as an engine, shows how much that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from bayesfs.errors import ShapeError
from bayesfs.types import EpisodeBatch, Posterior, Predictive

QUANTILES = (0.05, 0.5, 0.95)
"""Of the latents of a site, for `by_site`."""


@dataclass(frozen=True)
class Inferred:
    """What one engine made of the tasks.

    Attributes:
        posterior: draws of the sites.
        predictive: of the query.
        seconds: that inference took.
    """

    posterior: Posterior
    predictive: Predictive
    seconds: float


@dataclass(frozen=True)
class EngineComparison:
    """Engines beside the reference.

    Attributes:
        reference: name of the engine that the others are compared with.
        summary: one row per engine: `kind`, `draws`, `seconds`, `kl` (mean over query frames),
            `kl_worst` (largest mean of a task), in nats.
        tasks: one row per engine and task: `kl`, in nats.
        by_site: one row per engine and site: `shift` (root mean square difference of means, in
            reference sds), and `ratio_low`, `ratio`, `ratio_high`: quantiles of sd / reference sd.
    """

    reference: str
    summary: pd.DataFrame
    tasks: pd.DataFrame
    by_site: pd.DataFrame


def compare_engines(
    inferred: Mapping[str, Inferred], reference: str, episodes: EpisodeBatch
) -> EngineComparison:
    """Compare engines with one of them.

    Args:
        inferred: name of an engine -> its result on `episodes`.
        reference: name of one of them, whose draws count as the truth.
        episodes: the tasks.

    Raises:
        ShapeError: the reference is missing, or engines inferred other tasks.
    """
    if reference not in inferred:
        raise ShapeError(f"expected {reference!r} among the engines {sorted(inferred)}")
    truth = inferred[reference]
    summary, tasks, sites = [], [], []
    for name, result in inferred.items():
        kl = predictive_kl(truth.predictive, result.predictive, episodes)
        summary.append(
            {
                "engine": name,
                "kind": result.posterior.kind,
                "draws": result.posterior.num_draws,
                "seconds": result.seconds,
                "kl": _frame_mean(kl, episodes),
                "kl_worst": float(kl.max()),
            }
        )
        tasks += [
            {"engine": name, "task": episodes.task_name(t), "kl": float(value)}
            for t, value in enumerate(kl)
        ]
        if name != reference:
            sites += _site_rows(name, truth.posterior, result.posterior, episodes)
    columns = ["engine", "site", "shift", "ratio_low", "ratio", "ratio_high"]
    return EngineComparison(
        reference, pd.DataFrame(summary), pd.DataFrame(tasks), pd.DataFrame(sites, columns=columns)
    )


def predictive_kl(reference: Predictive, other: Predictive, episodes: EpisodeBatch) -> Tensor:
    """(task,) mean KL(reference || other) of the labels of a query frame, in nats.

    Raises:
        ShapeError: the two are of other tasks.
    """
    p, q = reference.frame.log_prob, other.frame.log_prob
    if p.shape != q.shape:
        raise ShapeError(
            f"expected predictives of the same queries, got {tuple(p.shape)} and {tuple(q.shape)}"
        )
    terms = torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1)
    mask = episodes.query_mask
    return (terms * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)


def mean_shift_and_ratio(reference: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of means in reference sds, and ratios of sds, of draws (draw, ...).

    A latent that the reference does not vary has no scale: both are nan there.
    """
    sd = reference.std(0)
    sd = torch.where(sd > 0, sd, torch.nan)
    return (other.mean(0) - reference.mean(0)) / sd, other.std(0) / sd


def _frame_mean(kl: Tensor, episodes: EpisodeBatch) -> float:
    """Mean over all query frames of means over each task's."""
    weight = episodes.query_mask.sum((1, 2)).to(kl)
    return float((kl * weight).sum() / weight.sum())


def _site_rows(
    name: str, reference: Posterior, other: Posterior, episodes: EpisodeBatch
) -> list[dict[str, str | float]]:
    rows: list[dict[str, str | float]] = []
    for site, axes in reference.dims.items():
        if site not in other.draws:
            continue
        a, b = reference.draws[site].double(), other.draws[site].double()
        if a.shape[1:] != b.shape[1:]:
            raise ShapeError(
                f"site {site!r} has {tuple(a.shape[1:])} latents in the reference and "
                f"{tuple(b.shape[1:])} in {name}; are they of the same tasks?"
            )
        shift, ratio = mean_shift_and_ratio(a, b)
        kept = _existing(axes, episodes, shift.shape) & torch.isfinite(ratio)
        if not kept.any():
            continue
        low, middle, high = torch.quantile(ratio[kept], ratio.new_tensor(QUANTILES)).tolist()
        rows.append(
            {
                "engine": name,
                "site": site,
                "shift": float(shift[kept].square().mean().sqrt()),
                "ratio_low": low,
                "ratio": middle,
                "ratio_high": high,
            }
        )
    return rows


def _existing(axes: tuple[str, ...], episodes: EpisodeBatch, shape: torch.Size) -> Tensor:
    """Latents of classes and videos that exist: padding follows its prior in every engine."""
    if "task" not in axes:
        return torch.ones(shape, dtype=torch.bool, device=episodes.support.device)
    mask = torch.ones(len(episodes), dtype=torch.bool, device=episodes.support.device)
    if axes[:3] == ("task", "way", "shot"):
        mask = episodes.shot_mask
    elif axes[:2] == ("task", "way"):
        mask = episodes.way_mask
    return mask.reshape(*mask.shape, *[1] * (len(shape) - mask.ndim)).expand(shape)
