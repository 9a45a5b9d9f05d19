"""What some people's data say of others, in one small file: `SharedPopulation`.

`default_population()` is the one that comes with bayesfs. A population of `SimilarityPool` needs no
projection, so that it can be carried to other objects and other worlds: it holds draws of the
population sites, others' scatter of videos about their objects, and a card that says of whom.

A new world's population mean is not that of any world met before. With the posterior means m_w and
variances v_w of worlds w, their spread tau^2 and the prior N(m_0, s_0^2) of the overall mean,

    mu ~ N(m_0, s_0^2),    m_w | mu ~ N(mu, tau^2 + v_w),    m_new | mu ~ N(mu, tau^2),

each site by itself: `for_new_world`.

Source: Neuenschwander et al. (2010), Clinical Trials 7, for the meta-analytic-predictive prior.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesfs._utils.guarded_files import naming_file, opened, opened_npz
from bayesfs._utils.safetensors_files import read_safetensors, write_safetensors
from bayesfs.errors import DataError
from bayesfs.features.backbones.spec import DEFAULT
from bayesfs.features.projection import Projection
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.models.heads.linear import normal_nodes
from bayesfs.models.similarity.heads import COSINES, HEADS, WithinScatter
from bayesfs.models.similarity.pool import SimilarityPool
from bayesfs.models.similarity.typicality import Typicality
from bayesfs.study import Learnt
from bayesfs.types import CONDITIONS, Posterior

LARGEST = 2**24
"""Most bytes that a file of a population, or its arrays, take."""

SAFETENSORS = ".safetensors"
"""Suffix of the files that model hubs know; others are npz."""

DRAWS = 16
"""Draws of the population sites that a merged population, or one of a new world, has."""

ENGINE = OwnApproximation(draws=256, population_draws=16)
"""What tasks are inferred with: a draw of such a population costs little."""

SITES: Mapping[str, tuple[str, ...]] = SimilarityPool().population_dims

BACKBONES = (DEFAULT, "efficientnet-lite0", "efficientnet-lite2")
"""Those whose populations come with bayesfs; the first where nothing is asked for."""

CARD = ("backbone", "people", "objects", "worlds")
"""What a card says at least."""


@dataclass(frozen=True)
class SharedPopulation:
    """A population of `SimilarityPool` that others may use.

    Attributes:
        population: draws of the population sites.
        model: with the scatter of other people's videos.
        card: what it was learnt from, and how it did: `backbone` (its name, with weights, pooling
            and size), `people`, `objects`, `worlds` (one text each), and whatever else is known,
            such as `calibration` and `fails`.

    Raises:
        DataError: a site or an entry of the card is missing, or not finite.
    """

    population: Posterior
    model: SimilarityPool
    card: Mapping[str, Any]

    def __post_init__(self) -> None:
        missing = [name for name in CARD if name not in self.card]
        missing += [site for site in SITES if site not in self.population.draws]
        if missing:
            raise DataError(
                f"expected a population of SimilarityPool with a card, missing {missing}; was it "
                "learnt with another model?"
            )
        sizes = {site: tuple(self.population.draws[site].shape[1:]) for site in SITES}
        if sizes != {"scale_mean": (), "head_mean": (len(HEADS),)}:
            raise DataError(f"expected sites of {len(HEADS)} heads, got {sizes}")
        numbers = [*self.population.draws.values()]
        numbers += [torch.from_numpy(v) for v in (self.scatter.axes, self.scatter.excess)]
        if not all(bool(torch.isfinite(v).all()) for v in numbers):
            raise DataError("a population holds NaN or infinite numbers; a damaged file?")
        counts = [self.card["people"], self.card["objects"]]
        if not all(type(n) is int and n > 0 for n in counts):
            raise DataError(f"expected numbers of people and objects above 0, got {counts}")

    @property
    def scatter(self) -> WithinScatter:
        """Of other people's videos about their objects."""
        scatter = self.model.scatter
        if not isinstance(scatter, WithinScatter):
            raise DataError(f"expected one scatter of all people, got {type(scatter).__name__}")
        return scatter

    @property
    def backbone(self) -> str:
        """Name of the backbone whose features it is of."""
        return str(self.card["backbone"])

    @property
    def learnt(self) -> Learnt:
        """What tasks are inferred with: features at unit length, all of them."""
        width = len(self.scatter.axes)
        means = np.zeros((len(CONDITIONS), width))
        spectrum = np.full(width, 1.0 / math.sqrt(width))
        return Learnt(Projection(means, None, spectrum), self.population, self.scatter)

    def check_backbone(self, name: str) -> None:
        """Refuse features of another backbone.

        Raises:
            DataError: they are.
        """
        if name != self.backbone:
            raise DataError(
                f"the population is of features of {self.backbone!r}, these are of {name!r}: its "
                "axes mean nothing there; make the features with its backbone, or learn a "
                "population with yours (bayesfs run, then bayesfs population save)"
            )

    def save(self, path: Path) -> None:
        """Write it to one npz file, or safetensors by the suffix; axes take two bytes a number."""
        scatter = self.scatter
        told = {name: getattr(scatter, name) for name in ("videos", "objects", *COSINES)}
        told = {name: value for name, value in told.items() if not math.isnan(value)}
        header = {
            "card": dict(self.card),
            "model": _numbers(self.model),
            "typical": asdict(self.model.typical),
            "scatter": told,
        }
        text = json.dumps(header, allow_nan=False)
        arrays = {site: self.population.draws[site].double().cpu().numpy() for site in SITES}
        arrays |= {"axes": scatter.axes.astype(np.float16), "excess": scatter.excess}
        if path.suffix == SAFETENSORS:
            write_safetensors(path, arrays, {"header": text})
            return
        coded = np.frombuffer(text.encode(), np.uint8)
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, header=coded, **arrays)

    @classmethod
    def load(cls, path: Path) -> SharedPopulation:
        """Read what `save` wrote, whatever the file is called; nothing in it is run.

        Raises:
            DataError: no such file, a large or damaged one, or one of something else.
        """
        with _contents(path) as (archive, text):
            header = json.loads(text)
            axes, excess = archive["axes"].astype(np.float32), archive["excess"]
            counts = {name: int(header["scatter"][name]) for name in ("videos", "objects")}
            told = (header["scatter"].get(name) for name in COSINES)
            like, unlike = (math.nan if value is None else float(value) for value in told)
            scatter = WithinScatter(
                axes, excess.astype(np.float32), like=like, unlike=unlike, **counts
            )
            draws = {site: torch.from_numpy(archive[site].astype(np.float64)) for site in SITES}
            numbers = {str(name): float(value) for name, value in header["model"].items()}
            known = {str(name): float(value) for name, value in header["typical"].items()}
            if {*known} != {f.name for f in fields(Typicality)}:
                raise DataError(
                    f"{path}: expected what `Typicality` has now, got {sorted(known)}; the "
                    "population is of an earlier version of bayesfs: learn it anew"
                )
            typical = Typicality(**known)
            population = Posterior.of_own("variational", draws, dict(SITES))
            model = SimilarityPool(scatter, typical=typical, **numbers)
            return cls(population, model, dict(header["card"]))


