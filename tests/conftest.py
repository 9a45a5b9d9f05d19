"""Fixtures that several rooms' tests share."""

import gc
import io
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # one core each, before torch is imported
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from bayesfs._utils.threads import limit_threads
from bayesfs.data.store import Thumbnail, save_store
from bayesfs.diagnostics.predictive_checks import label_check, prior_check
from bayesfs.explanation.record import NextRecording, SaidOften, Statement
from bayesfs.metrics.score_table import score_table
from bayesfs.report.view import ReportData
from bayesfs.results.assemble import assemble_tree
from bayesfs.results.baseline import baseline_group
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing.toy import GaussianToy
from bayesfs.types import Embeddings, LabelDraws, Posterior, Predictive
from bayesfs.uncertainty.monte_carlo import monte_carlo

gc.set_threshold(20_000, 20, 20)  # as the command does: its libraries' objects live on

if "PYTEST_XDIST_WORKER" in os.environ:  # Zarr's plugin for pytest has imported NumPy before
    limit_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of development data beside the checkout; tests that need it skip where it is not."""
    shared = os.environ.get("BAYESFS_SHARED", Path(__file__).parents[2] / "shared")
    data = Path(shared) / "data"
    if not data.is_dir():
        pytest.skip(f"no development data at {data}; set BAYESFS_SHARED to the folder above it")
    return data


def opens_as_jpeg(data: bytes, start: int) -> bool:
    try:
        with Image.open(io.BytesIO(data[start:]), formats=["JPEG"]):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def holds_jpeg() -> Callable[[bytes], bool]:
    """Whether a JPEG begins anywhere in some bytes.

    Its first three bytes alone stand in every 16th MiB of compressed numbers, by chance.
    """

    def found(data: bytes) -> bool:
        starts = (match.start() for match in re.finditer(b"\xff\xd8\xff", data))
        return any(opens_as_jpeg(data, start) for start in starts)

    return found


@pytest.fixture(scope="session")
def turntable(shared_data: Path) -> Path:
    """An ORBIT-shaped tree of real objects on turntables, with exact annotations."""
    tree = shared_data / "turntable"
    if not tree.is_dir():
        pytest.skip(f"no tree at {tree}")
    return tree


def small_embeddings(users: int = 5, objects: int = 3, seed: int = 0) -> Embeddings:
    """Users with objects around a mean far from the origin; the last two users are for testing."""
    rng = np.random.default_rng(seed)
    labels, rows = [], []
    for u in range(users):
        split = "train" if u < users - 2 else "test"
        for o in range(objects):
            centre = 5 + rng.normal(size=12)
            for condition, videos in (("clean", 5), ("clutter", 2)):
                for v in range(videos):
                    video = centre + (condition == "clutter") + 0.3 * rng.normal(size=12)
                    rows.append(video + 0.2 * rng.normal(size=(3, 12)))
                    labels += [
                        (f"u{u}", f"<b>{o}</b>", f"u{u}-{o}-{condition}-{v}", condition, split)
                    ] * 3
    user, thing, video, condition, split = zip(*labels, strict=True)
    return Embeddings.from_arrays(
        np.concatenate(rows), object=thing, video=video, user=user, condition=condition, split=split
    )


@pytest.fixture(scope="session")
def make_embeddings() -> Callable[..., Embeddings]:
    """`small_embeddings`, for tests that want it changed."""
    return small_embeddings


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature store of five users; a run on it takes seconds."""
    path = tmp_path_factory.mktemp("data") / "store.zarr"
    save_store(path, small_embeddings())
    return path


HOSTILE = ("<script>alert(1)</script>", "mug\u202egnp", "a\"b'c & |d_e*", "clé ключ")


def entropy(prob: torch.Tensor) -> torch.Tensor:
    return -torch.where(prob > 0, prob * prob.log(), 0.0).sum(-1)


def label_draws(log_prob_given: torch.Tensor) -> LabelDraws:
    draws = log_prob_given.shape[0]
    weight = torch.full(log_prob_given.shape[:-1], -math.log(draws))
    return LabelDraws(torch.logsumexp(log_prob_given, 0) - math.log(draws), log_prob_given, weight)


