"""Fixtures that several rooms' tests share."""

import os
from pathlib import Path

import pytest


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
