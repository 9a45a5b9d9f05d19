"""Ways in that a stranger's files or neighbours could use: `open_doors` tries each, and tells.

Each trial plants something and uses bayesfs as a person would. It says what came of it where the
door is open, and "" where it is closed: an error of bayesfs, or nothing. Trials stand by kind; a
kind of which one door opens counts once. Each runs in a process of its own, so that it may hang,
die or take what memory it can.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numcodecs.pickles
import numpy as np
import torch
import zarr
from PIL import Image

from bayesfs.cli.explain_run import explain_run
from bayesfs.data.sources.orbit import read_orbit
from bayesfs.data.stills import read_stills
from bayesfs.data.store import Thumbnail, open_store, store_attrs, thumbnails, write_store
from bayesfs.errors import BayesfsError, DataError
from bayesfs.features.extraction.extract import extract
from bayesfs.plots.text import small_jpeg
from bayesfs.recipes.load import copy_recipes, load_recipe
from bayesfs.results.store import load_datatree, save_datatree
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.reading import report_run
from bayesfs.runs.rules import load_rules
from bayesfs.synthetic.tasks import synthetic_embeddings
from bayesfs.synthetic.videos.render import render_tree
from bayesfs.training.checkpoint import load_posterior
from bayesfs.types import Embeddings

from .hostile import PRELOAD, small_tree
from .planted import many_scans

Trial = Callable[[Path], str]
"""Tries a door in an empty folder; what came of it, "" if nothing."""

PATIENCE = 600.0
"""Seconds after which a trial counts as a hang, on a machine that others work on, too."""

GREW = 1.5
"""Gigabytes by which a process may grow over a planted file of some kilobytes."""

OWNER = "anna-secret"
"""Name of a machine's user that must be in nothing that is shared."""

RUN = {
    "recipes": {},
    "settings": [],
    "smoke": False,
    "seed": 0,
    "data": "x",
    "thumbnails": True,
    "version": "0",
}


def finished_run(path: Path, quantity: str | None = None) -> RunDirectory:
    """A finished run as small as can be, of which a report can be made."""
    tree = small_tree()
    tree.attrs["shots"] = 1
    if quantity is not None:
        tree["label_check"] = _checked(quantity)
    run = RunDirectory(path)
    with run.begin(RUN, {"model.py": "model = 1\n"}):
        run.keep("results-01.nc", partial(save_datatree, tree))
        run.finish(facts={}, store="")
    return run


def _checked(quantity: str) -> Any:
    import xarray as xr

    row = np.full((1, 1), 0.5)
    data = {name: (("task", "quantity"), row) for name in ("p", "observed", "low", "high")}
    return xr.DataTree(xr.Dataset(data, {"task": ["t"], "quantity": [quantity]}))


