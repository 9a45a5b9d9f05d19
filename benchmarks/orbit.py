"""The ORBIT protocol on a feature store, with calibration: one line for whoever has the data.

    bayesfs features ORBIT_ROOT orbit.zarr                    # every frame, no subsampling
    python benchmarks/orbit.py orbit.zarr --out orbit-run     # clean -> clutter, 50 tasks per user
    python benchmarks/orbit.py orbit.zarr --query-condition clean
    python benchmarks/orbit.py --smoke                        # tiny, simulated, for CI

The population, the projection and the peers' temperatures are learnt on the store's train users.
Printed for every method: ORBIT's metrics with the benchmark's half-width and an interval over
users, then proper scores, calibration and the worst users. `--out` gets results.json in ORBIT's
form. Numbers published for frozen features (224 px, clean -> clutter, frame accuracy in %): CLIP
ViT-B/32 prototypes 73.95, linear head 71.31; EfficientNet-B0 prototypes 67.91. For trees of
shorter videos, lower --min-query-frames and --support-step; that is then not the benchmark. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from bayesfs._utils.threads import share_cores
from bayesfs.data.store import open_store
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.evaluation.orbit import ABSENT, OrbitProtocol
from bayesfs.evaluation.orbit_scores import OrbitRun, run_orbit
from bayesfs.metrics.bootstrap import too_few
from bayesfs.metrics.paired import paired_difference
from bayesfs.models.baselines.classifiers import Logistic, Prototypes, fit_temperature
from bayesfs.prediction import predict
from bayesfs.recipes.load import load_recipe, recipe_folder
from bayesfs.runs.compose import compose
from bayesfs.study import Learnt, Study
from bayesfs.synthetic.tasks import synthetic_embeddings
from bayesfs.types import Embeddings, EpisodeBatch, Predictive

SCORES = ("accuracy", "nll", "brier", "ece", "mce", "aurc")

Method = Callable[[EpisodeBatch], Predictive]


def methods_of(study: Study, learnt: Learnt, embeddings: Embeddings) -> dict[str, Method]:
    """The recipe's model, and two peers with temperatures from the train users' tasks.

    A train user's features are by axes of the others, as a new user's are: axes that a user had a
    part in would make the peers too sure.
    """
    model = study.model_of(learnt)

    def recipe(episodes: EpisodeBatch) -> Predictive:
        posterior = study.engine.infer(model, episodes, seed=0, given=learnt.population)
        return predict(model, posterior, episodes, given=learnt.population)

    train = study.train_tasks(embeddings, learnt, seed=0)
    peers = {"cosine_prototypes": Prototypes(metric="cosine"), "logistic_regression": Logistic()}
    fitted = {name: fit_temperature(peer, train).predictive for name, peer in peers.items()}
    return {"recipe": recipe, **fitted}


def show(name: str, run: OrbitRun, seconds: float, unit: str) -> dict[str, float | None]:
    """Print one method and give its figures."""
    metrics, scores = run.metrics(), run.scores(unit=unit)
    print(f"\n{name}: {seconds:.2f} s per task; intervals of scores over {unit}s")
    print(metrics.round(4).to_string())
    for item in ("frame", "video"):
        part = scores.sel(item=item)
        for score in SCORES:
            one = part.sel(score=score)
            values = (float(one[key]) for key in ("estimate", "low", "high", "worst"))
            cells = "{:.3f} [{:.3f}, {:.3f}]  worst users {:.3f}".format(*values)
            print(f"  {item:5s} {score:8s} {cells} ({', '.join(one['worst_users'].values)})")
    out: dict[str, float | None] = {
        f"{name}.{metric}": float(value) for metric, value in metrics["mean"].items()
    }
    for item in ("frame", "video"):
        for score in SCORES[1:]:
            value = float(scores["estimate"].sel(item=item, score=score))
            out[f"{name}.{item}_{score}"] = value
    return out | {f"{name}.seconds_per_task": seconds}


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("store", type=Path, nargs="?", help="feature store of an ORBIT tree")
    parser.add_argument("--model", type=Path, default=recipe_folder() / "models/gaussian.py")
    parser.add_argument("--engine", type=Path, default=recipe_folder() / "inference/exact.py")
    parser.add_argument("--query-condition", choices=("clutter", "clean"), default="clutter")
    parser.add_argument("--split", default="test", help="test or validation")
    parser.add_argument("--tasks", type=int, default=50, help="tasks per user")
    parser.add_argument("--batch", type=int, default=5, help="tasks at a time; bounds the memory")
    parser.add_argument("--min-query-frames", type=int, default=50)
    parser.add_argument("--support-step", type=int, default=30)
    parser.add_argument("--no-filter", action="store_true", help="keep frames without the object")
    parser.add_argument("--out", type=Path, help="folder for results.json of the recipe")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    if args.store is None and not args.smoke:
        parser.error("expected a feature store, or --smoke for simulated features")
    return args


def study_of(args: argparse.Namespace) -> Study:
    """The recipes' study, learning from train users in the same conditions."""
    paths = {"model": args.model, "engine": args.engine}
    recipes = {role: load_recipe(p, role) for role, p in paths.items()}
    evaluation = HeldOutUsers(
        shots=(5,),
        query_conditions=(args.query_condition,),
        drop_flags=() if args.no_filter else (ABSENT,),
    )
    recipes["evaluation"] = replace(recipes["model"], values={"evaluation": evaluation})
    return compose(recipes, (), smoke=args.smoke)


def simulated() -> Embeddings:
    """Users with videos of 60 frames, for the smoke test."""
    return synthetic_embeddings(
        users=4, test_users=6, way=3, shots=3, frames=61, query_videos=1, query_frames=60, dim=8
    )[0]


def main() -> None:
    """Run the protocol and print the figures."""
    args = arguments()
    torch.manual_seed(0)
    embeddings = simulated() if args.store is None else open_store(args.store)
    protocol = OrbitProtocol(
        query_condition=args.query_condition,
        split=args.split,
        tasks_per_user=2 if args.smoke else args.tasks,
        min_query_frames=args.min_query_frames,
        support_step=args.support_step,
        drop_flag=None if args.no_filter else ABSENT,
    )
    study = study_of(args)
    learnt = study.learn(embeddings, seed=0)
    projected = learnt.projection(embeddings)
    reason = too_few(len(protocol.users(embeddings)), 0.95)
    unit = "video" if reason else "user"
    if reason:
        print(f"{reason}: scores are given for these users only, with intervals over their videos")
    figures: dict[str, float | None] = {}
    runs: dict[str, OrbitRun] = {}
    for name, method in methods_of(study, learnt, embeddings).items():
        start = time.perf_counter()

        def in_dtype(episodes: EpisodeBatch, method: Method = method) -> Predictive:
            return method(episodes.to(study.dtype))

        run = run_orbit(in_dtype, projected, protocol, tasks_per_batch=args.batch)
        tasks = run.frames["task"].nunique()
        figures |= show(name, run, (time.perf_counter() - start) / tasks, unit)
        runs[name] = run
    if args.out is not None:
        print(f"\nresults: {runs['recipe'].save(args.out)}")
    print(f"\nrecipe minus peer, over {unit}s")
    for name in list(runs)[1:]:
        for score in ("accuracy", "nll"):
            pair = (runs["recipe"].frames, runs[name].frames)
            gap = paired_difference(*pair, score, unit=unit, within="task", draws=1000)
            print(f"  {name:20s} frame {score:8s} {gap.overall}  better {gap.share_better:.2f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    share_cores()
    main()
