"""From the frame to the answer on a card, against the CPU in the same run and the card itself.

    python benchmarks/gpu.py             # one CUDA card, about five minutes
    python benchmarks/gpu.py --smoke     # tiny, on the CPU, to see whether everything fits

Features: frames a second of each backbone in the box as `bayesfs features` runs it, as a share of
the bare loop over its network with pictures that are on the card already. Heads: condition and
predict T tasks (5 classes, 5 videos of one frame, 75 queries, 64 features, single precision) by the
Gaussian process and by the Gaussian hierarchy; SVGD and SVI as they infer 64 tasks. The roof of the
Gaussian process is the larger of the bytes that it must move at the card's bandwidth and its
operations at the card's peak, both measured here. A million frames are scored in pieces. The last
line is JSON; a figure that was not measured is null, and without a card all of them are.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from gp import QUERIES_PER_CLASS, episodes_of, our_model, our_predict, our_values
from torch import Tensor

from bayesfs._utils.devices import best_device
from bayesfs._utils.threads import share_cores
from bayesfs.errors import DataError
from bayesfs.features.backbones.efficientnet_lite import EfficientNetLite
from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0
from bayesfs.features.backbones.efficientnet_lite2 import EfficientNetLite2
from bayesfs.inference.program.potential import potential
from bayesfs.inference.svgd.svgd import SVGD
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gp.stream import score_frames
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.protocols import Engine, Model
from bayesfs.types import EpisodeBatch, Posterior

WAY, SHOT, DIM = 5, 5, 64
TASKS = (64, 512, 4096)
PIECE = 2**14
"""Frames of a long recording that are scored at once."""

FIGURES = (
    "features_share_of_bare",
    *(f"gp_gpu_vs_cpu_{tasks}" for tasks in TASKS),
    "hierarchy_gpu_vs_cpu_4096",
    "svgd_gpu_vs_cpu",
    "svi_gpu_vs_cpu",
    "million_frames_s",
    "gpu_peak_gb",
    "gpu_cpu_max_diff",
    "share_of_roof",
)


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    tasks: tuple[int, ...] = TASKS
    inferred: int = 64
    pictures: int = 1024
    frames: int = 10**6
    repeats: int = 10
    steps: int = 100
    px: int | None = None


SMOKE = Sizes((2, 3, 4), 2, 8, 3000, 1, 2, 32)


def seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Shortest wall time of a call, after one to warm up; a card is waited for."""
    times = []
    for number in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        if number:
            times.append(time.perf_counter() - start)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def features_share(device: torch.device, sizes: Sizes) -> float:
    """Smallest share of the bare loop's frames a second, over the backbones that are installed."""
    shares = []
    for kind in (EfficientNetLite0, EfficientNetLite2):
        try:
            backbone = kind(sizes.px, device)
        except DataError as error:
            print(f"  {kind.__name__}: not measured ({error})")
            continue
        shape = (sizes.pictures, backbone.px, backbone.px, 3)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        ours = seconds(lambda b=backbone, x=images: b(x), device, sizes.repeats)
        bare = bare_loop(backbone, sizes.pictures, device, sizes.repeats)
        shares.append(bare / ours)
        print(
            f"  {backbone.name}: {sizes.pictures / ours:.0f} frames/s, bare loop "
            f"{sizes.pictures / bare:.0f}"
        )
    return min(shares)


