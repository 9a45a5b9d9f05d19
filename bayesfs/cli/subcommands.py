"""The subcommands of `bayesfs`: one function each, its docstring is the help.

Heavy imports happen inside the functions, so that `--help` answers at once.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from bayesfs.errors import BayesfsError, RunError

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
    from bayesfs.cli.recordings import make_demo

    make_demo(out, seed)


def features(
    tree: Tree,
    store: Store,
    *,
    backbone: str = "multiscale+efficientnet-lite0",
    px: int | None = None,
    device: str | None = None,
    every: int = 1,
    fps: float | None = None,
    max_frames: int | None = None,
    no_thumbnails: bool = False,
) -> None:
    r"""Compute the features of a tree of videos and keep them in a store.

    A run that was interrupted goes on where it was; a second run does nothing. For example:

        bayesfs features my-videos my-videos.zarr
        bayesfs features my-videos strong.zarr --backbone onnx:dinov2.onnx,pool=cls

    Args:
        tree: ORBIT-shaped tree, or a folder "object name/" of video files, folders of frames or
            photographs.
        store: folder to write, such as my-videos.zarr.
        backbone: what makes the features: multiscale+efficientnet-lite0 (comes along; a frame and
            its middle), efficientnet-lite0 (the frame alone: twice as fast), efficientnet-lite2,
            timm:NAME, open_clip:NAME/WEIGHTS, torch:MODULE:FUNCTION (your code, which is run),
            onnx:FILE#OUTPUT, or features:FILE (made elsewhere); then options after commas, such as
            px=224, weights=FILE or pool=gem3:centre0.125 (or cls, mean); see docs/backbones.md.
        px: side of the frames in pixels; the backbone's own by default.
        device: where the backbone runs, such as cpu or cuda; the best there is by default.
        every: use every n-th frame.
        fps: use about so many frames a second instead.
        max_frames: use at most so many frames of a video, spread evenly.
        no_thumbnails: keep no small pictures: neither the store nor a report holds a pixel.
    """
    from bayesfs._utils.devices import usable_device
    from bayesfs.cli.recordings import make_features
    from bayesfs.features.backbones.spec import backbone_of
    from bayesfs.features.decoding.sampling import Sampling

    sampling = Sampling(every=every, fps=fps, max_frames=max_frames)
    network = backbone_of(backbone, usable_device(device), px=px)
    make_features(tree, store, network, sampling, thumbnails=not no_thumbnails)


def run(
    model: ModelFile,
    engine: EngineFile,
    evaluation: EvaluationFile,
    *,
    data: Path,
    out: Path,
    seed: int = 0,
    episode_seed: int | None = None,
    fit_seed: int | None = None,
    settings: Settings = (),
    smoke: bool = False,
    no_thumbnails: bool = False,
    device: str | None = None,
    cluster: str | None = None,
    shard: str | None = None,
    print_config: bool = False,
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
        episode_seed: of which videos teach and which are asked; the seed by default.
        fit_seed: of the inference; the seed by default.
        settings: change one field of what a recipe defines.
        smoke: make everything tiny, to see whether the recipes fit; the numbers mean nothing.
        no_thumbnails: the report shows no picture of the videos.
        device: where the engine runs, such as cpu or cuda; the best there is by default. Draws are
            the same everywhere up to rounding.
        cluster: score very many users on dask: local, local:WORKERS, or a scheduler's address;
            everybody's predictions go to DIR/results.zarr, and the report shows a few people.
        shard: "I/N" scores part I of N of the test users in this process and writes it to
            DIR.shards, so that anything that starts processes can share out the work; "all/N"
            joins the parts in DIR and reports.
        print_config: print the recipes with every field, as DIR/recipes/full_*.py would have them,
            and do nothing else.
    """
    from bayesfs.recipes.unrun import check_unrun, refuse_in_data

    paths = {"model": model, "engine": engine, "evaluation": evaluation}
    refuse_in_data(paths, data)
    chosen = [[one] for one in settings]
    values = check_unrun(paths, chosen, None if print_config else data)
    from bayesfs.recipes.in_data import check_in_data

    if not print_config:
        check_in_data(values, chosen, data)
    _take_cores()
    from bayesfs.recipes.load import load_recipes

    recipes = load_recipes(paths, settings)
    from bayesfs.cli.studies import make_run
    from bayesfs.study import Seeds

    make_run(
        recipes,
        data,
        out,
        settings=settings,
        seeds=Seeds(
            seed if episode_seed is None else episode_seed, seed if fit_seed is None else fit_seed
        ),
        smoke=smoke,
        pictures=not no_thumbnails,
        device=device,
        cluster=cluster,
        shard=shard,
        print_config=print_config,
    )


