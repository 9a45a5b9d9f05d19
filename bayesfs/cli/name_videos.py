"""Name a person's unlabelled videos, taught by a few videos of each object: `name_videos`.

Nothing that was asked or taught is left out without a word: each video to name has a row, and an
object of which no video can be read stops the command, unless that is allowed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesfs._utils.devices import usable_device
from bayesfs._utils.progress import bar, say
from bayesfs.cli.answers import (
    asked_videos,
    check_writable,
    reason_of,
    rows_of,
    tell_answers,
)
from bayesfs.data.sampling import sample_episodes
from bayesfs.data.sources.folder import read_folder, read_unlabelled
from bayesfs.data.sources.skipped import tell_skipped
from bayesfs.data.sources.video import (
    UNKNOWN_OBJECT,
    NothingDecoded,
    Skipped,
    Video,
    VideoTree,
)
from bayesfs.data.store import open_store, read_skipped
from bayesfs.decisions.rules import Rules
from bayesfs.diagnostics.self_estimate import self_estimate
from bayesfs.diagnostics.verdicts import UNLIKE
from bayesfs.errors import DataError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.explanation.camera import Defect, defect_of
from bayesfs.explanation.evidence import gather, looks_of
from bayesfs.explanation.explain import explain_all
from bayesfs.explanation.explanation import Explanation
from bayesfs.explanation.framing import Look
from bayesfs.features.backbones.spec import DEFAULT, remade
from bayesfs.features.decoding.sampling import Sampling, Spread
from bayesfs.features.extraction.embed import embed
from bayesfs.features.reduction import UnitNorm
from bayesfs.features.windows import LOOKED, WINDOWS, Window, Windowed
from bayesfs.prediction import query_evidence, thinned_values
from bayesfs.protocols import Backbone, Collapsible, KnowsTypical, Model, NamesFrames
from bayesfs.runs.compose import compose
from bayesfs.runs.directory import RunDirectory
from bayesfs.study import Learnt, Study
from bayesfs.training.shared_population import ENGINE, default_population
from bayesfs.types import CONDITIONS, Embeddings, EpisodeBatch, Posterior

ROUNDING = 1e-6
"""Nats that a video must be likelier by to count as recorded in the other condition."""

Asked = Literal["unknown", "clean", "clutter"]
"""Recording condition of the videos to name."""

MOST_FRAMES = 16
"""Frames of a video that are looked at without a run, spread evenly."""


@dataclass(frozen=True)
class Personal:
    """What TEACH and VIDEOS hold, and what of it could be read.

    Attributes:
        tree: the videos that were found.
        asked: path of everything that is to be named, in order.
        embeddings: of what could be read.
        skipped: what could not, and why.
    """

    tree: VideoTree
    asked: tuple[str, ...]
    embeddings: Embeddings
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Teacher:
    """What is known before this person, and how features are made for it.

    Attributes:
        study: model and engine.
        learnt: from other people.
        backbone: whose features that is of.
        sampling: which frames of a video are used.
        rules: mean number of taught videos of an object -> thresholds learnt on other people, if
            any.
        seed: of everything random.
    """

    study: Study
    learnt: Learnt
    backbone: Backbone
    sampling: Sampling
    rules: Callable[[float], Rules | None]
    seed: int


def of_run(run: Path, device: str | None, *, trust: bool, backbone: str | None = None) -> Teacher:
    """What a finished run learnt, its recipes run anew.

    Args:
        run: run directory.
        device: where backbone and engine run; the best there is by default.
        trust: run recipes that bayesfs does not ship.
        backbone: where the code or the weights of the run's backbone are, if needed.
    """
    from bayesfs.runs.reading import inputs_of
    from bayesfs.runs.reuse import kept_recipes, same_backbone, same_sampling
    from bayesfs.runs.rules import rules_for
    from bayesfs.runs.run import load_learnt

    directory = RunDirectory(run)
    learnt, inputs = load_learnt(directory), inputs_of(directory)
    recipes = kept_recipes(directory, trust=trust)
    study = compose(recipes, inputs["settings"], smoke=inputs["smoke"], device=device)
    return Teacher(
        study,
        learnt.on(study.place),
        same_backbone(directory, usable_device(device), backbone),
        same_sampling(directory),
        partial(rules_for, directory),
        inputs["seed"],
    )


def boxed(device: str | None, backbone: str = DEFAULT) -> Teacher:
    """The population that comes with bayesfs for a backbone."""
    shared = default_population(backbone)
    study = Study(shared.model, ENGINE, HeldOutUsers(), reduction=UnitNorm(), device=device)
    network = remade(shared.backbone, usable_device(device))
    learnt = shared.learnt.on(study.place)
    return Teacher(study, learnt, network, Sampling(max_frames=MOST_FRAMES), lambda _: None, 0)


def teacher_of(
    run: Path | None, device: str | None, *, trust: bool, backbone: str | None = None
) -> Teacher:
    """What a run learnt, or what comes with bayesfs where none is given.

    Raises:
        DataError: no population comes along for the backbone.
    """
    if run is not None:
        return of_run(run, device, trust=trust, backbone=backbone)
    return boxed(device) if backbone is None else boxed(device, backbone)


OWN_DRAWS = 4
"""Population draws by which a person's own videos are asked about."""

