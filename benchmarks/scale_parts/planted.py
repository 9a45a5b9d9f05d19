"""Hostile input of the kinds that open doors: codecs, plants in folders, names, odd pictures.

Targets for `scale_parts.hostile`; what each door needs to open is in `scale_parts.doors`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from PIL import Image

from bayesfs._utils.expansion import decoded_size
from bayesfs._utils.owned_folders import claim
from bayesfs._utils.places import folder_name, without_places
from bayesfs.data.sources.video import Video
from bayesfs.data.stills import read_stills
from bayesfs.errors import BayesfsError
from bayesfs.features.decoding.pictures import read_image
from bayesfs.features.decoding.video import decode
from bayesfs.plots.text import harmless, harmless_markdown, small_jpeg
from bayesfs.runs.directory import RunDirectory

from .mutate import Read, hostile_name, mutated, replaced

CODECS: tuple[Any, ...] = (
    {"id": "pickle"},
    {"id": "json2"},
    {"id": "vlen-utf8"},
    {"id": "lzma"},
    {"name": "numcodecs.pickle"},
    {"name": "sharding_indexed", "configuration": {}},
    {"name": "zstd"},
    {"name": "bytes"},
)
TYPES: tuple[Any, ...] = (
    "|O",
    "|V8",
    "<U999999999",
    "string",
    "float64",
    "numpy.object",
    {"name": "fixed_length_utf32", "configuration": {"length_bytes": 10**9}},
    [["a", "<f8"]],
)
"""What an array's metadata may be made to ask for."""


def target_stills(folder: Path) -> Read:
    """Labelled features, Zarr 2 and 3 and npz: other codecs and types, damaged chunks, bombs."""
    arrays = {
        "feat": np.ones((4, 3), np.float32),
        "label": np.arange(4),
        "names": np.array(["mug", "<b>", "keys", "x"]),
    }
    for version in (2, 3):
        group = zarr.open_group(folder / f"v{version}", mode="w", zarr_format=version)
        for name, values in arrays.items():
            kind = "string" if values.dtype.kind == "U" else values.dtype
            group.create_array(name, shape=values.shape, dtype=kind)[:] = values
    np.savez(folder / "s.npz", **arrays)
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    read_stills(folder / "v3")  # what zarr imports at its first use pickles functions of its own
    codec = numcodecs.Zstd()
    bombs = (codec.encode(bytes(2**26)) * 9, pickle.dumps(folder))

    def read(here: Path, rng: random.Random) -> None:
        file = rng.choice(files)
        kept = file.read_bytes()
        top = file if file.suffix == ".npz" else folder / file.relative_to(folder).parts[0]
        is_metadata = file.name in ("zarr.json", ".zarray")
        with replaced(file, rng):
            if is_metadata and rng.random() < 0.5:
                file.write_bytes(_asking(kept, rng))
            elif top != file and not is_metadata and rng.random() < 0.1:
                file.write_bytes(rng.choice(bombs))
            read_stills(top)

    return read


def _asking(metadata: bytes, rng: random.Random) -> bytes:
    """The metadata of an array with a codec or type that nobody should grant."""
    meta = json.loads(metadata)
    if rng.random() < 0.5:
        meta["dtype" if "dtype" in meta else "data_type"] = rng.choice(TYPES)
    else:
        name = rng.choice(("filters", "compressor") if "dtype" in meta else ("codecs",))
        few = [rng.choice(CODECS) for _ in range(rng.randrange(1, 3))]
        meta[name] = few[0] if name == "compressor" else few
    return json.dumps(meta).encode()


def target_chunks(folder: Path) -> Read:
    """Compressed chunks, damaged, whose size is to be told."""
    rng = np.random.default_rng(0)
    data = rng.bytes(300) + bytes(5000)
    made = {
        "zstd": numcodecs.Zstd(),
        "blosc": numcodecs.Blosc(),
        "gzip": numcodecs.GZip(),
        "zlib": numcodecs.Zlib(),
    }
    seeds = [(name, bytes(codec.encode(data))) for name, codec in made.items()]

    def read(here: Path, rng: random.Random) -> None:
        codec, seed = rng.choice(seeds)
        assert decoded_size(codec, mutated(seed, rng), 10**6) >= 0

    return read


def target_markup(folder: Path) -> Read:
    """Names where nobody has escaped them: none means anything to Markdown, HTML or a terminal."""

    def read(here: Path, rng: random.Random) -> None:
        name = hostile_name(rng) + rng.choice(("", "![x](y)", "<img src=x>", "\n# a", "|b|"))
        text = str(harmless_markdown(name))
        assert not re.search(r"(?<!\\)(\\\\)*[\[\]`*_|<>!#]", text.replace("&lt;", ""))
        assert "\n" not in text
        assert not re.search("[\x00-\x1f\u202e\ud800]", str(harmless(name)))

    return read


def target_places(folder: Path) -> Read:
    """Messages that hold paths below the home of the machine's user."""
    home = str(Path.home())

    def read(here: Path, rng: random.Random) -> None:
        name = hostile_name(rng)[:50]
        quote = rng.choice(("", "'", '"'))
        told = without_places(f"{name} {quote}{home}/videos/{rng.randrange(10)}.mp4{quote}: {name}")
        assert f"{home}/" not in told
        safe = re.sub(r"[/\x00]", "_", name) or "_"
        with contextlib.suppress(OSError, UnicodeError):
            assert "/" not in folder_name(folder / safe.strip("."))

    return read