def sweep(
    model: ModelFile,
    engine: EngineFile,
    evaluation: EvaluationFile,
    *,
    data: Path,
    out: Path,
    settings: Settings = (),
    episode_seeds: str = "0",
    fit_seeds: str = "0",
    jobs: int = 1,
    smoke: bool = False,
    device: str | None = None,
) -> None:
    r"""Run a grid of settings and seeds, and compare all of it in one table.

    Values between commas are alternatives, and every combination is run; a tuple is written with
    parentheses. Finished runs are not made again, so that an interrupted sweep goes on, and a
    grid may grow. For example:

        bayesfs sweep models/gaussian.py inference/exact.py evaluation/clutter.py \
            --data my-videos.zarr --out sweeps/loading --set model.loading=.25,.5,1 \
            --episode-seeds 0:5 --fit-seeds 0:3 --jobs 2

    Args:
        model: recipe that defines `model`.
        engine: recipe that defines `engine`.
        evaluation: recipe that defines `evaluation`.
        data: feature store, from `bayesfs features`.
        out: folder for the table and for a directory of each run.
        settings: one field of what a recipe defines, with its values.
        episode_seeds: seeds of which videos teach and which are asked: 3, 0,2,7 or 0:5 (0 to 4).
        fit_seeds: seeds of the inference.
        jobs: runs at a time.
        smoke: make everything tiny, to see whether the recipes fit; the numbers mean nothing.
        device: where engines run, as of run.
    """
    from bayesfs.recipes.overrides import choices_in
    from bayesfs.recipes.unrun import check_unrun, refuse_in_data

    paths = {"model": model, "engine": engine, "evaluation": evaluation}
    choices = [choices_in(setting) for setting in settings]
    refuse_in_data(paths, data)
    values = check_unrun(paths, choices, data)
    from bayesfs.runs.seeds import seeds_in

    drawn, fitted = seeds_in(episode_seeds), seeds_in(fit_seeds)
    if jobs < 1:
        raise RunError(f"expected one job or more, got {jobs}")
    from bayesfs.recipes.in_data import check_in_data

    check_in_data(values, choices, data)
    _take_cores()
    from bayesfs.recipes.load import load_recipes

    recipes = load_recipes(paths, [one for alternatives in choices for one in alternatives])
    from bayesfs.cli.sweep_runs import sweep_runs

    sweep_runs(
        recipes,
        data,
        out,
        settings=settings,
        episode_seeds=drawn,
        fit_seeds=fitted,
        jobs=jobs,
        smoke=smoke,
        device=device,
    )


def report(
    directory: Folder, *, format: Literal["html", "md"] = "html", data: Path | None = None
) -> None:
    """Write the report of a finished run again; no recipe is run.

    For example:

        bayesfs report runs/first --format md

    Args:
        directory: run directory.
        format: of the report.
        data: feature store, for its thumbnails; the run knows where it is if that is nearby.
    """
    from bayesfs.runs.reading import report_run

    print(f"report: {report_run(directory, format, store=data)}")


