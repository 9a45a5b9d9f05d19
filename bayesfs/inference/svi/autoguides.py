"""Pyro's own variational inference with any of its automatic guides: `PyroSVI`.

The reference for `bayesfs.inference.svi.svi.SVI`, and the way to use a guide that only Pyro has. It
runs the program as it stands, in Python, at every step: one guide over all tasks, much slower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.infer.autoguide.guides import AutoGuide
from pyro.optim import ClippedAdam
from torch import Tensor

from bayesfs._utils.ranges import Count, Positive, check_ranges
from bayesfs.errors import InferenceError
from bayesfs.inference.program.canonical import canonical
from bayesfs.inference.program.potential import potential
from bayesfs.inference.program.sites import named_value, seeded
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.types import EpisodeBatch, Posterior


@dataclass(frozen=True)
class PyroSVI(Engine):
    """Variational inference with a Pyro autoguide over every latent of all tasks.

    Diagnostics in `Posterior.sample_stats`: elbo (step,), in nats.

    Attributes:
        guide: class (or function) that makes a guide from a program: `AutoNormal`,
            `AutoLowRankMultivariateNormal`, `AutoMultivariateNormal`, `AutoIAFNormal`, ...
        steps: gradient steps.
        learning_rate: Adam's rate at the start; it decays to a tenth.
        particles: draws per step.
        draws: posterior draws returned.

    Example:
        >>> from pyro.infer.autoguide import AutoLowRankMultivariateNormal
        >>> engine = PyroSVI(guide=AutoLowRankMultivariateNormal, steps=2000)
    """

    guide: Callable[[Any], AutoGuide] = AutoNormal
    steps: Count = 1000
    learning_rate: Positive = 0.02
    particles: Count = 1
    draws: Count = 500

    def __post_init__(self) -> None:
        check_ranges(self, InferenceError)

    def infer(
        self,
        model: Model,
        episodes: EpisodeBatch,
        *,
        seed: int,
        given: Posterior | None = None,
        progress: Progress | None = None,
    ) -> Posterior:
        """Posterior of kind "variational"; see `bayesfs.protocols.Engine.infer`.

        Raises:
            InferenceError: the loss becomes infinite, or the model breaks a convention.
        """
        order = canonical(model, episodes)
        episodes = order.episodes
        density = potential(model, episodes, given)
        conditioned = poutine.condition(model, data=dict(density.population))
        program = poutine.block(conditioned, hide=list(density.population))
        with seeded(seed), pyro.get_param_store().scope():
            guide = self.guide(program)
            elbo = self._optimise(program, guide, episodes, progress)
            draws = self._draw(program, guide, episodes)
        z = density.unconstrain(draws)
        found = density.posterior(z, kind="variational", seed=seed, sample_stats={"elbo": elbo})
        return order.restored(found, model, given)

    def _optimise(
        self, program: Any, guide: AutoGuide, episodes: EpisodeBatch, progress: Progress | None
    ) -> Tensor:
        decay = 0.1 ** (1 / self.steps)
        optimiser = ClippedAdam({"lr": self.learning_rate, "lrd": decay})
        inference = SVI(program, guide, optimiser, Trace_ELBO(num_particles=self.particles))
        history = []
        for step in range(1, self.steps + 1):
            history.append(-float(inference.step(episodes)))
            if step % 50 == 0 and progress is not None:
                progress(step, self.steps, f"ELBO {history[-1]:.2f} nats")
        elbo = episodes.support.new_tensor(history)
        if not torch.isfinite(elbo).all():
            raise InferenceError("Pyro's ELBO is not finite; is the learning rate too high?")
        return elbo

    @torch.no_grad()
    def _draw(self, program: Any, guide: AutoGuide, episodes: EpisodeBatch) -> dict[str, Tensor]:
        """Site -> (draw, *axes), one pass through the guide per draw."""
        values = [guide(episodes) for _ in range(self.draws)]
        trace = poutine.trace(program).get_trace(episodes)
        return {
            site: named_value(torch.stack([v[site] for v in values]), trace.nodes[site])
            for site in values[0]
            if trace.nodes[site]["type"] == "sample"
        }
