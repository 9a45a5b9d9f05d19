"""Tasks whose support a model has made itself, with the truth: `simulate_tasks`.

A generative model draws the features of every support frame; nothing else of the template changes.
Where it draws the mean frame of a video, the template's frames move so that this is their mean:
equal frames would count as one frame read many times, and tell less than they should.
A head draws the label of every support video given its features, so that videos move to the class
that their label says, and their latents with them. How many videos a class gets is then random.
Tasks in which a class would have no video are left out: that is a condition on the data, under
which the posterior given the data is as before, so that ranks stay uniform.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesfs.errors import DataError
from bayesfs.inference.program.simulation import Simulator
from bayesfs.protocols import Model
from bayesfs.types import EpisodeBatch, Posterior


@dataclass(frozen=True)
class Simulated:
    """Simulated tasks.

    Attributes:
        episodes: the tasks.
        truth: every site -> (1, *dims), of which the support was drawn.
    """

    episodes: EpisodeBatch
    truth: Mapping[str, Tensor]


def simulate_tasks(
    model: Model, template: EpisodeBatch, *, population: Posterior | None = None, seed: int = 0
) -> Simulated:
    """Draw task-level sites and support from the model.

    Args:
        model: the model.
        template: sizes, masks, conditions; the features where the model draws labels.
        population: one draw of the population; None draws one from the prior.
        seed: of everything drawn.

    Raises:
        DataError: the population has several draws, or the model's observation is neither the
            features nor the labels of the support.
    """
    held = {} if population is None else population.population
    if any(len(value) != 1 for value in held.values()):
        raise DataError("expected one draw of the population; the simulations share it")
    program = Simulator(model, template)
    run = program.draw(seed=seed, held={site: value[0] for site, value in held.items()})
    truth = {site: value[None] for site, value in run.draws.items()}
    if len(run.observed) != 1:
        raise DataError(f"expected one observed site, got {sorted(run.observed)}")
    data = next(iter(run.observed.values()))
    if (features := program.as_support(data)) is not None:
        return Simulated(template.changed(support=filled_frames(features, template)), truth)
    if data.shape == template.support_mask.shape and not data.is_floating_point():
        return _relabelled(model, template, truth, data)
    raise DataError(
        f"expected simulated features {tuple(template.support.shape)} or labels "
        f"{tuple(template.support_mask.shape)}, got {data.dtype} {tuple(data.shape)}"
    )


def filled_frames(features: Tensor, template: EpisodeBatch) -> Tensor:
    """Frames of the support (task, way, shot, frame, feature), zero for padding.

    Args:
        features: what was drawn, of every frame or (task, way, shot, 1, feature) of every video.
        template: whose frames keep their differences where videos were drawn.
    """
    mask, own = template.support_mask[..., None], template.support
    if features.shape == own.shape:
        return features * mask
    mean = (own * mask).sum(-2, keepdim=True) / mask.sum(-2, keepdim=True).clamp(min=1)
    return (own - mean + features) * mask


def _relabelled(
    model: Model, template: EpisodeBatch, truth: Mapping[str, Tensor], labels: Tensor
) -> Simulated:
    """Move every video to the class of its label."""
    if labels.shape[-1] != 1 or not template.support_mask.all():
        raise DataError("expected a template of videos of one frame each, without padding")
    source, counts = _places(labels.flatten(1), template.way)
    kept = (counts > 0).all(-1).nonzero().flatten()
    if not len(kept):
        raise DataError("every simulated task lacks a class; give the template more videos")
    source = source[kept]
    names = ("support", "support_mask", "support_condition", "support_quality")
    chosen = template.select(kept.tolist())
    moved: dict[str, Any] = {
        name: _moved(value, source)
        for name in names
        if (value := getattr(chosen, name)) is not None
    }
    draws = {}
    for site, value in truth.items():
        axes = model.dims[site]
        drawn = value[:, kept] if "task" in axes else value
        draws[site] = _moved(drawn[0], source)[None] if "shot" in axes else drawn
    return Simulated(chosen.changed(**moved, support_frame=None), draws)


def _places(label: Tensor, way: int) -> tuple[Tensor, Tensor]:
    """(task, way, shot) slot of each class's videos, -1 for none, and (task, way) how many."""
    order = label.argsort(dim=-1, stable=True)
    counts = torch.nn.functional.one_hot(label, way).sum(1)
    start = counts.cumsum(-1) - counts
    place = torch.arange(int(counts.max()), device=label.device)
    slot = (start[..., None] + place).clamp(max=label.shape[1] - 1)
    found = order.gather(1, slot.flatten(1)).view_as(slot)
    return torch.where(place < counts[..., None], found, -1), counts


def _moved(value: Tensor, source: Tensor) -> Tensor:
    """(task, way, shot, ...) rearranged to the given slots; zero where there is none."""
    task = torch.arange(len(value), device=value.device)[:, None, None]
    moved = value.flatten(1, 2)[task, source.clamp(min=0)]
    there = (source >= 0).reshape(*source.shape, *[1] * (moved.ndim - 3))
    return torch.where(there, moved, torch.zeros_like(moved))
