"""Engines on twelve posteriors with reference draws: errors, seconds, and what verdicts are worth.

    python benchmarks/posteriordb.py --posteriordb DIR       # DIR: a checkout of posteriordb
    python benchmarks/posteriordb.py --posteriordb DIR --engines nuts,svi --only schools
    python benchmarks/posteriordb.py --smoke                 # tiny, for CI: two posteriors

For each posterior and engine: the largest error of a mean in sds of the reference, the range of
the ratios of sds, seconds (compilation included), and the verdict. A run is wrong where a mean is
more than .5 sd off or an sd is beyond a factor of two; right where means are within .3 sd and sds
within a factor of 1.5; what lies between counts as neither. `verdict_hits` is the share of wrong
runs of ours that are not called fit, `verdict_false_alarms` that of right ones that are not called
fit. `Checked` is timed on 400 tasks of which 40 are bent, against NUTS on all of them
(`checked_time_vs_nuts`). Peers in the same run: NumPyro's NUTS on the same density, Pyro's
AutoNormal and AutoMultivariateNormal. The last line is JSON; a figure not measured is null.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from posteriordb_peers import numpyro_nuts, pyro_guide
from posteriordb_programs import PROGRAMS, bent, bent_moments
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from bayesfs._utils.threads import share_cores
from bayesfs.diagnostics.convergence import diagnose
from bayesfs.errors import BayesfsError
from bayesfs.inference.checked import Checked
from bayesfs.inference.importance_rounds import ImportanceRounds
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.inference.plain import infer
from bayesfs.inference.svgd.svgd import SVGD
from bayesfs.inference.svi.guides import FullRank
from bayesfs.inference.svi.svi import SVI
from bayesfs.protocols import Engine
from bayesfs.results.convert import to_datatree

SMALL = Path(__file__).parents[1] / "tests" / "reference" / "posteriordb.json"
"""Two posteriors with means and sds of their reference draws, for `--smoke`."""

WRONG = (0.5, 2.0)
RIGHT = (0.3, 1.5)
"""Error of a mean in sds, and factor of an sd, beyond and within which a run is called so."""

FIT = "fit for use"

OURS: Mapping[str, Engine] = {
    "nuts": NUTS(),
    "svi": SVI(),
    "svi_full": SVI(guide=FullRank()),
    "svgd": SVGD(),
    "laplace": Laplace(),
}
PEERS = ("numpyro_nuts", "pyro_normal", "pyro_multivariate")
FIGURES = (
    "nuts_max_error_sd",
    "svi_default_max_error_sd",
    "verdict_hits",
    "verdict_false_alarms",
    "checked_time_vs_nuts",
    "checked_max_error_sd",
    "checked_max_sd_factor",
)

Draws = Mapping[str, NDArray[Any]]
"""Site -> (draw, *axes)."""


@dataclass(frozen=True)
class Reference:
    """Data of a posterior, and mean and sd of each parameter, such as "theta[1]"."""

    data: Mapping[str, Any]
    moments: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Outcome:
    """One run."""

    error: float
    least: float
    most: float
    seconds: float
    verdict: str

    def within(self, error: float, factor: float) -> bool:
        """Whether all means and sds are as near as that."""
        return self.error <= error and self.least >= 1 / factor and self.most <= factor


def references(folder: Path | None) -> dict[str, Reference]:
    """The posteriors of a checkout; without one, those of the small file."""
    if folder is None:
        held = json.loads(SMALL.read_text(encoding="utf-8"))["posteriors"]
        return {
            name: Reference(one["data"], {k: (m, s) for k, (m, s) in one["moments"].items()})
            for name, one in held.items()
        }
    inner = folder / "posterior_database"
    return {name: read(inner if inner.is_dir() else folder, name) for name in PROGRAMS}


def read(base: Path, name: str) -> Reference:
    """One posterior of a checkout."""
    about = json.loads((base / "posteriors" / f"{name}.json").read_text(encoding="utf-8"))
    drawn = base / "reference_posteriors" / "draws" / "draws"
    chains = unzipped(drawn / f"{about['reference_posterior_name']}.json.zip")
    draws = {key: np.concatenate([chain[key] for chain in chains]) for key in chains[0]}
    data = unzipped(base / "data" / "data" / f"{about['data_name']}.json.zip")
    return Reference(data, {key: (float(x.mean()), float(x.std())) for key, x in draws.items()})


def unzipped(path: Path) -> Any:
    """What is in a zipped JSON file."""
    with zipfile.ZipFile(path) as held:
        return json.load(io.TextIOWrapper(held.open(held.namelist()[0]), encoding="utf-8"))


def compared(draws: Draws, reference: Reference, seconds: float, verdict: str) -> Outcome:
    """Draws against the reference's means and sds."""
    errors, ratios = [], []
    for key, (mean, sd) in reference.moments.items():
        name, _, index = key.partition("[")
        place = tuple(int(k) - 1 for k in index.rstrip("]").split(",")) if index else ()
        if name in draws:
            own = draws[name][(slice(None), *place)]
            errors.append(abs(own.mean() - mean) / sd)
            ratios.append(own.std() / sd)
    return Outcome(max(errors), min(ratios), max(ratios), seconds, verdict)


