"""Every translated operation gives in JAX what it gives in torch, and so do whole models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bayesfs.inference.nuts.aten_in_jax import OPERATIONS
from bayesfs.inference.nuts.translate import precision_of, translate
from bayesfs.inference.program.potential import potential
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import GaussianToy


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X, Y, Z = numbers(2, 3, 4), numbers(2, 3, 4, seed=1), numbers(2, 3, 4, seed=2)
P = X.abs() + 0.1
U = X.sigmoid()
A = numbers(2, 3, 3) @ numbers(2, 3, 3).mT + 4 * torch.eye(3)
L = torch.linalg.cholesky(A)
MASK, SQUARE = X > 0, numbers(3, 3)
LONG = numbers(2, 40)

UNARY = {
    "neg": X, "reciprocal": P, "abs": X, "sign": X, "sgn": X, "square": X, "sqrt": P, "rsqrt": P,
    "exp": X, "expm1": X, "log": P, "log1p": P, "sin": X, "cos": X, "atan": X, "tanh": X,
    "sigmoid": X, "log_sigmoid_forward": X, "softplus": 30 * X, "erf": X, "erfc": X,
    "special_ndtr": X, "special_log_ndtr": 5 * X, "lgamma": P, "digamma": P, "logical_not": MASK,
    "bitwise_not": MASK, "isnan": X, "isinf": X, "t": SQUARE, "tril": A, "triu": A, "clone": X,
    "alias": X, "detach": X, "zeros_like": X, "ones_like": X, "squeeze": X[:, :1], "sum": X,
    "mean": X, "amax": X, "amin": X, "diag_embed": X, "linalg_cholesky_ex": A,
    "linalg_vector_norm": X, "_to_copy": X,
}  # fmt: skip
CASES = [(f"{name}.default", (x,), {}) for name, x in UNARY.items()]
CASES += [
    (f"{name}.{kind}", (P, other), {})
    for name in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge")
    for kind, other in (("Tensor", U), ("Scalar", 0.5))
]
CASES += [
    ("add.Tensor", (X, Y), {"alpha": 2.0}),
    ("sub.Tensor", (X, Y), {"alpha": 2.0}),
    ("rsub.Scalar", (X, 2.0), {}),
    ("pow.Tensor_Scalar", (X, 2), {}),
    ("pow.Tensor_Scalar", (P, -0.5), {}),
    ("pow.Tensor_Tensor", (P, Y), {}),
    ("pow.Scalar", (2.0, X), {}),
    *((f"{name}.default", (3 * X,), {}) for name in ("relu", "elu", "silu", "gelu", "mish")),
    ("elu.default", (X, 0.5, 1.5, 0.7), {}),
    ("gelu.default", (X,), {"approximate": "tanh"}),
    ("leaky_relu.default", (X, 0.2), {}),
    ("hardtanh.default", (3 * X, -0.5, 2.0), {}),
    ("addcmul.default", (X, Y, Z), {"value": 0.5}),
    ("addcdiv.default", (X, Y, P), {"value": 0.5}),
    ("clamp.default", (X, -0.5, 0.5), {}),
    ("clamp_min.default", (X, -0.5), {}),
    ("clamp_max.default", (X, 0.5), {}),
    ("maximum.default", (X, Y), {}),
    ("minimum.default", (X, Y), {}),
    ("logaddexp.default", (X, Y), {}),
    ("xlogy.Tensor", (X, P), {}),
    ("where.self", (MASK, X, Y), {}),
    ("where.ScalarSelf", (MASK, 1.0, Y), {}),
    ("where.ScalarOther", (MASK, X, 1.0), {}),
    ("where.Scalar", (MASK, 1.0, 2.0), {}),
    ("masked_fill.Scalar", (X, MASK, -1e9), {}),
    ("masked_fill.Tensor", (X, MASK, torch.tensor(3.0)), {}),
    ("logical_and.default", (MASK, ~MASK), {}),
    ("logical_or.default", (MASK, ~MASK), {}),
    ("bitwise_and.Tensor", (MASK, MASK), {}),
    ("bitwise_or.Tensor", (MASK, ~MASK), {}),
    ("view.default", (X, [6, -1]), {}),
    ("_unsafe_view.default", (X, [6, -1]), {}),
    ("reshape.default", (X, [6, -1]), {}),
    ("expand.default", (X[:, :1], [5, -1, 3, 4]), {}),
    ("permute.default", (X, [2, 0, 1]), {}),
    ("transpose.int", (X, 0, -1), {}),
    ("unsqueeze.default", (X, -1), {}),
    ("squeeze.dim", (X[:, :1], 1), {}),
    ("squeeze.dim", (X, 1), {}),
    ("squeeze.dims", (X[:, :1], [0, 1]), {}),
    ("select.int", (X, -1, 2), {}),
    ("slice.Tensor", (X, 2, 1, 9223372036854775807, 2), {}),
    ("slice.Tensor", (X, 1, -2), {}),
    ("split_with_sizes.default", (X, [1, 3], -1), {}),
    ("split.Tensor", (X, 2, 1), {}),
    ("unbind.int", (X, 1), {}),
    ("cat.default", ([X, Y], 1), {}),
    ("stack.default", ([X, Y], -1), {}),
    ("index.Tensor", (X, [None, torch.tensor([2, 0])]), {}),
    ("index_select.default", (X, 1, torch.tensor([2, 0])), {}),
    ("index_copy.default", (X, 1, torch.tensor([2, 0]), Y[:, :2]), {}),
    ("gather.default", (X, 2, torch.tensor([[[3], [0], [1]]]).expand(2, 3, 1)), {}),
    ("gather.default", (X, 2, torch.tensor([[[3, 1]]]).expand(2, 3, 2)), {}),
    ("gather.default", (LONG, 1, torch.tensor([[39], [2]])), {}),
    ("diagonal.default", (A, 0, -2, -1), {}),
    ("flip.default", (X, [0, 2]), {}),
    ("new_zeros.default", (X, [2, 2]), {"pin_memory": False}),
    ("new_ones.default", (X, [2]), {"dtype": torch.int64}),
    ("new_full.default", (X, [2], 3.0), {}),
    ("full_like.default", (X, 2.0), {}),
    ("sum.dim_IntList", (X, [0, 2], True), {}),
    ("sum.dim_IntList", (MASK, [1]), {}),
    ("mean.dim", (X, [-1]), {}),
    ("prod.dim_int", (X, 1), {}),
    ("amax.default", (X, [1], True), {}),
    ("amin.default", (X, [1]), {}),
    ("cumsum.default", (X, 1), {}),
    ("cumprod.default", (X, 1), {}),
    ("constant_pad_nd.default", (X, [1, 0, -1, 2], 3.0), {}),
    ("index_put.default", (X, [None, torch.tensor([2, 0])], Y[:, :2]), {}),
    ("index_put.default", (X, [MASK], torch.tensor(3.0)), {}),
    ("index_put.default", (X, [None, torch.tensor([2, 0])], Y[:, :2], True), {}),
    ("select_scatter.default", (X, Y[:, 1], 1, -1), {}),
    ("slice_scatter.default", (X, Y[:, :, 1:3], -1, 1, 3), {}),
    ("slice_scatter.default", (X, Y[:, :1], 1, -1), {}),
    ("copy.default", (X, Y[:, :1]), {}),
    ("binary_cross_entropy_with_logits.default", (20 * X, (Y > 0).float(), None, None, 0), {}),
    ("logsumexp.default", (X, [1], True), {}),
    ("_log_softmax.default", (X, -1, False), {}),
    ("_softmax.default", (X, -1, False), {}),
    ("mm.default", (SQUARE, SQUARE), {}),
    ("bmm.default", (A, L), {}),
    ("mv.default", (SQUARE, SQUARE[0]), {}),
    ("dot.default", (SQUARE[0], SQUARE[1]), {}),
    ("addmm.default", (SQUARE, SQUARE, SQUARE), {"beta": 0.5, "alpha": 2.0}),
    ("baddbmm.default", (A, A, L), {"beta": 0.5}),
    ("cholesky_solve.default", (X, L), {}),
    ("cholesky_solve.default", (X, L.mT, True), {}),
    ("linalg_vector_norm.default", (X, 2, [-1]), {}),
    ("linalg_vector_norm.default", (X, 2, [-2, -1]), {}),
    ("linalg_vector_norm.default", (X, 2, None, True), {}),
    ("linalg_solve_triangular.default", (L, X), {"upper": False}),
    ("linalg_solve_triangular.default", (L.mT, X.mT), {"upper": True, "left": False}),
    ("triangular_solve.default", (X, L, False), {}),
    ("triangular_solve.default", (X, L, False, True), {}),
]
CASES[-3] = ("linalg_solve_triangular.default", (L.mT, A), {"upper": True, "left": False})


def in_jax(value):
    if isinstance(value, torch.Tensor):
        return jnp.asarray(value.numpy())
    return tuple(in_jax(v) for v in value) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    ("name", "args", "kwargs"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_operation(name, args, kwargs):
    packet, overload = name.split(".")
    expected = getattr(getattr(torch.ops.aten, packet), overload)(*args, **kwargs)
    got = OPERATIONS[name](*(in_jax(a) for a in args), **kwargs)
    if isinstance(expected, torch.Tensor):
        expected, got = (expected,), (got,)
    count = (
        1 if packet in ("linalg_cholesky_ex", "log_sigmoid_forward", "triangular_solve") else None
    )
    for a, b in list(zip(expected, got, strict=True))[:count]:
        assert b.shape == a.shape
        np.testing.assert_allclose(np.asarray(b), a.numpy(), rtol=2e-5, atol=2e-6)


def test_every_operation_has_a_case():
    assert {name for name, _, _ in CASES} == set(OPERATIONS)


@pytest.mark.parametrize("model", [GaussianToy(), HierarchicalHead(), GaussianHierarchy()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_model(model, dtype):
    """Density and gradient of the Pyro program, ragged tasks, population among the latents."""
    episodes, _ = synthetic_episodes(users=2, way=3, shots=2, frames=3, dim=4, ragged=True)
    density = potential(model, episodes.to(dtype))
    z = density.prior(3, seed=0)
    program, data = translate(density, z)
    with precision_of(z):

        def total(x):
            value = jax.vmap(program, (1, None), 1)(x, data)
            return value.sum(), value

        compiled = jax.jit(jax.grad(total, has_aux=True))
        gradient, value = map(np.asarray, compiled(jnp.asarray(z.numpy())))
    expected = density.value_and_gradient(z)
    tight = 1e-10 if dtype is torch.float64 else 2e-4
    np.testing.assert_allclose(value, expected[0].numpy(), rtol=tight)
    scale = float(expected[1].abs().max())
    np.testing.assert_allclose(gradient, expected[1].numpy(), rtol=tight, atol=tight * scale)


def test_programs_of_equal_shapes_are_equal_and_hashable():
    model = HierarchicalHead()
    population = model.default_population(4)
    programs = [
        translate(potential(model, synthetic_episodes(users=2, dim=4, seed=s)[0], population), X)[0]
        for s in (0, 1)
    ]
    assert programs[0] == programs[1]
    assert hash(programs[0]) == hash(programs[1])
    longer = potential(model, synthetic_episodes(users=3, dim=4)[0], population)
    assert translate(longer, X)[0] != programs[0]
