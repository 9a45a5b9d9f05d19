"""Fixtures that several rooms' tests share."""

import os
from collections.abc import Callable
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # one core each, before anything starts its threads
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from bayesfs.data.store import save_store
from bayesfs.types import Embeddings


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of development data beside the checkout; tests that need it skip where it is not."""
    shared = os.environ.get("BAYESFS_SHARED", Path(__file__).parents[2] / "shared")
    data = Path(shared) / "data"
    if not data.is_dir():
        pytest.skip(f"no development data at {data}; set BAYESFS_SHARED to the folder above it")
    return data


@pytest.fixture(scope="session")
def turntable(shared_data: Path) -> Path:
    """An ORBIT-shaped tree of real objects on turntables, with exact annotations."""
    tree = shared_data / "turntable"
    if not tree.is_dir():
        pytest.skip(f"no tree at {tree}")
    return tree


def small_embeddings(users: int = 5, objects: int = 3, seed: int = 0) -> Embeddings:
    """Users with objects around a mean far from the origin; the last two users are for testing."""
    rng = np.random.default_rng(seed)
    labels, rows = [], []
    for u in range(users):
        split = "train" if u < users - 2 else "test"
        for o in range(objects):
            centre = 5 + rng.normal(size=12)
            for kind, videos in (("clean", 5), ("clutter", 2)):
                for v in range(videos):
                    video = centre + (kind == "clutter") + 0.3 * rng.normal(size=12)
                    rows.append(video + 0.2 * rng.normal(size=(3, 12)))
                    labels += [(f"u{u}", f"<b>{o}</b>", f"u{u}-{o}-{kind}-{v}", kind, split)] * 3
    user, thing, video, kind, split = zip(*labels, strict=True)
    return Embeddings.from_arrays(
        np.concatenate(rows), object=thing, video=video, user=user, kind=kind, split=split
    )


@pytest.fixture(scope="session")
def make_embeddings() -> Callable[..., Embeddings]:
    """`small_embeddings`, for tests that want it changed."""
    return small_embeddings


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature store of five users; a run on it takes seconds."""
    path = tmp_path_factory.mktemp("data") / "store.zarr"
    save_store(path, small_embeddings())
    return path
