"""The picture of a video's doubt: bands that add up, and words that say the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from bayesfs.explanation.evidence import Evidence
from bayesfs.plots.explanation import frame_absent, frame_causes, frame_parts, plot_explanation
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import LabelDraws, Predictive
from bayesfs.uncertainty.parts import LEVEL_PARTS

NAMES = ["focus", "brightness"]


def evidence() -> Evidence:
    """Two videos of four frames, the first one three frames long; a part and a drop below zero."""
    batch, _ = synthetic_episodes(users=1, way=2, shots=1, frames=4, query_videos=1, dim=2, seed=0)
    mask = batch.query_mask.clone()
    mask[0, 0, 3] = False
    quality = torch.tensor([[-2.0, 0.5], [-1.0, -0.5], [1.0, -1.0], [0.0, 0.0]])
    batch = replace(batch, query_mask=mask, query_quality=quality.expand(1, 2, 4, 2))
    axes = ("task", "video", "frame")
    value = dict(zip(LEVEL_PARTS, (-0.01, 0.02, 0.09, 0.2, 0.3), strict=True))
    levels = {f"frame_{n}": (axes, np.full((1, 2, 4), v)) for n, v in value.items()}
    drop = np.array([[-0.1, 0.2], [0.1, 0.1], [0.9, 0.0], [0.0, 0.0]])  # dark, blurred
    absent = np.array([0.1, 0.2, 0.6, 1.0])
    causes = {
        "frame_cause": ((*axes, "cause"), np.broadcast_to(drop, (1, 2, 4, 2)).copy()),
        "frame_absent": (axes, np.broadcast_to(absent, (1, 2, 4)).copy()),
        "video_absent": (("task", "video"), np.full((1, 2), 0.1)),
    }
    kinds = {
        "frame_aleatoric": (axes, np.full((1, 2, 4), 0.4)),
        "frame_epistemic": (axes, np.full((1, 2, 4), 0.1)),
    }
    frame = torch.full((1, 2, 4, 2), 0.5).log()
    labels = LabelDraws(frame, frame[None], torch.zeros(1, 1, 2, 4))
    video = LabelDraws(frame[:, :, 0], frame[None, :, :, 0], torch.zeros(1, 1, 2))
    return Evidence(
        batch,
        Predictive(labels, video),
        xr.Dataset(kinds),
        xr.Dataset(levels),
        xr.Dataset(causes, coords={"covariate": NAMES, "cause": ["dark", "blurred"]}),
    )


def test_bands_add_up_to_the_total_and_none_is_below_zero() -> None:
    known = evidence()
    parts = frame_parts(known, 0, 0)
    assert list(parts) == list(reversed(LEVEL_PARTS))
    np.testing.assert_allclose(sum(parts.values()), np.full(3, 0.6))
    assert all((nats >= 0).all() for nats in parts.values())
    assert len(frame_parts(known, 0, 1)["video"]) == 4


def test_causes_share_the_videos_own_part_and_no_more() -> None:
    known = evidence()
    causes, parts = frame_causes(known, 0, 0), frame_parts(known, 0, 0)
    assert causes is not None
    np.testing.assert_allclose(sum(causes.values()), parts["video"] + parts["frame"])
    np.testing.assert_allclose(causes["blurred"], [0.2, 0.1, 0.0])
    own = parts["video"] + parts["frame"]
    np.testing.assert_allclose(causes["dark"], [0.0, 0.0, own[2]])
    assert "bright" not in causes
    assert (causes["aleatoric"] >= -1e-12).all()


def test_the_picture_is_described_in_words(tmp_path: Path) -> None:
    text = plot_explanation(evidence(), 0, 0, tmp_path / "why.png", most_absent=0.3)
    assert (tmp_path / "why.png").stat().st_size > 5000
    assert text.startswith("Doubt about each of 3 frames in nats, 0.60 on average")
    assert "the single pictures of the video 0.30" in text
    assert "too little light 0.16, blur 0.10" in text
    assert text.endswith("0.30 on average, 0.60 at most.")


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_model_that_knows_kinds_only_is_drawn_by_kind(tmp_path: Path, suffix: str) -> None:
    bare = replace(evidence(), levels=None, causes=None)
    assert list(frame_parts(bare, 0, 0)) == ["aleatoric", "epistemic"]
    assert frame_causes(bare, 0, 0) is None
    assert frame_absent(bare, 0, 0) is None
    text = plot_explanation(bare, 0, 0, tmp_path / f"why.{suffix}")
    assert "the video itself 0.40, what was taught 0.10" in text
    assert (tmp_path / f"why.{suffix}").stat().st_size > 2000