def target_plants(folder: Path) -> Read:
    """Links, pipes and folders under the names of a run directory, and of work of ours."""
    outside = folder / "outside"
    outside.mkdir()
    names = ("run.json", "note.txt", "recipes", "recipes/model.py", ".bayesfs-lock", "x", "shots/y")

    def read(here: Path, rng: random.Random) -> None:
        path = here / "run"
        inputs, recipes = {"seed": 0}, {"model.py": "model = 1"}
        run = RunDirectory(path)
        (outside / "mine.txt").write_text("mine")
        try:
            if rng.random() < 0.6:
                with run.begin(inputs, recipes):
                    run.keep("note.txt", lambda p: p.write_text("x"))
            for _ in range(rng.randrange(1, 3)):
                _plant(path / rng.choice(names), outside, rng)
            with contextlib.suppress(BayesfsError):
                claim(path, hostile_name(rng)[:30] or "x") if rng.random() < 0.2 else None
            with run.begin(inputs, recipes):
                run.keep("note.txt", lambda p: p.write_text("y"))
                run.finish()
            run.finished()
        finally:
            found = {p.name: p.read_text() for p in outside.iterdir()}
            shutil.rmtree(path, ignore_errors=True)
            for other in outside.iterdir():
                other.unlink()
        assert found == {"mine.txt": "mine"}

    return read


def _plant(place: Path, outside: Path, rng: random.Random) -> None:
    """Something in the place of a file or folder, unless that lies behind a link planted before."""
    if place.parent.is_symlink():
        return
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
    with contextlib.suppress(OSError):
        match rng.randrange(5):
            case 0:
                place.symlink_to(outside)
            case 1:
                place.symlink_to(outside / "mine.txt")
            case 2:
                os.mkfifo(place)
            case 3:
                place.symlink_to("/dev/zero")
            case _:
                place.mkdir()


def target_thumbnails(folder: Path) -> Read:
    """Thumbnails of a stranger's store: damaged, large, progressive with many scans."""
    seeds = [_encoded(Image.new("RGB", (size, size), "red"), "JPEG", progressive=progressive)
             for size in (8, 96, 1500) for progressive in (False, True)]  # fmt: skip

    def read(here: Path, rng: random.Random) -> None:
        seed = rng.choice(seeds)
        if rng.random() < 0.2 and b"\xff\xc2" in seed:
            seed = many_scans(seed, rng.choice((10, 1000)))
        made = small_jpeg(mutated(seed, rng) if rng.random() < 0.8 else seed, 48, 60)
        assert made is None or len(made) < 2**16

    return read


def many_scans(jpeg: bytes, count: int) -> bytes:
    """A progressive JPEG with its last scan `count` times over, each of which is decoded."""
    at = jpeg.rindex(b"\xff\xda")
    return jpeg[:at] + jpeg[at:-2] * count + jpeg[-2:]


def target_odd_pictures(folder: Path) -> Read:
    """Pictures of every mode and format under the name of a JPEG, some with thousands of scans."""
    base = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    grey16 = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
    palette = base.convert("P")
    seeds = [
        _encoded(grey16, "PNG"),
        _encoded(palette, "PNG", transparency=3),
        *(_encoded(base.convert(mode), "PNG") for mode in ("1", "L", "LA", "RGBA")),
        *(_encoded(base.convert(mode), "JPEG") for mode in ("L", "CMYK")),
        *(_encoded(base, kind) for kind in ("WEBP", "GIF", "TIFF", "BMP")),
        _encoded(base, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x05"),
        many_scans(_encoded(base, "JPEG", progressive=True), 3000),
        b"",
    ]
    path = folder / "f.jpg"

    def read(here: Path, rng: random.Random) -> None:
        seed = rng.choice(seeds)
        path.write_bytes(seed if rng.random() < 0.5 else mutated(seed, rng))
        assert read_image(path, 16).shape == (16, 16, 3)

    return read


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def target_odd_videos(folder: Path) -> Read:
    """Video files whose tables of samples claim far more than they hold, turned oddly or not."""
    import av

    path = folder / "seed.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for k in range(3):
            image = np.full((32, 32, 3), 40 * k, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
    seed = path.read_bytes()

    def read(here: Path, rng: random.Random) -> None:
        data = lying_mp4(seed, rng.choice((0, 1, 10, 10**5, 10**6)), rng)
        (folder / "v.mp4").write_bytes(data if rng.random() < 0.7 else mutated(data, rng))
        video = Video("test", "u", "o", "clean", "v", folder, "v.mp4")
        for count, _ in enumerate(decode(video, 16)):
            assert count < 1000

    return read


def lying_mp4(data: bytes, samples: int, rng: random.Random) -> bytes:
    """An MP4 whose tables tell of so many samples of one byte, in one piece, or of odd turns."""
    made = bytearray(data)
    size = made.index(b"stsz") + 8
    made[size : size + 8] = struct.pack(">II", 1, samples)
    for box, entry in ((b"stts", (samples, 1)), (b"stsc", (1, samples, 1))):
        at = made.index(box) + 8
        packed = struct.pack(f">{len(entry)}I", *entry)
        made[at : at + 4] = struct.pack(">I", 1)
        made[at + 4 : at + 4 + len(packed)] = packed
    if rng.random() < 0.3:  # the display matrix of the track
        at = made.index(b"tkhd") + 4 + 40
        made[at : at + 36] = rng.randbytes(36)
    return bytes(made)
