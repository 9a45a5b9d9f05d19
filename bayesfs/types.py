"""The nouns: frozen values that are validated once, with every axis named.

Start with `Embeddings` (labelled frames) and `EpisodeBatch` (few-shot tasks drawn from them).
`Posterior` is what an engine returns, `Predictive` what `bayesfs.predict` makes of it.

Axes, always in this order where they occur:
    draw     posterior draw (chains concatenated), or particle
    task     one user's recognition problem
    way      class (object) within the task
    shot     support video of a class
    video    query video of the task
    frame    frame within a video
    feature  embedding dimension
    covariate  measured quality of a frame
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayesfs.display import card, number
from bayesfs.errors import DataError, ShapeError

KINDS = ("clean", "clutter")
"""Recording conditions; `support_kind` and `query_kind` index into this tuple."""

UNLABELLED = -1
"""Query label of a video whose object is unknown or is none of the taught ones."""

PosteriorKind = Literal["mcmc", "variational", "particles", "exact"]


@dataclass(frozen=True)
class Embeddings:
    """Labelled frame embeddings: a validated view of one xarray Dataset.

    The dataset has `features` (frame, feature) and the coordinates `user`, `object`, `video`,
    `kind` (one of `KINDS`) and `split` over `frame`; optionally `quality` (frame, covariate),
    `flag_*` coordinates (1 true, 0 false, -1 not annotated) and `path`. Frames of one video are
    contiguous and in order of time.

    Raises:
        DataError: a variable or coordinate is missing, or a feature is not finite.
    """

    dataset: xr.Dataset

    REQUIRED = ("user", "object", "video", "kind", "split")

    def __post_init__(self) -> None:
        ds = self.dataset
        if "features" not in ds or ds["features"].dims != ("frame", "feature"):
            got = {name: v.dims for name, v in ds.data_vars.items()}
            raise DataError(
                f"expected a variable 'features' with dims (frame, feature), got {got}; "
                "was this written by `bayesfs features`?"
            )
        missing = [name for name in self.REQUIRED if name not in ds.coords]
        if missing:
            raise DataError(f"expected coordinates {self.REQUIRED} over frame, missing {missing}")
        unknown = sorted(set(np.unique(ds["kind"].values)) - set(KINDS))
        if unknown:
            raise DataError(f"expected kind to be one of {KINDS}, got {unknown}")
        finite = np.isfinite(ds["features"].values).all(axis=1)
        if not finite.all():
            videos = sorted(set(ds["video"].values[~finite].tolist()))
            raise DataError(
                f"{int((~finite).sum())} frames have NaN or infinite features, first in video "
                f"{videos[0]!r}; a corrupt image or an overflow in the backbone?"
            )

    @classmethod
    def from_arrays(
        cls,
        features: np.ndarray[Any, Any],  # (frame, feature)
        *,
        object: Sequence[str],
        video: Sequence[str] | None = None,
        user: Sequence[str] | str = "user",
        kind: Sequence[str] | str = "clean",
        split: Sequence[str] | str = "train",
        quality: Mapping[str, np.ndarray[Any, Any]] | None = None,
    ) -> Embeddings:
        """Build embeddings from plain arrays; without `video` every frame is a video of its own.

        Args:
            features: (frame, feature) embeddings.
            object: class name of each frame.
            video: video name of each frame; names must be unique across users and objects.
            user: one user for all frames, or one per frame.
            kind: recording condition, one of `KINDS`, for all frames or per frame.
            split: "train", "validation" or "test", for all frames or per frame.
            quality: covariate name -> (frame,) measured quality.

        Returns:
            Embeddings with `features` as float32.

        Raises:
            ShapeError: features is not two-dimensional or a label has another length.
            DataError: a feature is not finite, or a kind is unknown.
        """
        x = np.asarray(features)
        if x.ndim != 2:
            raise ShapeError(f"expected features of shape (frame, feature), got {x.shape}")
        n = len(x)
        labels: dict[str, Any] = {
            "user": user,
            "object": object,
            "video": [f"frame-{i:06d}" for i in range(n)] if video is None else video,
            "kind": kind,
            "split": split,
        }
        coords: dict[str, Any] = {}
        for name, value in labels.items():
            column = np.full(n, value) if isinstance(value, str) else np.asarray(value, dtype=str)
            if column.shape != (n,):
                raise ShapeError(
                    f"expected {n} values of {name}, one per frame, got {column.shape}"
                )
            coords[name] = ("frame", column)
        ds = xr.Dataset({"features": (("frame", "feature"), x.astype(np.float32))}, coords=coords)
        if quality:
            table = np.stack([np.asarray(q, np.float32) for q in quality.values()], axis=1)
            ds["quality"] = (("frame", "covariate"), table)
            ds = ds.assign_coords(covariate=list(quality))
        return cls(ds)

    def __len__(self) -> int:
        return int(self.dataset.sizes["frame"])

    @property
    def features(self) -> np.ndarray[Any, Any]:
        """(frame, feature) array of embeddings."""
        return np.asarray(self.dataset["features"].values)

    def coord(self, name: str) -> np.ndarray[Any, Any]:
        """Values of one coordinate over frames, such as `user` or `flag_blur_issue`."""
        return np.asarray(self.dataset[name].values)

    def where(self, **labels: str | Sequence[str]) -> Embeddings:
        """Frames whose coordinates take the given value or one of the given values.

        Raises:
            DataError: no frame at all has a value that is asked for.
        """
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in labels.items():
            values = [wanted] if isinstance(wanted, str) else list(wanted)
            here = np.isin(self.coord(name), values)
            if values and len(self) and not here.any():
                known = np.unique(self.coord(name)).tolist()
                raise DataError(f"no frame has {name} {values[:4]}; there are {known[:8]}")
            keep &= here
        return Embeddings(self.dataset.isel(frame=np.flatnonzero(keep)))

    def with_features(self, features: np.ndarray[Any, Any]) -> Embeddings:
        """The same frames and labels with other features (frame, feature)."""
        rest = self.dataset.drop_vars("features").drop_dims("feature", errors="ignore")
        return Embeddings(rest.assign(features=(("frame", "feature"), features)))

    def _repr_html_(self) -> str:
        """What a notebook shows: sizes, and how many of what each split holds."""
        rows = [
            (split, *(len(set(part.coord(name).tolist())) for name in names), len(part))
            for names in [("user", "object", "video")]
            for split in dict.fromkeys(self.coord("split").tolist())
            for part in [self.where(split=split)]
        ]
        facts = [("frames", len(self)), ("features", self.dataset.sizes["feature"])]
        columns = ("split", "users", "object names", "videos", "frames")
        return card("Embeddings", facts, columns=columns, rows=rows)


def user_of(task: str) -> str:
    """User of a task: its name up to the last "#", which numbers the tasks of one user.

    Example:
        >>> user_of("P001#7"), user_of("P001")
        ('P001', 'P001')
    """
    return task.rpartition("#")[0] or task


@dataclass(frozen=True)
class EpisodeBatch:
    """T few-shot tasks, padded to common sizes, with masks; one task is a batch of one.

    A query label belongs to the whole video. Padded entries are zero in the data and False in
    the masks; a class with no support frame is padding. So is an exact copy of an earlier frame of
    its support video: features are continuous, so it is that frame read twice (a paused camera, a
    raised frame rate) and tells nothing new.

    Attributes:
        support: (task, way, shot, frame, feature) embeddings of the support videos.
        support_mask: (task, way, shot, frame) bool, True where there is a frame.
        support_kind: (task, way, shot) index into `KINDS`.
        query: (task, video, frame, feature) embeddings of the query videos.
        query_mask: (task, video, frame) bool.
        query_kind: (task, video) index into `KINDS`.
        query_labels: (task, video) class index, or `UNLABELLED`.
        support_quality: (task, way, shot, frame, covariate), or None.
        query_quality: (task, video, frame, covariate), or None.
        support_frame: (task, way, shot, frame) row of the Embeddings, -1 for padding, or None.
        query_frame: (task, video, frame) row of the Embeddings, -1 for padding, or None.
        tasks: name of each task (the user, with a suffix where a user has several).
        classes: class names of each task, in label order.
        videos: query video names of each task.

    Raises:
        ShapeError: sizes disagree, a label is not a class of its task, or a value is not finite.
    """

    support: Tensor
    support_mask: Tensor
    support_kind: Tensor
    query: Tensor
    query_mask: Tensor
    query_kind: Tensor
    query_labels: Tensor
    support_quality: Tensor | None = None
    query_quality: Tensor | None = None
    support_frame: Tensor | None = None
    query_frame: Tensor | None = None
    tasks: tuple[str, ...] = ()
    classes: tuple[tuple[str, ...], ...] = ()
    videos: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.support.ndim != 5 or self.query.ndim != 4:
            raise ShapeError(
                "expected support (task, way, shot, frame, feature) and query (task, video, frame, "
                f"feature), got {tuple(self.support.shape)} and {tuple(self.query.shape)}"
            )
        t, w, s, f, d = self.support.shape
        _, v, g, _ = self.query.shape
        expected = {
            "support_mask": (t, w, s, f),
            "support_kind": (t, w, s),
            "query": (t, v, g, d),
            "query_mask": (t, v, g),
            "query_kind": (t, v),
            "query_labels": (t, v),
            "support_frame": (t, w, s, f),
            "query_frame": (t, v, g),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ShapeError(f"expected {name} of shape {shape}, got {tuple(value.shape)}")
        for name, lead in (("support_quality", (t, w, s, f)), ("query_quality", (t, v, g))):
            value = getattr(self, name)
            if value is not None and tuple(value.shape[:-1]) != lead:
                raise ShapeError(
                    f"expected {name} of shape {lead} + (covariate,), got {tuple(value.shape)}"
                )
        self._check_values()
        self._check_names()
        copies = _copies(self.support, self.support_mask)
        if copies is not None:
            object.__setattr__(self, "support_mask", self.support_mask & ~copies)

    def _check_values(self) -> None:
        if not (torch.isfinite(self.support).all() and torch.isfinite(self.query).all()):
            raise ShapeError(
                "support or query holds NaN or infinite features; was a frame corrupt?"
            )
        for unit, mask in (("support", self.support_mask), ("query", self.query_mask)):
            quality = getattr(self, f"{unit}_quality")
            if quality is not None and not torch.isfinite(quality[mask]).all():
                raise ShapeError(
                    f"{unit}_quality holds NaN or infinite values; was a covariate not measured?"
                )
        ways = self.way_mask.sum(-1)
        if (ways == 0).any():
            raise ShapeError(
                f"task {self.task_name(int((ways == 0).nonzero()[0]))!r} has no support frame"
            )
        known = self.query_labels >= 0
        inside = (self.query_labels < self.way).all() and bool(
            self.way_mask.gather(1, self.query_labels.clamp(0, self.way - 1))[known].all()
        )
        if not inside or (self.query_labels < UNLABELLED).any():
            raise ShapeError(
                f"query_labels hold {sorted(set(self.query_labels.flatten().tolist()))} but "
                f"support has way={ways.tolist()}; was the episode relabelled?"
            )
        for kind in (self.support_kind, self.query_kind):
            if ((kind < 0) | (kind >= len(KINDS))).any():
                raise ShapeError(
                    f"expected kinds 0..{len(KINDS) - 1} ({KINDS}), got {kind.flatten().tolist()}"
                )

    def _check_names(self) -> None:
        for name in ("tasks", "classes", "videos"):
            own = getattr(self, name)
            if own and len(own) != len(self):
                raise ShapeError(f"expected {name} of {len(self)} tasks, got {len(own)}")
        for name, present in (("classes", self.way_mask), ("videos", self.video_mask)):
            for t, own in enumerate(getattr(self, name)):
                if len(own) > present.shape[1] or present[t, len(own) :].any():
                    raise ShapeError(
                        f"expected {name} to name each of the {int(present[t].sum())} of task "
                        f"{self.task_name(t)!r}, got {len(own)} names"
                    )

    def __len__(self) -> int:
        return self.support.shape[0]

    @property
    def way(self) -> int:
        """Largest number of classes of any task in the batch."""
        return self.support.shape[1]

    @property
    def dim(self) -> int:
        """Number of features."""
        return self.support.shape[-1]

    @property
    def way_mask(self) -> Tensor:
        """(task, way) bool: classes that exist."""
        return self.support_mask.flatten(2).any(-1)

    @property
    def shot_mask(self) -> Tensor:
        """(task, way, shot) bool: support videos that exist."""
        return self.support_mask.any(-1)

    @property
    def video_mask(self) -> Tensor:
        """(task, video) bool: query videos that exist."""
        return self.query_mask.any(-1)

    def task_name(self, task: int) -> str:
        """Name of a task, or its number where tasks have no names."""
        return self.tasks[task] if self.tasks else str(task)

    @property
    def users(self) -> tuple[str, ...]:
        """User of each task; tasks without names are each a user of their own."""
        return tuple(user_of(self.task_name(t)) for t in range(len(self)))

    def to(self, target: torch.dtype | torch.device | str) -> EpisodeBatch:
        """The batch on another device, or with its floating-point tensors in another dtype."""
        changed: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                is_index = isinstance(target, torch.dtype) and not value.is_floating_point()
                changed[f.name] = value if is_index else value.to(target)
        return replace(self, **changed)

    def select(self, tasks: Sequence[int]) -> EpisodeBatch:
        """The batch of the given tasks, in the given order."""
        index = torch.as_tensor(list(tasks), dtype=torch.long, device=self.support.device)
        changed: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                changed[f.name] = value[index]
            elif value:
                changed[f.name] = tuple(value[i] for i in tasks)
        return replace(self, **changed)

    def limit_shots(self, shots: int) -> EpisodeBatch:
        """The same tasks with only the first `shots` support videos of each class."""
        if shots < 1:
            raise ShapeError(f"expected shots >= 1, got {shots}")
        names = ("support", "support_mask", "support_kind", "support_quality", "support_frame")
        cut = {n: getattr(self, n)[:, :, :shots] for n in names if getattr(self, n) is not None}
        return replace(self, **cut)

    def permute_classes(self, order: Sequence[int]) -> EpisodeBatch:
        """Relabel classes: new class j is old class `order[j]`, in every task of the batch.

        A task with fewer classes than the batch has empty names where its padding goes.
        """
        index = torch.as_tensor(list(order), device=self.support.device)
        inverse = torch.argsort(index)
        names = ("support", "support_mask", "support_kind", "support_quality", "support_frame")
        changed: dict[str, Any] = {
            n: getattr(self, n)[:, index] for n in names if getattr(self, n) is not None
        }
        known = self.query_labels >= 0
        changed["query_labels"] = torch.where(
            known, inverse[self.query_labels.clamp(min=0)], self.query_labels
        )
        padded = [(*c, *[""] * (self.way - len(c))) for c in self.classes]
        changed["classes"] = tuple(tuple(c[i] for i in order) for c in padded)
        return replace(self, **changed)

    def _repr_html_(self) -> str:
        """What a notebook shows: one line a task, the first twenty."""
        known = self.query_labels >= 0
        rows = [
            (
                self.task_name(t),
                ", ".join(self.classes[t]) if self.classes else int(self.way_mask[t].sum()),
                int(self.shot_mask[t].sum()),
                int(self.support_mask[t].sum()),
                int(self.video_mask[t].sum()),
                int(known[t].sum()),
            )
            for t in range(min(len(self), 20))
        ]
        columns = ("task", "classes", "support videos", "frames", "query videos", "labelled")
        facts = [("tasks", len(self)), ("features", self.dim), ("dtype", self.support.dtype)]
        return card("EpisodeBatch", facts, columns=columns, rows=rows)


def _copies(frames: Tensor, mask: Tensor) -> Tensor | None:
    """(..., frame) bool: frames that equal an earlier one of their video; None if there are none.

    Args:
        frames: (..., frame, feature).
        mask: (..., frame).
    """
    total = frames.sum(-1)  # copies share it, and hardly any other frames do
    alike = (total.unsqueeze(-1) == total.unsqueeze(-2)) & mask.unsqueeze(-1) & mask.unsqueeze(-2)
    alike = alike.tril(-1)
    if not alike.any():
        return None
    *lead, later, earlier = alike.nonzero(as_tuple=True)
    same = (frames[(*lead, later)] == frames[(*lead, earlier)]).all(-1)
    copy = torch.zeros_like(mask)
    copy[tuple(place[same] for place in (*lead, later))] = True
    return copy


@dataclass(frozen=True)
class Posterior:
    """Draws of every latent site, with named axes, and how they were obtained.

    Attributes:
        kind: "exact", "mcmc", "variational" or "particles"; decides which diagnostics apply.
        draws: site -> (draw, *dims[site]); MCMC chains are concatenated, chain-major.
        dims: site -> its axes after `draw`, such as ("task", "way", "feature"). A site without
            "task" belongs to the population.
        chains: number of chains; `draw` has chains x draws-per-chain entries.
        sample_stats: name -> tensor: `elbo` (step,), `ksd`, `diverging` (draw, task), ...
        coords: axis -> labels, such as {"task": ("P001",)}.
        seed: the seed that reproduces it.

    Raises:
        ShapeError: a site has no dims, a wrong number of axes, or its number of draws differs.
    """

    kind: PosteriorKind
    draws: Mapping[str, Tensor]
    dims: Mapping[str, tuple[str, ...]]
    chains: int = 1
    sample_stats: Mapping[str, Tensor] = field(default_factory=dict)
    coords: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = {}
        for site, value in self.draws.items():
            if site not in self.dims:
                raise ShapeError(f"site {site!r} has no dims; known sites are {sorted(self.dims)}")
            if value.ndim != 1 + len(self.dims[site]):
                raise ShapeError(
                    f"expected site {site!r} with axes (draw, {', '.join(self.dims[site])}), "
                    f"got shape {tuple(value.shape)}"
                )
            sizes[site] = value.shape[0]
        if len(set(sizes.values())) > 1:
            raise ShapeError(f"sites have different numbers of draws: {sizes}")
        if sizes and self.num_draws % self.chains:
            raise ShapeError(f"{self.num_draws} draws do not divide into {self.chains} chains")

    @property
    def num_draws(self) -> int:
        """Number of draws, all chains together."""
        return next((int(v.shape[0]) for v in self.draws.values()), 0)

    @property
    def population(self) -> dict[str, Tensor]:
        """Draws of the sites without a task axis: what holds for every task."""
        return {s: v for s, v in self.draws.items() if "task" not in self.dims[s]}

    def _repr_html_(self) -> str:
        """What a notebook shows: the sites, their axes and ranges; no single draw."""
        rows = [
            (
                site,
                " × ".join(f"{a} {n}" for a, n in zip(self.dims[site], v.shape[1:], strict=True)),
                *(number(float(x)) for x in (v.mean(), v.std(0).mean(), v.min(), v.max())),
            )
            for site, v in self.draws.items()
        ]
        facts: list[tuple[str, object]] = [
            ("kind", self.kind),
            ("draws", f"{self.num_draws} in {self.chains} chain(s), seed {self.seed}"),
            ("sample_stats", ", ".join(self.sample_stats) or "none"),
        ]
        columns = ("site", "axes", "mean", "mean sd over draws", "least", "greatest")
        return card("Posterior", facts, columns=columns, rows=rows)


@dataclass(frozen=True)
class LabelDraws:
    """Posterior predictive of labels, with the conditional label distribution of each draw.

    For a query x, support D and parameters theta,

        p(y | x, D) = E_{theta | x, D} p(y | x, theta) = sum_s w_s p(y | x, theta_s).

    A generative model learns about theta from x itself, so that a draw theta_s ~ p(theta | D)
    carries the weight w_s proportional to p(x | theta_s); a discriminative model has w_s = 1/S.

    Attributes:
        log_prob: (..., way) log p(y | x, D); -inf for padded classes.
        log_prob_given: (draw, ..., way) log p(y | x, theta_s).
        log_weight: (draw, ...) log w_s; its logsumexp over draw is 0.
    """

    log_prob: Tensor
    log_prob_given: Tensor
    log_weight: Tensor

    def __post_init__(self) -> None:
        if self.log_prob_given.shape[1:] != self.log_prob.shape:
            raise ShapeError(
                f"expected log_prob_given (draw, *{tuple(self.log_prob.shape)}), "
                f"got {tuple(self.log_prob_given.shape)}"
            )
        if self.log_weight.shape != self.log_prob_given.shape[:-1]:
            raise ShapeError(
                f"expected log_weight {tuple(self.log_prob_given.shape[:-1])}, "
                f"got {tuple(self.log_weight.shape)}"
            )

    @property
    def prob(self) -> Tensor:
        """(..., way) p(y | x, D)."""
        return self.log_prob.exp()


@dataclass(frozen=True)
class Predictive:
    """Predictive of every query frame and, jointly over its frames, of every query video.

    Attributes:
        frame: LabelDraws over (task, video, frame).
        video: LabelDraws over (task, video); the frames of a video share the video's effect, so
            this is not the product of the frames' predictives.
        absent: (task, video, frame) probability that nothing taught is in the frame, or None
            where the model has no such component.
    """

    frame: LabelDraws
    video: LabelDraws
    absent: Tensor | None = None

    def _repr_html_(self) -> str:
        """What a notebook shows: the first twenty query videos and their likeliest classes."""
        best = self.video.log_prob.max(-1)
        tasks, videos = best.values.shape
        cells = [(t, v) for t in range(tasks) for v in range(videos)][:20]
        rows = [
            (t, v, int(best.indices[t, v]), f"{float(best.values[t, v].exp()):.2f}")
            for t, v in cells
        ]
        shape = " × ".join(map(str, self.frame.log_prob.shape))
        facts = [("task × video × frame × way", shape), ("draws", len(self.video.log_weight))]
        columns = ("task", "video", "likeliest class", "probability")
        return card("Predictive", facts, columns=columns, rows=rows)
