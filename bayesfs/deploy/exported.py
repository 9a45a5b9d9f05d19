"""A taught head and its backbone as ONNX files: `write_onnx`.

The query's way through backbone, projection, model and decomposition is traced with what was taught
held fixed, so that all that depends on the support alone (Cholesky factors, regressions, weights of
draws) is in the file as numbers. What the file says is held against torch on other frames before
it is called written.
"""

from __future__ import annotations

import importlib
import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bayesfs.decisions.rules import Rules
from bayesfs.deploy import runner
from bayesfs.errors import DataError, InferenceError
from bayesfs.features.projection import Projection
from bayesfs.prediction import predict
from bayesfs.protocols import Foresees, KnowsTypical, Model, TorchBackbone
from bayesfs.types import CONDITIONS, EpisodeBatch, Posterior
from bayesfs.uncertainty.decompose import decompose_draws
from bayesfs.uncertainty.decompositions import foreseen_by_video

OPSET = 18

TOLERANCE = 1e-5
"""Largest difference from torch that is taken: of probabilities, nats, and shares of a feature."""

FEATURES = ("features",)

ANSWER = ("prob", "aleatoric", "epistemic", "typical")

GAIN = ("gain",)


@dataclass(frozen=True)
class TaughtTask:
    """What answers, with what was taught.

    Attributes:
        backbone: of the features.
        projection: from its features to the model's.
        model: as the study has it for the task.
        posterior: of the taught task.
        population: that it was given.
        task: the taught task, with any query.
        condition: that frames to answer for are recorded in.
        condition_known: whether they are; see `bayesfs.protocols.KnowsTypical`.
        seed: of the draws.
    """

    backbone: TorchBackbone
    projection: Projection
    model: Model
    posterior: Posterior
    population: Posterior
    task: EpisodeBatch
    condition: str
    condition_known: bool
    seed: int

    def asked(self, features: Tensor, mask: Tensor) -> EpisodeBatch:
        """The taught task, asked about (frame, input feature) features where (frame,) mask."""
        query = _projected(features.double(), self.projection, self.condition)
        return self.task.changed(
            query=query[None, None].to(self.task.query),
            query_mask=mask[None, None],
            query_frame=None,
            query_quality=None,  # a model that weighs frames by it draws for each query
        )


class BackboneNetwork(nn.Module):
    """Frames -> features.

    Args:
        taught: what answers.
    """

    def __init__(self, taught: TaughtTask) -> None:
        super().__init__()
        self.taught = taught

    def forward(self, images: Tensor) -> Tensor:
        """(frame, px, px, 3) uint8 -> (frame, input feature)."""
        backbone = self.taught.backbone
        mean, std = (255 * torch.tensor(v).view(3, 1, 1) for v in (backbone.mean, backbone.std))
        x = (images.permute(0, 3, 1, 2).float() - mean) / std
        return backbone.forward(x).float()


class HeadNetwork(nn.Module):
    """Features of the frames of one video -> what it shows.

    Args:
        taught: what answers.
    """

    def __init__(self, taught: TaughtTask) -> None:
        super().__init__()
        self.taught = taught

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """(frame, input feature) and (frame,) -> (way,), () nats, () nats and () p-value."""
        taught = self.taught
        asked = taught.asked(features, mask)
        found = predict(taught.model, taught.posterior, asked, given=taught.population).video
        _, aleatoric, epistemic = decompose_draws(found)
        typical = _telling(taught.model).typicality(asked, condition_known=taught.condition_known)
        return found.prob[0, 0], aleatoric[0, 0], epistemic[0, 0], typical[0, 0]


