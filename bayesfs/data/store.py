"""Feature stores: labelled frame features in a Zarr 3 folder. Start with `open_store`.

A store is one xarray Dataset that `xarray.open_zarr` opens as it is: `features` (frame, feature),
`quality` (frame, covariate), and over frame the coordinates user, object, video, condition, split,
`flag_*` (1, 0, -1 not annotated), `box_x`, `box_y`, `box_width`, `box_height` (pixels of
1080 x 1080, NaN for none), `frame_number` and `path` (relative to the tree). Its attributes say
which backbone made it from which frames and what was left out. Small JPEG pictures of each video,
if wanted, are in its group `thumbnails`; without that group a store holds no pixel of the data.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr

from bayesfs._utils.arrays import Ints
from bayesfs._utils.atomic import KEPT_NAME, PARTIAL, remove, write_whole
from bayesfs._utils.guarded_files import fixed_width
from bayesfs._utils.places import without_places
from bayesfs.data.sources.video import LEVELS, Skipped
from bayesfs.data.zarr_files import check_zarr, concat, create_array, finish, write_dataset
from bayesfs.errors import DataError

if TYPE_CHECKING:
    from bayesfs.types import Embeddings

FORMAT = 2
"""Version of the layout; a store of another one is refused."""

MAX_LOAD = 2**34
"""Features that `open_store` loads at most, in bytes; `iter_store` reads any store in pieces."""

MAX_SKIPPED = 1000
"""Skipped records kept in a store; all of them are counted."""

JPEG_CHUNK = 2**20

MOST_PICTURES, LARGEST_PICTURE = 64, 2**20
"""Thumbnails of a video and bytes of each, at most."""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of one frame.

    Attributes:
        video: name of the video.
        frame_number: number of the frame.
        jpeg: the encoded picture.
    """

    video: str
    frame_number: int
    jpeg: bytes


def open_store(path: str | Path, *, users: Sequence[str] | None = None) -> Embeddings:
    """Embeddings of a store, all of them or those of some users.

    Args:
        path: the store.
        users: read only the frames of these users.

    Returns:
        Validated embeddings; the store's attributes are those of the dataset.

    Raises:
        DataError: no store, one of another version, damaged, too large to load at once, or
            without such a user.
    """
    with named_store(path):
        ds = _open(Path(path))
        rows = np.arange(ds.sizes["frame"])
        if users is not None:
            known = fixed_width(ds["user"].values)
            unknown = sorted(set(users) - set(known.tolist()))
            if unknown or isinstance(users, str):
                raise DataError(f"it has no frame of the users {unknown or users!r}")
            rows = np.flatnonzero(np.isin(known, list(users)))
        if len(rows) * ds.sizes["feature"] * 4 > MAX_LOAD:
            raise DataError(f"{len(rows)} frames are too many to load; use iter_store or users=")
        if not len(rows):
            raise DataError("it has no frame" if users is None else "expected users, got none")
        return load_frames(ds, slice(None) if users is None else rows)


def words_of_store(path: str | Path, *, coordinate: str = "", prefix: str = "") -> set[str]:
    """Values of a coordinate over the frames of a store, and names of those of a prefix.

    Raises:
        DataError: no store, one of another version, or damaged.
    """
    with named_store(path):
        ds = _open(Path(path))
        names = {str(name) for name in ds.variables if prefix and str(name).startswith(prefix)}
        return names | set(fixed_width(ds[coordinate].values).tolist() if coordinate else ())


def iter_store(path: str | Path, frames: int = 65536) -> Iterator[Embeddings]:
    """A store in pieces of whole videos, in bounded memory.

    Args:
        path: the store.
        frames: a piece ends at the first end of a video at or after so many frames.

    Yields:
        Embeddings of consecutive videos.

    Raises:
        DataError: as `open_store`.
    """
    with named_store(path):
        ds = _open(Path(path))
        rest: list[xr.Dataset] = []
        for start in range(0, ds.sizes["frame"], frames):
            piece = concat([*rest, _text(ds.isel(frame=slice(start, start + frames)).load())])
            video = piece["video"].values
            last = int(np.flatnonzero(video != video[-1]).max(initial=-1)) + 1
            rest = [piece.isel(frame=slice(last, None))]
            if last:
                yield _valid(piece.isel(frame=slice(0, last)))
        yield _valid(rest[0])