def by_ours(engine: Engine) -> Callable[[Any, Mapping[str, Any]], tuple[Draws, str]]:
    """How one of our engines runs a program, and what it says of its draws."""

    def run(program: Any, data: Mapping[str, Any]) -> tuple[Draws, str]:
        try:
            posterior = infer(program, engine, data=data)
        except BayesfsError as refused:
            return {}, f"refused: {refused}"
        draws = {site: value.double().numpy() for site, value in posterior.draws.items()}
        return draws, diagnose(to_datatree(posterior)).verdict

    return run


def runners(names: list[str], smoke: bool) -> dict[str, Callable[..., tuple[Draws, str]]]:
    """Name of an engine -> how it is run; tiny ones for CI."""
    ours = dict(OURS)
    if smoke:
        ours = {
            "nuts": NUTS(warmup=20, draws=20, chains=2),
            "svi": SVI(steps=20, draws=50),
            "svi_full": SVI(guide=FullRank(), steps=20, draws=50),
            "svgd": replace(SVGD(), particles=30, steps=20),
            "laplace": Laplace(draws=50),
        }
    steps, transitions = (20, 20) if smoke else (2000, 1000)
    every = {name: by_ours(engine) for name, engine in ours.items()} | {
        "numpyro_nuts": lambda program, data: (numpyro_nuts(program, data, transitions), ""),
        "pyro_normal": lambda p, d: (pyro_guide(p, d, AutoNormal, steps), ""),
        "pyro_multivariate": lambda p, d: (pyro_guide(p, d, AutoMultivariateNormal, steps), ""),
    }
    return {name: every[name] for name in names or every if name in every}


def measured(
    known: Mapping[str, Reference], engines: Mapping[str, Callable[..., tuple[Draws, str]]]
) -> dict[tuple[str, str], Outcome | None]:
    """(posterior, engine) -> outcome; None where the engine refused. Prints a table."""
    found: dict[tuple[str, str], Outcome | None] = {}
    for name, reference in known.items():
        posterior = PROGRAMS[name]
        data = posterior.arguments(reference.data)
        for engine, run in engines.items():
            torch.manual_seed(0)
            began = time.perf_counter()
            draws, verdict = run(posterior.program, data)
            seconds = time.perf_counter() - began
            one = compared(draws, reference, seconds, verdict) if draws else None
            found[name, engine] = one
            figures = f"{one.error:9.3f} {one.least:7.2f} {one.most:7.2f}" if one else f"{'':25s}"
            print(f"{name:40s} {engine:18s} {figures} {seconds:7.1f}  {verdict[:70]}", flush=True)
    return found


def figures_of(found: Mapping[tuple[str, str], Outcome | None]) -> dict[str, float | bool | None]:
    """What the last line holds."""
    figures: dict[str, float | bool | None] = dict.fromkeys(FIGURES)
    for (name, engine), one in found.items():
        if one is not None:
            key = f"{name}.{engine}"
            figures |= {
                f"{key}.max_error_sd": one.error,
                f"{key}.sd_ratio_min": one.least,
                f"{key}.sd_ratio_max": one.most,
                f"{key}.seconds": one.seconds,
                f"{key}.fit": one.verdict.startswith(FIT),
            }
    ours = {key: one for key, one in found.items() if key[1] not in PEERS}
    nuts = [one.error for key, one in ours.items() if key[1] == "nuts" and one]
    svi = [o.error for k, o in ours.items() if k[1] == "svi" and o and o.verdict.startswith(FIT)]
    made = [one for one in ours.values() if one]
    wrong = [one for one in made if not one.within(*WRONG)]
    right = [one for one in made if one.within(*RIGHT)]
    alarms = [one for one in right if not one.verdict.startswith(FIT)]
    hits = [one for one in wrong if not one.verdict.startswith(FIT)]
    figures["nuts_max_error_sd"] = max(nuts, default=None)
    figures["svi_default_max_error_sd"] = max(svi, default=None)
    figures["verdict_hits"] = len(hits) / len(wrong) if wrong else None
    figures["verdict_false_alarms"] = len(alarms) / len(right) if right else None
    print(f"wrong runs: {len(wrong)}, of which {len(hits)} are not called fit")
    print(f"right runs: {len(right)}, of which {len(alarms)} are not called fit")
    return {
        name: value if value is None or isinstance(value, bool) else shown(value)
        for name, value in figures.items()
    }


