"""Any Pyro model as an unconstrained log density, batched over tasks and particles.

Start with `potential(model, episodes, given)`. SVI, SVGD, Laplace and block samplers all work on
its flat vector z and never look inside the model; there is no second copy of a model.

Conventions for the Pyro program of a model:
    - plates are called "task" (dim -4), "way" (-3), "shot" (-2) and "frame" (-1); a site at task
      level thus has batch shape (T, 1, 1, 1), then its event shape. Population sites stand
      outside the "task" plate.
    - `model.dims[site]` names the plates that the site stands in, outermost first, then its event
      axes. Draws have exactly these axes: `named_value` drops the singleton plate axes.
    - padding of the support is taken out with `poutine.mask` or `.mask()`. A mask acts on observed
      sites only; padded entries of latent sites follow their prior, so that the density stays
      proper and padding changes nothing else.
    - the program needs to broadcast over tasks only; particles are added by `torch.func.vmap`.
      Where a branch depends on the value of a latent site they run one after another, slowly.
      There are no discrete latents.

The density of one task sums its sites over all axes but "task" (sites whose prior is N(0, I), as
in every non-centred model, are summed as one, straight from z):

    log p(z_t) = sum_sites sum_{way, shot, frame} log p(site) + log |d site / d z|.

If the model has population sites and no `given`, there is one joint density over all tasks (a
batch of one).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from bayesfs._distributions.polar import Pairs
from bayesfs.errors import InferenceError, ShapeError
from bayesfs.inference.program.capture import capture
from bayesfs.inference.program.each import each
from bayesfs.inference.program.sites import (
    PYRO,
    Block,
    Site,
    TraceSite,
    check_dims,
    is_identity,
    latent_sites,
    log_jacobian,
    named_value,
    plate_dim,
    population_values,
    sampled_sites,
    seeded,
    trace_program,
    unmasked,
)
from bayesfs.protocols import Model
from bayesfs.types import EpisodeBatch, Posterior, PosteriorKind

ValueAndGradient = tuple[Tensor, Tensor]


class Potential:
    """Log density over the unconstrained latents of a batch of tasks; see `potential`.

    Attributes:
        tasks: rows of z: the number of tasks, or 1 for a joint density.
        size: length of z.
        blocks: site -> Block, in the order of z.
        joint: True where population sites are among the latents.
        population: values that the population sites are conditioned on; {} if joint.
    """

    def __init__(
        self,
        model: Model,
        episodes: EpisodeBatch,
        sites: tuple[Site, ...],
        population: Mapping[str, Tensor],
        shared: Mapping[str, TraceSite],
        joint: bool,
    ) -> None:
        self.model = model
        self.episodes = episodes
        self.joint = joint
        self.tasks = 1 if joint else len(episodes)
        self.size = sites[-1].block.stop
        self.blocks: Mapping[str, Block] = {s.block.site: s.block for s in sites}
        self.population = population
        self._shared = shared
        self._sites = sites
        self._standard = _standard_weights(sites, episodes.support)
        self._recorded: dict[tuple[Any, ...], Callable[[Tensor], Any]] = {}

    @property
    def reads(self) -> int:
        """Numbers that go into the density of one row per task: latents and data."""
        data = self.episodes.support.numel() + self.episodes.query.numel()
        return self.tasks * self.size + data

    @property
    def own(self) -> Tensor:
        """(k,) numbers of the latents that are not N(0, I) a priori."""
        return (self._standard == 0).nonzero()[:, 0]

    @property
    def pairs(self) -> Pairs:
        """Places in z of the logarithms of scales whose squares add up, two and two."""
        return tuple(pair for block in self.blocks.values() for pair in block.pairs)

    @property
    def given(self) -> Posterior | None:
        """The population that it is conditioned on, as its only draw; None if joint."""
        if self.joint:
            return None
        draws = self._population_draws(1)
        return Posterior.of_own(
            "exact", draws, {name: tuple(self.model.dims[name]) for name in draws}
        )

    def log_density(self, z: Tensor) -> Tensor:
        """(task, particle, size) -> (task, particle) log density in nats; differentiable."""
        self._check(z)
        with _plain_pyro():
            rest = self._of_particles(self._split(z))
        return rest + self._standard_prior(z)

    def value_and_gradient(self, z: Tensor) -> ValueAndGradient:
        """Log density (task, particle) and its gradient (task, particle, size), both detached.

        The first call at a shape records value and backward pass; later calls replay them.
        """
        return cast(ValueAndGradient, self._replay(self._value_and_gradient, z))

    def gradient(self, z: Tensor) -> Tensor:
        """The gradient alone (task, particle, size), for engines that need no value: quicker."""
        return cast(Tensor, self._replay(self._gradient, z))

    def value(self, z: Tensor) -> Tensor:
        """The log density alone (task, particle), detached: for what asks for no gradient."""
        return cast(Tensor, self._replay(self._value, z))

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        """(task, particle, size) -> {site: (particle, *model.dims[site])}."""
        self._check(z)
        rows = z.transpose(0, 1)
        draws = {}
        for site in self._sites:
            flat = rows[..., site.block.slice].reshape(z.shape[1], *site.flat_shape)
            draws[site.block.site] = site.transform(flat).reshape(z.shape[1], *site.shape)
        return draws

    def unconstrain(self, draws: Mapping[str, Tensor]) -> Tensor:
        """{site: (particle, *model.dims[site])} -> (task, particle, size)."""
        missing = sorted(set(self.blocks) - set(draws))
        if missing:
            raise InferenceError(f"expected draws of {sorted(self.blocks)}, missing {missing}")
        parts = []
        for site in self._sites:
            flat = site.inverse(draws[site.block.site])
            parts.append(flat.reshape(len(flat), self.tasks, -1))
        return torch.cat(parts, -1).transpose(0, 1)

    def prior(self, particles: int, *, seed: int) -> Tensor:
        """(task, particle, size): draws from the prior (given the population)."""
        with seeded(seed):
            traces = [
                trace_program(self.model, self.episodes, self.population) for _ in range(particles)
            ]
        names = {s.block.site: s.shape for s in self._sites}
        draws = {
            name: torch.stack([t.nodes[name]["value"].reshape(shape) for t in traces])
            for name, shape in names.items()
        }
        return self.unconstrain(draws)

    def prior_by_task(self, particles: int, seeds: Sequence[int]) -> Tensor:
        """(task, particle, size): draws from the prior, those of a task from its own seed alone."""
        if self.joint:
            return self.prior(particles, seed=seeds[0])
        draws: dict[str, list[Tensor]] = {s.block.site: [] for s in self._sites}
        for task, seed in enumerate(seeds):
            copies = self.episodes.select([task] * particles)
            with seeded(seed):
                trace = trace_program(self.model, copies, self.population)
            for site in self._sites:
                value = trace.nodes[site.block.site]["value"]
                draws[site.block.site].append(value.reshape(particles, *site.shape[1:]))
        return self.unconstrain({name: torch.stack(parts, 1) for name, parts in draws.items()})

    def posterior(
        self,
        z: Tensor,  # (task, particle, size)
        *,
        kind: PosteriorKind,
        seed: int,
        chains: int = 1,
        sample_stats: Mapping[str, Tensor] | None = None,
    ) -> Posterior:
        """Posterior whose draws are the particles of z; `chains` if they are chain-major chains.

        Population sites that were conditioned on are among its draws, the same in every draw, so
        that a draw is complete.
        """
        draws = {**self._population_draws(z.shape[1]), **self.constrain(z.detach())}
        return Posterior.of_own(
            kind=kind,
            draws=draws,
            dims={name: tuple(self.model.dims[name]) for name in draws},
            chains=chains,
            sample_stats=sample_stats or {},
            coords={"task": self.episodes.tasks} if self.episodes.tasks else {},
            seed=seed,
        )

    def _population_draws(self, draws: int) -> dict[str, Tensor]:
        """{site: (draw, *model.dims[site])} of the population, the same in every draw."""
        return {
            name: named_value(value, self._shared[name]).expand(
                draws, *[-1] * len(self.model.dims[name])
            )
            for name, value in self.population.items()
        }

    def _check(self, z: Tensor) -> None:
        if z.ndim != 3 or z.shape[0] != self.tasks or z.shape[2] != self.size:
            raise ShapeError(
                f"expected z of shape (task={self.tasks}, particle, size={self.size}), "
                f"got {tuple(z.shape)}"
            )

    def _split(self, z: Tensor) -> tuple[Tensor, ...]:
        return torch.split(z, [b.stop - b.start for b in self.blocks.values()], dim=-1)

    def _replay(self, function: Callable[[Tensor], Any], z: Tensor) -> Any:
        """The function of z, recorded at the first call at a shape."""
        self._check(z)
        z = z.detach()
        key = (function.__name__, tuple(z.shape), z.dtype, z.device)
        if key not in self._recorded:
            self._recorded[key] = capture(function, z)
        return self._recorded[key](z)

    def _value(self, z: Tensor) -> Tensor:
        return self.log_density(z).detach()

    def _gradient(self, z: Tensor) -> Tensor:
        return self._value_and_gradient(z)[1]

    def _value_and_gradient(self, z: Tensor) -> ValueAndGradient:
        # plain autograd: torch.func.grad imports torch's compiler, which takes seconds
        with torch.enable_grad(), _plain_pyro():
            parts = tuple(part.detach().requires_grad_() for part in self._split(z))
            value = self._of_particles(parts)
            total = value.sum()
            gradient = (
                # as a graph: the recorder takes no sums in place
                torch.autograd.grad(total, parts, create_graph=True, materialize_grads=True)
                if total.requires_grad
                else tuple(map(torch.zeros_like, parts))
            )
        return (
            value.detach() + self._standard_prior(z),
            torch.cat([part.detach() for part in gradient], -1) - self._standard.to(z) * z,
        )

    def _standard_prior(self, z: Tensor) -> Tensor:
        """(task, particle): log density of the sites that are N(0, I), all at once."""
        constant = float(self._standard.sum()) * math.log(2 * math.pi)
        return -0.5 * ((self._standard.to(z) * z * z).sum(-1) + constant)

    def _of_particles(self, parts: tuple[Tensor, ...]) -> Tensor:
        """Parts (task, particle, size of the site) -> (task, particle)."""
        return cast(Tensor, each(self._density, parts, axis=1))

    def _density(self, *parts: Tensor) -> Tensor:
        """One particle, all but `_standard_prior`: parts (task, size of the site) -> (task,)."""
        values = dict(self.population)
        terms = [parts[0].new_zeros(self.tasks)]
        for site, part in zip(self._sites, parts, strict=True):
            flat = part.reshape(site.flat_shape)
            values[site.block.site] = value = site.transform(flat)
            if not is_identity(site.transform):
                terms.append(log_jacobian(site.transform, flat, value))
        terms += self._site_terms(trace_program(self.model, self.episodes, values))
        return cast(Tensor, sum(term.reshape(self.tasks, -1).sum(-1) for term in terms))

    def _site_terms(self, trace: poutine.Trace) -> Iterator[Tensor]:
        for name, site in sampled_sites(trace):
            if name in self.population or (name in self.blocks and self.blocks[name].standard):
                continue
            fn, mask = site["fn"], site["mask"]
            if name in self.blocks:  # padded latents follow their prior
                fn, mask = unmasked(fn), None
            log_prob = scale_and_mask(fn.log_prob(site["value"]), site["scale"], mask)
            if not self.joint and plate_dim(site, "task") is None:
                raise InferenceError(
                    f"site {name!r} stands outside the 'task' plate, so tasks are not independent "
                    "given the population; is a population site missing from `given`?"
                )
            yield log_prob


def potential(
    model: Model,
    episodes: EpisodeBatch,
    given: Posterior | None = None,
    *,
    draw: int | None = None,
) -> Potential:
    """Trace a model once and make its unconstrained log density.

    Args:
        model: Pyro program that follows the conventions of this module.
        episodes: T tasks; only their support is used.
        given: posterior whose population sites are conditioned on. Without it, a model that has
            population sites gives one joint density over all tasks (`tasks` == 1).
        draw: condition on this draw of the population; None takes the posterior mean, averaged in
            the unconstrained space (so that scales stay positive and simplexes normalised).

    Returns:
        Potential over z: (task, particle, size).

    Raises:
        InferenceError: the trace and `model.dims` disagree, a latent is discrete, or `given` lacks
            a population site of the model.
        ShapeError: `given` was inferred with other sizes.

    Example:
        >>> density = potential(model, episodes, given=population)  # doctest: +SKIP
        >>> z = density.prior(20, seed=0)  # doctest: +SKIP
        >>> value, gradient = density.value_and_gradient(z)  # doctest: +SKIP
    """
    with seeded(0):
        trace = trace_program(model, episodes, {})
    check_dims(model, trace)
    names = [n for n, s in sampled_sites(trace) if not s["is_observed"]]
    shared = [n for n in names if plate_dim(trace.nodes[n], "task") is None]
    population = population_values(trace, shared, given, draw) if given is not None else {}
    joint = bool(shared) and given is None
    latents = [n for n in names if joint or n not in shared]
    if not latents:
        raise InferenceError(f"the model has no latent site to infer; its sites are {names}")
    sites = tuple(latent_sites(trace, latents, joint))
    nodes = {name: trace.nodes[name] for name in population}
    return Potential(model, episodes, sites, population, nodes, joint)


def _standard_weights(sites: tuple[Site, ...], like: Tensor) -> Tensor:
    """(size,): 1 where z belongs to a site that is N(0, I), else 0."""
    parts = [like.new_full((s.block.stop - s.block.start,), s.block.standard) for s in sites]
    return torch.cat(parts)


@contextmanager
def _plain_pyro() -> Iterator[None]:
    """Without Pyro's validation, whose value-dependent branches cannot be vectorised.

    One thread at a time; what was recorded is replayed without Pyro, in as many as there are.
    """
    with PYRO, pyro.validation_enabled(False):
        yield
