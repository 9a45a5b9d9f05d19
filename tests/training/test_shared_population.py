"""A population in a file: kept, refused, merged by moments, and carried to a world not met."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import bayesfs as bf
from bayesfs.errors import DataError, ShapeError
from bayesfs.features.backbones.spec import backbone_of
from bayesfs.models.similarity.heads import HEADS, WithinScatter
from bayesfs.models.similarity.pool import SimilarityPool
from bayesfs.training.shared_population import (
    BACKBONES,
    SharedPopulation,
    default_path,
    default_population,
    for_new_world,
    merged,
    normal_population,
)


def shared(
    seed: int, people: int = 3, dim: int = 12, backbone: str = "net@32px"
) -> SharedPopulation:
    rng = np.random.default_rng(seed)
    objects = np.repeat(np.arange(9), 4)
    videos = rng.normal(size=(9, dim))[objects] + rng.normal(size=(36, dim)) * rng.gamma(
        1.0, size=dim
    )
    scatter = WithinScatter.fit(videos / np.linalg.norm(videos, axis=1, keepdims=True), objects)
    root = rng.normal(size=(1 + len(HEADS),) * 2) / 5
    population = normal_population(rng.normal(size=1 + len(HEADS)), root @ root.T)
    card = {"backbone": backbone, "people": people, "objects": 9, "worlds": [f"world {seed}"]}
    return SharedPopulation(population, SimilarityPool(scatter, vague=0.3), card)


def moments(population: bf.Posterior) -> tuple[np.ndarray, np.ndarray]:
    x = torch.cat([population.draws["scale_mean"][:, None], population.draws["head_mean"]], 1)
    return x.mean(0).numpy(), np.cov(x.numpy().T, bias=True)


def dense(scatter: WithinScatter) -> np.ndarray:
    axes = scatter.axes.astype(float)
    return np.asarray((axes * scatter.excess) @ axes.T)


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    one = shared(0)
    told = replace(one.scatter, like=0.7, unlike=0.4)
    one = replace(one, model=replace(one.model, scatter=told))
    one.save(tmp_path / "one.npz")
    again = SharedPopulation.load(tmp_path / "one.npz")
    assert again.card == one.card
    assert replace(again.model, scatter=None) == replace(one.model, scatter=None)
    for site, value in one.population.draws.items():
        torch.testing.assert_close(again.population.draws[site], value, rtol=0, atol=0)
    np.testing.assert_allclose(dense(again.scatter), dense(one.scatter), atol=0.02)
    assert (again.scatter.videos, again.scatter.objects) == (36, 9)
    assert (again.scatter.like, again.scatter.unlike) == (0.7, 0.4)


def test_damaged_planted_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    shared(0).save(path)
    whole = path.read_bytes()
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes())

    def written(**changed: object) -> None:
        np.savez_compressed(path, **{**arrays, **changed})  # type: ignore[arg-type]

    def with_header(**changed: object) -> None:
        text = json.dumps({**header, **changed}).encode()
        written(header=np.frombuffer(text, np.uint8))

    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "cut short")
    path.write_bytes(b"text")
    refused(path, "no safetensors file")
    written(axes=np.array([{}], object))
    refused(path, "allow_pickle")
    written(excess=np.full(len(arrays["excess"]), np.nan))
    refused(path, "NaN or infinite")
    written(head_mean=arrays["head_mean"][:, :2])
    refused(path, "sites of 4 heads")
    with_header(typical={"gap": 0.15, "sd": 0.09})
    refused(path, "an earlier version")
    written(axes=np.zeros((2**24, 1), np.float16))
    refused(path, "expected at most")
    with_header(card={"backbone": "x"})
    refused(path, "people")
    with_header(card={**header["card"], "people": 0})
    refused(path, "above 0")
    with_header(model={**header["model"], "vague": 7})
    refused(path, "vague")
    with_header(scatter={**header["scatter"], "like": 7.0})
    refused(path, "a cosine")
    with pytest.raises(DataError, match="no such file"):
        SharedPopulation.load(tmp_path / "none.npz")


def refused(path: Path, why: str) -> None:
    with pytest.raises(DataError, match=why):
        SharedPopulation.load(path)


def test_features_of_another_backbone_are_refused_with_the_reason() -> None:
    with pytest.raises(DataError, match="of features of 'net@32px', these are of 'other'"):
        shared(0).check_backbone("other")
    with pytest.raises(DataError, match="these are of"):
        merged([shared(0), shared(1, backbone="other")])


def test_merged_moments_are_those_of_the_mixture_by_people() -> None:
    parts = [shared(0, people=2), shared(1, people=6)]
    found = merged(parts)
    rng = np.random.default_rng(0)
    draws = []
    for part, number in zip(parts, (50_000, 150_000), strict=True):
        mean, covariance = moments(part.population)
        draws.append(rng.multivariate_normal(mean, covariance, number))
    mixture = np.concatenate(draws)
    mean, covariance = moments(found.population)
    np.testing.assert_allclose(mean, mixture.mean(0), atol=0.02)
    np.testing.assert_allclose(covariance, np.cov(mixture.T), atol=0.03)
    assert found.card["people"] == 8
    assert found.card["worlds"] == ["world 0", "world 1"]


def test_merged_scatter_is_the_mean_by_degrees_of_freedom() -> None:
    parts = [shared(0).scatter, replace(shared(1).scatter, videos=90, objects=9)]
    found = WithinScatter.merged(parts)
    expected = (27 * dense(parts[0]) + 81 * dense(parts[1])) / 108
    np.testing.assert_allclose(dense(found), expected, atol=1e-4)
    np.testing.assert_allclose(found.axes.T @ found.axes, np.eye(found.axes.shape[1]), atol=1e-5)
    with pytest.raises(ShapeError, match="same features"):
        WithinScatter.merged([parts[0], shared(0, dim=7).scatter])


def test_population_of_a_new_world_against_a_joint_normal() -> None:
    """Mean and variance by conditioning a dense joint normal of all means."""
    model = SimilarityPool()
    worlds = [shared(seed).population for seed in (0, 1)]
    mean, covariance = moments(for_new_world(worlds, model))
    for site in range(1 + len(HEADS)):
        tau = (model.scale_sd if site == 0 else model.head_sd) ** 2
        prior = model.scale if site == 0 else 0.0
        seen = np.array([moments(w)[0][site] for w in worlds])
        noise = np.diag([moments(w)[1][site, site] for w in worlds])
        joint = np.full((3, 3), tau) + tau * np.eye(3)  # worlds 1, 2 and the new one
        gain = joint[2, :2] @ np.linalg.inv(joint[:2, :2] + noise)
        assert mean[site] == pytest.approx(prior + gain @ (seen - prior), abs=1e-8)
        assert covariance[site, site] == pytest.approx(joint[2, 2] - gain @ joint[:2, 2], abs=1e-8)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_populations_in_the_box_are_small_told_and_of_their_backbones_as_they_come(
    name: str,
) -> None:
    path = default_path(name)
    assert path.stat().st_size <= 5 * 10**6
    found = default_population(name)
    assert found.backbone == backbone_of(name, "cpu").name
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) == found.card
    assert found.scatter.axes.shape == (1280, 128)
    for name in ("people", "objects", "worlds", "calibration", "fails"):
        assert found.card[name]


def test_a_backbone_without_a_population_in_the_box_is_refused() -> None:
    with pytest.raises(DataError, match="efficientnet-lite2"):
        default_population("timm:resnet18")
    assert set(BACKBONES) == {path.stem for path in default_path().parent.glob("*.npz")}


def test_the_classifier_takes_the_population_in_the_box() -> None:
    rng = np.random.default_rng(0)
    centres = np.abs(rng.normal(size=(3, 1280)))
    labels = np.repeat(["cup", "key", "pen"], 4)
    x = np.repeat(centres, 4, 0) + 0.3 * rng.normal(size=(12, 1280))
    population = bf.default_population()
    known = bf.BayesianFewShotClassifier(population=population)
    known.fit(x[::2], labels[::2], groups=range(6))
    assert isinstance(known.model_, SimilarityPool)
    assert known.model_.scatter is population.model.scatter
    assert known.predict(x[1::2]).tolist() == labels[1::2].tolist()
    assert np.allclose(known.predict_proba(x[1::2]).sum(1), 1.0)
    other = bf.BayesianFewShotClassifier(population=population)
    with pytest.raises(DataError, match="another backbone"):
        other.fit(x[:, :7], labels, groups=range(12))
