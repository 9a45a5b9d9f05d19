"""Do the kinds, levels and causes of uncertainty mean what they say? Eleven properties, measured.

    python benchmarks/uncertainty.py --train TREE_OR_STORE --test TREE_OR_STORE
    python benchmarks/uncertainty.py --smoke         # tiny, simulated features, for CI

Everything is learnt on the first tree's `train` users and measured on the second's `test` users;
rows 8 and 11 use simulated tasks, whose truth is known. Bars are in the table. The last line is
JSON; a figure that was not measured is null.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import as_split, embeddings_of
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from bayesfs.causes import by_cause
from bayesfs.data.synthetic import Population, synthetic_embeddings, synthetic_episodes
from bayesfs.deciding import Judged, judged, rank_of, unit_rules
from bayesfs.evaluation.disentangle import Relabelled, correlation, disentanglement_error
from bayesfs.evaluation.selective import auroc
from bayesfs.evaluation.users import HeldOutUsers
from bayesfs.features.reduce import PrincipalAxes
from bayesfs.gain import expected_gain
from bayesfs.inference.exact import Exact
from bayesfs.inference.svi import SVI
from bayesfs.levels import EPISTEMIC, PARTS, by_level
from bayesfs.models.families import PerFeature
from bayesfs.models.gaussian import GaussianHierarchy
from bayesfs.models.objectives import PredictiveScore, label_score
from bayesfs.predict import thinned
from bayesfs.study import Answer, Learnt, Study
from bayesfs.types import KINDS, UNLABELLED, Embeddings, EpisodeBatch, Posterior
from bayesfs.uncertainty import decompose

Floats = NDArray[np.float64]
SHOTS = (1, 2, 3, 4, 5)
NOISE = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
DEFECTS = ("blur_issue", "occlusion_issue", "overexposed_issue", "underexposed_issue")
BARS = {
    "t1_spearman": "<= -.95",
    "t2_drift": "<= .10",
    "t3_aleatoric_r": ">= .9",
    "t3_epistemic_r": "abs <= .3",
    "t4_disentanglement_error": "<= .25",
    "t5_spearman": "< .8",
    "t6_epistemic_minus_best_other_auroc": ">= .05",
    "t7_auroc": ">= .75",
    "t8_cause_accuracy": ">= .90",
    "t9_gain_vs_random": ">= 1.5",
    "t9_spearman": ">= .5",
    "t10_users_covered": ">= .9",
    "t11_z_max": "<= 2",
}


@dataclass(frozen=True)
class Bench:
    """Data and sizes that all rows share."""

    data: Embeddings
    dim: int
    steps: int
    repeats: int
    draws: int

    def study(self, evaluation: Any, model: GaussianHierarchy | None = None) -> Study:
        """The default study, with the given evaluation."""
        return Study(
            model or GaussianHierarchy(),
            Exact(draws=self.draws, population_draws=8),
            evaluation,
            SVI(steps=self.steps, draws=100, khat_draws=0),
            PredictiveScore,
            PrincipalAxes(self.dim),
        )

    def held_out(self, **options: Any) -> HeldOutUsers:
        """Users not seen before, several tasks each."""
        settings = {"shots": SHOTS, "episodes_per_user": self.repeats}
        return HeldOutUsers(**(settings | options))


def mean_of(answer: Answer, name: str) -> float:
    """Mean over the frames or videos that exist."""
    return float(np.nanmean(answer.uncertainty[name].values))


def accuracy_of(answer: Answer) -> float:
    """Share of frames whose likeliest label is right."""
    label = answer.episodes.query_labels[..., None]
    mask = answer.episodes.query_mask & (label >= 0)
    right = answer.predictive.frame.log_prob.argmax(-1) == label
    return float(right[mask].double().mean())


def area(positive: Floats, negative: Floats) -> float:
    """Area under the ROC curve of a score, from its values on either side."""
    truth = np.r_[np.ones(len(positive), bool), np.zeros(len(negative), bool)]
    return auroc(np.r_[positive, negative], truth)


def rows_1_2_5(bench: Bench, study: Study, learnt: Learnt) -> tuple[dict[str, float], Any]:
    """Epistemic falls with support videos, aleatoric does not; how far they are the same."""
    tasks = study.tasks(bench.data, learnt, seed=0)
    answers = [study.infer(tasks.limit_shots(s), learnt, seed=0) for s in SHOTS]
    aleatoric = [mean_of(a, "frame_aleatoric") for a in answers]
    epistemic = [mean_of(a, "frame_epistemic") for a in answers]
    accuracy = [accuracy_of(a) for a in answers]
    print("support videos  aleatoric  epistemic  accuracy (frames)")
    for shots, *values in zip(SHOTS, aleatoric, epistemic, accuracy, strict=True):
        print(f"{shots:14d} " + " ".join(f"{v:10.3f}" for v in values))
    last = answers[-1].uncertainty
    mask = tasks.query_mask.numpy()
    pair = [last[f"frame_{kind}"].values[mask] for kind in ("aleatoric", "epistemic")]
    at2 = aleatoric[SHOTS.index(2)]
    falling = bool(np.all(np.diff(epistemic) < 0))
    return {
        "t1_spearman": float(spearmanr(SHOTS, epistemic).statistic) if falling else float("nan"),
        "t2_drift": abs(aleatoric[-1] - at2) / at2,
        "t5_spearman": float(spearmanr(*pair).statistic),
    }, (aleatoric, epistemic, accuracy)


def rows_3_4(bench: Bench, size: Any) -> dict[str, float]:
    """Label noise, in learning and in testing; and the disentanglement error."""
    found: list[tuple[float, float, float]] = []
    print("label noise  aleatoric  epistemic  accuracy (frames)")
    for share in NOISE:
        study = bench.study(Relabelled(bench.held_out(), share))
        learnt = study.learn(bench.data, seed=0)
        answer = study.infer(study.tasks(bench.data, learnt, seed=0), learnt, seed=0)
        values = tuple(mean_of(answer, f"frame_{k}") for k in ("aleatoric", "epistemic"))
        found.append((*values, accuracy_of(answer)))  # type: ignore[arg-type]
        print(f"{share:11.1f} " + " ".join(f"{v:10.3f}" for v in found[-1]))
    aleatoric, epistemic, accuracy = (list(column) for column in zip(*found, strict=True))
    return {
        "t3_aleatoric_r": correlation(aleatoric, accuracy),
        "t3_epistemic_r": correlation(epistemic, accuracy),
        "t4_disentanglement_error": disentanglement_error(size, (aleatoric, epistemic, accuracy)),
    }


def with_queries_of_others(tasks: EpisodeBatch) -> EpisodeBatch:
    """The same support, and the queries of the next user's task."""
    users = tasks.users
    order = [
        next(j for j in [*range(t, len(users)), *range(t)] if users[j] != user)
        for t, user in enumerate(users)
    ]
    other = tasks.select(order)
    names = ("query", "query_mask", "query_kind", "query_quality", "query_frame", "videos")
    labels = torch.full_like(other.query_labels, UNLABELLED)
    return replace(tasks, query_labels=labels, **{n: getattr(other, n) for n in names})


