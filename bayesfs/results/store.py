"""Save a run's DataTree as Zarr 3 or netCDF 4 and read it back, checked; never unpickled.

`save_datatree` writes beside the target and renames, so that a reader never sees half a file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from bayesfs._utils.atomic import write_whole
from bayesfs._utils.guarded_files import check_expansion, fixed_width, opened
from bayesfs.errors import DataError
from bayesfs.results.hdf5_limits import attribute_bytes, claimed_bytes
from bayesfs.results.schema import SCHEMA, UNCERTAINTY

GROUPS = (
    "posterior",
    "sample_stats",
    "posterior_predictive",
    "predictive_weights",
    "log_likelihood",
    "query_log_likelihood",
    "observed_data",
    "constant_data",
    "uncertainty",
)
"""Groups that every run's tree has."""

COMPRESSED = 2**20
"""Bytes from which arrays are not compressed: draws hardly shrink, and take twice as long."""

BARE_AXIS = b"This is a netCDF dimension but not a netCDF variable"
"""How the name of such an axis begins, see the netCDF-4 format."""

INTERNAL = {
    "CLASS",
    "NAME",
    "DIMENSION_LIST",
    "REFERENCE_LIST",
    "_Netcdf4Dimid",
    "_Netcdf4Coordinates",
    "_NCProperties",
}
"""Attributes by which netCDF-4 is laid out in HDF5."""

DEEPEST = 8
"""Groups within groups of a netCDF file: a hard link to a group above would have no end."""


def save_datatree(tree: xr.DataTree, path: str | Path) -> Path:
    """Write a tree to `*.zarr` (a folder, Zarr 3) or `*.nc` (netCDF 4 through h5netcdf).

    Args:
        tree: from `bayesfs.results.assemble.assemble_tree`.
        path: where; what is there is replaced by renaming, once the new one is whole.

    Returns:
        The path.

    Raises:
        DataError: another suffix, or the folder to write into does not exist.
    """
    path = Path(path)
    writers: dict[str, Callable[[xr.DataTree, Path], None]] = {
        ".zarr": _write_zarr,
        ".nc": _write_netcdf,
    }
    if path.suffix not in writers:
        raise DataError(f"{path}: expected a name ending in .zarr or .nc, got {path.suffix!r}")
    if not path.parent.is_dir():
        raise DataError(f"{path}: its folder does not exist; make it first")
    write_whole(path, partial(writers[path.suffix], tree))
    return path


