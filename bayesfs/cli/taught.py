"""What a person has taught, kept as a feature store and changed: `teach_more` and others.

The store holds the backbone's features of every taught frame, no pictures, so that answers are
those of teaching anew from the videos that it is of. Each change leaves the former state beside it,
under the store's name with `.before`.
"""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from bayesfs._utils.atomic import write_whole
from bayesfs._utils.progress import say, terminal_safe
from bayesfs.cli.name_videos import Teacher, embedded_or_none, is_store, owned_by, taught_store
from bayesfs.data.sources.folder import read_folder, recording
from bayesfs.data.sources.skipped import tell_skipped
from bayesfs.data.sources.video import UNKNOWN_OBJECT, NothingDecoded, VideoTree
from bayesfs.data.store import open_store, replace_store, save_store
from bayesfs.errors import DataError
from bayesfs.features.decoding.sampling import Spread
from bayesfs.runs.directory import explained
from bayesfs.types import Embeddings


def teach_more(taught: Path, videos: Path, teacher: Teacher) -> None:
    """Add the videos of a folder to what was taught, or begin with them.

    Args:
        taught: feature store; made where there is none.
        videos: folder with one folder of videos per object.
        teacher: what answers; the store is for its backbone and its frames of a video.

    Raises:
        DataError: nothing can be read, the store is of another backbone, or a folder of videos.
    """
    if taught.is_dir() and not is_store(taught) and any(taught.iterdir()):
        raise DataError(
            f"{taught}: a folder, but no feature store, which keeps what is taught; the store "
            "comes first, then the videos, as in `bayesfs teach MY.zarr VIDEOS`"
        )
    known = taught_store(taught, teacher) if taught.exists() else None
    tree = read_folder(videos, user=None if known is None else owned_by(known))
    labelled = tuple(v for v in tree.videos if v.object != UNKNOWN_OBJECT)
    old = set() if known is None else {*known.coord("video").tolist()}
    again = [v for v in labelled if v.name in old]
    if again:
        say(f"taught before, and left as they are: {len(again)} videos, such as {again[0].path!r}")
    fresh = tuple(v for v in labelled if v.name not in old)
    if not fresh:
        raise DataError(f"{videos}: all of its {len(labelled)} videos were taught before")
    added = _embedded(replace(tree, videos=fresh), teacher)
    _write(taught, [known, added])


def correct_video(taught: Path, video: str, thing: str, condition: str, teacher: Teacher) -> None:
    """Say what a video shows: one that was taught, or one that was asked, which is then taught.

    Args:
        taught: feature store of what was taught.
        video: name of a taught video, or its last part; or the path of a recording.
        thing: name of the object that it shows, which may be new.
        condition: that a recording which was not taught is filed under.
        teacher: see `teach_more`.

    Raises:
        DataError: there is no such video, or the object has no name.
    """
    if not thing:
        raise DataError("expected the name of an object, got none")
    known = taught_store(taught, teacher)
    named = known.coord("video")
    if (own := _named(video, named)) is not None:
        told = np.where(named == own, thing, known.coord("object"))
        changed = known.dataset.assign_coords(object=("frame", told))
        _write(taught, [Embeddings.of_own(changed)])
        return
    if not Path(video).exists():
        raise DataError(f"{video!r} is no video that was taught, and no file{_near(video, named)}")
    user = owned_by(known)
    shown = replace(
        recording(Path(video)), user=user, object=thing, condition=condition, split="test"
    )
    shown = replace(shown, name=f"{user}--{thing}--{Path(video).name}")
    if shown.name in named:
        raise DataError(f"a video {shown.name!r} was taught already; forget it first, or rename it")
    tree = VideoTree(shown.root, (shown,), ())
    _write(taught, [known, _embedded(tree, teacher)])


def forget_named(taught: Path, name: str) -> None:
    """Take an object or a video out of what was taught.

    Args:
        taught: feature store.
        name: of an object; or of a video, or its last part.

    Raises:
        DataError: there is neither, or nothing would be left.
    """
    known = open_store(taught)
    owned_by(known)
    things, named = known.coord("object"), known.coord("video")
    gone = things == name
    if not gone.any():
        if (own := _named(name, named)) is None:
            near = _near(name, np.concatenate([things, named]))
            raise DataError(f"{name!r} is no object or video that was taught{near}")
        gone = named == own
    if gone.all():
        raise DataError(f"{name!r} is all that was taught; remove {taught} to forget everything")
    _write(taught, [Embeddings.of_own(known.dataset.isel(frame=np.flatnonzero(~gone)))])