def row_6(bench: Bench, study: Study, learnt: Learnt) -> dict[str, float]:
    """Objects that nobody taught: the open world's epistemic against what else would tell."""
    tasks = study.tasks(bench.data, learnt, seed=0)
    model = study.model_for(learnt.projection)
    assert isinstance(model, GaussianHierarchy)
    scores: dict[str, list[Floats]] = {}
    for episodes in (tasks, with_queries_of_others(tasks)):
        values = thinned(learnt.population, 8)
        opened = model.open_predictive(
            episodes, values, untaught=episodes.way, draws=bench.draws // 8, seed=0
        )
        wide = decompose(opened, episodes)
        answer = study.infer(episodes, learnt, seed=0)
        mask = episodes.query_mask.numpy()
        columns = {
            "epistemic, open world": wide["frame_epistemic"].values,
            "epistemic, taught classes": answer.uncertainty["frame_epistemic"].values,
            "aleatoric, open world": wide["frame_aleatoric"].values,
            "aleatoric, taught classes": answer.uncertainty["frame_aleatoric"].values,
            "1 - max p": 1.0 - answer.predictive.frame.prob.amax(-1).numpy(),
        }
        for name, value in columns.items():
            scores.setdefault(name, []).append(value[mask])
    areas = {name: area(new, own) for name, (own, new) in scores.items()}
    print("objects of other users, AUROC over frames:")
    for name, found in areas.items():
        print(f"  {name:26}{found:6.3f}")
    rest = [a for name, a in areas.items() if not name.startswith("epistemic")]
    return {"t6_epistemic_minus_best_other_auroc": areas["epistemic, open world"] - max(rest)}