def load_datatree(path: str | Path, *, without: Collection[str] = ()) -> xr.DataTree:
    """Read a tree that `save_datatree` wrote into memory.

    Args:
        path: the file or folder.
        without: groups whose values are not read, none of which is in `GROUPS`; they are checked.

    Raises:
        DataError: nothing is there, it is no such tree or of another version, it is cut short,
            it holds types or codecs that bayesfs does not write, or probabilities and entropies
            are out of range.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    try:
        tree = _read_zarr(path, without) if path.is_dir() else _read_netcdf(path, without)
    except DataError:
        raise
    except Exception as e:  # whatever zarr, h5py or xarray make of a broken file
        raise DataError(f"{path}: cannot be read as a run's DataTree ({e}); is it whole?") from e
    check_datatree(tree, str(path))
    return tree


def check_datatree(tree: xr.DataTree, name: str) -> None:
    """Check that a tree has the groups, version and ranges that the report relies on.

    Args:
        tree: the tree.
        name: what the message calls it.

    Raises:
        DataError: it has not.
    """
    found = tree.attrs.get("bayesfs_schema")
    if found != SCHEMA:
        raise DataError(
            f"{name}: expected bayesfs_schema {SCHEMA}, got {found!r}; was it made by another "
            "version of bayesfs?"
        )
    missing = [group for group in GROUPS if group not in tree.children]
    if missing:
        raise DataError(f"{name}: expected the groups {GROUPS}, missing {missing}; was it cut?")
    said = tree["uncertainty"].to_dataset()
    wanted = (*UNCERTAINTY, "video_prob", "frame_prob")
    absent = [variable for variable in wanted if variable not in said]
    if absent:
        raise DataError(f"{name}: group uncertainty lacks {absent}")
    for variable in wanted:
        values = said[variable].values
        top = 1.001 if variable.endswith("_prob") else np.inf
        bad = ~np.isnan(values) & ((values < -1e-3) | (values > top))
        if bad.any():
            raise DataError(
                f"{name}: uncertainty/{variable} holds {values[bad][0]}, out of range; "
                "was the file changed?"
            )


def _write_zarr(tree: xr.DataTree, path: Path) -> None:
    stored = tree.map_over_datasets(_variable_length_strings)
    stored.to_zarr(path, mode="w-", zarr_format=3, consolidated=False)


def _write_netcdf(tree: xr.DataTree, path: Path) -> None:
    encoding = {
        node.path: {
            str(n): {"zlib": v.nbytes < COMPRESSED}
            for n, v in node.variables.items()
            if v.dtype.kind == "f"
        }
        for node in tree.subtree
    }
    # made in memory: HDF5 that runs into a full disk while closing a file takes the process along
    path.write_bytes(tree.to_netcdf(None, engine="h5netcdf", encoding=encoding))


def _read_zarr(path: Path, without: Collection[str]) -> xr.DataTree:
    from bayesfs.data.zarr_limits import check_listed  # zarr, which a netCDF file does without

    if check_listed(path) != 3:
        raise DataError(f"{path}: expected a folder of Zarr 3, with a zarr.json")
    with xr.open_datatree(path, engine="zarr", consolidated=False, zarr_format=3) as tree:
        return as_saved(_left(tree, without).load())


def _left(tree: xr.DataTree, without: Collection[str]) -> xr.DataTree:
    """The tree without some of its groups."""
    return tree.drop_nodes([name for name in without if name in tree.children])


def _check_datasets(path: Path) -> None:
    """Refuse HDF5 whose values lie in other files, or that asks for more than it holds.

    Raises:
        DataError: a link, a dataset with external storage, a virtual dataset, a type or filter
            that bayesfs does not write, or values that would take far more memory than the file.
    """
    claimed, stored = 0, path.stat().st_size
    with opened(path) as raw, h5py.File(raw, "r") as file:
        waiting = [file["/"]]
        while waiting:  # only hard links are followed, each group once: no cycle without a link
            group = waiting.pop()
            claimed += attribute_bytes(group)
            for name in group:
                link = group.get(name, getlink=True)
                item = group[name] if isinstance(link, h5py.HardLink) else None
                if isinstance(item, h5py.Group) and item.name.count("/") < DEEPEST:
                    waiting.append(item)
                elif not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
                    raise DataError(
                        f"{path}: {name!r} is a link or keeps its values in another file, which "
                        "bayesfs never writes; do not trust this file"
                    )
                else:
                    claimed += claimed_bytes(item, stored) + attribute_bytes(item)
                check_expansion(claimed, stored)


def _read_netcdf(path: Path, without: Collection[str]) -> xr.DataTree:
    """The tree by h5py itself: `xarray.open_datatree` takes four times as long, a group at a time.

    Decoding is xarray's, so that the tree is the one that it would give.
    """
    _check_datasets(path)
    found: dict[str, xr.Dataset] = {}
    with opened(path) as raw, h5py.File(raw, "r") as file:
        waiting = [("/", file["/"])]
        while waiting:
            place, group = waiting.pop()
            found[place] = _dataset_of(group)
            inner = [(name, group[name]) for name in group if isinstance(group[name], h5py.Group)]
            waiting += [(f"{place}{n}/", g) for n, g in inner if f"{place}{n}" not in _at(without)]
    return as_saved(xr.DataTree.from_dict(dict(sorted(found.items()))))


def _at(groups: Collection[str]) -> set[str]:
    return {f"/{name}" for name in groups}


def _dataset_of(group: h5py.Group) -> xr.Dataset:
    """One group of a netCDF file."""
    variables = {
        name: xr.Variable(_axes_of(item), _values_of(item), _attributes_of(item))
        for name, item in group.items()
        if isinstance(item, h5py.Dataset) and not _is_bare_axis(item)
    }
    return xr.decode_cf(xr.Dataset(variables, attrs=_attributes_of(group)))


def _is_bare_axis(item: h5py.Dataset) -> bool:
    """Whether a dataset only says how long an axis is."""
    return bytes(item.attrs.get("NAME", b"")).startswith(BARE_AXIS)


def _axes_of(item: h5py.Dataset) -> list[str]:
    """Names of a variable's axes; a coordinate of its own axis has its own name."""
    if item.is_scale:
        return [item.name.rpartition("/")[2]]
    return [axis[0].name.rpartition("/")[2] for axis in item.dims]


def _values_of(item: h5py.Dataset) -> Any:
    text = h5py.check_string_dtype(item.dtype) is not None
    return item.asstr()[()] if text else item[()]


def _attributes_of(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """What a group or variable says of itself; what HDF5 and netCDF say of it is left out."""
    found = {name: item.attrs[name] for name in item.attrs if name not in INTERNAL}
    return {
        n: v.item() if isinstance(v, np.ndarray) and v.size == 1 else v for n, v in found.items()
    }


def as_saved(tree: xr.DataTree) -> xr.DataTree:
    """A tree as `load_datatree` gives it: strings of fixed length, attributes of Python's types."""
    tree = tree.map_over_datasets(_fixed_length_strings)
    for node in tree.subtree:
        node.attrs = {
            k: v.item() if isinstance(v, np.generic) else v for k, v in node.attrs.items()
        }
    return tree


def _variable_length_strings(ds: xr.Dataset) -> xr.Dataset:
    """Strings as Zarr 3 specifies them; fixed-length ones are only an extension."""
    return _convert_strings(ds, np.dtype(object))


def _fixed_length_strings(ds: xr.Dataset) -> xr.Dataset:
    return _convert_strings(ds, np.dtype(str))


def _convert_strings(ds: xr.Dataset, dtype: np.dtype[Any]) -> xr.Dataset:
    changed = {
        name: (v.dims, fixed_width(v.values).astype(dtype), v.attrs)
        for name, v in ds.variables.items()
        if v.dtype.kind in "UTO"
    }
    coords = {name: value for name, value in changed.items() if name in ds.coords}
    rest = {name: value for name, value in changed.items() if name not in coords}
    return ds.assign_coords(coords).assign(rest)
