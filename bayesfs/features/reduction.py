"""Which features a study keeps: the settings behind a fitted `Projection`.

Start with `PrincipalAxes` for models of features, and `UnitNorm` for models of similarities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bayesfs._utils.ranges import Count, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.features.projection import Projection, fit_projection, unit_projection
from bayesfs.types import Embeddings


class FeatureReduction(Protocol):
    """What makes a projection of train users' frames."""

    def fit(self, embeddings: Embeddings) -> Projection:
        """The projection of the given frames, which must be of train users only."""
        ...

    def fit_unlabelled(self, embeddings: Embeddings) -> Projection:
        """The same of frames whose labels are not looked at."""
        ...

    def cross_fit(self, embeddings: Embeddings, dim: int) -> Embeddings:
        """Every user's frames projected by what the other users' frames give."""
        ...


@dataclass(frozen=True)
class PrincipalAxes:
    """Unit norm, centring by recording condition, and the leading principal axes.

    Attributes:
        dim: number of axes to keep; cut to the rank of the train frames.

    Raises:
        ShapeError: dim is below 1.
    """

    dim: Count = 256

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    def fit(self, embeddings: Embeddings) -> Projection:
        """The projection of the given frames, which must be of train users only."""
        return fit_projection(embeddings, self.dim)

    def fit_unlabelled(self, embeddings: Embeddings) -> Projection:
        """The principal axes of the frames, whatever is learnt from labels besides."""
        return fit_projection(embeddings, self.dim)

    def cross_fit(self, embeddings: Embeddings, dim: int) -> Embeddings:
        """Every user's frames projected by axes and means fitted on the other users only.

        Measured quality is standardised by the other users' frames likewise.

        A new user's frames had no part in the projection, so neither must those of the users that
        the population is learnt from: projected by axes of their own frames, classes lie further
        apart than they will for anybody else, and what is learnt is overconfident. Each user has
        axes of his own, so this serves models that use features within one task only.

        Args:
            embeddings: frames of the train users; a single user is projected by his own axes.
            dim: number of features; missing ones are zero.
        """
        return by_others(embeddings, self.fit, dim)


@dataclass(frozen=True)
class UnitNorm:
    """Features at unit length, all of them: no centring, no axes.

    For models that see features by their inner products only, such as
    `bayesfs.models.similarity.pool.SimilarityPool`: nothing that sets objects apart is thrown away.
    """

    def fit(self, embeddings: Embeddings) -> Projection:
        """Unit length; the frames give the spectrum and the typical quality only."""
        return unit_projection(embeddings)

    def fit_unlabelled(self, embeddings: Embeddings) -> Projection:
        """The same: no label is looked at."""
        return unit_projection(embeddings)

    def cross_fit(self, embeddings: Embeddings, dim: int) -> Embeddings:
        """The features are those of `fit`; only measured quality is told by the other users.

        Args:
            embeddings: frames of the train users.
            dim: number of features, which must be that of the embeddings.
        """
        return by_others(embeddings, self.fit, dim)


def fitted_on_others(
    embeddings: Embeddings, fit: Callable[[Embeddings], Projection]
) -> dict[str, Projection]:
    """User -> what the other users' frames give; a single user's own."""
    names = sorted(set(embeddings.coord("user").tolist()))
    return {name: fit(others_of(embeddings, [name])) for name in names}


def others_of(embeddings: Embeddings, users: Sequence[str]) -> Embeddings:
    """The frames of all other users; all frames where there is no other."""
    user = embeddings.coord("user")
    here = np.isin(user, list(users))
    return embeddings if here.all() else embeddings.where(user=np.unique(user[~here]).tolist())


def by_others(
    embeddings: Embeddings, fit: Callable[[Embeddings], Projection], dim: int
) -> Embeddings:
    """Every user's frames by what the other users' frames give; a single user by their own."""
    names = sorted(set(embeddings.coord("user").tolist()))
    if len(names) < 2:
        return fit(embeddings)(embeddings)
    return left_out(embeddings, [[name] for name in names], fit, dim)


def left_out(
    embeddings: Embeddings,
    groups: Sequence[Sequence[str]],
    fit: Callable[[Embeddings], Callable[[Embeddings], Embeddings]],
    dim: int,
) -> Embeddings:
    """Every group's frames by what was fitted on the others: features and measured quality.

    Args:
        embeddings: frames of the groups.
        groups: users of each group, every user in one of them; a single group is its own others.
        fit: frames -> what projects other frames.
        dim: number of features; missing ones are zero.
    """
    user = embeddings.coord("user")
    out = np.zeros((len(embeddings), dim), np.float32)
    raw = embeddings.dataset.get("quality")
    quality = None if raw is None else raw.copy()
    for group in groups:
        here = np.isin(user, list(group))
        projected = fit(others_of(embeddings, group))(embeddings.where(user=list(group)))
        width = min(dim, projected.features.shape[1])
        out[here, :width] = projected.features[:, :width]
        if quality is not None:
            quality[here] = projected.dataset["quality"].values
    crossed = embeddings.with_features(out)
    if quality is None:
        return crossed
    return Embeddings.of_own(crossed.dataset.assign(quality=quality))
