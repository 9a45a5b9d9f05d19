"""What single precision changes in each model's answers.

    python benchmarks/precision.py --features grocery_feats_lite0_160px.npz
    python benchmarks/precision.py --smoke        # tiny, simulated features, for CI

Each model infers the same tasks twice by its own engine, with the same population and the same
draws, once in float64 and once in float32: 6 photographed things, 3 photographs of each taught, on
64 principal axes (similarities: all features). Printed is the largest difference of any probability
of a query video, and of the mean NLL. Single precision suffices where no probability moves by more
than .001. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transfer_parts.tasks import Sizes, draw_tasks
from transfer_parts.worlds import photographs

from bayesfs._utils.threads import share_cores
from bayesfs.inference.exact import Exact
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.inference.program.potential import potential
from bayesfs.models.gaussian.families import Full, LowRankCovariance, PerFeature, PowerLaw
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.robust import RobustHierarchy
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.likelihoods.dirichlet import Dirichlet
from bayesfs.models.gp.likelihoods.laplace_softmax import LaplaceSoftmax
from bayesfs.models.gp.likelihoods.logistic_softmax import LogisticSoftmax
from bayesfs.models.gp.likelihoods.one_vs_each import OneVsEach
from bayesfs.models.gp.likelihoods.regression import LabelRegression
from bayesfs.models.gp.likelihoods.softmax import Softmax
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.models.niw.classes import NIWClasses
from bayesfs.models.similarity.pool import SimilarityPool, TablePool
from bayesfs.prediction import predict
from bayesfs.protocols import Engine, Model
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.training.population_from_support import support_population
from bayesfs.types import EpisodeBatch, Posterior

SUFFICES = 1e-3
"""Largest change of a probability."""

WHOLE = ("similarity_pool",)
"""Those that see all features."""

EXACT, OWN = Exact(draws=64, population_draws=4), OwnApproximation(draws=64, population_draws=4)
PAIRS: Mapping[str, tuple[Model, Engine]] = {
    "gaussian_power_law": (GaussianHierarchy(PowerLaw()), EXACT),
    "gaussian_per_feature": (GaussianHierarchy(PerFeature()), EXACT),
    "gaussian_low_rank": (GaussianHierarchy(LowRankCovariance()), EXACT),
    "gaussian_full": (GaussianHierarchy(Full()), EXACT),
    "niw": (NIWClasses(), EXACT),
    "robust": (RobustHierarchy(), OWN),
    "linear_head": (HierarchicalHead(), Laplace(draws=64)),
    "similarity_pool": (SimilarityPool(), OWN),
    "table_pool": (TablePool(), OWN),
    "gp_regression": (DeepKernelGP(likelihood=LabelRegression()), EXACT),
    "gp_dirichlet": (DeepKernelGP(likelihood=Dirichlet()), EXACT),
    "gp_laplace": (DeepKernelGP(likelihood=LaplaceSoftmax()), EXACT),
    "gp_logistic": (DeepKernelGP(likelihood=LogisticSoftmax()), EXACT),
    "gp_one_vs_each": (DeepKernelGP(likelihood=OneVsEach()), EXACT),
    "gp_softmax": (DeepKernelGP(likelihood=Softmax()), EXACT),
}


def simulated() -> EpisodeBatch:
    """A tiny task."""
    batch, _ = synthetic_episodes(users=1, way=2, shots=2, frames=1, query_videos=2, dim=4, seed=0)
    return batch.to(torch.float64)


def along_axes(task: EpisodeBatch, dim: int) -> EpisodeBatch:
    """The task on the leading principal axes of its own frames, at unit length."""
    frames = torch.cat([task.support.flatten(0, -2), task.query.flatten(0, -2)])
    frames = frames[frames.norm(dim=-1) > 0]
    centre = frames.mean(0)
    axes = torch.linalg.svd(frames - centre, full_matrices=False)[2][:dim].T

    def seen(x: Tensor) -> Tensor:
        part = (x - centre) @ axes
        return part / part.norm(dim=-1, keepdim=True).clamp(min=1e-12)

    return replace(task, support=seen(task.support), query=seen(task.query), columns=())


def given_by(model: Model, task: EpisodeBatch) -> Posterior:
    """The population that the support alone speaks for; draws of its prior where none can be."""
    found = support_population(model, task, seed=0)
    if found is not None:
        return found
    joint = potential(model, task)
    draws = joint.constrain(joint.prior(4, seed=0))
    sites = [site for site, axes in model.dims.items() if "task" not in axes]
    return Posterior("exact", {s: draws[s] for s in sites}, {s: model.dims[s] for s in sites})


def change(model: Model, engine: Engine, task: EpisodeBatch) -> tuple[float, float]:
    """Largest change of a probability of a query video, and change of their mean NLL."""
    given = given_by(model, task)
    found = []
    for dtype in (torch.float64, torch.float32):
        batch = task.to(dtype)
        population = replace(given, draws={s: v.to(dtype) for s, v in given.draws.items()})
        posterior = engine.infer(model, batch, seed=0, given=population)
        found.append(predict(model, posterior, batch, given=population).video.prob.double())
    double, single = found
    label = task.query_labels.clamp(min=0)[..., None]
    real = task.video_mask & (task.query_labels >= 0)
    nll = [-p.gather(-1, label)[..., 0][real].log().mean() for p in found]
    moved = (double - single).abs()[task.video_mask]
    return float(moved.max()), float((nll[1] - nll[0]).abs())


def main() -> None:
    """Print the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="npz of photographs")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--axes", type=int, default=64)
    parser.add_argument("--smoke", action="store_true", help="tiny, simulated features")
    args = parser.parse_args()
    if args.smoke:
        tasks = [simulated()]
    elif args.features is None:
        parser.error("expected --features FILE.npz, or --smoke")
    else:
        sizes = Sizes(tasks=args.tasks, objects=6, untaught=0)
        drawn = draw_tasks(photographs(args.features), 3, sizes, seed=0)
        tasks = [task.to(torch.float64) for task in drawn]
    figures: dict[str, float | None] = {}
    print("largest change of a probability, of the mean NLL; float32 suffices")
    for name, (model, engine) in PAIRS.items():
        seen = tasks if name in WHOLE else [along_axes(task, args.axes) for task in tasks]
        try:
            moved = [change(model, engine, task) for task in seen]
        except torch.linalg.LinAlgError as e:
            print(f"  {name:20s} fails in float32: {e}", flush=True)
            figures[f"{name}.prob_max_change"] = None
            continue
        prob, nll = (max(part) for part in zip(*moved, strict=True))
        figures |= {f"{name}.prob_max_change": prob, f"{name}.nll_change": nll}
        verdict = "yes" if prob <= SUFFICES else "no"
        print(f"  {name:20s} {prob:.1e}  {nll:.1e}  {verdict}", flush=True)
    known = {k: v for k, v in figures.items() if v is not None and math.isfinite(v)}
    enough = sum(v <= SUFFICES for k, v in known.items() if k.endswith("prob_max_change"))
    print(json.dumps({**figures, "models": len(PAIRS), "float32_suffices": enough}))


if __name__ == "__main__":
    share_cores()
    main()
