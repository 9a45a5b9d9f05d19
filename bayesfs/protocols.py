"""The contracts: what a model, engine, backbone and evaluation offer, and every optional ability.

Inherit from `Model`, `Engine` or `Evaluation`: what is optional has a default there. An ability
that only some models have is a Protocol of its own (`Conjugate`, `OpenSet`, ...); a model has it
when it has its members, and whoever needs it asks by `isinstance`. A model or engine is finished
when it passes `bayesfs.testing.ModelContract` or `bayesfs.testing.EngineContract`. Models and
engines know each other only through this module.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesfs.errors import InferenceError
from bayesfs.types.labels import CONDITIONS

if TYPE_CHECKING:
    from torch import Tensor

    from bayesfs.types import Embeddings, EpisodeBatch, Posterior, Predictive

Progress = Callable[[int, int, str], None]
"""Callback (done, total, message) that engines call now and then; the command shows a bar."""

TaskNormal = Callable[[tuple[int, ...], "Tensor"], "Tensor"]
"""(shape, like) -> (task, *shape) standard normal numbers, each task's from a stream of its own."""

Lift = Callable[[Mapping[str, "Tensor"], TaskNormal], dict[str, "Tensor"]]
"""Draws of the smaller model -> draws of the full one."""


@runtime_checkable
class Model(Protocol):
    """A Pyro program over the support of a batch of tasks, and its label likelihood.

    `dims` maps every latent site to its axes; an event axis over the classes is called "logit".
    Sites without "task" are population sites. Inside
    the program, the plates are named as the axes are ("task", "way", "shot", "frame"); "task" is
    the outermost. The query never enters the program.
    """

    @property
    @abstractmethod
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes, such as {"class_mean": ("task", "way", "feature")}."""

    @abstractmethod
    def __call__(self, episodes: EpisodeBatch) -> None:
        """Run the Pyro program: sample every site of `dims`, observe the support."""

    @abstractmethod
    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, frame, way): log p(y, x | theta_s) of each query frame.

        Up to a constant that depends on neither draw nor class. A discriminative model returns
        log p(y | x, theta_s), normalised over way. Padded classes get -inf.
        """

    @abstractmethod
    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, way): the same for a whole query video, its frames jointly."""

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the measured qualities that widen the frame noise; none by default."""
        return ()

    @property
    def coords(self) -> Mapping[str, tuple[str, ...]]:
        """Axis of the sites -> names of its places, for tables; others are numbered."""
        return {"condition": CONDITIONS, "covariate": self.covariates}

    def fit_to(self, spectrum: tuple[float, ...]) -> Self:
        """The same model for features whose sds over the train frames are `spectrum`.

        A study calls this with the spectrum of its projection, scikit-learn's estimator with that
        of the support. A model that does not scale its priors by the features returns itself.
        """
        return self

    def default_population(self, dim: int) -> Posterior | None:
        """One value of every population site for `dim` features, where none is learnt."""
        return None


