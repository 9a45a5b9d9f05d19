"""Values keep no reference to the caller's arrays, and copy no array twice."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayesfs.data.from_arrays import make_episode
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import Embeddings, EpisodeBatch, Posterior


def spoil(tensor: Tensor) -> None:
    """Change every entry in place."""
    tensor.copy_(~tensor if tensor.dtype == torch.bool else tensor * 0 + 7)


def tensors_of(batch: EpisodeBatch) -> dict[str, Tensor]:
    """The tensors among the attributes, by name."""
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {name: v.clone() for name, v in values.items() if isinstance(v, Tensor)}


def test_an_episode_batch_keeps_its_tensors() -> None:
    made, _ = synthetic_episodes(users=2, way=3, shots=2, frames=2, dim=3, seed=0)
    given = tensors_of(made)
    batch = EpisodeBatch(**given)  # type: ignore[arg-type]
    before = tensors_of(batch)
    for value in given.values():
        spoil(value)
    for name, value in tensors_of(batch).items():
        assert torch.equal(value, before[name]), name


def test_a_batch_over_numpy_memory_keeps_its_features() -> None:
    """`torch.from_numpy` shares memory with the array."""
    made, _ = synthetic_episodes(users=1, way=2, shots=1, frames=1, dim=3, seed=0)
    array = made.support.numpy().copy()
    batch = replace(made, support=torch.from_numpy(array))
    array[:] = 7
    assert torch.equal(batch.support, made.support)


def test_made_episodes_keep_nothing_of_the_arrays() -> None:
    x, z = torch.randn(4, 3), np.random.default_rng(0).normal(size=(2, 3))
    batch = make_episode(x, ["a", "a", "b", "b"], None, z)
    support, query = batch.support.clone(), batch.query.clone()
    x.zero_()
    z[:] = 0
    assert torch.equal(batch.support, support)
    assert torch.equal(batch.query, query)


def test_a_posterior_keeps_its_draws() -> None:
    draws, elbo = {"mean": torch.randn(5, 3)}, torch.randn(4)
    posterior = Posterior("exact", draws, {"mean": ("feature",)}, sample_stats={"elbo": elbo})
    before, history = draws["mean"].clone(), elbo.clone()
    spoil(draws["mean"])
    spoil(elbo)
    draws["other"] = torch.zeros(1)
    assert torch.equal(posterior.draws["mean"], before)
    assert torch.equal(posterior.sample_stats["elbo"], history)
    assert set(posterior.draws) == {"mean"}


def test_embeddings_keep_their_arrays() -> None:
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    names = np.array(list("aabbcc"))
    table = Embeddings.from_arrays(x, object=names)
    labels = {c: ("frame", table.coord(c).copy()) for c in Embeddings.REQUIRED}
    direct = Embeddings(xr.Dataset({"features": (("frame", "feature"), x)}, coords=labels))
    before = x.copy()
    x[:] = 7
    names[:] = "z"
    for made in (table, direct):
        np.testing.assert_array_equal(made.features, before)
        assert made.coord("object").tolist() == list("aabbcc")


def test_what_is_ours_is_not_copied_again() -> None:
    batch, _ = synthetic_episodes(users=2, way=3, shots=2, frames=2, dim=3, seed=0)
    other = replace(batch, query=batch.query + 1)
    assert other.support is batch.support
    cut = batch.limit_shots(1)
    assert cut.support.untyped_storage().data_ptr() == batch.support.untyped_storage().data_ptr()
    posterior = Posterior("exact", {"mean": torch.zeros(2, 3)}, {"mean": ("feature",)})
    assert replace(posterior, seed=3).draws["mean"] is posterior.draws["mean"]
    wide = torch.zeros(3).expand(1000, 3)
    kept = Posterior.of_own("exact", {"mean": wide}, {"mean": ("feature",)})
    assert kept.draws["mean"].untyped_storage().nbytes() == 12
    table = Embeddings.from_arrays(np.zeros((2, 3), np.float32), object=["a", "b"])
    assert Embeddings(table.dataset).features is table.features
