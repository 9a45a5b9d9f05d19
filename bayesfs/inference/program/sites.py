"""What a Pyro program says about its sites: levels, axes, transforms, the population's values.

`bayesfs.inference.program.potential` reads programs with it and states the conventions they follow.
Use `named_value` to give a site's value the axes of `model.dims`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any, Literal, cast

import torch
from pyro import poutine
from pyro.distributions import Independent, MaskedDistribution, Normal
from torch import Tensor
from torch.distributions import ComposeTransform, IndependentTransform, Transform, biject_to

from bayesfs._distributions.polar import PairedHalfNormal, Pairs
from bayesfs.errors import BayesfsError, InferenceError, ShapeError
from bayesfs.protocols import Model
from bayesfs.types import EpisodeBatch, Posterior

Level = Literal["population", "task", "way", "shot", "frame"]
PLATES: tuple[Level, ...] = ("task", "way", "shot", "frame")

PYRO = RLock()
"""Held by whoever runs a program: Pyro's handlers, parameters, settings, torch's global generator
and its levels of forward derivatives are one of each in a process, and a second thread would run
under the first one's."""

TraceSite = Mapping[str, Any]
"""One node of a Pyro trace."""


@dataclass(frozen=True)
class Block:
    """Where a site lies in the flat vector z, for block kernels and block samplers.

    Attributes:
        site: name.
        start: first index in z.
        stop: one past the last index.
        level: innermost plate that the site stands in, or "population".
        shape: unconstrained axes of the site in z; with "task" first only in a joint density.
        standard: whether the site is N(0, I) a priori (given all other sites).
        pairs: places in z of the logarithms of scales whose squares add up, two and two.
    """

    site: str
    start: int
    stop: int
    level: Level
    shape: tuple[int, ...]
    standard: bool = False
    pairs: Pairs = ()

    @property
    def slice(self) -> slice:
        """Index into the last axis of z."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Site:
    """A latent site: its block, and how z becomes its value in the program.

    Attributes:
        block: where it lies in z.
        transform: unconstrained -> constrained.
        flat_shape: unconstrained, singleton plate axes kept.
        plate_shape: constrained, singleton plate axes kept: as the program samples it.
        shape: constrained, singleton plate axes dropped: the axes of `model.dims`.
    """

    block: Block
    transform: Transform
    flat_shape: tuple[int, ...]
    plate_shape: tuple[int, ...]
    shape: tuple[int, ...]

    def inverse(self, draws: Tensor) -> Tensor:
        """Draws (particle, *shape) -> unconstrained (particle, *flat_shape)."""
        if draws.shape[1:] != self.shape:
            raise ShapeError(
                f"expected draws of {self.block.site!r} of shape {('draw', *self.shape)}, got "
                f"{tuple(draws.shape)}; do they come from another model or other episodes?"
            )
        return cast(Tensor, self.transform.inv(draws.reshape(-1, *self.plate_shape)))


def named_value(value: Tensor, site: TraceSite) -> Tensor:
    """Value of a site with exactly the axes of `model.dims`: singleton plate axes dropped.

    Args:
        value: (..., *batch, *event) value; batch holds one axis per plate dim, 1 where the site
            does not stand in that plate. Leading axes (draws) are kept.
        site: the node of the Pyro trace.

    Returns:
        (..., *plates of the site, *event).
    """
    lead = value.shape[: value.ndim - site["value"].ndim]
    return value.reshape((*lead, *_named_shape(site)))


def _named_shape(site: TraceSite) -> tuple[int, ...]:
    event = site["fn"].event_dim
    shape = site["value"].shape
    batch = shape[: len(shape) - event]
    plates = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    kept = [size for i, size in enumerate(batch) if i - len(batch) in plates]
    return (*kept, *shape[len(shape) - event :])


def latent_sites(trace: poutine.Trace, names: list[str], joint: bool) -> Iterator[Site]:
    """The named sites, one after another in z; with all tasks in one row if `joint`."""
    start = 0
    for name in names:
        node = trace.nodes[name]
        transform = biject_to(node["fn"].support)
        flat = tuple(transform.inv(node["value"]).shape)
        size = math.prod(flat) if joint else math.prod(flat[1:])
        axes = _flat_axes(node, flat, joint)
        standard, pairs = _is_standard(node), _pairs(node, start)
        block = Block(name, start, start + size, _level(node), axes, standard, pairs)
        yield Site(block, transform, flat, tuple(node["value"].shape), _named_shape(node))
        start += size


def _flat_axes(node: TraceSite, flat: tuple[int, ...], joint: bool) -> tuple[int, ...]:
    """Unconstrained axes of a site in z, singleton plate axes dropped."""
    event = len(node["value"].shape) - node["fn"].event_dim
    named = _named_shape(node)
    plates = named[: len(named) - node["fn"].event_dim]
    axes = (*plates, *flat[event:])
    return axes if joint else axes[1:]


def population_values(
    trace: poutine.Trace, names: list[str], given: Posterior, draw: int | None
) -> dict[str, Tensor]:
    """Values of the population sites, shaped as the program samples them.

    Args:
        trace: of the program.
        names: population sites.
        given: posterior that holds them.
        draw: which draw; None averages in the unconstrained space.

    Raises:
        InferenceError: a site is missing, or there is no such draw.
    """
    missing = sorted(set(names) - set(given.population))
    if missing:
        raise InferenceError(
            f"expected `given` to hold the population sites {sorted(names)}, missing {missing}; "
            "was it inferred with another model?"
        )
    if draw is not None and not 0 <= draw < given.num_draws:
        raise InferenceError(f"expected draw in 0..{given.num_draws - 1}, got {draw}")
    values = {}
    for site in latent_sites(trace, names, joint=True):
        name, like = site.block.site, trace.nodes[site.block.site]["value"]
        flat = site.inverse(given.draws[name].detach().to(like))
        chosen = flat.mean(0) if draw is None else flat[draw]
        values[name] = site.transform(chosen).reshape(site.plate_shape)
    return values


def check_dims(model: Model, trace: poutine.Trace) -> None:
    """Compare the program with `model.dims`.

    A population site may be left out where there is nothing to it, such as correlations of one
    feature.

    Raises:
        InferenceError: sites, plates or numbers of axes differ, or a latent is discrete.
    """
    latents = {n: s for n, s in sampled_sites(trace) if not s["is_observed"]}
    omitted = set(model.dims) - set(latents)
    if set(latents) - set(model.dims) or any("task" in model.dims[site] for site in omitted):
        raise InferenceError(
            f"model.dims names the sites {sorted(model.dims)} but the program samples "
            f"{sorted(latents)}"
        )
    for name, site in latents.items():
        dims = tuple(model.dims[name])
        plates = tuple(p for p in PLATES if plate_dim(site, p) is not None)
        if tuple(d for d in dims if d in PLATES) != plates or len(dims) != len(_named_shape(site)):
            raise InferenceError(
                f"expected site {name!r} with axes {dims} (model.dims), but the program samples "
                f"shape {tuple(site['value'].shape)} inside the plates {plates}"
            )
        if site["fn"].has_enumerate_support or site["fn"].support.is_discrete:
            raise InferenceError(f"site {name!r} is discrete; sum it out of the program")
    check_plates(trace)


def check_plates(trace: poutine.Trace) -> None:
    """Every site, latent or observed, has the plates from left to right, and no axis beside them.

    Densities are summed to (task,), so that an axis in the wrong place, or one that no plate
    covers, would count tasks or classes many times.

    Raises:
        InferenceError: it has not; the message names the site and the plate.
    """
    for name, site in sampled_sites(trace):
        placed = {p: dim for p in PLATES if (dim := plate_dim(site, p)) is not None}
        at = ", ".join(f"{p!r} at dim {dim}" for p, dim in placed.items())
        if list(placed.values()) != sorted(placed.values()):
            raise InferenceError(
                f"site {name!r}: expected the plates {PLATES} from left to right, got {at}"
            )
        others = {f.name: f.dim for f in site["cond_indep_stack"] if f.vectorized}
        left = [other for other, dim in others.items() if dim < placed.get("task", -math.inf)]
        if left:
            raise InferenceError(
                f"site {name!r}: the plate {left[0]!r} stands left of 'task', which is outermost"
            )
        batch, event = tuple(site["fn"].batch_shape), site["fn"].event_dim
        held = tuple(site["value"].shape)[: site["value"].ndim - event]
        more = "task" in placed and math.prod(batch[: placed["task"]]) > 1
        if more or held != batch:
            lacking = [p for p in PLATES if p not in placed]
            raise InferenceError(
                f"site {name!r} has values with axes {held} and a distribution with {batch}, but "
                f"stands in the plates {at or 'none'}; is the plate "
                f"{lacking[-1] if lacking else 'of an axis'!r} missing, or .to_event()?"
            )


def _level(site: TraceSite) -> Level:
    inside = [p for p in PLATES if plate_dim(site, p) is not None]
    return inside[-1] if inside else "population"


def plate_dim(site: TraceSite, plate: str) -> int | None:
    """Batch dim (negative) of a plate that the site stands in, or None."""
    return next((f.dim for f in site["cond_indep_stack"] if f.name == plate), None)


def sampled_sites(trace: poutine.Trace) -> Iterator[tuple[str, TraceSite]]:
    """Name and node of every latent and observed site, in the order of the program."""
    for name, node in trace.nodes.items():
        if node["type"] == "sample" and not poutine.util.site_is_subsample(node):
            yield name, node


def trace_program(
    model: Model, episodes: EpisodeBatch, values: Mapping[str, Tensor]
) -> poutine.Trace:
    """Run the program with the given sites at the given values; one thread at a time.

    Raises:
        InferenceError: an axis of a site has another size than its plate.
    """
    try:
        with PYRO:
            conditioned = poutine.condition(model, data=dict(values))
            return poutine.trace(conditioned).get_trace(episodes)
    except ValueError as error:
        if isinstance(error, BayesfsError) or "inside plate" not in str(error):
            raise
        text = " ".join(str(error).split())
        raise InferenceError(
            f"{type(model).__name__}: {text}; expected the plates {PLATES} from left to right, "
            "the last one that there is at dim -1 of what it holds: is one missing?"
        ) from error


def unmasked(fn: Any) -> Any:
    """The distribution without its mask."""
    return fn.base_dist if isinstance(fn, MaskedDistribution) else fn


def _is_standard(site: TraceSite) -> bool:
    fn = site["fn"]
    while isinstance(fn, Independent | MaskedDistribution):
        fn = fn.base_dist
    if not isinstance(fn, Normal) or site["scale"] not in (None, 1.0):
        return False
    return not fn.loc.any() and bool((fn.scale == 1).all())


def _pairs(site: TraceSite, start: int) -> Pairs:
    """Places in z of a site's pairs, if it is one vector of paired scales."""
    fn = unmasked(site["fn"])
    if not isinstance(fn, PairedHalfNormal) or math.prod(fn.batch_shape) != 1:
        return ()
    return tuple((start + one, start + two) for one, two in fn.pairs)


def log_jacobian(transform: Any, flat: Tensor, value: Tensor) -> Tensor:
    """Log |d value / d flat|, summed over event axes."""
    return cast(Tensor, transform.log_abs_det_jacobian(flat, value))


def is_identity(transform: Transform) -> bool:
    """Whether a transform leaves every value as it is."""
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return isinstance(transform, ComposeTransform) and not transform.parts


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with torch seeded, and put its global generator back; one thread at a time.

    As `torch.manual_seed`, which notes a traceback where there is no GPU: most of its time.
    """
    with PYRO, torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(seed)
        yield
