"""What a person taught, for a device without torch: `export_taught`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from bayesfs.cli.name_videos import MOST_FRAMES, remarks, teacher_of
from bayesfs.cli.watch_video import Watcher, taught_frames
from bayesfs.deploy.exported import TaughtTask, write_onnx
from bayesfs.errors import DataError
from bayesfs.features.decoding.sampling import Spread
from bayesfs.protocols import TorchBackbone


def export_taught(
    teach: Path,
    folder: Path,
    run: Path | None,
    *,
    frames: int = MOST_FRAMES,
    condition: Literal["unknown", "clean", "clutter"],
    trust: bool,
    backbone: str | None,
) -> None:
    """Write the backbone and the taught head as ONNX files, with what runs them.

    Args:
        teach: folder with one folder of videos per object, or a store of what was taught.
        folder: to write; must not exist.
        run: finished run whose population is used; without one, the population in the box.
        frames: of a video that are answered for together, at most.
        condition: that the frames to answer for are recorded in.
        trust: run recipes kept in the run directory even if they are not the shipped ones.
        backbone: see `bayesfs.cli.name_videos.name_videos`.

    Raises:
        DataError: nothing is taught, or the backbone is no torch network.
    """
    if frames < 1:
        raise DataError(f"expected at least one frame of a video, got {frames}")
    teacher = teacher_of(run, "cpu", trust=trust, backbone=backbone)
    if not isinstance(teacher.backbone, TorchBackbone):
        raise DataError(
            f"expected a backbone that is a torch network, got {teacher.backbone.name!r}; export "
            "is for those"
        )
    taught = taught_frames(teach, teacher)
    told = "clutter" if condition == "unknown" else condition
    watcher = Watcher.of(teacher, taught, told)
    task, learnt, study = watcher.task, teacher.learnt, teacher.study
    rules = teacher.rules(float(task.shot_mask.sum() / task.way_mask.sum()))
    made = TaughtTask(
        teacher.backbone,
        learnt.projection,
        watcher.model,
        watcher.posterior,
        learnt.population,
        task,
        told,
        condition != "unknown",
        teacher.seed,
    )
    asked = study.evaluation.query_frames
    count = frames if asked is None else min(frames, asked)
    gaps = write_onnx(
        made,
        folder,
        frames=frames,
        sampling=asdict(Spread.of(teacher.sampling, count)),
        rules=rules,
        quality=taught.dataset["quality"].values,
        told=remarks(watcher.model, learnt.population, watcher.posterior, task),
    )
    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    off = ", ".join(f"{name} {gap:.1e}" for name, gap in gaps.items())
    print(f"{folder}: {len(task.classes[0])} objects, {size:.1f} MiB; differs from torch by {off}")
