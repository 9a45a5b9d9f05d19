"""What a person taught, for a device without torch: `export_taught`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bayesfs.cli.name_videos import teacher_of
from bayesfs.cli.watch_video import Watcher, taught_frames
from bayesfs.deploy.exported import TaughtTask, write_onnx
from bayesfs.errors import DataError
from bayesfs.protocols import TorchBackbone


def export_taught(
    teach: Path,
    folder: Path,
    run: Path | None,
    *,
    frames: int,
    condition: Literal["clean", "clutter"],
    trust: bool,
    backbone: str | None,
) -> None:
    """Write the backbone and the taught head as one ONNX file, with what runs it.

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
    watcher = Watcher.of(teacher, taught_frames(teach, teacher), condition)
    task, learnt = watcher.task, teacher.learnt
    rules = teacher.rules(float(task.shot_mask.sum() / task.way_mask.sum()))
    made = TaughtTask(
        teacher.backbone,
        learnt.projection,
        watcher.model,
        watcher.posterior,
        learnt.population,
        task,
        condition,
    )
    least = None if rules is None else rules.video.least_in_set
    gaps = write_onnx(made, folder, frames=frames, least_in_set=least)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    told = ", ".join(f"{name} {gap:.1e}" for name, gap in gaps.items())
    print(f"{folder}: {len(task.classes[0])} objects, {size:.1f} MiB; differs from torch by {told}")