@runtime_checkable
class Collapsible(Model, Protocol):
    """A model whose task level is integrated out of the labels, given the population.

    In closed form, or to an accuracy that the model states.
    """

    @property
    @abstractmethod
    def population_dims(self) -> Mapping[str, tuple[str, ...]]:
        """Population site -> axes."""

    @abstractmethod
    def sample_population(self, like: Tensor) -> Mapping[str, Tensor]:
        """Pyro program of the population sites; `like` (..., feature) gives size and dtype."""

    @abstractmethod
    def log_labels(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log p(y | x, support, population): (task, video, frame, way) and (task, video, way)."""

    def for_learning(self) -> Self:
        """The model that a population is learnt with: itself, or one with coarser integrals."""
        return self


@runtime_checkable
class Conjugate(Collapsible, Protocol):
    """A model whose task-level posterior and predictive are known exactly, given the population."""

    @abstractmethod
    def condition(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Posterior:
        """Exact posterior of the task-level sites, as independent draws of kind "exact"."""

    @abstractmethod
    def log_evidence(self, episodes: EpisodeBatch, population: Mapping[str, Tensor]) -> Tensor:
        """(task,): log p(support | population), every lower level integrated out."""

    @abstractmethod
    def predictive(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Predictive:
        """Closed-form predictive, with draws theta_s ~ p(theta | x, D) of equal weight."""


@runtime_checkable
class NamesClasses(Conjugate, Protocol):
    """A model whose classes mean the same in every task where they have the same name."""

    @abstractmethod
    def with_labels(self, labels: tuple[str, ...]) -> Self:
        """The model for a population that knows these names, its axis "class_name"."""

    @property
    @abstractmethod
    def scale_dims(self) -> Mapping[str, tuple[str, ...]]:
        """Population site -> axes, of those that are not known exactly given all tasks."""

    @abstractmethod
    def sample_scales(self, like: Tensor) -> Mapping[str, Tensor]:
        """Pyro program of these sites; `like` (..., feature) gives size and dtype."""

    @abstractmethod
    def log_evidence_together(self, episodes: EpisodeBatch, scales: Mapping[str, Tensor]) -> Tensor:
        """() log p(support of all tasks | scales), what names share integrated out."""

    @abstractmethod
    def pooled(
        self, episodes: EpisodeBatch, scales: Mapping[str, Tensor], *, seed: int
    ) -> dict[str, Tensor]:
        """Exact draws of the other population sites, one for each (draw, ...) of the scales."""


@runtime_checkable
class Approximable(Model, Protocol):
    """A model with an approximation of its task-level posterior, given the population."""

    @abstractmethod
    def approximate(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Posterior:
        """Independent draws of every site, `draws` for each population draw; kind "variational"."""


@runtime_checkable
class OpenSet(Collapsible, Protocol):
    """A model that knows the odds that a query shows none of the taught classes."""

    @abstractmethod
    def log_absent_odds(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log odds, given the support: (task, video, frame) and (task, video)."""

    def log_open_labels(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """`log_labels` and `log_absent_odds`, in one go where they have work in common."""
        labels = self.log_labels(episodes, population)
        return labels, self.log_absent_odds(episodes, population)


@runtime_checkable
class OpenSetDraws(Model, Protocol):
    """A model whose draws say of each frame how likely it is to show nothing taught."""

    @abstractmethod
    def log_absent_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, frame) log p(nothing taught is shown | x, theta_s)."""


@runtime_checkable
class Hierarchical(Model, Protocol):
    """A model that knows the expected label entropy as its levels become known."""

    @abstractmethod
    def level_entropies(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """For frames and videos: (stage, population draw, draw, task, video[, frame]) entropies.

        The stages are nothing but the data, then population, task, class and video known too, or,
        with one more, the population's scales before all of the population; the
        mean over draws is the expected entropy. That of the data, H[p] with p the mean of the p_b
        of each population draw, is the mean of -sum_y p_b(y) log p(y).
        """


@runtime_checkable
class HasClassMeans(Model, Protocol):
    """A model whose draws have a mean of each class, which its levels pull together."""

    @abstractmethod
    def class_means(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, way, feature) mean of each class, in the units of the support's features."""


@runtime_checkable
class Simulates(Collapsible, Protocol):
    """A model that simulates what further support videos would say of the queries."""

    @abstractmethod
    def labels_after_video(
        self,
        episodes: EpisodeBatch,
        population: Mapping[str, Tensor],
        *,
        condition: int,
        frames: int,
        draws: int,
        seed: int,
    ) -> tuple[Tensor, Tensor]:
        """Log label laws of each query after one more video of each class, given query and support.

        Returns:
            (draw, task, video, frame, new, way) of frames and (draw, task, video, new, way) of
            videos, with `new` the class of the further video.
        """

    @abstractmethod
    def labels_after_round(
        self,
        episodes: EpisodeBatch,
        population: Mapping[str, Tensor],
        *,
        count: Tensor,
        frames: int,
        draws: int,
        seed: int,
    ) -> tuple[Tensor, Tensor]:
        """The same after all of `count` (task, way, condition) further videos together.

        Returns:
            (draw, task, video, frame, way) of frames and (draw, task, video, way) of videos.
        """


@runtime_checkable
class Foresees(Collapsible, Protocol):
    """A model that knows what one more support video is worth without simulating it."""

    @abstractmethod
    def video_gain(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Tensor:
        """(task, video, way) expected fall of a query's entropy by one more video of each class."""


@runtime_checkable
class KnowsTypical(Model, Protocol):
    """A model that tests whether a query is like what was taught, with a known rate of errors."""

    @abstractmethod
    def typicality(self, episodes: EpisodeBatch, *, condition_known: bool = True) -> Tensor:
        """(task, video) p-values: below .05 for one video in twenty of those that show a class.

        Args:
            episodes: T tasks.
            condition_known: whether queries are in the recording condition that the batch says.
        """

    @abstractmethod
    def exchangeability(self, episodes: EpisodeBatch) -> Tensor:
        """(task,) p-values that the person's taught videos are like other people's; NaN unknown."""


@dataclass(frozen=True)
class LinearLogits:
    """A head given its population: logits that are linear in standard normal weights.

        logit_rk = exp(spread e) scaled_r . z_k + fixed_r . u_k,    e, z_k, u_k ~ N(0, I),

    with likelihood prod_r p(label_r | logits_r)^weight_r over the rows (support frames) of a task.

    Attributes:
        scaled: (task, row, p).
        fixed: (task, row, q); q may be 0.
        spread: of the log scale of a task; 0 fixes it.
        label: (task, row) class of each row.
        weight: (task, row) exponent; 0 for padding.
        exists: (task, way) bool.
        link: "softmax", or "one_vs_each": the product over c != y of sigmoid(logit_y - logit_c).
    """

    scaled: Tensor
    fixed: Tensor
    spread: float
    label: Tensor
    weight: Tensor
    exists: Tensor
    link: Literal["softmax", "one_vs_each"] = "softmax"


@runtime_checkable
class LinearHead(Model, Protocol):
    """A model that is conditionally Gaussian given Pólya-Gamma variables, for Gibbs sampling."""

    @abstractmethod
    def linear_logits(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> LinearLogits:
        """The task level of the model, given one value of every population site."""

    @abstractmethod
    def from_linear(
        self,
        e: Tensor,
        z: Tensor,
        u: Tensor,
        episodes: EpisodeBatch,
        normal: TaskNormal,
    ) -> dict[str, Tensor]:
        """Draws of every task-level site; sites outside the logits come from their prior.

        Args:
            e: (draw, task).
            z: (draw, task, way, p).
            u: (draw, task, way, q).
            episodes: T tasks.
            normal: numbers for sites that the logits do not hold.
        """


@runtime_checkable
class Reducible(Model, Protocol):
    """A model that knows which of its latents the support informs."""

    @abstractmethod
    def informed(
        self, episodes: EpisodeBatch, given: Posterior
    ) -> tuple[Model, EpisodeBatch, Posterior, Lift] | None:
        """(smaller model, its episodes, its population, map of its draws), or None."""


@runtime_checkable
class TakesScatter(Model, Protocol):
    """A model that asks how videos scatter about their object in other people's data."""

    @abstractmethod
    def with_scatter(self, scatter: Any) -> Model:
        """The model with other people's `bayesfs.models.similarity.heads.WithinScatter`."""

    @abstractmethod
    def with_scatters(self, scatters: Mapping[str, Any]) -> Model:
        """The model with one for each user, learnt without that user."""


@runtime_checkable
class TakesAxes(Model, Protocol):
    """A model that asks for principal axes of other people's frames, beside their features."""

    reduction: Any
    """What the axes are fitted by; `bayesfs.features.reduction.FeatureReduction`."""

    @abstractmethod
    def with_axes(self, axes: Any) -> Model:
        """The model with the axes of all people that were learnt from."""

    @abstractmethod
    def with_each_axes(self, axes: Any, own: Mapping[str, Any]) -> Model:
        """The same, with axes for each user that the user's own frames had no part in."""


ABILITIES: tuple[type, ...] = (
    Collapsible,
    Conjugate,
    NamesClasses,
    Approximable,
    OpenSet,
    OpenSetDraws,
    Hierarchical,
    HasClassMeans,
    Simulates,
    LinearHead,
    Reducible,
    TakesScatter,
    TakesAxes,
    Foresees,
    KnowsTypical,
)
"""Every ability that only some models have; docs/abilities.md shows which."""


@runtime_checkable
class Objective(Protocol):
    """What a population is learnt by: a model -> the program over its population sites."""

    needs_query: ClassVar[bool]
    """Whether it learns from few-shot tasks with labelled queries, or from the support alone."""

    def __call__(self, model: Any, /) -> Model:
        """The program; it says by its own error which ability of the model it needs."""
        ...


@runtime_checkable
class Engine(Protocol):
    """An inference algorithm: (model, support of a batch of tasks) -> Posterior."""

    requires: ClassVar[type[Any]] = Model
    """The ability that a model must have."""

    reference: ClassVar[bool] = False
    """Whether other engines are compared with this one."""

    @abstractmethod
    def infer(
        self,
        model: Model,
        episodes: EpisodeBatch,
        *,
        seed: int,
        given: Posterior | None = None,
        progress: Progress | None = None,
    ) -> Posterior:
        """Posterior of every site of the model, or of the rest when `given` holds the population.

        Args:
            model: the Pyro program.
            episodes: T tasks; only their support is used.
            seed: the same seed gives the same draws on a CPU.
            given: posterior whose population sites are conditioned on.
            progress: called now and then with (done, total, message); None for an engine that
                is done at once.
        """

    def check_model(self, model: Model) -> None:
        """Refuse a model that this engine cannot infer, before anything is learnt.

        Raises:
            InferenceError: the model lacks members of `requires`.
        """
        lacking = missing_members(model, self.requires)
        if lacking:
            raise InferenceError(
                f"{type(self).__name__} needs a model with the ability {self.requires.__name__} "
                f"(bayesfs.protocols), got {type(model).__name__}, which lacks "
                f"{', '.join(lacking)}; docs/abilities.md shows which engine fits which model"
            )

    def with_more_draws(self, factor: float, given: Posterior) -> Engine | None:
        """The engine with about so many times its draws, for one whose draws cost little.

        Args:
            factor: above 1.
            given: posterior of the population, of whose draws there are no more.

        Returns:
            Another engine; None where more draws are not to be had.
        """
        return None

    def stand_in(self) -> Engine | None:
        """An engine for plain programs that this one has no translation of; None if there is none.

        `bayesfs.inference.plain.infer` hands them over, and says so.
        """
        return None

    def closed_form(
        self, model: Model, given: Posterior
    ) -> tuple[Mapping[str, Tensor], int] | None:
        """How to integrate the labels instead of drawing the task level, for an exact engine.

        It stands beside `infer`: a subclass that overrides one overrides both.

        Returns:
            The population's draws to average over, and how many label draws for each; None for an
            engine whose draws are not of the exact posterior.
        """
        return None


@runtime_checkable
class Backbone(Protocol):
    """A frozen backbone: images -> features.

    One file each in `bayesfs.features.backbones`; `spec.backbone_of` makes the one that a person
    asks for, `bayesfs.testing.BackboneContract` checks one.
    """

    @property
    def name(self) -> str:
        """Tells weights, pooling, colours and pixels; features of other names are never mixed."""
        ...

    @property
    def dim(self) -> int:
        """Number of features."""
        ...

    @property
    def px(self) -> int:
        """Side of the square frames in pixels."""
        ...

    @property
    def batch(self) -> int:
        """Frames per pass through the backbone."""
        ...

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(frame, px, px, 3) uint8 -> (frame, feature) float32; several threads call it at once."""
        ...


@runtime_checkable
class TorchBackbone(Backbone, Protocol):
    """A backbone that is a torch network, so that it can be traced and exported."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each colour, in [0, 1]: taken off, before dividing by `std`."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Of each colour, in [0, 1]."""
        ...

    def forward(self, x: Tensor) -> Tensor:
        """(frame, 3, px, px) normalised -> (frame, feature)."""
        ...


@runtime_checkable
class NamesFrames(Backbone, Protocol):
    """A backbone that knows frames by their names: features that were made elsewhere."""

    def of_frames(self, paths: Sequence[str], numbers: Sequence[int]) -> NDArray[np.float32]:
        """(frame, feature) of frames: paths of them or their video files, and their numbers."""
        ...


@runtime_checkable
class Reduction(Protocol):
    """How many features a study keeps, and which."""

    def fit(self, embeddings: Embeddings) -> Any:
        """The `bayesfs.features.projection.Projection` of the frames of train users."""
        ...

    def cross_fit(self, embeddings: Embeddings, dim: int) -> Embeddings:
        """Every user's frames projected by what the other users' frames say."""
        ...


@runtime_checkable
class Evaluation(Protocol):
    """Which episodes to draw from which frames, and at how many shots to score them."""

    @property
    @abstractmethod
    def shots(self) -> tuple[int, ...]:
        """Numbers of support videos per class to evaluate."""

    @abstractmethod
    def train_episodes(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch:
        """Episodes of the train users from which the population is learnt."""

    @abstractmethod
    def test_episodes(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch:
        """Episodes to score; support holds max(shots) videos per class."""

    def train_tasks(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch | None:
        """Few-shot tasks of the train users with labelled queries, for `Objective.needs_query`."""
        return None

    def calibration_episodes(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch | None:
        """Tasks of the train users, drawn as those to score, for thresholds of decisions."""
        return None

    @property
    def train_split(self) -> str:
        """Split of the users that the population is learnt from."""
        return "train"

    @property
    def test_split(self) -> str:
        """Split of the users that are scored."""
        return "test"

    @property
    def frames_per_video(self) -> int | None:
        """Frames per support video; None takes all."""
        return 8

    @property
    def query_frames(self) -> int | None:
        """Frames per query video; None takes all."""
        return None


@dataclass(frozen=True)
class Decomposition:
    """One way to divide the predictive uncertainty of every query: a value, listed.

    Attributes:
        name: what it divides by, such as "level".
        requires: abilities that the model must have, all of them.
        compute: (model, population, episodes, predictive, seed=) -> Dataset over (task, video) or
            (task, video, frame), in nats, NaN for padding.

    `bayesfs.uncertainty.decompositions.DECOMPOSITIONS` lists the shipped ones; docs/
    new-decomposition.md adds one.
    """

    name: str
    requires: tuple[type, ...]
    compute: Callable[..., xr.Dataset]

    def __call__(
        self,
        model: Model,
        population: Posterior,
        episodes: EpisodeBatch,
        predictive: Predictive,
        *,
        seed: int,
    ) -> xr.Dataset | None:
        """The parts; None for a model that lacks an ability."""
        if not all(isinstance(model, ability) for ability in self.requires):
            return None
        return self.compute(model, population, episodes, predictive, seed=seed)


def no_context(view: Any) -> Mapping[str, Any]:
    """Nothing besides what every section reads."""
    return {}


@dataclass(frozen=True)
class ReportSection:
    """One section of the report: a value, listed.

    Attributes:
        name: anchor of the section in the page.
        title: in the contents.
        template: path of its Jinja templates without `.html.j2` and `.md.j2`, which both exist.
        requires: groups of the run's DataTree without which the section is left out.
        context: from the `bayesfs.report.view.ReportView` to the names that its templates read
            besides `view` and `data`.

    `bayesfs.report.sections.SECTIONS` lists the shipped ones; docs/new-report-section.md adds one.
    """

    name: str
    title: str
    template: Path
    requires: tuple[str, ...] = ()
    context: Callable[[Any], Mapping[str, Any]] = no_context

    def is_shown(self, tree: xr.DataTree) -> bool:
        """Whether the run has what the section requires."""
        return set(self.requires) <= set(tree.children)


def members(contract: type) -> tuple[str, ...]:
    """Names that a contract of this module asks for, its parents' included, sorted."""
    own = {
        name
        for parent in contract.__mro__
        if parent.__module__ == __name__
        for name in (*vars(parent), *vars(parent).get("__annotations__", ()))
    }
    return tuple(sorted(n for n in own if not n.startswith("_") or n == "__call__"))


def missing_members(value: object, contract: type) -> tuple[str, ...]:
    """Members of a contract that a value lacks; none where `isinstance(value, contract)`.

    Those without a default come first: where one of them is missing, only such are named.
    """
    lacking = tuple(name for name in members(contract) if not hasattr(value, name))
    required: frozenset[str] = getattr(contract, "__abstractmethods__", frozenset())
    return tuple(name for name in lacking if name in required) or lacking
