"""A scikit-learn classifier over one task: `BayesianFewShotClassifier`.

It needs features and labels only: no tree of videos, no other users. Where a population has been
learnt from other users (`bayesfs.study.Study.learn`), give it as `population=`; it knows more than
a few labels can.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, Self

import narwhals as nw
import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from bayesfs._distributions.noise import frame_content
from bayesfs._utils.devices import usable_device
from bayesfs._utils.nested_parameters import nested_parameters, with_parameters
from bayesfs.data.from_arrays import make_episode
from bayesfs.data.row_weights import repeated
from bayesfs.diagnostics.convergence import diagnose
from bayesfs.diagnostics.predictive_checks import label_check
from bayesfs.errors import DataError, ShapeError
from bayesfs.inference.exact import Exact
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.similarity.pool import SimilarityPool, TablePool
from bayesfs.prediction import predict
from bayesfs.protocols import Approximable, Conjugate, Engine, Model, TakesScatter
from bayesfs.results.assemble import assemble_tree
from bayesfs.results.baseline import baseline_group
from bayesfs.results.convert import to_datatree
from bayesfs.study import Answer, Learnt
from bayesfs.training.population_from_support import DRAWS, SupportAxes, support_population
from bayesfs.training.shared_population import ENGINE, SharedPopulation
from bayesfs.types import EpisodeBatch, Posterior, refuse_missing
from bayesfs.uncertainty.decompose import decompose

Array = NDArray[Any]

WIDE = 256
"""Columns from which on features are taken for an embedding, whose directions count."""

MOST = 512
"""Videos of which the default model is a pool: time and memory grow with their square."""

CHUNK = 1024
"""Query videos that are predicted at a time; bounds the memory."""

PARTS = ("total", "aleatoric", "epistemic")

NESTED = ("model", "engine")
"""Parameters whose fields are parameters too, such as `engine__draws`."""

EXAMPLES = {"model": "bf.GaussianHierarchy()", "engine": "bf.Exact()"}

CONTAINERS = ("default", "pandas", "polars")


class BayesianFewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Few-shot classification with a posterior, and uncertainty by kind.

    Rows are frames. `groups` names the video of each: frames of one video are near copies of each
    other, so that ten frames of one video count as about one example. Without `groups` every row
    is a video of its own, which says that rows are independent given their class.

    By default the model is a pool of classifiers, each trusted as far as it recognised left-out
    videos: of `WIDE` columns or more, which are an embedding, a `SimilarityPool` of cosines; of
    fewer a `TablePool` of logistic regression and a Gaussian process. `GaussianHierarchy` takes
    their place where they have nothing to say: of more than `MOST` videos, which they compare pair
    by pair, where what is taught and what is asked were recorded in different conditions, and where
    an engine is given.

    The population of another model (how far classes, videos and frames scatter) comes from, in this
    order:

    1. `population`, learnt from other users. The best, and what `bayesfs run` does.
    2. The support itself, if some class has two videos: the generalised posterior of the
       population under the leave-one-video-out log score of the support's own labels. Seconds; see
       `bayesfs.training.population_from_support.support_population`.
    3. The model's prior, if there is nothing to leave out.

    Features of such a model are, without a learnt population, centred, turned to their principal
    axes and divided by one common scale, all from the support. Deep features gain from unit length
    first (`sklearn.preprocessing.Normalizer`); columns of different units from `StandardScaler`.

    Fields of model and engine are parameters, too: `engine__draws` may be searched over. After
    `set_output(transform="pandas")` (or "polars") answers are tables with a column a class.

    Args:
        model: what is believed; by default that of a shared population, else as said above.
        engine: infers the task; by default `Exact()` for a conjugate model, `OwnApproximation()`
            for a pool, else `SVI()`.
        population: a `Learnt` (its projection is applied to the features, too), the `Posterior`
            of the population of features as they come, or a `SharedPopulation` such as
            `bf.default_population()` for features of its backbone, whose model and engine are then
            the default; None takes 2 or 3 above.
        n_components: principal axes to keep without a learnt population; pools keep all.
        support_condition: recording condition of what is taught, "clean" or "clutter".
        query_condition: recording condition of what is asked.
        random_state: of the draws. Fixed by default, so that the same data give the same answer.
        device: where tensors live while it works, such as "cuda"; the CPU by default, which is the
            quickest for one task. Answers are on the CPU, and the same up to rounding.

    Nothing of the caller's arrays is kept: changing X afterwards changes no answer. A row has the
    same answer whatever is asked beside it, and neither the order of the rows that are taught nor
    the names of classes move it.

    Attributes:
        classes_: (way,) the labels, sorted; columns of probabilities are in this order.
        posterior_: posterior of the task's and the classes' sites, a `bayesfs.Posterior`.
        population_: posterior of the population, or None where `posterior_` holds its sites.
        model_: the model, as it was told the features' spectrum.
        n_features_in_: number of features.
        feature_names_in_: their names, where X is a data frame whose columns are named by text.

    Example:
        >>> X = [[0.0, 0.1], [0.1, 0.0], [1.0, 1.1], [1.1, 1.0]]
        >>> known = BayesianFewShotClassifier().fit(X, ["keys", "keys", "mug", "mug"])
        >>> known.predict([[0.0, 0.0], [1.0, 1.0]]).tolist()
        ['keys', 'mug']
        >>> known.predict_uncertainty([[0.5, 0.5]]).columns.tolist()
        ['total', 'aleatoric', 'epistemic']
    """

    def __init__(
        self,
        *,
        model: Model | None = None,
        engine: Engine | None = None,
        population: Learnt | Posterior | SharedPopulation | None = None,
        n_components: int = 32,
        support_condition: Literal["clean", "clutter"] = "clean",
        query_condition: Literal["clean", "clutter"] = "clean",
        random_state: int | np.random.RandomState | None = 0,
        device: str | None = None,
    ) -> None:
        self.model = model
        self.engine = engine
        self.population = population
        self.n_components = n_components
        self.support_condition = support_condition
        self.query_condition = query_condition
        self.random_state = random_state
        self.device = device

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; with `deep` the fields of model and engine too."""
        found: dict[str, Any] = super().get_params(deep=deep)
        for name in NESTED if deep else ():
            found |= {f"{name}__{k}": x for k, x in nested_parameters(found[name]).items()}
        return found

    def set_params(self, **params: Any) -> Self:
        """Change parameters; `engine__draws=64` gives the engine with that field changed.

        Raises:
            ValueError: there is no such parameter, or model or engine is left to the default.
        """
        inner = {n: n.split("__", 1) for n in params if n.partition("__")[0] in NESTED}
        inner = {n: parts for n, parts in inner.items() if len(parts) == 2}
        super().set_params(**{n: x for n, x in params.items() if n not in inner})
        for name in NESTED:
            changes = {rest: params[n] for n, (first, rest) in inner.items() if first == name}
            if changes and getattr(self, name) is None:
                raise ValueError(
                    f"{name} is None, so that it has no parameter {next(iter(changes))!r}; give "
                    f"one to change it, such as {name}={EXAMPLES[name]}"
                )
            if changes:
                setattr(self, name, with_parameters(getattr(self, name), changes, name))
        return self

    def set_output(self, *, transform: str | None = None) -> Self:
        """What `predict_proba` and `predict_uncertainty` return.

        Args:
            transform: "pandas" or "polars" for tables, of which those of pandas have X's index;
                "default" for an array of probabilities and a table of pandas for uncertainty;
                None changes nothing.

        Raises:
            ValueError: it is none of these.
        """
        if transform not in (None, *CONTAINERS):
            raise ValueError(f"expected transform to be one of {CONTAINERS}, got {transform!r}")
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self

    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> Self:
        """Infer the posterior from labelled frames.

        Warns of one object only, without groups, and where the engine's own checks fail.

        Args:
            X: (frame, feature) array, DataFrame or DataArray.
            y: (frame,) label of each frame.
            groups: (frame,) video of each frame; None makes every frame a video.
            sample_weight: (frame,) how many videos like this frame's there are, 0 to leave a frame
                out; the frames of a video have one weight. See `bayesfs.data.row_weights`.

        Raises:
            TypeError: model or engine is a class, a name, or no such thing.
            ValueError: from scikit-learn, for NaN, text, or lengths that differ.
            DataError: a video has two labels, a label or a video is None, NaN or NA, a weight is no
                number of videos, or the model has covariates of quality, which plain features do
                not have.
        """
        for name, value, contract in (
            ("model", self.model, Model),
            ("engine", self.engine, Engine),
        ):
            if isinstance(value, type) or (value is not None and not isinstance(value, contract)):
                raise TypeError(
                    f"expected {name} to be an object of a class that inherits from "
                    f"bayesfs.protocols.{contract.__name__}, such as bf.GaussianHierarchy() or "
                    f"bf.SVI(), got {value!r}"
                )
        if self.model is not None and self.model.covariates:
            raise DataError(
                f"the model has covariates of quality {self.model.covariates}, which plain "
                "features do not have; expected a model without, and a population learnt with it"
            )
        if y is not None:
            refuse_missing(_column(_plain(y)), "y")
        x, y = validate_data(self, _plain(X), _plain(y), dtype=np.float64)
        check_classification_targets(y)
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, x, dtype=np.float64)
            rows, groups = repeated(weight, None if groups is None else _groups(groups, len(x)))
            x, y = x[rows], y[rows]
        self.classes_, label = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            warnings.warn(
                f"one object only, {str(self.classes_[0])!r}: every answer is certain of it",
                stacklevel=2,
            )
        if groups is None and len(x) > len(self.classes_):
            warnings.warn(
                "without groups each frame counts as a video of its own, and frames of one video "
                "make it far too sure; give groups, or groups=range(len(y)) for single pictures or "
                "rows that do not depend on each other",
                stacklevel=2,
            )
        videos, order = _videos(groups, len(x), label), _by_content(x)
        if self.n_components < 1:
            raise ShapeError(f"expected n_components >= 1, got {self.n_components}")
        x = x[order]  # a copy: nothing of the caller's is kept
        self._support = (x, label[order], videos[order].tolist())
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._axes = self._fit_axes(x)
        self.model_ = self._told_model()
        episode = self._episode(x[:1], None)
        engine = self.engine or self._default_engine()
        population = self._population(episode, engine)
        self.population_ = None if population is None else population.to(episode.support.device)
        self.posterior_ = engine.infer(
            self.model_, episode, seed=self._seed, given=self.population_
        )
        _warn_if_unfit(engine, self.posterior_)
        return self

    def predict(self, X: Any, groups: Any = None) -> Array:
        """(frame,) likeliest label of each frame; see `predict_proba` for `groups`."""
        best = self._probabilities(X, groups).argmax(1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: Any, groups: Any = None) -> Any:
        """(frame, way) probability of each class: an array, or a table after `set_output`.

        Args:
            X: (frame, feature).
            groups: (frame,) video of each frame. The frames of a video are recognised jointly,
                and each of its rows holds the video's probabilities. None asks for each frame.
        """
        prob = self._probabilities(X, groups)
        if self._container == "default":
            return prob
        index = X.index if isinstance(X, pd.DataFrame) else None
        return self._contained(pd.DataFrame(prob, columns=self.classes_, index=index))

    def predict_uncertainty(self, X: Any, groups: Any = None) -> Any:
        """Uncertainty of each frame in nats, by kind; total = aleatoric + epistemic.

        Args:
            X: (frame, feature).
            groups: as in `predict_proba`.

        Returns:
            A table, of pandas by default, one row a frame, with X's index if it has one: `total`
            (entropy of the prediction), `aleatoric` (what would remain with endless examples: the
            frame itself is unclear) and `epistemic` (what more examples could remove).
        """
        index, rows, answers = self._answers(X, groups)
        parts = [
            np.stack([a.uncertainty[f"video_{p}"].values[0] for p in PARTS], 1) for a in answers
        ]
        table = pd.DataFrame(np.concatenate(parts)[rows], columns=list(PARTS), index=index)
        return self._contained(table)

    def answer(self, X: Any, groups: Any = None, y: Any = None) -> Answer:
        """Everything about a query: tasks, posterior, predictive draws, uncertainty.

        Args:
            X: (frame, feature).
            groups: (frame,) video of each frame.
            y: (frame,) true labels where they are known, for scores.

        Raises:
            DataError: a label was not taught.
        """
        x = self._validated(X)
        groups = _groups(groups, len(x))
        known = None
        if y is not None:
            refuse_missing(_column(_plain(y)), "y")
            known = self._label_numbers(np.asarray(_plain(y)))
        return self._answer(self._episode(x, groups, known))

    def to_datatree(self, X: Any, groups: Any = None, y: Any = None) -> xr.DataTree:
        """Everything about a query as one DataTree in ArviZ's schema; arguments of `answer`.

        With `y` it holds what a report's verdict asks for besides: guessing, the nearest class mean
        and the labels that the model expects; see `bayesfs.report.view.verdicts_of`.
        """
        a = self.answer(X, groups, y)
        tree = assemble_tree(
            a.posterior,
            a.predictive,
            a.uncertainty,
            a.episodes,
            model=self.model_,
            population=self.population_,
        )
        tree["baseline"] = xr.DataTree(baseline_group(a.episodes))
        tree["label_check"] = xr.DataTree(label_check(tree))
        return tree

    def _probabilities(self, X: Any, groups: Any) -> Array:
        """(frame, way), rows that add up to 1."""
        _, rows, answers = self._answers(X, groups)
        prob = [a.predictive.video.prob[0].cpu().numpy() for a in answers]
        table = np.concatenate(prob)[rows]
        return np.asarray(table / table.sum(1, keepdims=True))

    @property
    def _container(self) -> str:
        """What `set_output` asked for; scikit-learn's `clone` copies it under this name."""
        return str(vars(self).get("_sklearn_output_config", {}).get("transform", "default"))

    def _contained(self, table: pd.DataFrame) -> Any:
        """The table, as one of polars where that was asked for."""
        if self._container != "polars":
            return table
        columns = {str(name): table[name].to_numpy() for name in table}
        return nw.from_dict(columns, backend="polars").to_native()

    def _label_numbers(self, y: Array) -> list[int]:
        strange = np.setdiff1d(y, self.classes_)
        if len(strange):
            raise DataError(
                f"label {strange.tolist()[0]!r} was not taught; known are "
                f"{self.classes_.tolist()[:10]}"
            )
        return list(np.searchsorted(self.classes_, y).tolist())

    def _answers(self, X: Any, groups: Any) -> tuple[Any, Array, list[Answer]]:
        """Index of X, the query video of each row, and the answers by chunks of videos."""
        x = self._validated(X)
        given = _groups(groups, len(x))
        names, rows = np.unique(given, return_inverse=True)
        order = np.lexsort((_by_content(x).argsort(), rows))
        answers = [
            self._answer(self._episode(x[part], rows[part]))
            for part in _chunks(order, rows[order], len(names))
        ]
        return X.index if isinstance(X, pd.DataFrame) else None, rows, answers

    def _answer(self, episode: EpisodeBatch) -> Answer:
        given = self.population_
        predictive = predict(self.model_, self.posterior_, episode, given=given)
        uncertainty = decompose(predictive, episode)
        return Answer(episode, self.model_, self.posterior_, predictive, uncertainty)

    def _validated(self, X: Any) -> Array:
        check_is_fitted(self)
        return np.asarray(validate_data(self, _plain(X), dtype=np.float64, reset=False))

    def _episode(
        self, query: Array, videos: Array | None, labels: list[int] | None = None
    ) -> EpisodeBatch:
        x, label, shots = self._support
        episode = make_episode(
            torch.from_numpy(self._axes(x, self.support_condition)),
            label.tolist(),
            shots,
            torch.from_numpy(self._axes(query, self.query_condition)),
            None if videos is None else videos.tolist(),
            labels,
            support_condition=self.support_condition,
            query_condition=self.query_condition,
        )
        named = replace(episode, classes=(tuple(map(str, self.classes_)),))
        return named.to(usable_device(self.device or "cpu", torch.float64))

    def _default_engine(self) -> Engine:
        if isinstance(self.model_, Conjugate):
            return Exact()
        return ENGINE if isinstance(self.model_, Approximable) else SVI()

    def _others(self) -> Learnt | None:
        """What was learnt from other users, with a projection of its own."""
        if isinstance(self.population, SharedPopulation):
            return self.population.learnt
        return self.population if isinstance(self.population, Learnt) else None

    def _fit_axes(self, x: Array) -> _Learnt | _Scaled | _Own:
        if (others := self._others()) is not None:
            return _Learnt(others)
        if self._is_pooled():
            return _Scaled(x)
        told = self.population is not None
        return _Own(None if told else SupportAxes.fit(x, self.n_components))

    def _is_pooled(self) -> bool:
        """Whether nothing is known but rows, few and of one condition."""
        told = any(x is not None for x in (self.model, self.engine, self.population))
        alike = self.support_condition == self.query_condition
        return not told and alike and len(set(self._support[2])) <= MOST

    def _told_model(self) -> Model:
        others = self._others()
        if isinstance(self.population, SharedPopulation) and self.model is None:
            return self.population.model
        if self._is_pooled():
            return SimilarityPool() if self.n_features_in_ >= WIDE else TablePool()
        model: Model = GaussianHierarchy() if self.model is None else self.model
        if others is not None and others.scatter is not None and isinstance(model, TakesScatter):
            return model.with_scatter(others.scatter)
        spectrum = self._axes.spectrum
        return model if spectrum is None else model.fit_to(spectrum)

    def _population(self, episode: EpisodeBatch, engine: Engine) -> Posterior | None:
        if (others := self._others()) is not None:
            return others.population
        if isinstance(self.population, Posterior):
            return self.population
        if self._is_pooled():  # its task level looks at what is left out, the support counts once
            return self.model_.default_population(episode.dim)
        carried = nested_parameters(engine).get("population_draws", 0)
        draws = max(DRAWS, 2 * carried)
        return support_population(self.model_, episode, seed=self._seed, draws=draws)


