"""Causes tested by filming again: the same moment with one defect, and without it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr

from bayesfs.data.sampling import sample_episodes
from bayesfs.explanation.advice import COSTLY
from bayesfs.explanation.explain import evident_cost
from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0
from bayesfs.features.quality import COVARIATES, SLOPES, quality
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.prediction import thinned
from bayesfs.protocols import Backbone
from bayesfs.study import Learnt
from bayesfs.synthetic.videos.objects import make_thing, user_things
from bayesfs.synthetic.videos.refilm import DEFECTS, refilm
from bayesfs.synthetic.videos.render import SETTINGS
from bayesfs.types import Embeddings, EpisodeBatch
from bayesfs.uncertainty.by_quality import REACH, by_cause
from bayesfs.uncertainty.decompose import decompose_draws
from uncertainty_parts.bench import Bench, Found

GOOD = "good"


@dataclass(frozen=True)
class Moments:
    """Frames of the same moments, well filmed and with each defect.

    Attributes:
        features: (frame, input feature) of the backbone.
        measured: (frame, covariate) quality.
        user: (frame,) whose object it is.
        thing: (frame,) its name.
        defect: (frame,) kind, "good" first; the same ones in the same order for every moment.
        mended: kind -> cause -> the kind of the frame without that; the first one where another
            cause is named.
    """

    features: NDArray[np.float32]
    measured: NDArray[np.float32]
    user: NDArray[np.str_]
    thing: NDArray[np.str_]
    defect: NDArray[np.str_]
    mended: Mapping[str, Mapping[str, str]]


def filmed_again(tree: Path, users: Sequence[int], moments: int, backbone: Backbone) -> Moments:
    """Moments of the objects of a rendered tree's users, in clutter.

    Args:
        tree: made by `render_tree`.
        users: their numbers in the tree, from 0.
        moments: of each object.
        backbone: that the tree's store was made with.
    """
    made = json.loads((tree / SETTINGS).read_text(encoding="utf-8"))
    seed = made["seed"]
    strangers = [make_thing(np.random.default_rng([seed, 1, i])) for i in range(24)]
    rows, images = [], []
    for user in users:
        mine = user_things(np.random.default_rng([seed, 0, user]), made["objects"])
        for index, thing in enumerate(mine):
            others = (*strangers, *[t for t in mine if t is not thing][:2])
            own = (seed, 9, user, index)
            for moment in refilm(thing, others, "clutter", moments, made["size"], own):
                for defect, image in {GOOD: moment.good, **moment.spoilt}.items():
                    rows.append((f"P{user + 1:03d}", thing.name, defect))
                    images.append(_resized(image, backbone.px))
    whole = np.stack(images)
    features = np.concatenate([backbone(whole[i : i + 64]) for i in range(0, len(whole), 64)])
    columns = (np.array(column) for column in zip(*rows, strict=True))
    return Moments(features, quality(whole), *columns, {name: {name: GOOD} for name in DEFECTS})


def _resized(image: NDArray[np.uint8], px: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((px, px), Image.Resampling.BILINEAR))


def embedded(moments: Moments) -> Embeddings:
    """Every frame as a cluttered video of its own, "NUMBER DEFECT"."""
    video = [f"{i:05d} {defect}" for i, defect in enumerate(moments.defect)]
    return Embeddings.from_arrays(
        moments.features,
        object=moments.thing,
        video=video,
        user=moments.user,
        condition="clutter",
        split="test",
        quality={c: moments.measured[:, j] for j, c in enumerate(COVARIATES)},
    )


@dataclass(frozen=True)
class Seen:
    """What is said of every frame, in the order of the moments' frames.

    Attributes:
        nll: of its label, in nats.
        aleatoric: nats.
        right: whether the likeliest label is.
        cost: (frame, cause) nats that mending would take off, as predicted.
        measured: (frame, covariate) standardised quality.
    """

    nll: NDArray[np.float64]
    aleatoric: NDArray[np.float64]
    right: NDArray[np.bool_]
    cost: NDArray[np.float64]
    measured: NDArray[np.float64]


def seen(model: GaussianHierarchy, learnt: Learnt, tasks: EpisodeBatch, draws: int) -> Seen:
    """Predictions of single frames, put into order by their videos' names."""
    values = thinned(learnt.population, 4)
    with torch.no_grad():
        labels = model.predictive(tasks, values, draws=draws, seed=0).frame
    label = tasks.query_labels[..., None, None].clamp(min=0)
    nll = -labels.log_prob.gather(-1, label.expand(*labels.log_prob.shape[:3], 1))
    causes = by_cause(model, learnt.population, tasks, draws=draws, seed=0)
    assert tasks.query_quality is not None
    found = (
        nll[..., 0, 0],
        decompose_draws(labels)[1][..., 0],
        labels.log_prob[:, :, 0].argmax(-1) == tasks.query_labels,
        torch.from_numpy(causes["frame_cause"].values[:, :, 0]),
        tasks.query_quality[:, :, 0],
    )
    order = np.argsort([int(name.split()[0]) for names in tasks.videos for name in names])
    mask = tasks.video_mask
    return Seen(*(value[mask].numpy()[order] for value in found))


