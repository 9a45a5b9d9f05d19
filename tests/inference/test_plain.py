"""Any Pyro program, without episodes: densities are Pyro's own, answers are known ones."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from torch.distributions import biject_to

import bayesfs as bf
from bayesfs.diagnostics.convergence import diagnose
from bayesfs.errors import InferenceError
from bayesfs.inference.exact import Exact
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.plain import infer
from bayesfs.inference.program.each import each
from bayesfs.inference.program.plain import PlainProgram
from bayesfs.inference.program.potential import potential
from bayesfs.results.convert import to_datatree

Y = torch.tensor([1.2, 0.3, -0.5, 2.0], dtype=torch.float64)
ONES = torch.ones(3, dtype=torch.float64)
SHORT = bf.NUTS(warmup=300, draws=500)


def rows(fn, value):
    with pyro.plate("row", len(value)):
        pyro.sample("y", fn, obs=value)


def half_cauchy():
    rows(dist.Normal(0.0, pyro.sample("s", dist.HalfCauchy(1.0))), Y)


def bernoulli():
    rows(dist.Bernoulli(logits=pyro.sample("a", dist.Normal(0.0, 1.0))), (Y > 0.5).double())


def correlations():
    factor = pyro.sample("factor", dist.LKJCholesky(3, 2.0))
    scale = pyro.sample("scale", dist.HalfNormal(ONES).to_event(1))
    value = torch.arange(15.0).reshape(5, 3).sin().double()
    rows(dist.MultivariateNormal(0 * ONES, scale_tril=scale[:, None] * factor), value)


def shares():
    p = pyro.sample("p", dist.Dirichlet(ONES))
    rows(dist.Multinomial(4, p), torch.tensor([[1.0, 1.0, 2.0], [0.0, 3.0, 1.0]]))


def ordered():
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    cuts = dist.ImproperUniform(constraints.ordered_vector, (), (2,))
    rows(dist.OrderedLogistic(slope * Y, pyro.sample("cuts", cuts)), torch.tensor([1, 0, 2, 1]))


def within():
    """A support that depends on a site before it."""
    t = pyro.sample("t", dist.Gamma(2.0, 1.0))
    rows(dist.Normal(pyro.sample("m", dist.Uniform(-t, t)), 1.0), Y)


PROGRAMS = [half_cauchy, bernoulli, correlations, shares, ordered, within]


def by_pyro(program, z):
    """The log density by Pyro's trace and torch's Jacobians, site by site."""
    values, total = {}, 0.0
    while True:
        trace = poutine.trace(poutine.condition(StartsAnywhere(program), values)).get_trace()
        fresh = [
            (name, node)
            for name, node in trace.iter_stochastic_nodes()
            if not poutine.util.site_is_subsample(node)
        ]
        if not fresh:
            return total + trace.log_prob_sum()
        name, node = fresh[0]
        transform = biject_to(node["fn"].support)
        flat = z[len(values)]
        values[name] = transform(flat)
        total = total + transform.log_abs_det_jacobian(flat, values[name]).sum()


class StartsAnywhere:
    """The program, with a value for improper sites, which Pyro cannot draw."""

    def __init__(self, program):
        self.program = program

    def __call__(self):
        def start(site):
            fn = site["fn"]
            flat = torch.zeros(biject_to(fn.support).inverse_shape(fn.shape()))
            return biject_to(fn.support)(flat.double())

        with poutine.substitute(data={}), _Improper(start):
            self.program()


class _Improper(poutine.messenger.Messenger):
    def __init__(self, start):
        super().__init__()
        self.start = start

    def _pyro_sample(self, msg):
        if isinstance(msg["fn"], dist.ImproperUniform) and msg["value"] is None:
            msg["value"] = self.start(msg)


@pytest.mark.parametrize("program", PROGRAMS)
def test_density_is_pyros(program):
    problem = PlainProgram(program, {})
    density = potential(problem, problem.episodes.to(torch.float64))
    z = density.prior(3, seed=0)
    value, gradient = density.value_and_gradient(z)
    for particle in range(3):
        parts = [z[0, particle, b.slice].reshape(b.shape) for b in density.blocks.values()]
        with pyro.validation_enabled(False):
            assert value[0, particle] == pytest.approx(float(by_pyro(program, parts)), rel=1e-6)
    step = torch.randn(z.shape, generator=torch.Generator().manual_seed(1)).double()
    ahead, behind = (density.log_density(z + h * step) for h in (1e-5, -1e-5))
    assert ((ahead - behind) / 2e-5).allclose((gradient * step).sum(-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "program",
    [  # by day one of each kind of support: a line, a simplex, an order, a bound that moves
        pytest.param(program, marks=[pytest.mark.slow] * (program in (bernoulli, correlations)))
        for program in PROGRAMS
    ],
)
def test_every_engine_runs_it(program, recwarn):
    engines = (
        bf.NUTS(warmup=20, draws=20, chains=2),
        bf.SVI(steps=20, draws=20),
        bf.SVGD(particles=20, steps=20),
        Laplace(draws=20),
    )
    for engine in engines:
        posterior = infer(program, engine)
        assert all(torch.isfinite(value).all() for value in posterior.draws.values())
        assert "task" not in sum(posterior.dims.values(), ())
    assert not [w for w in recwarn if "translation" in str(w.message)]


def coin(heads):
    p = pyro.sample("p", dist.Beta(1.0, 1.0))
    with pyro.plate("toss", len(heads)):
        pyro.sample("y", dist.Bernoulli(p), obs=heads)


def test_repeated_rows_count():
    heads = torch.tensor([1.0] * 30 + [0.0] * 10, dtype=torch.float64)
    posterior = bf.infer(coin, SHORT, data={"heads": heads})
    exact = torch.distributions.Beta(31.0, 11.0)
    sd = float(exact.variance.sqrt())
    assert float(posterior.draws["p"].mean()) == pytest.approx(float(exact.mean), abs=0.1 * sd)
    assert float(posterior.draws["p"].std()) == pytest.approx(sd, rel=0.08)
    assert diagnose(to_datatree(posterior)).verdict == "fit for use"


def regression(x, y, width):
    weight = pyro.sample("weight", dist.Normal(0.0, width).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("row", len(y)):
        mean = pyro.deterministic("mean", x @ weight)
        pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


def problems(count=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 12, 2))
    return x, x @ np.array([1.0, -2.0]) + 0.5 * rng.normal(size=(count, 12))


@pytest.mark.parametrize("engine", [SHORT, Laplace(draws=4000), bf.SVGD(particles=200)])
def test_problems_along_an_axis_are_independent_and_exact(engine):
    x, y = problems()
    data = {"x": x, "y": y.T, "width": 3.0}
    posterior = infer(regression, engine, data=data, batch_axis={"x": 0, "y": 1})
    assert posterior.dims["weight"] == ("task", "weight_dim_0")
    assert posterior.dims["mean"] == ("task", "row")
    precision = x.transpose(0, 2, 1) @ x / 0.25 + np.eye(2) / 9
    mean = np.linalg.solve(precision, (x.transpose(0, 2, 1) @ y[..., None]) / 0.25)[..., 0]
    sd = np.sqrt(np.linalg.inv(precision).diagonal(0, -2, -1))
    found = posterior.draws["weight"]
    assert np.abs((found.mean(0).numpy() - mean) / sd).max() < 0.2
    assert np.abs(np.log(found.std(0).numpy() / sd)).max() < 0.15
    per_row = torch.einsum("tri,sti->str", torch.as_tensor(x), found)
    assert posterior.draws["mean"].allclose(per_row)


def test_one_problem_of_many_is_what_it_is_alone():
    x, y = problems()
    engine = Laplace(draws=10)
    alone = infer(regression, engine, data={"x": x[0], "y": y[0], "width": 3.0})
    many = infer(regression, engine, data={"x": x, "y": y, "width": 3.0}, batch_axis=0)
    assert many.draws["weight"][:, 0].allclose(alone.draws["weight"])


def test_a_support_that_moves_is_integrated():
    posterior = infer(within, SHORT)
    t, m = posterior.draws["t"], posterior.draws["m"]
    assert (m.abs() < t).all()
    grid = torch.linspace(0.001, 20, 1500, dtype=torch.float64)
    at = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    like = torch.distributions.Normal(at[:, None], 1.0).log_prob(Y).sum(-1).exp()
    joint = (at.abs()[None] < grid[:, None]) * like * (torch.exp(-grid) / 2)[:, None]
    joint /= joint.sum()
    assert float(m.mean()) == pytest.approx(float((joint.sum(0) * at).sum()), abs=0.06)
    assert float(t.mean()) == pytest.approx(float((joint.sum(1) * grid).sum()), abs=0.2)


def branches(y):
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    spread = 1.0 if m > 0 else 2.0
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(m, spread), obs=y)


def test_what_has_no_translation_goes_to_pyro_and_says_so():
    engine = bf.NUTS(warmup=30, draws=20, chains=1)
    y = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    with pytest.warns(UserWarning, match="PyroNUTS samples it"):
        posterior = infer(branches, engine, data={"y": y}, batch_axis=0)
    assert posterior.draws["m"].shape == (20, 2)
    assert infer(branches, bf.SVI(steps=5, draws=5), data={"y": y[0]}).num_draws == 5


def test_each_runs_one_after_another_what_cannot_be_vectorised():
    def signed(x):
        return -x if x < 0 else x

    x = torch.tensor([1.0, -2.0, 3.0])
    assert torch.equal(each(signed, [x]), x.abs())
    with pytest.raises(RuntimeError, match="size"):
        each(lambda a: a @ torch.ones(7), [torch.ones(3, 2)])


def discrete():
    pyro.sample("k", dist.Bernoulli(0.5))


def nothing():
    rows(dist.Normal(0.0, 1.0), Y)


def some(y):
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y), subsample_size=2) as chosen:
        pyro.sample("y", dist.Normal(m, 1.0), obs=y[chosen])


@pytest.mark.parametrize(
    ("program", "keywords", "message"),
    [
        (discrete, {}, "'k' is discrete"),
        (nothing, {}, "no latent"),
        (some, {"data": {"y": Y}}, "subsampled"),
        (coin, {"data": {"heads": Y}, "batch_axis": 3}, "batch_axis"),
        (coin, {"data": {"heads": Y}, "batch_axis": {"tails": 0}}, "batch_axis"),
        (
            regression,
            {
                "data": {"x": torch.ones(2, 3, 1), "y": torch.ones(4, 3), "width": 1},
                "batch_axis": 0,
            },
            "as many problems",
        ),
    ],
)
def test_what_cannot_be_inferred_is_refused(program, keywords, message):
    with pytest.raises(InferenceError, match=message):
        infer(program, SHORT, **keywords)


def test_an_engine_that_asks_for_more_than_a_program_is_refused():
    with pytest.raises(InferenceError, match="Conjugate"):
        infer(coin, Exact(), data={"heads": Y.round().clamp(0, 1)})


def test_plates_within_plates_and_at_places_of_their_own() -> None:
    """Three normal means of four rows each: posterior N(sum / 5, 1 / 5)."""
    y = torch.arange(12.0, dtype=torch.float64).reshape(3, 4) / 6

    def program(y: torch.Tensor) -> None:
        with pyro.plate("group", 3, dim=-2):
            mean = pyro.sample("mean", dist.Normal(torch.zeros(3, 1, dtype=torch.float64), 1.0))
            with pyro.plate("row", 4, dim=-1):
                pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    found = infer(program, bf.SVI(steps=300, draws=2000), data={"y": y}, seed=0).draws["mean"]
    torch.testing.assert_close(found.mean(0).flatten(), y.sum(1) / 5, atol=0.03, rtol=0.0)
    torch.testing.assert_close(
        found.var(0).flatten(), torch.full((3,), 0.2, dtype=torch.float64), atol=0.02, rtol=0.0
    )
