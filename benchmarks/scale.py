"""Scale, latency, faults and hostile input: everything that docs/scaling.md tells.

    python benchmarks/scale.py                       # an hour on two quiet cores
    python benchmarks/scale.py --only latency hostile
    python benchmarks/scale.py --smoke

Prints a line for each figure as it is known, and all figures as one line of JSON at the end; null
is a figure that was not measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from bayesfs._utils.threads import share_cores

FIGURES = (
    "users_cost_10000_vs_100",
    "users_per_second",
    "million_frames_peak_gb",
    "backbone_share",
    "personalise_ms",
    "predict_ms_per_frame",
    "personalise_vs_centroid",
    "kills_survived",
    "hostile_inputs",
    "crashes",
    "doors",
)
"""What docs/scaling.md has bars for; further figures stand beside them."""

Found = dict[str, float]


def users(folder: Path, smoke: bool) -> Found:
    """Ten thousand users on two workers, with both engines."""
    from scale_parts.users import load_test

    counts = (16, 48) if smoke else (100, 10_000)
    dim, workers = (8, 1) if smoke else (32, 2)
    found = load_test(folder, counts, dim=dim, workers=workers, smoke=smoke)
    worst = max(v for k, v in found.items() if k.endswith("cost_ratio"))
    slowest = min(v for k, v in found.items() if k.endswith("users_per_second"))
    return {**found, "users_cost_10000_vs_100": worst, "users_per_second": slowest}


def frames(folder: Path, smoke: bool) -> Found:
    """A million frames as a stream."""
    from scale_parts.videos import long_recording

    return long_recording(5_000, dim=32) if smoke else long_recording(1_000_000)


def backbone(folder: Path, smoke: bool) -> Found:
    """Extraction beside the bare backbone."""
    from scale_parts.videos import backbone_share

    return backbone_share(folder, 2, 8, 64, 1) if smoke else backbone_share(folder)


def latency(folder: Path, smoke: bool) -> Found:
    """A device's recogniser, on one thread."""
    from scale_parts.latency import latency as measure

    return measure(dim=32, repeats=2) if smoke else measure()


def kills(folder: Path, smoke: bool) -> Found:
    """Kill -9 in the midst of features, run and report."""
    from scale_parts.faults import kills as survive

    return {"kills_survived": float(survive(folder, 1 if smoke else 20))}


def hostile(folder: Path, smoke: bool) -> Found:
    """Inputs that mean harm."""
    from scale_parts.doors import open_doors
    from scale_parts.hostile import attack

    doors = open_doors()
    tallies = attack(300 if smoke else 152_000)
    return {
        "doors": float(len(doors)),
        "hostile_inputs": float(sum(t.inputs for t in tallies.values())),
        "crashes": float(sum(len(t.failures) for t in tallies.values())),
    }


def precision(folder: Path, smoke: bool) -> Found:
    """Single against double precision, model by model."""
    from scale_parts.precision import differences

    return differences(2, 3, 4) if smoke else differences()


PARTS: Mapping[str, Callable[[Path, bool], Found]] = {
    "latency": latency,
    "precision": precision,
    "hostile": hostile,
    "backbone": backbone,
    "kills": kills,
    "frames": frames,
    "users": users,
}


def main() -> None:
    """Measure the parts that are asked for and print their figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    found: Found = {}
    for name in options.only:
        print(f"{name}: {(PARTS[name].__doc__ or '').strip()}", flush=True)
        with tempfile.TemporaryDirectory(prefix="bayesfs-scale-") as folder:
            part = PARTS[name](Path(folder), options.smoke)
        for figure, value in part.items():
            print(f"  {figure} = {value:.6g}", flush=True)
        found |= part
    print(json.dumps({**dict.fromkeys(FIGURES), **found}))


if __name__ == "__main__":
    share_cores()
    main()
