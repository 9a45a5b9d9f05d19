"""One query is decomposed in NumPy as many are in tensors."""

import math

import pytest
import torch

from bayesfs.types import LabelDraws
from bayesfs.uncertainty.decompose import decompose_draws, decompose_query


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0, 4000.0])
@pytest.mark.parametrize("own", [True, False], ids=["of the draws", "in closed form"])
def test_one_query_is_decomposed_as_many_are(spread: float, own: bool) -> None:
    rng = torch.Generator().manual_seed(3)
    logits = spread * torch.randn(20, 4, generator=rng, dtype=torch.float64)
    given = logits.log_softmax(-1)
    mixed = given.logsumexp(0) - math.log(len(given))
    if not own:
        mixed = (mixed + torch.tensor([0.3, 0.0, 0.0, -0.1])).log_softmax(-1)
    weight = torch.full((20,), -math.log(20), dtype=torch.float64)
    wanted = [float(v) for v in decompose_draws(LabelDraws(mixed, given, weight))]
    assert decompose_query(mixed.numpy(), given.numpy()) == pytest.approx(wanted, abs=1e-12)
    assert 0 <= wanted[2] <= wanted[0] <= math.log(4)
