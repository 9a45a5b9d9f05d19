"""The part of a softmax head's weights that a few shots can inform: `informed_head`.

With D features and n < D support frames, the likelihood sees the weights only through their
projection on the span of the frames; in every other direction the posterior is the prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayesfs.types import EpisodeBatch, Posterior

if TYPE_CHECKING:
    from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.protocols import Lift, TaskNormal


def informed_head(
    model: HierarchicalHead, episodes: EpisodeBatch, given: Posterior
) -> tuple[HierarchicalHead, EpisodeBatch, Posterior, Lift] | None:
    """The same posterior in fewer latents, exactly.

    Let the columns of B (D, n) be the right singular vectors of the task's support features
    r * x. As z_k ~ N(0, I) and r * x = B B' (r * x),

        w_k . x = s u_k . B'(r * x),    u_k = B' z_k ~ N(0, I_n),
        z_k = B u_k + (I - B B') e_k,   e_k ~ N(0, I_D) independent of the data.

    The task's mean m_t cancels in the softmax and keeps its prior. Singular vectors, rather than
    any basis, make the curvature nearly diagonal.

    Args:
        model: the head.
        episodes: T tasks.
        given: one draw of the population.

    Returns:
        A head over n features, episodes in them, its population and the map of its draws to draws
        of the full head; None where there are as many frames as features.

    Source: likelihood-informed subspaces as in Cui et al. (2014), here exact; refs.bib: cui2014.
    """
    x = episodes.support
    if model.relevance_spread:
        x = x * given.draws["relevance"][0].to(x)
    size = x[0, ..., 0].numel()
    if size >= episodes.dim:
        return None
    basis = torch.linalg.svd(x.flatten(1, 3), full_matrices=False).Vh.mT  # (task, D, n)
    small = episodes.changed(
        support=torch.einsum("twsfd,tdn->twsfn", x, basis),
        query=episodes.query.new_zeros(*episodes.query.shape[:-1], size),
        columns=(),
    )
    head = replace(model, relevance_spread=0.0, task_mean=False)
    known = {name: value for name, value in given.draws.items() if name in head.dims}
    population = Posterior.of_own("exact", known, {name: head.dims[name] for name in known})

    def lift(draws: Mapping[str, Tensor], normal: TaskNormal) -> dict[str, Tensor]:
        return _lift(draws, basis, model.task_mean, normal)

    return head, small, population, lift


def _lift(
    draws: Mapping[str, Tensor], basis: Tensor, task_mean: bool, normal: TaskNormal
) -> dict[str, Tensor]:
    u = draws["weight_raw"]  # (draw, task, way, direction)
    count, _, way, _ = u.shape
    dim = basis.shape[1]
    outside = normal((count, way, dim), u).movedim(0, 1)
    inside = torch.einsum("stkd,tdn->stkn", outside, basis)
    weight = outside + torch.einsum("stkn,tdn->stkd", u - inside, basis)
    lifted = {**draws, "weight_raw": weight}
    if task_mean:
        lifted["task_mean_raw"] = normal((count, dim), u).movedim(0, 1)
    return lifted
