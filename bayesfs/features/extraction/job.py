"""Identity of an extraction (videos, backbone, sampling), to resume it: `ExtractionJob`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bayesfs._utils.atomic import remove_partial, write_whole
from bayesfs._utils.guarded_files import open_regular, read_bounded
from bayesfs._utils.owned_folders import MARK, claim, is_claimed
from bayesfs.data.sources.video import Video
from bayesfs.data.store import store_attrs
from bayesfs.errors import DataError
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.features.extraction.shards import SHARD_FRAMES, Shard
from bayesfs.features.quality import MEASURED_AS
from bayesfs.protocols import Backbone

Attrs = Mapping[str, str | int | float]

WHOLE = 2**24
"""Largest file of which every byte belongs to its identity."""

MAX_MANIFEST = 2**20
"""Largest note of what is being made, in bytes."""
MANIFEST = "manifest.json"
LOCK = "lock"
UNFINISHED = "an unfinished feature store"
"""What the folder of unfinished work says that it is for."""


@dataclass(frozen=True, eq=False)
class ExtractionJob:
    """Videos, backbone and settings of one store.

    Attributes:
        videos: what to embed, in the order of the store.
        backbone: the backbone.
        store: where the finished store goes.
        sampling: which frames.
        thumbnails: whether to keep small pictures.
        identity: attributes that must agree for a store, finished or not, to be this job's; its
            "sampling" is the JSON of `Sampling`'s fields, its "px" the side of the frames.
    """

    videos: Sequence[Video]
    backbone: Backbone
    store: Path
    sampling: Sampling
    thumbnails: bool
    identity: Attrs = field(init=False)

    def __post_init__(self) -> None:
        identity = {
            **attrs_of(self.backbone, self.sampling),
            "thumbnails": int(self.thumbnails),
            "shard_frames": SHARD_FRAMES,
            "fingerprint": video_fingerprint(self.videos),
        }
        object.__setattr__(self, "identity", identity)

    @property
    def work(self) -> Path:
        """Folder of the unfinished work."""
        return self.store.with_name(self.store.name + ".partial")

    def file(self, shard: Shard) -> Path:
        """Where a finished shard is kept."""
        return self.work / f"shard-{shard.index:06d}.npz"

    def claim(self) -> None:
        """Make the folder of unfinished work, or make sure that it is one.

        Raises:
            DataError: it holds what bayesfs did not make, or is a link.
        """
        if self.work.is_symlink():
            raise DataError(f"{str(self.work)!r} is a link, which is not followed; move it away")
        claim(self.work, UNFINISHED)

    def is_claimed(self) -> bool:
        """Whether there is a folder of unfinished work of ours."""
        return not self.work.is_symlink() and is_claimed(self.work, UNFINISHED)

    def clear(self) -> None:
        """Remove the unfinished work, and its folder if nothing of others is in it."""
        remove_partial(self.work)
        for ours in (*self.work.glob("shard-*.npz"), *(self.work / n for n in (MANIFEST, LOCK))):
            ours.unlink(missing_ok=True)
        if [p.name for p in self.work.iterdir()] == [MARK]:
            (self.work / MARK).unlink()
            self.work.rmdir()

    def is_done(self) -> bool:
        """Whether the finished store is there.

        Raises:
            DataError: something else is there: another job's store, or no store at all.
        """
        if not self.store.exists() or (self.store.is_dir() and not any(self.store.iterdir())):
            return False
        self._compare(self.store, store_attrs(self.store))
        return True

    def begin(self) -> None:
        """Note in the work folder what is being made, or check that it is what was begun.

        Raises:
            DataError: another job was begun there.
        """
        manifest = self.work / MANIFEST
        if not manifest.exists():
            text = json.dumps(dict(self.identity))
            write_whole(manifest, lambda path: path.write_text(text, encoding="utf-8"))
        try:
            begun = dict(json.loads(read_bounded(manifest, MAX_MANIFEST)))
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(
                f"{str(manifest)!r} is damaged ({error}); delete {str(self.work)!r}"
            ) from error
        self._compare(self.work, begun)

    def _compare(self, path: Path, found: Mapping[str, object]) -> None:
        for name, wanted in self.identity.items():
            if found.get(name) != wanted:
                told = f"{name} {found.get(name)!r}, but this run has {wanted!r}"
                if name == "fingerprint":
                    told = (
                        "other frames, labels or annotations than the videos have now, or by an "
                        "earlier bayesfs"
                    )
                raise DataError(
                    f"{str(path)!r} was made with {told}. The two are never mixed: name another "
                    "store, or delete this one"
                )


def attrs_of(backbone: Backbone, sampling: Sampling) -> dict[str, str | int]:
    """How features are made, as the attributes of a store tell it."""
    return {
        "backbone": backbone.name,
        "px": backbone.px,
        "sampling": json.dumps(asdict(sampling)),
    }


def sampling_of(attrs: Mapping[str, object]) -> Sampling | None:
    """Which frames of each video a store has; None where it does not say.

    Args:
        attrs: of the store, or what a run keeps of them under the same name.

    Raises:
        DataError: what it says is no sampling.
    """
    text = attrs.get("sampling", "")
    if not text:
        return None
    try:
        found = json.loads(str(text))
        if all(x is None or type(x) in (int, float) for x in found.values()):
            return Sampling(**found)
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"sampling {str(text)[:80]!r} cannot be read ({error})") from error
    raise DataError(f"expected a sampling in numbers, got {str(text)[:80]!r}")


def sampling_text(sampling: Sampling | None) -> str:
    """A sampling in words, for a report."""
    if sampling is None:
        return "unknown"
    every = f"every {sampling.every} frames" if sampling.every > 1 else "every frame"
    rate = every if sampling.fps is None else f"{sampling.fps:g} frames a second"
    most = sampling.max_frames
    return rate if most is None else f"{rate}, at most {most} of a video"


def video_fingerprint(videos: Sequence[Video]) -> str:
    """SHA-256 of the list of frames: labels, names, contents of the files and annotations.

    How their quality is measured belongs to it, too.
    """
    digest = hashlib.sha256(MEASURED_AS.encode())
    for v in videos:
        contents = [content_digest(f) for f in v.frames or (v.location,)]
        labels = [v.split, v.user, v.object, v.condition, v.name, v.path, v.files, contents]
        digest.update(json.dumps(labels).encode())
        for flag in sorted(v.flags):
            digest.update(flag.encode() + v.flags[flag].tobytes())
        digest.update(v.boxes.tobytes())
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """What tells a file's content from another: a SHA-256, in time that does not go with its size.

    Of a file of up to `WHOLE` bytes, every byte. Of a larger one, its size, the time at which it
    was last changed, and its first and last `WHOLE` / 2 bytes; so a copy of such a file is another
    one, unless the copy keeps the time (`cp -p`, `rsync -t`).
    """
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            if status.st_size <= WHOLE:
                return hashlib.sha256(file.read(WHOLE)).hexdigest()
            digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode())
            digest.update(file.read(WHOLE // 2))
            file.seek(-WHOLE // 2, os.SEEK_END)
            digest.update(file.read(WHOLE // 2))
            return digest.hexdigest()
    except (DataError, OSError):
        return "unreadable"
