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
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bayesfs.deploy import runner
from bayesfs.errors import DataError, InferenceError
from bayesfs.features.projection import Projection
from bayesfs.prediction import predict
from bayesfs.protocols import Model, TorchBackbone
from bayesfs.types import CONDITIONS, EpisodeBatch, Posterior
from bayesfs.uncertainty.decompose import decompose_draws

OPSET = 18

TOLERANCE = 1e-5
"""Largest difference from torch that is taken: of probabilities, nats, and shares of a feature."""

FEATURES = ("features",)

ANSWER = ("prob", "aleatoric", "epistemic")


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
    """

    backbone: TorchBackbone
    projection: Projection
    model: Model
    posterior: Posterior
    population: Posterior
    task: EpisodeBatch
    condition: str


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

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(frame, input feature) -> (way,), () nats and () nats."""
        taught, task = self.taught, self.taught.task
        query = _projected(features.double(), taught.projection, taught.condition)
        shape = (1, 1, len(features))
        asked = task.changed(
            query=query[None, None].to(task.query),
            query_mask=torch.ones(shape, dtype=torch.bool),
            query_frame=None,
            query_quality=None,  # a model that weighs frames by it draws for each query
        )
        found = predict(taught.model, taught.posterior, asked, given=taught.population).video
        _, aleatoric, epistemic = decompose_draws(found)
        return found.prob[0, 0], aleatoric[0, 0], epistemic[0, 0]


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
    taught: TaughtTask, folder: Path, *, frames: int, least_in_set: float | None
) -> dict[str, float]:
    """Write `backbone.onnx`, a head for each number of frames, and what runs them.

    Their names are `head-N.onnx`, `taught.json` and `recognise.py`.

    Args:
        taught: what answers.
        folder: must not exist.
        frames: of a video that are answered for together, at most.
        least_in_set: probability that a class needs for the set; None names the likeliest until
            they have nine tenths together.

    Returns:
        Largest difference from torch of each output, on random frames.

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
    px = taught.backbone.px
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (max(frames, 2), px, px, 3), np.uint8))
    backbone, head = BackboneNetwork(taught).eval(), HeadNetwork(taught).eval()
    header = {
        "classes": [name for name in taught.task.classes[0] if name],
        "px": px,
        "frames": frames,
        "condition": taught.condition,
        "least_in_set": least_in_set,
        "backbone": taught.backbone.name,
    }
    gaps = dict.fromkeys((*FEATURES, *ANSWER), 0.0)
    folder.mkdir(parents=True)
    try:
        path = folder / "backbone.onnx"
        _trace(backbone, (images,), path, ("images",), FEATURES)
        with torch.no_grad():
            made = backbone(images)
        _compare(path, {"images": images}, FEATURES, (made,), gaps)
        for count in range(1, frames + 1):
            path = folder / f"head-{count}.onnx"
            _trace(head, (made[:count],), path, FEATURES, ANSWER)
            with torch.no_grad():
                wanted = head(made[-count:])
            _compare(path, {"features": made[-count:]}, ANSWER, wanted, gaps)
        text = json.dumps(header, ensure_ascii=False, indent=1)
        (folder / "taught.json").write_text(f"{text}\n", encoding="utf-8")
        shutil.copyfile(Path(runner.__file__), folder / "recognise.py")
    except BaseException:
        shutil.rmtree(folder)
        raise
    return gaps


def _compare(
    path: Path,
    inputs: Mapping[str, Tensor],
    names: Sequence[str],
    wanted: Sequence[Tensor],
    gaps: dict[str, float],
) -> None:
    """Note how far a file's answers are from torch's.

    Raises:
        InferenceError: too far.
    """
    onnxruntime: Any = importlib.import_module("onnxruntime")

    try:
        session = onnxruntime.InferenceSession(path)
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
    network: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Trace, fold what does not depend on the query, and write.

    Raises:
        InferenceError: an operator has no counterpart in ONNX.
    """
    from torch.onnx import errors

    own = {"aten::mT": _transposed, "aten::copysign": _copysign}
    for operator, symbolic in own.items():
        torch.onnx.register_custom_op_symbolic(operator, symbolic, OPSET)  # type: ignore[attr-defined,arg-type]
    axes = {name: {0: "frame"} for name in (*inputs, *outputs)} if "images" in inputs else None
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