def merge_taught(taught: Path, other: Path) -> None:
    """Add what another store teaches, such as that of a second device.

    Objects of one name are one. A video that both have, frame for frame, counts once; another one
    of a name that is taken gets a free one.

    Args:
        taught: feature store, which grows.
        other: feature store of the same backbone, of this person or of somebody else.

    Raises:
        DataError: the features are of two backbones, or the other one teaches nothing new.
    """
    known, more = open_store(taught), open_store(other)
    made, theirs = (str(e.dataset.attrs.get("backbone", "unknown")) for e in (known, more))
    if made != theirs:
        raise DataError(
            f"expected features of {made!r}, as in {taught}, got {theirs!r} in {other}; teach it "
            "anew from its videos"
        )
    user, _ = owned_by(known), owned_by(more)
    content = {_content(known, str(name)) for name in np.unique(known.coord("video"))}
    taken = {*known.coord("video").tolist()}
    kept, names = np.zeros(len(more), bool), more.coord("video").astype(object)
    for name in dict.fromkeys(more.coord("video").tolist()):
        own = more.coord("video") == name
        thing = str(more.coord("object")[own][0])
        if thing == UNKNOWN_OBJECT or _content(more, name) in content:
            continue
        last, number = str(name).rpartition("--")[2], 1
        fresh = f"{user}--{thing}--{last}"
        while fresh in taken:
            number += 1
            fresh = f"{user}--{thing}--{last} {number}"
        taken.add(fresh)
        kept |= own
        names[own] = fresh
    if not kept.any():
        raise DataError(f"{other}: teaches nothing that {taught} does not")
    coords = {
        "video": ("frame", names.astype(str)),
        "user": ("frame", np.full(len(more), user)),
        "split": ("frame", np.full(len(more), str(known.coord("split")[0]))),
    }
    changed = more.dataset.assign_coords(coords).isel(frame=np.flatnonzero(kept))
    _write(taught, [known, Embeddings.of_own(changed)])


def _content(store: Embeddings, video: str) -> tuple[str, bytes]:
    """What tells a video from another: its object and its frames."""
    own = store.coord("video") == video
    features = np.ascontiguousarray(store.dataset["features"].values[own])
    return str(store.coord("object")[own][0]), features.tobytes()


def _named(video: str, names: np.ndarray[tuple[int], np.dtype[np.str_]]) -> str | None:
    """The taught video of that name, or with that last part if it is the only one."""
    distinct = [str(name) for name in np.unique(names)]
    found = [n for n in distinct if n == video] or [
        n for n in distinct if n.rpartition("--")[2] == video
    ]
    if len(found) > 1:
        raise DataError(f"{video!r} may be {found[:5]}; give the whole name")
    return found[0] if found else None


def _near(name: str, known: np.ndarray[tuple[int], np.dtype[np.str_]]) -> str:
    names = [str(n) for n in np.unique(known)]
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {names[:8]}"


def _embedded(tree: VideoTree, teacher: Teacher) -> Embeddings:
    frames = Spread.of(teacher.sampling, teacher.study.evaluation.frames_per_video)
    found, skipped = embedded_or_none(tree.videos, teacher.backbone, frames, tree.skipped)
    if found is None:
        raise NothingDecoded(len(tree), skipped)
    tell_skipped(list(skipped), len(skipped), tell=say)
    return found


def _write(taught: Path, parts: Sequence[Embeddings | None]) -> None:
    """Write the store, the former one being kept beside it, and say what is taught now."""
    datasets = [part.dataset for part in parts if part is not None]
    whole = xr.concat(datasets, "frame", combine_attrs="override")
    embeddings = Embeddings.of_own(whole)
    if taught.exists():
        before = taught.with_name(f"{taught.name}.before")
        with explained(before):
            write_whole(before, lambda path: shutil.copytree(taught, path))
        replace_store(taught, embeddings)
    else:
        save_store(taught, embeddings)
    for thing in dict.fromkeys(embeddings.coord("object").tolist()):
        own = embeddings.coord("video")[embeddings.coord("object") == thing]
        names = ", ".join(str(n).rpartition("--")[2] for n in dict.fromkeys(own.tolist()))
        print(terminal_safe(f"{thing}: {names}"))