def thumbnails(path: str | Path, videos: Collection[str]) -> dict[str, tuple[Thumbnail, ...]]:
    """Pictures of videos, each in order of time; none where the store was made without.

    Args:
        path: the store, which is checked once.
        videos: names.

    Raises:
        DataError: no store, or damaged.
    """
    with named_store(path):
        check_zarr(Path(path))
        group = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        if "thumbnails" not in group:
            return dict.fromkeys(videos, ())
        group = group["thumbnails"]
        names = fixed_width(group["video"][:])
        numbers, jpeg = group["frame_number"][:], group["jpeg"]
        stop = group["stop"][:].astype(np.int64)
        start = np.concatenate([[0], stop])[:-1].astype(np.int64)
        size = stop - start
        if (size < 0).any() or stop[-1:].sum() > jpeg.shape[0]:
            raise DataError("its thumbnails have impossible sizes")
        rows = {video: np.flatnonzero(names == video) for video in videos}
        for own in rows.values():
            if len(own) > MOST_PICTURES or size[own].max(initial=0) > LARGEST_PICTURE:
                raise DataError("its thumbnails are no small pictures, or too many of one video")
        return {
            video: tuple(
                Thumbnail(video, number, picture)
                for number, picture in zip(
                    numbers[own].tolist(), _pieces(jpeg, start[own], stop[own]), strict=True
                )
            )
            for video, own in rows.items()
        }


def _pieces(jpeg: zarr.Array, start: Ints, stop: Ints) -> list[bytes]:
    """What lies between each start and stop, read at once where they follow one another."""
    if len(start) and (start[1:] == stop[:-1]).all():
        whole = bytes(jpeg[int(start[0]) : int(stop[-1])])
        cuts = zip((start - start[0]).tolist(), (stop - start[0]).tolist(), strict=True)
        return [whole[a:b] for a, b in cuts]
    return [bytes(jpeg[a:b]) for a, b in zip(start.tolist(), stop.tolist(), strict=True)]


def save_store(path: str | Path, embeddings: Embeddings) -> None:
    """Write embeddings that were made elsewhere as a store, under a temporary name first.

    Args:
        path: where; must not exist.
        embeddings: labelled features, with their attributes if these are text or numbers.

    Raises:
        DataError: something is there already, or the disk refuses.
    """
    if Path(path).exists():
        raise DataError(f"{str(path)!r} exists already; choose another name")
    replace_store(path, embeddings)


def replace_store(path: str | Path, embeddings: Embeddings) -> None:
    """As `save_store`, in place of the store that is there.

    Raises:
        DataError: what is there is no store, or the disk refuses.
    """
    target = Path(path)
    if target.exists():
        store_attrs(target)
    plain = {
        str(k): v.item() if isinstance(v, np.generic) else v
        for k, v in embeddings.dataset.attrs.items()
    }
    attrs = {k: v for k, v in plain.items() if isinstance(v, str | int | float)}
    with named_store(path, "written"):
        for left in target.parent.glob(f"{PARTIAL}*-{glob.escape(target.name[:KEPT_NAME])}"):
            remove(left)
        blocks = [embeddings.dataset]
        write_whole(target, lambda path: write_store(path, blocks, len(embeddings), attrs))


def write_store(
    path: Path,
    blocks: Iterable[xr.Dataset],
    frames: int,
    attrs: Mapping[str, str | int | float],
    pictures: Iterable[Thumbnail] | None = None,
) -> None:
    """Write a store block by block; whoever calls it renames the finished folder.

    Args:
        path: a temporary folder that does not exist yet.
        blocks: datasets of consecutive frames.
        frames: number of frames of all blocks.
        attrs: what the store says of itself.
        pictures: thumbnails, or None for none.
    """
    group = write_dataset(path, blocks, frames, {**attrs, "bayesfs_store": FORMAT})
    if pictures is not None:
        _write_thumbnails(group.create_group("thumbnails"), iter(pictures))
    finish(path)


def store_attrs(path: str | Path) -> dict[str, Any]:
    """What a store says of itself: backbone, px, fingerprint, versions, what was left out.

    Raises:
        DataError: no store, or damaged.
    """
    with named_store(path):
        folder = Path(path)
        if folder.is_dir() and not (folder / "zarr.json").exists():
            raise DataError(
                "no feature store, having no zarr.json; is it a tree of videos? "
                "`bayesfs features TREE STORE`"
            )
        attrs = check_zarr(folder)
        attrs.pop("coordinates", None)  # xarray's own note
        if attrs.get("bayesfs_store") != FORMAT:
            raise DataError(
                f"no feature store of version {FORMAT}, got {attrs.get('bayesfs_store')!r}; was it "
                "written by an earlier bayesfs? Make it again with `bayesfs features` or save_store"
            )
        if not all(isinstance(v, str | int | float) for v in attrs.values()):
            raise DataError("its attributes hold more than text and numbers")
        return attrs