def row_7(bench: Bench) -> dict[str, float]:
    """Aleatoric uncertainty of frames that are annotated as poor, against frames without a flag."""
    names = [f"flag_{d}" for d in DEFECTS]
    if not all(n in bench.data.dataset.coords for n in names):
        return {}
    covariates = tuple(str(c) for c in bench.data.dataset["covariate"].values)
    evaluation = bench.held_out(shots=(3,), query_kinds=("clean",), train_shots=(1, 3))
    study = bench.study(evaluation, GaussianHierarchy(covariates=covariates))
    learnt = study.learn(bench.data, seed=0)
    answer = study.infer(study.tasks(bench.data, learnt, seed=0), learnt, seed=0)
    slope = learnt.population.draws["quality_slope"].mean(0)
    print("slopes of the log noise on quality (clean):")
    print("  " + ", ".join(f"{c} {v:+.2f}" for c, v in zip(covariates, slope[0], strict=True)))
    episodes = answer.episodes
    assert episodes.query_frame is not None
    mask = episodes.query_mask.numpy()
    rows = episodes.query_frame.numpy()[mask]
    value = answer.uncertainty["frame_aleatoric"].values[mask]
    flags = np.stack([bench.data.coord(n)[rows] == 1 for n in names])
    count = flags.sum(0)
    areas = {d: area(value[f], value[count == 0]) for d, f in zip(DEFECTS, flags, strict=True)}
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
        "offset_raw": torch.zeros(1, len(KINDS), dim, dtype=torch.float64),
        "loading": torch.ones(1, dtype=torch.float64),
        "absent_odds": torch.full((1,), -2.0, dtype=torch.float64),
        "quality_slope": torch.tensor([[list(slopes)] * len(KINDS)], dtype=torch.float64),
        "scale": scale[None],
        "relative": torch.ones(1, 6, dim, dtype=torch.float64),
    }
    used = {site: draws[site] for site in model.population_dims}
    return world, Posterior("exact", used, dict(model.population_dims))


def row_8(bench: Bench, users: int) -> dict[str, float]:
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


def row_9(bench: Bench, study: Study, learnt: Learnt, trials: int) -> dict[str, float]:
    """Record the video that is advised: how far does the NLL of the queries fall?"""
    model = study.model_for(learnt.projection)
    assert isinstance(model, GaussianHierarchy)
    tasks = study.tasks(bench.data, learnt, seed=0)
    values = thinned(learnt.population, 4)
    rng = np.random.default_rng(0)
    cells: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
    chosen, random, weakest = [], [], []
    for trial in range(trials):
        shots = torch.from_numpy(rng.integers(1, 4, (len(tasks), tasks.way)))
        keep = torch.arange(tasks.support.shape[2]) < shots[..., None]
        before = masked_support(tasks, keep)
        gain = expected_gain(model, learnt.population, before, fantasies=8, seed=trial)
        start, prob = nll_and_prob(model, before, values)
        drops = []
        for way in range(tasks.way):
            grown = keep.clone()
            grown[:, way] = torch.arange(keep.shape[-1]) < shots[:, way, None] + 1
            drops.append(start - nll_and_prob(model, masked_support(tasks, grown), values)[0])
        drop = torch.stack(drops, -1)
        for t in range(len(tasks)):
            real = tasks.way_mask[t]
            g, d = gain[t, real].numpy(), drop[t, real].numpy()
            for k, way in enumerate(real.nonzero()[:, 0].tolist()):
                cell = tasks.users[t], way, int(shots[t, way])
                cells.setdefault(cell, []).append((float(g[k]), float(d[k])))
            chosen.append(d[g.argmax()])
            random.append(d.mean())
            weakest.append(d[least_confident(prob[t], tasks.video_mask[t])[real].argmin()])
    print("fall of the queries' NLL after one more video, nats per query:")
    for name, drops_ in (("advised", chosen), ("random", random), ("least confident", weakest)):
        print(f"  {name:26}{np.mean(drops_):7.4f}")
    single = np.array([pair for pairs in cells.values() for pair in pairs])
    means = np.array([np.mean(pairs, axis=0) for pairs in cells.values()])
    each, rank = (float(spearmanr(v[:, 0], v[:, 1]).statistic) for v in (single, means))
    print(
        f"Spearman of predicted and realised gain: {each:.3f} of single recordings, {rank:.3f} of"
    )
    print(f"  means over recordings of one object with so many videos ({len(means)} of them)")
    return {
        "t9_gain_vs_random": float(np.mean(chosen) / np.mean(random)),
        "t9_spearman": rank,
    }