def compare(
    runs: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN")],
    *,
    out: Path = Path("comparison"),
    data: Path | None = None,
    seed: int = 0,
    device: str | None = None,
    smoke: bool = False,
) -> None:
    """Compare finished runs with the first one, or engines on one model.

    Of runs: paired differences of the scores overall and for every user, with intervals; expected
    log predictive densities (leave-one-out, the video being the unit); reliability curves. Runs
    are named by the values in which they differ. Those of other seeds, evaluations or people are
    compared on the videos that all were asked about. For example:

        bayesfs compare runs/first runs/second --out comparison

    Of recipes, a model's and then engines', with --data: how far the engines' posteriors are from
    one another, and what they cost. For example:

        bayesfs compare models/linear_head.py inference/svi.py inference/nuts.py --data store.zarr

    Args:
        runs: run directories, the first one being the reference; or recipes.
        out: folder for the tables and the picture.
        data: feature store, to compare engines on.
        seed: of the comparison of engines.
        device: where the engines run, such as cpu or cuda; the best there is by default.
        smoke: make the comparison of engines tiny; the numbers mean nothing.
    """
    if runs and all(path.suffix == ".py" for path in runs):
        if data is None or len(runs) < 2:
            raise BayesfsError(
                "engines are compared on a model and data: bayesfs compare MODEL.py ENGINE.py "
                "ENGINE.py --data STORE"
            )
        from bayesfs.cli.compare_engines import run_engine_comparison

        run_engine_comparison(
            runs[0], runs[1:], data, out=out, seed=seed, smoke=smoke, device=device
        )
        return
    if data is not None or device is not None or seed or smoke:
        raise BayesfsError(
            "--data, --seed, --device and --smoke are for comparing engines; runs are compared "
            "as they are: bayesfs compare RUN RUN --out DIR"
        )
    from bayesfs.cli.compare_runs import compare_runs

    compare_runs(runs, out)


def predict(
    teach: Annotated[Path, Positional, arg(metavar="TEACH")],
    videos: Annotated[Path, Positional, arg(metavar="VIDEOS")],
    *,
    run: Path | None = None,
    table: Path | None = None,
    backbone: str | None = None,
    device: str | None = None,
    trust: bool = False,
    allow_missing: bool = False,
    condition: Literal["unknown", "clean", "clutter"] = "unknown",
) -> None:
    """Say which of a person's objects unlabelled videos show, a sentence each.

    TEACH holds one folder per object with its videos, VIDEOS the videos to name: video files,
    folders of frames, or photographs, which are recordings of one frame. For example:

        bayesfs predict my-things new-videos
        bayesfs predict my-things new-videos --run bayesfs-demo/run
        bayesfs predict my-things new-videos --backbone efficientnet-lite2

    Args:
        teach: folder "object name/" of videos, or a store that `bayesfs teach` made of one; or what
            `bayesfs export` wrote, which is answered for without torch, the quickest way.
        videos: folder of the videos to name, or one of them.
        run: finished run whose population is used; by default the one that comes with bayesfs,
            which your own videos correct.
        table: CSV file to write, with probabilities and uncertainties: a row a video, also of those
            that cannot be read.
        backbone: multiscale+efficientnet-lite0, by default, efficientnet-lite0, twice as fast and
            weaker, or efficientnet-lite2 (extra lite2), each with a population that comes with
            bayesfs; with --run, where the code or the weights of its backbone are, if it cannot be
            made without, such as torch:MODULE:FUNCTION or timm:NAME,weights=FILE.
        device: where backbone and engine run, such as cpu or cuda; the best there is by default.
        trust: run recipes kept in the run directory though bayesfs does not ship them.
        allow_missing: go on without objects of which no video can be read, instead of stopping.
        condition: how the videos to name were recorded: clean, as the taught ones, or in clutter.
            Told, "none of your objects" is said more often of what was not taught.
    """
    from bayesfs.cli.name_exported import is_exported, name_exported

    if is_exported(teach):
        given = {"--run": run, "--backbone": backbone, "--device": device, "--trust": trust}
        if said := [name for name, value in given.items() if value]:
            raise BayesfsError(
                f"{teach} was exported with its population and its backbone, which takes no "
                f"{', '.join(said)}; give the videos or the store that it was exported from"
            )
        name_exported(teach, videos, table=table, condition=condition)
        return
    _take_cores()
    from bayesfs.cli.name_videos import name_videos

    name_videos(
        teach,
        videos,
        run,
        table=table,
        device=device,
        backbone=backbone,
        trust=trust,
        allow_missing=allow_missing,
        condition=condition,
    )