class Trap:
    """What unpickles to a file being made."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


def code_from_zarr2(here: Path) -> str:
    """Zarr 2, names as objects with the filter that unpickles."""
    group = zarr.open_group(here / "s.zarr", mode="w", zarr_format=2)
    group["feat"] = np.zeros((2, 3), np.float32)
    group["label"] = np.zeros(2, np.int64)
    place = here / "s.zarr" / "label"
    chunk = pickle.dumps(Trap(here / "ran"))
    meta = json.loads((place / ".zarray").read_text())
    meta |= {"dtype": "|O", "compressor": None, "fill_value": None}
    meta["filters"] = [{"id": "vlen-utf8"}, {"id": "pickle"}]
    (place / ".zarray").write_text(json.dumps(meta))
    (place / "0").write_bytes(chunk)
    return _ran(here, lambda: read_stills(here / "s.zarr"))


def code_from_zarr3(here: Path) -> str:
    """Zarr 3, in every reader, an array whose codec unpickles."""
    said = []
    made = Embeddings.from_arrays(np.zeros((2, 3), np.float32), object=["a", "b"])
    write_store(here / "store.zarr", [made.dataset], 2, {"backbone": "b"})
    save_datatree(small_tree(), here / "tree.zarr")
    stills = zarr.open_group(here / "stills.zarr", mode="w", zarr_format=3)
    stills["feat"], stills["label"] = np.zeros((2, 3), np.float32), np.zeros(2, np.int64)
    for store, array, read in (
        ("store.zarr", "object", open_store),
        ("tree.zarr", "constant_data/class_name", load_datatree),
        ("stills.zarr", "label", read_stills),
    ):
        file = here / store / array / "zarr.json"
        meta = json.loads(file.read_text())
        meta["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
        file.write_text(json.dumps(meta))
        for chunk in (here / store / array / "c").rglob("*"):
            if chunk.is_file():
                chunk.write_bytes(pickle.dumps(Trap(here / "ran")))
        said.append(_ran(here, partial(read, here / store)))
        if not said[-1]:
            with contextlib.suppress(BayesfsError):
                read(here / store)
                said.append(f"{store}: the codec was accepted")
    return "; ".join(filter(None, said))


def code_from_collected(here: Path) -> str:
    """Metadata collected in a group, which say other than the arrays' own."""
    path = here / "s.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group["feat"], group["label"] = np.zeros((2, 3), np.float32), np.zeros(2, np.int64)
    zarr.consolidate_metadata(path)
    meta = json.loads((path / "zarr.json").read_text())
    inside = meta["consolidated_metadata"]["metadata"]["label"]
    inside["shape"] = inside["chunk_grid"]["configuration"]["chunk_shape"] = [3]
    (path / "zarr.json").write_text(json.dumps(meta))
    try:
        count = len(read_stills(path))
    except BayesfsError as error:
        return f"the collected metadata were read: {error}"
    return "" if count == 2 else "the collected metadata were read"


def code_from_hdf5(here: Path) -> str:
    """A netCDF file with a filter that HDF5 would look for among plugins."""
    save_datatree(small_tree(), here / "r.nc")
    with h5py.File(here / "r.nc", "r+") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((2,))
        plist.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((2,))
        h5py.h5d.create(file.id, b"extra", h5py.h5t.NATIVE_DOUBLE, space, plist)
    try:
        load_datatree(here / "r.nc")
    except BayesfsError:
        return ""
    return "a filter from a plugin was accepted"


def _ran(here: Path, read: Callable[[], object]) -> str:
    """Whether code ran, though the codec that unpickles is granted as older numcodecs do."""
    numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE = True
    with contextlib.suppress(BayesfsError):
        read()
    return "code of the data ran" if (here / "ran").exists() else ""


def links_in_a_run(here: Path) -> str:
    """Links under every name that a run writes to."""
    names = (
        "report.md",
        "explained",
        "recipes",
        "results-02.nc",
        ".bayesfs-lock",
        "run.json",
        f".bayesfs-partial-{os.getpid()}-report.md",
        f".bayesfs-partial-{os.getpid()}-note.txt",
        f".bayesfs-partial-{os.getpid()}-run.json",
    )
    said = []
    for number, name in enumerate(names):
        outside = here / f"outside-{number}"
        run = finished_run(here / f"run-{number}")
        place = run.path / name
        if name == "recipes":
            shutil.rmtree(place)
        folder = name in ("explained", "recipes")
        if folder:
            outside.mkdir()
        else:
            outside.write_text("mine")
        place.unlink(missing_ok=True)
        place.symlink_to(outside)
        for use in (_report, _write_on, partial(_picture, name=name)):
            with contextlib.suppress(BayesfsError):
                use(run)
        if any(outside.iterdir()) if folder else outside.read_text() != "mine":
            said.append(f"{name}: written outside")
    return "; ".join(said)


def _report(run: RunDirectory) -> None:
    report_run(run.path, "md")


def _write_on(run: RunDirectory) -> None:
    with run.begin({**RUN, "seed": 1}, {"model.py": "model = 2\n"}):
        run.keep("note.txt", lambda path: path.write_text("x"))


def _picture(run: RunDirectory, name: str) -> None:
    explain_run(run.path, "t#0-v0", shots=None, out=None, rules=False, trust=False)


