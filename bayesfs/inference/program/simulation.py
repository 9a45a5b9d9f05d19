"""A model run forwards: its sites from the prior, its data from the likelihood. Use `Simulator`.

A Pyro program says both what is believed and how data come about. `Simulator.draw` runs it with its
observations let loose, whatever sites are held; `Simulator.log_densities` scores draws site by
site. Prior and posterior predictive checks, power scaling and simulation-based calibration rest on
these two and need no second copy of a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from torch import Tensor

from bayesfs.errors import DataError
from bayesfs.inference.program.each import each
from bayesfs.inference.program.sites import (
    TraceSite,
    check_plates,
    named_value,
    plate_dim,
    sampled_sites,
    seeded,
    trace_program,
)
from bayesfs.protocols import Model
from bayesfs.types import EpisodeBatch

VALUES_AT_ONCE = 2**24
"""Values of the support, times draws, that are scored in one pass: 64 MB in single precision."""


@dataclass(frozen=True)
class Simulation:
    """One run of a program.

    Attributes:
        draws: site -> value, with the axes of `model.dims`.
        observed: name -> simulated data, with all plates: (task, way, shot, frame, *event).
    """

    draws: Mapping[str, Tensor]
    observed: Mapping[str, Tensor]


class Simulator:
    """The Pyro program of a model over the support of certain episodes.

    Args:
        model: the model.
        episodes: the tasks; their support gives sizes, masks, conditions and whatever the program
            conditions on, and is what `log_densities` scores.

    Example:
        >>> program = Simulator(model, episodes)  # doctest: +SKIP
        >>> program.draw(seed=0).observed["frames"].shape  # doctest: +SKIP
        torch.Size([4, 5, 3, 8, 64])
    """

    def __init__(self, model: Model, episodes: EpisodeBatch) -> None:
        self.model, self.episodes = model, episodes
        with torch.no_grad(), seeded(0):
            trace = trace_program(model, episodes, {})
        check_plates(trace)
        self._nodes: dict[str, TraceSite] = dict(sampled_sites(trace))

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the observed sites."""
        return tuple(name for name, node in self._nodes.items() if node["is_observed"])

    @property
    def makes_features(self) -> bool:
        """Whether a run draws the features of the support, or of each video its mean frame."""
        return self.data is not None

    @property
    def data(self) -> Tensor | None:
        """What a run draws, of the support itself: (task, way, shot, frame, feature).

        The frames, or the mean frame of every video as a video of one frame. None where the program
        observes something else, such as labels or features that a latent has moved.
        """
        if len(self.observed) != 1 or not self._is_drawn(node := self._nodes[self.observed[0]]):
            return None
        found, mask = self.as_support(node["value"]), self.episodes.support_mask[..., None]
        if found is None:
            return None
        frames = self.episodes.support
        mean = (frames * mask).sum(-2, keepdim=True) / mask.sum(-2, keepdim=True).clamp(min=1)
        expected = frames if found.shape == frames.shape else mean
        same = torch.allclose(found, expected.to(found), rtol=1e-4, atol=1e-6)
        return found if same else None

    def as_support(self, value: Tensor) -> Tensor | None:
        """Values of an observed site as features (task, way, shot, frame, feature), or None.

        A model of whole videos observes one value a video, with or without a plate "frame": its
        videos have one frame.
        """
        if not value.is_floating_point():  # labels, of whatever shape
            return None
        *videos, frames, dim = self.episodes.support.shape
        whole = (value.shape == (*videos, frames, dim), value.shape == (*videos, 1, dim))
        if any(whole) or value.shape == (*videos, dim):
            return value.reshape(*videos, frames if whole[0] else 1, dim)
        return None

    def draw(self, *, seed: int, held: Mapping[str, Tensor] | None = None) -> Simulation:
        """Run the program forwards.

        Args:
            seed: the same seed gives the same run.
            held: site -> value with the axes of `model.dims`; the other sites and all data are
                drawn given these.

        Raises:
            DataError: an observation is weighted (a power likelihood or a score), so that it is no
                distribution to draw from.
        """
        free = poutine.condition(poutine.uncondition(self.model), data=self._held(held))
        with torch.no_grad(), seeded(seed), pyro.validation_enabled(False):  # the first run had it
            nodes = dict(sampled_sites(poutine.trace(free).get_trace(self.episodes)))
        self._check_weights(nodes)
        named = {name: named_value(nodes[name]["value"], nodes[name]) for name in self.model.dims}
        return Simulation(named, {name: nodes[name]["value"] for name in self.observed})

    def prior(self, *, seed: int, held: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Latent sites alone, for models of any observation; arguments as in `draw`.

        Returns:
            Site -> value with the axes of `model.dims`.
        """
        values = self._held(held)
        with torch.no_grad(), seeded(seed), pyro.validation_enabled(False):
            nodes = dict(sampled_sites(trace_program(self.model, self.episodes, values)))
        return {name: named_value(nodes[name]["value"], nodes[name]) for name in self.model.dims}

    def log_densities(self, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Log density of every site at every draw, in nats, padding left out.

        Args:
            draws: every site -> (draw, *model.dims[site]).

        Returns:
            Site -> (draw, task), or (draw,) for a population site; observed sites are among them.
        """
        laid = [self._in_plates(site, draws[site]) for site in self.model.dims]
        at_once = max(1, VALUES_AT_ONCE // max(1, self.episodes.support.numel()))
        with torch.no_grad(), pyro.validation_enabled(False):
            parts = [
                each(self._log_densities, part)
                for part in zip(*(torch.split(values, at_once) for values in laid), strict=True)
            ]
        return {name: torch.cat([part[name] for part in parts]) for name in self._nodes}

    def _log_densities(self, *values: Tensor) -> dict[str, Tensor]:
        """Site -> (task,) or () at one value of each latent site, in the order of `model.dims`."""
        at = dict(zip(self.model.dims, values, strict=True))
        trace = trace_program(self.model, self.episodes, at)
        trace.compute_log_prob()
        return {name: self._by_task(name, node) for name, node in sampled_sites(trace)}

    def log_likelihood(self, draws: Mapping[str, Tensor]) -> Tensor:
        """(draw, task): log p(support | theta_s), in nats; arguments as in `log_densities`."""
        densities = self.log_densities(draws)
        return torch.stack([densities[name] for name in self.observed]).sum(0)

    def _held(self, values: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """One value of each of some sites, shaped as the program samples it."""
        return {name: self._in_plates(name, one[None])[0] for name, one in (values or {}).items()}

    def _in_plates(self, name: str, draws: Tensor) -> Tensor:
        """(draw, *model.dims[name]) values -> the same, each shaped as the program samples it."""
        like = self._nodes[name]["value"]
        if draws.numel() != math.prod((len(draws), *like.shape)):
            raise DataError(
                f"expected site {name!r} with {tuple(like.shape)} values for these episodes, got "
                f"{tuple(draws.shape[1:])}; does it belong to other episodes?"
            )
        return draws.to(like).reshape((len(draws), *like.shape))

    def _by_task(self, name: str, node: TraceSite) -> Tensor:
        """(task,) or () log density of a site, summed over the axes below."""
        log_prob: Tensor = node["log_prob"]
        if plate_dim(node, "task") is None:
            return log_prob.sum()
        if name not in self.observed:
            log_prob = log_prob * self._exists(node)
        return log_prob.reshape(len(self.episodes), -1).sum(-1)

    def _exists(self, node: TraceSite) -> Tensor:
        """Which entries of a latent site are no padding, each axis at the dim of its plate."""
        dims = [plate_dim(node, plate) for plate in ("task", "way", "shot")]
        mask = self.episodes.shot_mask
        for axis in (1, 2):
            mask = mask if dims[axis] is not None else mask.any(axis, keepdim=True)
        if dims[1:] == [None, None]:  # no task is padding
            mask = torch.ones_like(mask)
        size = {dim: n for dim, n in zip(dims, mask.shape, strict=True) if dim is not None}
        return mask.reshape([size.get(dim, 1) for dim in range(min(size), 0)])

    @staticmethod
    def _is_drawn(node: TraceSite) -> bool:
        """Whether an observation has a distribution to draw from: no score, no exponent."""
        plain = bool((torch.as_tensor(node["scale"]) == 1).all())
        return plain and not isinstance(node["fn"], Unit)

    def _check_weights(self, nodes: Mapping[str, TraceSite]) -> None:
        for name in self.observed:
            if not self._is_drawn(nodes[name]):
                raise DataError(
                    f"site {name!r} of {type(self.model).__name__} is a score, or has an exponent "
                    "other than 1, so that there is no distribution to draw data from; for a head, "
                    "give every video one frame"
                )
