"""Logits of classifiers that keep one point per parameter: arrays in, arrays out.

`bayesfs.models.baselines.classifiers` offers them with a predictive and learnt temperatures. Every
function takes a batch of tasks with masks and returns (task, video, frame, way) logits, -inf for
padded classes. Support frames count alike, whichever video they are of: that is what these methods
do.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bayesfs._linalg.directions import unit
from bayesfs.types import EpisodeBatch


def mask_classes(logits: Tensor, episodes: EpisodeBatch) -> Tensor:
    """(..., task, video, frame, way) logits with -inf for padded classes."""
    return logits.masked_fill(~episodes.way_mask[:, None, None], -torch.inf)


def class_means(episodes: EpisodeBatch) -> Tensor:
    """(task, way, feature) mean of a class's support frames; zero for padded classes."""
    mask = episodes.support_mask[..., None].to(episodes.support)
    total = (episodes.support * mask).sum((2, 3))
    return total / mask.sum((2, 3)).clamp(min=1)


def unit_rows(episodes: EpisodeBatch) -> tuple[Tensor, Tensor]:
    """Support and query with every frame scaled to length 1."""
    return unit(episodes.support), unit(episodes.query)


def squared_distance(query: Tensor, points: Tensor) -> Tensor:
    """|q - p|^2 of query (task, video, frame, feature) to points (task, point, feature)."""
    flat = torch.cdist(query.flatten(1, 2), points, compute_mode="donot_use_mm_for_euclid_dist")
    return flat.square().view(*query.shape[:3], points.shape[1])


def prototype_logits(episodes: EpisodeBatch) -> Tensor:
    """-|z - mean_k|^2.

    Source: Snell, Swersky and Zemel 2017, Prototypical networks, equation 2.
    """
    return mask_classes(-squared_distance(episodes.query, class_means(episodes)), episodes)


def cosine_logits(episodes: EpisodeBatch) -> Tensor:
    """Cosine of a frame and the mean of its class's unit-length support frames.

    Source: Gidaris and Komodakis 2018, Dynamic few-shot visual learning without forgetting.
    """
    support, query = unit_rows(episodes)
    mask = episodes.support_mask[..., None].to(support)
    prototypes = unit((support * mask).sum((2, 3)))
    return mask_classes(torch.einsum("tvfd,tkd->tvfk", query, prototypes), episodes)


def nearest_logits(episodes: EpisodeBatch, *, cosine: bool = False) -> Tensor:
    """-|z - x|^2 of the nearest support frame x of each class.

    Args:
        episodes: the tasks.
        cosine: scale every frame to length 1 first, so that |z - x|^2 = 2 - 2 cos.
    """
    support, query = unit_rows(episodes) if cosine else (episodes.support, episodes.query)
    distance = squared_distance(query, support.flatten(1, 3))
    absent = ~episodes.support_mask.flatten(1)
    distance = distance.masked_fill(absent[:, None, None], torch.inf)
    return mask_classes(-distance.view(*query.shape[:3], episodes.way, -1).amin(-1), episodes)


def mahalanobis_logits(
    episodes: EpisodeBatch, *, ridge: float = 1.0, dense: bool | None = None
) -> Tensor:
    r"""Simple CNAPs' head: -(z - mean_k)' Q_k^-1 (z - mean_k) / 2.

    Q_k = lambda_k S_k + (1 - lambda_k) S + ridge I with lambda_k = n_k / (n_k + 1), where S_k and
    S are the sample covariances of the class's n_k support frames and of the task's. The frame is
    the unit: n_k counts frames, as there.

    Args:
        episodes: the tasks.
        ridge: multiple of the identity.
        dense: factorise Q_k itself (True) or, by Woodbury's identity, the smaller matrix over
            frames (False); None takes whichever is smaller.

    Source: Bateni, Goyal, Masrani, Wood and Sigal 2020, Improved few-shot visual classification,
    equations 2 and 3.
    """
    root = _covariance_root(episodes)
    gap = episodes.query.flatten(1, 2)[:, None] - class_means(episodes)[:, :, None]
    if dense is None:
        dense = root.shape[-1] <= root.shape[-2]
    gram = root.mT @ root if dense else root @ root.mT
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(gram + ridge * eye)
    if dense:
        white = torch.linalg.solve_triangular(factor, gap.mT, upper=False)
        squared = white.square().sum(-2)
    else:
        white = torch.linalg.solve_triangular(factor, root @ gap.mT, upper=False)
        squared = (gap.square().sum(-1) - white.square().sum(-2)) / ridge
    logits = -squared.clamp(min=0).mT / 2
    return mask_classes(logits.reshape(*episodes.query.shape[:3], episodes.way), episodes)