FURTHER = 10
"""Videos to come of which it is said how many will be recognised."""

ALIKE = 0.6
"""`alike_factor` below which it is said that the taught things look alike."""


def name_videos(
    teach: Path,
    videos: Path,
    run: Path | None,
    *,
    table: Path | None,
    device: str | None,
    trust: bool,
    backbone: str | None = None,
    allow_missing: bool = False,
    condition: Asked = "unknown",
) -> None:
    """Print one sentence a video, and write the numbers behind them if asked.

    Args:
        teach: folder with one folder of videos per object, or a store of what was taught.
        videos: folder of the videos to name.
        run: finished run whose population is used; without one, the population in the box.
        table: CSV file to write.
        device: where backbone and engine run; the best there is by default.
        trust: run recipes kept in the run directory even if they are not the shipped ones.
        backbone: without a run, whose population is used, see
            `bayesfs.training.shared_population.BACKBONES`; with one, where the code or the weights
            of its backbone are, if its name is not enough.
        allow_missing: go on without objects that are not taught, none of their videos being read.
        condition: that the videos to name were recorded in; inferred for each video if unknown.

    Raises:
        DataError: an object is not taught, or no video to name could be read.
    """
    if table is not None:
        check_writable(table)
    teacher = teacher_of(run, device, trust=trust, backbone=backbone)
    study, learnt, seed = teacher.study, teacher.learnt, teacher.seed
    found = read_personal(teach, videos, teacher)
    tell_missing(teach, found, allowed=allow_missing)
    said: Sequence[Explanation] = ()
    if (found.embeddings.coord("object") == UNKNOWN_OBJECT).any():
        tasks = asked_tasks(teacher, found.embeddings, condition)
        answer = study.infer(tasks, learnt, seed=seed)
        videos_each = float(tasks.shot_mask.sum() / tasks.way_mask.sum())
        evidence = gather(
            answer.model,
            learnt.population,
            answer.episodes,
            answer.predictive,
            condition_known=condition != "unknown",
            seed=seed,
        )
        looks = looked_at(teacher, found, condition)
        evidence = replace(evidence, looks=looks, defects=defects_in(found.embeddings))
        (said,) = explain_all(evidence, rules=teacher.rules(videos_each))
        for remark in remarks(answer.model, learnt.population, answer.posterior, tasks):
            say(remark)
    tell_answers(said, rows_of(said, found.asked, found.tree.videos, found.skipped), table)
    if not said:
        raise DataError(f"{videos}: none of the {len(found.asked)} videos to name could be read")


def remarks(
    model: Model, population: Posterior, posterior: Posterior, tasks: EpisodeBatch
) -> list[str]:
    """What is to be said of what a person taught, whatever is asked.

    Args:
        model: as it is for tasks.
        population: posterior of the population sites.
        posterior: of the person's task.
        tasks: the person's task.
    """
    found = []
    if isinstance(model, KnowsTypical) and (p := float(model.exchangeability(tasks)[0])) < UNLIKE:
        found.append(
            "your videos of one object are not as alike as those of the people that were learnt "
            f"from (p = {p:.3f}): another way of recording, or another kind of things; what is "
            "said of new objects, and how sure it is, may be off"
        )
    alike = posterior.sample_stats.get("alike_factor")
    if alike is not None and float(alike[0]) < ALIKE:
        found.append(
            "the things you taught look more alike than those of the people that were learnt from, "
            "so that one video of each tells them apart less surely; answers are held back for it "
            "until several videos of each show how well they do"
        )
    if isinstance(model, Collapsible):
        own = self_estimate(model, thinned_values(population, OWN_DRAWS), tasks)[0]
        low, high = own.of_further(FURTHER)
        if own.asked:
            found.append(
                f"of your taught videos, each asked about from the others alone, {own.right} of "
                f"{own.asked} are recognised: of {FURTHER} more like them, expect {low} to {high} "
                "(95 %)"
            )
    return found