@contextmanager
def _contents(path: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Arrays and header of a file; whatever fails while they are read names it."""
    with naming_file(path, "no population that bayesfs wrote"):
        with opened(path, LARGEST) as file:
            is_archive = file.read(2) == b"PK"
        if is_archive:
            with opened_npz(path, LARGEST) as archive:
                yield archive, archive["header"].tobytes()
        else:
            arrays, texts = read_safetensors(path, LARGEST)
            yield arrays, texts["header"]


def default_population(backbone: str = DEFAULT) -> SharedPopulation:
    """The population that comes with bayesfs, of features of `backbone_of(backbone)`.

    Args:
        backbone: one of `BACKBONES`, by default parameters.

    Raises:
        DataError: none comes along for it.

    Example:
        >>> default_population().backbone.partition(":")[0]
        'multiscale+efficientnet-lite0-57934424'
    """
    return SharedPopulation.load(default_path(backbone))


def default_path(backbone: str = DEFAULT) -> Path:
    """The file of `default_population`; its card lies beside it as JSON."""
    if backbone not in BACKBONES:
        raise DataError(
            f"expected a backbone whose population comes along, one of {list(BACKBONES)}, got "
            f"{backbone!r}; learn one from a run, which then has its backbone (--run)"
        )
    return Path(__file__).parents[1] / "_populations" / f"{backbone}.npz"


def merged(parts: Sequence[SharedPopulation]) -> SharedPopulation:
    """One population of everybody that the given ones are of.

    Its sites are normal with the moments of the mixture in which every population counts by its
    number of people: mean sum_i w_i m_i, and variance sum_i w_i (C_i + (m_i - m)(m_i - m)'), so
    that what worlds differ in widens it. Scatters are pooled by `WithinScatter.merged`.

    Raises:
        DataError: there is none, backbones differ, or the models' numbers do.
    """
    if not parts:
        raise DataError("expected populations to merge, got none")
    first = parts[0]
    for other in parts[1:]:
        other.check_backbone(first.backbone)
        if replace(other.model, scatter=None) != replace(first.model, scatter=None):
            raise DataError("the populations are of models with other settings; expected the same")
    people = np.array([each.card["people"] for each in parts], float)
    share = people / people.sum()
    flat = [_flat(each.population.draws) for each in parts]
    mean = sum(w * x.mean(0) for w, x in zip(share, flat, strict=True))
    covariance = sum(
        w * (_covariance(x) + np.outer(x.mean(0) - mean, x.mean(0) - mean))
        for w, x in zip(share, flat, strict=True)
    )
    scatter = WithinScatter.merged([each.scatter for each in parts])
    model = SimilarityPool(scatter, typical=first.model.typical, **_numbers(first.model))
    card = {
        "backbone": first.backbone,
        "people": int(people.sum()),
        "objects": sum(each.card["objects"] for each in parts),
        "worlds": [world for each in parts for world in each.card["worlds"]],
    }
    return SharedPopulation(
        normal_population(np.asarray(mean), np.asarray(covariance)), model, card
    )


def for_new_world(worlds: Sequence[Posterior], model: SimilarityPool) -> Posterior:
    """Population of a world that was not met, from the populations of those that were.

    Args:
        worlds: posteriors of the population sites, one a world; none gives the prior.
        model: gives the prior; tau, the spread of worlds, is as large as its sd.
    """
    count = len(HEADS)
    prior = np.array([model.scale, *[0.0] * count])
    tau = np.array([model.scale_sd, *[model.head_sd] * count]) ** 2
    precision, pull = 1.0 / tau, prior / tau
    for world in worlds:
        x = _flat(world.draws)
        own = 1.0 / (tau + x.var(0))
        precision, pull = precision + own, pull + own * x.mean(0)
    return normal_population(pull / precision, np.diag(1.0 / precision + tau))


def normal_population(mean: np.ndarray[Any, Any], covariance: np.ndarray[Any, Any]) -> Posterior:
    """Draws of the population sites whose mean and covariance are exactly these.

    Args:
        mean: (1 + head,) of `scale_mean`, then `head_mean`.
        covariance: (1 + head, 1 + head).
    """
    z = normal_nodes(DRAWS, len(mean)).numpy()
    z = z - z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(_covariance(z))).T
    value, axes = np.linalg.eigh(covariance)
    x = torch.from_numpy(mean + (z * np.sqrt(value.clip(0.0))) @ axes.T)
    draws = {"scale_mean": x[:, 0].clone(), "head_mean": x[:, 1:].clone()}
    return Posterior.of_own("variational", draws, dict(SITES))


def _flat(draws: Mapping[str, Tensor]) -> np.ndarray[Any, Any]:
    """(draw, 1 + head) of both sites."""
    parts = [draws["scale_mean"][:, None], draws["head_mean"]]
    return np.asarray(torch.cat(parts, 1).double().cpu().numpy())


def _covariance(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    centred = x - x.mean(0)
    return np.asarray(centred.T @ centred / len(x))


def _numbers(model: SimilarityPool) -> dict[str, float]:
    own = ("scatter", "typical")
    return {f.name: getattr(model, f.name) for f in fields(model) if f.name not in own}