def masked_support(tasks: EpisodeBatch, keep: Tensor) -> EpisodeBatch:
    """The tasks with only the support videos to keep (task, way, shot)."""
    mask = tasks.support_mask & keep[..., None]
    return replace(tasks, support=tasks.support * mask[..., None], support_mask=mask)


def nll_and_prob(
    model: GaussianHierarchy, tasks: EpisodeBatch, values: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """(task,) NLL per query, mean of video and frames, and (task, video, way) probabilities."""
    with torch.no_grad():
        parts = [
            model.log_labels(tasks, {s: v[p] for s, v in values.items()})
            for p in range(len(values["loading"]))
        ]
    frame, video = (torch.stack(p).logsumexp(0) - np.log(len(p)) for p in zip(*parts, strict=True))
    count = tasks.video_mask.sum(-1).clamp(min=1)
    return -label_score(frame, video, tasks) / count, video.exp()


def least_confident(prob: Tensor, mask: Tensor) -> Tensor:
    """(way,) mean top probability of the queries that are taken for each class; 2 where none."""
    top, label = prob[mask].max(-1)
    means = [top[label == k].mean() if (label == k).any() else 2.0 for k in range(prob.shape[-1])]
    return torch.tensor([float(m) for m in means])


def left_out_train_users(bench: Bench, study: Study) -> Judged:
    """Frames of every train user, by a population that was learnt on the other train users."""
    train = bench.data.where(split="train")
    parts = []
    for user in sorted(set(train.coord("user").tolist())):
        fold = as_split(train, [user])
        learnt = study.learn(fold, seed=0)
        answer = study.infer(study.tasks(fold, learnt, seed=0), learnt, seed=0)
        parts.append(judged(answer.predictive, answer.episodes, "frame"))
    way = max(part.prob.shape[1] for part in parts)
    wide = [np.pad(p.prob, ((0, 0), (0, way - p.prob.shape[1]))) for p in parts]
    rest = {n: np.concatenate([getattr(p, n) for p in parts]) for n in ("user", "label", "absent")}
    return Judged(prob=np.concatenate(wide), **rest)


def row_10(bench: Bench, study: Study, learnt: Learnt) -> dict[str, float]:
    """Prediction sets of frames, calibrated across left-out train users: each test user's cover."""
    known = left_out_train_users(bench, study)
    rules = unit_rules(known, level=0.9, share=0.9, risk=0.1, rejected=0.05)
    tasks = study.tasks(bench.data, learnt, seed=0)
    prob = study.infer(tasks, learnt, seed=0).predictive.frame.prob.numpy()
    label, mask = tasks.query_labels.numpy(), tasks.query_mask.numpy()
    sets = rules.in_set(prob)
    plain = np.sort(prob, -1)[..., ::-1].cumsum(-1)
    size = (plain < 0.9).sum(-1) + 1
    order = (-prob).argsort(-1).argsort(-1)
    covered = np.take_along_axis(sets, label[:, :, None, None], -1)[..., 0]
    naive = np.take_along_axis(order, label[:, :, None, None], -1)[..., 0] < size
    users = np.array(tasks.users)
    count = len(set(known.user.tolist()))
    promised = rank_of(count, 0.9) / (count + 1)
    print(f"sets at 90 %, frames (promised to {promised:.0%} of users, from {count}):")
    shares = []
    for user in sorted(set(users.tolist())):
        own = mask & (users == user)[:, None, None]
        shares.append(float(covered[own].mean()))
        print(
            f"  {user}: coverage {shares[-1]:.3f}, size {sets[own].sum(-1).mean():.2f}; "
            f"highest probabilities up to .9: {naive[own].mean():.3f}, {size[own].mean():.2f}"
        )
    return {"t10_users_covered": float(np.mean([s >= 0.88 for s in shares]))}


def row_11(bench: Bench, users: int, repeats: int) -> dict[str, float]:
    """Level parts add up to the whole, and 100 draws say what 1000 say."""
    world, population = simulated_population(16, ())
    model = GaussianHierarchy(PerFeature())
    episodes, _ = synthetic_episodes(world, users=users, way=5, shots=2, seed=0)

    def whole(draws: int, seed: int) -> float:
        values = thinned(population, 1)
        predictive = model.predictive(episodes, values, draws=draws, seed=seed)
        return float(np.nanmean(decompose(predictive, episodes)["frame_epistemic"]))

    def parts(draws: int, seed: int) -> float:
        levels = by_level(model, population, episodes, draws=draws, seed=seed)
        return float(np.nanmean(sum(levels[f"frame_{p}"].values for p in EPISTEMIC)))

    few = [whole(100, seed) for seed in range(repeats)]
    many = [whole(1000, seed + 100) for seed in range(repeats)]
    nested = [parts(100, seed + 200) for seed in range(repeats)]
    levels = by_level(model, population, episodes, draws=100, seed=0)
    total = sum(levels[f"frame_{p}"].values for p in PARTS)
    values = thinned(population, 1)
    exact = decompose(model.predictive(episodes, values, draws=2, seed=0), episodes)
    gap = float(np.nanmax(np.abs(total - exact["frame_total"].values)))
    z = {"100 vs 1000 draws": z_of(few, many), "levels vs whole": z_of(nested, many)}
    print(f"all parts against the total entropy: largest gap {gap:.1e} nats")
    for name, value in z.items():
        print(f"  {name:26}{value:6.2f} standard errors")
    return {"t11_z_max": max(z.values()) if gap < 1e-6 else float("inf")}


def z_of(a: Sequence[float], b: Sequence[float]) -> float:
    """Distance of two means over seeds in standard errors."""
    error = np.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b))
    return float(abs(np.mean(a) - np.mean(b)) / error)


