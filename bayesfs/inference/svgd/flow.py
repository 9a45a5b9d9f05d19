"""Move the particles of every task to their density: `flow`.

Each latent is moved along the direction of a Stein kernel, in steps normalised by the running mean
square of that direction over particles (Adam's second moment, pooled, so that all particles of a
task share one diagonal preconditioner), at a constant rate, which then decays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bayesfs._utils.ranges import Count, Positive, Share, check_ranges
from bayesfs.errors import InferenceError
from bayesfs.inference.program.sites import Block
from bayesfs.inference.program.stein import stein_moments, widest
from bayesfs.inference.svgd.kernels import IMQ, SteinKernel
from bayesfs.inference.svgd.metric import IdentityMetric, Metric, Scored
from bayesfs.protocols import Progress

CHECK = 10
"""Steps between two values of the discrepancy."""

FIRST_METRIC = 0.2
"""Share of the steps after which the curvature is averaged again, at the moved particles."""

CONVERGED = 1e-3
"""KSD^2, as a share of what independent draws would have, that is as good as 0."""

STALLED = 0.02
"""The discrepancy has stalled if it fell by less than this share between two checks."""

MOMENTUM, MEMORY = 0.9, 0.99
"""Adam's decay rates of the first and second moment."""


@dataclass(frozen=True)
class Annealing:
    """Scores are weakened at first, so that repulsion spreads the particles over all modes.

    At step t of the first `share` of the steps the target is p^g, g = ((t mod L) / L)^power, with L
    the length of a cycle; afterwards it is p.

    Attributes:
        share: of the steps that are annealed.
        cycles: times that g grows from 0 to 1 in them.
        power: of the growth; larger stays longer near 0.

    Source: D'Angelo and Fortuin (2021), Annealed Stein variational gradient descent, eq. 5;
    refs.bib: dangelo2021.
    """

    share: Share = 0.6
    cycles: Count = 1
    power: Positive = 2.0

    def __post_init__(self) -> None:
        check_ranges(self, InferenceError)

    def strength(self, step: int, steps: int) -> float:
        """The exponent g at a step."""
        annealed = self.share * steps
        length = annealed / self.cycles
        if step >= annealed:
            return 1.0
        return float(((step % length) / length) ** self.power)


@dataclass(frozen=True)
class SteinSchedule:
    """How long and how fast to move.

    Attributes:
        steps: at most; the second half decays.
        learning_rate: length of a step in units of the latents.
        early_stopping: leave the constant-rate half once the discrepancy has stalled.
        annealing: of the score, or None.
    """

    steps: int
    learning_rate: float
    early_stopping: bool
    annealing: Annealing | None = None


@dataclass(frozen=True)
class Flowed:
    """Particles at the end.

    Attributes:
        z: (task, particle, size).
        ksd: (check, task) discrepancies under the kernel that moved the particles, every `CHECK`
            steps and at the end.
        ksd_ratio: (task,) KSD^2 under `IMQ`, as a multiple of what as many independent draws have.
        stein_moments: (task,) of `bayesfs.inference.program.stein`, in the metric's coordinates and
            along the directions in which the density is widest.
    """

    z: Tensor
    ksd: Tensor
    ksd_ratio: Tensor
    stein_moments: Tensor


@dataclass
class _Mover:
    """Step sizes: momentum, and one running mean square per latent of a task."""

    rate: float
    _first: Tensor | None = None
    _second: Tensor | None = None
    _count: int = field(default=0)

    def move(self, u: Tensor, phi: Tensor, decay: Tensor) -> Tensor:
        """The particles after a step along phi, each task's shortened by its decay (task, 1, 1)."""
        square = phi.square().mean(1, keepdim=True)
        if self._first is None or self._second is None:
            self._first, self._second = torch.zeros_like(phi), torch.zeros_like(square)
        self._count += 1
        self._first.lerp_(phi, 1 - MOMENTUM)
        self._second.lerp_(square, 1 - MEMORY)
        scale = (self._second / (1 - MEMORY**self._count)).sqrt_()
        length = self.rate * decay / (1 - MOMENTUM**self._count)
        return torch.addcmul(u, length / (scale + 1e-8), self._first)