def unfinished_of_another(here: Path) -> str:
    """A person's own folder that is named as bayesfs would name its own."""
    work = here / "s.zarr.partial"
    work.mkdir()
    (work / "letter.txt").write_text("mine")
    with contextlib.suppress(BayesfsError):
        extract(_videos(here), _Mean(), here / "s.zarr")
    if not (work / "letter.txt").exists():
        return "a person's folder was deleted"
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    (here / "t.zarr.partial").symlink_to(elsewhere)
    with contextlib.suppress(BayesfsError):
        extract(_videos(here), _Mean(), here / "t.zarr")
    return "worked in a folder behind a link" if any(elsewhere.iterdir()) else ""


class _Mean:
    """A backbone that is none: the mean colour."""

    name, px, dim, batch = "mean", 32, 3, 8

    def __call__(self, images: Any) -> Any:
        return images.mean((1, 2)).astype(np.float32)


def _videos(here: Path) -> Any:
    if not (here / "tree").exists():
        sizes = {"train_users": 1, "test_users": 0, "objects": 1, "clean_videos": 1, "size": 32}
        render_tree(here / "tree", **sizes, clean_frames=2, clutter_videos=1, clutter_frames=2)
    return read_orbit(here / "tree").videos


def recipes_of_another(here: Path) -> str:
    """A folder with a person's own recipes as --out."""
    mine = here / "study" / "recipes" / "model.py"
    mine.parent.mkdir(parents=True)
    mine.write_text("model = mine")
    with (
        contextlib.suppress(BayesfsError),
        RunDirectory(here / "study").begin(RUN, {"model.py": "model = 1"}),
    ):
        pass
    return "" if mine.read_text() == "model = mine" else "a person's recipe was overwritten"


def pictures_of_two(here: Path) -> str:
    """Pictures of two videos whose names are alike in letters."""
    from bayesfs.cli import explain_run

    name = getattr(explain_run, "picture_name", None)
    if name is None:
        return "two pictures have one name"
    pairs = (("keys on desk", None), ("keys_on_desk", None), ("keys", 5), ("keys-05", None))
    return "" if len({name(*pair) for pair in pairs}) == 4 else "two pictures have one name"


def recipes_on_a_full_disk(here: Path) -> str:
    """`init` when the disk fills, and once more when there is room."""
    whole, count = shutil.copyfile, [0]

    def fill(origin: Path, target: Path) -> None:
        count[0] += 1
        if count[0] == 3:
            Path(target).write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        whole(origin, target)

    shutil.copyfile = fill
    with contextlib.suppress(OSError):
        copy_recipes(here)
    shutil.copyfile = whole
    if any(p.read_text() == "half" for p in here.rglob("*.py")):
        return "half a recipe was left"
    try:
        copy_recipes(here)
    except BayesfsError as error:
        return f"refused for ever: {error}"
    return ""


def report_of_another(here: Path) -> str:
    """A person's own report.md in a run directory."""
    run = finished_run(here / "run")
    (run.path / "report.md").write_text("mine")
    with contextlib.suppress(BayesfsError):
        report_run(run.path, "md")
    return "" if (run.path / "report.md").read_text() == "mine" else "a person's file is lost"


def neighbours_of_a_cluster(here: Path) -> str:
    """Who can hear, and speak to, the scheduler of `--cluster local`."""
    import distributed
    import psutil

    from bayesfs.runs.distributed import connect

    with connect("local:1") as client:
        client.submit(int).result()
        me = psutil.Process()
        heard = {
            c.laddr.ip
            for process in (me, *me.children(recursive=True))
            for c in process.net_connections("inet")
            if c.status == psutil.CONN_LISTEN
        }
        if heard - {"127.0.0.1", "::1"}:
            return f"it listens on {sorted(heard)}"
        address = client.scheduler.address
        strangers: list[Any] = [{}, {"security": distributed.Security.temporary()}]
        for stranger in strangers:
            with (
                contextlib.suppress(OSError, TypeError, ValueError),
                distributed.Client(address, timeout=5, set_as_default=False, **stranger) as other,
            ):
                if other.submit(os.getpid, pure=False).result(timeout=10):
                    return "a stranger's code ran in a worker"
    return ""


