"""Pyro's and NumPyro's engines on the hierarchical head, one task at a time, for the benchmark.

The head is written out for each of them as its users would write it, without bayesfs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pyro
import pyro.distributions as dist
import torch
from jax import lax, random
from pyro import poutine
from pyro.infer import SVGD as PyroSVGD
from pyro.infer import SVI as PyroSVI
from pyro.infer import RBFSteinKernel, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.infer.mcmc import MCMC
from pyro.infer.mcmc import NUTS as PyroNUTS
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor

from bayesfs.inference.program.potential import Potential, potential
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.types import EpisodeBatch, Posterior


@dataclass(frozen=True)
class Cost:
    """What a call took.

    Attributes:
        wall: seconds on the clock.
        cpu: seconds of all threads, which other load on the machine hardly changes.
    """

    wall: float
    cpu: float

    def __mul__(self, factor: float) -> Cost:
        return Cost(self.wall * factor, self.cpu * factor)


def cost_of(run: Callable[[], object]) -> Cost:
    """Run and measure."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def least(costs: Sequence[Cost]) -> Cost:
    """The shortest of each: whatever else runs on the machine only ever adds to it."""
    return Cost(min(c.wall for c in costs), min(c.cpu for c in costs))


def blocks(step: Callable[[], object], timed: int, count: int = 3) -> Cost:
    """Cost of one step, the least of some blocks of `timed` steps, after five to warm up."""

    def many(steps: int) -> None:
        for _ in range(steps):
            step()

    many(5)
    return least([cost_of(lambda: many(timed)) for _ in range(count)]) * (1 / timed)


def pyro_svgd(
    model: HierarchicalHead,
    episodes: EpisodeBatch,
    given: Posterior,
    particles: int,
    timed: int,
    steps: int,
) -> Cost:
    """Cost of `steps` steps on the first task, from blocks of `timed` steps."""
    density = potential(model, episodes.select([0]), given)
    program = flat_head(model, density)
    pyro.clear_param_store()
    with torch.random.fork_rng():
        pyro.set_rng_seed(0)
        adam = pyro.optim.Adam({"lr": 0.05})
        svgd = PyroSVGD(program, RBFSteinKernel(), adam, particles, 0, mode="univariate")
        cost = blocks(svgd.step, timed)
    pyro.clear_param_store()
    return cost * steps


def flat_head(model: HierarchicalHead, density: Potential) -> Any:
    """The head of one task with all its latents in one site, as Pyro's SVGD needs it."""
    value = {name: v.reshape(-1).squeeze() for name, v in density.population.items()}
    x = density.episodes.support[0]
    ways, shots, _, dim = x.shape
    rows, label = x.flatten(0, 2), torch.arange(ways).repeat_interleave(shots)
    slices = {name: block.slice for name, block in density.blocks.items()}

    def program() -> None:
        zeros = rows.new_zeros(density.size)
        z = pyro.sample("z", dist.Normal(zeros, 1.0).to_event(1)).reshape(-1, density.size)
        e = z[:, slices["task_scale_raw"]].squeeze(-1)
        scale = value["population_scale"] * (model.scale_spread * e).exp()
        raw = z[:, slices["weight_raw"]].reshape(-1, ways, dim)
        w = scale[:, None, None] * value["relevance"] * raw
        shift = value["mean_scale"] * z[:, slices["task_mean_raw"]]
        w = w + (value["population_mean"] + shift)[:, None]
        offset = value["offset_scale"] * z[:, slices["offset_raw"]].reshape(-1, len(rows), ways)
        pyro.sample("y", dist.Categorical(logits=rows @ w.mT + offset).to_event(1), obs=label)

    return program


