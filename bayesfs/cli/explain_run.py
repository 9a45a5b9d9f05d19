"""Explain one query video of a finished run: `explain_run`."""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from bayesfs._utils.progress import terminal_safe
from bayesfs.cli.look_closer import look_closer
from bayesfs.data.store import open_store
from bayesfs.data.user_rows import quick_fingerprint
from bayesfs.decisions.rules import Rules
from bayesfs.errors import DataError, RunError
from bayesfs.explanation.advice import matters
from bayesfs.explanation.evidence import Evidence, gain_by_condition, of_video, without_gain
from bayesfs.explanation.explain import explain_video
from bayesfs.explanation.explanation import Explanation
from bayesfs.explanation.sentences import part_text
from bayesfs.plots.explanation import plot_explanation
from bayesfs.protocols import Collapsible
from bayesfs.runs.compose import compose
from bayesfs.runs.directory import RunDirectory, explained, write_atomically
from bayesfs.runs.distributed_run import shown_frames
from bayesfs.runs.reading import inputs_of, store_of
from bayesfs.runs.reuse import kept_recipes
from bayesfs.runs.rules import check_users, rules_at
from bayesfs.runs.run import load_learnt, seeds_of, store_fingerprint
from bayesfs.study import Learnt, Study
from bayesfs.types import Embeddings, EpisodeBatch
from bayesfs.uncertainty.influence import leave_one_out_influence
from bayesfs.uncertainty.parts import ALL_PARTS

FORMATS = (".png", ".svg", ".pdf")
"""Of the picture."""

ENGLISH = "en"
"""Language of the numbers, as of all commands; only the sentence is in the person's."""

LONGEST_NAME = 50
"""Characters of a video's name in its picture's, which may take four bytes each."""

SHOWN = 3
"""Most influential support videos and most worthwhile recordings that are printed."""


def explain_run(
    run: Path,
    video: str | None,
    *,
    data: Path | None = None,
    shots: int | None,
    out: Path | None,
    rules: bool,
    trust: bool,
    device: str | None = None,
    recording: Path | None = None,
) -> None:
    """Print why a video was named as it was, and draw its doubt over time; or list the videos.

    Args:
        run: finished run.
        video: a query video of its; None lists them.
        data: its feature store; where the run says that it is by default.
        shots: support videos per object; as many as the run has by default.
        out: picture to write; one in the run's folder `explained` by default.
        rules: show instead how the rules of decision do for each user.
        trust: run recipes kept in the run directory even if they are not the shipped ones.
        device: where the engine runs; the best there is by default.
        recording: of the video, whose frames are looked at in windows, to say what stands where.

    Raises:
        RunError: the run is not finished, its data have changed, or its model says nothing of
            windows.
        DataError: there is no such video, or the recording is of another one.
    """
    directory = RunDirectory(run)
    study, learnt, embeddings = reopened(directory, data, trust=trust, device=device)
    seeds = seeds_of(inputs_of(directory))
    shots = usable_shots(study, shots)
    tasks = study.tasks(embeddings, learnt, seed=seeds.episodes).limit_shots(shots)
    if rules:
        decide = rules_at(directory, study, learnt, embeddings, shots, seeds=seeds)
        print(*check_users(decide, study, learnt, embeddings, shots, seeds=seeds), sep="\n")
        return
    if video is None:
        print(*listing(tasks), sep="\n")
        return
    t, v = find_video(tasks, video, directory.state().get("skipped", []))
    at = None if shots == usable_shots(study, None) else shots
    path = out or run / "explained" / picture_name(video, at)
    if path.suffix not in FORMATS:
        raise DataError(f"{path}: expected a picture's name that ends in {', '.join(FORMATS)}")
    decide = rules_at(directory, study, learnt, embeddings, shots, seeds=seeds)
    evidence = evidence_of(study, learnt, tasks.select([t]), v, seed=seeds.fit)
    one = evidence.episodes
    if recording is not None:
        looks = look_closer(directory, study, learnt, one, recording, embeddings, seed=seeds.fit)
        evidence = replace(evidence, looks={video: looks})
    found = explain_video(evidence, 0, 0, rules=decide)
    said = [*numbers(found, decide)]
    model = study.model_of(learnt)
    if isinstance(model, Collapsible):
        moved = leave_one_out_influence(model, learnt.population, one)
        said.append(resting_on(moved, one, embeddings))
    within = run if out is None else None
    # before anything is said: nobody may be listening
    shown = draw(evidence, path, decide, within)
    print(terminal_safe(found.sentence()), "", sep="\n")
    print(*(terminal_safe(line, longest=400) for line in said), sep="\n")
    print(f"picture: {path}", f"  {terminal_safe(shown, longest=2000)}", sep="\n")