def looked_at(
    teacher: Teacher,
    found: Personal,
    condition: Asked,
    windows: Mapping[str, Window] = WINDOWS,
) -> Mapping[str, Mapping[str, Look]]:
    """Video to name -> window of its frames -> what is said of that by itself.

    Empty where the model cannot tell what shows nothing that was taught, or features are made
    elsewhere, of whole frames.
    """
    model, backbone = teacher.study.model_of(teacher.learnt), teacher.backbone
    if not isinstance(model, KnowsTypical) or isinstance(backbone, NamesFrames):
        return {}
    asked = tuple(v for v in found.tree.videos if v.object == UNKNOWN_OBJECT)
    windowed = Windowed(backbone, windows)
    frames = Spread.of(teacher.sampling, LOOKED)
    seen, _ = embedded_or_none(asked, windowed, frames, title="parts of their pictures")
    if seen is None:
        return {}
    known = found.embeddings.dataset
    parts = [known.isel(frame=np.flatnonzero(known["object"].values != UNKNOWN_OBJECT))]
    place: dict[str, tuple[str, str]] = {}
    for window, part in windowed.apart(seen).items():
        names = [f"{name} {window}" for name in part.coord("video")]
        place |= {new: (old, window) for new, old in zip(names, part.coord("video"), strict=True)}
        parts.append(part.dataset.assign_coords(video=("frame", names)))
    both = Embeddings.of_own(xr.concat(parts, "frame", combine_attrs="override"))
    tasks = asked_tasks(teacher, both, condition)
    answer = teacher.study.infer(tasks, teacher.learnt, seed=teacher.seed)
    like = model.typicality(tasks, condition_known=condition != "unknown")
    looks: dict[str, dict[str, Look]] = {}
    for name, look in looks_of(tasks, answer.predictive, like).items():
        video, window = place[name]
        looks.setdefault(video, {})[window] = look
    return looks


def defects_in(embeddings: Embeddings) -> dict[str, Defect]:
    """Video to name -> what is wrong with its light or focus, beside what was taught."""
    measured, video = embeddings.dataset["quality"].values, embeddings.coord("video")
    asked = embeddings.coord("object") == UNKNOWN_OBJECT
    found = {
        str(name): defect_of(measured[video == name], measured[~asked])
        for name in np.unique(video[asked])
    }
    return {name: defect for name, defect in found.items() if defect is not None}


def asked_tasks(teacher: Teacher, embeddings: Embeddings, condition: Asked) -> EpisodeBatch:
    """The person's task, each video to name in the condition that it was recorded in.

    Where that is unknown, it is the one in which the video is likelier given what was taught, and
    clutter for a model of labels alone, to which it makes no difference.
    """
    if condition != "unknown":
        return tasks_in_condition(teacher, embeddings, condition)
    study, population = teacher.study, teacher.learnt.population
    model = study.model_of(teacher.learnt)
    both = [tasks_in_condition(teacher, embeddings, each) for each in CONDITIONS]
    posterior = study.engine.infer(model, both[0], seed=teacher.seed, given=population)
    clean, clutter = (  # what was taught is the same in both
        dict(zip(tasks.videos[0], found[0].tolist(), strict=False))
        for tasks in both
        for found in [query_evidence(model, posterior, tasks, given=population)]
    )
    alike = [video for video, nats in clean.items() if nats > clutter[video] + ROUNDING]
    names = embeddings.coord("video")
    return tasks_in_condition(teacher, embeddings, np.where(np.isin(names, alike), *CONDITIONS))


def tasks_in_condition(
    teacher: Teacher, embeddings: Embeddings, condition: str | NDArray[np.str_]
) -> EpisodeBatch:
    """The person's task, with these conditions of the videos to name."""
    unknown = embeddings.coord("object") == UNKNOWN_OBJECT
    told = np.where(unknown, condition, embeddings.coord("condition"))
    frames = Embeddings(embeddings.dataset.assign_coords(condition=("frame", told)))
    evaluation = teacher.study.evaluation
    tasks = sample_episodes(
        teacher.learnt.projection(frames),
        shots=None,
        support_conditions=CONDITIONS,
        query_conditions=CONDITIONS,
        frames_per_video=evaluation.frames_per_video,
        query_frames=evaluation.query_frames,
        seed=teacher.seed,
    )
    return teacher.study.placed(tasks)