def _warn_if_unfit(engine: Engine, posterior: Posterior) -> None:
    """Warn where the engine's own checks say that its draws are no good approximation."""
    if posterior.kind == "exact":  # nothing to check
        return
    failed = diagnose(to_datatree(posterior)).failed
    if failed:
        said = ", ".join(f"{c.name} {c.value:.3g} (expected {c.threshold})" for c in failed)
        warnings.warn(
            f"the posterior of {type(engine).__name__} is not fit for use: {said}. Give it more "
            "steps or draws, or another engine: bf.Exact() where the model is conjugate, bf.NUTS() "
            "for any; bayesfs.diagnostics.convergence.diagnose says more",
            stacklevel=3,
        )


class _Learnt:
    """The projection of a learnt population, as a function of plain features."""

    def __init__(self, learnt: Learnt) -> None:
        self._projection = learnt.projection
        self.spectrum: tuple[float, ...] | None = tuple(learnt.projection.spectrum.tolist())

    def __call__(self, x: Array, condition: str) -> Array:
        return self._projection.of_features(x, condition).astype(np.float64)


class _Scaled:
    """Features in units of the support's root mean square; nothing is projected."""

    spectrum: tuple[float, ...] | None = None

    def __init__(self, x: Array) -> None:
        peak = np.abs(x).max() or 1.0  # no square under- or overflows
        self._scale = peak * np.sqrt(np.square(x / peak).sum(1).mean()) or 1.0

    def __call__(self, x: Array, condition: str) -> Array:
        return np.asarray(x / self._scale)


