"""Classes shared by name, against dense normal distributions of every row."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from torch import Tensor

from bayesfs.diagnostics.sbc import calibrate
from bayesfs.errors import DataError, InferenceError
from bayesfs.inference.exact import Exact
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.inference.program.potential import potential
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.conjugate import log_evidence
from bayesfs.models.gaussian.shared_classes import SharedClasses
from bayesfs.models.objectives import MarginalLikelihood
from bayesfs.prediction import predict
from bayesfs.study import with_names
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import ModelContract
from bayesfs.types import EpisodeBatch, Posterior
from bayesfs.uncertainty.by_level import by_level
from bayesfs.uncertainty.decompose import decompose
from bayesfs.uncertainty.parts import ALL_PARTS, told_apart

NAMES = ("keys", "mug", "wallet")


def tasks(users: int = 4, ragged: bool = True, **sizes: int) -> EpisodeBatch:
    """Classes of every task stand in another order and have the same names."""
    shape = {"way": 3, "shots": 3, "frames": 3, "query_videos": 2, "query_frames": 2, "dim": 2}
    batch, _ = synthetic_episodes(users=users, ragged=ragged, seed=2, **{**shape, **sizes})
    names = []
    for t in range(users):
        order = [NAMES[(k + t) % 3] for k in range(batch.way)]
        names.append(tuple(order))
    return batch.to(torch.float64).changed(classes=tuple(names))


def scales(dim: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "mean_raw": torch.randn(dim, generator=generator, dtype=torch.float64),
        "scale": torch.tensor([0.5, 0.9, 0.4, 0.6, 0.7], dtype=torch.float64),
        "relative": torch.rand(5, dim, generator=generator, dtype=torch.float64) + 0.5,
    }


MODEL = SharedClasses(labels=NAMES)


def rows(batch: EpisodeBatch) -> Iterator[tuple[int, str, tuple[int, int, int], np.ndarray]]:
    """(group, name, cluster, values) of every support row."""
    for t, k, v, f in batch.support_mask.nonzero().tolist():
        yield t, batch.classes[t][k], (t, k, v), batch.support[t, k, v, f].numpy()


def covariance(a: list, b: list, sd: np.ndarray) -> np.ndarray:
    """Covariance of the rows of a with those of b, of one feature, sd of its levels."""
    out = np.zeros((len(a), len(b)))
    for i, (group, name, cluster, *_) in enumerate(a):
        for j, (group_b, name_b, cluster_b, *_) in enumerate(b):
            out[i, j] = sd[1] ** 2 * (name == name_b) + sd[0] ** 2 * (group == group_b)
            out[i, j] += sd[2] ** 2 * (group == group_b and name == name_b)
            out[i, j] += sd[3] ** 2 * (cluster == cluster_b)
    return out


def level_sds(value: dict[str, Tensor]) -> np.ndarray:
    """(level, feature)."""
    dim = value["relative"].shape[-1]
    return (value["scale"][:, None] * value["relative"] / dim**0.5).numpy()


def offset(value: dict[str, Tensor]) -> np.ndarray:
    return (value["mean_raw"] / len(value["mean_raw"]) ** 0.5).numpy()


def test_the_evidence_is_that_of_all_rows_together() -> None:
    batch, value = tasks(), scales()
    found = float(MODEL.log_evidence_together(batch, value))
    seen, sd = list(rows(batch)), level_sds(value)
    x = np.stack([r[3] for r in seen])
    expected = 0.0
    for d in range(batch.dim):
        cov = covariance(seen, seen, sd[:, d]) + sd[4, d] ** 2 * np.eye(len(seen))
        expected += multivariate_normal(np.full(len(seen), offset(value)[d]), cov).logpdf(x[:, d])
    assert found == pytest.approx(expected, rel=1e-6)


def test_what_names_share_is_drawn_from_its_exact_posterior() -> None:
    batch, value = tasks(), scales()
    many = {site: v.expand(6000, *v.shape) for site, v in value.items()}
    drawn = MODEL.pooled(batch, many, seed=0)["shared_raw"].numpy()
    seen, sd = list(rows(batch)), level_sds(value)
    x = np.stack([r[3] for r in seen])
    for d in range(batch.dim):
        cov = covariance(seen, seen, sd[:, d]) + sd[4, d] ** 2 * np.eye(len(seen))
        cross = sd[1, d] ** 2 * np.array([[name == r[1] for r in seen] for name in NAMES])
        gain = cross @ np.linalg.inv(cov)
        mean = gain @ (x[:, d] - offset(value)[d]) / sd[1, d]
        own = np.eye(3) - gain @ cross.T / sd[1, d] ** 2
        error = np.sqrt(own.diagonal() / len(drawn))
        assert (np.abs(drawn[..., d].mean(0) - mean) < 5 * error).all()
        np.testing.assert_allclose(np.cov(drawn[..., d].T), own, atol=0.05)


@pytest.mark.parametrize("shots", [0, 1, 3])
def test_labels_are_those_of_dense_normals(shots: int) -> None:
    """Of known names and of one that the population does not know, also without any support."""
    whole = tasks(ragged=False)
    changed = tuple(("new", *own[1:]) for own in whole.classes)
    batch = whole.changed(classes=changed).limit_shots(shots)
    value = scales()
    shared = torch.randn(3, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    population = {**value, "shared_raw": shared}
    found = MODEL.log_labels(batch, population)[1]
    sd, centre = level_sds(value), dict(zip(NAMES, shared.numpy(), strict=True))
    for t in range(2):
        for v in range(2):
            query = batch.query[t, v][batch.query_mask[t, v]].numpy()
            density = [
                _log_density(batch, t, name, query.mean(0), len(query), sd, value, centre)
                for name in changed[t]
            ]
            expected = np.array(density) - np.logaddexp.reduce(density)
            np.testing.assert_allclose(found[t, v].numpy(), expected, atol=1e-6)


def _log_density(batch, task, name, mean, count, sd, value, centre) -> float:
    """Of a cluster's mean row under a class, given the support of its group."""
    seen = [r for r in rows(batch) if r[0] == task]
    total = 0.0
    for d in range(batch.dim):
        s = np.array(sd[:, d])
        own = {k: offset(value)[d] + s[1] * v[d] for k, v in centre.items()}
        unknown = s[1] ** 2
        var = s[0] ** 2 + s[2] ** 2 + s[3] ** 2 + s[4] ** 2 / count
        var += unknown * (name not in own)
        m = own.get(name, offset(value)[d])
        if seen:
            # given s, equal names share nothing more than the group does
            cross = np.array([s[0] ** 2 + (s[2] ** 2) * (r[1] == name) for r in seen])
            cross += np.array([unknown * (r[1] == name and name not in own) for r in seen])
            cov = np.array([[_of_rows(a, b, s, own) for b in seen] for a in seen])
            cov += s[4] ** 2 * np.eye(len(seen))
            rest = np.array([r[3][d] - own.get(r[1], offset(value)[d]) for r in seen])
            gain = np.linalg.solve(cov, cross)
            m, var = m + gain @ rest, var - gain @ cross
        total += norm(m, var**0.5).logpdf(mean[d])
    return total


