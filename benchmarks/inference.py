"""Inference engines on a hierarchical head: speed against Pyro and NumPyro, and accuracy.

    python benchmarks/inference.py              # T = 64 tasks, 5-way 5-shot, 64 features
    python benchmarks/inference.py --smoke      # tiny, for CI

Ours runs all tasks; its first call, which records and compiles, is not timed, as that is shared by
every later batch of the shape. Peers run one task at a time, compilation left out, on few tasks and
few steps, and their time is extrapolated in proportion; the table says from what. The ratios are
those of the clock; `_cpu` ones, of CPU seconds, are steadier where other work shares the machine.
The peers' model is the whole head; ours samples only what the support informs and draws the rest
from the prior, which gives the same posterior. The last line is JSON; a figure that was not
measured is null.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from gp import episodes_of
from inference_peers import Cost, cost_of, least, numpyro_nuts, pyro_nuts, pyro_svgd, pyro_svi
from torch import Tensor

from bayesfs._utils.threads import share_cores
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.inference.svgd.flow import SteinSchedule, flow
from bayesfs.inference.svgd.kernels import LinearStein
from bayesfs.inference.svgd.metric import Metric
from bayesfs.inference.svgd.svgd import SVGD
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.prediction import predict
from bayesfs.protocols import Engine
from bayesfs.types import EpisodeBatch

FIGURES = (
    "svgd_vs_pyro",
    "svi_vs_pyro",
    "nuts_vs_numpyro",
    "nuts_vs_pyro",
    "svgd_kl_to_nuts",
    "svi_kl_to_nuts",
    "nuts_kl_seed_to_seed",
    "svgd_sd_ratio_min_32d",
    "svgd_sd_ratio_max_32d",
)
"""Printed in any case; null where they were not measured."""


@dataclass(frozen=True)
class Sizes:
    """How much is run; the defaults are the protocol."""

    tasks: int = 64
    way: int = 5
    shot: int = 5
    dim: int = 64
    particles: int = 20
    svgd_steps: int = 200
    svi_steps: int = 300
    warmup: int = 500
    draws: int = 500
    accuracy_tasks: int = 32
    reference_chains: int = 4
    peer_tasks: int = 4
    peer_steps: int = 60
    peer_transitions: int = 30
    repeats: int = 3
    gaussian_dim: int = 32


SMOKE = Sizes(
    tasks=2,
    way=3,
    shot=2,
    dim=8,
    particles=8,
    svgd_steps=10,
    svi_steps=10,
    warmup=10,
    draws=10,
    accuracy_tasks=2,
    reference_chains=2,
    peer_tasks=1,
    peer_steps=2,
    peer_transitions=2,
    repeats=1,
    gaussian_dim=4,
)


def tasks_of(tasks: int, size: Sizes, seed: int) -> EpisodeBatch:
    """Gaussian classes on the unit sphere; every support and query video is one frame."""
    return episodes_of(tasks, size.way, size.shot, size.dim, seed)


def svgd(size: Sizes, *, completions: int, batch_size: int = 64) -> SVGD:
    """The engine of the protocol; it is timed with one completion, so 20 draws, as the peer's."""
    return SVGD(
        particles=size.particles,
        steps=size.svgd_steps,
        precondition=False,
        early_stopping=False,
        completions=completions,
        batch_size=batch_size,
    )


def per_task(engine: Engine, episodes: EpisodeBatch, repeats: int) -> Cost:
    """Cost per task, the least of some calls, after one to record and compile."""
    model = HierarchicalHead()
    given = model.default_population(episodes.dim)
    runs = [partial(engine.infer, model, episodes, seed=i, given=given) for i in range(repeats + 1)]
    costs = [cost_of(run) for run in runs]
    return least(costs[1:]) * (1 / len(episodes))


