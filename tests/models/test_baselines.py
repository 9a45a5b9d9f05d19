import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from bayesfs.data.from_arrays import make_episode, stack
from bayesfs.data.sampling import population_episodes
from bayesfs.errors import InferenceError, ShapeError
from bayesfs.models.baselines.classifiers import (
    HeadEnsemble,
    Logistic,
    Mahalanobis,
    NearestNeighbour,
    Prototypes,
    fit_temperature,
    standard_baselines,
)
from bayesfs.models.baselines.point_classifiers import mahalanobis_logits
from bayesfs.synthetic.tasks import synthetic_embeddings, synthetic_episodes
from bayesfs.synthetic.truth import Population

EVERY = list(standard_baselines().values())
EVERY = [replace(b, steps=40) if isinstance(b, HeadEnsemble) else b for b in EVERY]
every = pytest.mark.parametrize("baseline", EVERY, ids=list(standard_baselines()))


def draw(*, users=4, ragged=True, seed=0, **kwargs):
    p = Population.isotropic(6, class_scale=0.8, dtype=torch.float64)
    return synthetic_episodes(
        p, users=users, way=4, shots=3, frames=3, ragged=ragged, seed=seed, **kwargs
    )[0]


def support_rows(episodes, task):
    mask = episodes.support_mask[task]
    y = torch.arange(episodes.way)[:, None, None].expand_as(mask)[mask]
    return episodes.support[task][mask].numpy(), y.numpy()


def predicted(baseline, episodes, task):
    mask = episodes.query_mask[task]
    return baseline.logits(episodes)[:, task][:, mask].mean(0).argmax(-1).numpy()


def reference(baseline):
    return {
        Prototypes(): NearestCentroid(),
        Prototypes(metric="cosine"): "cosine",
        NearestNeighbour(): KNeighborsClassifier(1, metric="cosine"),
        NearestNeighbour(metric="euclidean"): KNeighborsClassifier(1),
        Logistic(): LogisticRegression(),
    }[baseline]


@pytest.mark.parametrize(
    "baseline",
    [Prototypes(), NearestNeighbour(), NearestNeighbour(metric="euclidean"), Logistic()],
)
def test_decisions_are_those_of_scikit_learn(baseline):
    episodes = draw(seed=1)
    for task in range(len(episodes)):
        x, y = support_rows(episodes, task)
        peer = reference(baseline).fit(x, y)
        query = episodes.query[task][episodes.query_mask[task]].numpy()
        np.testing.assert_array_equal(predicted(baseline, episodes, task), peer.predict(query))


def test_logistic_probabilities_are_those_of_scikit_learn():
    episodes = draw(users=12, seed=2)
    assert 2 in episodes.way_mask.sum(-1)
    for task in range(len(episodes)):
        peer = LogisticRegression(max_iter=1000).fit(*support_rows(episodes, task))
        mask = episodes.query_mask[task]
        expected = peer.predict_log_proba(episodes.query[task][mask].numpy())
        got = Logistic().predictive(episodes).frame.log_prob[task][mask][:, : expected.shape[1]]
        np.testing.assert_allclose(got, expected, atol=1e-9)


def test_cosine_prototypes_by_hand():
    episodes = draw(users=1, ragged=False)
    x, y = support_rows(episodes, 0)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    means = np.stack([unit[y == k].mean(0) for k in range(4)])
    query = episodes.query[0, 3, 1].numpy()
    expected = means @ query / np.linalg.norm(means, axis=1) / np.linalg.norm(query)
    got = Prototypes(metric="cosine").logits(episodes)[0, 0, 3, 1]
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_mahalanobis_is_its_formula_and_both_routes_agree():
    episodes = draw(seed=3)
    for task in range(len(episodes)):
        x, y = support_rows(episodes, task)
        whole = np.cov(x.T)
        query = episodes.query[task][episodes.query_mask[task]].numpy()
        for k in np.unique(y):
            own = x[y == k]
            n = len(own)
            within = np.cov(own.T) if n > 1 else np.zeros_like(whole)
            q = n / (n + 1) * within + whole / (n + 1) + 0.7 * np.eye(len(whole))
            gap = query - own.mean(0)
            expected = -0.5 * np.einsum("nd,nd->n", gap, np.linalg.solve(q, gap.T).T)
            for dense in (True, False, None):
                logits = mahalanobis_logits(episodes, ridge=0.7, dense=dense)
                got = logits[task][episodes.query_mask[task]][:, k]
                np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@every
def test_predictive_is_a_distribution_over_the_classes_that_exist(baseline):
    episodes = draw(seed=4)
    out = baseline.predictive(episodes)
    members = baseline.members if isinstance(baseline, HeadEnsemble) else 1
    t, v, f = episodes.query_mask.shape
    assert out.frame.log_prob_given.shape == (members, t, v, f, episodes.way)
    assert out.video.log_prob_given.shape == (members, t, v, episodes.way)
    for draws, padded in (
        (out.frame, ~episodes.way_mask[:, None, None]),
        (out.video, ~episodes.way_mask[:, None]),
    ):
        assert not draws.log_prob_given.isnan().any()
        assert torch.allclose(draws.prob.sum(-1), torch.ones(()).double())
        assert (draws.prob[padded.expand_as(draws.prob)] == 0).all()
        assert torch.allclose(draws.log_weight.logsumexp(0), torch.zeros(()).double())
        mixed = (draws.log_weight[..., None] + draws.log_prob_given).logsumexp(0)
        assert torch.allclose(mixed, draws.log_prob)
    assert out.absent is None


