"""A running answer while frames arrive: `watch_video`.

    source -> decode -> backbone -> head -> a line

Each step is a thread of its own, so that a frame is embedded while the next one is decoded and the
last one is answered. What was taught is inferred once; a frame costs one prediction.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesfs._utils.progress import say, terminal_safe
from bayesfs.cli.name_videos import (
    Teacher,
    embedded_or_none,
    is_store,
    tasks_in_condition,
    taught_store,
    teacher_of,
)
from bayesfs.data.sources.folder import read_folder
from bayesfs.data.sources.video import UNDECODED, UNKNOWN_OBJECT, NothingDecoded, Skipped
from bayesfs.explanation.camera import CameraStep, camera_step
from bayesfs.explanation.evidence import Evidence, looks_of
from bayesfs.explanation.explain import explain_video
from bayesfs.explanation.explanation import Explanation
from bayesfs.explanation.framing import Look
from bayesfs.features.decoding.sampling import Spread
from bayesfs.features.decoding.stream import stream
from bayesfs.features.decoding.video import Frame
from bayesfs.features.extraction.prefetch import Prefetch
from bayesfs.features.quality import COVARIATES, quality
from bayesfs.features.windows import WHOLE, WINDOWS
from bayesfs.prediction import predict
from bayesfs.protocols import Backbone, KnowsTypical, Model
from bayesfs.types import Embeddings, EpisodeBatch, Posterior
from bayesfs.uncertainty.decompose import decompose

WINDOW = 30
"""Latest frames that are answered for jointly by default: a second."""

WORDS: Mapping[CameraStep, str] = {
    "steadier": "hold steadier",
    "more light": "more light",
    "less light": "less light",
    "closer": "move closer",
    "turn left": "turn left",
    "turn right": "turn right",
    "turn top": "turn up",
    "turn bottom": "turn down",
}
"""CameraStep of the camera -> what is printed."""

NOW = "now"
"""Name of the video that is being watched."""

Condition = Literal["clean", "clutter"]


@dataclass(frozen=True, eq=False)
class Arrived:
    """A frame behind the backbone.

    Attributes:
        number: in its source, from 1.
        decoded: when it was decoded, on the clock of `time.perf_counter`.
        features: (feature,) of the backbone.
        quality: (covariate,) measured.
        image: (px, px, 3) as the backbone saw it.
    """

    number: int
    decoded: float
    features: NDArray[np.float32]
    quality: NDArray[np.float32]
    image: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Watcher:
    """A person's objects, taught once; answers for any frames.

    Attributes:
        teacher: model, engine, population and rules.
        taught: embeddings of what teaches.
        task: what was taught, and a token to name, which is its first frame.
        model: as the study has it for tasks.
        posterior: of the taught task.
        condition: that frames to answer for are recorded in.
    """

    teacher: Teacher
    taught: Embeddings
    task: EpisodeBatch
    model: Model
    posterior: Posterior
    condition: Condition

    @classmethod
    def of(cls, teacher: Teacher, taught: Embeddings, condition: Condition) -> Watcher:
        """Infer what was taught; the first taught frame stands in for a query, and is not used."""
        study, learnt = teacher.study, teacher.learnt
        first = taught.dataset.isel(frame=slice(0, 1))
        token = with_query(taught, first["features"].values, first["quality"].values)
        tasks = tasks_in_condition(teacher, token, condition)
        model = study.model_of(learnt)
        posterior = study.engine.infer(model, tasks, seed=teacher.seed, given=learnt.population)
        return cls(teacher, taught, tasks, model, posterior, condition)

    def answer(self, frames: list[Arrived]) -> Explanation:
        """What some frames of one video show jointly, its set and its doubt."""
        features, measured = ([getattr(f, n) for f in frames] for n in ("features", "quality"))
        joined = with_query(self.taught, np.stack(features), np.stack(measured))
        tasks = tasks_in_condition(self.teacher, joined, self.condition)
        given = self.teacher.learnt.population
        found = predict(self.model, self.posterior, tasks, given=given)
        typical = None
        if isinstance(self.model, KnowsTypical):
            typical = self.model.typicality(tasks)
        kinds = decompose(found, tasks)
        evidence = Evidence(tasks, found, kinds, None, None, typical=typical)
        videos = float(tasks.shot_mask.sum() / tasks.way_mask.sum())
        return explain_video(evidence, 0, 0, rules=self.teacher.rules(videos))

    def step(self, found: Explanation, frames: list[Arrived]) -> CameraStep:
        """What to do with the camera where frames leave a doubt; "" where they do not.

        Args:
            found: the answer for these frames.
            frames: the latest; windows of the last one are looked at.
        """
        if len(found.answer) == 1:
            return ""
        looks = {WHOLE: Look(found.prob, found.typical), **self.windows(frames[-1])}
        measured = np.stack([frame.quality for frame in frames])
        return camera_step(looks, measured, self.taught.dataset["quality"].values)

    def windows(self, frame: Arrived) -> dict[str, Look]:
        """Window -> what is said of it; none where the model cannot tell what was not taught."""
        if not isinstance(self.model, KnowsTypical):
            return {}
        backbone = self.teacher.backbone
        features = np.concatenate([backbone(w.of(frame.image[None])) for w in WINDOWS.values()])
        measured = np.repeat(frame.quality[None], len(WINDOWS), 0)
        joined = with_query(self.taught, features, measured, videos=[*WINDOWS])
        tasks = tasks_in_condition(self.teacher, joined, self.condition)
        given = self.teacher.learnt.population
        found = predict(self.model, self.posterior, tasks, given=given)
        return looks_of(tasks, found, self.model.typicality(tasks))


def with_query(
    taught: Embeddings,
    features: NDArray[np.float32],
    measured: NDArray[np.float32],
    videos: Sequence[str] | None = None,
) -> Embeddings:
    """What teaches, and behind it the frames of one video to name, or of several.

    Args:
        taught: of one person.
        features: (frame, feature).
        measured: (frame, covariate).
        videos: name of each frame's video; one video by default.
    """
    known = taught.dataset[["features", "quality"]]
    kept = [*Embeddings.REQUIRED, "covariate"]
    known = known.drop_vars([name for name in known.coords if name not in kept])
    names = {
        "user": str(taught.coord("user")[0]),
        "object": UNKNOWN_OBJECT,
        "condition": "clutter",
        "split": str(taught.coord("split")[0]),
    }
    coords = {name: ("frame", np.full(len(features), value)) for name, value in names.items()}
    coords["video"] = ("frame", np.array([NOW] * len(features) if videos is None else videos))
    query = xr.Dataset(
        {
            "features": (("frame", "feature"), features),
            "quality": (("frame", "covariate"), measured),
        },
        coords={**coords, "covariate": list(COVARIATES)},
    )
    return Embeddings.of_own(xr.concat([known, query], "frame", combine_attrs="override"))


def watch_video(
    teach: Path,
    source: str,
    run: Path | None,
    *,
    device: str | None,
    trust: bool,
    backbone: str | None = None,
    condition: Condition = "clutter",
    window: int = WINDOW,
    every: int = 1,
) -> None:
    """Print the running answer, its set and its doubt as frames arrive, then the latency.

    Args:
        teach: folder with one folder of videos per object.
        source: video file, folder of frames, or number of a camera.
        run: finished run whose population is used; without one, the population in the box.
        device: where backbone and engine run.
        trust: run recipes kept in the run directory even if they are not the shipped ones.
        backbone: see `bayesfs.cli.name_videos.name_videos`.
        condition: that the frames are recorded in.
        window: latest frames that are answered for jointly.
        every: say the answer at every n-th frame.

    Raises:
        DataError: nothing can be taught, or no frame can be read.
    """
    teacher = teacher_of(run, device, trust=trust, backbone=backbone)
    seconds = []
    latest: deque[Arrived] = deque(maxlen=window)
    watcher = Watcher.of(teacher, taught_frames(teach, teacher), condition)
    with Prefetch(embedded_frames(source, teacher.backbone), ahead=1) as arriving:
        for frame in arriving:
            latest.append(frame)
            if (frame.number - 1) % every:
                continue
            found = watcher.answer([*latest])
            step = watcher.step(found, [*latest])
            print(f"{frame.number}: {line_of(found, step)}", flush=True)
            seconds.append(time.perf_counter() - frame.decoded)
    if not seconds:
        raise NothingDecoded(1, [Skipped(source, UNDECODED, "video")])
    middle, late = np.quantile(seconds[len(seconds) > 1 :], (0.5, 0.95)) * 1e3
    say(f"{len(seconds)} answers, each {middle:.0f} ms (95 %: {late:.0f} ms) after its frame")


def line_of(found: Explanation, step: CameraStep = "") -> str:
    """The likeliest object, the set, the doubt and what to try in one line."""
    likely, probability = next(iter(found.prob.items()))
    named = ", ".join(found.answer) or "none of your objects"
    total, epistemic = found.parts["total"], found.parts["epistemic"]
    return terminal_safe(
        f"{likely} {probability:.2f}; set: {named}; doubt {total:.2f} nats, {epistemic:.2f} of it "
        f"for want of examples{f'; try: {WORDS[step]}' if step else ''}"
    )


def taught_frames(teach: Path, teacher: Teacher) -> Embeddings:
    """What teaches, of a person's folder.

    Raises:
        DataError: no video of an object can be read.
    """
    if is_store(teach):
        return taught_store(teach, teacher)
    tree = read_folder(teach)
    frames = Spread.of(teacher.sampling, teacher.study.evaluation.frames_per_video)
    found, skipped = embedded_or_none(tree.videos, teacher.backbone, frames, tree.skipped)
    if found is None:
        raise NothingDecoded(len(tree), skipped)
    known = found.coord("object") != UNKNOWN_OBJECT
    return Embeddings.of_own(found.dataset.isel(frame=np.flatnonzero(known)))


def embedded_frames(source: str, backbone: Backbone) -> Iterator[Arrived]:
    """Frames of a source behind the backbone, the next ones being decoded meanwhile."""
    with Prefetch(_stamped(source, backbone.px), ahead=1) as decoded:
        for item, when in decoded:
            if isinstance(item, Skipped):
                say(f"left out: {terminal_safe(item.path)}: {terminal_safe(item.reason)}")
                continue
            images = item.image[None]
            yield Arrived(item.number, when, backbone(images)[0], quality(images)[0], item.image)


def _stamped(source: str, px: int) -> Iterator[tuple[Frame | Skipped, float]]:
    for item in stream(source, px):
        yield item, time.perf_counter()