def teach_videos(
    taught: Annotated[Path, Positional, arg(metavar="TAUGHT")],
    videos: Annotated[Path, Positional, arg(metavar="VIDEOS")],
    *,
    run: Path | None = None,
    backbone: str | None = None,
    device: str | None = None,
    trust: bool = False,
) -> None:
    """Keep what a person taught, so that naming videos need not look at the taught ones again.

    TAUGHT is made, or grows: a feature store, which `predict` and `watch` take in place of a folder
    of videos. `correct`, `forget` and `merge` change it; the state before a change stays in
    TAUGHT.before. For example:

        bayesfs teach my-things.zarr my-videos
        bayesfs predict my-things.zarr new-videos

    Args:
        taught: the store, such as my-things.zarr.
        videos: folder "object name/" of videos.
        run: finished run whose population will be used; by default the one that comes with bayesfs.
        backbone: as of predict.
        device: where the backbone runs.
        trust: run recipes kept in the run directory though bayesfs does not ship them.
    """
    from bayesfs.cli.name_videos import teacher_of
    from bayesfs.cli.taught import teach_more

    teach_more(taught, videos, teacher_of(run, device, trust=trust, backbone=backbone))


def correct(
    taught: Annotated[Path, Positional, arg(metavar="TAUGHT")],
    video: Annotated[str, Positional, arg(metavar="VIDEO")],
    thing: Annotated[str, Positional, arg(metavar="OBJECT")],
    *,
    run: Path | None = None,
    backbone: str | None = None,
    device: str | None = None,
    trust: bool = False,
    condition: Literal["clean", "clutter"] = "clutter",
) -> None:
    """Say what a video shows: one that was taught, or one that was named wrongly.

    For example:

        bayesfs correct my-things.zarr new-videos/3.mp4 keys

    Args:
        taught: the store that `teach` made.
        video: name of a taught video; or the path of a recording, which is then taught.
        thing: name of the object that it shows, which may be new.
        run: finished run whose population is used, as for `teach`.
        backbone: as of predict.
        device: where the backbone runs.
        trust: run recipes kept in the run directory though bayesfs does not ship them.
        condition: how a recording that was not taught before was recorded.
    """
    from bayesfs.cli.name_videos import teacher_of
    from bayesfs.cli.taught import correct_video

    teacher = teacher_of(run, device, trust=trust, backbone=backbone)
    correct_video(taught, video, thing, condition, teacher)


def forget(
    taught: Annotated[Path, Positional, arg(metavar="TAUGHT")],
    name: Annotated[str, Positional, arg(metavar="NAME")],
) -> None:
    """Take an object or a video out of what was taught.

    For example:

        bayesfs forget my-things.zarr keys

    Args:
        taught: the store that `teach` made.
        name: of the object, or of the video.
    """
    from bayesfs.cli.taught import forget_named

    forget_named(taught, name)


def merge_stores(
    taught: Annotated[Path, Positional, arg(metavar="TAUGHT")],
    other: Annotated[Path, Positional, arg(metavar="OTHER")],
) -> None:
    """Add what another store teaches, such as that of a second device.

    Objects of one name are one, and a video that both have counts once. For example:

        bayesfs merge my-things.zarr phone.zarr

    Args:
        taught: the store that `teach` made, which grows.
        other: another such store, with the same backbone.
    """
    from bayesfs.cli.taught import merge_taught

    merge_taught(taught, other)


def export(
    teach: Annotated[Path, Positional, arg(metavar="TEACH")],
    *,
    onnx: Path,
    run: Path | None = None,
    frames: int = 16,
    condition: Literal["unknown", "clean", "clutter"] = "unknown",
    backbone: str | None = None,
    trust: bool = False,
) -> None:
    """Write backbone and taught objects as ONNX files, for a device without torch.

    The folder holds recognise.py, which needs NumPy and onnxruntime alone; `bayesfs predict` takes
    it as TEACH, and answers within a second of its start. For example:

        bayesfs export my-things --onnx my-things-onnx
        bayesfs predict my-things-onnx new-videos

    Args:
        teach: folder "object name/" of videos, or a store that `bayesfs teach` made of one.
        onnx: folder to write; must not exist.
        run: finished run whose population is used; by default the one that comes with bayesfs.
        frames: most frames of a video that are answered for together.
        condition: how the videos to name will be recorded; see predict.
        backbone: as of predict.
        trust: run recipes kept in the run directory though bayesfs does not ship them.
    """
    from bayesfs.cli.export_taught import export_taught

    export_taught(
        teach, onnx, run, frames=frames, condition=condition, trust=trust, backbone=backbone
    )


