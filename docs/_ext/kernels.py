"""Writes docs/kernels.md: GPyTorch's kernels, tried under every engine. A slow test compares.

    python docs/_ext/kernels.py

Each kernel is tried with priors on its hyperparameters and without, inside a `DeepKernelGP`: its
values, vectorised over draws, against GPyTorch's own, and a few steps of every engine.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gpytorch
import torch
from gpytorch import kernels
from torch.func import vmap

import bayesfs as bf
from bayesfs.errors import BayesfsError
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.feature_maps import Identity
from bayesfs.models.gp.gpytorch import GPyTorchKernel
from bayesfs.models.gp.hyperparameters import sample_hyperparameters
from bayesfs.models.gp.likelihoods.regression import LabelRegression
from bayesfs.protocols import Engine
from bayesfs.synthetic.tasks import synthetic_episodes

PAGE = Path(__file__).parents[1] / "kernels.md"
DIM = 3
CLOSE = 1e-8

Make = Callable[[Callable[[], Any]], kernels.Kernel]
"""A function that gives priors, or None each time -> the kernel."""

KERNELS: Mapping[str, Make] = {
    "RBF": lambda p: kernels.RBFKernel(lengthscale_prior=p()),
    "RBF, ARD": lambda p: kernels.RBFKernel(ard_num_dims=DIM, lengthscale_prior=p()),
    "RQ": lambda p: kernels.RQKernel(lengthscale_prior=p()),
    "Matern 1/2": lambda p: kernels.MaternKernel(nu=0.5, lengthscale_prior=p()),
    "Matern 3/2": lambda p: kernels.MaternKernel(nu=1.5, lengthscale_prior=p()),
    "Matern 5/2, ARD": lambda p: kernels.MaternKernel(ard_num_dims=DIM, lengthscale_prior=p()),
    "PiecewisePolynomial": lambda p: kernels.PiecewisePolynomialKernel(lengthscale_prior=p()),
    "Linear": lambda p: kernels.LinearKernel(variance_prior=p()),
    "Polynomial": lambda p: kernels.PolynomialKernel(power=2, offset_prior=p()),
    "Periodic": lambda p: kernels.PeriodicKernel(period_length_prior=p(), lengthscale_prior=p()),
    "Cosine, of one feature": lambda p: kernels.CosineKernel(
        period_length_prior=p(), active_dims=(0,)
    ),
    "Constant": lambda p: kernels.ConstantKernel(constant_prior=p()),
    "SpectralMixture": lambda p: kernels.SpectralMixtureKernel(num_mixtures=2, ard_num_dims=DIM),
    "RFF": lambda p: kernels.RFFKernel(num_samples=16, num_dims=DIM, lengthscale_prior=p()),
    "Cylindrical": lambda p: kernels.CylindricalKernel(
        3, kernels.MaternKernel(), angular_weights_prior=p(), alpha_prior=p(), beta_prior=p()
    ),
    "Scale(RBF)": lambda p: kernels.ScaleKernel(
        kernels.RBFKernel(lengthscale_prior=p()), outputscale_prior=p()
    ),
    "Scale(RBF) + Linear": lambda p: (
        kernels.ScaleKernel(kernels.RBFKernel(lengthscale_prior=p()), outputscale_prior=p())
        + kernels.LinearKernel(variance_prior=p())
    ),
    "RBF * Linear": lambda p: (
        kernels.RBFKernel(lengthscale_prior=p()) * kernels.LinearKernel(variance_prior=p())
    ),
    "Scale(RBF of two features * Periodic of one)": lambda p: kernels.ScaleKernel(
        kernels.RBFKernel(lengthscale_prior=p(), active_dims=(0, 1))
        * kernels.PeriodicKernel(period_length_prior=p(), active_dims=(2,)),
        outputscale_prior=p(),
    ),
    "AdditiveStructure(RBF)": lambda p: kernels.AdditiveStructureKernel(
        kernels.RBFKernel(lengthscale_prior=p()), num_dims=DIM
    ),
    "ProductStructure(RBF)": lambda p: kernels.ProductStructureKernel(
        kernels.RBFKernel(lengthscale_prior=p()), num_dims=DIM
    ),
}

ENGINES: Mapping[str, Engine] = {
    "SVI": bf.SVI(steps=3, draws=4, khat_draws=0),
    "Laplace": Laplace(draws=4),
    "SVGD": bf.SVGD(particles=4, steps=3),
    "NUTS": bf.NUTS(warmup=3, draws=3, chains=1, max_depth=2),
}


def gamma() -> gpytorch.priors.Prior:
    """A prior for any positive hyperparameter."""
    return gpytorch.priors.GammaPrior(3.0, 4.0)


def none() -> None:
    """No prior: the hyperparameter keeps its value."""


def kernel_of(name: str, *, priors: bool) -> GPyTorchKernel:
    """A kernel of `KERNELS` in double precision."""
    return GPyTorchKernel(KERNELS[name](gamma if priors else none).double())


def largest_difference(kernel: GPyTorchKernel) -> float:
    """From GPyTorch's values, with hyperparameters vectorised over three draws."""
    x1 = 0.3 * torch.randn(2, 6, DIM, generator=torch.Generator().manual_seed(0)).double()
    x2 = 0.3 * torch.randn(2, 5, DIM, generator=torch.Generator().manual_seed(1)).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        values = [sample_hyperparameters(kernel.sites, x1) for _ in range(3)]
    worst = 0.0
    for second in (x1, x2):
        with torch.no_grad():
            theirs = torch.stack([kernel.gpytorch(v)(x1, second).to_dense() for v in values])
            if values[0]:
                stacked = {site: torch.stack([v[site] for v in values]) for site in values[0]}
                ours = vmap(lambda v, second=second: kernel(v, x1, second))(stacked)
            else:
                ours = torch.stack([kernel(v, x1, second) for v in values])
        worst = max(worst, float((ours - theirs).abs().max()))
    return worst


def fits(kernel: GPyTorchKernel, engine: Engine) -> bool:
    """Whether an engine gives finite draws of every site of a GP with this kernel."""
    episodes, _ = synthetic_episodes(
        users=2, way=2, shots=2, frames=1, query_videos=1, query_frames=1, dim=DIM, seed=0
    )
    covariance = VideoCovariance(features=Identity(), base=kernel, shift=None)
    model = bf.DeepKernelGP(covariance, LabelRegression())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            posterior = engine.infer(model, episodes.to(torch.float64), seed=0)
    except (BayesfsError, RuntimeError, NotImplementedError):
        return False
    finite = all(bool(torch.isfinite(v).all()) for v in posterior.draws.values())
    return finite and set(kernel.sites) <= set(posterior.draws)


def row(name: str, engines: Mapping[str, Engine] = ENGINES) -> list[str]:
    """Cells of a kernel: its name, whether its values are GPyTorch's, and each engine."""
    both = [kernel_of(name, priors=given) for given in (True, False)]
    equal = max(map(largest_difference, both)) <= CLOSE
    fitted = [all(fits(kernel, engine) for kernel in both) for engine in engines.values()]
    return [name, *("✓" if holds else "–" for holds in (equal, *fitted))]


def page() -> str:
    """The whole page."""
    head = PAGE.read_text(encoding="utf-8").partition("| Kernel |")[0]
    lines = ["| Kernel | Values | " + " | ".join(ENGINES) + " |", "|---" * (2 + len(ENGINES)) + "|"]
    lines += [f"| {' | '.join(row(name))} |" for name in KERNELS]
    return head + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
