"""Twelve posteriors of posteriordb as Pyro programs, written from its Stan files.

`PROGRAMS` maps the name of a posterior to its program and how its data become tensors. Latent and
deterministic sites have the names of the parameters in the reference draws. Stan's flat priors are
`ImproperUniform`; recurrences that are linear in what they carry along are triangular solves.

Source: Magnusson et al. (2025), posteriordb: testing, benchmarking and developing Bayesian
inference algorithms (github.com/stan-dev/posteriordb, BSD-3-Clause).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Posterior:
    """A program, and the keyword arguments that it makes of a posterior's JSON."""

    program: Callable[..., None]
    arguments: Callable[[Data], dict[str, Tensor]]


def tensor(value: Any) -> Tensor:
    """In double precision."""
    return torch.as_tensor(value, dtype=torch.float64)


def named(*names: str) -> Callable[[Data], dict[str, Tensor]]:
    """The data of these names, lower case."""
    return lambda data: {name.lower(): tensor(data[name]) for name in names}


def flat(name: str, *shape: int) -> Tensor:
    """A real site without a prior."""
    value: Tensor = pyro.sample(name, dist.ImproperUniform(constraints.real, (), shape))
    return value


def flat_scale(name: str) -> Tensor:
    """A positive site without a prior."""
    value: Tensor = pyro.sample(name, dist.ImproperUniform(constraints.positive, (), ()))
    return value


def observe(fn: Any, value: Tensor) -> None:
    """One row for each entry."""
    with pyro.plate("row", len(value)):
        pyro.sample("y", fn, obs=value)


def schools_centered(y: Tensor, sigma: Tensor) -> None:
    """Rubin's eight schools; tau near 0 is a funnel."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    theta = pyro.sample("theta", dist.Normal(mu, tau).expand([len(y)]).to_event(1))
    observe(dist.Normal(theta, sigma), y)


def schools_noncentered(y: Tensor, sigma: Tensor) -> None:
    """The same posterior in other coordinates."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    raw = pyro.sample("theta_trans", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1))
    observe(dist.Normal(pyro.deterministic("theta", mu + tau * raw), sigma), y)


def kilpisjarvi(
    x: Tensor, y: Tensor, pmualpha: Tensor, psalpha: Tensor, pmubeta: Tensor, psbeta: Tensor
) -> None:
    """A trend over years that are not centred: correlation .9999."""
    alpha = pyro.sample("alpha", dist.Normal(pmualpha, psalpha))
    beta = pyro.sample("beta", dist.Normal(pmubeta, psbeta))
    observe(dist.Normal(alpha + beta * x, flat_scale("sigma")), y)


def flat_regression(x: Tensor, y: Tensor) -> None:
    """Linear regression without priors."""
    observe(dist.Normal(x @ flat("beta", x.shape[1]), flat_scale("sigma")), y)


def cauchy_regression(x: Tensor, y: Tensor) -> None:
    """Linear regression with a half Cauchy scale."""
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    observe(dist.Normal(x @ flat("beta", x.shape[1]), sigma), y)


def normal_regression(x: Tensor, y: Tensor) -> None:
    """Linear regression with normal priors."""
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0).expand([x.shape[1]]).to_event(1))
    observe(dist.Normal(x @ beta, pyro.sample("sigma", dist.HalfNormal(10.0))), y)


def autoregression(x: Tensor, y: Tensor) -> None:
    """AR(5)."""
    alpha = pyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0).expand([x.shape[1]]).to_event(1))
    observe(dist.Normal(alpha + x @ beta, pyro.sample("sigma", dist.HalfCauchy(2.5))), y)


def garch(y: Tensor, sigma1: Tensor) -> None:
    """GARCH(1, 1); the range of beta1 depends on alpha1."""
    mu, alpha0 = flat("mu"), flat_scale("alpha0")
    alpha1 = pyro.sample("alpha1", dist.Uniform(0.0, 1.0))
    room = constraints.interval(0.0, 1.0 - alpha1)
    beta1 = pyro.sample("beta1", dist.ImproperUniform(room, (), ()))
    news = alpha0 + alpha1 * (y[:-1] - mu).square()
    variance = carried(beta1, torch.cat([sigma1.square().reshape(1), news]))
    observe(dist.Normal(mu, variance.sqrt()), y)


def carried(share: Tensor, news: Tensor) -> Tensor:
    """V with v_1 = news_1 and v_t = news_t + share v_(t-1)."""
    below = torch.diag(torch.ones(len(news) - 1, dtype=news.dtype), -1)
    lower = torch.eye(len(news), dtype=news.dtype) - share * below
    return torch.linalg.solve_triangular(lower, news.unsqueeze(1), upper=False).squeeze(1)