@every
def test_padding_changes_nothing(baseline):
    alone = [draw(users=1, ragged=True, seed=s) for s in (5, 6)]
    big = synthetic_episodes(
        Population.isotropic(6, dtype=torch.float64), users=1, way=6, shots=5, frames=5, seed=9
    )[0]
    padded = baseline.predictive(stack([*alone, big]))
    for task, episodes in enumerate(alone):
        own = baseline.predictive(episodes)
        _, v, f = episodes.query_mask.shape
        got = padded.frame.prob[task, :v, :f, : episodes.way]
        mask = episodes.query_mask[0]
        assert torch.allclose(own.frame.prob[0][mask], got[mask], atol=1e-6)
        shown = episodes.video_mask[0]
        got = padded.video.prob[task, :v, : episodes.way]
        assert torch.allclose(own.video.prob[0][shown], got[shown], atol=1e-6)


@every
def test_permuting_classes_permutes_the_result(baseline):
    episodes = draw(ragged=False, seed=7)
    order = [2, 0, 3, 1]
    a = baseline.predictive(episodes)
    b = baseline.predictive(episodes.permute_classes(order))
    assert torch.allclose(a.frame.prob[..., order], b.frame.prob, atol=1e-6)
    assert torch.allclose(a.video.prob[..., order], b.video.prob, atol=1e-6)


@every
def test_query_labels_are_not_used(baseline):
    episodes = draw(seed=8)
    shuffled = replace(episodes, query_labels=torch.full_like(episodes.query_labels, -1))
    a, b = baseline.predictive(episodes), baseline.predictive(shuffled)
    assert torch.equal(a.frame.log_prob, b.frame.log_prob)
    assert torch.equal(a.video.log_prob, b.video.log_prob)


@every
def test_temperatures_minimise_the_train_score(baseline):
    train = draw(users=6, seed=10)
    fitted = fit_temperature(baseline, train)
    assert type(fitted) is type(baseline)
    labels = train.query_labels
    frames = train.query_mask & (labels >= 0)[..., None]

    def nll(frame, video):
        out = baseline.with_temperatures(frame, video).predictive(train)
        per_frame = out.frame.log_prob.gather(
            -1, labels.clamp(min=0)[..., None, None].expand(*frames.shape, 1)
        )[..., 0][frames]
        per_video = out.video.log_prob.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        return -per_frame.mean().item(), -per_video[labels >= 0].mean().item()

    best = nll(fitted.frame_temperature, fitted.video_temperature)
    for factor in (0.8, 0.95, 1.05, 1.25):
        other = nll(fitted.frame_temperature * factor, fitted.video_temperature)
        assert other[0] >= best[0] - 1e-6
        other = nll(fitted.frame_temperature, fitted.video_temperature * factor)
        assert other[1] >= best[1] - 1e-6
    # the frame temperature by another optimiser
    found = minimize(lambda s: nll(math.exp(s[0]), 1.0)[0], [0.0], method="Nelder-Mead")
    assert best[0] == pytest.approx(found.fun, abs=1e-4)


def test_temperatures_come_from_train_users_only():
    emb, _ = synthetic_embeddings(users=4, test_users=3, seed=11)
    from bayesfs.data.sampling import sample_episodes

    train = sample_episodes(emb.where(split="train"), seed=0)
    test = sample_episodes(emb.where(split="test"), seed=0)
    fitted = fit_temperature(Prototypes(), train)
    before = fitted.predictive(test).frame.log_prob
    spoilt = replace(test, query_labels=(test.query_labels + 1) % test.way)
    assert torch.equal(before, fitted.predictive(spoilt).frame.log_prob)
    moved = emb.features.copy()
    moved[emb.coord("split") == "test"] *= 9
    again = fit_temperature(
        Prototypes(), sample_episodes(emb.with_features(moved).where(split="train"), seed=0)
    )
    assert again == fitted
    assert Prototypes().frame_temperature == 1.0


def test_a_video_averages_its_frames():
    episodes = draw(ragged=True, seed=12)
    out = Prototypes(video_temperature=0.5).predictive(episodes)
    task, video = 1, int(episodes.video_mask[1].nonzero()[0])
    shown = out.frame.prob[task, video][episodes.query_mask[task, video]]
    squared = shown.mean(0) ** 2
    assert torch.allclose(out.video.prob[task, video], squared / squared.sum())


def test_repeating_a_video_s_frames_leaves_its_probability():
    episodes = draw(ragged=False, seed=13)
    twice = replace(
        episodes,
        query=torch.cat([episodes.query, episodes.query], 2),
        query_mask=torch.cat([episodes.query_mask, episodes.query_mask], 2),
    )
    for baseline in (Prototypes(), Mahalanobis()):
        a, b = baseline.predictive(episodes), baseline.predictive(twice)
        assert torch.allclose(a.video.prob, b.video.prob)


def test_ensemble_members_differ_and_the_seed_decides():
    episodes = draw(seed=14)
    a, b, c = (HeadEnsemble(steps=30, seed=s).logits(episodes) for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)
    valid = ~a[0].isinf()
    assert (a.std(0)[valid] > 1e-4).all()


def test_one_class_is_certain_and_temperatures_need_labels():
    one = make_episode(torch.randn(3, 2), ["a"] * 3, None, torch.randn(2, 2), None, ["a", "a"])
    for baseline in EVERY:
        assert torch.equal(baseline.predictive(one).frame.prob, torch.ones(1, 2, 1, 1))
        with pytest.raises(InferenceError, match="two classes"):
            fit_temperature(baseline, one)
    emb, _ = synthetic_embeddings(users=2)
    with pytest.raises(InferenceError, match="population_episodes"):
        fit_temperature(Prototypes(), population_episodes(emb))
    with pytest.raises(ShapeError, match="frame_temperature: expected between 0 and inf, got 0"):
        Prototypes(frame_temperature=0.0)