def watch_source(
    teach: Annotated[Path, Positional, arg(metavar="TEACH")],
    source: Annotated[str, Positional, arg(metavar="SOURCE")],
    *,
    run: Path | None = None,
    backbone: str | None = None,
    device: str | None = None,
    trust: bool = False,
    condition: Literal["clean", "clutter"] = "clutter",
    window: int = 30,
    every: int = 1,
) -> None:
    """Say which of a person's objects a video shows while its frames arrive.

    SOURCE is a video file, a folder of frames, or the number of a camera. Each line has the
    likeliest object, the set of objects that it may be, and the doubt. For example:

        bayesfs watch my-things 0
        bayesfs watch my-things new-video.mp4 --run bayesfs-demo/run --every 10

    Args:
        teach: folder "object name/" of videos.
        source: what to watch.
        run: finished run whose population is used; by default the one that comes with bayesfs.
        backbone: as of predict.
        device: where backbone and engine run, such as cpu or cuda; the best there is by default.
        trust: run recipes kept in the run directory though bayesfs does not ship them.
        condition: how the frames are recorded: clean, as the taught ones, or in clutter.
        window: latest frames that are answered for jointly.
        every: say the answer at every n-th frame.
    """
    from bayesfs.cli.watch_video import watch_video

    if window < 1 or every < 1:
        raise BayesfsError(f"expected --window and --every above 0, got {window} and {every}")
    watch_video(
        teach,
        source,
        run,
        device=device,
        trust=trust,
        backbone=backbone,
        condition=condition,
        window=window,
        every=every,
    )


def explain(
    directory: Annotated[Path, Positional, arg(metavar="RUN")],
    *,
    video: str | None = None,
    data: Path | None = None,
    shots: int | None = None,
    out: Path | None = None,
    rules: bool = False,
    recording: Path | None = None,
    device: str | None = None,
    trust: bool = False,
) -> None:
    """Say what a video of a finished run shows, how sure that is, why, and what to do about it.

    Prints one sentence and the numbers behind it, and draws the doubt over the video's time, by
    kind, level and cause. Without --video, lists the videos. For example:

        bayesfs explain bayesfs-demo/run --video VIDEO

    Args:
        directory: finished run.
        video: a query video of a test user.
        data: the run's feature store; the run knows where it is if that is nearby.
        shots: support videos per object; as many as the run has by default.
        out: picture to write (png, svg, pdf); by default in RUN/explained, named after the video.
        rules: show instead, for each user, how often answers and sets of answers are right by the
            rules that were learnt on train users.
        recording: the video itself, a file or a folder of its frames, to say what stands where in
            them, from parts of the frames (runs of models/similarity_pool.py).
        device: where the engine runs, such as cpu or cuda; the best there is by default.
        trust: run recipes kept in the run directory though bayesfs does not ship them.
    """
    from bayesfs.cli.explain_run import explain_run

    explain_run(
        directory,
        video,
        data=data,
        shots=shots,
        out=out,
        rules=rules,
        recording=recording,
        device=device,
        trust=trust,
    )


