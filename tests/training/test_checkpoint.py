"""A posterior written and read back, and files that are none, told apart without unpickling."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesfs.errors import DataError
from bayesfs.features.projection import Projection
from bayesfs.features.reduction import UnitNorm
from bayesfs.study import scatter_of
from bayesfs.synthetic.tasks import synthetic_embeddings
from bayesfs.training.checkpoint import (
    load_posterior,
    load_projection,
    load_scatter,
    save_posterior,
    save_projection,
    save_scatter,
)
from bayesfs.types import Posterior

POSTERIOR = Posterior(
    kind="variational",
    draws={
        "population_mean": torch.randn(6, 4, dtype=torch.float64),
        "class_mean": torch.randn(6, 2, 3, 4),
        "which": torch.arange(6),
    },
    dims={
        "population_mean": ("feature",),
        "class_mean": ("task", "way", "feature"),
        "which": (),
    },
    chains=2,
    sample_stats={"elbo": torch.randn(10), "diverging": torch.zeros(6, 2, dtype=torch.bool)},
    coords={"task": ("P001", "мои <b>")},
    seed=7,
)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    save_posterior(POSTERIOR, path)
    read = load_posterior(path)
    for name in ("kind", "dims", "chains", "coords", "seed"):
        assert getattr(read, name) == getattr(POSTERIOR, name)
    for group in ("draws", "sample_stats"):
        for site, value in getattr(POSTERIOR, group).items():
            other = getattr(read, group)[site]
            assert other.dtype == value.dtype
            assert torch.equal(other, value)


def test_a_projection_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    projection = Projection(rng.normal(size=(2, 6)), rng.normal(size=(6, 3)), rng.random(3))
    path = tmp_path / "projection.npz"
    save_projection(projection, path)
    read = load_projection(path)
    for name in ("means", "axes", "spectrum"):
        np.testing.assert_array_equal(getattr(read, name), getattr(projection, name))
    save_posterior(POSTERIOR, path)
    with pytest.raises(DataError, match="not what bayesfs wrote"):
        load_projection(path)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="not what bayesfs wrote"):
        load_posterior(path)
    save_posterior(POSTERIOR, path)
    with zipfile.ZipFile(path, "a") as archive, archive.open("draws/evil.npy", "w") as member:
        np.lib.format.write_array(member, np.array([Bomb()], dtype=object))
    with pytest.raises(DataError, match="not what bayesfs wrote"):
        load_posterior(path)


@pytest.mark.parametrize(
    "change", [{"kind": "true"}, {"chains": 4}, {"dims": {}}, {"surprise": 1}, {"coords": 3}]
)
def test_parts_that_disagree_are_told(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "p.npz"
    save_posterior(POSTERIOR, path)
    with np.load(path) as archive:
        arrays = dict(archive)
    header = {**json.loads(arrays["header"].tobytes()), **change}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=r"p\.npz"):
        load_posterior(path)


def test_a_bomb_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.npz"
    save_posterior(POSTERIOR, path)
    monkeypatch.setattr("bayesfs._utils.guarded_files.FREE", 100)
    monkeypatch.setattr("bayesfs._utils.guarded_files.EXPANSION", 0)
    with pytest.raises(DataError, match="bytes of memory"):
        load_posterior(path)


def complaint(path: Path) -> str:
    try:
        load_posterior(path)
    except DataError as e:
        return str(e)
    return path.name


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_files_are_told_never_worse(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    save_posterior(POSTERIOR, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert "damaged.npz" in complaint(path)


def test_a_projection_without_axes_and_a_scatter_come_back(tmp_path: Path) -> None:
    frames = synthetic_embeddings(users=2, dim=6, seed=0)[0]
    projection = UnitNorm().fit(frames)
    save_projection(projection, tmp_path / "projection.npz")
    again = load_projection(tmp_path / "projection.npz")
    assert again.axes is None
    np.testing.assert_array_equal(again(frames).features, projection(frames).features)
    scatter = scatter_of(projection(frames))
    save_scatter(scatter, tmp_path / "scatter.npz")
    found = load_scatter(tmp_path / "scatter.npz")
    np.testing.assert_array_equal(found.axes, scatter.axes)
    np.testing.assert_array_equal(found.excess, scatter.excess)
    assert (found.videos, found.objects) == (scatter.videos, scatter.objects)
    (tmp_path / "scatter.npz").write_bytes((tmp_path / "projection.npz").read_bytes())
    with pytest.raises(DataError, match="not what bayesfs wrote there"):
        load_scatter(tmp_path / "scatter.npz")
