"""The expected gain of one more video against simulation by another route, and its order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bayesfs.errors import InferenceError
from bayesfs.inference.exact import Exact
from bayesfs.models.gaussian.conjugate import condition_classes
from bayesfs.models.gaussian.covariance import Diagonal
from bayesfs.models.gaussian.families import PerFeature
from bayesfs.models.gaussian.further_round import logits_after_round
from bayesfs.models.gaussian.further_video import Asked, NewVideo, logits_after
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.labels import Queries, log_labels_of, taught_prior
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.types import Posterior
from bayesfs.uncertainty.information_gain import (
    RoundGain,
    expected_gain,
    gain_by_video,
    gain_of_round,
)

DIM = 6
MODEL = GaussianHierarchy(PerFeature())


def tasks(**options):
    truth = Population.isotropic(DIM, offset=0.0, dtype=torch.float64)
    settings = {"users": 6, "way": 3, "shots": 4, "query_videos": 4, "seed": 0}
    return synthetic_episodes(truth, **(settings | options))[0]


def known_population() -> Posterior:
    scale = torch.tensor([0.5, 1.0, 0.4, 0.6, 0.4, 0.6], dtype=torch.float64) * DIM**0.5
    draws = {
        "offset_raw": torch.zeros(1, 2, DIM, dtype=torch.float64),
        "loading": torch.ones(1, dtype=torch.float64),
        "absent_odds": torch.full((1,), -3.0, dtype=torch.float64),
        "scale": scale[None],
        "relative": torch.ones(1, 6, DIM, dtype=torch.float64),
    }
    return Posterior("exact", draws, dict(MODEL.population_dims))


def with_video(batch, way, video):
    """The tasks with one more clean video (task, frame, feature) of one class."""
    support = torch.cat([batch.support, torch.zeros_like(batch.support[:, :, :1])], 2)
    mask = torch.cat([batch.support_mask, torch.zeros_like(batch.support_mask[:, :, :1])], 2)
    clean = torch.zeros_like(batch.support_condition[:, :, :1])
    support[:, way, -1], mask[:, way, -1] = video, True
    condition = torch.cat([batch.support_condition, clean], 2)
    return replace(
        batch,
        support=support,
        support_mask=mask,
        support_condition=condition,
        support_quality=None,
        support_frame=None,
    )


def keep_shots(batch, shots):
    """Class k keeps shots[k] videos."""
    mask = batch.support_mask.clone()
    for way, count in enumerate(shots):
        mask[:, way, count:] = False
    return replace(batch, support=batch.support * mask[..., None], support_mask=mask)


def drawn_after_teaching(batch, way, draws, seed):
    """Queries and one more video of a class, from p(., . | support); label of each query.

    Returns:
        The tasks with `draws` query videos of one frame, their labels, and the tasks' further
        video of each draw, (draw, task, frame, feature).
    """
    rng, frames = np.random.default_rng(seed), 8
    posterior = Exact(draws=draws).infer(MODEL, batch, seed=seed, given=known_population())
    mean = MODEL.class_means(posterior.draws, batch)  # (draw, task, way, feature)
    label = torch.from_numpy(rng.integers(0, batch.way, (len(batch), draws)))
    asked = mean.gather(2, label.T[..., None, None].expand(-1, -1, 1, DIM))[:, :, 0]
    sd = (0.6**2 + 0.6**2) ** 0.5  # one frame, in clutter
    query = (asked + sd * torch.from_numpy(rng.normal(size=asked.shape))).transpose(0, 1)
    sd = (0.4**2 + 0.4**2 / frames) ** 0.5
    centre = mean[:, :, way] + sd * torch.from_numpy(rng.normal(size=asked.shape))
    scatter = torch.from_numpy(0.4 * rng.normal(size=(draws, len(batch), frames, DIM)))
    video = centre[:, :, None] + scatter - scatter.mean(2, keepdim=True)
    shape = (len(batch), draws)
    asked_of = replace(
        batch,
        query=query[:, :, None],
        query_mask=torch.ones(*shape, 1, dtype=torch.bool),
        query_condition=torch.ones(shape, dtype=torch.long),
        query_labels=label,
        query_frame=None,
        videos=(),
    )
    return asked_of, video


def only_query(asked, number):
    """The tasks with one of their query videos."""
    one = slice(number, number + 1)
    names = ("query", "query_mask", "query_condition", "query_labels")
    return replace(
        asked, query_quality=None, **{name: getattr(asked, name)[:, one] for name in names}
    )


def log_loss(asked):
    """(task,) log loss of each task's one query video."""
    value = {site: v[0] for site, v in known_population().draws.items()}
    law = MODEL.log_labels(asked, value)[1][:, 0]
    return -law.gather(-1, asked.query_labels)[:, 0]


