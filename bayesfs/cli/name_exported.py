"""Name videos by what `bayesfs export` wrote, without torch: `name_exported`.

The answers are those of `bayesfs predict` for what was exported, of the same frames; they are there
within a second of the start, since neither torch nor Pyro is imported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bayesfs._utils.progress import say
from bayesfs._utils.spacing import spaced
from bayesfs.cli.answers import asked_videos, check_writable, rows_of, tell_answers
from bayesfs.data.sources.folder import read_unlabelled
from bayesfs.data.sources.skipped import tell_skipped
from bayesfs.data.sources.video import UNDECODED, Skipped, Video
from bayesfs.decisions.rules import Rules
from bayesfs.deploy.runner import TaughtObjects
from bayesfs.errors import DataError
from bayesfs.explanation.camera import defect_of
from bayesfs.explanation.conclude import Numbers, concluded
from bayesfs.explanation.framing import Look
from bayesfs.features.decoding.sampling import Spread
from bayesfs.features.decoding.video import decode
from bayesfs.features.quality import quality
from bayesfs.features.windows import LOOKED, WINDOWS
from bayesfs.types import CONDITIONS


@dataclass(frozen=True, eq=False)
class Seen:
    """A video behind the backbone.

    Attributes:
        features: (frame, feature).
        numbers: what is known of it, but for what teaching would tell.
    """

    features: NDArray[np.float32]
    numbers: Numbers


def is_exported(path: Path) -> bool:
    """Whether it is a folder that `bayesfs export` wrote."""
    return (path / "taught.json").is_file()


def name_exported(folder: Path, videos: Path, *, table: Path | None, condition: str) -> None:
    """Print one sentence a video, and write the numbers behind them if asked.

    Args:
        folder: that `bayesfs export` wrote.
        videos: folder of the videos to name, or one of them.
        table: CSV file to write.
        condition: that they were recorded in; "unknown" is what was said when it was exported.

    Raises:
        DataError: the folder is of another version or condition, onnxruntime is missing, or no
            video to name could be read.
    """
    if table is not None:
        check_writable(table)
    taught = _opened(folder)
    header = taught.header
    if condition not in ("unknown", header["condition"]):
        raise DataError(
            f"{folder}: exported for videos of condition {header['condition']!r}, asked about "
            f"{condition!r} ones; export it anew with --condition {condition}"
        )
    asked = asked_videos(videos)
    tree = read_unlabelled(videos, "user")
    usual = np.load(folder / "quality.npy", allow_pickle=False)
    frames = Spread(**header["sampling"])
    seen: list[Seen] = []
    skipped = [*tree.skipped]
    for video in tree.videos:
        images, lost = _decoded(video, taught.px, frames)
        skipped += lost
        if len(images):
            seen.append(_seen(taught, video.name, images, usual))
    for remark in header["told"]:
        say(remark)
    rest = [s for s in skipped if s.path not in asked or s.level == "frame"]
    tell_skipped(rest, len(rest), tell=say)
    rules = None if header["rules"] is None else Rules.from_dict(header["rules"])
    said = [concluded(one.numbers, rules=rules) for one in seen]
    if any(len(one.answer) > 1 for one in said):  # else it makes no difference to the words
        said = [concluded(one, rules=rules) for one in _with_gain(taught, seen)]
    tell_answers(said, rows_of(said, asked, tree.videos, skipped), table)
    if not said:
        raise DataError(f"{videos}: none of the {len(asked)} videos to name could be read")


def _opened(folder: Path) -> TaughtObjects:
    """What was exported.

    Raises:
        DataError: by another version, or onnxruntime is missing.
    """
    try:
        taught = TaughtObjects(folder)
    except ImportError as error:
        raise DataError("expected onnxruntime: pip install 'bayesfs[onnx]'") from error
    except KeyError as error:
        raise DataError(
            f"{folder}: taught.json has no {error}; exported by another version, or damaged? "
            "Export it anew"
        ) from error
    return taught


def _decoded(video: Video, px: int, frames: Spread) -> tuple[NDArray[np.uint8], list[Skipped]]:
    """(frame, px, px, 3) of a video, and what of it cannot be read."""
    items = [*decode(video, px, frames)]
    lost = [item for item in items if isinstance(item, Skipped)]
    images = [item.image for item in items if not isinstance(item, Skipped)]
    if not images and not any(one.level == "video" for one in lost):
        lost.append(Skipped(video.path, UNDECODED, "video"))
    return np.array(images, np.uint8).reshape(-1, px, px, 3), lost


def _seen(
    taught: TaughtObjects, name: str, images: NDArray[np.uint8], usual: NDArray[np.float32]
) -> Seen:
    """A video, and windows of some of its frames, each by itself."""
    features = taught.features(images)
    found = taught.recognised(features)
    some = images[spaced(np.array([len(images)]), LOOKED)[1]]
    looks = {}
    for window, part in WINDOWS.items():
        look = taught.recognised(taught.features(part.of(some)))
        looks[window] = Look(look.prob, look.typical)
    defect = defect_of(quality(images), usual)
    numbers = Numbers(
        video=name,
        prob=found.prob,
        parts={
            "total": found.aleatoric + found.epistemic,
            "aleatoric": found.aleatoric,
            "epistemic": found.epistemic,
        },
        typical=found.typical,
        causes={} if defect is None else {defect: math.nan},
        looks=looks,
    )
    return Seen(features, numbers)


def _with_gain(taught: TaughtObjects, seen: Sequence[Seen]) -> list[Numbers]:
    """With what one more video of each object would tell, of each video and of all on average."""
    own = [taught.gain(one.features) for one in seen]
    mean = {thing: float(np.mean([each[thing] for each in own])) for thing in taught.classes}
    return [
        replace(one.numbers, own_gain=_alike(each), gain=_alike(mean))
        for one, each in zip(seen, own, strict=True)
    ]


def _alike(gain: dict[str, float]) -> dict[tuple[str, str], float]:
    """The same in every recording condition."""
    return {(thing, kind): nats for thing, nats in gain.items() for kind in CONDITIONS}