def flow(
    density: Scored,
    u: Tensor,
    kernel: SteinKernel,
    schedule: SteinSchedule,
    *,
    metric: Metric | IdentityMetric | None = None,
    blocks: Sequence[Block] = (),
    progress: Progress | None = None,
) -> Flowed:
    """Run Stein variational gradient descent.

    Args:
        density: of every task.
        u: (task, particle, size) where the particles start, in the coordinates of `metric`.
        kernel: see `bayesfs.inference.svgd.kernels`.
        schedule: lengths and rates.
        metric: coordinates to move in; the density's own if None. A `Metric` is made anew once
            the particles have moved.
        blocks: where the sites lie in z, for kernels that use it.
        progress: called with (step, steps, message).

    Raises:
        InferenceError: a score is not finite.
    """
    metric = metric or IdentityMetric()
    again = math.ceil(FIRST_METRIC * schedule.steps) if isinstance(metric, Metric) else -1
    mover, clock = _Mover(schedule.learning_rate), _Clock(schedule, u)
    for step in clock:
        if step == again:
            z = metric.to_z(u)
            metric = Metric.at(density, z)
            u, mover = metric.to_u(z), _Mover(schedule.learning_rate)
        score = _finite(metric.score(density, u), step)
        if step % CHECK == 0:
            clock.note(*kernel.discrepancy(u, score, blocks), settled=step > again)
            if progress is not None:
                progress(step, schedule.steps, f"SVGD, KSD {clock.latest:.3g}")
        strength = schedule.annealing.strength(step, schedule.steps) if schedule.annealing else 1.0
        phi = kernel.direction(u, score if strength == 1 else strength * score, blocks)
        u = mover.move(u, phi, clock.decay)
    score = _finite(metric.score(density, u), schedule.steps)
    clock.note(*kernel.discrepancy(u, score, blocks), settled=False)
    squared, expected = IMQ().discrepancy(u, score, blocks)
    if progress is not None:
        progress(schedule.steps, schedule.steps, f"SVGD, KSD {clock.latest:.3g}")
    history = torch.stack(clock.history)
    along = widest(lambda points: metric.score(density, points), u, score)
    sd = u.std(1, correction=0, keepdim=True)
    moments = stein_moments(
        torch.cat([u, (u / sd) @ along], -1), torch.cat([score, (score * sd) @ along], -1)
    )
    return Flowed(metric.to_z(u), history, squared / expected, moments)


class _Clock:
    """Counts steps; each task's decay starts at half time, or as soon as it has stalled."""

    def __init__(self, schedule: SteinSchedule, like: Tensor) -> None:
        self._schedule = schedule
        self._tail = schedule.steps - schedule.steps // 2
        self._hold = like.new_full((len(like),), schedule.steps // 2)
        self._step = 0
        self._squared: list[Tensor] = []

    def __iter__(self) -> Iterator[int]:
        while self._step < self._hold.amax() + self._tail:
            yield self._step
            self._step += 1

    @property
    def decay(self) -> Tensor:
        """(task, 1, 1): factor of the rate at this step; 0 once the decay has ended."""
        past = (self._step - self._hold).clamp(0, self._tail)
        return (0.5 * (1 + torch.cos(math.pi * past / self._tail)))[:, None, None]

    @property
    def history(self) -> list[Tensor]:
        """Discrepancies (task,) so far."""
        return [s.clamp_min(0).sqrt() for s in self._squared]

    @property
    def latest(self) -> float:
        """The largest discrepancy of any task, at the last check."""
        return float(self._squared[-1].clamp_min(0).amax().sqrt())

    def note(self, squared: Tensor, expected: Tensor, *, settled: bool) -> None:
        """One more value of KSD^2, and of what independent draws would have, each (task,)."""
        self._squared.append(squared)
        annealing = self._schedule.annealing
        if annealing is not None and self._step < annealing.share * self._schedule.steps:
            return
        if not (self._schedule.early_stopping and settled):
            return
        done = squared < CONVERGED * expected
        if len(self._squared) > 1:
            done |= squared > (1 - STALLED) * self._squared[-2]
        self._hold = self._hold.where(~done, self._hold.clamp(max=self._step))


def _finite(score: Tensor, step: int) -> Tensor:
    if torch.isfinite(score.sum()):  # one pass: what is not finite stays so in a sum
        return score
    bad = (~torch.isfinite(score)).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise InferenceError(
            f"the score of tasks {bad[:8]} is not finite at step {step}; is the density finite at "
            "draws from the prior, and the learning rate small enough?"
        )
    return score
