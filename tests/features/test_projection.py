"""The projection: quality is standardised by the train frames of each condition."""

import numpy as np
import pytest

from bayesfs.errors import DataError
from bayesfs.features.projection import QUALITY_LIMIT, fit_projection
from bayesfs.features.reduction import PrincipalAxes, UnitNorm
from bayesfs.types import Embeddings


def frames(seed=0, quality=True, n=40):
    rng = np.random.default_rng(seed)
    condition = np.where(np.arange(n) < n // 2, "clean", "clutter")
    table = {"sharpness": rng.normal(3.0 * (condition == "clutter"), 2.0), "flat": np.ones(n)}
    return Embeddings.from_arrays(
        rng.normal(size=(n, 5)),
        object=["a"] * n,
        condition=condition,
        quality=table if quality else None,
    )


def test_quality_has_mean_zero_and_sd_one_in_each_condition() -> None:
    train = frames()
    got = fit_projection(train, 3)(train).dataset["quality"].values
    for condition in ("clean", "clutter"):
        part = got[train.coord("condition") == condition]
        assert part.mean(0) == pytest.approx([0, 0], abs=1e-6)
        assert part[:, 0].std() == pytest.approx(1, abs=1e-6)
        assert part[:, 1].std() == 0  # a constant covariate says nothing


def test_quality_far_outside_the_train_frames_is_cut() -> None:
    train, other = frames(), frames(1)
    wild = other.dataset["quality"].values.copy()
    wild[0, 0] = 1e9
    other = Embeddings(other.dataset.assign(quality=(("frame", "covariate"), wild)))
    assert fit_projection(train, 3)(other).dataset["quality"].values.max() == QUALITY_LIMIT


def test_frames_without_the_covariates_that_were_learnt_are_refused() -> None:
    projection = fit_projection(frames(), 3)
    with pytest.raises(DataError, match=r"2 covariates of quality per frame.* got 0"):
        projection(frames(quality=False))


def test_frames_without_quality_need_none() -> None:
    bare = frames(quality=False)
    assert "quality" not in fit_projection(bare, 3)(bare).dataset


def test_cross_fitted_quality_is_standardised_by_the_other_users() -> None:
    parts = [frames(seed) for seed in range(3)]
    users = np.repeat(["u0", "u1", "u2"], [len(p) for p in parts])
    every = Embeddings.from_arrays(
        np.concatenate([p.features for p in parts]),
        object=["a"] * len(users),
        user=users,
        condition=np.concatenate([p.coord("condition") for p in parts]),
        quality={
            name: np.concatenate([p.dataset["quality"].values[:, j] for p in parts])
            for j, name in enumerate(("sharpness", "flat"))
        },
    )
    axes = PrincipalAxes(3)
    got = axes.cross_fit(every, 3).where(user="u1").dataset["quality"].values
    other = axes.fit(every.where(user=["u0", "u2"]))(every.where(user="u1"))
    assert np.allclose(got, other.dataset["quality"].values)


@pytest.mark.parametrize("factor", [1e-200, 1e-20, 1e200])
def test_directions_of_plain_features_do_not_depend_on_their_unit(factor: float) -> None:
    train = frames()
    projection, x = fit_projection(train, 3), train.features.astype(np.float64)
    known = projection.of_features(x, "clean")
    np.testing.assert_allclose(projection.of_features(factor * x, "clean"), known, atol=1e-6)


def test_quality_of_tiny_units_is_standardised_too() -> None:
    train = frames()
    table = train.dataset["quality"].values * np.float32(1e-20)
    tiny = Embeddings(train.dataset.assign(quality=(("frame", "covariate"), table)))
    got, known = (fit_projection(e, 3)(e).dataset["quality"].values for e in (tiny, train))
    np.testing.assert_allclose(got, known, atol=1e-5)


def test_unit_norm_takes_off_what_clutter_shifts_as_a_whole() -> None:
    """Ten objects, each in both conditions; those in one alone have no part in it."""
    rng = np.random.default_rng(0)
    shift, rows, names, kinds = 0.3 * rng.normal(size=6), [], [], []
    for thing in range(12):
        centre = 3.0 * rng.normal(size=6)
        for kind in ("clean", "clutter")[: 2 if thing < 10 else 1]:
            x = centre + 0.02 * rng.normal(size=(4, 6))
            rows.append(x / np.linalg.norm(x, axis=1, keepdims=True) + (kind == "clutter") * shift)
            names += [f"thing {thing}"] * 4
            kinds += [kind] * 4
    x = np.concatenate(rows)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    table = Embeddings.from_arrays(x, object=names, condition=kinds)
    things, clutter = np.array(names), np.array(kinds) == "clutter"
    paired = [
        x[(things == n) & clutter].mean(0) - x[(things == n) & ~clutter].mean(0)
        for n in sorted(set(things[clutter]))
    ]
    m = np.mean(paired, 0)
    error = np.sum(np.var(paired, 0, ddof=1)) / len(paired)
    found = UnitNorm().fit(table).means
    np.testing.assert_allclose(found[1], m * (1 - error / (m @ m)), atol=1e-6)
    assert not found[0].any()


def test_unit_norm_of_few_objects_shifts_nothing_that_is_not_known() -> None:
    """With as much error as shift the shrunk shift is none; with one object nothing is known."""
    x = np.array([[1.0, 0.1], [1.0, -0.1], [1.0, -0.1], [1.0, 0.1]])
    kinds = ["clean", "clutter"] * 2
    two = Embeddings.from_arrays(x, object=["a", "a", "b", "b"], condition=kinds)
    assert not UnitNorm().fit(two).means.any()
    one = Embeddings.from_arrays(x, object=["a"] * 4, condition=kinds)
    assert not UnitNorm().fit(one).means.any()


def test_unit_norm_keeps_every_feature_and_only_its_direction() -> None:
    train = frames()
    reduction = UnitNorm()
    projection = reduction.fit(train)
    expected = train.features / np.linalg.norm(train.features, axis=1, keepdims=True)
    assert projection.axes is None
    assert projection.dim == projection.input_dim == 5
    np.testing.assert_allclose(projection(train).features, expected, atol=1e-6)
    np.testing.assert_allclose(
        projection.of_features(train.features, "clutter"), expected, atol=1e-6
    )
    spread = expected.std(0)
    np.testing.assert_allclose(projection.spectrum, spread / np.linalg.norm(spread), rtol=1e-5)
    with pytest.raises(DataError, match="expected 5 features per frame, got 4"):
        projection(train.with_features(train.features[:, :4]))


def test_cross_fitted_unit_norm_is_the_features_themselves() -> None:
    every = Embeddings.from_arrays(
        frames().features, object=["a"] * 40, user=np.repeat(["u0", "u1"], 20)
    )
    reduction = UnitNorm()
    crossed = reduction.cross_fit(every, 5).features
    np.testing.assert_array_equal(crossed, reduction.fit(every)(every).features)