def _of_rows(a, b, s, own) -> float:
    same = a[1] == b[1]
    value = s[0] ** 2 + s[2] ** 2 * same + s[3] ** 2 * (a[2] == b[2])
    return float(value + s[1] ** 2 * (same and a[1] not in own))


def test_the_program_has_the_evidence_of_the_tasks() -> None:
    """Importance sampling of the Pyro program's latents from their exact posterior is constant."""
    batch = tasks()
    shared = torch.randn(3, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    population = {**scales(), "shared_raw": shared}
    given = Posterior("exact", {s: v[None] for s, v in population.items()}, MODEL.population_dims)
    posterior = Exact(draws=6).infer(MODEL, batch, seed=0, given=given)
    joint = potential(MODEL, batch, given)
    task_sites = {s: v for s, v in posterior.draws.items() if s in joint.blocks}
    value = joint.log_density(joint.unconstrain(task_sites))
    other = posterior_density(batch, population, task_sites)
    evidence = log_evidence(batch, MODEL.task_levels(population, batch))
    torch.testing.assert_close(value - other, evidence[:, None].expand_as(value))


def posterior_density(
    batch: EpisodeBatch, population: dict[str, Tensor], sites: dict[str, Tensor]
) -> Tensor:
    """(task, draw) exact density of each task's latents given its support, by dense algebra."""
    levels = MODEL.task_levels(population, batch)
    ways, shots, dim = batch.way, batch.support.shape[2], batch.dim
    out = torch.zeros(len(batch), len(sites["task_raw"]), dtype=torch.float64)
    for t in range(len(batch)):
        design, data = [], []
        sd_v, sd_f = levels.video.d[0].sqrt(), levels.frame.d[0].sqrt()
        for k, v, f in batch.support_mask[t].nonzero().tolist():
            for d in range(dim):
                row = torch.zeros(dim * (1 + ways + ways * shots), dtype=torch.float64)
                row[d] = levels.task.d[d].sqrt()
                row[dim * (1 + k) + d] = levels.way.d[t, k, d].sqrt()
                row[dim * (1 + ways + k * shots + v) + d] = sd_v[d]
                design.append(row / sd_f[d])
                centre = levels.offset[0, d] + levels.centre[t, k, d]
                data.append((batch.support[t, k, v, f, d] - centre) / sd_f[d])
        x, y = torch.stack(design), torch.stack(data)
        precision = torch.eye(x.shape[1], dtype=torch.float64) + x.T @ x
        mean = torch.linalg.solve(precision, x.T @ y)
        law = torch.distributions.MultivariateNormal(mean, precision_matrix=precision)
        flat = [sites[s][:, t].flatten(1) for s in ("task_raw", "class_raw", "video_raw")]
        out[t] = law.log_prob(torch.cat(flat, 1))
    return out


@pytest.mark.parametrize("engine", [SVI(steps=400, draws=400), Laplace(draws=400)])
def test_scales_and_names_are_found_again(engine: SVI | Laplace) -> None:
    """Simulated from the model: scales within their posterior, shared means near the truth."""
    value = scales()
    batch, shared = simulated(value, users=40)
    model = MODEL
    learnt = engine.infer(MarginalLikelihood(model), batch, seed=0)
    assert set(learnt.draws) == set(model.scale_dims)
    whole = with_names(model, learnt, batch, seed=0)
    assert whole.coords["class_name"] == NAMES
    sd = model.moments(whole.population, 2)
    truth = torch.from_numpy(level_sds(value))
    z = (sd["sd"].log().mean(0) - truth.log()) / sd["sd"].log().std(0)
    assert z.abs().max() < 3.5
    centre = torch.from_numpy(offset(value))
    gap = sd["label_mean"].mean(0) - (centre + truth[1] * shared)
    assert (gap.abs() < 4 * sd["label_mean"].std(0)).all()


def simulated(value: dict[str, Tensor], users: int, **sizes: int) -> tuple[EpisodeBatch, Tensor]:
    from bayesfs.diagnostics.sbc_tasks import simulate_tasks

    template = tasks(users=users, ragged=False, **sizes)
    shared = torch.randn(3, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    draws = {s: v[None] for s, v in {**value, "shared_raw": shared}.items()}
    given = Posterior("exact", draws, MODEL.population_dims)
    made = simulate_tasks(MODEL, template, population=given, seed=3)
    return made.episodes, shared


@pytest.mark.slow
def test_nuts_on_everything_together_agrees_with_the_collapsed_evidence() -> None:
    value = scales()
    batch, _ = simulated(value, users=8)
    collapsed = NUTS(warmup=200, draws=200, chains=2).infer(
        MarginalLikelihood(MODEL), batch, seed=0
    )
    found = with_names(MODEL, collapsed, batch, seed=0)
    joint = NUTS(warmup=300, draws=300, chains=2).infer(MODEL, batch, seed=0)
    assert set(MODEL.population_dims) <= set(joint.draws)
    a, b = (MODEL.moments(p.population, 2) for p in (found, joint))
    for name in ("mean", "label_mean"):
        gap = (a[name].mean(0) - b[name].mean(0)).abs() / a[name].std(0)
        assert gap.max() < 0.5
    gap = (a["sd"].log().mean(0) - b["sd"].log().mean(0)).abs() / a["sd"].log().std(0)
    assert gap.max() < 0.5


def test_exact_draws_are_calibrated() -> None:
    template = tasks(users=80, ragged=False, frames=2)
    shared = torch.randn(3, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    draws = {s: v[None] for s, v in {**scales(), "shared_raw": shared}.items()}
    given = Posterior("exact", draws, MODEL.population_dims)
    assert calibrate(MODEL, Exact(draws=64), template, population=given).p > 0.001


def test_two_classes_of_one_name_and_strange_names_are_refused() -> None:
    batch = tasks(users=1)
    twice = batch.changed(classes=(("mug", "mug", "keys")[: batch.way],))
    with pytest.raises(DataError, match="has a class name twice"):
        MODEL.log_evidence_together(twice, scales())
    with pytest.raises(DataError, match=r"classes named as the labels \('mug',\)"):
        SharedClasses(labels=("mug",)).log_evidence_together(batch, scales())


def test_a_population_of_other_names_is_refused() -> None:
    shared = torch.zeros(3, 2, dtype=torch.float64)
    with pytest.raises(DataError, match=r"a population of 0 labels \(\), got 3.*model_of"):
        SharedClasses().task_levels({**scales(), "shared_raw": shared}, tasks())


def test_an_engine_that_needs_the_population_says_so() -> None:
    with pytest.raises(InferenceError, match="given="):
        Exact().infer(MODEL, tasks(), seed=0)


def test_with_nothing_taught_other_groups_alone_answer() -> None:
    """The likelier class is the one whose shared mean is nearer."""
    batch = tasks(ragged=False).limit_shots(0)
    shared = torch.tensor([[3.0, 0.0], [0.0, 3.0], [-3.0, -3.0]], dtype=torch.float64)
    value = {**scales(), "shared_raw": shared}
    given = Posterior("exact", {s: v[None] for s, v in value.items()}, MODEL.population_dims)
    posterior = Exact(draws=8).infer(MODEL, batch, seed=0, given=given)
    answer = predict(MODEL, posterior, batch, given=given)
    levels = MODEL.task_levels(value, batch)
    mean = (batch.query * batch.query_mask[..., None]).sum(2) / batch.query_mask.sum(-1)[..., None]
    noise = levels.task.d + levels.way.d + levels.video.d[0]
    gap = mean[:, :, None] - levels.offset[0] - levels.centre[:, None]
    nearest = (gap.square() / noise[:, None]).sum(-1).argmin(-1)
    agree = (answer.video.prob.argmax(-1) == nearest).double().mean()
    assert agree > 0.8
    assert answer.absent is None


def test_uncertainty_by_level_adds_up_also_where_nothing_is_taught() -> None:
    shared = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    draws = {s: v.expand(5, *v.shape) for s, v in scales().items()} | {"shared_raw": shared}
    given = Posterior("exact", draws, MODEL.population_dims)
    for shots in (0, 2):
        batch = tasks(ragged=False).limit_shots(shots)
        parts = by_level(MODEL, given, batch, seed=0)
        posterior = Exact(draws=20, population_draws=5).infer(MODEL, batch, seed=0, given=given)
        total = decompose(predict(MODEL, posterior, batch, given=given), batch)["video_total"]
        together = sum(parts[f"video_{part}"] for part in told_apart(parts))
        np.testing.assert_allclose(together, total, atol=1e-6)
        # five values of what names share differ, and nothing else of the population does
        assert float(parts["video_shared"].mean()) > 0.01


def learnt_population(draws: int, *, spread: float) -> tuple[Posterior, EpisodeBatch]:
    """Of three tasks, at scales that differ by a factor of exp(spread z), or are all the same."""
    batch = tasks(users=3, ragged=False)
    generator = torch.Generator().manual_seed(11)
    z = torch.randn(draws, generator=generator, dtype=torch.float64)
    given = {s: v.expand(draws, *v.shape) for s, v in scales().items()}
    given["scale"] = given["scale"] * (spread * z).exp()[:, None]
    dims = MODEL.scale_dims
    return with_names(MODEL, Posterior("variational", given, dims), batch, seed=4), batch


def test_what_names_share_is_a_level_of_its_own() -> None:
    """At fixed scales all that the population leaves open is what names share, by its definition.

    I(y; s | theta) is the entropy of the mean over very many draws of s, less the mean entropy.
    """
    given, batch = learnt_population(800, spread=1e-9)
    few = by_level(MODEL, given, batch.limit_shots(0), population_draws=128, seed=0)
    fixed = {s: given.draws[s][:1].expand_as(given.draws[s]) for s in MODEL.scale_dims}
    once = Posterior("variational", {**given.draws, **fixed}, given.dims)
    many = by_level(MODEL, once, batch.limit_shots(0), population_draws=800, seed=0)
    wanted, found = float(many["video_shared"].mean()), float(few["video_shared"].mean())
    assert wanted > 0.05
    error = float(few["video_shared_mean_se"])
    assert abs(found - wanted) < 4 * error
    assert abs(float(few["video_population"].mean())) < 4 * error
    assert error < 0.3 * wanted


def test_levels_are_learnt_from_what_is_taught_and_from_more_groups() -> None:
    given, batch = learnt_population(64, spread=0.3)
    parts = [by_level(MODEL, given, batch.limit_shots(n), seed=0) for n in (0, 3)]
    means = [{p: float(one[f"video_{p}"].mean()) for p in told_apart(one)} for one in parts]
    assert list(means[0]) == [*ALL_PARTS]
    assert means[1]["shared"] < means[0]["shared"]
    assert means[1]["class"] < means[0]["class"]
    many = Posterior("variational", given.population, given.dims)  # no draws again: one level
    assert "video_shared" not in by_level(MODEL, many, batch, seed=0)


class TestSharedClasses(ModelContract):
    """With names that the population knows and names that it does not."""

    repetition_gain = 0.06

    def make_model(self) -> SharedClasses:
        return SharedClasses(labels=("object 0", "object 2", "keys"))


def test_draws_of_a_task_are_no_draws_of_what_names_share() -> None:
    """A population whose draws are repeated as a whole says nothing about a level of its own."""
    given, batch = learnt_population(8, spread=0.3)
    posterior = Exact(draws=16, population_draws=4).infer(MODEL, batch, seed=0, given=given)
    assert "video_shared" not in by_level(MODEL, posterior, batch, seed=0)
