"""The ORBIT protocol on a feature store, with calibration: one line for whoever has the data.

    bayesfs features ORBIT_ROOT orbit.zarr                    # every frame, no subsampling
    python benchmarks/orbit.py orbit.zarr --out orbit-run     # clean -> clutter, 50 tasks per user
    python benchmarks/orbit.py orbit.zarr --query-condition clean
    python benchmarks/orbit.py orbit.zarr --model models/gaussian.py --engine inference/exact.py
    python benchmarks/orbit.py --simulate    # ORBIT's users and videos with drawn features
    python benchmarks/orbit.py --smoke       # the same, tiny, for CI

Our default, cosine prototypes and logistic regression, and a recipe where --model names one. What
is not of the test user's support is learnt on the store's train users, from 16 frames of a video;
test users are read one at a time. Printed for every method: ORBIT's metrics with the benchmark's
half-width and an interval over users, then proper scores, calibration and the worst users. `--out`
gets results.json of our default in ORBIT's form. Numbers published for frozen features (224 px,
clean -> clutter, frame accuracy in %): CLIP ViT-B/32 prototypes 73.95, linear head 71.31;
EfficientNet-B0 prototypes 67.91. For trees of shorter videos, lower --min-query-frames and
--support-step; that is then not the benchmark. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from orbit_parts.methods import DEFAULT, Method, methods_of
from orbit_parts.people import People, stored
from orbit_parts.simulated import orbit_shape, simulated, tiny_shape

from bayesfs._utils.threads import share_cores
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.evaluation.orbit import ABSENT, OrbitProtocol
from bayesfs.evaluation.orbit_scores import OrbitRun, run_orbit
from bayesfs.metrics.bootstrap import too_few
from bayesfs.metrics.paired import paired_difference
from bayesfs.recipes.load import load_recipe, recipe_folder
from bayesfs.runs.compose import compose
from bayesfs.study import Study

SCORES = ("accuracy", "nll", "brier", "ece", "mce", "aurc")


def run_people(
    people: People, methods: Mapping[str, Method], protocol: OrbitProtocol, batch: int
) -> tuple[dict[str, OrbitRun], dict[str, float]]:
    """Runs by method, and processor seconds of each without reading and embedding.

    Every test user's frames are read once, and embedded once for methods that see the same.

    What a user's tasks are does not depend on the others, so that a run in pieces is the whole one.
    """
    parts: dict[str, list[OrbitRun]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    for user in people.users:
        frames = people.of_user(user)
        embeds = {id(method.embed): method.embed for method in methods.values()}
        seen = {key: embed(frames) for key, embed in embeds.items()}
        for name, method in methods.items():
            start = time.process_time()
            mine = seen[id(method.embed)]
            parts[name].append(run_orbit(method.answer, mine, protocol, tasks_per_batch=batch))
            seconds[name] += time.process_time() - start
        print(f"{user}: {len(frames)} frames, {_gigabytes():.2f} GB so far", flush=True)
    return {name: OrbitRun.joined(runs) for name, runs in parts.items()}, seconds


def show(name: str, run: OrbitRun, seconds: float, unit: str) -> dict[str, float | None]:
    """Print one method and give its figures."""
    metrics, scores = run.metrics(), run.scores(unit=unit)
    print(f"\n{name}: {seconds:.2f} s of processor time per task; intervals of scores over {unit}s")
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


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("store", type=Path, nargs="?", help="feature store of an ORBIT tree")
    parser.add_argument("--model", type=Path, help="recipe of a model, for one method more")
    parser.add_argument("--engine", type=Path, default=recipe_folder() / "inference/exact.py")
    parser.add_argument("--query-condition", choices=("clutter", "clean"), default="clutter")
    parser.add_argument("--split", default="test", help="test or validation")
    parser.add_argument("--tasks", type=int, default=50, help="tasks per user")
    parser.add_argument("--batch", type=int, default=5, help="tasks at a time; bounds the memory")
    parser.add_argument("--min-query-frames", type=int, default=50)
    parser.add_argument("--support-step", type=int, default=30)
    parser.add_argument("--no-filter", action="store_true", help="keep frames without the object")
    parser.add_argument("--out", type=Path, help="folder for results.json of our default")
    parser.add_argument("--simulate", action="store_true", help="ORBIT's size, drawn features")
    parser.add_argument("--smoke", action="store_true", help="tiny, simulated")
    args = parser.parse_args(given)
    if args.store is None and not (args.smoke or args.simulate):
        parser.error("expected a feature store, or --simulate or --smoke for drawn features")
    return args


def recipe_of(args: argparse.Namespace, evaluation: HeldOutUsers) -> Study | None:
    """The recipes' study, learning from train users in the same conditions, if one is named."""
    if args.model is None:
        return None
    paths = {"model": args.model, "engine": args.engine}
    recipes = {role: load_recipe(p, role) for role, p in paths.items()}
    recipes["evaluation"] = replace(recipes["model"], values={"evaluation": evaluation})
    return compose(recipes, (), smoke=args.smoke)


def people_of(args: argparse.Namespace) -> People:
    """Of the store, or simulated."""
    if args.smoke:
        return simulated(tiny_shape())
    return simulated(orbit_shape()) if args.simulate else stored(args.store, args.split)


def results(
    people: People, args: argparse.Namespace, protocol: OrbitProtocol
) -> dict[str, float | None]:
    """Run the methods, print what they do, and give the figures."""
    evaluation = HeldOutUsers(
        shots=(5,),
        train_shots=(5,),
        query_conditions=(args.query_condition,),
        drop_flags=() if args.no_filter else (ABSENT,),
    )
    methods = methods_of(people, evaluation, recipe_of(args, evaluation))
    runs, seconds = run_people(people, methods, protocol, args.batch)
    reason = too_few(len(people.users), 0.95)
    unit = "video" if reason else "user"
    if reason:
        print(f"{reason}: scores are given for these users only, with intervals over their videos")
    figures: dict[str, float | None] = {}
    for name, run in runs.items():
        figures |= show(name, run, seconds[name] / run.frames["task"].nunique(), unit)
    if args.out is not None:
        print(f"\nresults: {runs[DEFAULT].save(args.out)}")
    print(f"\n{DEFAULT} minus the others, over {unit}s")
    for name in [*runs][1:]:
        for score in ("accuracy", "nll"):
            pair = (runs[DEFAULT].frames, runs[name].frames)
            gap = paired_difference(*pair, score, unit=unit, within="task", draws=1000)
            print(f"  {name:20s} frame {score:8s} {gap.overall}  better {gap.share_better:.2f}")
    return figures


def _gigabytes() -> float:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(arguments_given: Sequence[str] | None = None) -> None:
    """Run the protocol and print the figures."""
    args = arguments(arguments_given)
    torch.manual_seed(0)
    start = time.perf_counter()
    protocol = OrbitProtocol(
        query_condition=args.query_condition,
        split=args.split,
        tasks_per_user=min(args.tasks, 2) if args.smoke else args.tasks,
        min_query_frames=args.min_query_frames,
        support_step=args.support_step,
        drop_flag=None if args.no_filter else ABSENT,
    )
    figures = results(people_of(args), args, protocol)
    figures |= {"seconds": round(time.perf_counter() - start, 1), "peak_gb": _gigabytes()}
    print(json.dumps(figures))


if __name__ == "__main__":
    share_cores()
    main()