def two_normals(y: Tensor) -> None:
    """A mixture whose means are ordered."""
    ordered = dist.ImproperUniform(constraints.ordered_vector, (), (2,))
    mu = pyro.sample("mu", ordered)
    pyro.factor("prior of mu", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = pyro.sample("theta", dist.Beta(5.0, 5.0))
    share = torch.stack([theta.log(), torch.log1p(-theta)])
    each = share + dist.Normal(mu, sigma).log_prob(y.unsqueeze(1))
    pyro.factor("y", each.logsumexp(1).sum())


def poisson_process(x: Tensor, k: Tensor) -> None:
    """Counts with a Gaussian process on the log rate."""
    rho = pyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(2.0))
    raw = pyro.sample("f_tilde", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1))
    gap = (x[:, None] - x) / rho
    covariance = alpha.square() * torch.exp(-0.5 * gap.square()) + 1e-10 * torch.eye(len(x))
    f = pyro.deterministic("f", torch.linalg.cholesky(covariance) @ raw)
    observe(dist.Poisson(f.exp()), k)


def bent(y: Tensor, bend: Tensor) -> None:
    """Gaussian without a bend, a banana with one; for many tasks at once."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(a + bend * b.square(), 0.3).expand([4]).to_event(1), obs=y)


def bent_moments(y: Tensor, bend: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Site -> (task,) mean and sd of `bent`: b by quadrature, a in closed form given b."""
    noise, count = 0.3**2, y.shape[1]
    b = torch.linspace(-8.0, 8.0, 8001, dtype=y.dtype)
    gap = y.mean(1, keepdim=True) - bend.unsqueeze(1) * b.square()
    weight = (-0.5 * (b.square() + gap.square() / (1.0 + noise / count))).softmax(1)
    variance = 1.0 / (1.0 + count / noise)
    a = gap * count / noise * variance

    def moments(value: Tensor, within: float = 0.0) -> tuple[Tensor, Tensor]:
        mean = (weight * value).sum(1, keepdim=True)
        spread = (weight * (value - mean).square()).sum(1) + within
        return mean.squeeze(1), spread.sqrt()

    return {"a": moments(a, variance), "b": moments(b.expand_as(gap))}


def columns(*parts: Tensor) -> Tensor:
    """(row, column), the first column ones."""
    return torch.stack([torch.ones_like(parts[0]), *parts], 1)


def of_children(data: Data) -> dict[str, Tensor]:
    """Test scores of children by their mothers'."""
    school, iq = tensor(data["mom_hs"]), tensor(data["mom_iq"])
    return {"x": columns(school, iq, school * iq), "y": tensor(data["kid_score"])}


def of_mesquite(data: Data) -> dict[str, Tensor]:
    """Leaf weight of bushes by their logs of volume, area, shape and height."""
    a, b, c, h, group = (
        tensor(data[n]) for n in ("diam1", "diam2", "canopy_height", "total_height", "group")
    )
    logs = [(a * b * c).log(), (a * b).log(), (a / b).log(), h.log()]
    return {"x": columns(*logs, group), "y": tensor(data["weight"]).log()}


def of_earnings(data: Data) -> dict[str, Tensor]:
    """Log earnings by height and sex."""
    height, male = tensor(data["height"]), tensor(data["male"])
    return {"x": columns(height, male, height * male), "y": tensor(data["earn"]).log()}


def of_votes(data: Data) -> dict[str, Tensor]:
    """Party identification by ideology and circumstances."""
    age = tensor(data["age_discrete"])
    parts = [tensor(data["real_ideo"]), tensor(data["race_adj"])]
    parts += [(age == group).double() for group in (2, 3, 4)]
    parts += [tensor(data[name]) for name in ("educ1", "gender", "income")]
    return {"x": columns(*parts), "y": tensor(data["partyid7"])}


def of_series(data: Data) -> dict[str, Tensor]:
    """The series and its K values before."""
    y, lags = tensor(data["y"]), int(data["K"])
    before = [y[lags - k : len(y) - k] for k in range(1, lags + 1)]
    return {"x": torch.stack(before, 1), "y": y[lags:]}


PROGRAMS: Mapping[str, Posterior] = {
    "eight_schools-eight_schools_centered": Posterior(schools_centered, named("y", "sigma")),
    "eight_schools-eight_schools_noncentered": Posterior(schools_noncentered, named("y", "sigma")),
    "kilpisjarvi_mod-kilpisjarvi": Posterior(
        kilpisjarvi, named("x", "y", "pmualpha", "psalpha", "pmubeta", "psbeta")
    ),
    "kidiq-kidscore_interaction": Posterior(cauchy_regression, of_children),
    "mesquite-logmesquite_logvash": Posterior(flat_regression, of_mesquite),
    "sblrc-blr": Posterior(normal_regression, named("X", "y")),
    "earnings-logearn_interaction": Posterior(flat_regression, of_earnings),
    "arK-arK": Posterior(autoregression, of_series),
    "garch-garch11": Posterior(garch, named("y", "sigma1")),
    "low_dim_gauss_mix-low_dim_gauss_mix": Posterior(two_normals, named("y")),
    "gp_pois_regr-gp_pois_regr": Posterior(poisson_process, named("x", "k")),
    "nes1980-nes": Posterior(flat_regression, of_votes),
}
"""Name of the posterior -> its program."""