class _Own:
    """The support's own axes; None leaves features as they come."""

    def __init__(self, axes: SupportAxes | None) -> None:
        self._axes = axes
        self.spectrum = None if axes is None else axes.spectrum

    def __call__(self, x: Array, condition: str) -> Array:
        return x.copy() if self._axes is None else self._axes(x)


def _plain(values: Any) -> Any:
    """Arrays of xarray as NumPy's, frames first; everything else as it is."""
    if not isinstance(values, xr.DataArray):
        return values
    if "frame" in values.dims:
        values = values.transpose("frame", ...)
    return values.values


def _column(values: Any) -> Any:
    """Labels in a table of one column as a column."""
    plain = isinstance(values, list | tuple) or getattr(values, "ndim", 0) == 1
    return values if plain else np.asarray(values, dtype=object).ravel()


def _groups(groups: Any, length: int) -> Array:
    """(frame,) video of each frame; each frame its own where none are given.

    Raises:
        ShapeError: their number is not that of the frames.
        DataError: one is None, NaN or NA.
    """
    if groups is None:
        return np.arange(length)
    given = np.asarray(_plain(groups))
    if given.shape != (length,):
        raise ShapeError(f"expected {length} groups, one per frame, got {given.shape}")
    refuse_missing(_plain(groups), "groups")
    return given