def pyro_svi(
    model: HierarchicalHead, episodes: EpisodeBatch, given: Posterior, timed: int, steps: int
) -> Cost:
    """Cost of `steps` steps of AutoNormal on the first task, from blocks of `timed` steps."""
    program = poutine.condition(model, data={k: v[0] for k, v in given.draws.items()})
    task = episodes.select([0])
    pyro.clear_param_store()
    with torch.random.fork_rng():
        pyro.set_rng_seed(0)
        svi = PyroSVI(program, AutoNormal(program), pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
        cost = blocks(lambda: svi.step(task), timed)
    pyro.clear_param_store()
    return cost * steps


def numpyro_head(x: jax.Array, label: jax.Array, population: dict[str, Any], spread: float) -> None:
    """The head of one task: x (row, feature), one row per video."""
    ways, dim = 5 if population["ways"] is None else population["ways"], x.shape[1]
    e = numpyro.sample("task_scale_raw", numpyro.distributions.Normal(0.0, 1.0))
    unit = numpyro.distributions.Normal(0.0, 1.0)
    m = numpyro.sample("task_mean_raw", unit.expand([dim]).to_event(1))
    z = numpyro.sample("weight_raw", unit.expand([ways, dim]).to_event(2))
    u = numpyro.sample("offset_raw", unit.expand([len(x), ways]).to_event(2))
    w = population["population_scale"] * jnp.exp(spread * e) * population["relevance"] * z
    w = w + population["population_mean"] + population["mean_scale"] * m
    logits = x @ w.T + population["offset_scale"] * u
    numpyro.sample("y", numpyro.distributions.Categorical(logits=logits), obs=label)


def numpyro_nuts(
    model: HierarchicalHead,
    episodes: EpisodeBatch,
    given: Posterior,
    tasks: int,
    warmup: int,
    draws: int,
) -> tuple[Cost, float]:
    """Mean cost per task of one chain, compilation left out, and leapfrog steps per transition.

    The function is compiled on one task and timed on the following `tasks`.
    """
    x = episodes.support.flatten(1, 3).numpy()
    ways = episodes.way
    label = jnp.repeat(jnp.arange(ways), x.shape[1] // ways)
    population = {k: jnp.asarray(v[0].numpy()) for k, v in given.draws.items()} | {"ways": ways}

    def program(x: jax.Array) -> None:
        numpyro_head(x, label, population, model.scale_spread)

    _check_twin(model, episodes, given, program, x[0])
    kernel = numpyro.infer.NUTS(program)

    @jax.jit
    def chain(key: jax.Array, x: jax.Array) -> tuple[Any, Any]:
        state = kernel.init(key, warmup, None, (x,), {})

        def step(state: Any, _: None) -> tuple[Any, tuple[Any, Any]]:
            state = kernel.sample(state, (x,), {})
            return state, (state.z, state.num_steps)

        _, (z, leaves) = lax.scan(step, state, None, length=warmup + draws)
        return {name: value[warmup:] for name, value in z.items()}, leaves

    jax.block_until_ready(chain(random.PRNGKey(0), jnp.asarray(x[0])))
    leaves: list[float] = []

    def all_tasks() -> None:
        for t in range(tasks):
            one = jnp.asarray(x[(t + 1) % len(x)])
            leaves.append(float(np.mean(jax.block_until_ready(chain(random.PRNGKey(t), one))[1])))

    return cost_of(all_tasks) * (1 / tasks), float(np.mean(leaves))


def _check_twin(
    model: HierarchicalHead, episodes: EpisodeBatch, given: Posterior, program: Any, x: Any
) -> None:
    """NumPyro's head and ours are one density: their difference is the same at two points."""
    density = potential(model, episodes.select([0]), given)
    z = density.prior(2, seed=0)
    ours = density.log_density(z)[0]
    theirs = []
    for i in range(2):
        sites = {k: jnp.asarray(v[i].reshape(-1).numpy()) for k, v in density.constrain(z).items()}
        sites["task_scale_raw"] = sites["task_scale_raw"].reshape(())
        sites["weight_raw"] = sites["weight_raw"].reshape(episodes.way, -1)
        sites["offset_raw"] = sites["offset_raw"].reshape(-1, episodes.way)
        value, _ = numpyro.infer.util.log_density(program, (jnp.asarray(x),), {}, sites)
        theirs.append(float(value))
    gap = (ours[1] - ours[0]).item() - (theirs[1] - theirs[0])
    if abs(gap) > 1e-2:
        raise SystemExit(f"the NumPyro head differs from ours by {gap} nats")


def pyro_nuts(
    model: HierarchicalHead,
    episodes: EpisodeBatch,
    given: Posterior,
    transitions: int,
    evaluations: float,
) -> Cost:
    """Cost of Pyro's NUTS on the first task, extrapolated to so many density evaluations.

    A few transitions are run, and the time per evaluation of the density is taken from them: the
    full run takes minutes per task.
    """
    program = poutine.condition(model, data={k: v[0] for k, v in given.draws.items()})
    task = episodes.select([0])
    with torch.random.fork_rng():
        pyro.set_rng_seed(0)
        start_values, energy, _, _ = initialize_model(program, model_args=(task,))
        count = 0

        def counted(values: dict[str, Tensor]) -> Tensor:
            nonlocal count
            count += 1
            result: Tensor = energy(values)
            return result

        kernel: Any = PyroNUTS(potential_fn=counted, max_tree_depth=6)
        run: Any = MCMC(
            kernel,
            num_samples=max(transitions // 2, 1),
            warmup_steps=max(transitions // 2, 1),
            initial_params=start_values,
            disable_progbar=True,
        )
        cost = cost_of(run.run)
    return cost * (evaluations / count)