@pytest.mark.parametrize("way", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_gain_is_the_fall_of_the_log_loss_by_videos_drawn_by_hand(way: int) -> None:
    batch, draws = keep_shots(tasks(users=3), (1, 2, 1)), 600
    asked, video = drawn_after_teaching(batch, way, draws, seed=3)
    gain = gain_by_video(MODEL, known_population(), asked, simulated_videos=32, seed=0)[..., way]
    falls = []
    for i in range(draws):
        one = only_query(asked, i)
        falls.append(log_loss(one) - log_loss(with_video(one, way, video[i])))
    fall = torch.stack(falls, 1)  # (task, draw)
    error = float((fall - gain).std()) / fall.numel() ** 0.5
    assert float(gain.mean()) > 3 * error  # so that no gain at all would be told from it
    assert abs(float((fall - gain).mean())) < 3 * error
    slope = float((gain * fall).sum() / gain.square().sum())
    assert 0.7 < slope < 1.4


def test_the_closed_form_is_what_teaching_one_more_video_gives() -> None:
    """Of a video that is drawn, the label law is that of the tasks with it in their support."""
    batch = keep_shots(tasks(users=2), (1, 2, 1))
    value = {site: v[0] for site, v in known_population().draws.items()}
    levels = MODEL.levels(value, DIM)
    post = condition_classes(batch, levels)
    x = torch.randn(2, 3, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    film = torch.randn(1, 2, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    moved = torch.zeros(1, 2, 3, DIM, dtype=torch.float64)
    new = NewVideo.of(levels, 0, 8)
    asked = Asked(x - levels.offset[1], levels.loading[1], levels.video[1] + levels.frame[1])
    got = logits_after(post, asked, new, 1, moved, film).log_softmax(-1)[0]
    centre = (new.offset + new.loading * post.mean[:, 1] + film[0])[:, None]
    scatter = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]
    grown = with_video(batch, 1, centre + scatter)
    whole = replace(
        grown,
        query=x[:, :, None],
        query_mask=torch.ones(2, 3, 1, dtype=torch.bool),
        query_condition=torch.ones(2, 3, dtype=torch.long),
        query_labels=torch.zeros(2, 3, dtype=torch.long),
        query_frame=None,
        videos=(),
    )
    torch.testing.assert_close(got, MODEL.log_labels(whole, value)[1])


def test_the_closed_form_of_a_round_is_what_teaching_all_of_it_gives() -> None:
    """Of videos of two classes, in either condition, with class means that names share."""
    batch = keep_shots(tasks(users=2), (1, 2, 1))
    value = {site: v[0] for site, v in known_population().draws.items()}
    rng = torch.Generator().manual_seed(0)
    x, centre, film, moved = (
        torch.randn(*shape, DIM, dtype=torch.float64, generator=rng)
        for shape in ((2, 5), (2, 3), (1, 2, 3), (1, 2, 5, 3))
    )
    levels = replace(MODEL.levels(value, DIM), centre=centre)
    post, grown, known = condition_classes(batch, levels), batch, []
    for way, q, frames in ((0, 0, 8), (2, 1, 8), (2, 0, 8)):
        new = NewVideo.of(levels, q, frames)
        mean = new.offset + new.loading * (
            post.mean[:, way] + moved[0, :, 0, way] + film[0, :, way]
        )
        scatter = torch.linspace(-1, 1, frames, dtype=torch.float64)[:, None]
        grown = with_video(grown, way, mean[:, None] + scatter)
        grown.support_condition[:, way, -1] = q
        known.append(new.noise.inverse().scaled(new.loading**2))
    none = known[0].scaled(torch.zeros(2, dtype=torch.float64)).d
    precision = Diagonal(torch.stack([known[0].d + none, none, known[1].d + known[2].d + none], 1))
    noise = levels.video[1] + levels.frame[1]
    asked = Asked(x - levels.offset[1], levels.loading[1], noise)
    same = moved[:, :, :1].expand_as(moved)
    got = logits_after_round(
        post, levels, asked, lambda k: same[..., k, :], (precision, precision.apply(film))
    )
    law = log_labels_of(
        condition_classes(grown, levels),
        levels,
        Queries(x, torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5), x[:, :1]),
        taught_prior(batch),
    )
    torch.testing.assert_close(got.log_softmax(-1)[0], law)


def test_a_round_of_one_video_gains_what_one_video_does_and_a_whole_round_more() -> None:
    batch, draws = keep_shots(tasks(users=8), (1, 2, 1)), 64
    single = gain_by_video(MODEL, known_population(), batch, simulated_videos=draws, seed=0)
    alone = torch.zeros(8, 3, 2)
    alone[:, 0, 0] = 1
    options = {"simulated_videos": draws, "seed": 1}
    one = gain_of_round(MODEL, known_population(), batch, alone, **options)
    one = one.mean
    error = float((one - single[..., 0]).std()) / one.numel() ** 0.5
    assert abs(float((one - single[..., 0]).mean())) < 3 * error
    assert error < 0.1 * float(one.mean())
    whole = torch.zeros(8, 3, 2)
    whole[..., 0] = 1
    gain = gain_of_round(MODEL, known_population(), batch, whole, **options).mean
    assert float(gain.mean()) > 1.2 * float(single.mean(1).amax(-1).mean())
    nothing = gain_of_round(MODEL, known_population(), batch, 0 * whole, **options)
    assert float(nothing.at_most().abs().max()) < 1e-6


def test_a_round_takes_off_more_than_was_said_of_no_more_than_a_tenth() -> None:
    """One video of every object more, of tasks drawn from the model: the bound, and the mean."""
    many = tasks(users=100, shots=3, query_videos=9)
    value = {site: v[0] for site, v in known_population().draws.items()}
    before, after = keep_shots(many, (2, 2, 2)), keep_shots(many, (3, 3, 3))
    count = torch.zeros(100, 3, 2)
    count[..., 0] = 1
    gain = gain_of_round(MODEL, known_population(), before, count, simulated_videos=8, seed=0)

    def loss(batch):
        frame, video = MODEL.log_labels(batch, value)
        label = batch.query_labels[..., None]
        by_frame = -frame.gather(-1, label[..., None].expand(*frame.shape[:3], 1))[..., 0].mean(2)
        return 0.5 * (by_frame - video.gather(-1, label)[..., 0]).mean(1)

    fall = loss(before) - loss(after)
    error = float(fall.std()) / len(fall) ** 0.5
    assert abs(float((fall - gain.mean.mean(1)).mean())) < 3 * error
    assert float((fall <= gain.at_most()).double().mean()) >= 0.9


def test_queries_of_one_object_fall_together_and_those_of_others_by_themselves() -> None:
    nan = torch.nan
    mean, sd = torch.tensor([[0.1, 0.2, nan]] * 2), torch.tensor([[0.3, 0.4, nan]] * 2)
    gain = RoundGain(mean, sd, torch.tensor([[1, 1, -1], [0, 1, -1]]))
    expected = torch.tensor([0.15 + 1.2816 * 0.35, 0.15 + 1.2816 * 0.25])
    torch.testing.assert_close(gain.at_most(0.9), expected, atol=1e-4, rtol=0)


def test_the_object_with_fewest_videos_gains_most() -> None:
    batch = keep_shots(tasks(users=24), (1, 4, 4))
    gain = expected_gain(MODEL, known_population(), batch, simulated_videos=16, seed=0)
    assert (gain.argmax(-1) == 0).float().mean() > 0.8
    assert float(gain[:, 0].mean()) > 2 * float(gain[:, 1:].mean())


def test_what_is_known_already_gains_nothing() -> None:
    many = tasks(users=4, shots=40)
    gain = expected_gain(MODEL, known_population(), many, simulated_videos=32, seed=0)
    few = expected_gain(MODEL, known_population(), many.limit_shots(1), simulated_videos=32, seed=0)
    assert float(gain.abs().mean()) < 0.15 * float(few.mean())


def test_padded_classes_have_no_gain() -> None:
    truth = Population.isotropic(DIM, offset=0.0, quality_slope=(0.3,), dtype=torch.float64)
    batch, _ = synthetic_episodes(truth, users=3, way=4, ragged=True, seed=2)
    model = GaussianHierarchy(PerFeature(), covariates=("blur",))
    population = known_population()
    draws = {**population.draws, "quality_slope": torch.full((1, 2, 1), 0.3, dtype=torch.float64)}
    wide = Posterior("exact", draws, dict(model.population_dims))
    gain = expected_gain(model, wide, batch, simulated_videos=2, seed=0)
    assert (gain.isnan() == ~batch.way_mask).all()


def test_unknown_conditions_and_models_are_refused() -> None:
    with pytest.raises(InferenceError, match="expected condition to be one of"):
        expected_gain(MODEL, known_population(), tasks(), condition="dark", seed=0)
    with pytest.raises(InferenceError, match="labels_after_video, got object"):
        expected_gain(object(), known_population(), tasks(), seed=0)  # type: ignore[arg-type]
    with pytest.raises(
        InferenceError, match=r"expected count \(task, way, condition\) = \(6, 3, 2\)"
    ):
        gain_of_round(MODEL, known_population(), tasks(), torch.ones(3, 2), seed=0)