def make_run(shots: int, *, kind: str = "mcmc", draws: int = 60) -> tuple[xr.DataTree, xr.Dataset]:
    """A run on the Gaussian hierarchy: nearest draw of the class mean, with a temperature."""
    size = {"users": 3, "way": len(HOSTILE), "query_videos": 2, "query_frames": 6}
    episodes, _ = synthetic_episodes(shots=shots, seed=3, dim=4, **size)
    videos = episodes.query.shape[1]
    labels = episodes.query_labels.clone()
    labels[0, -1] = -1
    episodes = type(episodes)(
        **{
            **episodes.__dict__,
            "query_labels": labels,
            "classes": (HOSTILE,) * len(episodes),
            "videos": tuple(tuple(f"{t}--v{v}<b>" for v in range(videos)) for t in episodes.tasks),
        }
    )
    g = torch.Generator().manual_seed(shots)
    mean = episodes.support.mean((2, 3))
    theta = mean + torch.randn(draws, *mean.shape, generator=g) / shots**0.5 / 2
    frame = -((episodes.query[None, :, :, :, None] - theta[:, :, None, None]) ** 2).sum(-1) / 6
    given = torch.log_softmax(frame, -1), torch.log_softmax(frame.mean(3) * 1.5, -1)
    predictive = Predictive(label_draws(given[0]), label_draws(given[1]))
    parts = {}
    for unit, draws_of in (("frame", predictive.frame), ("video", predictive.video)):
        total, aleatoric = entropy(draws_of.prob), entropy(draws_of.log_prob_given.exp()).mean(0)
        dims = ("task", "video", "frame")[: total.ndim]
        values = (("total", total), ("aleatoric", aleatoric), ("epistemic", total - aleatoric))
        parts |= {f"{unit}_{part}": (dims, value.clamp(min=0).numpy()) for part, value in values}
    posterior = Posterior(
        kind,
        {"class_mean": theta},
        {"class_mean": ("task", "way", "feature")},
        chains=2 if kind == "mcmc" else 1,
        sample_stats={"elbo": -100 * torch.exp(-torch.arange(100.0) / 10)},
    )
    support = torch.linalg.vector_norm(episodes.support.mean(3) - mean[:, :, None], dim=-1)
    support_log_prob = -0.3 * support[None] * (1 + 0.1 * torch.rand(draws, 1, 1, 1, generator=g))
    tree = assemble_tree(
        posterior, predictive, xr.Dataset(parts), episodes, support_log_prob=support_log_prob
    )
    toy = GaussianToy()
    checked = prior_check(toy, episodes, given=toy.fixed_population(4), draws=20)
    tree["prior_check"] = xr.DataTree(checked)
    tree["posterior_check"] = xr.DataTree(xr.Dataset(attrs={"reason": "no <features>"}))
    tree["baseline"] = xr.DataTree(baseline_group(episodes))
    weight = shots / (shots + 1) + 0.05 * np.linspace(-1, 1, labels.shape[0] * len(HOSTILE))
    weight = weight.reshape(labels.shape[0], len(HOSTILE))
    tree["shrinkage"] = xr.DataTree(xr.Dataset({"weight": (("task", "way"), weight)}))
    told = monte_carlo(predictive.video, episodes.video_mask, draws)
    tree["monte_carlo"] = xr.DataTree(xr.Dataset(told._asdict()))
    tree["label_check"] = xr.DataTree(label_check(tree, draws=100))
    return tree, score_table(predictive, episodes, draws=100)


def known_scores() -> xr.Dataset:
    """A score table whose numbers a test can look for."""
    estimate = np.array([[0.8131, 0.4321], [0.6871, 0.9876]])
    cells = {"estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.1}
    cells["worst"] = estimate / 3
    coords = {"item": ["video", "frame"], "score": ["accuracy", "nll"]}
    return xr.Dataset({k: (("item", "score"), v) for k, v in cells.items()}, coords)


def make_pictures(tree: xr.DataTree) -> dict[str, tuple[Thumbnail, ...]]:
    rng = np.random.default_rng(0)
    found = {}
    for name in tree["constant_data"]["video_name"].values.ravel():
        pictures = []
        for frame in (1, 2):
            stream = io.BytesIO()
            colour = rng.integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(colour).resize((96, 96)).save(stream, "JPEG")
            pictures.append(Thumbnail(str(name), frame, stream.getvalue()))
        found[str(name)] = tuple(pictures)
    return found


@pytest.fixture(scope="session")
def report_data() -> ReportData:
    """Two runs, at 1 and 5 support videos, with hostile names everywhere."""
    runs = {shots: make_run(shots) for shots in (1, 5)}
    trees = {shots: tree for shots, (tree, _) in runs.items()}
    constant = trees[5]["constant_data"]
    return ReportData(
        title="A run of <Gaussian> & co",
        trees=trees,
        scores={1: runs[1][1], 5: known_scores()},
        facts={"Model": "models/<gaussian>.py", "Seed": "7"},
        warnings=("frame <12> is no JPEG",),
        pictures=make_pictures(trees[5]),
        advice=(NextRecording("U0001", "One more video of <i>mug</i>.", 0.21),),
        words=(SaidOften("probably", 9, 0.912, 0.953), SaidOften("not recognised", 0, 0.5, 0.25)),
        level_errors={"object": (0.012, 0.017), "video": (0.001, 0.002), "frame": (0.002, 0.003)},
        said={
            (str(constant["task"].values[0]), str(name)): Statement(
                "" if i else "Blurred & dark.", {"object": 0.3, "video": 0.1, "frame": 0.2}
            )
            for i, name in enumerate(constant["video_name"].values[0])
        },
    )