def check(
    directory: Annotated[Path, Positional, arg(metavar="RUN")],
    *,
    data: Path | None = None,
    shots: int | None = None,
    simulations: int = 96,
    seed: int = 0,
    device: str | None = None,
    trust: bool = False,
) -> None:
    """Test whether the engine of a finished run is right about the run's own tasks.

    Further videos are simulated from each person's posterior and inferred with those that there
    are: what they were simulated from has to lie anywhere among the draws, evenly (posterior
    simulation-based calibration; see docs/diagnostics.md). Prints a table. The exit status is 0 if
    the engine passes, 1 if not, and 2 if it could not be tested. For example:

        bayesfs check bayesfs-demo/run

    Args:
        directory: finished run.
        data: the run's feature store; the run knows where it is if that is nearby.
        shots: support videos per object; as many as the run has by default.
        simulations: how many at least; 96 find sds that are 15 % too small.
        seed: of everything random.
        device: where the engine runs, such as cpu or cuda; the best there is by default.
        trust: run recipes kept in the run directory though bayesfs does not ship them.
    """
    from bayesfs.cli.check_run import check_run

    passed = check_run(
        directory,
        data=data,
        shots=shots,
        simulations=simulations,
        seed=seed,
        device=device,
        trust=trust,
    )
    if not passed:
        raise SystemExit(1)


def benchmark(
    data: Annotated[Path, Positional, arg(metavar="DATA")],
    *,
    out: Path,
    models: tuple[Path, ...] = (),
    engines: tuple[Path, ...] = (),
    evaluation: Path | None = None,
    shots: tuple[int, ...] = (1, 5),
    way: int = 0,
    ways: tuple[int, ...] = (),
    noise: tuple[float, ...] = (),
    corruptions: tuple[str, ...] = (),
    severities: tuple[int, ...] = (1, 2, 3, 4, 5),
    tree: Path | None = None,
    device: str | None = None,
    episodes: int = 600,
    seeds: int = 5,
    meta_train: int | None = None,
    axes: int = 256,
    no_baselines: bool = False,
    seed: int = 0,
    smoke: bool = False,
) -> None:
    r"""Score models x engines and baselines on the same tasks, in one table with intervals.

    DATA is a feature store (held-out users are scored) or an .npz file of labelled features
    (N-way K-shot episodes of held-out classes). A benchmark that was interrupted goes on from the
    last finished cell; a model that is added costs its own cells only. For example:

        bayesfs benchmark features.npz --out benchmarks/first \
            --models models/gaussian.py models/deep_kernel_gp.py --shots 1 5 --ways 10 --noise 0.5

        bayesfs benchmark store.zarr --out benchmarks/corrupted --tree my-videos \
            --corruptions noise blur darkness overexposure low_contrast jpeg occlusion cut_off

    Args:
        data: feature store, or labelled features.
        out: folder for the cells and the tables (CSV, JSON).
        models: recipes of models; shipped ones by default.
        engines: recipes of engines, each used with each model; the exact one by default.
        evaluation: recipe that says which users' tasks are scored, for a feature store.
        shots: numbers of support videos or pictures per class.
        way: classes per task; 0 takes all objects of a user, and 5 classes of stills.
        ways: further numbers of classes, scored at the most shots.
        noise: levels of noise on the query's features, scored at the most shots; 1 is as large as
            what tells pictures apart.
        corruptions: what to do to the pictures of the query before the backbone sees them, scored
            at the most shots with the mean uncertainty of each kind: noise, blur, darkness,
            overexposure, low_contrast, jpeg, occlusion, cut_off.
        severities: how badly, 1 to 5.
        tree: the recordings that the feature store was made from, to corrupt.
        device: where engines run, and the backbone on corrupted pictures; the best there is by
            default. Baselines run on the CPU.
        episodes: episodes of stills per seed.
        seeds: number of seeds of the episodes of stills.
        meta_train: classes of stills to learn from; three fifths by default.
        axes: principal axes that baselines get.
        no_baselines: leave the baselines out.
        seed: of everything random.
        smoke: make everything tiny, to see whether the recipes fit; the numbers mean nothing.
    """
    from bayesfs.benchmark.run import Plan, run_benchmark

    plan = Plan(
        data=data,
        models=models,
        engines=engines,
        evaluation=evaluation,
        baselines=not no_baselines,
        axes=axes,
        shots=tuple(sorted(set(shots))),
        way=way,
        ways=ways,
        noises=noise,
        tree=tree,
        corruptions=tuple(dict.fromkeys(corruptions)),
        severities=severities,
        device=device,
        episodes=episodes,
        seeds=seeds,
        meta_train=meta_train,
        seed=seed,
        smoke=smoke,
    )
    run_benchmark(plan, out)