def checked(tasks: int, length: int) -> dict[str, float]:
    """Cost and errors of `Checked` on tasks of which every tenth is hard, against NUTS on all.

    Cost is held against a NUTS with as many draws, compilation left out of both; errors against the
    exact moments, which a long enough NUTS has.
    """
    generator = torch.Generator().manual_seed(0)
    bend = torch.where(torch.arange(tasks) % 10 == 0, 3.0, 0.0).double()
    data = {"y": torch.randn(tasks, 4, generator=generator).double(), "bend": bend}
    nuts, draws = NUTS(warmup=length, draws=length, target_accept=0.95), 4 * length
    cheap = SVI(guide=FullRank(), steps=200, corrected=True, draws=draws)
    rungs = (ImportanceRounds(draws=draws), nuts)
    few = {name: value[:16] for name, value in data.items()}
    for rung in rungs:  # compiles
        infer(bent, Checked(cheap, (rung,), {"khat": -math.inf}), data=few, batch_axis=0)
    exact = bent_moments(data["y"], bend)
    costs, found, off, factors = [], [], [], []
    for seed, engine in enumerate((Checked(cheap, then=rungs), nuts)):
        began = time.perf_counter(), time.process_time()
        found.append(infer(bent, engine, data=data, batch_axis=0, seed=seed))
        costs.append((time.perf_counter() - began[0], time.process_time() - began[1]))
        own = found[-1].draws
        off.append(torch.stack([(own[s].mean(0) - m).abs() / sd for s, (m, sd) in exact.items()]))
        factors.append(
            torch.stack([(own[s].std(0) / sd).log().abs() for s, (_, sd) in exact.items()])
        )
    escalated = found[0].sample_stats["escalated"]
    print(f"Checked: {costs[0]} s by clock and processor, NUTS on all: {costs[1]}")
    print(f"  drawn by each engine: {escalated.long().bincount().tolist()}")
    figures = {
        "checked_time_vs_nuts": costs[0][0] / costs[1][0],
        "checked_cpu_vs_nuts": costs[0][1] / costs[1][1],
        "checked_escalated": float((escalated > 0).float().mean()),
    }
    for name, error, factor in zip(("checked", "checked_nuts"), off, factors, strict=True):
        figures[f"{name}_max_error_sd"] = float(error.max())
        figures[f"{name}_max_sd_factor"] = float(factor.max().exp())
    return figures


def shown(value: float) -> float | None:
    """Five digits; what is not finite is null in JSON."""
    return round(value, 5) if math.isfinite(value) else None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--posteriordb", type=Path, help="a checkout of posteriordb")
    parser.add_argument("--engines", default="", help="names, with commas; all by default")
    parser.add_argument("--only", default="", help="posteriors whose name holds this")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    options = parser.parse_args()
    if options.posteriordb is None and not options.smoke:
        parser.error("give --posteriordb DIR (a checkout of stan-dev/posteriordb), or --smoke")
    known = references(options.posteriordb)
    chosen = {name: one for name, one in known.items() if options.only in name}
    engines = runners([name for name in options.engines.split(",") if name], options.smoke)
    print(f"{'posterior':40s} {'engine':18s} {'error/sd':>9s} {'sd min':>7s} {'max':>7s} {'s':>7s}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = measured(chosen, engines)
        figures = figures_of(found)
        if not options.engines or "checked" in options.engines:
            more = checked(10, 30) if options.smoke else checked(400, 1000)
            figures |= {name: shown(value) for name, value in more.items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    share_cores()
    main()