def bare_loop(backbone: EfficientNetLite, frames: int, device: torch.device, repeats: int) -> float:
    """Seconds of the network alone, its normalised pictures where it runs."""
    at_once = min(backbone.batch, frames)
    x = torch.randn(at_once, 3, backbone.px, backbone.px, device=device)

    def loop() -> None:
        with torch.inference_mode():
            for _ in range(-(-frames // at_once)):
                backbone.forward(x)

    return seconds(loop, device, repeats)


def hierarchy_predict(episodes: EpisodeBatch, given: Posterior) -> Tensor:
    """(task, video, way) log probabilities: condition on the support, predict in closed form."""
    with torch.no_grad():
        values = given.to(episodes.support.device).draws
        model = GaussianHierarchy()
        return model.log_labels(episodes, {site: v[0] for site, v in values.items()})[1]


def prior_population(model: Model, episodes: EpisodeBatch) -> Posterior:
    """One draw of the prior of what holds for every task."""
    joint = potential(model, episodes)
    draws = joint.constrain(joint.prior(1, seed=0))
    names = [site for site, axes in model.dims.items() if "task" not in axes]
    return Posterior("exact", {s: draws[s] for s in names}, {s: model.dims[s] for s in names})


def engine_ratio(engine: Engine, device: torch.device, sizes: Sizes) -> float:
    """CPU seconds over the card's, of one inference of `sizes.inferred` tasks by a linear head."""
    model, cpu = HierarchicalHead(), torch.device("cpu")
    episodes = episodes_of(sizes.inferred, WAY, SHOT, DIM)
    given = prior_population(model, episodes.select([0]))
    spent = []
    for where in (cpu, device):
        tasks, known = episodes.to(where), given.to(where)
        infer = partial(engine.infer, model, tasks, seed=0, given=known)
        spent.append(seconds(infer, where, 1))
    print(f"  {type(engine).__name__}: CPU {spent[0]:.2f} s, {device} {spent[1]:.2f} s")
    return spent[0] / spent[1]


def long_recording(device: torch.device, frames: int) -> float:
    """Seconds to score so many frames of one task by the Gaussian process, piece by piece."""
    episodes = episodes_of(1, WAY, SHOT, DIM).to(device)
    fitted = our_model().fit(episodes, our_values(episodes.support))
    piece = episodes.query[0].flatten(0, 1).repeat(-(-PIECE // episodes.query.shape[1]), 1)[:PIECE]

    def pieces() -> Iterator[Tensor]:
        for start in range(0, frames, PIECE):
            yield piece[: min(PIECE, frames - start)]

    scored = 0

    def run() -> None:
        nonlocal scored
        scored = sum(len(log_prob) for log_prob in score_frames(fitted, pieces(), 0))

    spent = seconds(run, device, 1)
    if scored != frames:
        raise RuntimeError(f"expected {frames} frames to be scored, got {scored}")
    return spent


def share_of_roof(spent: float, tasks: int, device: torch.device) -> float:
    """The card's own least time of the Gaussian process, over what it took."""
    n, m = WAY * SHOT, WAY * QUERIES_PER_CLASS
    moved = 4 * tasks * (n * DIM + m * DIM + 2 * n * n + 3 * n * m + 3 * WAY * m)
    flops = tasks * (2 * n * n * DIM + n**3 / 3 + 2 * n * m * DIM + n * n * m + 2 * n * m * WAY)
    block = torch.empty(2**28, device=device)
    bandwidth = 2 * block.numel() * 4 / seconds(lambda: block.clone(), device, 10)
    square = torch.randn(8192, 8192, device=device)
    peak = 2 * 8192**3 / seconds(lambda: square @ square, device, 5)
    print(f"  the card: {bandwidth / 1e9:.0f} GB/s, {peak / 1e12:.1f} Tflop/s")
    return max(moved / bandwidth, flops / peak) / spent


def measure(device: torch.device, sizes: Sizes) -> dict[str, float | None]:
    """All figures; those of a card are null where there is none."""
    cpu, figures = torch.device("cpu"), dict[str, float | None].fromkeys(FIGURES)
    given = prior_population(GaussianHierarchy(), episodes_of(1, WAY, SHOT, DIM))
    gaps = []
    for tasks, name in zip(sizes.tasks, TASKS, strict=True):
        here = episodes_of(tasks, WAY, SHOT, DIM)
        there = here.to(device)
        gp = [
            seconds(lambda e=e: our_predict(our_model(), e), where, sizes.repeats)
            for e, where in ((here, cpu), (there, device))
        ]
        hierarchy = [
            seconds(lambda e=e: hierarchy_predict(e, given), where, sizes.repeats)
            for e, where in ((here, cpu), (there, device))
        ]
        for spent, kind in ((gp, "Gaussian process"), (hierarchy, "hierarchy")):
            print(
                f"  {kind}, {tasks} tasks: CPU {spent[0] * 1e3:.1f} ms, {device} "
                f"{spent[1] * 1e3:.2f} ms"
            )
        figures[f"gp_gpu_vs_cpu_{name}"] = gp[0] / gp[1]
        figures["hierarchy_gpu_vs_cpu_4096"] = hierarchy[0] / hierarchy[1]  # of the last
        for own, other in (
            (our_predict(our_model(), here)[2], our_predict(our_model(), there)[2]),
            (hierarchy_predict(here, given), hierarchy_predict(there, given)),
        ):
            gaps.append(float((own.exp() - other.cpu().exp()).abs().max()))
    figures["gpu_cpu_max_diff"] = max(gaps)
    figures["svgd_gpu_vs_cpu"] = engine_ratio(SVGD(steps=sizes.steps), device, sizes)
    svi = SVI(steps=sizes.steps, early_stopping=False, khat_draws=0)
    figures["svi_gpu_vs_cpu"] = engine_ratio(svi, device, sizes)
    figures["features_share_of_bare"] = features_share(device, sizes)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    figures["million_frames_s"] = long_recording(device, sizes.frames)
    print(f"  {sizes.frames} frames scored in {figures['million_frames_s']:.2f} s")
    if device.type != "cuda":
        return dict.fromkeys(FIGURES)
    figures["gpu_peak_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    figures["share_of_roof"] = share_of_roof(gp[1], sizes.tasks[-1], device)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on the CPU")
    options = parser.parse_args()
    device = torch.device("cpu") if options.smoke else best_device()
    figures: dict[str, float | None] = dict.fromkeys(FIGURES)
    if options.smoke:
        figures = measure(device, SMOKE)
    elif device.type != "cuda":
        print("no CUDA card here: nothing is measured")
    else:
        print(torch.cuda.get_device_name(device))
        figures = measure(device, Sizes())
    print(json.dumps(figures))


if __name__ == "__main__":
    torch.manual_seed(0)
    share_cores()
    main()
