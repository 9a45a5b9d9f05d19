"""Batched GP prediction and training against GPyTorch's one-GP-per-class model list.

    python benchmarks/gp.py              # T = 64 tasks, 5-way 5-shot, 64 features
    python benchmarks/gp.py --smoke      # tiny, for CI
    python benchmarks/gp.py --device cuda

The peer is what deep kernel transfer (Patacchiola et al. 2020) does with GPyTorch: an
`IndependentModelList` of `way` exact GPs on -1 / +1 labels, one task at a time. Both sides get the
same features, the same linear kernel and the same hyperparameters, and both give the predictive
mean and variance of every query; ours the class probabilities too. The last line is JSON; a
figure that was not measured is null.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import gpytorch
import torch
from torch import Tensor

from bayesfs._utils.threads import share_cores
from bayesfs.inference.program.potential import potential
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.feature_maps import Identity
from bayesfs.models.gp.kernels import Linear
from bayesfs.models.gp.likelihoods.regression import FittedRegression, LabelRegression
from bayesfs.models.gp.points import query_points
from bayesfs.types import EpisodeBatch

SIGNAL, NOISE = 0.8, 0.3
QUERIES_PER_CLASS = 15


def episodes_of(tasks: int, way: int, shot: int, dim: int, seed: int = 0) -> EpisodeBatch:
    """Gaussian classes; every support and query video is one frame."""
    g = torch.Generator().manual_seed(seed)
    centre = torch.randn(tasks, way, dim, generator=g)
    support = centre[:, :, None, None] + torch.randn(tasks, way, shot, 1, dim, generator=g)
    label = torch.arange(way).repeat_interleave(QUERIES_PER_CLASS).expand(tasks, -1)
    query = centre.gather(1, label[..., None].expand(-1, -1, dim))[:, :, None]
    query = query + torch.randn(query.shape, generator=g)
    support, query = (x / x.norm(dim=-1, keepdim=True) for x in (support, query))
    return EpisodeBatch(
        support=support,
        support_mask=torch.ones(support.shape[:-1], dtype=torch.bool),
        support_condition=torch.zeros(support.shape[:3], dtype=torch.long),
        query=query,
        query_mask=torch.ones(query.shape[:-1], dtype=torch.bool),
        query_condition=torch.zeros(label.shape, dtype=torch.long),
        query_labels=label.contiguous(),
    )


def our_model() -> DeepKernelGP:
    """The peer's model: no video kernel, no input noise, labels -1 / +1."""
    covariance = VideoCovariance(Identity(normalise=False), Linear(), video=None, shift=None)
    return DeepKernelGP(covariance, LabelRegression("sign"))


def our_values(like: Tensor) -> dict[str, Tensor]:
    """The hyperparameters of both sides."""
    return {"signal": like.new_tensor(SIGNAL), "frame_scale": like.new_full((2,), NOISE)}


