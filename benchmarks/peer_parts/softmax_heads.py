"""Bayesian softmax heads of other libraries: `numpyro_head`, `laplace_torch_head`.

Each fits features and labels, and gives what answers: features -> class probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
Ask = Callable[[Array], Array]
"""(query, feature) -> (query, way) probabilities."""


def numpyro_head(x: Array, y: Array, warmup: int = 200, draws: int = 200) -> Ask:
    """A Bayesian softmax regression by NUTS: w ~ N(0, s^2), s ~ HalfNormal(5)."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS

    def model(x: Any, y: Any, way: int) -> None:
        scale = numpyro.sample("scale", dist.HalfNormal(5.0))
        raw = numpyro.sample("raw", dist.Normal(0, 1).expand([x.shape[1], way]).to_event(2))
        with numpyro.plate("frame", len(x)):
            numpyro.sample("y", dist.Categorical(logits=scale * (x @ raw)), obs=y)

    sampler = MCMC(NUTS(model), num_warmup=warmup, num_samples=draws, progress_bar=False)
    sampler.run(jax.random.PRNGKey(0), jnp.asarray(x), jnp.asarray(y), int(y.max()) + 1)
    found = sampler.get_samples()

    def ask(z: Array) -> Array:
        logits = jnp.einsum("qd,sdk->sqk", jnp.asarray(z), found["raw"])
        logits = found["scale"][:, None, None] * logits
        return np.asarray(jax.nn.softmax(logits, -1).mean(0), np.float64)

    return ask


def laplace_torch_head(x: Array, y: Array, steps: int = 300) -> Ask:
    """Laplace on a linear head, Kronecker Hessian, prior precision by the marginal likelihood."""
    from laplace import Laplace
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    support = torch.from_numpy(x).float()
    label = torch.from_numpy(y)
    head = torch.nn.Linear(x.shape[1], int(y.max()) + 1)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05, weight_decay=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(head(support), label).backward()
        optimiser.step()
    rows = TensorDataset(support, label)
    approximation = Laplace(
        head, "classification", subset_of_weights="all", hessian_structure="kron"
    )
    approximation.fit(DataLoader(rows, batch_size=len(rows)))
    approximation.optimize_prior_precision(method="marglik")

    def ask(z: Array) -> Array:
        prob = approximation(torch.from_numpy(z).float(), link_approx="probit")
        return np.asarray(prob.detach().double().numpy())

    return ask
