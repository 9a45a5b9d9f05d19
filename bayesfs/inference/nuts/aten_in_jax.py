"""What each recorded torch operation is in JAX: `OPERATIONS`, name -> function.

Arguments are as recorded: arrays, Python numbers, tuples of them, torch dtypes. Layout, device and
memory arguments are ignored. To add an operation, add a line and a case to
tests/inference/test_translate.py, which runs every entry in both libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import torch
from jax import Array

Operation = Callable[..., Any]

SHORT_AXIS = 32
"""Longest axis along which one entry is taken by a sum."""

_DTYPES: Mapping[torch.dtype, Any] = {
    torch.bool: jnp.bool_,
    torch.int32: jnp.int32,
    torch.int64: jnp.int64,
    torch.float32: jnp.float32,
    torch.float64: jnp.float64,
}


def _cast(x: Array, *, dtype: torch.dtype | None = None, **_: Any) -> Array:
    return x if dtype is None else x.astype(jax.dtypes.canonicalize_dtype(_DTYPES[dtype]))


def _filled(x: Array, value: Any, shape: tuple[int, ...] | None = None, **given: Any) -> Array:
    dtype = given.get("dtype")
    kind = x.dtype if dtype is None else jax.dtypes.canonicalize_dtype(_DTYPES[dtype])
    return jnp.full(x.shape if shape is None else shape, value, kind)


def _expand(x: Array, shape: tuple[int, ...], **_: Any) -> Array:
    lead = len(shape) - x.ndim
    sizes = [x.shape[i - lead] if n == -1 else n for i, n in enumerate(shape)]
    return jnp.broadcast_to(x, sizes)


def _add(x: Any, y: Any, *, alpha: float = 1) -> Any:
    return x + (y if alpha == 1 else alpha * y)


def _sub(x: Any, y: Any, *, alpha: float = 1) -> Any:
    return x - (y if alpha == 1 else alpha * y)


def _axes(dim: Any) -> Any:
    """Torch's dims as NumPy's axes: an empty tuple means all."""
    return None if dim is None or dim == () else dim


def _sum(x: Array, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Array:
    return _cast(jnp.sum(x, _axes(dim), keepdims=keepdim), dtype=dtype)


def _mean(x: Array, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Array:
    return _cast(jnp.mean(x, _axes(dim), keepdims=keepdim), dtype=dtype)


def _clamp(x: Array, low: Any = None, high: Any = None) -> Array:
    return jnp.clip(x, low, high)


def _slice(x: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Array:
    size = x.shape[dim]
    stop = size if end is None else min(end, size)
    return jax.lax.slice_in_dim(x, *slice(start, stop).indices(size)[:2], step, dim % x.ndim)


def _split(x: Array, sizes: tuple[int, ...], dim: int = 0) -> tuple[Array, ...]:
    cuts = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    return tuple(jnp.split(x, cuts, dim))


def _index(x: Array, indices: tuple[Any, ...]) -> Array:
    return x[tuple(slice(None) if i is None else i for i in indices)]


def _index_put(x: Array, indices: tuple[Any, ...], value: Array, accumulate: bool = False) -> Array:
    if len(indices) == 1 and indices[0].dtype == bool and jnp.size(value) == 1:
        mask = indices[0].reshape(indices[0].shape + (1,) * (x.ndim - indices[0].ndim))
        return jnp.where(mask, x + value if accumulate else value, x)
    place = x.at[tuple(slice(None) if i is None else i for i in indices)]
    return place.add(value) if accumulate else place.set(value)


def _at(x: Array, dim: int, where: Any) -> tuple[Any, ...]:
    """Index of a place, or a slice, on one axis."""
    return (*[slice(None)] * (dim % x.ndim), where)


def _slice_scatter(
    x: Array, value: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Array:
    stop = x.shape[dim] if end is None else min(end, x.shape[dim])
    return x.at[_at(x, dim, slice(start, stop, step))].set(value)


def _binary_cross_entropy(
    logit: Array, label: Array, weight: Any = None, more: Any = None, reduction: int = 1
) -> Array:
    if weight is not None or more is not None or reduction:
        raise NotImplementedError("weighted or summed cross-entropy")
    return (1 - label) * logit + jax.nn.softplus(-logit)


def _pad(x: Array, sizes: tuple[int, ...], value: float = 0) -> Array:
    """Torch counts from the last axis; a negative size takes away."""
    pairs = [(*pair, 0) for pair in zip(sizes[::2], sizes[1::2], strict=True)]
    config = [(0, 0, 0)] * (x.ndim - len(pairs)) + pairs[::-1]
    return jax.lax.pad(x, jnp.asarray(value, x.dtype), config)


def _gather(x: Array, dim: int, index: Array, **_: Any) -> Array:
    """Entries along one axis; a short axis is summed over, so that its gradient is no scatter."""
    size = x.shape[dim]
    if index.shape[dim] != 1 or size > SHORT_AXIS or x.ndim != index.ndim:
        return jnp.take_along_axis(x, index, dim)
    one = jax.lax.broadcasted_iota(index.dtype, (size,), 0)
    chosen = index == jnp.expand_dims(one, [d for d in range(x.ndim) if d != dim % x.ndim])
    return jnp.sum(jnp.where(chosen, x, 0), dim, keepdims=True)


def _squeeze(x: Array, dim: Any = None) -> Array:
    if dim is None:
        return jnp.squeeze(x)
    dims = [d % x.ndim for d in (dim if isinstance(dim, tuple) else (dim,))]
    return jnp.squeeze(x, tuple(d for d in dims if x.shape[d] == 1))


def _softplus(x: Array, beta: float = 1, threshold: float = 20) -> Array:
    return jnp.where(beta * x > threshold, x, jax.nn.softplus(beta * x) / beta)


def _elu(x: Array, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Array:
    below = alpha * jnp.expm1(input_scale * jnp.minimum(x, 0))
    return scale * jnp.where(x > 0, x, below)


def _cholesky(x: Array, *, upper: bool = False, **_: Any) -> tuple[Array, Array]:
    factor = jnp.linalg.cholesky(x, upper=upper)
    return factor, jnp.zeros(x.shape[:-2], jnp.int32)


def _cholesky_solve(b: Array, factor: Array, upper: bool = False) -> Array:
    half = _solve_triangular(_transposed(factor) if upper else factor, b, upper=False)
    return _solve_triangular(factor if upper else _transposed(factor), half, upper=True)


def _transposed(x: Array) -> Array:
    return jnp.swapaxes(x, -1, -2)


def _solve_triangular(a: Array, b: Array, *, upper: bool, left: bool = True, **flags: Any) -> Array:
    shape = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = jnp.broadcast_to(a, shape + a.shape[-2:])
    b = jnp.broadcast_to(b, shape + b.shape[-2:])
    unit = bool(flags.get("unitriangular", False))
    solution: Array = jax.lax.linalg.triangular_solve(
        a, b, left_side=left, lower=not upper, unit_diagonal=unit
    )
    return solution


def _triangular_solve(
    b: Array, a: Array, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> tuple[Array, Array]:
    a = jnp.swapaxes(a, -1, -2) if transpose else a
    unit = {"unitriangular": unitriangular}
    return _solve_triangular(a, b, upper=upper != transpose, **unit), a


def _norm(x: Array, order: Any = 2, dim: Any = None, keepdim: bool = False) -> Array:
    axes = tuple(dim) if isinstance(dim, list | tuple) else dim
    norm: Array = jnp.linalg.vector_norm(x, ord=order, axis=axes, keepdims=keepdim)
    return norm


def _diagonal(x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    result: Array = jnp.diagonal(x, offset, dim1, dim2)
    return result


def _diag_embed(x: Array, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Array:
    last = x.ndim + 1
    if offset or (dim1 % last, dim2 % last) != (last - 2, last - 1):
        raise NotImplementedError("diag_embed on other axes")
    return x[..., None] * jnp.eye(x.shape[-1], dtype=x.dtype)


def _log_softmax(x: Array, dim: int, _: bool = False) -> Array:
    return jax.nn.log_softmax(x, dim)


_SHAPES: Mapping[str, Operation] = {
    "view.default": lambda x, shape: x.reshape(shape),
    "_unsafe_view.default": lambda x, shape: x.reshape(shape),
    "reshape.default": lambda x, shape: x.reshape(shape),
    "expand.default": _expand,
    "permute.default": jnp.transpose,
    "transpose.int": jnp.swapaxes,
    "t.default": lambda x: x.T,
    "unsqueeze.default": lambda x, dim: jnp.expand_dims(x, dim),
    "squeeze.default": _squeeze,
    "squeeze.dim": _squeeze,
    "squeeze.dims": _squeeze,
    "select.int": lambda x, dim, i: jax.lax.index_in_dim(x, i, dim, keepdims=False),
    "slice.Tensor": _slice,
    "split_with_sizes.default": _split,
    "split.Tensor": lambda x, size, dim=0: tuple(
        jnp.split(x, list(range(size, x.shape[dim], size)), dim)
    ),
    "unbind.int": lambda x, dim=0: tuple(jnp.moveaxis(x, dim, 0)),
    "constant_pad_nd.default": _pad,
    "cat.default": lambda xs, dim=0: jnp.concatenate(xs, dim),
    "stack.default": lambda xs, dim=0: jnp.stack(xs, dim),
    "index.Tensor": _index,
    "index_put.default": _index_put,
    "select_scatter.default": lambda x, value, dim, i: x.at[_at(x, dim, i)].set(value),
    "slice_scatter.default": _slice_scatter,
    "copy.default": lambda x, value, non_blocking=False: jnp.broadcast_to(value, x.shape),
    "index_copy.default": lambda x, dim, i, value: x.at[_at(x, dim, i)].set(value),
    "index_select.default": lambda x, dim, i: jnp.take(x, i, dim),
    "gather.default": _gather,
    "diagonal.default": _diagonal,
    "diag_embed.default": _diag_embed,
    "tril.default": jnp.tril,
    "triu.default": jnp.triu,
    "flip.default": lambda x, dims: jnp.flip(x, dims),
    "clone.default": lambda x, **_: x,
    "alias.default": lambda x: x,
    "detach.default": jax.lax.stop_gradient,
    "_to_copy.default": _cast,
    "new_zeros.default": lambda x, shape, **given: _filled(x, 0, shape, **given),
    "new_ones.default": lambda x, shape, **given: _filled(x, 1, shape, **given),
    "new_full.default": lambda x, shape, value, **given: _filled(x, value, shape, **given),
    "zeros_like.default": lambda x, **given: _filled(x, 0, **given),
    "ones_like.default": lambda x, **given: _filled(x, 1, **given),
    "full_like.default": lambda x, value, **given: _filled(x, value, **given),
}

_ARITHMETIC: Mapping[str, Operation] = {
    **dict.fromkeys(("add.Tensor", "add.Scalar"), _add),
    **dict.fromkeys(("sub.Tensor", "sub.Scalar"), _sub),
    "rsub.Scalar": lambda x, y, alpha=1: y - alpha * x,
    **dict.fromkeys(("mul.Tensor", "mul.Scalar"), lambda x, y: x * y),
    **dict.fromkeys(("div.Tensor", "div.Scalar"), lambda x, y: x / y),
    "neg.default": lambda x: -x,
    "reciprocal.default": lambda x: 1 / x,
    **dict.fromkeys(
        ("pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar"), lambda x, y: jnp.power(x, y)
    ),
    "addcmul.default": lambda x, a, b, value=1: x + value * a * b,
    "addcdiv.default": lambda x, a, b, value=1: x + value * a / b,
    "abs.default": jnp.abs,
    "sign.default": jnp.sign,
    "sgn.default": jnp.sign,
    "square.default": jnp.square,
    "sqrt.default": jnp.sqrt,
    "rsqrt.default": jax.lax.rsqrt,
    "exp.default": jnp.exp,
    "expm1.default": jnp.expm1,
    "log.default": jnp.log,
    "log1p.default": jnp.log1p,
    "sin.default": jnp.sin,
    "cos.default": jnp.cos,
    "atan.default": jnp.arctan,
    "tanh.default": jnp.tanh,
    "sigmoid.default": jax.nn.sigmoid,
    "log_sigmoid_forward.default": lambda x: (jax.nn.log_sigmoid(x), x),
    "softplus.default": _softplus,
    "relu.default": jax.nn.relu,
    "leaky_relu.default": lambda x, slope=0.01: jnp.where(x > 0, x, slope * x),
    "elu.default": _elu,
    "silu.default": jax.nn.silu,
    "gelu.default": lambda x, approximate="none": jax.nn.gelu(x, approximate == "tanh"),
    "hardtanh.default": lambda x, low=-1, high=1: jnp.clip(x, low, high),
    "mish.default": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "erf.default": jsp.special.erf,
    "erfc.default": jsp.special.erfc,
    "special_ndtr.default": jsp.special.ndtr,
    "special_log_ndtr.default": jsp.special.log_ndtr,
    "lgamma.default": jsp.special.gammaln,
    "digamma.default": jsp.special.digamma,
    "clamp.default": _clamp,
    "clamp_min.default": _clamp,
    "clamp_max.default": lambda x, high: _clamp(x, None, high),
    "maximum.default": jnp.maximum,
    "minimum.default": jnp.minimum,
    "logaddexp.default": jnp.logaddexp,
    "binary_cross_entropy_with_logits.default": _binary_cross_entropy,
    "xlogy.Tensor": jsp.special.xlogy,
}

_CHOICES: Mapping[str, Operation] = {
    **dict.fromkeys(
        ("where.self", "where.ScalarSelf", "where.ScalarOther", "where.Scalar"), jnp.where
    ),
    **dict.fromkeys(
        ("masked_fill.Scalar", "masked_fill.Tensor"), lambda x, mask, v: jnp.where(mask, v, x)
    ),
    **dict.fromkeys(("eq.Scalar", "eq.Tensor"), lambda x, y: x == y),
    **dict.fromkeys(("ne.Scalar", "ne.Tensor"), lambda x, y: x != y),
    **dict.fromkeys(("lt.Scalar", "lt.Tensor"), lambda x, y: x < y),
    **dict.fromkeys(("le.Scalar", "le.Tensor"), lambda x, y: x <= y),
    **dict.fromkeys(("gt.Scalar", "gt.Tensor"), lambda x, y: x > y),
    **dict.fromkeys(("ge.Scalar", "ge.Tensor"), lambda x, y: x >= y),
    **dict.fromkeys(("logical_and.default", "bitwise_and.Tensor"), jnp.logical_and),
    **dict.fromkeys(("logical_or.default", "bitwise_or.Tensor"), jnp.logical_or),
    **dict.fromkeys(("logical_not.default", "bitwise_not.default"), jnp.logical_not),
    "isnan.default": jnp.isnan,
    "isinf.default": jnp.isinf,
}

_REDUCTIONS: Mapping[str, Operation] = {
    **dict.fromkeys(("sum.default", "sum.dim_IntList"), _sum),
    **dict.fromkeys(("mean.default", "mean.dim"), _mean),
    "prod.dim_int": lambda x, dim, keepdim=False: jnp.prod(x, dim, keepdims=keepdim),
    "amax.default": lambda x, dim=(), keepdim=False: jnp.max(x, _axes(dim), keepdims=keepdim),
    "amin.default": lambda x, dim=(), keepdim=False: jnp.min(x, _axes(dim), keepdims=keepdim),
    "cumsum.default": lambda x, dim: jnp.cumsum(x, dim),
    "cumprod.default": lambda x, dim: jnp.cumprod(x, dim),
    "logsumexp.default": lambda x, dim, keepdim=False: jax.nn.logsumexp(x, dim, keepdims=keepdim),
    "_log_softmax.default": _log_softmax,
    "_softmax.default": lambda x, dim, _: jax.nn.softmax(x, dim),
}

_LINEAR: Mapping[str, Operation] = {
    **dict.fromkeys(("mm.default", "bmm.default", "mv.default", "dot.default"), jnp.matmul),
    "addmm.default": lambda c, a, b, beta=1, alpha=1: beta * c + alpha * (a @ b),
    "baddbmm.default": lambda c, a, b, beta=1, alpha=1: beta * c + alpha * (a @ b),
    "linalg_vector_norm.default": _norm,
    "linalg_cholesky_ex.default": _cholesky,
    "cholesky_solve.default": _cholesky_solve,
    "linalg_solve_triangular.default": _solve_triangular,
    "triangular_solve.default": _triangular_solve,
}

OPERATIONS: Mapping[str, Operation] = {
    **_SHAPES,
    **_ARITHMETIC,
    **_CHOICES,
    **_REDUCTIONS,
    **_LINEAR,
}
"""Name of the recorded operation, such as "mul.Tensor" -> JAX function."""