def picture_name(video: str, shots: int | None) -> str:
    """A name for the picture of a video, no other video's: ~ stands in no name as it is kept.

    Args:
        video: its name; a digest of it tells names apart that look alike in letters alone.
        shots: number of support videos, where it is not the usual one.

    Example:
        >>> picture_name("keys-0", 2), picture_name("keys on desk", None)
        ('keys-0~02.png', 'keys_on_desk~1846f1ba.png')
    """
    letters = re.sub(r"[^\w.-]+", "_", video)[:LONGEST_NAME]
    digest = hashlib.sha256(video.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    own = letters if letters == video else f"{letters}~{digest}"
    return own + ("" if shots is None else f"~{shots:02d}") + ".png"


def draw(evidence: Evidence, path: Path, rules: Rules | None, within: Path | None = None) -> str:
    """Write the picture of the first video; its text alternative."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    most = rules.frame.most_absent if rules else 0.5

    def write(place: Path) -> None:
        said.append(plot_explanation(evidence, 0, 0, place, most_absent=most))

    write_atomically(path, write, within)
    return said[0]


def evidence_of(
    study: Study, learnt: Learnt, task: EpisodeBatch, video: int, *, seed: int
) -> Evidence:
    """The numbers of one video of one task; all that the task asks says what teaching is worth."""
    model, population = study.model_of(learnt), learnt.population
    one = of_video(task, 0, video)
    answer = study.infer(one, learnt, seed=seed)
    known = without_gain(model, population, one, answer.predictive, seed=seed)
    gain = gain_by_condition(model, population, task, answer.predictive, seed=seed)
    if gain is None:
        return known
    return replace(known, gain=gain.nanmean(1), own_gain=gain[:, [video]])


def reopened(
    run: RunDirectory, data: Path | None = None, *, trust: bool, device: str | None = None
) -> tuple[Study, Learnt, Embeddings]:
    """The study of a finished run, what it learnt, and the data it was of.

    Args:
        run: the run.
        data: its feature store; where the run says that it is by default.
        trust: run recipes that are not the shipped ones.
        device: where the study's tensors live; the best there is by default.

    Raises:
        RunError: the run is not finished, does not say where its store is, or the store holds other
            data than the run saw.
    """
    state = run.finished()
    inputs, store = inputs_of(run), data or store_of(run, state)
    if store is None:
        raise RunError(f"{run.path}: does not say where its feature store is; add --data STORE")
    if not store.exists():
        raise RunError(f"{store}: there is no feature store; where is it now? Add --data STORE")
    recipes = kept_recipes(run, trust=trust)
    study = compose(recipes, inputs["settings"], smoke=inputs["smoke"], device=device)
    learnt = load_learnt(run).on(study.place)
    if inputs.get("cluster"):
        embeddings = shown_frames(study, store, state.get("shown", []))
        found = quick_fingerprint(store)
    else:
        embeddings = open_store(store)
        found = store_fingerprint(embeddings)
    if found != inputs["data"]:
        raise RunError(f"{store}: holds other data than when {run.path} was made; run it again")
    return study, learnt, embeddings


def usable_shots(study: Study, wanted: int | None) -> int:
    """How many support videos per object to use: as many as the study has, or those wanted.

    Raises:
        DataError: it has not so many.
    """
    most = max(study.evaluation.shots)
    if wanted is not None and not 1 <= wanted <= most:
        raise DataError(f"expected --shots between 1 and {most}, got {wanted}")
    return wanted or most


def find_video(tasks: EpisodeBatch, name: str, left_out: Sequence[str] = ()) -> tuple[int, int]:
    """Task and place of a query video; the first, where a user has several tasks.

    Args:
        tasks: the tasks.
        name: of the video.
        left_out: "path: reason" of what the run's store lacks.

    Raises:
        DataError: there is none of that name; the message has the reason why it was left out, or
            the nearest names.
    """
    known: dict[str, tuple[int, int]] = {}
    for t, names in enumerate(tasks.videos):
        for v, own in enumerate(names):
            known.setdefault(own, (t, v))
    if name not in known:
        why = [text for text in left_out if name in str(text).partition(": ")[0].split("/")]
        if why:
            raise DataError(f"no query video {name!r}; it was left out: {why[0]}")
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.4) or list(known)[:4]
        raise DataError(
            f"no query video {name!r}; nearest: {', '.join(near)}; without --video all are listed"
        )
    return known[name]


def listing(tasks: EpisodeBatch) -> Iterator[str]:
    """The query videos, by user."""
    seen: set[str] = set()
    for user, names in zip(tasks.users, tasks.videos, strict=True):
        if not seen.issuperset(names):
            yield f"{terminal_safe(user)}:"
        yield from (f"  {terminal_safe(name)}" for name in names if name not in seen)
        seen.update(names)


TYPICAL = "share of taught videos that are less typical than this one"

ONE_MORE = "one more video would take off"


def numbers(found: Explanation, rules: Rules | None) -> Iterator[str]:
    """The numbers behind a sentence, a line each."""
    words = found.levels.in_words
    said = partial(part_text, language=ENGLISH, levels=found.levels)
    likely = [(thing, found.prob[thing]) for thing in found.answer or list(found.prob)[:SHOWN]]
    yield f"answer: {'; '.join(f'{thing} {p:.2f}' for thing, p in likely)}"
    if rules is not None:
        yield words(
            f"  sets are to hold the object in {rules.level:.0%} of a person's videos; that is "
            f"promised for {rules.promised:.0%} of people, from {rules.users} train users"
        )
    if found.confusable:
        yield f"most like it otherwise: {found.confusable} {found.prob[found.confusable]:.2f}"
    kinds = ", ".join(f"{said(k)} {found.parts[k]:.2f}" for k in ("aleatoric", "epistemic"))
    yield f"doubt in nats: {found.parts['total']:.2f}; {kinds}"
    levels = [f"{said(p)} {found.parts[p]:.2f}" for p in ALL_PARTS if p in found.parts]
    if levels:
        yield f"  by level: {', '.join(levels)}"
        yield f"  most from: {said(found.level)}"
    if found.levels.recorded:
        causes = [f"{said(c)} {nats:.3f}" for c, nats in found.causes.items()]
        yield f"  measured causes, nats a frame: {', '.join(causes) or 'none'}"
    if not math.isnan(found.absent):
        yield f"probability that nothing taught is shown: {found.absent:.2f}"
    if not math.isnan(found.typical):
        yield f"{words(TYPICAL)}: {found.typical:.2f}"
    for whom, gain in (("this question", found.own_gain), ("any question", found.gain)):
        told = {
            f"{thing}, {condition}" if matters(gain, thing) else thing: nats
            for (thing, condition), nats in gain.items()
        }
        ranked = sorted(told.items(), key=lambda item: -item[1])[:SHOWN]
        worth = "; ".join(f"{what} {nats:.3f}" for what, nats in ranked)
        if worth:
            yield f"{words(ONE_MORE)} {whom}, in nats: {worth}"


def resting_on(moved: xr.Dataset, one: EpisodeBatch, embeddings: Embeddings) -> str:
    """The support videos that moved the answer most, and whether they speak for it."""
    influence, toward = (moved[name].values[0, :, :, 0] for name in ("influence", "toward"))
    names = {k: n for k, n in support_names(one, embeddings).items() if np.isfinite(influence[k])}
    ranked = sorted(names, key=lambda place: -influence[place])[:SHOWN]
    said = [
        f"{names[k]} {influence[k]:.3f} {'for it' if toward[k] >= 0 else 'against it'}"
        for k in ranked
    ]
    only = "not known, since each object has one video only"
    return f"rests most on, nats: {'; '.join(said) or only}"


def support_names(one: EpisodeBatch, embeddings: Embeddings) -> dict[tuple[int, int], str]:
    """(way, shot) -> name of the support video of a batch of one task."""
    videos = embeddings.coord("video")
    frames: Sequence[Sequence[Sequence[int]]] = (
        [] if one.support_frame is None else one.support_frame[0].tolist()
    )
    return {
        (w, s): str(videos[rows[0]])
        for w, shots in enumerate(frames)
        for s, rows in enumerate(shots)
        if rows[0] >= 0
    }
