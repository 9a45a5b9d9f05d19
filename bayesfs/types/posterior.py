"""What is inferred, draws of every latent site: `Posterior`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from bayesfs._utils.display import Card, Shown, short_number
from bayesfs.errors import ShapeError
from bayesfs.types.owned import ours, owned

PosteriorKind = Literal["mcmc", "variational", "particles", "exact"]


@dataclass(frozen=True, repr=False)
class Posterior(Shown):
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

    def to(self, device: torch.device | str) -> Posterior:
        """The posterior on another device; itself where it is there already."""
        held = {**self.draws, **self.sample_stats}
        if all(value.device == torch.device(device) for value in held.values()):
            return self
        draws = {site: value.to(device) for site, value in self.draws.items()}
        stats = {name: value.to(device) for name, value in self.sample_stats.items()}
        return self.changed(draws=draws, sample_stats=stats)

    @property
    def num_draws(self) -> int:
        """Number of draws, all chains together."""
        return next((int(v.shape[0]) for v in self.draws.values()), 0)

    @property
    def population(self) -> dict[str, Tensor]:
        """Draws of the sites without a task axis: what holds for every task."""
        return {s: v for s, v in self.draws.items() if "task" not in self.dims[s]}

    def _card(self) -> Card:
        """The sites, their axes and ranges; no single draw."""
        rows = [
            (
                site,
                " × ".join(f"{a} {n}" for a, n in zip(self.dims[site], v.shape[1:], strict=True)),
                *(short_number(float(x)) for x in (v.mean(), sd.mean(), v.min(), v.max())),
            )
            for site, v in self.draws.items()
            for sd in [v.std(0, correction=0)]
        ]
        facts: list[tuple[str, object]] = [
            ("kind", self.kind),
            ("draws", f"{self.num_draws} in {self.chains} chain(s), seed {self.seed}"),
            ("sample_stats", ", ".join(self.sample_stats) or "none"),
        ]
        columns = ("site", "axes", "mean", "mean sd over draws", "least", "greatest")
        return Card("Posterior", facts, columns, rows)
