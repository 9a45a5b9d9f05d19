"""Other libraries on the episodes of accuracy.py: scikit-learn, GPyTorch, NumPyro and others.

    python benchmarks/peers.py --train TREE_OR_STORE --test TREE_OR_STORE
    python benchmarks/peers.py --photos TREE... [--adaptshot PYTHON]    # see photo_figures
    python benchmarks/peers.py --smoke         # tiny, simulated features, for CI

Each library's own code fits a task's support frames and gives the class probabilities of its query
frames; a video has the mean of its frames' (none of them knows of videos). Settings are the
library's defaults or its documented example; nothing is fitted to the test users. Features are
those of accuracy.py: axes fitted on the train users. A peer that is not installed is skipped with
a message and has null figures: `pip install bayesfs[peers]`. The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import SHOTS, bare, embeddings_of, figures, join, simulated
from numpy.typing import NDArray
from peer_parts.softmax_heads import laplace_torch_head, numpyro_head
from torch import Tensor

from bayesfs._utils.threads import share_cores
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.study import frames_of
from bayesfs.training.shared_population import BACKBONES
from bayesfs.types import EpisodeBatch, LabelDraws, Predictive

Array = NDArray[Any]
Classify = Callable[[Array, Array, Array], Array]
"""(support frames, their labels 0..way-1, query frames) -> (query frame, way) probabilities."""

Peer = Callable[[EpisodeBatch], Classify]
"""Train users' tasks -> a classifier; most have nothing to learn from them."""


def scikit_learn_logistic(train: EpisodeBatch) -> Classify:
    """Multinomial logistic regression with its default penalty."""
    from sklearn.linear_model import LogisticRegression

    def classify(x: Array, y: Array, z: Array) -> Array:
        return np.asarray(LogisticRegression(max_iter=1000).fit(x, y).predict_proba(z))

    return classify


def scikit_learn_gp(train: EpisodeBatch) -> Classify:
    """Laplace's method, one-vs-rest, with the kernel's hyperparameters fitted to each task."""
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.gaussian_process.kernels import RBF

    def classify(x: Array, y: Array, z: Array) -> Array:
        kernel = 1.0 * RBF(1.0)
        return np.asarray(GaussianProcessClassifier(kernel).fit(x, y).predict_proba(z))

    return classify


def gpytorch_list(train: EpisodeBatch, epochs: int = 40) -> Classify:
    """Deep kernel transfer's list: an exact GP per class, the sigmoid of the predictive mean.

    The hyperparameters are shared by all classes and learnt on the train users' tasks by the
    marginal likelihood, a step of Adam per task, as in its published code.
    """
    import gpytorch
    from gp import ClassGP

    like = train.support
    noise = gpytorch.likelihoods.GaussianLikelihood().to(like)
    model = ClassGP(like[0, 0, 0], like.new_zeros(like.shape[3]), noise).to(like)
    mll = gpytorch.mlls.ExactMarginalLogLikelihood(noise, model)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)

    def coded(y: Tensor, c: int) -> Tensor:
        return 2 * (y == c).to(like) - 1

    model.train()
    for _ in range(epochs):
        for x, y, way in (_support(train, t) for t in range(len(train))):
            optimiser.zero_grad()
            for c in range(way):
                model.set_train_data(x, coded(y, c), strict=False)
                (-mll(model(x), coded(y, c))).backward()
            optimiser.step()

    def classify(x: Array, y: Array, z: Array) -> Array:
        support, label, query = torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(z)
        scores = []
        for c in range(int(y.max()) + 1):
            model.train()
            model.set_train_data(support, coded(label, c), strict=False)
            model.eval()
            with torch.no_grad():
                scores.append(torch.sigmoid(noise(model(query)).mean))
        prob = torch.stack(scores, -1)
        return np.asarray((prob / prob.sum(-1, keepdim=True)).numpy())

    return classify


def without_people(head: Callable[[Array, Array], Callable[[Array], Array]]) -> Peer:
    """A head that learns nothing from the train users' tasks."""
    return lambda _: lambda x, y, z: head(x, y)(z)


def easyfsl_prototypes(train: EpisodeBatch) -> Classify:
    """EasyFSL's prototypical network on fixed features; softmax of its scores."""
    from easyfsl.methods import PrototypicalNetworks

    network = PrototypicalNetworks(torch.nn.Identity(), use_softmax=True)

    def classify(x: Array, y: Array, z: Array) -> Array:
        with torch.no_grad():
            network.process_support_set(torch.from_numpy(x), torch.from_numpy(y))
            return np.asarray(network(torch.from_numpy(z)).numpy())

    return classify


PEERS: Mapping[str, tuple[str, Peer]] = {
    "scikit_learn_logistic": ("sklearn", scikit_learn_logistic),
    "scikit_learn_gp": ("sklearn", scikit_learn_gp),
    "gpytorch_list": ("gpytorch", gpytorch_list),
    "numpyro_head": ("numpyro", without_people(numpyro_head)),
    "laplace_torch_head": ("laplace", without_people(laplace_torch_head)),
    "easyfsl_prototypes": ("easyfsl", easyfsl_prototypes),
}
"""Name -> the module that it needs, and the peer."""


def missing(module: str) -> str:
    """Why a module cannot be imported, or ""."""
    if importlib.util.find_spec(module) is None:
        return f"{module} is not installed"
    if module == "easyfsl" and importlib.util.find_spec("torchvision") is None:
        return "easyfsl needs torchvision, which does not import beside this torch"
    return ""


def _support(episodes: EpisodeBatch, task: int) -> tuple[Tensor, Tensor, int]:
    """Support frames, their labels and the number of classes of one task."""
    mask = episodes.support_mask[task]
    label = torch.arange(episodes.way)[:, None, None].expand_as(mask)[mask]
    return episodes.support[task][mask], label, int(episodes.way_mask[task].sum())


