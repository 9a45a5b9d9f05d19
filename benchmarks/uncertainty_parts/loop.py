"""Advice in a loop: people start with one video an object, and record what they are told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from bayesfs.explanation.advice import ENOUGH, ROUND_ENOUGH
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.prediction import thinned
from bayesfs.study import Learnt
from bayesfs.types import CONDITIONS, Posterior
from bayesfs.uncertainty.gain_from_own_videos import gain_from_own_videos
from bayesfs.uncertainty.information_gain import expected_gain, gain_of_round
from uncertainty_parts.advice import least_confident, nll_and_prob
from uncertainty_parts.bench import Bench, Floats, Found
from uncertainty_parts.recordings import CLEAN, CLUTTER, Recordings

EACH = 5
"""Videos of each object that round robin teaches."""

ROUNDS = 12
"""Rounds, one video of every object each, after which people are asked whether it is enough."""

ORDERS = 3
"""Trials in which they are."""

DRAWS = 2
"""Population draws."""

IN_USE = f"a round's bound below {ROUND_ENOUGH}"
"""The rule by which explanations say "enough"."""


@dataclass(frozen=True)
class Person:
    """All that policies know.

    Attributes:
        model: the hierarchy.
        population: of other people.
        recordings: what these people could teach.
        rng: of whatever is random.
    """

    model: GaussianHierarchy
    population: Posterior
    recordings: Recordings
    rng: np.random.Generator

    @property
    def values(self) -> Mapping[str, Tensor]:
        """Some draws of the population."""
        return thinned(self.population, DRAWS)

    def gain(self, count: Tensor) -> Tensor:
        """(task, way, condition) predicted gain of the next video; -inf where there is none."""
        found = gain_from_own_videos(
            self.model,
            self.population,
            self.recordings.taught(count),
            self.simulated(count),
            population_draws=DRAWS,
        )
        return self.open(found.to(count.device), count)

    def simulated(self, count: Tensor) -> Tensor:
        """(task, way, condition) the same by simulation alone, for any video."""
        tasks = self.recordings.taught(count)
        each = [
            expected_gain(
                self.model,
                self.population,
                tasks,
                simulated_videos=8,
                population_draws=DRAWS,
                condition=condition,
                seed=int(count.sum()),
            )
            for condition in CONDITIONS
        ]
        return torch.stack(each, -1)

    def open(self, worth: Tensor, count: Tensor) -> Tensor:
        """Worth (task, way, condition), -inf where there is no further video."""
        return worth.masked_fill(count >= self.recordings.available, -torch.inf)

    def nll(self, count: Tensor) -> Tensor:
        """(task,) NLL of what is asked."""
        return nll_and_prob(self.model, self.recordings.taught(count), self.values)[0]


Policy = Callable[[Person, Tensor], Tensor]
"""Person and what is taught -> (task, way, condition) worth of the next video."""


def advised(person: Person, count: Tensor) -> Tensor:
    """What is predicted to be worth most."""
    return person.gain(count)


def advised_by_simulation(person: Person, count: Tensor) -> Tensor:
    """What simulated videos are worth most."""
    return person.open(person.simulated(count), count)


def at_random(person: Person, count: Tensor) -> Tensor:
    """Any."""
    return person.open(torch.from_numpy(person.rng.random(count.shape)), count)


def in_turn(person: Person, count: Tensor) -> Tensor:
    """The object with fewest videos, alone and among other things by turns."""
    fewest = -count.sum(-1, keepdim=True).double() - 0.01 * torch.arange(count.shape[1])[:, None]
    return person.open(fewest - 0.001 * count, count)


def in_turn_alone(person: Person, count: Tensor) -> Tensor:
    """The object with fewest videos, alone as long as there is such a video."""
    fewest = -count.sum(-1, keepdim=True).double() - 0.01 * torch.arange(count.shape[1])[:, None]
    return person.open(fewest - 0.001 * torch.arange(count.shape[2]), count)


def least_sure(person: Person, count: Tensor) -> Tensor:
    """The object whose queries are least sure, alone and among other things by turns."""
    tasks = person.recordings.taught(count)
    prob = nll_and_prob(person.model, tasks, person.values)[1]
    pairs = zip(prob, tasks.video_mask, strict=True)
    sure = torch.stack([least_confident(p, m) for p, m in pairs]).double()
    return person.open(-sure[..., None] - 0.001 * count, count)


def oracle(person: Person, count: Tensor) -> Tensor:
    """What really helps most."""
    return person.recordings.falls(person.model, person.values, count)[1]


POLICIES: Mapping[str, Policy] = {
    "advised": advised,
    "by simulation alone": advised_by_simulation,
    "random": at_random,
    "round robin": in_turn,
    "round robin, alone": in_turn_alone,
    "least confident": least_sure,
    "oracle": oracle,
}


def followed(person: Person, policy: Policy, steps: int) -> Floats:
    """(step, task) NLL of people who follow a policy, from the start on."""
    count, nlls = person.recordings.start(), []
    for _ in range(steps):
        nlls.append(person.nll(count).numpy())
        worth = policy(person, count).flatten(1)
        best = worth.argmax(1)
        able = worth.amax(1) > -torch.inf
        count = count.flatten(1).scatter_add(1, best[:, None], able[:, None].to(count.dtype))
        count = count.reshape(person.recordings.start().shape)
    nlls.append(person.nll(count).numpy())
    return np.stack(nlls)


def predicted_and_real(person: Person) -> list[tuple[tuple[str, int, int, int], float, float]]:
    """((user, way, condition, videos), predicted, realised fall) of single recordings."""
    found = []
    tasks = person.recordings.tasks
    for each in range(1, EACH):
        count = torch.zeros_like(person.recordings.available)
        count[..., CLEAN], count[..., CLUTTER] = each - each // 2, each // 2
        count = torch.minimum(count, person.recordings.available)
        real = person.recordings.falls(person.model, person.values, count)[1]
        gain = person.gain(count)
        for t, way, c in (torch.isfinite(real) & torch.isfinite(gain)).nonzero().tolist():
            key = tasks.users[t], way, c, each
            found.append((key, float(gain[t, way, c]), float(real[t, way, c])))
    return found


def told_enough(person: Person, rounds: int) -> dict[str, list[tuple[int, float]]]:
    """When each of some rules first says "enough" to each person, and what a further round does.

    People record a round at a time, one video of every object, alone and among other things by
    turns. The further round has every object in the condition in which it is predicted to be worth
    most; who has none left is not asked. Besides the rule in use stand single videos, its own mean,
    and saying it at once.

    Returns:
        rule -> (round, fall of the NLL) of each person who is told.
    """
    found: dict[str, dict[int, tuple[int, float]]] = {}
    count = person.recordings.start()
    for number in range(rounds):
        gain = person.gain(count)
        more = one_each(gain, person)
        whole = more.sum((1, 2)) == person.recordings.tasks.way_mask.sum(1)
        if not whole.any():
            break
        tasks = person.recordings.taught(count)
        joint = gain_of_round(person.model, person.population, tasks, more, seed=number)
        rules = {
            "at once": torch.ones(len(tasks), dtype=torch.bool),
            f"single videos below {ENOUGH}": gain.flatten(1).amax(1) < ENOUGH,
            f"a round's mean below {ROUND_ENOUGH}": joint.mean.nanmean(1) < ROUND_ENOUGH,
            IN_USE: joint.at_most() < ROUND_ENOUGH,
        }
        fall = person.nll(count) - person.nll(count + more)
        for name, says in rules.items():
            for t in (says & whole).nonzero()[:, 0].tolist():
                found.setdefault(name, {}).setdefault(t, (number, float(fall[t])))
        count = count + one_each(in_turn(person, count), person)
    return {name: list(told.values()) for name, told in found.items()}


def one_each(worth: Tensor, person: Person) -> Tensor:
    """(task, way, condition) one video of every object, in the condition that is worth most."""
    best = torch.nn.functional.one_hot(worth.argmax(-1), worth.shape[-1])
    able = person.recordings.tasks.way_mask & (worth.amax(-1) > -torch.inf)
    return best * able[..., None]


def row_12(bench: Bench, learnt: Learnt, *, asked: int, trials: int, loops: int) -> Found:
    """People who do as they are told, against others; predicted against realised gain.

    Args:
        bench: data and model.
        learnt: from the train users.
        asked: query videos of each object, at most half of its cluttered ones.
        trials: other orders of recordings, and other queries, over which gains are averaged.
        loops: how many of these are followed to the end.
    """
    model = bench.hierarchy(learnt)
    if model is None:
        return {}
    data = learnt.projection(bench.data.where(split="test"))
    curves: dict[str, list[Floats]] = {name: [] for name in POLICIES}
    pairs: list[tuple[tuple[str, int, int, int], float, float]] = []
    told: dict[str, list[tuple[int, float]]] = {}
    ways = 1
    for trial in range(trials):
        recordings = Recordings.of(data, asked, seed=trial)
        recordings = Recordings(bench.base.placed(recordings.tasks), recordings.place)
        ways = int(recordings.tasks.way_mask.sum(-1).max())
        person = Person(model, learnt.population, recordings, np.random.default_rng(trial))
        pairs += predicted_and_real(person)
        for name, policy in POLICIES.items() if trial < loops else ():
            curves[name].append(followed(person, policy, (EACH - 1) * ways))
        if trial < ORDERS:
            for name, found in told_enough(person, ROUNDS).items():
                told.setdefault(name, []).extend(found)
    return shown(curves, ways) | gains_shown(pairs) | enough_shown(told)


def shown(curves: Mapping[str, list[Floats]], ways: int) -> Found:
    """Mean NLL by number of videos, and how many reach what round robin does."""
    mean = {name: np.concatenate(parts, 1).mean(1) for name, parts in curves.items()}
    target = min(mean["round robin"][-1], mean["round robin, alone"][-1])
    print(f"NLL of what is asked, by videos an object; videos to reach {target:.3f}, which round")
    print("robin (the better one) has with 5 videos of each; area under the curve:")
    needed = {}
    for name, curve in mean.items():
        reached = np.flatnonzero(curve <= target + 1e-12)
        needed[name] = (ways + int(reached[0])) if len(reached) else None
        at = " ".join(f"{v:.3f}" for v in curve[:: max(ways, 1)])
        print(f"  {name:20} {at}   {needed[name] or 'never'}   {curve.mean():.3f}")
    own = needed["advised"]
    return {"advice_videos_ratio": own / (EACH * ways) if own else float("inf")}


def gains_shown(pairs: list[tuple[tuple[str, int, int, int], float, float]]) -> Found:
    """Slope and rank correlation of realised on predicted gain."""
    cells: dict[tuple[str, int, int, int], list[tuple[float, float]]] = {}
    for key, gain, real in pairs:
        cells.setdefault(key, []).append((gain, real))
    each = np.array([(g, r) for _, g, r in pairs])
    means = np.array([np.mean(v, axis=0) for v in cells.values()])
    slope = float(np.polyfit(each[:, 0], each[:, 1], 1)[0])
    rank = float(spearmanr(means[:, 0], means[:, 1]).statistic)
    single = float(spearmanr(each[:, 0], each[:, 1]).statistic)
    print("predicted and realised gain, nats per query, by fifths of what is predicted:")
    for part in np.array_split(each[each[:, 0].argsort()], 5):
        print(f"  {part[:, 0].mean():8.4f} {part[:, 1].mean():8.4f}")
    print(f"Spearman of single recordings {single:.3f}, of means over recordings {rank:.3f}")
    return {"gain_slope": slope, "gain_spearman": rank}


def enough_shown(told: Mapping[str, list[tuple[int, float]]]) -> Found:
    """How often "enough" was right: a further round takes off less than was stated."""
    print(
        'who is told "enough", after how many rounds, what one more takes off, how often less than'
    )
    print(f"  {ROUND_ENOUGH} nats:")
    right = {}
    for name, found in told.items():
        rounds, falls = np.array(found).T
        right[name] = float((falls < ROUND_ENOUGH).mean())
        print(
            f"  {name:32}{len(found):4} {rounds.mean():6.1f} {falls.mean():8.4f} {right[name]:6.2f}"
        )
    return {"enough_right": right[IN_USE]} if IN_USE in right else {}
