"""What every backbone must hold: `BackboneContract`, a mixin of tests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from bayesfs.protocols import Backbone, missing_members
from bayesfs.testing.expect import expect


class BackboneContract:
    """Inherit it, supply `make_backbone`, and pytest runs every check below against your backbone.

    Attributes:
        tolerance: largest difference of a feature, in units of the largest feature, between two
            ways of asking for it (alone or among others): rounding only.

    Example:
        >>> class TestMyBackbone(BackboneContract):
        ...     def make_backbone(self):
        ...         return MyBackbone()
    """

    tolerance: float = 1e-4

    def make_backbone(self) -> Backbone:
        """A backbone, small enough for tests."""
        raise NotImplementedError

    def _frames(self, count: int, px: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (count, px, px, 3), dtype=np.uint8)

    def _close(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> None:
        gap = float(np.abs(one - other).max(initial=0.0))
        limit = self.tolerance * float(np.abs(one).max(initial=1e-12))
        expect(gap <= limit, f"expected equal features, they differ by {gap:.2g}")

    def test_it_has_every_member(self) -> None:
        """`Backbone` says which."""
        lacking = missing_members(self.make_backbone(), Backbone)
        expect(not lacking, f"a backbone lacks {lacking}")

    def test_features_are_finite_numbers_of_the_size_it_says(self) -> None:
        """Float32, none NaN, and not the same for all frames."""
        backbone = self.make_backbone()
        features = backbone(self._frames(3, backbone.px))
        expect(features.shape == (3, backbone.dim), f"got {features.shape}, dim {backbone.dim}")
        expect(features.dtype == np.float32, f"expected float32, got {features.dtype}")
        expect(bool(np.isfinite(features).all()), "NaN or infinite features")
        expect(float(np.ptp(features, axis=0).max()) > 0, "all frames have the same features")

    def test_no_frames_give_no_features(self) -> None:
        """An empty batch comes at the end of a set."""
        backbone = self.make_backbone()
        got = backbone(self._frames(0, backbone.px)).shape
        expect(got == (0, backbone.dim), f"expected (0, {backbone.dim}), got {got}")

    def test_a_frame_has_the_same_features_in_any_company(self) -> None:
        """Alone, in a batch, and in another order."""
        backbone = self.make_backbone()
        frames = self._frames(backbone.batch + 1, backbone.px)
        together = backbone(frames)
        alone = np.concatenate([backbone(frames[:1]), backbone(frames[-1:])])
        self._close(together[[0, -1]], alone)
        self._close(together[::-1], backbone(frames[::-1].copy()))

    def test_frames_are_left_as_they_are(self) -> None:
        """What is decoded is measured, too."""
        backbone = self.make_backbone()
        frames = self._frames(2, backbone.px)
        kept = frames.copy()
        backbone(frames)
        expect(bool((frames == kept).all()), "the backbone has changed the frames")

    def test_several_threads_may_call_it_at_once(self) -> None:
        """As the workers of `extract` do."""
        backbone = self.make_backbone()
        frames = self._frames(4, backbone.px)
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(backbone, (frames[:2], frames[2:])))
        self._close(np.concatenate(both), backbone(frames))

    def test_other_frames_are_refused(self) -> None:
        """Another size, or no batch."""
        backbone = self.make_backbone()
        frames = self._frames(1, backbone.px)
        for wrong in (frames[:, :-1], frames[0]):
            try:
                backbone(wrong)
            except ValueError:
                continue
            expect(False, f"frames of shape {wrong.shape} were taken")

    def test_its_name_says_how_large_frames_are_and_is_always_the_same(self) -> None:
        """Stores are compared by it."""
        one, other = self.make_backbone(), self.make_backbone()
        expect(one.name == other.name, f"two names: {one.name!r}, {other.name!r}")
        expect(one.name.endswith(f"@{one.px}px"), f"{one.name!r} does not end with @{one.px}px")
