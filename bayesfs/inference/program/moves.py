"""Hamiltonian transitions that leave a density as it is, for many particles at once: `moved`.

A transition draws momentum p ~ N(0, M) and follows the leapfrog

    p <- p + (eps / 2) grad log p(z),    z <- z + eps M^-1 p,    p <- p + (eps / 2) grad log p(z)

`LEAPS` times; the end is taken with probability min(1, exp(H_before - H_after)). Draws of the
density stay draws of it; others come nearer to it with every transition. M^-1 is the variance of
the particles where they start, in each latent of each task. The step eps of a task is adapted to an
acceptance of `ACCEPTED`, averaged over its particles, in the first half, and varies by `JITTER`
from transition to transition, so that no trajectory closes on itself.

Source: Neal (2011), MCMC using Hamiltonian dynamics; refs.bib: neal2011.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesfs.inference.program.density import Density
from bayesfs.inference.program.streams import Streams

LEAPS = 8
"""Leapfrog steps of a transition."""

ACCEPTED = 0.8
"""Mean acceptance that a step is adapted to."""

FIRST_STEP = 0.2
"""In standard deviations of the particles."""

RATE = 0.8
"""How fast the log step follows the acceptance: this over the square root of the transition."""

JITTER = 0.3
"""The step of a transition is uniform within this share of the adapted one."""

SMALLEST = 1e-3
"""Least standard deviation of a latent's particles, whose prior is about 1."""


@dataclass(frozen=True)
class Particles:
    """Particles, the log density and its gradient there, and their momenta in units of 1 / scale.

    Attributes:
        z: (task, particle, size).
        value: (task, particle).
        score: (task, particle, size).
        momentum: (task, particle, size), standard normal.
    """

    z: Tensor
    value: Tensor
    score: Tensor
    momentum: Tensor

    @property
    def energy(self) -> Tensor:
        """(task, particle) Hamiltonian."""
        return 0.5 * self.momentum.square().sum(-1) - self.value


def moved(
    density: Density, z: Tensor, transitions: int, streams: Streams
) -> tuple[Particles, Tensor]:
    """Move the particles of every task.

    Args:
        density: log p of the tasks.
        z: (task, particle, size) where they start; several of each task.
        transitions: at least 2; the step is adapted in the first half.
        streams: of the tasks.

    Returns:
        Where the particles are in the end, and (task,) the mean acceptance of the second half.
    """
    scale = z.std(1, keepdim=True).clamp(min=SMALLEST)
    state = Particles(z, *density.value_and_gradient(z), torch.zeros_like(z))
    log_step, rates = z.new_full((len(z),), math.log(FIRST_STEP)), []
    for k in range(transitions):
        within, chance = streams.uniform((1,), z), streams.uniform((z.shape[1],), z)
        step = log_step.exp()[:, None] * (1.0 + JITTER * (2.0 * within - 1.0))
        start = replace(state, momentum=streams.normal(tuple(z.shape[1:]), z))
        end = _leapfrog(density, start, scale, step[..., None])
        gain = (start.energy - end.energy).nan_to_num(nan=-math.inf)
        rate = gain.clamp(max=0.0).exp()
        state = _chosen(chance < rate, end, start)
        if 2 * k < transitions:
            log_step = log_step + RATE / math.sqrt(k + 1) * (rate.mean(1) - ACCEPTED)
        else:
            rates.append(rate.mean(1))
    return state, torch.stack(rates).mean(0)


def _leapfrog(density: Density, state: Particles, scale: Tensor, step: Tensor) -> Particles:
    z, score, momentum = state.z, state.score, state.momentum
    for _ in range(LEAPS):
        momentum = momentum + 0.5 * step * scale * score
        z = z + step * scale * momentum
        value, score = density.value_and_gradient(z)
        momentum = momentum + 0.5 * step * scale * score
    return Particles(z, value, score, momentum)


def _chosen(taken: Tensor, end: Particles, start: Particles) -> Particles:
    """The end where it is taken (task, particle), else the start."""
    each = taken[..., None]
    return Particles(
        torch.where(each, end.z, start.z),
        torch.where(taken, end.value, start.value),
        torch.where(each, end.score, start.score),
        start.momentum,
    )