def row_13(bench: Bench, tree: Path, *, users: int, moments: int) -> Found:
    """Frames of test users filmed again without their defect: does doubt fall as predicted?"""
    made = json.loads((tree / SETTINGS).read_text(encoding="utf-8"))
    first = made["train_users"] + made["validation_users"]
    again = filmed_again(tree, range(first, first + users), moments, EfficientNetLite0())
    return caused(bench, again, moments, "cause")


def caused(bench: Bench, again: Moments, moments: int, name: str) -> Found:
    """Three clean videos of each object are taught, the moments are asked: `falls` of what is said.

    Args:
        bench: people whose test users' moments these are.
        again: the moments.
        moments: of each object.
        name: what the figures' names begin with.
    """
    covariates = tuple(str(c) for c in bench.data.dataset["covariate"].values)
    lesson = {"train_shots": (2,), "train_query_frames": 3, "frames_per_video": 4}
    study = bench.study(bench.held_out(**lesson))
    if not isinstance(study.model, GaussianHierarchy):
        return {}
    noisier = {"covariates": covariates, "slope_sd": 0.25, "slope_mean": SLOPES}
    study = replace(study, model=replace(study.model, **noisier))
    learnt = study.learn(bench.data, seed=0)
    model = study.model_of(learnt)
    assert isinstance(model, GaussianHierarchy)
    users = sorted(set(again.user.tolist()))
    taught = bench.data.where(user=users, condition="clean")
    both = learnt.projection(join_videos(taught, embedded(again)))
    tasks = study.placed(sample_episodes(both, shots=3, frames_per_video=6, seed=0))
    found = falls(seen(model, learnt, tasks, bench.draws), again, moments)
    return {f"{name}_{figure}": value for figure, value in found.items()}


def join_videos(taught: Embeddings, asked: Embeddings) -> Embeddings:
    """Both, with the coordinates that both have."""
    parts = []
    for one in (taught.dataset, asked.dataset):
        coords = {c: (one[c].dims, one[c].values) for c in asked.dataset.coords}
        values = {v: (one[v].dims, one[v].values) for v in ("features", "quality")}
        parts.append(xr.Dataset(values, coords=coords))
    return Embeddings.of_own(xr.concat(parts, "frame", join="override"))


def falls(said: Seen, again: Moments, moments: int) -> Found:
    """Predicted and realised fall by mending each defect, averaged over an object's moments."""
    kinds = 1 + len(again.mended)
    defect = again.defect[:kinds].tolist()
    shape = (-1, moments, kinds)
    nll, aleatoric = (v.reshape(shape).mean(1) for v in (said.nll, said.aleatoric))
    right = said.right.reshape(shape).mean(1)
    measured = said.measured.reshape(*shape, said.measured.shape[-1]).mean(1)
    cost = said.cost.reshape(*shape, said.cost.shape[-1]).mean(1)
    causes = list(REACH)
    print(
        "defect            named as it (as another)  predicted  aleatoric    NLL   accuracy, mended"
    )
    pairs, apart = [], []
    rows = np.arange(len(cost))
    for k, kind in enumerate(defect[1:], start=1):
        without = again.mended[kind]
        costs = [
            evident_cost(COVARIATES, q, dict(zip(causes, c.tolist(), strict=True)))
            for q, c in zip(measured[:, k], cost[:, k], strict=True)
        ]
        named = [next(iter(c), "") for c in costs]
        nats = [next(iter(c.values()), 0.0) for c in costs]
        told = np.array(nats) >= COSTLY
        own = told & np.isin(named, list(without))
        any_of = next(iter(without.values()))
        better = np.array([defect.index(without.get(name, any_of)) for name in named])
        real = aleatoric[:, k] - aleatoric[rows, better], nll[:, k] - nll[rows, better]
        print(
            f"{kind:18}{own.mean():6.2f} ({(told & ~own).mean():.2f})           "
            f"{np.mean(nats):9.3f}{real[0].mean():11.3f}{real[1].mean():7.3f}"
            f"{right[:, k].mean():8.3f} {right[rows, better].mean():.3f}"
        )
        part = np.stack([nats, *real, told], 1)
        (pairs if set(without) <= set(REACH) else apart).append(part)
    each, others = np.concatenate(pairs), np.concatenate(apart)
    said_so = each[:, 3] > 0
    ratio = float(np.median(each[said_so, 0] / each[said_so, 1].clip(1e-6)))
    surprise = float(spearmanr(each[:, 0], each[:, 2]).statistic)
    print(f"predicted over realised fall, median where a cause is named: {ratio:.2f}")
    print(f"Spearman of predicted fall with that of the NLL: {surprise:.3f}; sign right in")
    print(
        f"  {(each[said_so, 2] > 0).mean():.3f}; named where the defect is not measured: ", end=""
    )
    print(f"{others[:, 3].mean():.3f}")
    return {
        "spearman": float(spearmanr(each[:, 0], each[:, 1]).statistic),
        "sign": float((each[said_so, 1] > 0).mean()),
        "size": ratio,
    }
