"""Any Pyro program and its data as a batch of densities: `PlainProgram`.

A program knows nothing of episodes: it takes its data as keyword arguments and follows no
convention. It is read as one function of a flat real vector z. Run with the next entries of z at
each latent site,

    log p(z) = sum_sites log p(site) + log |d site / d z|,

with the site's transform from its support at that place of the program, so that a support may
depend on sites before it. A normal site whose mean or scale depends on latents before it is
non-centred, site = mean + scale z, which changes the coordinates and not the posterior: a scale
near zero is no funnel then. Independent problems (rows of the data) are added by
`bayesfs.inference.program.each`, as particles are. What engines see is a model with one real
site for each latent one; `PlainProgram.named` gives draws their names, axes and ranges back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.distributions import ImproperUniform, Independent, Normal, constraints
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _DIM_ALLOCATOR
from torch import Tensor
from torch.distributions import biject_to

from bayesfs.errors import InferenceError
from bayesfs.inference.program.each import each
from bayesfs.inference.program.sites import PYRO, is_identity, log_jacobian, seeded
from bayesfs.protocols import Model
from bayesfs.types import EpisodeBatch, Posterior

Program = Callable[..., Any]
"""A Pyro program of keyword arguments; what it returns is not used."""

BatchAxis = int | Mapping[str, int | None] | None
"""Axis of every tensor of the data, or of each by name, along which independent problems stand."""

START = 2.0
"""Starts are uniform on (-START, START) in every unconstrained latent, as Stan's are."""

CHUNK = 64
"""Draws that are given their names at a time; bounds the memory."""

LOG_2PI = math.log(2 * math.pi)

ATTEMPTS = 100
"""Starts that are tried until the density is finite there, as Stan does."""


@dataclass(frozen=True)
class FlatSite:
    """A latent site of a program.

    Attributes:
        name: of the site.
        flat: unconstrained shape.
        axes: names of the axes of its value: plates by name, others numbered.
    """

    name: str
    flat: tuple[int, ...]
    axes: tuple[str, ...]