def _covariance_root(episodes: EpisodeBatch) -> Tensor:
    """(task, way, row, feature) R with R'R = lambda_k S_k + (1 - lambda_k) S."""
    mask = episodes.support_mask.flatten(2)[..., None].to(episodes.support)
    count = mask.sum(2, keepdim=True)
    share = count / (count + 1)
    x = episodes.support.flatten(2, 3)
    within = (x - class_means(episodes)[:, :, None]) * mask
    frames, all_mask = x.flatten(1, 2), mask.flatten(1, 2)
    total = all_mask.sum(1, keepdim=True)
    about = (frames - (frames * all_mask).sum(1, keepdim=True) / total) * all_mask
    within = within * (share / (count - 1).clamp(min=1)).sqrt()
    across = about[:, None] * ((1 - share) / (total[:, None] - 1).clamp(min=1)).sqrt()
    return torch.cat([within, across], 2)


def logistic_logits(episodes: EpisodeBatch, *, c: float = 1.0) -> Tensor:
    """Multinomial logistic regression of scikit-learn, fitted per task on its support frames.

    Args:
        episodes: the tasks.
        c: inverse strength of the L2 penalty.
    """
    from sklearn.linear_model import LogisticRegression  # a fifth of a second, for this one only

    logits = torch.zeros(*episodes.query.shape[:-1], episodes.way, dtype=torch.float64)
    for task in range(len(episodes)):
        mask = episodes.support_mask[task]
        y = torch.arange(episodes.way, device=mask.device)[:, None, None].expand_as(mask)[mask]
        classes = torch.unique(y).cpu()
        if len(classes) < 2:
            continue
        x = episodes.support[task][mask].double().cpu().numpy()
        head = LogisticRegression(C=c, max_iter=1000).fit(x, y.cpu().numpy())
        score = head.decision_function(episodes.query[task].flatten(0, 1).double().cpu().numpy())
        if score.ndim == 1:
            score = np.stack([np.zeros_like(score), score], 1)
        logits[task][..., classes] = torch.from_numpy(score).view(*episodes.query.shape[1:3], -1)
    return mask_classes(logits.to(episodes.query), episodes)


def ensemble_logits(
    episodes: EpisodeBatch,
    *,
    members: int,
    hidden: int,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
) -> Tensor:
    """(member, task, video, frame, way): small networks that differ in their random start.

    A member is tanh(x A) B + b, trained by full-batch AdamW on the cross-entropy of the support
    frames, all members and tasks at once. A starts at random, the same for every task; B and b
    start at zero, so that classes are exchangeable. Features are centred and scaled, per task, by
    the support's mean and root mean square.

    Source: Lakshminarayanan, Pritzel and Blundell 2017, Simple and scalable predictive
    uncertainty estimation using deep ensembles; without adversarial training.
    """
    x, z = _standardised(episodes)
    first, second = _starts(episodes, x, members, hidden, seed)
    mask = episodes.support_mask.flatten(1)
    target = torch.arange(episodes.way, device=x.device).repeat_interleave(
        mask.shape[1] // episodes.way
    )
    target = torch.where(mask, target, -100).expand(members, -1, -1)
    parameters = [first, second]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    padded = ~episodes.way_mask[:, None]
    with torch.enable_grad():
        for _ in range(steps):
            optimiser.zero_grad()
            logits = _network(x, first, second).masked_fill(padded, -1e9)
            loss = cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none")
            per_task = loss.view(members, *mask.shape).sum(-1) / mask.sum(-1)
            per_task.sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    with torch.no_grad():
        logits = _network(z, first, second)
    return mask_classes(logits.view(members, *episodes.query.shape[:3], -1), episodes)


def _standardised(episodes: EpisodeBatch) -> tuple[Tensor, Tensor]:
    """Support (task, frame, feature) and query (task, frame, feature), centred and scaled."""
    mask = episodes.support_mask.flatten(1)[..., None].to(episodes.support)
    x = episodes.support.flatten(1, 3)
    count = mask.sum(1, keepdim=True)
    mean = (x * mask).sum(1, keepdim=True) / count
    peak = ((x - mean) * mask).abs().amax((1, 2), keepdim=True)
    peak = torch.where(peak > 0, peak, 1.0)  # no square under- or overflows
    square = (((x - mean) / peak).square() * mask).sum((1, 2), keepdim=True) / count / x.shape[-1]
    scale = peak * torch.where(square > 0, square, 1.0).sqrt()
    return (x - mean) / scale * mask, (episodes.query.flatten(1, 2) - mean) / scale


def _starts(
    episodes: EpisodeBatch, x: Tensor, members: int, hidden: int, seed: int
) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    start = torch.randn(members, 1, x.shape[-1], hidden, generator=rng, dtype=torch.float64)
    start = (start / x.shape[-1] ** 0.5).to(x).repeat(1, len(episodes), 1, 1)
    second = x.new_zeros(members, len(episodes), hidden + 1, episodes.way)
    return start.requires_grad_(), second.requires_grad_()


def _network(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return torch.tanh(x @ first) @ second[:, :, :-1] + second[:, :, -1:]
