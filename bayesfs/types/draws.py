"""What is inferred: `Posterior`, `LabelDraws`, `Predictive`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from bayesfs.display import card, number
from bayesfs.errors import ShapeError
from bayesfs.types.owned import ours, owned

PosteriorKind = Literal["mcmc", "variational", "particles", "exact"]


@dataclass(frozen=True)
class Posterior:
    """Draws of every latent site, with named axes, and how they were obtained.

    The tensors are copied: what the caller does to his own afterwards changes nothing here.

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
        for name in ("draws", "sample_stats", "dims", "coords"):
            object.__setattr__(self, name, owned(getattr(self, name)))
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

    @classmethod
    def of_own(cls, *values: Any, **named: Any) -> Posterior:
        """A posterior of tensors that nobody else holds, which are not copied."""
        for value in (*values, *named.values()):
            ours(value)
        return cls(*values, **named)

    def changed(self, **values: Any) -> Posterior:
        """The posterior with other values of some attributes, which nobody else holds either."""
        return replace(self, **ours(values))

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