class PlainProgram(Model):
    """A Pyro program and its data as a model of T problems, for every engine that needs no more.

    Args:
        program: any Pyro program without discrete latents.
        data: its keyword arguments; NumPy arrays become tensors. The first real one gives dtype
            and device of the latents.
        batch_axis: where independent problems stand; None for one problem.

    Raises:
        InferenceError: a latent is discrete, a plate is subsampled, there is no latent, or the
            sizes along the batch axis differ.
    """

    def __init__(
        self,
        program: Program,
        data: Mapping[str, Any],
        batch_axis: BatchAxis = None,
    ) -> None:
        self.program = program
        self._fixed, self._batched = _divided(data, batch_axis)
        sizes = {name: len(value) for name, value in self._batched.items()}
        if len(set(sizes.values())) > 1:
            raise InferenceError(f"expected as many problems in each of the data, got {sizes}")
        self.problems = next(iter(sizes.values()), 1)
        self.is_batched = bool(sizes)
        self.episodes = _numbered(self.problems, _like([*data.values()]))
        self.latents = self._read()

    @cached_property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Latent site -> ("task", one axis for each of its unconstrained ones)."""
        return {
            latent.name: ("task", *_numbers(latent.name, range(len(latent.flat))))
            for latent in self.latents
        }

    def __call__(self, episodes: EpisodeBatch) -> None:
        """Sample every latent site in its unconstrained form, and count the program's density."""
        rows = episodes.support.flatten().long()
        begin = _Begin(self, rows, episodes.support)
        plate = pyro.plate("task", len(rows), dim=-1)
        with plate:
            z = [pyro.sample(x.name, _Start(x, begin)) for x in self.latents]
        with poutine.block():
            density = self.log_density(z, rows)
        with plate:
            pyro.factor("density", density)

    def log_density(self, z: Sequence[Tensor], rows: Tensor) -> Tensor:
        """(task,) log density in nats of problems `rows` at z, one (task, *flat) a latent."""
        return cast(Tensor, self._of_each(lambda run: run.log_density, z, rows))

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """Not known: a plain program has no query."""
        raise InferenceError("a plain program says nothing of query frames; read its draws")

    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """Not known: a plain program has no query."""
        raise InferenceError("a plain program says nothing of query videos; read its draws")

    @torch.no_grad()
    def named(self, posterior: Posterior) -> Posterior:
        """Draws of the latents in their ranges, and of deterministic sites, with the axes' names.

        Args:
            posterior: of this model. Without a batch axis its sites lose the axis "task".
        """
        z = [posterior.draws[latent.name] for latent in self.latents]
        rows = torch.arange(self.problems, device=self.episodes.support.device)
        with PYRO, pyro.validation_enabled(False):
            parts = [
                each(lambda *z: self._values(z, rows), some)
                for some in zip(*(torch.split(x, CHUNK) for x in z), strict=True)
            ]
        draws = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        axes = {name: ("task", *axes) for name, axes in self._axes.items()}
        if not self.is_batched:
            draws = {name: value.squeeze(1) for name, value in draws.items()}
            axes = dict(self._axes)
        for name, value in draws.items():
            if len(axes[name]) != value.ndim - 1:
                raise InferenceError(f"site {name!r} has other axes than when the program was read")
        return posterior.changed(draws=draws, dims=axes, coords={})

    def _values(self, z: Sequence[Tensor], rows: Tensor) -> dict[str, Tensor]:
        """Latent or deterministic site -> (task, *its axes), at one draw of z."""
        return cast("dict[str, Tensor]", self._of_each(lambda run: run.values, z, rows))

    def _of_each(self, what: Callable[[_Run], Any], z: Sequence[Tensor], rows: Tensor) -> Any:
        """What a run at z tells, of each problem."""

        def one(*values: Tensor) -> Any:
            batched = dict(zip(self._batched, values[len(z) :], strict=True))
            data = {**self._fixed, **batched}
            return what(_run(self.program, data, values[: len(z)], self._relative))

        return each(one, [*z, *(value[rows] for value in self._batched.values())])

    def _read(self) -> tuple[FlatSite, ...]:
        """The latents, from two runs at starts of their own; also notes the axes of every site."""
        data = {**self._fixed, **{name: value[0] for name, value in self._batched.items()}}
        runs = []
        for start in (0, 1):
            with seeded(start), torch.no_grad():
                runs.append(_run(self.program, data, self.episodes.support, frozenset()))
        run, other = runs
        self._relative = frozenset(
            name
            for name, normal in run.normals.items()
            if name in other.normals and not _is_same(normal, other.normals[name])
        )
        if not run.latents:
            raise InferenceError(
                f"the program has no latent site to infer; its sites are {sorted(run.axes)}"
            )
        self._axes: dict[str, tuple[str, ...]] = run.axes
        if self.is_batched and any("task" in axes for axes in run.axes.values()):
            raise InferenceError("a plate may not be called 'task' beside a batch axis; rename it")
        return tuple(run.latents)


@dataclass
class _Begin:
    """Where the latents of a run start, drawn when the first site asks."""

    model: PlainProgram
    rows: Tensor
    like: Tensor

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """Site -> (task, *flat), where the density is finite, as far as `ATTEMPTS` find such."""
        names = [latent.name for latent in self.model.latents]
        shapes = [(len(self.rows), *latent.flat) for latent in self.model.latents]
        found = [_uniform(shape, self.like) for shape in shapes]
        with _dimensions_of_its_own(), poutine.block(), torch.no_grad():
            for _ in range(ATTEMPTS):
                good = torch.isfinite(self.model.log_density(found, self.rows))
                if good.all():
                    break
                keep = [good.reshape(-1, *[1] * (part.ndim - 1)) for part in found]
                found = [
                    torch.where(k, part, _uniform(part.shape, self.like))
                    for k, part in zip(keep, found, strict=True)
                ]
        return dict(zip(names, found, strict=True))


