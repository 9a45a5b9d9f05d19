"""Record a tensor function once as a flat list of tensor operations, and replay it.

Use `capture`. A Pyro program spends most of its time in Python: handlers, distributions, vmap
and autograd bookkeeping. Its tensor operations do not change from one step to the next, so they
are recorded once (with the backward pass) and replayed without any of that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

logger = logging.getLogger(__name__)


def capture(function: Callable[..., Any], *example: Tensor) -> Callable[..., Any]:
    """The same function, recorded at the shapes of `example`.

    The function must be pure, and its Python control flow must not depend on tensor values.
    Where recording fails (a value-dependent branch, an operator that cannot be traced), the
    function itself is returned and the reason is logged.

    Args:
        function: tensors -> tensors (or a tuple of tensors).
        example: inputs whose shapes, dtypes and device the recording is for.

    Returns:
        A function of the same arguments; its results carry no autograd history.

    Example:
        >>> square = capture(lambda x: x * x, torch.ones(3))
        >>> square(torch.arange(3.0))
        tensor([0., 1., 4.])
    """
    try:
        recorded = make_fx(lambda *args: function(*args))(*example)
    except Exception as error:
        logger.info("not recorded, running eagerly: %s", error)
        return torch.no_grad()(function)
    _fold_constants(recorded)
    return torch.no_grad()(recorded)


def _fold_constants(module: GraphModule) -> None:
    """Evaluate once, in place, every node that depends on no input."""
    calls = [n for n in module.graph.nodes if n.op == "call_function"]
    if not any(_mutates(n) for n in calls):
        known = _known_values(module)
        for node, value in known.items():
            if isinstance(value, Tensor) and any(user not in known for user in node.users):
                _replace_by_buffer(module, node, value)
    module.graph.eliminate_dead_code()
    module.recompile()


def _mutates(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)


@torch.no_grad()
def _known_values(module: GraphModule) -> dict[Node, Any]:
    """Values of the nodes without an input among their ancestors."""
    known: dict[Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(module, node.target)
        elif node.op == "call_function" and all(a in known for a in node.all_input_nodes):
            args = map_arg(node.args, known.__getitem__)
            kwargs = map_arg(node.kwargs, known.__getitem__)
            known[node] = node.target(*args, **kwargs)
    return known


def _replace_by_buffer(module: GraphModule, node: Node, value: Tensor) -> None:
    if node.op == "get_attr":
        return
    name = f"_folded_{node.name}"
    module.register_buffer(name, value.contiguous())
    with module.graph.inserting_before(node):
        constant = module.graph.get_attr(name)
    node.replace_all_uses_with(constant)
