"""A million frames in bounded memory, and how much of an extraction is the backbone itself."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image

from bayesfs.data.sources.open import read_tree
from bayesfs.deploy.recogniser import teach
from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.features.extraction.batches import batches
from bayesfs.features.extraction.extract import make_store
from bayesfs.features.extraction.job import ExtractionJob

from .latency import setting

PIECE = 4096


def long_recording(frames: int, width: int = 1280, dim: int = 256) -> dict[str, float]:
    """Score so many frames of backbone features as a stream, with their decomposition.

    Returns:
        million_frames_peak_gb (largest resident memory above that with the model taught),
        stream_frames_per_second, stream_frames_per_core_second.
    """
    study, learnt = setting(width, dim)
    rng = np.random.default_rng(0)
    videos = {f"object {k}": [rng.random((8, width)) for _ in range(5)] for k in range(6)}
    taught = teach(study, learnt, videos)
    base, began = psutil.Process().memory_info().rss, time.perf_counter()
    spent, seen, doubt = time.process_time(), 0, 0.0
    for scored in taught.stream(_pieces(frames, width)):
        seen += len(scored.prob)
        doubt += float(scored.epistemic.sum())
        if seen % (25 * PIECE) == 0:
            print(f"    {seen} frames in {time.perf_counter() - began:.0f} s", flush=True)
    seconds = time.perf_counter() - began
    if seen != frames or not np.isfinite(doubt):
        raise SystemExit(f"expected {frames} frames scored, got {seen} (sum {doubt})")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux
    return {
        "million_frames_peak_gb": max(0.0, peak - base) / 1e9,
        "stream_frames_per_second": frames / seconds,
        "stream_frames_per_core_second": frames / (time.process_time() - spent),
    }


def _pieces(frames: int, width: int) -> Iterator[NDArray[Any]]:
    rng = np.random.default_rng(1)
    for start in range(0, frames, PIECE):
        yield rng.random((min(PIECE, frames - start), width), np.float32)


def backbone_share(
    folder: Path, videos: int = 16, frames: int = 128, px: int = 160, repeats: int = 3
) -> dict[str, float]:
    """Time of the bare backbone on decoded frames over the time of the whole extraction.

    Both are repeated in turn and medians of their ratios taken, as the machine's speed drifts.

    Returns:
        backbone_share (wall time), backbone_cpu_share (the same of processor time, in which
        decoding beside the backbone counts), extract_frames_per_second, torch_threads.
    """
    tree, backbone = read_tree(make_videos(folder / "tree", videos, frames)), EfficientNetLite0(px)
    plan = {"px": px, "size": backbone.batch, "sampling": Sampling(), "thumbnails": False}
    stacked = [b.images for b in batches(tree.videos, 0, **plan) if len(b.images)]
    backbone(stacked[0])
    bare, whole = [], []
    for number in range(repeats):
        bare.append(_timed(lambda: [backbone(images) for images in stacked]))
        job = ExtractionJob(tree.videos, backbone, folder / f"s{number}.zarr", Sampling(), True)
        whole.append(_timed(partial(make_store, job)))
        shares = bare[-1] / whole[-1]
        print(f"    share of the backbone: {shares[0]:.3f} (wall), {shares[1]:.3f} (processor)")
    wall, processor = np.median(np.array(bare) / np.array(whole), axis=0)
    return {
        "backbone_share": float(wall),
        "backbone_cpu_share": float(processor),
        "extract_frames_per_second": videos * frames / float(np.median(whole, axis=0)[0]),
        "torch_threads": float(torch.get_num_threads()),
    }


def _timed(work: Callable[[], object]) -> NDArray[np.float64]:
    """Seconds of wall time and of processor time."""
    began = np.array([time.perf_counter(), time.process_time()])
    work()
    return np.array([time.perf_counter(), time.process_time()]) - began


def make_videos(root: Path, videos: int, frames: int, size: int = 360) -> Path:
    """A folder of objects with videos as JPEG frames of `size` pixels that move a little."""
    rng = np.random.default_rng(0)
    for v in range(videos):
        folder = root / f"thing {v % 3}" / f"video {v}"
        folder.mkdir(parents=True)
        small = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        image = np.asarray(small.resize((size + frames, size), Image.Resampling.BICUBIC))
        for k in range(frames):
            Image.fromarray(image[:, k : k + size]).save(folder / f"{k:05d}.jpg", quality=90)
    return root