def _by_content(x: Array) -> Array:
    """Order of frames (frame, feature) that does not depend on the order they come in."""
    frames = torch.from_numpy(np.require(x, requirements=("C", "W")))  # a copy of what is fixed
    content = frame_content(frames, None, torch.ones(len(x), dtype=torch.bool))
    return np.asarray(content.numpy().argsort(kind="stable"))


def _videos(groups: Any, length: int, label: Array) -> Array:
    """Number of the video of each support frame.

    Raises:
        ShapeError: see `_groups`.
        DataError: the frames of a video have two labels.
    """
    given = _groups(groups, length)
    names, video = np.unique(given, return_inverse=True)
    pairs = np.unique(np.stack([video, label]), axis=1)
    twice = np.flatnonzero(np.bincount(pairs[0]) > 1)
    if len(twice):
        raise DataError(
            f"video {names.tolist()[twice[0]]!r} has frames of "
            f"{np.bincount(pairs[0])[twice[0]]} classes; "
            "a video shows one object: do groups name videos, and uniquely across classes?"
        )
    return np.asarray(video)


def _chunks(order: Array, video: Array, count: int) -> Iterator[Array]:
    """Rows of `CHUNK` videos at a time; `order` sorts rows by video, `video` is sorted."""
    for start in range(0, count, CHUNK):
        yield order[(video >= start) & (video < start + CHUNK)]
