"""`benchmarks/peers.py --photos` on a few small pictures: every peer answers, figures are there."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
THINGS, PHOTOS = 8, 4


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Things of one colour each, with noise."""
    rng = np.random.default_rng(0)
    for thing in range(THINGS):
        colour = rng.integers(0, 255, 3)
        for photo in range(PHOTOS):
            folder = tmp_path / "things" / f"thing{thing}" / f"photo{photo}"
            folder.mkdir(parents=True)
            picture = (colour + 20 * rng.normal(size=(64, 64, 3))).clip(0, 255).astype(np.uint8)
            PIL.Image.fromarray(picture).save(folder / f"photo{photo}-00001.jpg")
    return tmp_path / "things"


@pytest.mark.slow
def test_photographs(tree: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "peers.py"), "--photos", str(tree), "--tasks", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ})
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    for peer in ("bayesfs", "bayesfs_open_set", "scikit_learn_logistic", "gpytorch_dkt"):
        for condition in ("in", "blur5", "jpeg5"):
            row = {k: figures[f"{peer}.things-{condition}.{k}"] for k in ("acc", "nll", "coverage")}
            assert all(math.isfinite(v) for v in row.values())
            assert 0 <= row["acc"] <= 1
    gaps = [
        figures[f"bayesfs.things-{c}.nll"]
        - min(
            v
            for k, v in figures.items()
            if k.endswith(f".things-{c}.nll") and not k.startswith("bayesfs")
        )
        for c in ("in", "blur5", "jpeg5")
    ]
    assert figures["best_minus_peer.nll"] == pytest.approx(max(gaps), abs=2e-4)
    assert figures["coverage_in"] == figures["bayesfs.things-in.coverage"]