def speed(size: Sizes) -> dict[str, float]:
    """Ratios of seconds per task, and a table of them."""
    model, episodes = HierarchicalHead(), tasks_of(size.tasks, size, seed=0)
    given = model.default_population(size.dim)
    plain_svi = SVI(
        steps=size.svi_steps, particles=1, early_stopping=False, draws=100, khat_draws=0
    )
    chain = NUTS(warmup=size.warmup, draws=size.draws, chains=1, batch_size=16)
    transitions = size.warmup + size.draws
    ours = {
        "SVGD": per_task(svgd(size, completions=1), episodes, size.repeats),
        "SVI": per_task(plain_svi, episodes, size.repeats),
        "NUTS": per_task(chain, episodes, 1),
    }
    steps = size.peer_steps
    theirs_svgd = pyro_svgd(model, episodes, given, size.particles, steps, size.svgd_steps)
    theirs_svi = pyro_svi(model, episodes, given, steps, size.svi_steps)
    jax_nuts, leaves = numpyro_nuts(
        model, episodes, given, size.peer_tasks, size.warmup, size.draws
    )
    slow_nuts = pyro_nuts(model, episodes, given, size.peer_transitions, transitions * leaves)
    print(f"Seconds per task (clock, CPU), {size.tasks} tasks, {torch.get_num_threads()} threads")
    rows = [
        (f"SVGD, {size.particles} x {size.svgd_steps}", ours["SVGD"], "all tasks"),
        ("  pyro.infer.SVGD, flat site", theirs_svgd, f"1 task, {steps} steps, extrapolated"),
        (f"SVI, {size.svi_steps} steps", ours["SVI"], "all tasks, 100 draws each, no k-hat"),
        ("  pyro.infer.SVI, AutoNormal", theirs_svi, f"1 task, {steps} steps, extrapolated"),
        (f"NUTS, {size.warmup} + {size.draws}", ours["NUTS"], "all tasks, one chain each"),
        ("  NumPyro, one chain", jax_nuts, f"mean of {size.peer_tasks} tasks in full"),
        (
            "  Pyro NUTS, one chain",
            slow_nuts,
            f"1 task, {size.peer_transitions} transitions; time per density evaluation x "
            f"{transitions} transitions x {leaves:.1f} leapfrog steps (NumPyro's)",
        ),
    ]
    for name, value, note in rows:
        print(f"  {name:32s} {value.wall:10.4f} {value.cpu:10.4f}   {note}")
    pairs = {
        "svgd_vs_pyro": (theirs_svgd, ours["SVGD"]),
        "svi_vs_pyro": (theirs_svi, ours["SVI"]),
        "nuts_vs_numpyro": (jax_nuts, ours["NUTS"]),
        "nuts_vs_pyro": (slow_nuts, ours["NUTS"]),
    }
    figures = {name: theirs.wall / own.wall for name, (theirs, own) in pairs.items()}
    by_cpu = {f"{name}_cpu": theirs.cpu / own.cpu for name, (theirs, own) in pairs.items()}
    return figures | by_cpu


def accuracy(size: Sizes) -> dict[str, float]:
    """Mean KL(NUTS || engine) of the label predictive over query frames, in nats."""
    model, episodes = HierarchicalHead(), tasks_of(size.accuracy_tasks, size, seed=1)
    given = model.default_population(size.dim)
    long = NUTS(warmup=size.warmup, draws=size.draws, chains=size.reference_chains)

    def log_prob(engine: Engine, seed: int = 0) -> Tensor:
        posterior = engine.infer(model, episodes, seed=seed, given=given)
        return predict(model, posterior, episodes).frame.log_prob.double()

    reference = log_prob(long)

    def kl(other: Tensor) -> float:
        return float((reference.exp() * (reference - other)).sum(-1).mean())

    hundred = SVGD(steps=size.svgd_steps, precondition=False, particles=5 * size.particles)
    figures = {
        "svgd_kl_to_nuts": kl(log_prob(svgd(size, completions=40))),
        "svi_kl_to_nuts": kl(log_prob(SVI(steps=size.svi_steps))),
        "nuts_kl_seed_to_seed": kl(log_prob(long, seed=1)),
    }
    more = kl(log_prob(hundred))
    print(f"Predictive KL to NUTS, {size.accuracy_tasks} tasks, nats")
    print(f"  SVGD, {size.particles} particles (as timed)  {figures['svgd_kl_to_nuts']:.4f}")
    print(f"  SVGD, {5 * size.particles} particles            {more:.4f}")
    print(f"  SVI                          {figures['svi_kl_to_nuts']:.4f}")
    print(f"  NUTS, another seed           {figures['nuts_kl_seed_to_seed']:.4f}")
    return figures


class Gaussian:
    """One exact Gaussian as a density."""

    tasks = 1

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        self.mean, self.size = mean, len(mean)
        self.precision = torch.linalg.inv(covariance)

    def log_density(self, z: Tensor) -> Tensor:
        """Up to a constant."""
        gap = z - self.mean
        value: Tensor = -0.5 * (gap @ self.precision * gap).sum(-1)
        return value

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """In closed form."""
        return self.log_density(z), self.gradient(z)

    def gradient(self, z: Tensor) -> Tensor:
        """In closed form."""
        return -(z - self.mean) @ self.precision