def skipped_attrs(skipped: Sequence[Skipped]) -> dict[str, str | int]:
    """Attributes that carry what was left out: of very much, the gravest losses."""
    gravest = sorted(range(len(skipped)), key=lambda i: LEVELS.index(skipped[i].level))
    kept = [skipped[i] for i in sorted(gravest[:MAX_SKIPPED])]
    clean = [asdict(replace(s, reason=without_places(s.reason))) for s in kept]
    return {"skipped": json.dumps(clean), "skipped_count": len(skipped)}


def read_skipped(attrs: Mapping[Any, Any]) -> tuple[Skipped, ...]:
    """What was left out, from the attributes of a store or of its embeddings' dataset.

    At most `MAX_SKIPPED` records; `attrs["skipped_count"]` counts all.

    Raises:
        DataError: the attribute is no list of records.
    """
    try:
        return tuple(Skipped(**record) for record in json.loads(attrs.get("skipped", "[]")))
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"the attribute 'skipped' of the store is damaged: {error}") from error


def _write_thumbnails(group: Any, pictures: Iterator[Thumbnail]) -> None:
    """Arrays video, frame_number and stop over thumbnail; jpeg holds all bytes end to end."""
    arrays = {
        name: create_array(group, name, dtype, (0,), (dim,), rows)
        for name, dtype, dim, rows in (
            ("video", np.str_, "thumbnail", 2048),
            ("frame_number", np.int32, "thumbnail", 2048),
            ("stop", np.int64, "thumbnail", 2048),
            ("jpeg", np.uint8, "byte", JPEG_CHUNK),
        )
    }
    end = 0
    while batch := list(islice(pictures, 2048)):
        stop = end + np.cumsum([len(p.jpeg) for p in batch])
        end = int(stop[-1])
        arrays["video"].append(np.array([p.video for p in batch], np.str_))
        arrays["frame_number"].append(np.array([p.frame_number for p in batch], np.int32))
        arrays["stop"].append(stop.astype(np.int64))
        arrays["jpeg"].append(np.frombuffer(b"".join(p.jpeg for p in batch), np.uint8))


def _open(path: Path) -> xr.Dataset:
    attrs = store_attrs(path)
    ds: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=False, zarr_format=3)
    if "features" not in ds or ds["features"].dims != ("frame", "feature"):
        raise DataError("it has no variable 'features' with the axes frame, feature")
    ds.attrs = attrs
    return ds


def load_frames(ds: xr.Dataset, rows: Any) -> Embeddings:
    """Validated embeddings of some frames of an open store."""
    return _valid(_text(ds.isel(frame=rows).load()))


def _text(ds: xr.Dataset) -> xr.Dataset:
    """Strings in fixed width."""
    text = {
        str(name): (v.dims, fixed_width(v.values))
        for name, v in ds.variables.items()
        if v.dtype.kind not in "biuf"
    }
    return ds.assign_coords(text)


def _valid(ds: xr.Dataset) -> Embeddings:
    """Embeddings, if the frames of each video are contiguous."""
    from bayesfs.types import Embeddings  # torch, which other readers of a store do without

    embeddings = Embeddings.of_own(ds)
    video = embeddings.coord("video")
    runs = 1 + int((video[1:] != video[:-1]).sum())
    if runs != len(np.unique(video)):
        raise DataError("the frames of a video are not contiguous; were stores mixed?")
    return embeddings


@contextmanager
def named_store(path: str | Path, done: str = "read") -> Iterator[None]:
    """Name the store in every error."""
    try:
        yield
    except DataError as error:
        name = f"store {str(path)!r}: "
        raise DataError(name + str(error).removeprefix(name)) from error  # scopes may nest
    except Exception as error:  # zarr, numcodecs and xarray have many kinds for damaged bytes
        text = " ".join(str(error).split())[:300]
        raise DataError(
            f"store {str(path)!r} cannot be {done} ({type(error).__name__}: {text}); damaged, or "
            "changed since it was written?"
        ) from error
