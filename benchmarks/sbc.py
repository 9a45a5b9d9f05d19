"""Simulation-based calibration of every pair of model and engine.

    python benchmarks/sbc.py                   # all pairs, about 40 minutes
    python benchmarks/sbc.py --out DIR         # ... and rank and TARP pictures
    python benchmarks/sbc.py --only Gaussian   # pairs whose name holds that text
    python benchmarks/sbc.py --smoke           # tiny, for CI

For several draws of the population, tasks are drawn from the model, inferred, and the truth is
ranked among the posterior draws (`bayesfs.diagnostics.sbc` says how, and what p is: Bonferroni over
the quantities of a pair). A pair passes at p > .01; about one in a hundred right pairs fails by
chance. Controls are engines known to be wrong: they must fail, or the sizes are too small to tell.
Those of the head and of robust frames are approximations of another shape than the posterior: good
for a predictive, not for reading latents, for which `Moved` goes on from their draws.
`power_sd_09` is the share of short runs, one population and 96 tasks, that flag an exact posterior
whose sds are .9 of what they should be, and `short_false_alarms` that of the exact one.
The last line is JSON; a figure that was not measured is null.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path

import torch
from torch import Tensor

from bayesfs._utils.threads import share_cores
from bayesfs.diagnostics.sbc import RANKED_DRAWS, Calibration, calibrate
from bayesfs.errors import BayesfsError
from bayesfs.inference.exact import Exact
from bayesfs.inference.gibbs.gibbs import Gibbs
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.moved import Moved
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.inference.program.simulation import Simulator
from bayesfs.inference.svgd.svgd import SVGD
from bayesfs.inference.svi.flow import Flow
from bayesfs.inference.svi.guides import FullRank, MeanField
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.robust import RobustHierarchy
from bayesfs.models.gp.conditioning import TaskPrior, condition, root
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.feature_maps import Identity
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.models.niw.classes import NIWClasses
from bayesfs.plots.sbc import coverage_picture, rank_picture
from bayesfs.protocols import Engine, Model, Progress
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import EpisodeBatch, Posterior

PASSED = 0.01


@dataclass(frozen=True)
class Sizes:
    """How much is done; of NUTS small batches, of which all have one compiled sampler a shape."""

    populations: int = 4
    tasks: int = 96
    steps: int = 600
    warmup: int = 200
    draws: int = 64
    batch: int = 8
    short_runs: int = 50


SMOKE = Sizes(populations=1, tasks=32, steps=30, warmup=30, draws=32, short_runs=5)

SHORT = 96
"""Tasks of a short run, as the tests make them; `power_sd_09` says what it finds."""

Template = Callable[[int, int], EpisodeBatch]
"""(tasks, seed) -> sizes and masks, and features for a head."""


def videos(tasks: int, seed: int) -> EpisodeBatch:
    """Tasks of unequal ways, shots and frames for a generative model."""
    episodes, _ = synthetic_episodes(
        users=tasks, way=3, shots=3, frames=3, query_videos=1, dim=3, ragged=True, seed=seed
    )
    return episodes.to(torch.float64)


def measured_videos(tasks: int, seed: int) -> EpisodeBatch:
    """The same with one measured quality per frame, standard normal."""
    episodes = videos(tasks, seed)
    generator = torch.Generator().manual_seed(seed)
    quality = torch.randn(*episodes.support_mask.shape, 1, generator=generator, dtype=torch.float64)
    absent = torch.zeros(*episodes.query_mask.shape, 1, dtype=torch.float64)
    return replace(episodes, support_quality=quality, query_quality=absent)


def stills(tasks: int, seed: int) -> EpisodeBatch:
    """Features of 12 videos of one frame for a head that labels them; some tasks fall out."""
    episodes, _ = synthetic_episodes(
        users=tasks + tasks // 2, way=3, shots=4, frames=1, query_videos=1, dim=3, seed=seed
    )
    return episodes.to(torch.float64)


@dataclass(frozen=True)
class Subject:
    """A model, what its tasks look like, and the engines to hold against it."""

    model: Model
    template: Template
    engines: Mapping[str, Engine]
    controls: Mapping[str, Engine]


def subjects(sizes: Sizes) -> dict[str, Subject]:
    """Every model with its engines; names are those of the figures."""
    svi = partial(SVI, steps=sizes.steps, draws=4 * RANKED_DRAWS, khat_draws=0)
    nuts = NUTS(warmup=sizes.warmup, draws=sizes.draws, chains=4, batch_size=sizes.batch)
    wide = partial(Laplace, draws=4 * RANKED_DRAWS)
    svgd = SVGD(particles=RANKED_DRAWS + 1, steps=min(sizes.steps, 300), completions=1)
    gaussian = {
        "Exact": Exact(draws=RANKED_DRAWS),
        "SVI": svi(guide=FullRank()),
        "Laplace": wide(),
        "SVGD": svgd,
        "NUTS": nuts,
    }
    of_head = {
        "SVI": svi(guide=FullRank()),
        "Flow": svi(guide=Flow()),
        "Laplace": wide(grid="task_scale_raw"),
        "SVGD": replace(svgd, precondition=False),
    }
    of_robust = {"Own": OwnApproximation(RANKED_DRAWS), "SVI": svi(guide=FullRank())}
    head = {
        **moved(of_head),
        "Gibbs": Gibbs(burn_in=sizes.warmup // 2, draws=RANKED_DRAWS + 1, thin=3, chains=2),
        "NUTS": nuts,
    }
    classes = {"Exact": Exact(draws=RANKED_DRAWS), "NUTS": nuts}
    robust = {**moved(of_robust), "NUTS": nuts}
    measured = {"Exact": Exact(draws=RANKED_DRAWS), "NUTS": nuts}
    with_quality = GaussianHierarchy(covariates=("sharpness",))
    narrow = {"MeanField": svi(guide=MeanField())}
    return {
        "GaussianHierarchy": Subject(GaussianHierarchy(), videos, gaussian, narrow),
        "QualityHierarchy": Subject(with_quality, measured_videos, measured, {}),
        "HierarchicalHead": Subject(HierarchicalHead(weight_scale=2.0), stills, head, of_head),
        "NIWClasses": Subject(NIWClasses(), videos, classes, {}),
        "RobustHierarchy": Subject(RobustHierarchy(), videos, robust, of_robust),
    }


def moved(engines: Mapping[str, Engine]) -> dict[str, Engine]:
    """Engines whose draws are moved to the posterior; each goes on from one draw of theirs."""
    return {f"Moved({name})": Moved(e, draws=RANKED_DRAWS + 1) for name, e in engines.items()}


@dataclass(frozen=True)
class Narrowed(Engine):
    """Exact draws, brought nearer to their mean by a factor."""

    factor: float

    def infer(
        self,
        model: Model,
        episodes: EpisodeBatch,
        *,
        seed: int,
        given: Posterior | None = None,
        progress: Progress | None = None,
    ) -> Posterior:
        """The draws; of the population they stay."""
        exact = Exact(draws=RANKED_DRAWS).infer(model, episodes, seed=seed, given=given)
        draws = {
            site: value.mean(0) + self.factor * (value - value.mean(0))
            if "task" in model.dims[site]
            else value
            for site, value in exact.draws.items()
        }
        return exact.changed(draws=draws)


def flagged(factor: float, runs: int) -> float:
    """Share of short runs, of one population and `SHORT` tasks, that flag sds times the factor."""
    subject = Subject(GaussianHierarchy(), videos, {}, {})
    found = 0
    for seed in range(runs):
        template = subject.template(SHORT, seed)
        given = population_draw(subject.model, template, seed)
        engine = Narrowed(factor)
        short = calibrate(subject.model, engine, template, population=given, seed=seed)
        found += short.p <= PASSED
    return found / runs


def population_draw(model: Model, template: EpisodeBatch, seed: int) -> Posterior | None:
    """One draw of the population sites from their prior."""
    shared = {site: axes for site, axes in model.dims.items() if "task" not in axes}
    if not shared:
        return None
    draws = dict(Simulator(model, template).draw(seed=seed).draws)
    if isinstance(model, NIWClasses):  # its program sees features less their offset
        draws["offset_raw"] = torch.zeros_like(draws["offset_raw"])
    return Posterior("exact", {site: draws[site][None] for site in shared}, shared)


def examine(subject: Subject, engine: Engine, sizes: Sizes) -> Calibration:
    """Ranks over all populations."""
    parts = []
    for seed in range(sizes.populations):
        template = subject.template(sizes.tasks, seed)
        given = population_draw(subject.model, template, seed)
        parts.append(calibrate(subject.model, engine, template, population=given, seed=seed))
    return reduce(Calibration.joined, parts)


def examine_regression(sizes: Sizes) -> Calibration:
    """The Gaussian process regression behind the deep kernels, on real-valued targets.

    Coded labels are no draw from the model, so that functions and targets are drawn here, from the
    same prior covariances that `Exact` conditions on; the functions at the support are ranked.
    """
    parts = [regression_ranks(sizes.tasks, seed) for seed in range(sizes.populations)]
    return reduce(Calibration.joined, parts)


def regression_ranks(tasks: int, seed: int) -> Calibration:
    """Ranks of the functions of one population's tasks."""
    episodes, _ = synthetic_episodes(
        users=tasks, way=2, shots=2, frames=2, query_videos=1, dim=3, seed=seed
    )
    model = DeepKernelGP(VideoCovariance(features=Identity()))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        episodes = episodes.to(torch.float64)
        values = dict(model.sample_population(episodes.support))
        prior = TaskPrior.of(model.covariance, values, episodes)
        x = prior.support.x
        signal = model.covariance.signal(values, x, x) * prior.support.pairs
        roots = root(signal)[:, None], root(prior.matrix - signal)[:, None]
        shape = (tasks, 2, prior.matrix.shape[-1])
        noise = torch.randn(3, *shape, 1, dtype=torch.float64)
        truth, other = ((roots[0] @ e)[..., 0] for e in noise[:2])
        targets = truth + (roots[1] @ noise[2])[..., 0]
        start, error = torch.randn(2, RANKED_DRAWS, *shape, dtype=torch.float64)
    draws = condition(prior, targets).function(start, error)
    frames = torch.distributions.MultivariateNormal(torch.zeros_like(truth), scale_tril=roots[1])
    quantities: dict[str, Callable[[Tensor], Tensor]] = {
        "function[0, 0]": lambda f: f[..., 0, 0],
        "function[1, 3]": lambda f: f[..., 1, 3],
        "rms of function": lambda f: f.square().mean((-1, -2)).sqrt(),
        "log-likelihood": lambda f: frames.log_prob(targets - f).sum(-1),
        "TARP": lambda f: (f - other).square().sum((-1, -2)),
    }
    ranks = {n: (q(draws) < q(truth)).sum(0).numpy() for n, q in quantities.items()}
    return Calibration(ranks, RANKED_DRAWS)