def gaussians(size: Sizes) -> dict[str, float]:
    """Smallest and largest ratio of marginal sds over four Gaussians, 100 particles each."""
    dim = size.gaussian_dim
    g = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(dim, dim, generator=g))
    scales = torch.logspace(-2, 2, dim)
    kinds = {
        "standard": torch.eye(dim),
        "correlated .9": 0.9 * torch.ones(dim, dim) + 0.1 * torch.eye(dim),
        "sds .1 to 10": torch.diag(scales),
        "the same, rotated": basis @ torch.diag(scales) @ basis.mT,
    }
    print(f"SVGD on exact Gaussians in {dim} dimensions, 100 particles")
    ratios, errors = [], []
    for name, covariance in kinds.items():
        mean, sd = torch.linspace(-2, 2, dim), covariance.diagonal().sqrt()
        density = Gaussian(mean, covariance)
        u = torch.randn(1, 100, dim, generator=g)
        metric = Metric.at_mode(density, u)
        z = flow(density, u, LinearStein(), SteinSchedule(200, 0.1, True), metric=metric).z[0]
        ratios.append(z.std(0) / sd)
        errors.append(float(((z.mean(0) - mean).abs() / sd).max()))
        low, high = float(ratios[-1].min()), float(ratios[-1].max())
        print(f"  {name:18s} sd ratio {low:.3f} to {high:.3f}, mean off by {errors[-1]:.4f} sd")
    every = torch.cat(ratios)
    return {
        "svgd_sd_ratio_min_32d": float(every.min()),
        "svgd_sd_ratio_max_32d": float(every.max()),
        "svgd_mean_error_sd_32d": max(errors),
    }


def peak_memory(tasks: int, batch_size: int, smoke: bool) -> float:
    """MB that a fresh process needs for SVGD on so many tasks, beyond what it held before."""
    command = [sys.executable, __file__, "--memory", str(tasks), str(batch_size)]
    done = subprocess.run(command + ["--smoke"] * smoke, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def memory(size: Sizes, smoke: bool) -> dict[str, float]:
    """Memory in tasks, and bounded by `batch_size`; Linux only."""
    if not Path("/proc/self/clear_refs").exists():
        print("Memory: not measured (needs Linux)")
        return {}
    few, many = size.tasks, 4 * size.tasks
    cells = [(few, few), (2 * few, 2 * few), (many, many), (many, few)]
    peaks = {cell: peak_memory(*cell, smoke) for cell in cells}
    print("Peak memory of SVGD beyond the process's, posterior included")
    for (tasks, batch), value in peaks.items():
        print(f"  {tasks:4d} tasks, batch_size {batch:4d}   {value:8.1f} MB")
    return {f"svgd_mb_{t}_tasks_batch_{b}": v for (t, b), v in peaks.items()}


def run_for_memory(tasks: int, batch_size: int, size: Sizes) -> None:
    """What `peak_memory` measures: one task first, so that what is made once is there already."""
    model, given = HierarchicalHead(), HierarchicalHead().default_population(size.dim)
    svgd(size, completions=1).infer(model, tasks_of(1, size, seed=1), seed=0, given=given)
    episodes = tasks_of(tasks, size, seed=0)
    engine = svgd(size, completions=1, batch_size=batch_size)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _resident("VmRSS")
    engine.infer(model, episodes, seed=0, given=given)
    print(_resident("VmHWM") - before)


def _resident(name: str) -> float:
    """MB, from Linux's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    parser.add_argument("--memory", type=int, nargs=2, metavar=("TASKS", "BATCH"), help="internal")
    choices = ["speed", "accuracy", "gaussians", "memory"]
    parser.add_argument("--only", choices=choices, help="one part; other figures are null")
    options = parser.parse_args()
    size = SMOKE if options.smoke else Sizes()
    if options.memory:
        tasks, batch_size = options.memory
        run_for_memory(tasks, batch_size, size)
        return
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "speed": lambda: speed(size),
        "accuracy": lambda: accuracy(size),
        "gaussians": lambda: gaussians(size),
        "memory": lambda: memory(size, options.smoke),
    }
    figures: dict[str, float | None] = dict.fromkeys(FIGURES)
    for name, part in parts.items():
        if options.only in (None, name):
            figures |= {k: round(v, 5) if math.isfinite(v) else None for k, v in part().items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    share_cores()
    main()
