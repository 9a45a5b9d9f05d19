"""Windows of a recording of a run's query video, named each by itself: `look_closer`.

A run keeps features of whole frames; where something stands is in the recording only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bayesfs.data.sources.folder import recording
from bayesfs.errors import DataError, RunError
from bayesfs.explanation.evidence import looks_of
from bayesfs.explanation.framing import Look
from bayesfs.features.decoding.sampling import Spread
from bayesfs.features.extraction.embed import embed
from bayesfs.features.windows import LOOKED, PARTS, WHOLE, WINDOWS, Windowed
from bayesfs.protocols import KnowsTypical
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.reuse import same_backbone, same_sampling
from bayesfs.study import Learnt, Study
from bayesfs.types import Embeddings, EpisodeBatch

SAME = 0.999
"""Cosine of a frame's features to those that the store has of it, at least."""


def look_closer(
    run: RunDirectory,
    study: Study,
    learnt: Learnt,
    one: EpisodeBatch,
    place: Path,
    embeddings: Embeddings,
    *,
    seed: int,
) -> dict[str, Look]:
    """Window -> what is said of it.

    Args:
        run: whose backbone looks at it.
        study: of the run.
        learnt: by it.
        one: one task with one query video.
        place: the recording of that video: a file, or a folder of frames.
        embeddings: the run's frames.
        seed: of the inference.

    Raises:
        RunError: the run's model cannot tell what is like nothing that was taught.
        DataError: the recording cannot be read, or is another one.
    """
    model = study.model_of(learnt)
    if not isinstance(model, KnowsTypical):
        raise RunError(
            "--recording: expected a run whose model knows what is typical of what was taught, as "
            f"models/similarity_pool.py does, got {type(model).__name__}"
        )
    ((video,),) = one.videos
    windowed = Windowed(same_backbone(run, study.place), PARTS)
    frames = Spread.of(same_sampling(run), LOOKED)
    parts = windowed.apart(embed([recording(place)], windowed, sampling=frames))
    _check_same(parts[WHOLE], embeddings, video, place)
    each = torch.stack(
        [
            torch.from_numpy(learnt.projection(parts[name]).dataset["features"].values)
            for name in WINDOWS
        ]
    ).to(one.query)
    asked = one.changed(
        query=each[None],
        query_mask=torch.ones(1, *each.shape[:2], dtype=torch.bool, device=each.device),
        query_condition=one.query_condition.expand(1, len(each)).contiguous(),
        query_labels=one.query_labels.new_full((1, len(each)), -1),
        query_quality=None,
        query_frame=None,
        videos=(tuple(WINDOWS),),
    )
    answer = study.infer(asked, learnt, seed=seed)
    return looks_of(asked, answer.predictive, model.typicality(asked))


def _check_same(seen: Embeddings, embeddings: Embeddings, video: str, place: Path) -> None:
    """Refuse a recording whose frames the store has not."""
    own = embeddings.dataset["features"].values[embeddings.coord("video") == video]
    known, found = (
        x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
        for x in (own, seen.dataset["features"].values)
    )
    alike = (found @ known.T).max(1)
    if alike.min() < SAME:
        raise DataError(
            f"{place}: shows other frames than the run has of {video!r} (cosine {alike.min():.3f}, "
            f"expected {SAME}); is it the recording of another video?"
        )