def report(name: str, found: Calibration, seconds: float, out: Path | None) -> None:
    """Print a pair's row with its worst quantity, and draw its pictures."""
    table = found.table
    worst = table["p"].idxmin()
    row = table.loc[worst]
    print(
        f"{name:34s} p {found.p:8.5f}  {found.simulations:4d} simulations  {seconds:6.1f} s  "
        f"worst: {worst} (p {row['p']:.5f}, chi-square {row['chi_square_p']:.5f}, rank mean "
        f"{row['mean']:.3f}, sd {row['sd']:.3f})",
        flush=True,
    )
    if out is not None:
        rank_picture(found, name).savefig(out / f"{name}.ranks.png", dpi=110)
        coverage_picture(found, name).savefig(out / f"{name}.tarp.png", dpi=110)


def main() -> None:
    """Run the benchmark and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    parser.add_argument("--only", default="", help="pairs whose name holds this text")
    parser.add_argument("--tasks", type=int, help="tasks of each population")
    parser.add_argument("--populations", type=int, help="draws of the population")
    parser.add_argument("--out", type=Path, help="folder for the pictures")
    args = parser.parse_args()
    sizes = SMOKE if args.smoke else Sizes()
    chosen = {"tasks": args.tasks, "populations": args.populations}
    sizes = replace(sizes, **{name: value for name, value in chosen.items() if value})
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, float | int | None] = {}
    passed = total = 0
    if args.only in "DeepKernelGP.Exact":
        start = time.perf_counter()
        found = examine_regression(sizes)
        report("DeepKernelGP.Exact", found, time.perf_counter() - start, args.out)
        figures["DeepKernelGP.Exact.p"] = found.p
        total, passed = 1, int(found.p > PASSED)
    if args.only in "power":
        figures["power_sd_09"] = flagged(0.9, sizes.short_runs)
        figures["short_false_alarms"] = flagged(1.0, sizes.short_runs)
    for model, subject in subjects(sizes).items():
        named = [(f"{model}.{n}", e, True) for n, e in subject.engines.items()]
        named += [(f"control.{model}.{n}", e, False) for n, e in subject.controls.items()]
        for name, engine, counts in named:
            if args.only not in name:
                continue
            start = time.perf_counter()
            total += counts
            try:
                found = examine(subject, engine, sizes)
            except BayesfsError as error:
                print(f"{name:34s} not measured: {error}", flush=True)
                figures[f"{name}.p"] = None
                continue
            report(name, found, time.perf_counter() - start, args.out)
            figures[f"{name}.p"] = found.p
            passed += counts and found.p > PASSED
    counts = {"pairs": total, "pairs_passed": passed, "pairs_failed": total - passed}
    print(json.dumps({**figures, **counts}))


if __name__ == "__main__":
    share_cores()
    main()
