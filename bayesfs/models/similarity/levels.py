"""What the doubt of a pool of similarities is about, level by level, and what a video is worth.

Start with `entropies`. With phi the population, (a, w) the person's log scale and weights,
b the class biases, and f the frame that shows the object, each of which the model is a mixture
over, the entropy of the label y of a query x falls as one level after the other becomes known:

    H0 = H[p(y | x, D)]                H1 = E H[p(y | x, D, phi)]
    H2 = E H[p(y | x, D, phi, a, w)]   H3 = E H[p(y | x, phi, a, w, b)]
    H4 = E H[p(y | x, phi, a, w, b, f)].

A label model learns nothing of these from a query without its label, so that all are drawn from
their posterior given the support. Given its frame f, p(y | x, f) is the softmax of u(x_f, .) + b,
and p(f | x) is proportional to sum_k exp(u(x_f, k) + b_k). A bias b counts as the model has it.

`foreseen_gain` is the mutual information of y and what one more video of a class would tell of its
bias. After n videos b_k ~ N(0, s^2 / n); one more splits it into a part that will be known,
m ~ N(0, s^2 / n - s^2 / (n + 1)), and a rest of variance s^2 / (n + 1), so that the entropy of y
is expected to fall by I(y; m | x, D).

Source: the chain rule, Cover and Thomas (2006), theorem 2.5.2; Bickford Smith et al. (2023) for the
information of a label that is asked about.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._distributions.categorical import cross_entropy, entropy

KNOWN = 8
"""Values of what a video may tell, by the midpoints of as many equally likely parts."""


@dataclass(frozen=True)
class Drawn:
    """Logits of one unit of query under draws of everything that a person's videos leave open.

    Attributes:
        frames: (population draw, person draw, task, ..., frame, way) u(x_f, k), -inf for padding;
            one frame for a frame by itself.
        bias: (bias draw, task, way) standard normal numbers.
        bias_sd: (task, way).
        share: (population draw, person draw, task[, video]) factor of the biases: the heads' share,
            times what similarity counts.
        exists: (task, way).
    """

    frames: Tensor
    bias: Tensor
    bias_sd: Tensor
    share: Tensor
    exists: Tensor

    def video(self) -> Tensor:
        """(population draw, person draw, task, ..., way) log of the mean over frames."""
        real = torch.isfinite(self.frames).any(-1)
        count = real.sum(-1).clamp(min=1).to(self.frames).log()
        total = self.frames.logsumexp(-2) - count[..., None]
        return torch.where(torch.isfinite(total), total, 0.0)

    def biases(self, factor: Tensor | float = 1.0) -> Tensor:
        """(bias draw, population draw, person draw, task, ..., way) biases of the logits.

        Args:
            factor: (task, way) of their sd.
        """
        return self.aligned(self.bias * (self.bias_sd * factor))

    def aligned(self, value: Tensor) -> Tensor:
        """Biases (draw, task, way) as they enter the logits."""
        share = self.share.reshape(
            *self.share.shape, *[1] * (self.frames.ndim - self.share.ndim - 1)
        )
        return self._aligned(value) * share

    def log_labels(self, logits: Tensor) -> Tensor:
        """Normalised over the classes that exist."""
        return logits.masked_fill(~self._aligned(self.exists[None])[0], -torch.inf).log_softmax(-1)

    def _aligned(self, value: Tensor) -> Tensor:
        """(draw, task, way) to (draw, 1, 1, task, ..., way), as the logits are."""
        middle = [1] * (self.frames.ndim - 5)
        return value.reshape(len(value), 1, 1, value.shape[1], *middle, value.shape[2])


def entropies(drawn: Drawn) -> Tensor:
    """(stage, population draw, person draw, task, ...) entropies H0 to H4 of frames or videos.

    Biases are averaged over: they are the same, evenly spread, at every draw.
    """
    logits = drawn.video()
    mean = torch.full_like(logits, -torch.inf)  # over biases, a draw at a time to bound memory
    last = logits.new_zeros(2, *logits.shape[:-1])
    for bias in drawn.biases():
        given = drawn.log_labels(logits + bias)
        mean = torch.logaddexp(mean, given)
        last += torch.stack([entropy(given), _given_frame(drawn, bias)])
    mean = mean - math.log(len(drawn.bias))
    by_value = _mixed(mean, (1,))
    exact = torch.stack([cross_entropy(by_value), entropy(by_value)])[:, :, None]
    latent = torch.cat([entropy(mean)[None], last / len(drawn.bias)])
    return torch.cat([exact.expand(2, *latent.shape[1:]), latent])


def _given_frame(drawn: Drawn, bias: Tensor) -> Tensor:
    """(population draw, person draw, task, ...) E_f H[p(y | x, f)] under one draw of the biases."""
    logits = drawn.frames + bias[..., None, :]
    there = torch.isfinite(drawn.frames).any(-1)
    weight = logits.logsumexp(-1).masked_fill(~there, -torch.inf)
    weight = weight.masked_fill(~there.any(-1, keepdim=True), 0.0).softmax(-1)
    label = logits.masked_fill(~there[..., None], 0.0).log_softmax(-1)
    return (weight * entropy(label) * there).sum(-1)


def foreseen_gain(drawn: Drawn, count: Tensor) -> Tensor:
    """(task, ..., way) fall of the label's entropy that one more video of each class would bring.

    Args:
        drawn: of the queries.
        count: (task, way) support videos of each class.
    """
    logits = drawn.video()
    share = 1.0 / (count + 1.0)  # of the bias's variance that one more video tells
    part = (torch.arange(KNOWN, dtype=logits.dtype, device=logits.device) + 0.5) / KNOWN
    told = torch.special.ndtri(part)
    told = told / told.square().mean().sqrt()
    falls = []
    for way in range(count.shape[-1]):
        mine = torch.zeros_like(share)
        mine[:, way] = share[:, way]
        rest = drawn.biases((1.0 - mine).sqrt())
        sizes = drawn.bias_sd * mine.sqrt()
        after = torch.stack(
            [
                _mixed(drawn.log_labels(logits[None] + rest + shift), (0, 1, 2))
                for shift in drawn.aligned(told[:, None, None] * sizes)[:, None]
            ]
        )
        falls.append(entropy(_mixed(after, (0,))) - entropy(after).mean(0))
    return torch.stack(falls, -1).clamp(min=0.0)


def _mixed(log_prob: Tensor, over: tuple[int, ...]) -> Tensor:
    """Log of the mean over draws."""
    return log_prob.logsumexp(over) - math.log(math.prod(log_prob.shape[axis] for axis in over))
