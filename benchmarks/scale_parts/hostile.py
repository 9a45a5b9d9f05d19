"""Hostile input to every reader, counted: a crash, a hang, an unpickling or a stray write is told.

Each input is decided by its target, the seed and its number, so that it can be made again. A
target runs in a process of its own: one that dies counts as a crash and is gone on with behind the
input that killed it. An audit hook of the interpreter watches every file that is opened for
writing, renamed or made, and every unpickling.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import xarray as xr
from PIL import Image

from bayesfs._utils.progress import terminal_safe
from bayesfs.data.sources.annotations import annotate
from bayesfs.data.sources.open import read_tree
from bayesfs.data.sources.orbit import read_orbit
from bayesfs.data.sources.video import Skipped, Video
from bayesfs.data.store import Thumbnail, open_store, thumbnails, write_store
from bayesfs.decisions.rules import Rules, UnitRules
from bayesfs.errors import BayesfsError
from bayesfs.explanation.record import ExplanationRecord, Statement
from bayesfs.features.decoding.pictures import read_image
from bayesfs.features.decoding.video import decode
from bayesfs.features.extraction.shards import ShardRows, load_shard, save_shard
from bayesfs.features.projection import Projection
from bayesfs.metrics.score_table import score_table
from bayesfs.prediction import label_draws
from bayesfs.report.view import ReportData
from bayesfs.report.write import write_report
from bayesfs.results.assemble import assemble_tree
from bayesfs.results.store import load_datatree, save_datatree
from bayesfs.results.table_scores import UNITS, load_summary, save_summary, summary
from bayesfs.results.tables import batch_path, task_table, write_table
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.rules import load_rules
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.training.checkpoint import (
    load_posterior,
    load_projection,
    save_posterior,
    save_projection,
)
from bayesfs.types import Embeddings, EpisodeBatch, LabelDraws, Posterior, Predictive
from bayesfs.uncertainty.decompose import decompose

from .mutate import Read, hostile_name, mutated, mutated_json, replaced
from .planted import (
    target_chunks,
    target_markup,
    target_odd_pictures,
    target_odd_videos,
    target_places,
    target_plants,
    target_stills,
    target_thumbnails,
)

PRELOAD = ["bayesfs.cli.explain_run", "bayesfs.runs.run", "bayesfs.synthetic.tasks"]
"""What the server of processes imports once; it does not find this module's own package."""

HANG = 5.0
"""Seconds after which an input counts as a hang."""


@dataclass
class Tally:
    """What came of the inputs of one target.

    Attributes:
        inputs: how many were read.
        failures: what went wrong, a line each: crash, hang, unpickling, write outside.
        seconds: time taken.
    """

    inputs: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Hang(BaseException):
    """An input took longer than `HANG`; no reader catches this."""


def target_annotations(folder: Path) -> Read:
    """ORBIT's annotation JSON."""
    frame = {
        "blur_issue": False,
        "framing_issue": None,
        "object_not_present_issue": True,
        "object_bounding_box": {"x": 10, "y": 20, "w": 300, "h": 400},
    }
    files = [f"v-{k:05d}.jpg" for k in (1, 2)]
    seed, path = json.dumps({name: frame for name in files}).encode(), folder / "v.json"

    def read(here: Path, rng: random.Random) -> None:
        path.write_bytes(mutated_json(seed, rng))
        notes = annotate(path, files)
        assert all(set(np.unique(f)) <= {-1, 0, 1} for f in notes.flags.values())
        assert not np.isinf(notes.boxes).any()

    return read


def target_tree(folder: Path) -> Read:
    """A tree of folders with hostile names, links out of it, pipes, and strays."""
    outside = folder / "outside"
    outside.mkdir()
    (outside / "secret-00001.jpg").write_bytes(b"secret")

    def read(here: Path, rng: random.Random) -> None:
        root = here / "tree"
        shutil.rmtree(root, ignore_errors=True)  # of an input that took too long
        root.mkdir()
        for _ in range(rng.randrange(1, 5)):
            _plant(root, outside, rng)
        try:
            found = rng.choice((read_orbit, read_tree))(root)
        finally:
            shutil.rmtree(root)
        for video in found.videos:
            assert "secret" not in "".join(video.files)
            assert ".." not in Path(video.path).parts

    return read