def read_personal(teach: Path, videos: Path, teacher: Teacher) -> Personal:
    """Embed a person's videos as those that the population is of were.

    Raises:
        DataError: there is no video to name, or none at all can be read.
    """
    store = taught_store(teach, teacher) if is_store(teach) else None
    if store is None:
        tree = read_folder(teach, unlabelled=videos)
    else:
        tree = read_unlabelled(videos, owned_by(store))
    asked = asked_videos(videos)
    if not asked:
        raise DataError(
            f"{videos}: expected videos to name (files, photographs or folders of frames), found "
            "none; TEACH comes first, then VIDEOS"
        )
    evaluation, sampling, backbone = teacher.study.evaluation, teacher.sampling, teacher.backbone
    taught = Spread.of(sampling, evaluation.frames_per_video)
    queried = Spread.of(sampling, evaluation.query_frames)
    is_asked = [video.object == UNKNOWN_OBJECT for video in tree.videos]
    parts = [
        embedded_or_none(some, backbone, chosen, skipped, title)
        for keep, chosen, skipped, title in (
            (False, taught, tree.skipped, "taught videos"),
            (True, queried, (), "videos to name"),
        )
        if (some := tuple(compress(tree.videos, [a == keep for a in is_asked])))
    ]
    known = [each for each in (store, *(each for each, _ in parts)) if each is not None]
    left_out = tuple(one for _, skipped in parts for one in skipped)
    if not known:
        raise NothingDecoded(len(tree), left_out)
    dataset = xr.concat([e.dataset for e in known], "frame", combine_attrs="override")
    return Personal(tree, asked, Embeddings.of_own(dataset), left_out)


def is_store(path: Path) -> bool:
    """Whether it is a feature store, and no folder of videos."""
    return (path / "zarr.json").is_file()


def taught_store(path: Path, teacher: Teacher) -> Embeddings:
    """What was taught before, from a feature store.

    Raises:
        DataError: it is of another backbone, of several people, or teaches nothing.
    """
    store = open_store(path)
    made = str(store.dataset.attrs.get("backbone", "unknown"))
    if made != teacher.backbone.name:
        raise DataError(
            f"{path}: holds features of {made!r}, and these are needed of "
            f"{teacher.backbone.name!r}; teach it anew from the videos, or name what it was taught "
            "for (--backbone or --run)"
        )
    owned_by(store)
    taught = store.coord("object") != UNKNOWN_OBJECT
    if not taught.any():
        raise DataError(f"{path}: no frame of it shows an object with a name")
    return Embeddings.of_own(store.dataset.isel(frame=np.flatnonzero(taught)))


def owned_by(store: Embeddings) -> str:
    """The one person whose objects they are.

    Raises:
        DataError: there are several.
    """
    people = np.unique(store.coord("user"))
    if len(people) > 1:
        raise DataError(
            f"expected what one person taught, got {len(people)}: {people[:5].tolist()}"
        )
    return str(people[0])


def embedded_or_none(
    videos: Sequence[Video],
    backbone: Backbone,
    sampling: Sampling,
    skipped: Sequence[Skipped] = (),
    title: str = "taught videos",
) -> tuple[Embeddings | None, tuple[Skipped, ...]]:
    """Embeddings of what can be read, None of nothing, and what cannot.

    Args:
        videos: to embed.
        backbone: what makes the features.
        sampling: which frames.
        skipped: what the reader has left out already.
        title: of the bar.
    """
    with bar(title) as progress:
        try:
            found = embed(videos, backbone, sampling=sampling, skipped=skipped, progress=progress)
        except NothingDecoded as error:
            return None, error.skipped
    return found, read_skipped(found.dataset.attrs)


def tell_missing(teach: Path, found: Personal, *, allowed: bool) -> None:
    """Say what was left out besides the videos to name, which have rows of their own.

    Raises:
        DataError: an object is not taught, and that is not allowed.
    """
    taught = {*found.embeddings.coord("object").tolist()}
    meant = {v.object for v in found.tree.videos} - {UNKNOWN_OBJECT}
    meant |= {s.path for s in found.tree.skipped if s.level == "object"}
    lost = sorted(meant - taught)
    if lost and not allowed:
        raise DataError(
            f"{teach}: no video of {', '.join(map(repr, lost[:5]))} could be read "
            f"({reason_of(found.skipped, lost[0])}), so that it would not be taught and its videos "
            "named after other objects; mend it, or go on without it by --allow-missing"
        )
    if lost:
        warnings.warn(f"not taught: {', '.join(map(repr, lost))}", stacklevel=2)
    rest = [s for s in found.skipped if s.path not in found.asked or s.level == "frame"]
    tell_skipped(rest, len(rest), tell=say)
