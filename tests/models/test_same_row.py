"""The same row has the same answer, whatever is asked or taught beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from bayesfs.inference.exact import Exact
from bayesfs.inference.gibbs.gibbs import Gibbs
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.inference.nuts.pyro_nuts import PyroNUTS
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.inference.program.potential import potential
from bayesfs.inference.svgd.svgd import SVGD
from bayesfs.inference.svi.amortised import AmortisedSVI
from bayesfs.inference.svi.autoguides import PyroSVI
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.families import Full
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.robust import RobustHierarchy
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.likelihoods.dirichlet import Dirichlet
from bayesfs.models.gp.likelihoods.laplace_softmax import LaplaceSoftmax
from bayesfs.models.gp.likelihoods.logistic_softmax import LogisticSoftmax
from bayesfs.models.gp.likelihoods.one_vs_each import OneVsEach, OneVsEachGibbs
from bayesfs.models.gp.likelihoods.regression import LabelRegression
from bayesfs.models.gp.likelihoods.sigmoid_of_mean import SigmoidOfMean
from bayesfs.models.gp.likelihoods.softmax import Softmax
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.models.niw.classes import NIWClasses, NIWMode
from bayesfs.models.similarity.pool import TablePool
from bayesfs.prediction import predict
from bayesfs.protocols import Engine, Model
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing.engines import pad
from bayesfs.types import EpisodeBatch, Posterior
from bayesfs.uncertainty.decompose import decompose_draws

CLOSE = 1e-10
"""What rounding may do to a probability, or to nats."""


@dataclass(frozen=True)
class Case:
    """A model and an engine that predict; `by_task` if tasks have streams of their own."""

    model: Model
    engine: Engine
    by_task: bool = False


EXACT = Exact(draws=20, population_draws=2)
CASES = {
    "gaussian": Case(GaussianHierarchy(), EXACT, True),
    "gaussian-full": Case(GaussianHierarchy(Full()), EXACT, True),
    "gaussian-quality": Case(GaussianHierarchy(covariates=("blur",)), EXACT, True),
    "niw": Case(NIWClasses(), EXACT, True),
    "niw-mode": Case(NIWMode(), EXACT, True),
    "robust": Case(RobustHierarchy(), OwnApproximation(draws=20, population_draws=2), True),
    "table-pool": Case(TablePool(), OwnApproximation(draws=20, population_draws=2), True),
    "gp-regression": Case(DeepKernelGP(likelihood=LabelRegression()), EXACT, True),
    "gp-transfer": Case(DeepKernelGP(likelihood=SigmoidOfMean()), EXACT, True),
    "gp-dirichlet": Case(DeepKernelGP(likelihood=Dirichlet()), EXACT, True),
    "gp-laplace": Case(DeepKernelGP(likelihood=LaplaceSoftmax()), EXACT, True),
    "gp-logistic": Case(DeepKernelGP(likelihood=LogisticSoftmax()), EXACT, True),
    "gp-one-vs-each": Case(DeepKernelGP(likelihood=OneVsEach()), EXACT, True),
    "gp-softmax": Case(DeepKernelGP(likelihood=Softmax()), EXACT, True),
    "gp-gibbs": Case(
        DeepKernelGP(likelihood=OneVsEachGibbs(chains=2, burn_in=3, thin=1)), EXACT, True
    ),
    "gaussian-svi": Case(GaussianHierarchy(), SVI(steps=20, draws=20, khat_draws=0), True),
    "gaussian-svgd": Case(GaussianHierarchy(), SVGD(particles=6, steps=5), True),
    "gaussian-laplace": Case(GaussianHierarchy(), Laplace(draws=20), True),
    "gaussian-nuts": Case(GaussianHierarchy(), NUTS(warmup=5, draws=5, chains=2), True),
    "gaussian-pyro-svi": Case(GaussianHierarchy(), PyroSVI(steps=5, draws=5)),
    "robust-nuts": Case(RobustHierarchy(), NUTS(warmup=5, draws=5, chains=2), True),
    "robust-svgd": Case(RobustHierarchy(), SVGD(particles=6, steps=5), True),
    "robust-svi": Case(RobustHierarchy(), SVI(steps=10, draws=10, khat_draws=0), True),
    "head-svi": Case(HierarchicalHead(), SVI(steps=20, draws=20, khat_draws=0), True),
    "head-svgd": Case(HierarchicalHead(), SVGD(particles=6, steps=5), True),
    "head-laplace": Case(HierarchicalHead(), Laplace(draws=20), True),
    "head-nested": Case(
        HierarchicalHead(), Laplace("kronecker", "task_scale_raw", nodes=3, draws=20), True
    ),
    "head-gibbs": Case(HierarchicalHead(), Gibbs(burn_in=3, draws=5, chains=2), True),
    "head-nuts": Case(HierarchicalHead(), NUTS(warmup=5, draws=5, chains=2), True),
    "head-pyro-nuts": Case(HierarchicalHead(), PyroNUTS(warmup=3, draws=5, chains=1), True),
    "head-amortised": Case(HierarchicalHead(), AmortisedSVI(draws=20, khat_draws=0)),
}
NIGHT = (
    "gaussian-svgd",
    "robust-nuts",
    "robust-svgd",
    "head-nested",
    "head-nuts",
    "head-pyro-nuts",
    "head-svgd",
)
"""Cases that take long, asked by night; by day other engines ask their models."""
ALL = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[pytest.mark.slow] * (name in NIGHT))
        for name, case in CASES.items()
    ],
)


@cache
def tasks(model: Model) -> EpisodeBatch:
    """Two tasks of three and four classes, with ragged videos; quality where the model has it."""
    batch, _ = synthetic_episodes(
        users=2, way=4, shots=3, frames=3, query_videos=2, dim=3, ragged=True, seed=9
    )
    batch = batch.select([1, 0]).to(torch.float64)
    if not getattr(model, "covariates", ()):
        return batch
    g = torch.Generator().manual_seed(0)
    taught, asked = (
        torch.randn(*x.shape[:-1], 1, generator=g, dtype=x.dtype)
        for x in (batch.support, batch.query)
    )
    return replace(batch, support_quality=taught, query_quality=asked)


@cache
def population(model: Model) -> Posterior:
    """Two draws of the prior of what holds for every task."""
    joint = potential(model, tasks(model))
    draws = joint.constrain(joint.prior(2, seed=0))
    names = [site for site, axes in model.dims.items() if "task" not in axes]
    return Posterior("exact", {s: draws[s] for s in names}, {s: model.dims[s] for s in names})


Answer = dict[str, Tensor]


def answer(case: Case, batch: EpisodeBatch) -> Answer:
    """All that is said of the videos and the frames of the first task."""
    given = population(case.model)
    posterior = case.engine.infer(case.model, batch, seed=5, given=given)
    found = predict(case.model, posterior, batch, given=given)
    out = {}
    for unit in ("video", "frame"):
        labels = getattr(found, unit)
        parts = zip(("total", "aleatoric", "epistemic"), decompose_draws(labels), strict=True)
        out |= {f"{unit}_{name}": value[0] for name, value in parts}
        out[f"{unit}_prob"] = labels.prob[0]
    return out


def one(case: Case) -> EpisodeBatch:
    """The first task by itself."""
    return tasks(case.model).select([0])


@cache
def plain(name: str) -> Answer:
    return answer(CASES[name], one(CASES[name]))


def usual(case: Case) -> Answer:
    return plain(next(name for name, other in CASES.items() if other is case))


def check(case: Case, found: Answer, expected: Answer, batch: EpisodeBatch) -> None:
    """Equal where there are frames: `batch` is that of `expected`."""
    masks = {"video": batch.video_mask[0], "frame": batch.query_mask[0]}
    for name, value in expected.items():
        mask = masks[name.split("_")[0]]
        gap = (found[name][mask] - value[mask]).abs().max()
        assert gap <= CLOSE, f"{name} moved by {float(gap):.2g}"


def asked(batch: EpisodeBatch, videos: list[int]) -> EpisodeBatch:
    """The same support, asked about some videos in another order."""
    changed: dict[str, Any] = {
        name: getattr(batch, name)[:, videos]
        for name in ("query", "query_mask", "query_condition", "query_labels", "query_quality")
        if getattr(batch, name) is not None
    }
    return replace(batch, videos=(), **changed)


@ALL
def test_a_video_asked_alone(case: Case) -> None:
    batch, together = one(case), usual(case)
    for v in batch.video_mask[0].nonzero()[:, 0].tolist()[::3]:
        alone = asked(batch, [v])
        expected = {name: value[[v]] for name, value in together.items()}
        check(case, answer(case, alone), expected, alone)


@ALL
def test_videos_asked_in_another_order(case: Case) -> None:
    batch, together = one(case), usual(case)
    order = [*range(batch.query.shape[1])][::-1]
    turned = asked(batch, order)
    check(case, answer(case, turned), {n: v[order] for n, v in together.items()}, turned)


@ALL
def test_classes_in_another_order(case: Case) -> None:
    batch, before = one(case), usual(case)
    order = [2, 3, 0, 1]
    after = answer(case, batch.permute_classes(order))
    expected = {n: v[..., order] if n.endswith("prob") else v for n, v in before.items()}
    check(case, after, expected, batch)


@ALL
def test_support_videos_in_another_order(case: Case) -> None:
    batch = one(case)
    changed: dict[str, Any] = {
        name: getattr(batch, name).flip(2)
        for name in ("support", "support_mask", "support_condition", "support_quality")
        if getattr(batch, name) is not None
    }
    check(case, answer(case, replace(batch, **changed)), usual(case), batch)


@ALL
def test_more_padding(case: Case) -> None:
    batch, before = one(case), usual(case)
    if batch.support_quality is not None:
        batch = replace(batch, support_quality=None, query_quality=None)
    wide = pad(batch)
    if getattr(case.model, "covariates", ()):
        wide = with_quality(one(case), wide)
    after = answer(case, wide)
    videos, frames = batch.query.shape[1:3]
    for name, value in after.items():
        cut = value[:videos] if name.startswith("video") else value[:videos, :frames]
        after[name] = cut[..., : batch.way] if name.endswith("prob") else cut
    check(case, after, before, batch)


def with_quality(narrow: EpisodeBatch, wide: EpisodeBatch) -> EpisodeBatch:
    """`wide` with the quality of `narrow`, padded as the rest."""
    out: dict[str, Tensor] = {}
    for unit in ("support", "query"):
        value, into = getattr(narrow, f"{unit}_quality"), getattr(wide, unit)
        full = into.new_zeros(*into.shape[:-1], value.shape[-1])
        full[tuple(slice(n) for n in value.shape)] = value
        out[f"{unit}_quality"] = full
    return replace(wide, **out)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, id=name, marks=[pytest.mark.slow] * (name in NIGHT))
        for name, case in CASES.items()
        if case.by_task
    ],
)
@pytest.mark.parametrize("company", [[0, 1], [1, 0]], ids=["first", "last"])
def test_a_task_in_company(name: str, company: list[int]) -> None:
    """Another task in the batch, before or behind, of other ways and shots, moves nothing."""
    case = CASES[name]
    both = tasks(case.model).select(company)
    at = company.index(0)
    given = population(case.model)
    posterior = case.engine.infer(case.model, both, seed=5, given=given)
    found = predict(case.model, posterior, both, given=given)
    expected = usual(case)
    for unit, mask in (("video", both.video_mask[at]), ("frame", both.query_mask[at])):
        labels = getattr(found, unit)
        gap = (labels.prob[at][mask] - expected[f"{unit}_prob"][mask]).abs().max()
        assert gap <= CLOSE, f"{unit} probabilities moved by {float(gap):.2g}"
        for part, value in zip(
            ("total", "aleatoric", "epistemic"), decompose_draws(labels), strict=True
        ):
            gap = (value[at][mask] - expected[f"{unit}_{part}"][mask]).abs().max()
            assert gap <= CLOSE, f"{unit} {part} moved by {float(gap):.2g}"


@pytest.mark.parametrize(
    "engine",
    [SVI(steps=5, draws=30, khat_draws=30), SVGD(particles=6, steps=5), Laplace(draws=5)],
    ids=lambda engine: type(engine).__name__,
)
def test_statistics_stay_with_their_tasks(engine: Engine) -> None:
    """Tasks of other shapes are inferred apart, and come back in the order in which they came."""
    model = GaussianHierarchy()
    batch, _ = synthetic_episodes(
        users=4, way=4, shots=3, frames=3, query_videos=1, dim=3, ragged=True, seed=9
    )
    batch = replace(batch.to(torch.float64), tasks=tuple("abcd"))
    given = population(model)
    found = engine.infer(model, batch, seed=5, given=given)
    assert found.coords["task"] == batch.tasks
    for number in range(len(batch)):
        alone = engine.infer(model, batch.select([number]), seed=5, given=given)
        for name in {"evidence_bound", "khat", "log_evidence", "gradient", "ksd_ratio"} & {
            *found.sample_stats
        }:
            gap = found.sample_stats[name][number] - alone.sample_stats[name][0]
            assert gap.abs().nan_to_num(0.0) <= 1e-8, name