def _plant(root: Path, outside: Path, rng: random.Random) -> None:
    """One video, or something that pretends to be one."""
    parts = ["train", "P001", "mug", "clean", "v1"]
    if rng.random() < 0.7:
        at = rng.randrange(len(parts))
        parts[at] = rng.choice((hostile_name(rng), rng.choice(("test", "clutter", "P2", "v2"))))
    safe = [p.replace("/", "_").replace("\0", "_")[:60] or "_" for p in parts]
    video = root.joinpath(*(p if p.strip(".") else "_" for p in safe))
    with contextlib.suppress(OSError, UnicodeEncodeError):
        match rng.randrange(6):
            case 0:
                video.parent.mkdir(parents=True, exist_ok=True)
                video.symlink_to(rng.choice((outside, root, Path("/dev"), Path("/nowhere"))))
            case 1:
                video.mkdir(parents=True, exist_ok=True)
                (video / f"{video.name}-00001.jpg").symlink_to(outside / "secret-00001.jpg")
            case 2:
                video.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    os.mkfifo(video / f"{video.name}-00001.jpg")
            case _:
                video.mkdir(parents=True, exist_ok=True)
                for number in ("00001", rng.choice(("00002", "99999999999", "-1", "x"))):
                    with contextlib.suppress(FileExistsError):
                        (video / f"{video.name}-{number}.jpg").open("xb").close()


def target_store(folder: Path) -> Read:
    """One file of a feature store damaged, its metadata made hostile, or strings in it changed."""
    names = ["mug", "<b>"] * 4
    made = Embeddings.from_arrays(
        np.random.default_rng(0).normal(size=(8, 3)),
        object=names,
        video=[f"v{i}" for i in range(8)],
    )
    store = folder / "store.zarr"
    write_store(store, [made.dataset], 8, {"backbone": "b"}, [Thumbnail("v1", 1, b"\xff\xd8\xff")])
    files = sorted(p for p in store.rglob("*") if p.is_file())

    def read(here: Path, rng: random.Random) -> None:
        file = rng.choice(files)
        with replaced(file, rng):
            open_store(store)
            thumbnails(store, ["v1"])

    return read


def _of_file(
    folder: Path, name: str, write: Callable[[Path], object], load: Callable[[Path], object]
) -> Read:
    """A reader of one file, whose seed is what `write` makes."""
    path = folder / name
    write(path)
    seed = path.read_bytes()

    def read(here: Path, rng: random.Random) -> None:
        make = mutated_json if path.suffix == ".json" else mutated
        path.write_bytes(make(seed, rng))
        load(path)

    return read


