"""Covariance of class functions over frames of videos: `VideoCovariance`.

The latent value of class c at frame i of video v is

    u_c(i) = f_c(x_i) + b_c + e_vc (+ input noise) + n_ic

    f   ~ GP(0, k(phi(x), phi(x')))         the class function: what support videos teach
    b   ~ N(0, constant^2)                  the task's level
    e_v ~ N(0, video_condition^2)                one deviation for all frames of a video
    n_i ~ N(0, frame_condition^2)                one for each frame

so that forty frames of one video count as one view and not as forty. f + b is what more support
reduces (epistemic); the rest belongs to the query's own video and frame (aleatoric).

**Input noise.** A frame in clutter shows phi(x) + delta. By the reproducing property
f(x + delta) - f(x) = <f, k(x + delta, .) - k(x, .)>, its variance is at most |f|_H^2 times the
squared kernel distance, and for a linear kernel and isotropic delta it is E|delta|^2 |w|^2 / dim.
So each class adds shift_condition^2 |mean f_c|_H^2, once for the video and once for each frame. A
class function that has grown steep (many videos) then pays for it; without this a GP taught in
clean videos is the more over-confident in clutter the more videos it has seen.

Source: the noisy-input GP of McHutchon and Rasmussen 2011 uses the gradient |grad f|^2 instead,
which agrees for a linear kernel; the video deviation is a random intercept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bayesfs._utils.ranges import Positive, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.gp.feature_maps import FeatureMap, OrderedAxes
from bayesfs.models.gp.hyperparameters import (
    Hyperparameter,
    Values,
    by_condition,
    merge,
    positive,
    positive_per_condition,
)
from bayesfs.models.gp.kernels import BaseKernel, Linear
from bayesfs.models.gp.points import Query, Support


@dataclass(frozen=True)
class VideoCovariance:
    """Feature map, base kernel and the deviations of videos and frames.

    Prior medians suit regression on labels and unit-norm features; likelihoods with a link
    (softmax and so on) have latent values some ten times as large.

    Attributes:
        features: learnt map of the embeddings.
        base: kernel on the mapped features.
        video: prior median of the video deviation; None leaves it out (frames then count as
            independent, which is what published deep-kernel classifiers assume).
        scaled_video: multiply the video deviation by the base kernel (a deviation that varies
            over the frames of a video) instead of keeping it constant over them.
        frame: prior median of the frame deviation.
        constant: prior median of the task's level; None leaves it out.
        shift: prior median of the input noise; None leaves it out.
        spread: prior sd of the logs of the deviations, of the level and of the input noise.
    """

    features: FeatureMap = field(default_factory=OrderedAxes)
    base: BaseKernel = field(default_factory=Linear)
    video: Positive | None = 0.07
    scaled_video: bool = False
    frame: Positive = 0.1
    constant: Positive | None = None
    shift: Positive | None = 0.012
    spread: Positive = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def name(self) -> str:
        """For error messages."""
        parts = [f"{type(self.base).__name__}({type(self.features).__name__})"]
        parts += ["video"] * (self.video is not None) + ["constant"] * (self.constant is not None)
        return " + ".join(parts)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """Hyperparameters of all parts."""
        own = {"frame_scale": positive_per_condition(self.frame, self.spread)}
        if self.video is not None:
            own["video_scale"] = positive_per_condition(self.video, self.spread)
        if self.constant is not None:
            own["constant_scale"] = positive(self.constant, self.spread)
        if self.shift is not None:
            own["video_shift"] = positive_per_condition(self.shift, self.spread)
            own["frame_shift"] = positive_per_condition(self.shift, self.spread)
        return merge(self.features.sites, self._base_sites(), own)

    def _base_sites(self) -> Mapping[str, Hyperparameter]:
        """The base kernel's sites, told the width of the mapped features."""

        def told(site: Hyperparameter) -> Hyperparameter:
            width = self.features.width
            return Hyperparameter(site.dims, lambda x: site.prior(x.new_empty(width(x.shape[-1]))))

        return {name: told(site) for name, site in self.base.sites.items()}

    def prepare(self, x: Tensor, condition: Tensor) -> VideoCovariance:
        """The covariance with its feature map's constants taken from train frames."""
        return replace(self, features=self.features.prepare(x, condition))

    def fit_to(self, spectrum: tuple[float, ...]) -> VideoCovariance:
        """The covariance whose feature map is told the spread along each feature, if it asks."""
        return replace(self, features=self.features.fit_to(spectrum))

    def map_support(self, values: Values, points: Support) -> Support:
        """Support points with mapped features, zero where padded."""
        z = self.features(values, points.x, points.condition)
        return points.mapped(z if points.full else z * points.mask[..., None])

    def map_query(self, values: Values, query: Query) -> Query:
        """Query frames with mapped features, zero where padded."""
        t, v, f, d = query.x.shape
        condition = query.condition[..., None].expand(-1, -1, f).reshape(t, -1)
        z = self.features(values, query.x.reshape(t, v * f, d), condition).reshape(t, v, f, -1)
        return query.mapped(z if query.full else z * query.mask[..., None])

    def signal(self, values: Values, z1: Tensor, z2: Tensor) -> Tensor:
        """(..., n, m): covariance of f + b."""
        return self.base(values, z1, z2) + self._level(values)

    def support_deviation(self, values: Values, points: Support) -> Tensor:
        """(task, n, n): covariance of the video and frame deviations; 1 on padded diagonals."""
        frame = by_condition(values["frame_scale"], points.condition) ** 2
        total = torch.diag_embed(torch.where(points.mask, frame, 1.0))
        if self.video is None:
            return total
        scale = by_condition(values["video_scale"], points.condition)
        video = points.same_video * scale[..., None] ** 2
        if self.scaled_video:
            video = video * self.base(values, points.x, points.x)
        return total + video

    def support(self, values: Values, points: Support) -> Tensor:
        """(task, n, n): covariance of mapped support points; padded points stand apart."""
        signal = self.signal(values, points.x, points.x)
        signal = signal if points.full else signal * points.pairs
        return signal + self.support_deviation(values, points)

    def cross(self, values: Values, points: Support, query: Query) -> Tensor:
        """(task, n, video x frame): covariance of f + b between support and query."""
        t, v, f, d = query.x.shape
        cross = self.signal(values, points.x, query.x.reshape(t, v * f, d))
        if points.full and query.full:
            return cross
        return cross * (points.mask[:, :, None] & query.mask.reshape(t, 1, v * f))

    def query_signal(self, values: Values, query: Query) -> Tensor:
        """(task, video, frame, frame): prior covariance of f + b over each video's frames."""
        if query.mask.shape[-1] == 1:
            signal = (self.base.diagonal(values, query.x) + self._level(values))[..., None]
        else:
            signal = self.signal(values, query.x, query.x)
        return signal if query.full else signal * query.pairs

    def query_deviation(self, values: Values, query: Query, norm: Tensor | None) -> Tensor:
        """Covariance of a query video's own deviations, for each class.

        Args:
            values: hyperparameters.
            query: mapped query.
            norm: (task, way) |mean f_c|_H^2; only the input noise needs it.

        Returns:
            (task, way or 1, video, frame, frame), 1 on padded diagonals; one class stands for all
            where there is no input noise.
        """
        shared, single = self._query_scales(values, query.condition, norm)
        eye = torch.eye(query.mask.shape[-1], dtype=query.x.dtype, device=query.x.device)
        full = shared[..., None, None] + single[..., None, None] * eye
        if self.video is not None and self.scaled_video:
            scale = by_condition(values["video_scale"], query.condition) ** 2
            own = scale[..., None, None] * self.base(values, query.x, query.x)
            full = full + own[:, None]
        return full if query.full else torch.where(query.pairs[:, None], full, eye)

    def _query_scales(
        self, values: Values, condition: Tensor, norm: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Variances shared by a video's frames and of single frames, (task, way or 1, video)."""

        def variance(site: str) -> Tensor:
            return by_condition(values[site], condition)[:, None] ** 2

        single = variance("frame_scale")
        shared = torch.zeros_like(single)
        if self.video is not None and not self.scaled_video:
            shared = variance("video_scale")
        if self.shift is not None and norm is not None:
            shared = shared + variance("video_shift") * norm[..., None]
            single = single + variance("frame_shift") * norm[..., None]
        return shared, single

    def _level(self, values: Values) -> Tensor | float:
        return 0.0 if self.constant is None else values["constant_scale"] ** 2