@contextmanager
def _dimensions_of_its_own() -> Iterator[None]:
    """Plates inside take any dimension: starts are drawn within the plate of the problems."""
    outside, _DIM_ALLOCATOR._stack = _DIM_ALLOCATOR._stack, []
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        _DIM_ALLOCATOR._stack = outside


class _Start(ImproperUniform):  # type: ignore[misc]
    """A real site of density 1, whose draws are the starts."""

    def __init__(self, latent: FlatSite, begin: _Begin) -> None:
        real = constraints.independent(constraints.real, len(latent.flat))
        super().__init__(real, (len(begin.rows),), latent.flat)
        self._name, self._begin = latent.name, begin

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """(task, *flat)."""
        return self._begin.values[self._name]

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Itself: its batch is the plate's."""
        return self


class _Run(Messenger):  # type: ignore[misc]
    """One run of a program: gives its latents their values and adds up its density.

    Attributes:
        latents: in the order of the program.
        axes: names of the axes of latent and deterministic sites.
        values: of the same.
        log_density: (), Jacobians included.
        normals: the normal distributions of latent sites, as they were in this run.
    """

    def __init__(self, z: Sequence[Tensor] | Tensor, relative: frozenset[str]) -> None:
        super().__init__()
        self._relative = relative
        self.normals: dict[str, Normal] = {}
        self._start = z if isinstance(z, Tensor) else None
        self._given = iter(z)
        self.latents: list[FlatSite] = []
        self.axes: dict[str, tuple[str, ...]] = {}
        self.values: dict[str, Tensor] = {}
        self.log_density: Any = 0.0

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or poutine.util.site_is_subsample(msg):
            return
        fn, name = msg["fn"], msg["name"]
        if fn.has_enumerate_support or fn.support.is_discrete:
            raise InferenceError(f"site {name!r} is discrete; sum it out of the program")
        normal = _normal(msg)
        if normal is not None:
            self.normals[name] = normal
        transform = biject_to(fn.support)
        if self._start is None:
            flat = next(self._given)
        else:
            flat = _uniform(transform.inverse_shape(fn.batch_shape + fn.event_shape), self._start)
        if normal is not None and name in self._relative:
            value = normal.loc + normal.scale * flat
            self.log_density = self.log_density - 0.5 * (flat.square() + LOG_2PI).sum()
        else:
            value = transform(flat)
        msg["value"], msg["done"] = value, True
        if not is_identity(transform):
            self.log_density = self.log_density + log_jacobian(transform, flat, value).sum()
        self.latents.append(FlatSite(name, tuple(flat.shape), _axes(msg, value)))
        self._keep(msg, value)

    def _pyro_post_sample(self, msg: Any) -> None:
        if poutine.util.site_is_subsample(msg):
            size, among = msg["fn"].size, msg["fn"].subsample_size
            if among not in (None, size):
                raise InferenceError(f"plate {msg['name']!r} is subsampled; take all of its rows")
            return
        if msg["infer"].get("_deterministic"):
            self._keep(msg, msg["value"])
            return
        if not msg["is_observed"] and msg["name"] in self._relative:
            return
        term = scale_and_mask(msg["fn"].log_prob(msg["value"]), msg["scale"], msg["mask"])
        self.log_density = self.log_density + term.sum()

    def _keep(self, msg: Any, value: Tensor) -> None:
        self.values[msg["name"]] = value
        self.axes[msg["name"]] = _axes(msg, value)


def _run(
    program: Program,
    data: Mapping[str, Any],
    z: Sequence[Tensor] | Tensor,
    relative: frozenset[str],
) -> _Run:
    """Run a program at z, or at a start of the dtype and device of a tensor.

    Args:
        program: what is run.
        data: its keyword arguments.
        z: values of the latents, or a tensor.
        relative: normal sites that are non-centred.
    """
    run = _Run(z, relative)
    with run, _constants_of((z if isinstance(z, Tensor) else z[0]).dtype):
        program(**data)
    return run


