"""Row 9: is the advised recording worth more than another?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from bayesfs.explanation.sentences import likeliest
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.objectives import label_score
from bayesfs.prediction import thinned
from bayesfs.study import Learnt, Study
from bayesfs.types import EpisodeBatch
from bayesfs.uncertainty.information_gain import expected_gain, gain_by_video
from uncertainty_parts.bench import Bench, Found


def row_9(bench: Bench, study: Study, learnt: Learnt, trials: int) -> Found:
    """Record the video that is advised: how far does the NLL of the queries fall?"""
    model = bench.hierarchy(learnt)
    if model is None:
        return {}
    tasks = study.tasks(bench.data, learnt, seed=0)
    values = thinned(learnt.population, 4)
    rng = np.random.default_rng(0)
    cells: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
    chosen, random, weakest = [], [], []
    unsure: list[tuple[float, ...]] = []
    for trial in range(trials):
        shots = torch.from_numpy(rng.integers(1, 4, (len(tasks), tasks.way)))
        keep = torch.arange(tasks.support.shape[2]) < shots[..., None]
        before = masked_support(tasks, keep)
        gain = expected_gain(model, learnt.population, before, simulated_videos=8, seed=trial)
        start, prob = nll_and_prob(model, before, values)
        drops, after = [], []
        for way in range(tasks.way):
            grown = keep.clone()
            grown[:, way] = torch.arange(keep.shape[-1]) < shots[:, way, None] + 1
            then, given = nll_and_prob(model, masked_support(tasks, grown), values)
            drops.append(start - then)
            after.append(given)
        drop = torch.stack(drops, -1)
        own = gain_by_video(model, learnt.population, before, simulated_videos=8, seed=trial)
        unsure += of_unsure(before, prob, torch.stack(after, -1), own)
        for t in range(len(tasks)):
            real = tasks.way_mask[t]
            g, d = gain[t, real].numpy(), drop[t, real].numpy()
            for k, way in enumerate(real.nonzero()[:, 0].tolist()):
                cell = tasks.users[t], way, int(shots[t, way])
                cells.setdefault(cell, []).append((float(g[k]), float(d[k])))
            chosen.append(d[g.argmax()])
            random.append(d.mean())
            weakest.append(d[least_confident(prob[t], tasks.video_mask[t])[real].argmin()])
    print("fall of the queries' NLL after one more video, nats per query:")
    for name, drops_ in (("advised", chosen), ("random", random), ("least confident", weakest)):
        print(f"  {name:26}{np.mean(drops_):7.4f}")
    print(f"of {len(unsure)} unsure videos themselves, by one more video of:")
    if unsure:
        for name, fall in zip(OF, np.mean(unsure, axis=0), strict=True):
            print(f"  {name:26}{fall:7.4f}")
    single = np.array([pair for pairs in cells.values() for pair in pairs])
    means = np.array([np.mean(pairs, axis=0) for pairs in cells.values()])
    each, rank = (float(spearmanr(v[:, 0], v[:, 1]).statistic) for v in (single, means))
    print(
        f"Spearman of predicted and realised gain: {each:.3f} of single recordings, {rank:.3f} of"
    )
    print(f"  means over recordings of one object with so many videos ({len(means)} of them)")
    return {
        "t9_gain_vs_random": float(np.mean(chosen) / np.mean(random)),
        "t9_spearman": rank,
    }


OF = "what it shows", "the named one worth most", "the likeliest one", "any object"


def of_unsure(
    tasks: EpisodeBatch, prob: Tensor, after: Tensor, gain: Tensor
) -> Iterator[tuple[float, ...]]:
    """Of each video whose answer names several objects, the fall of its NLL by one more of `OF`.

    Args:
        tasks: what was asked.
        prob: (task, video, way) before.
        after: (task, video, way, new) after one more video of each object.
        gain: (task, video, way) predicted gain of these.
    """
    for t, v in tasks.video_mask.nonzero().tolist():
        ways, label = int(tasks.way_mask[t].sum()), int(tasks.query_labels[t, v])
        named = likeliest(prob[t, v, :ways].numpy())
        if len(named) > 1 and label >= 0:
            fall = (after[t, v, label, :ways].log() - prob[t, v, label].log()).numpy()
            worth = named[int(gain[t, v, named].argmax())]
            yield float(fall[label]), float(fall[worth]), float(fall[named[0]]), float(fall.mean())


def masked_support(tasks: EpisodeBatch, keep: Tensor) -> EpisodeBatch:
    """The tasks with only the support videos to keep (task, way, shot)."""
    mask = tasks.support_mask & keep[..., None]
    return replace(tasks, support=tasks.support * mask[..., None], support_mask=mask)


def nll_and_prob(
    model: GaussianHierarchy, tasks: EpisodeBatch, values: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """(task,) NLL per query, mean of video and frames, and (task, video, way) probabilities."""
    with torch.no_grad():
        parts = [
            model.log_labels(tasks, {s: v[p] for s, v in values.items()})
            for p in range(len(values["loading"]))
        ]
    frame, video = (torch.stack(p).logsumexp(0) - np.log(len(p)) for p in zip(*parts, strict=True))
    count = tasks.video_mask.sum(-1).clamp(min=1)
    return -label_score(frame, video, tasks) / count, video.exp()


def least_confident(prob: Tensor, mask: Tensor) -> Tensor:
    """(way,) mean top probability of the queries that are taken for each class; 2 where none."""
    top, label = prob[mask].max(-1)
    means = [top[label == k].mean() if (label == k).any() else 2.0 for k in range(prob.shape[-1])]
    return torch.tensor([float(m) for m in means])
