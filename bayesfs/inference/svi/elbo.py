"""Maximise the evidence lower bound of a batch of tasks, one guide per task: `maximise_elbo`.

    ELBO_t = E_{z ~ q_t} [log p(z, data_t) - log q_t(z)]  <=  log p(data_t), in nats.

Reparameterised stochastic gradients, Adam, then a cosine decay with averaging of the iterates.
All tasks share the random numbers of a step, and each step with fresh noise is followed by one
with the same noise negated (antithetic), so the odd part of the noise cancels in the average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._distributions.noise import normal_like
from bayesfs.errors import InferenceError
from bayesfs.inference.program.capture import capture
from bayesfs.inference.program.density import Density
from bayesfs.inference.svi.guides import Guide
from bayesfs.protocols import Progress

FLAT = 1e-3
"""Adam's epsilon: derivatives (in nats per unit of a latent) far below it count as zero, so that
rounding errors at an optimum do not become full steps."""

LATER = 1
"""Iterate k of the decaying half gets a weight that grows as k^LATER in the average."""

WINDOW = 25
"""Steps whose ELBO is averaged to judge whether it still grows."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to climb.

    Attributes:
        steps: gradient steps at most: one half at full rate, one half decaying and averaging.
        learning_rate: Adam's rate, in units of the latents (a non-centred latent has scale 1).
        particles: draws per step and task.
        early_stopping: end the first half once the ELBO has stopped growing.
    """

    steps: int
    learning_rate: float
    particles: int
    early_stopping: bool


@dataclass(frozen=True)
class Fit:
    """Guides after optimisation.

    Attributes:
        parameters: (task, count) of the guide.
        elbo: (step,) ELBO estimate of each step, summed over tasks, in nats.
    """

    parameters: Tensor
    elbo: Tensor


def maximise_elbo(
    density: Density,
    guide: Guide,
    schedule: Schedule,
    *,
    start: Tensor,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Fit:
    """Fit one guide per task.

    Args:
        density: unconstrained log density of the tasks.
        guide: variational family.
        schedule: steps, rate, particles, stopping.
        start: (task, count) parameters to start from.
        generator: source of the noise, on the CPU: the same numbers on every device.
        progress: called now and then with (step, steps, message).

    Returns:
        Parameters, averaged over the decaying half, and the ELBO of each step.

    Raises:
        InferenceError: the ELBO is not finite; the message says at which step and for which tasks.
    """
    adam = _Adam(start.clone())
    shape = (1, schedule.particles, guide.noise_size(density.size))
    noises = _antithetic(start, shape, generator)
    if progress is not None:
        progress(0, schedule.steps, "recording one step")
    climb = _recorded_step(density, guide, adam.parameters, start.new_zeros(shape))
    history: list[Tensor] = []
    tail = max(schedule.steps // 2, 1)
    left = start.new_full((len(start), 1), schedule.steps)  # of each task: each stops by itself
    mean, averaged = torch.zeros_like(adam.parameters), torch.zeros_like(left)
    while (going := left > 0).any():
        rate = schedule.learning_rate * _decay(left, tail)
        elbo, direction = climb(adam.parameters, next(noises))
        adam.climb(direction, rate)
        history.append(elbo.where(going[:, 0], history[-1] if history else elbo))
        left = (left - 1).clamp(min=0)
        ending = going & (left < tail)
        averaged += ending
        mean = mean.lerp(adam.parameters, ending * (1 + LATER) / (averaged + LATER))
        if len(history) == 1 or len(history) % WINDOW == 0:
            _report(progress, schedule.steps, int(left.amax()), elbo)
        if len(history) % WINDOW == 0:
            _require_finite(history[-1], len(history))
            if schedule.early_stopping and (left > tail).any():
                left = left.where(~_have_settled(history), left.clamp(max=tail))
    _require_finite(history[-1], len(history))
    return Fit(mean, torch.stack(history).sum(-1))


def _recorded_step(
    density: Density, guide: Guide, parameters: Tensor, noise: Tensor
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(parameters, noise) -> ELBO estimate (task,) and its gradient (task, count)."""

    def step(parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        value, score = density.value_and_gradient(guide.draw(parameters, noise))
        elbo = (value - guide.log_density(parameters, noise)).mean(1)
        return elbo, guide.ascent(parameters, noise, score)

    density.value_and_gradient(guide.draw(parameters, noise))  # records the density itself first
    return capture(step, parameters, noise)


class _Adam:
    """Adam for ascent, in place on one flat tensor. Source: Kingma and Ba (2015), algorithm 1."""

    def __init__(self, parameters: Tensor, decay: float = 0.9, square_decay: float = 0.99) -> None:
        self.parameters = parameters
        self._first = torch.zeros_like(parameters)
        self._second = torch.zeros_like(parameters)
        self._decay, self._square_decay = decay, square_decay
        self._steps = 0

    def climb(self, gradient: Tensor, rate: Tensor) -> None:
        """Move the parameters along the gradient, each task at its rate (task, 1)."""
        self._steps += 1
        self._first.lerp_(gradient, 1 - self._decay)
        self._second.mul_(self._square_decay)
        self._second.addcmul_(gradient, gradient, value=1 - self._square_decay)
        first = 1 - self._decay**self._steps
        second = 1 - self._square_decay**self._steps
        scale = self._second.sqrt().add_(FLAT * math.sqrt(second))
        self.parameters.addcmul_(rate * (math.sqrt(second) / first), self._first / scale)


def _antithetic(
    like: Tensor, shape: tuple[int, ...], generator: torch.Generator
) -> Iterator[Tensor]:
    while True:
        noise = normal_like(shape, generator, like)
        yield noise
        yield -noise


def _decay(left: Tensor, tail: int) -> Tensor:
    """1 before the tail, then half a cosine down to 0."""
    return 0.5 * (1 - torch.cos(math.pi * left.clamp(max=tail) / tail))


def _have_settled(history: list[Tensor]) -> Tensor:
    """(task, 1): whether the mean ELBO of the last window exceeds the last but one by too little.

    That is, by less than its standard error.
    """
    if len(history) < 2 * WINDOW:
        return torch.zeros_like(history[-1], dtype=torch.bool).unsqueeze(1)
    windows = torch.stack(history[-2 * WINDOW :]).reshape(2, WINDOW, -1)
    error = (windows.var(1).sum(0) / WINDOW).sqrt()
    settled: Tensor = windows[1].mean(0) - windows[0].mean(0) < error
    return settled.unsqueeze(1)


def _require_finite(elbo: Tensor, step: int) -> None:
    bad = (~torch.isfinite(elbo)).nonzero().flatten().tolist()
    if bad:
        raise InferenceError(
            f"the ELBO is not finite after {step} steps for tasks {bad[:8]}; is the learning rate "
            "too high, or does the model give an impossible observation?"
        )


def _report(progress: Progress | None, steps: int, left: int, elbo: Tensor) -> None:
    if progress is not None:
        progress(steps - left, steps, f"ELBO {float(elbo.mean()):.2f} nats per task")