def population(
    action: Annotated[
        Literal["save", "show", "merge", "push", "pull"], Positional, arg(metavar="ACTION")
    ],
    files: Annotated[tuple[Path, ...], Positional, arg(metavar="FILES")],
    *,
    out: Path | None = None,
    trust: bool = False,
) -> None:
    """Share what people's data say of others: save a run's population, show, merge, push, pull.

    A population is one small file with numbers and a card, npz or .safetensors as it is called; no
    picture, name or feature of anybody is in it. It is of the model of models/similarity_pool.py,
    whose features are not projected. For example:

        bayesfs population save runs/first mine.npz
        bayesfs population show efficientnet-lite2
        bayesfs population merge mine.npz yours.npz --out ours.npz
        bayesfs population push mine.npz /shared/populations/mine
        bayesfs population pull /shared/populations/mine theirs.npz

    Args:
        action: "save RUN OUT", "show FILE", "merge FILE FILE --out OUT", "push FILE PLACE" or
            "pull PLACE OUT".
        files: a run and the file to write, or files of populations; "show" without any, or with the
            name of a backbone, shows one that comes with bayesfs. A place is a folder, which gets
            the file and a card, or hf://OWNER/NAME on the Hugging Face hub (extra hub).
        out: file to write.
        trust: run recipes kept in the run directory though bayesfs does not ship them.
    """
    from bayesfs.cli.share_populations import merge_populations, save_population, show_population

    if action == "show" and len(files) < 2 and out is None:
        show_population(*files)
    elif action == "save" and len(files) == 2 and out is None:
        save_population(*files, trust=trust)
    elif action == "merge" and len(files) > 1 and out is not None:
        merge_populations(files, out)
    elif action in ("push", "pull") and len(files) == 2 and out is None:
        from bayesfs.cli.population_places import pull_population, push_population

        (push_population if action == "push" else pull_population)(*files)
    else:
        raise BayesfsError(
            "expected: bayesfs population save RUN OUT.npz, or show FILE.npz, or merge A.npz B.npz "
            "--out C.npz, or push FILE.npz PLACE, or pull PLACE OUT.npz"
        )


def init(folder: Folder) -> None:
    """Copy the shipped recipes into a folder, to edit and run.

    For example:

        bayesfs init my-study

    Args:
        folder: a new folder; nothing in it is overwritten.
    """
    from bayesfs.recipes.load import copy_recipes
    from bayesfs.runs.directory import explained

    with explained(folder):
        copies = copy_recipes(folder)
    for copy in copies:
        print(copy)
    recipes = "models/gaussian.py inference/exact.py evaluation/clutter.py"
    place = shlex.quote(str(folder))
    print(f"\nNext: cd {place}; bayesfs run {recipes} --data STORE --out runs/first")


def _take_cores() -> None:
    """Let this process take as many threads as it has cores, and waste neither them nor memory."""
    from bayesfs._utils.process_settings import keep_freed_memory, wait_briefly

    keep_freed_memory()
    wait_briefly()
    from bayesfs._utils.threads import share_cores  # torch comes with it

    share_cores()


def _on_its_cores(command: Callable[..., None]) -> Callable[..., None]:
    """The command, in a process that takes as many threads as it has cores."""

    @wraps(command)
    def begin(*args: Any, **kwargs: Any) -> None:
        _take_cores()
        command(*args, **kwargs)

    return begin


COMMANDS: dict[str, Callable[..., None]] = {
    **{
        command.__name__: _on_its_cores(command)
        for command in (demo, features, compare, benchmark, explain, check)
    },
    "run": run,  # these take their cores when the recipes have been checked
    "sweep": sweep,
    "predict": predict,  # this one if what was taught asks for torch
    "report": report,  # imports no torch, and its matrices are small
    "population": _on_its_cores(population),
    "watch": _on_its_cores(watch_source),
    "teach": _on_its_cores(teach_videos),
    "correct": _on_its_cores(correct),
    "forget": _on_its_cores(forget),
    "merge": _on_its_cores(merge_stores),
    "export": _on_its_cores(export),
    "init": init,
}
