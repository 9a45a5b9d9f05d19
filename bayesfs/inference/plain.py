"""Any Pyro program through any engine, without episodes: `infer`.

A statistician's program takes its data as keyword arguments and knows nothing of few-shot tasks.
How it is read is in `bayesfs.inference.program.plain`. Many independent problems of one program
are inferred at once: name the axis of the data along which they stand.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from bayesfs.errors import UntranslatableError
from bayesfs.inference.program.plain import BatchAxis, PlainProgram, Program
from bayesfs.protocols import Engine, Progress
from bayesfs.types import Posterior


def infer(
    model: Program,
    engine: Engine,
    *,
    data: Mapping[str, Any] | None = None,
    batch_axis: BatchAxis = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Posterior:
    """Posterior of a plain Pyro program.

    Every row of the data counts, also one that is like another. Chains and particles start as
    Stan's do, uniform on (-2, 2) in the unconstrained latents, so that improper and very wide
    priors are no matter.

    Args:
        model: Pyro program of keyword arguments, with continuous latents; no name of a site, plate
            or axis has a meaning. Masks and scales are Pyro's.
        engine: SVI, SVGD, NUTS, Laplace, ...; one that needs no ability of the model.
        data: keyword arguments of the program. The first real array gives dtype and device.
        batch_axis: None for one problem. A number: that axis of every array runs over independent
            problems of the same program, each of which gets its own row. A mapping says so by
            name; what it leaves out is shared.
        seed: the same seed gives the same draws on a CPU.
        progress: called now and then with (done, total, message).

    Returns:
        Draws of every latent and deterministic site with axes named as their plates are, others
        `site_dim_k`; with a batch axis, "task" comes first.

    Raises:
        InferenceError: a latent is discrete, a plate is subsampled, or the engine asks for more
            than a program.

    Where `NUTS` has no translation of the program (it branches on values, say), Pyro's sampler runs
    it, and a warning says so: the same posterior, some hundred times slower.

    Example:
        >>> def coin(heads):
        ...     p = pyro.sample("p", dist.Beta(1.0, 1.0))
        ...     with pyro.plate("toss", len(heads)):
        ...         pyro.sample("y", dist.Bernoulli(p), obs=heads)
        >>> posterior = bf.infer(coin, bf.NUTS(), data={"heads": torch.tensor([1.0, 1.0, 0.0])})
        ... # doctest: +SKIP
    """
    problem = PlainProgram(model, data or {}, batch_axis)
    engine.check_model(problem)
    try:
        found = engine.infer(problem, problem.episodes, seed=seed, progress=progress)
    except UntranslatableError as reason:
        stand_in = engine.stand_in()
        if stand_in is None:
            raise
        warnings.warn(
            f"{type(engine).__name__} has no translation of this program ({reason}): "
            f"{type(stand_in).__name__} samples it, some hundred times slower",
            stacklevel=2,
        )
        found = stand_in.infer(problem, problem.episodes, seed=seed, progress=progress)
    return problem.named(found)
