"""Row 17: what a person taught can be changed, exactly and at once, and corrections pay."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bayesfs.deploy.recogniser import Recogniser, teach
from bayesfs.explanation.sentences import SURE, likeliest
from bayesfs.study import Learnt
from bayesfs.types import Embeddings
from uncertainty_parts.bench import Bench, Floats, Found

Video = NDArray[np.float32]
"""(frame, input feature)."""

Taught = Callable[[Mapping[str, Sequence[Video]], str], Recogniser]
"""Object -> videos, and the condition that they were recorded in -> recogniser."""

TAUGHT, CORRECTIONS = 3, 10
"""Clean videos of each object that are taught, and cluttered ones that are corrected, at most."""


def videos_of(data: Embeddings, user: str, condition: str) -> dict[str, list[Video]]:
    """Object -> its videos of a condition."""
    own = data.where(user=user, condition=condition)
    found: dict[str, list[Video]] = {}
    names = own.coord("video")
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == name)
        found.setdefault(str(own.coord("object")[rows[0]]), []).append(own.features[rows])
    return found


def row_17(bench: Bench, learnt: Learnt, trials: int) -> Found:
    """People who correct ten of the answers about recordings in clutter; others are asked.

    What is asked is the same before and after. Answers that are corrected are the wrong ones, and
    if these are fewer than ten, any others. Once the recogniser is told that recordings are in
    clutter, which it knows from others; once it takes them for clean ones, a shift that it does not
    know. The figures are of the latter.
    """
    if bench.hierarchy(learnt) is None:
        return {}
    study, data = bench.study(bench.held_out()), bench.data.where(split="test")

    def anew(videos: Mapping[str, Sequence[Video]], condition: str) -> Recogniser:
        return teach(study, learnt, videos, condition=condition, ready_for=condition)

    found: Found = {}
    for told in ("clutter", "clean"):
        found = _corrections(anew, data, trials, told)
    return found


def _corrections(anew: Taught, data: Embeddings, trials: int, told: str) -> Found:
    """The figures, with cluttered recordings taken for such of a condition."""
    before, after, apart, seconds = [], [], [], []
    for user in sorted(set(data.coord("user").tolist())):
        clean = {k: v[:TAUGHT] for k, v in videos_of(data, user, "clean").items()}
        cluttered = {k: v for k, v in videos_of(data, user, "clutter").items() if k in clean}
        taught = anew(clean, "clean")
        for trial in range(trials):
            pool, asked = _halves(cluttered, np.random.default_rng(trial))
            chosen = _to_correct(taught, pool, told)
            grown, took = _corrected(taught, chosen, told)
            seconds += took
            before += [_said(taught, *one, told) for one in asked]
            after += [_said(grown, *one, told) for one in asked]
            if trial == 0:
                apart.append(_apart(anew, clean, taught, grown, chosen, asked, told))
    first, last = _sets(before, SURE), _sets(after, SURE)
    levels = np.linspace(SURE, 0.3, 61)
    alike = next((s for s in (_sets(after, v) for v in levels) if s[1] <= first[1]), last)
    print(f"sets of {SURE:.0%}, cluttered recordings taken for {told} ones, before and after")
    print(
        f"  {CORRECTIONS} corrections at most, other videos; and after, sets no larger than before:"
    )
    for name, sets in (("before", first), ("after", last), ("no larger", alike)):
        print(
            "  {:10} coverage {:.3f}  size {:.2f}  accuracy {:.3f}  NLL {:.3f}".format(name, *sets)
        )
    return {
        "corrected_max_diff": max(apart),
        "corrected_ms": 1000 * float(np.median(seconds)),
        "corrections_coverage": last[0] - first[0],
        "corrections_size_ratio": last[1] / first[1],
        "corrections_coverage_no_larger": alike[0] - first[0],
    }


Labelled = tuple[str, Video]


def _halves(
    videos: Mapping[str, Sequence[Video]], rng: np.random.Generator
) -> tuple[list[Labelled], list[Labelled]]:
    """Of each object's videos one half may be corrected, the other is asked; in random order."""
    pool: list[Labelled] = []
    asked: list[Labelled] = []
    for thing, own in videos.items():
        order = rng.permutation(len(own))
        pool += [(thing, own[i]) for i in order[: len(own) // 2]]
        asked += [(thing, own[i]) for i in order[len(own) // 2 :]]
    return [pool[i] for i in rng.permutation(len(pool))], asked


def _to_correct(
    taught: Recogniser, pool: Sequence[Labelled], told: str
) -> list[tuple[str, str, Video]]:
    """(given, right, video) of those to correct, the wrong ones first."""
    named = [
        (taught.classes[int(taught.video(video, told).prob.argmax())], thing, video)
        for thing, video in pool
    ]
    return sorted(named, key=lambda one: one[0] == one[1])[:CORRECTIONS]


def _corrected(
    taught: Recogniser, chosen: Sequence[tuple[str, str, Video]], told: str
) -> tuple[Recogniser, list[float]]:
    """Each is added under the name that it was given, then corrected; processor seconds of each."""
    took = []

    def timed(change: Callable[[], Recogniser]) -> Recogniser:
        began = time.process_time()
        changed = change()
        took.append(time.process_time() - began)
        return changed

    for given, right, video in chosen:
        known = set(taught.memory.names)
        taught = timed(lambda t=taught, g=given, v=video: t.add({g: [v]}, told, asked=True))
        if given != right:
            (name,) = set(taught.memory.names) - known
            taught = timed(lambda t=taught, n=name, r=right: t.correct(n, r))
    return taught, took


def _said(taught: Recogniser, thing: str, video: Video, told: str) -> tuple[Floats, int]:
    """Probabilities of the objects, and the place of the right one."""
    return taught.video(video, told).prob.numpy(), taught.classes.index(thing)


def _sets(said: Sequence[tuple[Floats, int]], level: float) -> tuple[float, float, float, float]:
    """Coverage and mean size of the likeliest objects that hold so much; accuracy, and NLL."""
    named = [likeliest(prob, level) for prob, _ in said]
    held = np.mean([right in one for one, (_, right) in zip(named, said, strict=True)])
    hit = np.mean([prob.argmax() == right for prob, right in said])
    nll = -np.mean([np.log(max(prob[right], 1e-300)) for prob, right in said])
    return float(held), float(np.mean([len(one) for one in named])), float(hit), float(nll)


def _apart(
    anew: Taught,
    clean: Mapping[str, Sequence[Video]],
    taught: Recogniser,
    grown: Recogniser,
    chosen: Sequence[tuple[str, str, Video]],
    asked: Sequence[Labelled],
    told: str,
) -> float:
    """Largest difference of a probability or the log evidence from a recogniser taught anew.

    It is taught the other objects first, and at once what they show; and what was added is
    forgotten again.
    """
    right: dict[str, list[Video]] = {}
    for _, thing, video in chosen:
        right.setdefault(thing, []).append(video)
    fresh = anew(dict(reversed(clean.items())), "clean").add(right, told, asked=True)
    less = grown
    for name in set(grown.memory.names) - set(taught.memory.names):
        less = less.forget(name)
    pairs = (grown, fresh), (less, taught)
    return max(_difference(one, other, asked, told) for one, other in pairs)


def _difference(one: Recogniser, other: Recogniser, asked: Sequence[Labelled], told: str) -> float:
    place = [other.classes.index(name) for name in one.classes]
    found = [abs(one.log_evidence - other.log_evidence)]
    for _, video in asked:
        gap = one.video(video, told).prob - other.video(video, told).prob[place]
        found.append(float(gap.abs().max()))
    return max(found)
