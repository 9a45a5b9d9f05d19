"""Read a folder of recordings of either layout: `read_tree`."""

from __future__ import annotations

from pathlib import Path

from bayesfs.data.sources.folder import describe_layout, is_folder, read_folder
from bayesfs.data.sources.orbit import is_orbit, read_orbit
from bayesfs.data.sources.video import VideoTree
from bayesfs.errors import DataError


def read_tree(root: str | Path) -> VideoTree:
    """Videos of an ORBIT-shaped tree or of a person's own folder, told apart by looking.

    Args:
        root: the folder; see `bayesfs.data.sources.orbit` and `bayesfs.data.sources.folder` for the
            two layouts.

    Returns:
        Every usable video, and what was left out.

    Raises:
        DataError: the folder is missing or has neither layout.
    """
    path = Path(root)
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise DataError(f"expected a folder of videos, but {str(path)!r} {what}")
    if is_orbit(path):
        return read_orbit(path)
    if is_folder(path):
        return read_folder(path)
    if (path / "zarr.json").exists():
        raise DataError(f"{str(path)!r} is a feature store already; pass it to `bayesfs run`")
    raise DataError(
        f"{str(path)!r} has neither layout: expected {{train,validation,test}}/USER/object/"
        "{clean,clutter}/VIDEO/VIDEO-00001.jpg, or object name/*.mp4, or object name/*.jpg, or "
        "object name/video/*.jpg. "
        f"{describe_layout(path)}"
    )