def simulated() -> Embeddings:
    """Tiny features from the hierarchy itself, for --smoke."""
    embeddings, _ = synthetic_embeddings(
        Population.isotropic(16, quality_slope=(0.4,)),
        users=5,
        way=3,
        shots=5,
        frames=3,
        dim=16,
        seed=0,
    )
    shifted = embeddings.with_features(embeddings.features + 3.0)
    return as_split(shifted, sorted(set(shifted.coord("user").tolist()))[-2:])


def joined(train: Embeddings, test: Embeddings) -> Embeddings:
    """Train users of the first and test users of the second store, with all they say of frames."""
    import xarray as xr

    parts = [train.where(split="train").dataset, test.where(split="test").dataset]
    return Embeddings(xr.concat(parts, dim="frame", data_vars="minimal", coords="minimal"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--train", type=Path, help="tree or store with `train` users")
    parser.add_argument("--test", type=Path, help="tree or store with `test` users")
    parser.add_argument("--smoke", action="store_true", help="tiny, simulated features")
    options = parser.parse_args()
    if not options.smoke and (options.train is None or options.test is None):
        parser.error("--train and --test are needed, or --smoke")
    with tempfile.TemporaryDirectory() as scratch:
        if options.smoke:
            bench = Bench(simulated(), dim=8, steps=5, repeats=1, draws=16)
        else:
            train = embeddings_of(options.train, Path(scratch))
            same = options.train == options.test
            test = train if same else embeddings_of(options.test, Path(scratch))
            bench = Bench(joined(train, test), dim=256, steps=300, repeats=3, draws=128)
        users, trials = (3, 2) if options.smoke else (24, 20)
        figures: dict[str, float | None] = dict.fromkeys(BARS)
        study = bench.study(bench.held_out())
        learnt = study.learn(bench.data, seed=0)
        first, size = rows_1_2_5(bench, study, learnt)
        figures.update(first)
        rows: list[Callable[[], dict[str, float]]] = [
            lambda: rows_3_4(bench, size),
            lambda: row_6(bench, study, learnt),
            lambda: row_7(bench),
            lambda: row_8(bench, users),
            lambda: row_9(bench, study, learnt, trials),
            lambda: row_10(bench, study, learnt),
            lambda: row_11(bench, users=3, repeats=4 if options.smoke else 32),
        ]
        for row in rows:
            figures.update(row())
    print("figure                                   value  bar")
    for name, bar in BARS.items():
        value = figures[name]
        shown = "not measured" if value is None else f"{value:.3f}"
        print(f"{name:36}{shown:>10}  {bar}")
    finite = {n: v if v is not None and np.isfinite(v) else None for n, v in figures.items()}
    print(json.dumps(finite))


if __name__ == "__main__":
    main()
