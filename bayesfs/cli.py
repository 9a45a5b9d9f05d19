"""The command `bayesfs`: one function a subcommand, its docstring is the help.

Heavy imports happen inside the functions, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, TextIO

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from bayesfs.errors import BayesfsError

FAILED = 2
"""Exit status of a command that could not do what it was asked."""

INTERRUPTED = 130

Tree = Annotated[Path, Positional, arg(metavar="TREE")]
Store = Annotated[Path, Positional, arg(metavar="STORE")]
Folder = Annotated[Path, Positional, arg(metavar="DIR")]
ModelFile = Annotated[Path, Positional, arg(metavar="MODEL.py")]
EngineFile = Annotated[Path, Positional, arg(metavar="ENGINE.py")]
EvaluationFile = Annotated[Path, Positional, arg(metavar="EVALUATION.py")]
Settings = Annotated[tuple[str, ...], UseAppendAction, arg(name="set", metavar="NAME.FIELD=VALUE")]


def demo(out: Folder = Path("bayesfs-demo"), *, seed: int = 0) -> None:
    """Draw a small set of videos, learn from it, and report: no download, a few minutes.

    For example:

        bayesfs demo

    Args:
        out: folder for the videos, features and results.
        seed: of everything random.
    """
    from bayesfs.commands.studies import make_demo

    make_demo(out, seed)


def features(
    tree: Tree,
    store: Store,
    *,
    px: int = 160,
    device: str | None = None,
    every: int = 1,
    fps: float | None = None,
    max_frames: int | None = None,
    no_thumbnails: bool = False,
) -> None:
    r"""Compute the features of a tree of videos and keep them in a store.

    A run that was interrupted goes on where it was; a second run does nothing. For example:

        bayesfs features my-videos my-videos.zarr

    Args:
        tree: ORBIT-shaped tree, or a folder "object name/" of video files or folders of frames.
        store: folder to write, such as my-videos.zarr.
        px: side of the frames in pixels.
        device: where the backbone runs; a GPU where there is one by default.
        every: use every n-th frame.
        fps: use about so many frames a second instead.
        max_frames: use at most so many frames of a video, spread evenly.
        no_thumbnails: keep no small pictures: neither the store nor a report holds a pixel.
    """
    from bayesfs.commands.studies import make_features
    from bayesfs.features.video import Sampling

    sampling = Sampling(every=every, fps=fps, max_frames=max_frames)
    make_features(
        tree, store, px=px, device=device, sampling=sampling, thumbnails=not no_thumbnails
    )


def run(
    model: ModelFile,
    engine: EngineFile,
    evaluation: EvaluationFile,
    *,
    data: Path,
    out: Path,
    seed: int = 0,
    settings: Settings = (),
    smoke: bool = False,
    no_thumbnails: bool = False,
    cluster: str | None = None,
) -> None:
    r"""Learn a population from the train users, score the test users, and report.

    Recipes are code: run only those that you trust. An interrupted run goes on when the same
    command is given again. For example:

        bayesfs run models/gaussian.py inference/exact.py evaluation/clutter.py \
            --data my-videos.zarr --out runs/first --set reduction.dim=64

    Args:
        model: recipe that defines `model`.
        engine: recipe that defines `engine`.
        evaluation: recipe that defines `evaluation`.
        data: feature store, from `bayesfs features`.
        out: run directory, new or of the same run.
        seed: of everything random.
        settings: change one field of what a recipe defines.
        smoke: make everything tiny, to see whether the recipes fit; the numbers mean nothing.
        no_thumbnails: the report shows no picture of the videos.
        cluster: score very many users on dask: local, local:WORKERS, or a scheduler's address;
            keeps probabilities and scores in DIR/results.zarr, and makes no report.
    """
    from bayesfs.commands.studies import make_run

    paths = {"model": model, "engine": engine, "evaluation": evaluation}
    make_run(
        paths,
        data,
        out,
        settings=settings,
        seed=seed,
        smoke=smoke,
        pictures=not no_thumbnails,
        cluster=cluster,
    )


def report(directory: Folder, *, format: Literal["html", "md"] = "html") -> None:
    """Write the report of a finished run again; no recipe is run.

    For example:

        bayesfs report runs/first --format md

    Args:
        directory: run directory.
        format: of the report.
    """
    from bayesfs.commands.studies import make_report

    make_report(directory, format)


def compare(
    runs: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN")],
    *,
    out: Path = Path("comparison"),
) -> None:
    """Compare finished runs of the same data and episodes with the first of them.

    Paired differences of the scores overall and for every user, with intervals; expected log
    predictive densities (leave-one-out, the video being the unit); reliability curves. For
    example:

        bayesfs compare runs/first runs/second --out comparison

    Args:
        runs: run directories, the first one being the reference.
        out: folder for the tables (CSV, JSON) and the picture of the reliability curves.
    """
    from bayesfs.commands.compare_runs import compare_runs

    compare_runs(runs, out)


def predict(
    teach: Annotated[Path, Positional, arg(metavar="TEACH")],
    videos: Annotated[Path, Positional, arg(metavar="VIDEOS")],
    *,
    run: Path,
    table: Path | None = None,
    device: str | None = None,
    trust: bool = False,
) -> None:
    """Say which of a person's objects unlabelled videos show, a sentence each.

    TEACH holds one folder per object with its videos, VIDEOS the videos to name: video files, or
    folders of frames. For example:

        bayesfs predict my-things new-videos --run bayesfs-demo/run

    Args:
        teach: folder "object name/" of videos.
        videos: folder of the videos to name.
        run: finished run whose population is used.
        table: CSV file to write, with probabilities and uncertainties.
        device: where the backbone runs; a GPU where there is one by default.
        trust: run recipes kept in the run directory though bayesfs does not ship them.
    """
    from bayesfs.commands.personal import name_videos

    name_videos(teach, videos, run, table=table, device=device, trust=trust)


def init(folder: Folder) -> None:
    """Copy the shipped recipes into a folder, to edit and run.

    For example:

        bayesfs init my-study

    Args:
        folder: a new folder; nothing in it is overwritten.
    """
    from bayesfs.recipes import copy_recipes
    from bayesfs.rundir import explained

    with explained(folder):
        copies = copy_recipes(folder)
    for copy in copies:
        print(copy)


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "features": features,
    "run": run,
    "report": report,
    "compare": compare,
    "predict": predict,
    "init": init,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status.

    A `BayesfsError` becomes one line on standard error and the status `FAILED`; with `--debug`
    it is raised, with its traceback.

    Args:
        argv: arguments after the command's name; those of the process by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    if arguments == ["--version"]:
        print(f"bayesfs {importlib.metadata.version('bayesfs')}")
        return 0
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                prog="bayesfs",
                description="Bayesian few-shot recognition of objects in short, real, messy "
                "videos. Each command has --help with an example; --debug shows tracebacks; "
                "--version says the version.",
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except BayesfsError as error:
        if debug:
            raise
        _say(f"bayesfs: error: {error}")
        return FAILED
    except KeyboardInterrupt:
        _say("bayesfs: interrupted; the same command goes on from here")
        return INTERRUPTED
    return 0


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, UserWarning):
        _say(f"bayesfs: warning: {message}")


def _say(text: str) -> None:
    from bayesfs.progress import terminal_safe

    print(terminal_safe(" ".join(text.splitlines()), longest=2000), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
