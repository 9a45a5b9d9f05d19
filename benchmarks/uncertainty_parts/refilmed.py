"""Causes tested by filming again: the same moment with one defect, and without it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr

from bayesfs.explanation.advice import COSTLY
from bayesfs.explanation.explain import EVIDENCE, causes_of
from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0
from bayesfs.features.quality import COVARIATES, quality
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.prediction import thinned
from bayesfs.protocols import Backbone
from bayesfs.study import Learnt
from bayesfs.synthetic.videos.objects import make_thing, user_things
from bayesfs.synthetic.videos.refilm import DEFECTS, refilm
from bayesfs.synthetic.videos.render import SETTINGS, _around
from bayesfs.types import CONDITIONS, Embeddings, EpisodeBatch
from bayesfs.uncertainty.by_quality import by_cause
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
        defect: (frame,) name, or "good"; every 1 + len(DEFECTS) frames are one moment.
    """

    features: NDArray[np.float32]
    measured: NDArray[np.float32]
    user: NDArray[np.str_]
    thing: NDArray[np.str_]
    defect: NDArray[np.str_]


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
            others, own = _around(mine, index, strangers), (seed, 9, user, index)
            for moment in refilm(thing, others, "clutter", moments, made["size"], own):
                for defect, image in {GOOD: moment.good, **moment.spoilt}.items():
                    rows.append((f"P{user + 1:03d}", thing.name, defect))
                    images.append(_resized(image, backbone.px))
    whole = np.stack(images)
    features = np.concatenate([backbone(whole[i : i + 64]) for i in range(0, len(whole), 64)])
    return Moments(features, quality(whole), *(np.array(c) for c in zip(*rows, strict=True)))


def _resized(image: NDArray[np.uint8], px: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((px, px), Image.Resampling.BILINEAR))