def target_posterior(folder: Path) -> Read:
    """The npz file of a population, with entries that are bombs or pickles now and then."""
    one = Posterior(
        "variational", {"a": torch.zeros(2, 3), "b": torch.ones(2)}, {"a": ("feature",), "b": ()}
    )
    plain = _of_file(folder, "p.npz", lambda p: save_posterior(one, p), load_posterior)

    def read(here: Path, rng: random.Random) -> None:
        if rng.random() > 0.02:
            plain(here, rng)
            return
        with zipfile.ZipFile(folder / "p.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("header.npy", _hostile_array(rng))
            archive.writestr("draws/a.npy", b"\0" * rng.choice((10, 10**7)))
            archive.writestr("../../evil.npy", b"x")
        load_posterior(folder / "p.npz")

    return read


def _hostile_array(rng: random.Random) -> bytes:
    """A .npy file that claims to be huge, or to hold objects."""
    stream = io.BytesIO()
    shape = rng.choice(((10**12,), (10**6, 10**6), (-1,), (2,)))
    kind = rng.choice(("<f8", "|O", "|u1", "|V9999999"))
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + b"\x80\x04cposix\nsystem\n."


def target_projection(folder: Path) -> Read:
    """The npz file of a projection."""
    one = Projection(np.zeros((2, 4)), np.ones((4, 2)), np.ones(2))
    return _of_file(folder, "j.npz", lambda p: save_projection(one, p), load_projection)


def target_shard(folder: Path) -> Read:
    """An unfinished shard of features."""
    rows = ShardRows(
        np.ones((2, 3), np.float32),
        np.ones((2, 2), np.float32),
        np.zeros((2, 3), np.int64),
        ((0, 1, b"\xff\xd8"),),
        (Skipped("a", "b", "frame"),),
    )
    return _of_file(
        folder, "shard-0.npz", lambda p: save_shard(p, rows), lambda p: load_shard(p, 3)
    )


def target_state(folder: Path) -> Read:
    """The run.json of a run that is only reported on."""
    run = RunDirectory(folder / "run")
    with run.begin({"seed": 0, "data": "x"}, {"model.py": "model = 1"}):
        run.keep("note.npz", lambda p: p.write_bytes(b"x"))
    path = run.path / "run.json"
    seed = path.read_bytes()

    def read(here: Path, rng: random.Random) -> None:
        path.write_bytes(mutated_json(seed, rng))
        for name in run.state()["files"]:
            run.kept(name)

    return read


def small_tree() -> xr.DataTree:
    """A whole run's DataTree of two people with two things, as small as can be."""
    size = {"users": 2, "way": 2, "shots": 1, "query_videos": 1, "query_frames": 2, "dim": 2}
    episodes = synthetic_episodes(seed=0, **size)[0]
    predictive, noise = guesses(episodes), torch.Generator().manual_seed(1)
    means = torch.randn(4, *episodes.support.mean((2, 3)).shape, generator=noise)
    posterior = Posterior("exact", {"mean": means}, {"mean": ("task", "way", "feature")})
    tree = assemble_tree(posterior, predictive, decompose(predictive, episodes), episodes)
    tree["scores"] = xr.DataTree(score_table(predictive, episodes, draws=10))
    return tree


def guesses(episodes: EpisodeBatch) -> Predictive:
    """A predictive of nothing but noise."""
    noise = torch.Generator().manual_seed(0)

    def labels(*shape: int) -> LabelDraws:
        return label_draws(torch.randn(4, *shape, episodes.way, generator=noise))

    tasks, videos, frames = episodes.query_mask.shape
    return Predictive(labels(tasks, videos, frames), labels(tasks, videos))


def target_netcdf(folder: Path) -> Read:
    """The netCDF file of a run's results."""
    tree = small_tree()
    return _of_file(folder, "r.nc", lambda p: save_datatree(tree, p), load_datatree)


def target_zarr(folder: Path) -> Read:
    """The Zarr folder of a run's results."""
    store = save_datatree(small_tree(), folder / "r.zarr")
    files = sorted(p for p in store.rglob("*") if p.is_file())

    def read(here: Path, rng: random.Random) -> None:
        with replaced(rng.choice(files), rng):
            load_datatree(store)

    return read


def target_report(folder: Path) -> Read:
    """Names of classes, people and videos into the report, HTML and Markdown."""
    tree = small_tree()

    def read(here: Path, rng: random.Random) -> None:
        hostile = tree.copy(deep=True)
        names = hostile["constant_data"].to_dataset()
        for name in ("class_name", "video_name"):
            texts = [_storable(hostile_name(rng)) or "x" for _ in range(names[name].size)]
            names[name] = (names[name].dims, np.array(texts).reshape(names[name].shape))
        hostile["constant_data"] = xr.DataTree(names)
        data = ReportData(title=_storable(hostile_name(rng)), trees={1: hostile})
        kind = rng.choice(("html", "md"))
        text = write_report(data, here / f"report.{kind}", format=kind).read_text("utf-8")
        assert "<script>alert(1)" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text

    return read


def _storable(name: str) -> str:
    return name.encode("utf-8", "replace").decode()


def target_terminal(folder: Path) -> Read:
    """Names to the terminal, ten megabytes long now and then."""

    def read(here: Path, rng: random.Random) -> None:
        name = hostile_name(rng) * (10**6 if rng.random() < 0.001 else 1)
        shown = terminal_safe(name)
        assert len(shown) <= 200
        assert not any(c in shown for c in "\x1b\n\r\x00\u202e\ud800")

    return read


def target_notes(folder: Path) -> Read:
    """The small JSON files of a run directory: explanations, scores of everybody, rules."""
    rules = UnitRules(*[0.5] * len(fields(UnitRules)))
    told = ExplanationRecord(
        {("P1", "v"): Statement("a cup", {"video": 0.1})}, [("P1", "record", 0.2)]
    )
    scores = {1: {unit: {"nll": 1.0, "nll_low": 0.5, "users": 2.0} for unit in UNITS}}
    readers: list[tuple[bytes, Callable[[Path], object]]] = []
    for write, load in (
        (told.save, ExplanationRecord.load),
        (partial(save_summary, scores), load_summary),
        (partial(_save_rules, rules), load_rules),
    ):
        write(folder / "seed.json")
        readers.append(((folder / "seed.json").read_bytes(), load))

    def read(here: Path, rng: random.Random) -> None:
        seed, load = rng.choice(readers)
        (folder / "notes.json").write_bytes(mutated_json(seed, rng))
        load(folder / "notes.json")

    return read


def _save_rules(unit: UnitRules, path: Path) -> None:
    rules = Rules(unit, unit, **{f.name: 2 for f in fields(Rules) if f.name not in UNITS})
    path.write_text(json.dumps(rules.to_dict()))


def target_tables(folder: Path) -> Read:
    """The Zarr tables of a run on a cluster, and the scores made from them."""
    size = {"users": 2, "way": 2, "shots": 1, "query_videos": 1, "query_frames": 2, "dim": 2}
    episodes = synthetic_episodes(seed=0, **size)[0]
    names = [tuple(f"{t}-{v}" for v in range(2)) for t in range(2)]
    episodes = replace(episodes, videos=tuple(names), classes=tuple(names))
    predictive = guesses(episodes)
    place = batch_path(folder / "results.zarr", 1, 0)
    place.parent.mkdir(parents=True)
    write_table(task_table(predictive, decompose(predictive, episodes), episodes), place)
    files = sorted(p for p in place.rglob("*") if p.is_file())

    def read(here: Path, rng: random.Random) -> None:
        with replaced(rng.choice(files), rng):
            summary(folder / "results.zarr", 1)

    return read


def target_image(folder: Path) -> Read:
    """JPEG and PNG frames: damaged, of a lying size, bombs of one colour or many scans; pipes."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    seeds = {}
    for kind in ("JPEG", "PNG"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        seeds[kind] = stream.getvalue()
    path, bombs = folder / "f.jpg", (_png_bomb(), _jpeg_bomb())
    os.mkfifo(folder / "pipe.jpg")

    def read(here: Path, rng: random.Random) -> None:
        if rng.random() < 0.01:
            read_image(folder / "pipe.jpg", 16)
        seed = seeds[rng.choice(("JPEG", "PNG"))]
        data = mutated(seed, rng)
        if rng.random() < 0.01:
            data = rng.choice(bombs)
        elif rng.random() < 0.1:  # a PNG's width and height are bytes 16 to 24
            data = seeds["PNG"][:16] + rng.randbytes(8) + seeds["PNG"][24:]
        path.write_bytes(data)
        assert read_image(path, 16).shape == (16, 16, 3)

    return read


def _png_bomb(side: int = 20_000) -> bytes:
    """A whole PNG of one colour: fifty kilobytes that become 400 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side * (1 + side // 8)), 9)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _jpeg_bomb(scans: int = 3000) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    stream = io.BytesIO()
    Image.new("RGB", (4096, 4096)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2][:1000] * scans + data[-2:]


def target_video(folder: Path) -> Read:
    """Videos of wrong headers and lengths, tables of millions of samples, disguised playlists."""
    import av

    seeds = []
    for suffix, codec in (("mp4", "mpeg4"), ("mkv", "mpeg4"), ("avi", "mpeg4")):
        path = folder / f"seed.{suffix}"
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for k in range(3):
                image = np.full((32, 32, 3), 40 * k, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(stream.encode())
        seeds.append((suffix, path.read_bytes()))
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"

    def read(here: Path, rng: random.Random) -> None:
        suffix, seed = rng.choice(seeds)
        data = playlist if rng.random() < 0.02 else mutated(seed, rng)
        if rng.random() < 0.5:  # headers are where the lies are
            data = mutated(seed[:400], rng) + seed[400:]
        if rng.random() < 0.1:  # tables of an MP4 that promise up to four thousand million samples
            place = data.find(rng.choice((b"stsz", b"stts"))) + 12
            data = data[:place] + rng.randbytes(4) + data[place + 4 :]
        (folder / f"v.{suffix}").write_bytes(data)
        video = Video("test", "u", "o", "clean", "v", folder, f"v.{suffix}")
        for count, _ in enumerate(decode(video, 16)):
            assert count < 1000

    return read


TARGETS: Mapping[str, tuple[Callable[[Path], Read], float]] = {
    "annotations": (target_annotations, 0.15),
    "terminal": (target_terminal, 0.10),
    "state": (target_state, 0.067),
    "notes": (target_notes, 0.054),
    "posterior": (target_posterior, 0.067),
    "projection": (target_projection, 0.067),
    "shard": (target_shard, 0.067),
    "image": (target_image, 0.054),
    "tree": (target_tree, 0.02),
    "video": (target_video, 0.0135),
    "store": (target_store, 0.008),
    "netcdf": (target_netcdf, 0.003),
    "tables": (target_tables, 0.0014),
    "zarr": (target_zarr, 0.0014),
    "report": (target_report, 0.0007),
    "stills": (target_stills, 0.01),
    "chunks": (target_chunks, 0.1),
    "markup": (target_markup, 0.1),
    "places": (target_places, 0.06),
    "plants": (target_plants, 0.01),
    "thumbnails": (target_thumbnails, 0.02),
    "odd pictures": (target_odd_pictures, 0.02),
    "odd videos": (target_odd_videos, 0.006),
}
"""Target -> what makes its reader, and its share of the inputs: the fast ones get most."""


def attack(total: int, seed: int = 0, only: tuple[str, ...] = ()) -> dict[str, Tally]:
    """Read `total` hostile inputs.

    Args:
        total: inputs over all targets.
        seed: of the inputs.
        only: targets; all by default.

    Returns:
        Target -> tally.
    """
    found = {}
    for name, (_, share) in TARGETS.items():
        if not only or name in only:
            tally = found[name] = _attack_one(name, max(3, round(total * share)), seed)
            told = f"  {name}: {tally.inputs} inputs in {tally.seconds:.0f} s"
            print(told, *tally.failures, sep="\n", flush=True)
    return found


def _attack_one(name: str, count: int, seed: int) -> Tally:
    """All inputs of one target; a process that dies is replaced behind what killed it."""
    tally, began, start = Tally(), time.perf_counter(), 0
    context = multiprocessing.get_context("forkserver")  # imports once, for all processes
    context.set_forkserver_preload(PRELOAD)
    while start < count:
        done, pipe = context.Value("q", start), context.Queue()
        child = context.Process(target=run_inputs, args=(name, start, count, seed, done, pipe))
        child.start()
        while child.is_alive():
            before = done.value
            child.join(4 * HANG)
            if child.is_alive() and done.value == before:
                child.kill()  # a hang that no signal interrupts
        while not pipe.empty():
            tally.failures.append(pipe.get())
        if child.exitcode:
            tally.failures.append(f"{name} {done.value}: the process died ({child.exitcode})")
        start = done.value + 1 if child.exitcode else count
    tally.inputs, tally.seconds = count, time.perf_counter() - began
    return tally


def run_inputs(name: str, start: int, stop: int, seed: int, done: Any, failures: Any) -> None:
    """Read the inputs from `start` to `stop` of one target, in this process."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    limit_memory()
    with tempfile.TemporaryDirectory(prefix="bayesfs-hostile-") as scratch:
        folder = Path(scratch)
        read, here = TARGETS[name][0](folder), folder / "here"
        here.mkdir()
        watch = Watch(folder)
        signal.signal(signal.SIGALRM, _hang)
        for number in range(start, stop):
            done.value = number
            for _ in range(2):  # what hangs hangs again; a machine that is busy elsewhere does not
                problem = one_input(read, here, random.Random(f"{name} {seed} {number}"))
                if not problem.startswith("took over"):
                    break
            if problem:
                failures.put(f"{name} {number}: {problem}")
            for event in watch.events:
                failures.put(f"{name} {number}: {event}")
            watch.events.clear()
        watch.active = False
    done.value = stop


def one_input(read: Read, here: Path, rng: random.Random, *, alarm: bool = True) -> str:
    """What went wrong with one input, or "": only a result or a BayesfsError is right."""
    if alarm:
        signal.setitimer(signal.ITIMER_REAL, HANG)
    try:
        read(here, rng)
    except BayesfsError:
        return ""
    except Hang:
        return f"took over {HANG} s"
    except BaseException as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]} {_where(error)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "bayesfs" in f.filename]
    return f"at {ours[-1] if ours else frames[-1].name}"


def _hang(signum: int, frame: FrameType | None) -> None:
    raise Hang


class Watch:
    """Audit hook: notes what is written outside a folder, and what is unpickled.

    Args:
        folder: where writing is allowed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.events, self.active = os.path.realpath(folder), list[str](), True
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "pickle.find_class" and "multiprocessing" not in str(args[0]):
            self.events.append(f"unpickled {args}")
        wrote = event in ("os.mkdir", "os.rename", "os.symlink", "os.remove", "os.truncate")
        if event == "open":
            wrote = bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        name = args[1] if event in ("os.rename", "os.symlink") else args[0]
        if wrote and isinstance(name, str | bytes | os.PathLike):
            path = _resolved(os.fsdecode(name), args[-1] if event != "open" else -1)
            if not path.startswith((self.folder, "/dev/")):
                self.events.append(f"{event} outside: {path!r}")


def _resolved(path: str, handle: Any) -> str:
    """A path that may be relative to an open folder, as shutil gives them."""
    if isinstance(handle, int) and handle >= 0 and not os.path.isabs(path):
        path = os.path.join(os.readlink(f"/proc/self/fd/{handle}"), path)
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def limit_memory(gigabytes: float = 24.0) -> None:
    """Let a bomb fail in this process instead of taking the machine's memory."""
    size = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
