"""Prior sensitivity of a population that was fitted together with its tasks."""

import pytest
import torch

from bayesfs.diagnostics.prior_sensitivity import prior_sensitivity
from bayesfs.errors import DataError
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.prediction import predict
from bayesfs.results.assemble import assemble_tree
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.uncertainty.decompose import decompose


def test_its_scalars_are_looked_at() -> None:
    batch, _ = synthetic_episodes(users=2, way=3, shots=2, frames=2, dim=2, seed=1)
    batch, model = batch.to(torch.float64), HierarchicalHead()
    posterior = NUTS(warmup=200, draws=200, chains=2).infer(model, batch, seed=0)
    answer = predict(model, posterior, batch)
    tree = assemble_tree(posterior, answer, decompose(answer, batch), batch, model=model)
    table = prior_sensitivity(tree, "posterior")
    assert "population_scale" in " ".join(map(str, table.index))
    assert table["prior"].notna().any()
    with pytest.raises(DataError, match="joint fit"):
        prior_sensitivity(tree)