def _normal(msg: Any) -> Normal | None:
    """The normal distribution of a site, if it is one, each entry of its own, not masked."""
    fn = msg["fn"]
    while isinstance(fn, Independent):
        fn = fn.base_dist
    plain = isinstance(fn, Normal) and msg["mask"] is None and msg["scale"] in (None, 1.0)
    return fn if plain else None


def _is_same(one: Normal, other: Normal) -> bool:
    return torch.equal(one.loc, other.loc) and torch.equal(one.scale, other.scale)


@contextmanager
def _constants_of(dtype: torch.dtype) -> Iterator[None]:
    """Python numbers and new tensors of a program are as precise as its latents."""
    with PYRO:
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def _uniform(shape: Sequence[int], like: Tensor) -> Tensor:
    return START * (2.0 * torch.rand(tuple(shape), dtype=like.dtype).to(like.device) - 1.0)


def _axes(msg: Any, value: Tensor) -> tuple[str, ...]:
    """Names of the axes of a site: of its plates, others `site_dim_k` as ArviZ has it.

    Axes of a deterministic site that are as long as the plate at their place are that plate's.
    """
    whole = msg["infer"].get("_deterministic", False)
    batch = value.ndim - (0 if whole else msg["fn"].event_dim)
    plates = {f.dim + batch: f for f in msg["cond_indep_stack"] if f.vectorized}
    return tuple(
        str(plates[k].name) if k in plates and plates[k].size == value.shape[k] else name
        for k, name in enumerate(_numbers(msg["name"], range(value.ndim)))
    )


def _divided(
    data: Mapping[str, Any], batch_axis: BatchAxis
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What all problems share, and what each has of its own, its problems first."""
    tensors = {n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in data.items()}
    if isinstance(batch_axis, Mapping):
        axes: Mapping[str, int | None] = batch_axis
    else:
        axes = {n: batch_axis for n, v in tensors.items() if isinstance(v, Tensor)}
    wrong = [n for n, a in axes.items() if a is not None and not _has_axis(tensors.get(n), a)]
    if wrong or (batch_axis is not None and not any(a is not None for a in axes.values())):
        raise InferenceError(
            f"expected batch_axis to be an axis of tensors or arrays of the data, got {batch_axis} "
            f"for {wrong or sorted(data)}"
        )
    batched = {n: tensors[n].movedim(a, 0) for n, a in axes.items() if a is not None}
    return {n: v for n, v in tensors.items() if n not in batched}, batched


def _has_axis(value: Any, axis: int) -> bool:
    return isinstance(value, Tensor) and -value.ndim <= axis < value.ndim


def _like(values: Sequence[Any]) -> Tensor:
    """An empty tensor of dtype and device of the first real tensor or array."""
    for value in values:
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            return tensor.new_empty(0)
    return torch.empty(0)


def _numbered(problems: int, like: Tensor) -> EpisodeBatch:
    """Tasks whose one support frame holds their number, by which a program finds its rows."""
    number = torch.arange(problems, device=like.device)
    support = number.to(like.dtype).reshape(-1, 1, 1, 1, 1)
    one = torch.zeros_like(number)
    return EpisodeBatch.of_own(
        support=support,
        support_mask=torch.ones_like(support[..., 0], dtype=torch.bool),
        support_condition=one.reshape(-1, 1, 1),
        query=support.new_zeros(problems, 0, 1, 1),
        query_mask=torch.zeros(problems, 0, 1, dtype=torch.bool, device=like.device),
        query_condition=one.new_zeros(problems, 0),
        query_labels=one.new_zeros(problems, 0),
    )


def _numbers(name: str, numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"{name}_dim_{k}" for k in numbers)