def predictive(classify: Classify, episodes: EpisodeBatch) -> Predictive:
    """Probabilities of all query frames, and of videos as the mean of their frames'."""
    frame = torch.full((*episodes.query_mask.shape, episodes.way), -torch.inf, dtype=torch.float64)
    for t in range(len(episodes)):
        x, y, way = _support(episodes, t)
        mask = episodes.query_mask[t]
        prob = classify(x.numpy(), y.numpy(), episodes.query[t][mask].numpy())
        prob = np.clip(prob, 1e-12, None)
        prob = prob / prob.sum(1, keepdims=True)
        frame[t][..., 0] = 0.0  # padding: any distribution
        frame[t][mask] = torch.nn.functional.pad(
            torch.from_numpy(np.log(prob)), (0, episodes.way - way), value=-torch.inf
        )
    shown = episodes.query_mask[..., None]
    count = episodes.query_mask.sum(-1, keepdim=True).clamp(min=1)
    video = (frame.exp() * shown).sum(2) / count
    video[~episodes.video_mask] = 1 / episodes.way
    return Predictive(*(_one_draw(p) for p in (frame, video.log())))


def _one_draw(log_prob: Tensor) -> LabelDraws:
    return LabelDraws(log_prob, log_prob[None], torch.zeros_like(log_prob[None, ..., 0]))


def main() -> None:
    """Run every peer that is installed, print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--train", type=Path, help="tree or store with `train` users")
    parser.add_argument("--test", type=Path, help="tree or store with `test` users")
    parser.add_argument("--peers", nargs="*", help="some of them, by name; all by default")
    parser.add_argument("--dim", type=int, default=256, help="principal axes")
    parser.add_argument("--smoke", action="store_true", help="tiny, simulated features")
    parser.add_argument("--photos", nargs="+", type=Path, help="trees of photographs")
    parser.add_argument("--adaptshot", type=Path, help="an interpreter that has adaptshot")
    parser.add_argument("--tasks", type=int, default=40, help="tasks of each tree of photographs")
    parser.add_argument(
        "--backbone", choices=BACKBONES, default=BACKBONES[0], help="of photographs"
    )
    parser.add_argument("--cold", action="store_true", help="time everybody's first answer")
    options = parser.parse_args()
    if options.photos:
        print(json.dumps(photo_figures(options)))
        return
    if unknown := sorted({*(options.peers or ())} - {*PEERS}):
        parser.error(f"expected peers out of {[*PEERS]}, got {unknown}")
    if not options.smoke and (options.train is None or options.test is None):
        parser.error("--train and --test are needed, or --smoke")
    with tempfile.TemporaryDirectory(prefix="bayesfs-") as folder:
        if options.smoke:
            data = simulated()
        else:
            scratch = Path(folder)
            stores = (bare(embeddings_of(p, scratch)) for p in (options.train, options.test))
            data = join(*stores)
    dim = 8 if options.smoke else options.dim
    evaluation = HeldOutUsers()
    frames = frames_of(data, evaluation.train_tasks(data, seed=0))
    axes = PrincipalAxes(dim)
    projection = axes.fit(frames)
    train = evaluation.train_tasks(axes.cross_fit(frames, projection.dim), seed=0)
    tasks = evaluation.test_episodes(projection(data), seed=0).to(torch.float64)
    rows = {name: measure(name, train.to(torch.float64), tasks) for name in options.peers or PEERS}
    empty = next((dict.fromkeys(row) for row in rows.values() if row), {})
    result: dict[str, Any] = {}
    for name in PEERS:
        row = rows.get(name) or empty
        result |= {f"{name}.{k}": None if v is None else round(v, 4) for k, v in row.items()}
    print(json.dumps(result))


def photo_figures(options: argparse.Namespace) -> dict[str, float | None]:
    """Ours and every peer on the same tasks of photographs, as they are and spoilt.

    Tasks of 8 things with 3 photographs each; all their other photographs are asked, as they are,
    blurred and as bad JPEG (severity 5). adaptshot runs in its own environment: `python -m venv
    adaptshot && adaptshot/bin/pip install adaptshot==0.3.0`, then `--adaptshot
    adaptshot/bin/python`. The figures are `PEER.TREE-CONDITION.acc` and so on.
    """
    from peer_parts.photo_methods import FITS, OURS
    from peer_parts.photo_table import Compared, figures_of

    names = options.peers or [*OURS, *FITS]
    if unknown := sorted({*names} - {*OURS} - {*FITS}):
        raise SystemExit(f"expected methods out of {[*OURS, *FITS]}, got {unknown}")
    compared = Compared(names, options.tasks, options.backbone, options.adaptshot, options.cold)
    with tempfile.TemporaryDirectory(prefix="bayesfs-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return figures_of(options.photos, compared, Path(scratch))


def measure(name: str, train: EpisodeBatch, tasks: EpisodeBatch) -> dict[str, float]:
    """Figures of one peer; empty, with a message, where it is not installed."""
    module, peer = PEERS[name]
    if reason := missing(module):
        print(f"{name:22} skipped: {reason}", flush=True)
        return {}
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence warnings of default settings
        classify = peer(train)
        start = time.perf_counter()
        episodes = {shots: tasks.limit_shots(shots) for shots in SHOTS}
        answers = {shots: predictive(classify, e) for shots, e in episodes.items()}
        seconds = time.perf_counter() - start
    found = figures(episodes, answers)
    found["seconds_per_task"] = seconds / len(SHOTS) / len(tasks)
    print(f"{name:22} " + " ".join(f"{k} {v:.3f}" for k, v in found.items()), flush=True)
    return found


if __name__ == "__main__":
    share_cores()
    main()
