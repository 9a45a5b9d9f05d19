"""Rows 7 and 8: does aleatoric uncertainty follow what is wrong with a frame, and is it named?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from bayesfs.models.gaussian.families import PerFeature
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.types import CONDITIONS, Posterior
from bayesfs.uncertainty.by_quality import by_cause
from uncertainty_parts.bench import Bench, Found, area

DEFECTS = ("blur_issue", "occlusion_issue", "overexposed_issue", "underexposed_issue")


def row_7(bench: Bench) -> Found:
    """Aleatoric uncertainty of frames that are annotated as poor, against frames without a flag."""
    names = [f"flag_{d}" for d in DEFECTS]
    if not all(n in bench.data.dataset.coords for n in names):
        return {}
    covariates = tuple(str(c) for c in bench.data.dataset["covariate"].values)
    evaluation = bench.held_out(shots=(3,), query_conditions=("clean",), train_shots=(1, 3))
    study = bench.study(evaluation)
    if isinstance(study.model, GaussianHierarchy):
        study = replace(study, model=replace(study.model, covariates=covariates))
    learnt = study.learn(bench.data, seed=0)
    answer = study.infer(study.tasks(bench.data, learnt, seed=0), learnt, seed=0)
    slopes = learnt.population.draws.get("quality_slope")
    if slopes is not None:
        slope = zip(covariates, slopes.mean(0)[0], strict=True)
        print("slopes of the log noise on quality (clean):")
        print("  " + ", ".join(f"{c} {v:+.2f}" for c, v in slope))
    episodes = answer.episodes
    assert episodes.query_frame is not None
    mask = episodes.query_mask.numpy()
    rows = episodes.query_frame.numpy()[mask]
    value = answer.uncertainty["frame_aleatoric"].values[mask]
    flags = np.stack([bench.data.coord(n)[rows] == 1 for n in names])
    count = flags.sum(0)
    areas = {
        d: area(value[f], value[count == 0])
        for d, f in zip(DEFECTS, flags, strict=True)
        if f.any() and not f.all()
    }
    severity = [float(value[count == c].mean()) for c in range(int(count.max()) + 1)]
    print("aleatoric of flagged frames, AUROC against frames without a flag (clean queries):")
    for name, found in areas.items():
        print(f"  {name:26}{found:6.3f}")
    print("  mean by number of flags:", " ".join(f"{s:.3f}" for s in severity))
    return {"t7_auroc": area(value[count > 0], value[count == 0])}


def simulated_population(dim: int, slopes: Sequence[float]) -> tuple[Population, Posterior]:
    """A world, and the posterior of one who knows it."""
    world = Population.isotropic(dim, offset=0.0, quality_slope=slopes, dtype=torch.float64)
    model = GaussianHierarchy(PerFeature(), covariates=tuple("c" * len(slopes)))
    scale = torch.tensor([0.5, 1.0, 0.4, 0.6, 0.4, 0.6], dtype=torch.float64) * dim**0.5
    draws = {
        "offset_raw": torch.zeros(1, len(CONDITIONS), dim, dtype=torch.float64),
        "loading": torch.ones(1, dtype=torch.float64),
        "absent_odds": torch.full((1,), -2.0, dtype=torch.float64),
        "quality_slope": torch.tensor([[list(slopes)] * len(CONDITIONS)], dtype=torch.float64),
        "scale": scale[None],
        "relative": torch.ones(1, 6, dim, dtype=torch.float64),
    }
    used = {site: draws[site] for site in model.population_dims}
    return world, Posterior("exact", used, dict(model.population_dims))


def row_8(bench: Bench, users: int) -> Found:
    """Simulated frames with one defect each, or with another object: is it named?"""
    names, slopes = ("blur", "darkness", "glare"), (0.5, 0.35, 0.4)
    world, population = simulated_population(32, slopes)
    model = GaussianHierarchy(PerFeature(), covariates=names)
    episodes, _ = synthetic_episodes(world, users=users, way=5, shots=3, seed=0)
    strangers, _ = synthetic_episodes(world, users=users, way=5, shots=3, seed=1)
    rng = np.random.default_rng(0)
    which = rng.integers(0, len(names) + 1, episodes.query_mask.shape)
    quality = np.zeros((*which.shape, len(names)))
    for j in range(len(names)):
        quality[..., j] = (which == j) * rng.uniform(2.0, 4.0, which.shape)
    wide = torch.from_numpy(np.exp(quality @ np.array(slopes)))[..., None]
    gone = torch.from_numpy(which == len(names))[..., None]
    noise = torch.from_numpy(rng.normal(size=episodes.query.shape)) * world.frame_scale[1]
    query = torch.where(gone, strangers.query, episodes.query + (wide - 1.0) * noise)
    shown = replace(episodes, query=query, query_quality=torch.from_numpy(quality))
    found = by_cause(model, population, shown, draws=bench.draws, seed=0)
    named = found["frame_drop"].values.argmax(-1)
    named = np.where(found["frame_absent"].values > 0.5, len(names), named)
    print("cause named, on simulated frames with one defect:")
    for j, name in enumerate((*names, "absent")):
        print(f"  {name:26}{(named == j)[which == j].mean():6.3f}")
    return {"t8_cause_accuracy": float((named == which).mean())}