class GainNetwork(nn.Module):
    """Features of the frames of one video -> what one more video of each object would tell of it.

    Args:
        taught: what answers.
    """

    def __init__(self, taught: TaughtTask) -> None:
        super().__init__()
        self.taught = taught

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(frame, input feature) and (frame,) -> (way,) nats."""
        taught = self.taught
        asked = taught.asked(features, mask)
        model = _telling(taught.model)
        return foreseen_by_video(model, taught.population, asked, seed=taught.seed)[0, 0]


@runtime_checkable
class Telling(KnowsTypical, Foresees, Protocol):
    """A model that says what is like nothing taught, and what one more video is worth."""


def _telling(model: Model) -> Telling:
    """The model, if it can be exported.

    Raises:
        InferenceError: it cannot.
    """
    if not isinstance(model, Telling):
        raise InferenceError(
            f"{type(model).__name__} does not say what is like nothing taught, and what one more "
            "video is worth, without draws for each query; SimilarityPool and PoolWithHierarchy "
            "can be exported"
        )
    return model


def _projected(features: Tensor, projection: Projection, condition: str) -> Tensor:
    """As `Projection.of_features`, rounded to single precision as features are kept."""
    at = CONDITIONS.index(condition)
    unit = features / features.square().sum(1, keepdim=True).sqrt()
    z = unit - _double(projection.means[at])
    if projection.axes is not None:
        z = z @ _double(projection.axes)
    return (z / z.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)).float()


def _double(value: Any) -> Tensor:
    return torch.from_numpy(np.asarray(value, np.float64))


def write_onnx(
    taught: TaughtTask,
    folder: Path,
    *,
    frames: int,
    sampling: Mapping[str, Any],
    rules: Rules | None,
    quality: NDArray[np.float32],
    told: Sequence[str] = (),
) -> dict[str, float]:
    """Write `backbone.onnx`, `head.onnx` and `gain.onnx`, and what runs them.

    That is `taught.json`, `quality.npy` and `recognise.py`.

    Args:
        taught: what answers.
        folder: must not exist.
        frames: of a video that are answered for together, at most.
        sampling: which of them, as `bayesfs.features.decoding.sampling.Spread` has it.
        rules: thresholds learnt on other people, if any.
        quality: (frame, covariate) of what was taught, beside which a picture is dark or blurred.
        told: what is to be said of what was taught, line by line.

    Returns:
        Largest difference from torch of each output, on random frames, of any number of them.

    Raises:
        DataError: the folder exists, or the extra `onnx` is not installed.
        InferenceError: the backbone or the model does something with the query that ONNX has not,
            or the file says something else than torch.
    """
    if folder.exists():
        raise DataError(f"{str(folder)!r} exists already; choose another name")
    try:
        importlib.import_module("onnxruntime")
    except ImportError as error:
        raise DataError("expected onnxruntime: pip install 'bayesfs[onnx]'") from error
    _telling(taught.model)
    px = taught.backbone.px
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (max(frames, 2), px, px, 3), np.uint8))
    header = {
        "classes": [name for name in taught.task.classes[0] if name],
        "px": px,
        "frames": frames,
        "sampling": dict(sampling),
        "condition": taught.condition if taught.condition_known else "unknown",
        "rules": None if rules is None else rules.to_dict(),
        "backbone": taught.backbone.name,
        "told": [*told],
    }
    gaps = dict.fromkeys((*FEATURES, *ANSWER, *GAIN), 0.0)
    folder.mkdir(parents=True)
    try:
        backbone = BackboneNetwork(taught).eval()
        _trace(backbone, {"images": images}, folder / "backbone.onnx", FEATURES)
        _compare(backbone, [{"images": images}], folder / "backbone.onnx", FEATURES, gaps)
        with torch.no_grad():
            features = backbone(images)[:frames]
        asked = [
            {"features": features, "mask": torch.arange(frames) < count}
            for count in range(frames, 0, -1)
        ]
        for name, network, outputs in (
            ("head.onnx", HeadNetwork(taught).eval(), ANSWER),
            ("gain.onnx", GainNetwork(taught).eval(), GAIN),
        ):
            _trace(network, asked[0], folder / name, outputs)
            _compare(network, asked, folder / name, outputs, gaps)
        text = json.dumps(header, ensure_ascii=False, indent=1)
        (folder / "taught.json").write_text(f"{text}\n", encoding="utf-8")
        np.save(folder / "quality.npy", quality, allow_pickle=False)
        shutil.copyfile(Path(runner.__file__), folder / "recognise.py")
    except BaseException:
        shutil.rmtree(folder)
        raise
    return gaps


def _compare(
    network: nn.Module,
    asked: Sequence[Mapping[str, Tensor]],
    path: Path,
    names: Sequence[str],
    gaps: dict[str, float],
) -> None:
    """Note how far a file's answers are from torch's.

    Raises:
        InferenceError: too far.
    """
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(path)
    for inputs in asked:
        with torch.no_grad():
            out = network(*inputs.values())
        wanted = out if isinstance(out, tuple) else (out,)
        try:
            found = session.run(names, {name: value.numpy() for name, value in inputs.items()})
        except Exception as error:
            raise InferenceError(f"{path.name} cannot be run: {str(error)[:200]}") from error
        for name, a, b in zip(names, wanted, found, strict=True):
            gaps[name] = max(gaps[name], float(np.abs(a.numpy() - b).max()))
            if not gaps[name] <= TOLERANCE * max(1.0, float(a.abs().max())):
                raise InferenceError(
                    f"{path.name} differs from torch by {gaps[name]:.1e} in {name!r}: draws that "
                    "depend on the query, or what is computed outside torch, cannot be exported; "
                    "SimilarityPool and PoolWithHierarchy can"
                )


def _trace(
    network: nn.Module, inputs: Mapping[str, Tensor], path: Path, outputs: Sequence[str]
) -> None:
    """Trace, fold what does not depend on the query, and write.

    Raises:
        InferenceError: an operator has no counterpart in ONNX.
    """
    from torch.onnx import errors

    own = {"aten::mT": _transposed, "aten::copysign": _copysign, "aten::special_ndtr": _ndtr}
    for operator, symbolic in own.items():
        torch.onnx.register_custom_op_symbolic(operator, symbolic, OPSET)  # type: ignore[attr-defined,arg-type]
    axes = {name: {0: "frame"} for name in (*inputs, *outputs)} if "images" in inputs else None
    example = tuple(inputs.values())
    with warnings.catch_warnings(), torch.no_grad(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")  # shapes are constants, and meant to be
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        frozen = torch.jit.freeze(traced.eval())
        try:
            torch.onnx.export(
                frozen,
                example,
                str(path),
                dynamo=False,
                input_names=[*inputs],
                output_names=[*outputs],
                dynamic_axes=axes,
                opset_version=OPSET,
            )
        except errors.OnnxExporterError as error:
            raise InferenceError(
                f"the model's answer to a query has no counterpart in ONNX: {str(error)[:200]}"
            ) from error


def _ndtr(g: Any, x: Any) -> Any:
    """`torch.special.ndtr`: (1 + erf(x / sqrt 2)) / 2, whose erf is of single precision."""
    half = g.op("Constant", value_t=torch.tensor(0.5))
    scaled = g.op("Mul", g.op("Cast", x, to_i=1), g.op("Constant", value_t=torch.tensor(0.5**0.5)))
    value = g.op(
        "Mul", half, g.op("Add", g.op("Erf", scaled), g.op("Constant", value_t=torch.tensor(1.0)))
    )
    return g.op("CastLike", value, x)


def _transposed(g: Any, x: Any) -> Any:
    """`Tensor.mT` in ONNX."""
    order = [*range(x.type().dim())]
    order[-2:] = order[:-3:-1]
    return g.op("Transpose", x, perm_i=order)


def _copysign(g: Any, size: Any, sign: Any) -> Any:
    """`torch.copysign` in ONNX, but for negative zero."""
    positive = g.op("Abs", size)
    zero = g.op("CastLike", g.op("Constant", value_t=torch.tensor(0.0)), sign)
    return g.op("Where", g.op("Less", sign, zero), g.op("Neg", positive), positive)