def pipes_and_devices(here: Path) -> str:
    """A pipe, a device or a file of a terabyte where a small file is expected."""
    said = []
    for kind in ("pipe", "device", "sparse"):
        for name, read in _readers(here / kind):
            file = here / kind / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            if kind == "pipe":
                os.mkfifo(file)
            elif kind == "device":
                file.symlink_to("/dev/zero")
            else:
                with file.open("wb") as opened:
                    opened.truncate(2**40)
            try:
                with _limited(3.0):
                    read()
                said.append(f"{kind} as {name} was read")
            except BayesfsError:
                pass
            except BaseException as error:
                said.append(f"{kind} as {name}: {type(error).__name__}")
    return "; ".join(said)


def _readers(here: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Small files that bayesfs reads, each with its reader."""
    yield "run/run.json", lambda: RunDirectory(here / "run").state()
    yield "rules-05.json", lambda: load_rules(here / "rules-05.json")
    yield "model.py", lambda: load_recipe(here / "model.py", "model")
    yield "population.npz", lambda: load_posterior(here / "population.npz")
    yield "stills.npz", lambda: read_stills(here / "stills.npz")
    yield "r.nc", lambda: load_datatree(here / "r.nc")
    yield "s.zarr/zarr.json", lambda: store_attrs(here / "s.zarr")
    yield "t.zarr/zarr.json", lambda: load_datatree(here / "t.zarr")
    yield "u.zarr/.zgroup", lambda: read_stills(here / "u.zarr")


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End what takes longer."""
    import signal

    def stop(signum: int, frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def long_string(here: Path) -> str:
    """One name of megabytes in a store, to whose width all others would be padded."""
    names = ["a"] * 2000
    made = Embeddings.from_arrays(
        np.zeros((2000, 1), np.float32), object=names, video=[f"v{i}" for i in range(2000)]
    ).dataset
    long = made["object"].values.astype(object)
    long[7] = "a" * 2_000_000
    write_store(here / "s.zarr", [made], 2000, {"backbone": "b"})
    group = zarr.open_group(here / "s.zarr", mode="r+", use_consolidated=False)
    group["object"][:] = long
    return _grows(lambda: open_store(here / "s.zarr"))


def bomb_of_zarr(here: Path) -> str:
    """A chunk of kilobytes that becomes gigabytes, by each compressor and in both versions."""
    said = []
    for number, codec in enumerate((numcodecs.Zstd(), numcodecs.GZip(), numcodecs.Blosc())):
        path = here / f"s{number}.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=2)
        group.create_array("feat", shape=(2, 3), dtype="f4", compressors=codec)[:] = 0
        group["label"] = np.zeros(2, np.int64)
        big = codec.encode(np.zeros(2**28, np.uint8))
        (path / "feat" / "0.0").write_bytes(big * (8 if number == 0 else 1))
        said.append(_grows(partial(read_stills, path), gigabytes=0.2))
    return "; ".join(filter(None, said))


def bomb_of_npz(here: Path) -> str:
    """An archive of kilobytes whose arrays become gigabytes."""
    head = io.BytesIO()
    size = 2 * 10**9
    wanted = {"descr": "|u1", "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(head, wanted)
    with (
        zipfile.ZipFile(here / "s.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("feat.npy", "w", force_zip64=True) as entry,
    ):
        entry.write(head.getvalue())
        for _ in range(size // 10**7):
            entry.write(bytes(10**7))
    return _grows(lambda: read_stills(here / "s.npz"))


def bomb_of_pieces(here: Path) -> str:
    """An archive that says little of its size, of bzip2, which is decompressed at once."""
    head = io.BytesIO()
    size, more = 10**7, 14 * 10**7
    wanted = {"descr": "|u1", "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(head, wanted)
    whole = len(head.getvalue()) + size
    path = here / "s.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive,
        archive.open("feat.npy", "w") as entry,
    ):
        entry.write(head.getvalue())
        for _ in range((size + more) // 10**7):
            entry.write(bytes(10**7))
    told, lie = ((whole + extra).to_bytes(4, "little") for extra in (more, 0))
    path.write_bytes(path.read_bytes().replace(told, lie))
    return _grows(lambda: read_stills(path), gigabytes=0.1)


def bomb_of_two_deflations(here: Path) -> str:
    """A netCDF file of which a chunk is to be decompressed twice."""
    save_datatree(small_tree(), here / "r.nc")
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((2**26,))
    plist.set_deflate(9)
    plist.set_deflate(9)
    deflate = zlib.compressobj(9)
    inner = b"".join(deflate.compress(bytes(2**26)) for _ in range(4)) + deflate.flush()
    with h5py.File(here / "r.nc", "r+") as file:
        space, kind = h5py.h5s.create_simple((2**26,)), h5py.h5t.NATIVE_UINT8
        data = h5py.h5d.create(file["constant_data"].id, b"odd", kind, space, plist)
        data.write_direct_chunk((0,), zlib.compress(inner), 0)
    return _grows(lambda: load_datatree(here / "r.nc"), gigabytes=0.15)


def bomb_of_attributes(here: Path) -> str:
    """An attribute in a netCDF file whose elements all are the same string of megabytes."""
    save_datatree(small_tree(), here / "r.nc")
    count, long = 5000, 600_000  # more than 64 kB of elements: kept outside what has a checksum
    with h5py.File(here / "r.nc", "r+") as file:
        texts = np.array(["a" * long] + ["b"] * count, object)
        file["constant_data"].attrs.create("odd", texts, dtype=h5py.string_dtype())
    raw = bytearray((here / "r.nc").read_bytes())
    at = raw.index(long.to_bytes(4, "little"))
    while raw[at + 16 : at + 20] != (1).to_bytes(4, "little"):
        at = raw.index(long.to_bytes(4, "little"), at + 1)
    raw[at : at + 16 * count] = raw[at : at + 16] * count
    (here / "r.nc").write_bytes(raw)
    return _grows(lambda: load_datatree(here / "r.nc"))


def bomb_of_hdf5(here: Path) -> str:
    """Names in a netCDF file that all are the same string of megabytes."""
    save_datatree(small_tree(), here / "r.nc")
    with h5py.File(here / "r.nc", "r+") as file:
        kind = h5py.string_dtype()
        data = file["constant_data"].create_dataset("odd", shape=(1500,), dtype=kind)
        data[0] = "a" * 2_000_000
        offset, size = data.id.get_offset(), data.id.get_storage_size() // 1500
    raw = bytearray((here / "r.nc").read_bytes())
    for row in range(1, 1500):
        raw[offset + row * size : offset + (row + 1) * size] = raw[offset : offset + size]
    (here / "r.nc").write_bytes(raw)
    return _grows(lambda: load_datatree(here / "r.nc"))


def bomb_of_thumbnails(here: Path) -> str:
    """A thumbnail of a stranger's store with huge sides, or with thousands of scans."""
    wide = io.BytesIO()
    Image.new("L", (12_000, 12_000)).save(wide, "JPEG")
    scans = io.BytesIO()
    Image.new("RGB", (900, 900)).save(scans, "JPEG", progressive=True)
    said = []
    for name, jpeg in (("wide", wide.getvalue()), ("scans", many_scans(scans.getvalue(), 2000))):
        made = Embeddings.from_arrays(np.zeros((1, 2), np.float32), object=["a"], video=["v"])
        path = here / f"{name}.zarr"
        write_store(path, [made.dataset], 1, {"backbone": "b"}, [Thumbnail("v", 0, jpeg)])
        with contextlib.suppress(DataError), _limited(20.0):
            if any(small_jpeg(one.jpeg, 96, 80) for one in thumbnails(path, ["v"])["v"]):
                said.append(f"{name}: was decoded")
    return "; ".join(said)


def _grows(read: Callable[[], object], gigabytes: float = GREW) -> str:
    """Whether this process grew by far more than the planted file."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = ""
    try:
        with _limited(40.0):
            read()
    except BayesfsError:
        pass
    except BaseException as error:
        said = type(error).__name__
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    return said or (f"took {grown:.1f} GB" if grown > gigabytes else "")


def names_in_markdown(here: Path) -> str:
    """A quantity of a check whose name is a picture, a link and a row of a table."""
    name = "![x](http://evil/p.png) <img src=x> | a | b"
    run = finished_run(here / "run", name)
    text = report_run(run.path, "md").read_text("utf-8")
    return "a name is markup in report.md" if "![x](http" in text or "<img" in text else ""


def places_in_what_is_shared(here: Path) -> str:
    """Files of a run, with the home of a person on the machine above all of them."""
    from bayesfs.cli.main import main
    from bayesfs.recipes.load import recipe_folder

    home = here / "home" / OWNER
    home.mkdir(parents=True)
    os.environ |= {"HOME": str(home), "USER": OWNER, "LOGNAME": OWNER, "USERNAME": OWNER}
    made = synthetic_embeddings(users=3, test_users=2, seed=0, way=3, shots=2, query_videos=1)[0]
    from bayesfs.data.store import save_store

    save_store(home / "s.zarr", made)
    names = ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
    recipes = [str(recipe_folder() / name) for name in names]
    for out in (home / "runs" / "first", here / "other" / "run"):
        argv = ["run", *recipes, "--data", str(home / "s.zarr"), "--out", str(out), "--smoke"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if main(argv):
                return "the run failed"
            main(["report", str(out), "--format", "md"])
        for found in told_of(out, (str(here), OWNER)):
            return f"{out.name}: {found}"
    return ""


def told_of(folder: Path, secrets: tuple[str, ...]) -> Iterator[str]:
    """Where any of these texts stands in the files of a folder, compressed ones too."""
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        pieces = [file.relative_to(folder).as_posix().encode(), file.read_bytes()]
        if file.suffix == ".npz":
            with zipfile.ZipFile(file) as archive:
                pieces += [archive.read(name) for name in archive.namelist()]
        if file.suffix == ".nc":
            pieces.append(_hdf5_text(file))
        for secret in secrets:
            if any(secret.encode() in piece for piece in pieces):
                yield f"{secret!r} in {file.relative_to(folder)}"


def _hdf5_text(file: Path) -> bytes:
    found = []

    def visit(name: str, item: Any) -> None:
        found.append(repr((name, {k: str(v) for k, v in item.attrs.items()})))
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "OSU":
            found.append(repr(item[()]))

    with h5py.File(file, "r") as opened:
        found.append(repr({k: str(v) for k, v in opened.attrs.items()}))
        opened.visititems(visit)
    return "\n".join(found).encode()


DOORS: Mapping[str, tuple[Trial, ...]] = {
    "code that runs from data": (
        code_from_zarr2,
        code_from_zarr3,
        code_from_collected,
        code_from_hdf5,
    ),
    "writing outside": (links_in_a_run,),
    "somebody's files": (
        unfinished_of_another,
        recipes_of_another,
        pictures_of_two,
        recipes_on_a_full_disk,
        report_of_another,
    ),
    "the cluster": (neighbours_of_a_cluster,),
    "bombs": (
        pipes_and_devices,
        long_string,
        bomb_of_zarr,
        bomb_of_npz,
        bomb_of_pieces,
        bomb_of_hdf5,
        bomb_of_two_deflations,
        bomb_of_attributes,
        bomb_of_thumbnails,
    ),
    "injection and privacy": (names_in_markdown, places_in_what_is_shared),
}
"""Kind of door -> what is tried."""


def open_doors() -> dict[str, list[str]]:
    """Kinds of doors that open -> what came of it."""
    found: dict[str, list[str]] = {}
    context = multiprocessing.get_context("forkserver")  # imports once, for all processes
    context.set_forkserver_preload([*PRELOAD, "bayesfs.data.stills", "h5py"])
    for kind, trials in DOORS.items():
        for number, trial in enumerate(trials):
            answers = context.Queue()
            child = context.Process(target=tried, args=(kind, number, answers))
            child.start()
            child.join(PATIENCE)
            if child.is_alive():
                child.kill()
                child.join()
                said = "hangs"
            else:
                said = answers.get(timeout=5) if child.exitcode == 0 else "the process died"
            print(f"  {kind}: {trial.__name__}: {said or 'closed'}", flush=True)
            if said:
                found.setdefault(kind, []).append(f"{trial.__name__}: {said}")
    return found


def tried(kind: str, number: int, answers: Any) -> None:
    """Try one door in this process, on one thread: a trial must not take long on a busy machine."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bayesfs-door-") as scratch:
        try:
            answers.put(DOORS[kind][number](Path(scratch)))
        except Exception as error:
            answers.put(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
