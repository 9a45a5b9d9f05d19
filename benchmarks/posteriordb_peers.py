"""Peers of `benchmarks/posteriordb.py`: NumPyro's NUTS and Pyro's automatic guides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from numpyro.infer import MCMC
from numpyro.infer import NUTS as NumPyroNUTS
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from torch import Tensor
from torch.distributions import biject_to

from bayesfs.inference.nuts.translate import precision_of, translate
from bayesfs.inference.program.plain import PlainProgram
from bayesfs.inference.program.potential import potential

Draws = dict[str, NDArray[Any]]


def numpyro_nuts(program: Callable[..., None], data: Mapping[str, Tensor], length: int) -> Draws:
    """Four chains of NumPyro's sampler, `length` to warm up and to keep, on the same density."""
    problem = PlainProgram(program, data)
    density = potential(problem, problem.episodes)
    start = density.prior(4, seed=0)[0]
    with precision_of(start):
        compiled, constants = translate(density, start)
        kernel = NumPyroNUTS(potential_fn=lambda z: -compiled(z[None], constants)[0])
        chains = MCMC(
            kernel,
            num_warmup=length,
            num_samples=length,
            num_chains=4,
            chain_method="sequential",
            progress_bar=False,
        )
        chains.run(jax.random.PRNGKey(0), init_params=jnp.asarray(start.numpy()))
        z = torch.from_numpy(np.array(chains.get_samples())).unsqueeze(0)
    named = problem.named(density.posterior(z, kind="mcmc", seed=0, chains=4))
    return {site: value.numpy() for site, value in named.draws.items()}


def pyro_guide(
    program: Callable[..., None], data: Mapping[str, Tensor], guide: Callable[..., Any], steps: int
) -> Draws:
    """Pyro's own variational inference with an automatic guide, at its usual settings."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    try:
        fitted = guide(program, init_loc_fn=_origin)
        schedule = ClippedAdam({"lr": 0.02, "lrd": 0.1 ** (1 / steps)})
        climbing = SVI(program, fitted, schedule, Trace_ELBO())
        for _ in range(steps):
            climbing.step(**data)
        with torch.no_grad():
            draws = [fitted(**data) for _ in range(1000)]
    except (RuntimeError, ValueError) as failed:
        print(f"  {guide.__name__}: {str(failed).splitlines()[0][:90]}")
        return {}
    finally:
        torch.set_default_dtype(before)
    return {site: torch.stack([d[site] for d in draws]).numpy() for site in draws[0]}


def _origin(site: Any) -> Tensor:
    """Zero in the unconstrained latents: Pyro cannot draw from an improper prior."""
    transform = biject_to(site["fn"].support)
    value: Tensor = transform(torch.zeros(transform.inverse_shape(site["fn"].shape())))
    return value