@torch.no_grad()
def our_predict(model: DeepKernelGP, episodes: EpisodeBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and class probabilities of all queries of all tasks."""
    fitted = model.fit(episodes, our_values(episodes.support))
    assert isinstance(fitted, FittedRegression)
    latent = fitted.conditioned.latent(query_points(episodes))
    return latent.mean[..., 0], latent.total[..., 0, 0], fitted.scores_of(latent).frame


class ClassGP(gpytorch.models.ExactGP):  # type: ignore[misc]
    """One class of the peer: constant zero mean and a linear kernel."""

    def __init__(self, x: Tensor, y: Tensor, likelihood: gpytorch.likelihoods.Likelihood) -> None:
        super().__init__(x, y, likelihood)
        self.mean_module = gpytorch.means.ZeroMean()
        self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.LinearKernel())

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        """Prior at x."""
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


class Peer:
    """GPyTorch's model list, reused from task to task by setting the train data."""

    def __init__(self, way: int, shot: int, dim: int, like: Tensor) -> None:
        x, y = torch.ones(way * shot, dim).to(like), torch.ones(way * shot).to(like)
        likelihoods = [gpytorch.likelihoods.GaussianLikelihood().to(like) for _ in range(way)]
        models = [ClassGP(x, y, k).to(like) for k in likelihoods]
        for model in models:
            model.covar_module.outputscale = 1.0
            model.covar_module.base_kernel.variance = SIGNAL**2
            model.likelihood.noise = NOISE**2
        self.model = gpytorch.models.IndependentModelList(*models)
        self.likelihood = gpytorch.likelihoods.LikelihoodList(*likelihoods)
        self.mll = gpytorch.mlls.SumMarginalLogLikelihood(self.likelihood, self.model)
        self.way = way
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def _set(self, x: Tensor) -> list[Tensor]:
        flat = x.flatten(0, 2)
        label = torch.arange(self.way).repeat_interleave(len(flat) // self.way)
        targets = [2 * (label == c).to(flat) - 1 for c in range(self.way)]
        for model, target in zip(self.model.models, targets, strict=True):
            model.set_train_data(flat, target, strict=False)
        return targets

    def predict(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (way, query) of one task."""
        self._set(support)
        self.model.eval()
        self.likelihood.eval()
        with torch.no_grad(), gpytorch.settings.fast_pred_var(False):
            out = self.likelihood(*self.model(*[query.flatten(0, 1)] * self.way))
            return torch.stack([o.mean for o in out]), torch.stack([o.variance for o in out])

    def train_step(self, support: Tensor) -> float:
        """One Adam step on the marginal likelihood of one task."""
        targets = self._set(support)
        self.model.train()
        self.likelihood.train()
        self.optimiser.zero_grad()
        loss = -self.mll(self.model(*self.model.train_inputs), targets)
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())


def seconds(run: Callable[[], object], repeats: int, device: str = "cpu") -> float:
    """Shortest wall time of a call, after two calls to warm up.

    The shortest, as `timeit` has it: whatever else runs on the machine only ever adds to it.
    """
    times = []
    for i in range(repeats + 2):
        if device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        if i >= 2:
            times.append(time.perf_counter() - start)
    return min(times)


def training_step(model: DeepKernelGP, episodes: EpisodeBatch) -> Callable[[], object]:
    """One Adam step on the evidence of all tasks, as the engines take it."""
    density = potential(model, episodes)
    z = density.prior(1, seed=0)
    optimiser = torch.optim.Adam([z], lr=1e-3)

    def step() -> None:
        _, gradient = density.value_and_gradient(z)
        z.grad = -gradient
        optimiser.step()

    return step


def largest_difference(way: int, shot: int, dim: int) -> float:
    """Mean and variance against the peer's on 8 tasks, in double precision."""
    episodes = episodes_of(8, way, shot, dim, seed=1).to(torch.float64)
    peer = Peer(way, shot, dim, episodes.support)
    mean, variance, _ = our_predict(our_model(), episodes)
    worst = 0.0
    for t in range(len(episodes)):
        theirs = peer.predict(episodes.support[t], episodes.query[t])
        worst = max(worst, float((mean[t] - theirs[0]).abs().max()))
        worst = max(worst, float((variance[t, 0] - theirs[1]).abs().max()))
    return worst


def card(way: int, shot: int, dim: int, tasks: int) -> dict[str, float]:
    """Prediction on the GPU against the CPU, and against the card's own floor."""
    model, episodes = our_model(), episodes_of(tasks, way, shot, dim)
    cpu = seconds(lambda: our_predict(model, episodes), 3)
    there = episodes.to("cuda")
    gpu = seconds(lambda: our_predict(model, there), 20, "cuda")
    n, m = way * shot, way * QUERIES_PER_CLASS
    moved = 4 * tasks * (n * dim + m * dim + 2 * n * n + 3 * n * m + 3 * way * m)
    flops = tasks * (2 * n * n * dim + n**3 / 3 + 2 * n * m * dim + n * n * m + 2 * n * m * way)
    block = torch.empty(2**28, device="cuda")
    bandwidth = 2 * block.numel() * 4 / seconds(lambda: block.clone(), 20, "cuda")
    square = torch.randn(8192, 8192, device="cuda")
    peak = 2 * 8192**3 / seconds(lambda: square @ square, 10, "cuda")
    floor = max(moved / bandwidth, flops / peak)
    print(f"{torch.cuda.get_device_name()}: {bandwidth / 1e9:.0f} GB/s, {peak / 1e12:.1f} Tflop/s")
    print(
        f"T = {tasks}: CPU {cpu * 1e3:.1f} ms, GPU {gpu * 1e3:.3f} ms, floor {floor * 1e3:.4f} ms"
    )
    return {"gpu_vs_cpu_4096": cpu / gpu, "gpu_vs_floor": gpu / floor}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    way, shot, dim, tasks = (3, 2, 8, 4) if options.smoke else (5, 5, 64, 64)
    repeats = 3 if options.smoke else 30
    torch.manual_seed(0)
    model, episodes = our_model(), episodes_of(tasks, way, shot, dim)
    peer = Peer(way, shot, dim, episodes.support)
    one = (episodes.support[0], episodes.query[0])
    step = training_step(model, episodes)
    table = {
        "predict, ours": seconds(lambda: our_predict(model, episodes), repeats) / tasks,
        "predict, list": seconds(lambda: peer.predict(*one), repeats),
        "train step, ours": seconds(step, repeats) / tasks,
        "train step, list": seconds(lambda: peer.train_step(one[0]), repeats),
    }
    print(
        f"{way}-way {shot}-shot, {dim} features, {tasks} tasks, {torch.get_num_threads()} threads"
    )
    for name, value in table.items():
        print(f"  {name:18s} {value * 1e6:10.1f} us per task")
    figures: dict[str, float | None] = {
        "gp_predict_vs_list": table["predict, list"] / table["predict, ours"],
        "gp_train_vs_list": table["train step, list"] / table["train step, ours"],
        "gp_max_abs_diff": largest_difference(way, shot, dim),
        "gpu_vs_cpu_4096": None,
        "gpu_vs_floor": None,
    }
    if options.device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit("--device cuda: no CUDA device here; the GPU figures need one")
        figures.update(card(way, shot, dim, 64 if options.smoke else 4096))
    else:
        print("  GPU: not measured (run with --device cuda)")
    print(json.dumps(figures))


if __name__ == "__main__":
    share_cores()
    main()
