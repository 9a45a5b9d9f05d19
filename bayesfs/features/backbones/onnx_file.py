"""A network in an ONNX file as a frozen backbone: `OnnxBackbone` (extra `onnx`)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesfs.errors import DataError
from bayesfs.features.backbones.naming import IMAGENET, BackboneName, Normalisation, file_digest
from bayesfs.features.backbones.network import GPU_BATCH, Network
from bayesfs.features.backbones.pooling import Pooling
from bayesfs.features.backbones.torch_module import PX


class OnnxBackbone(Network):
    """One output of an ONNX file, run by onnxruntime on the CPU or a CUDA GPU.

    Args:
        path: the file; its only input takes float32 (frame, 3, px, px).
        output: name of the output; the first by default.
        px: side of the frames; what the file says, else 224, by default.
        pooling: of tokens (those beyond the largest square, in front, are of the whole frame) or
            maps; None where the output is (frame, feature).
        normalisation: mean and sd of the colours; ImageNet's by default.
        device: "cpu" or "cuda"; the best that onnxruntime has by default.
        batch: frames per pass; as many as the file fixes, else as other networks.

    Raises:
        DataError: onnxruntime is not installed, has not this device, or cannot read the file; or
            it has no such output, or an input or output of another kind.
    """

    def __init__(
        self,
        path: Path,
        output: str | None = None,
        *,
        px: int | None = None,
        pooling: Pooling | None = None,
        normalisation: Normalisation | None = None,
        device: torch.device | str | None = None,
        batch: int | None = None,
    ) -> None:
        self._session, on_gpu = _opened(path, device)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        names = [one.name for one in outputs]
        shape = [n if isinstance(n, int) else None for n in inputs[0].shape]
        if len(inputs) != 1 or len(shape) != 4 or shape[1] not in (3, None):
            told = {one.name: one.shape for one in inputs}
            raise DataError(f"{path}: expected one input (frame, 3, px, px), got {told}")
        if output is not None and output not in names:
            raise DataError(f"{path}: has no output {output!r}; it has {names}")
        self._input, self._output = inputs[0].name, output or names[0]
        self._frames, fixed = shape[0], shape[2]
        if px is not None and fixed is not None and px != fixed:
            raise DataError(f"{path}: takes frames of {fixed} pixels only, got px={px}")
        self.mean, self.std = normalisation or IMAGENET
        self.pooling = pooling
        side = px or fixed or PX
        source = f"onnx:{path.stem}" + (f"#{output}" if output else "")
        weights = file_digest(path, *_beside(path))
        name = BackboneName(source, weights, pooling, (self.mean, self.std), side)
        at_once = self._frames or batch or (GPU_BATCH if on_gpu else None)
        super().__init__(name.text.removesuffix(f"@{side}px"), side, 0, "cpu", at_once)
        self.dim = self._probed(path)

    def forward(self, x: Tensor) -> Tensor:
        """(frame, 3, px, px) normalised -> (frame, feature)."""
        given = x.cpu().numpy()
        missing = (self._frames or len(given)) - len(given)
        if missing:
            given = np.concatenate([given, np.zeros((missing, *given.shape[1:]), given.dtype)])
        (output,) = self._session.run([self._output], {self._input: given})
        found = torch.from_numpy(np.asarray(output, np.float32))[: len(x)]
        return found if self.pooling is None else self.pooling(found)

    def _probed(self, path: Path) -> int:
        """Number of features, found with one frame."""
        try:
            given = self.forward(torch.zeros(1, 3, self.px, self.px))
        except DataError:
            raise
        except Exception as error:  # onnxruntime has many kinds
            raise DataError(
                f"{path}: fails on a frame of {self.px} pixels ({str(error)[:200]}); is it "
                "made for another px?"
            ) from error
        if given.ndim != 2:
            raise DataError(
                f"{path}: expected (frame, feature) from {self._output!r}, got "
                f"{tuple(given.shape)}; name another output (FILE#output), or pool its positions "
                "by choice: pool=cls, pool=mean or pool=gem3"
            )
        return int(given.shape[1])


def _opened(path: Path, device: torch.device | str | None) -> tuple[Any, bool]:
    """A session, and whether it is on a GPU; frames are handed to it from the CPU."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise DataError(f"{str(path)!r} needs onnxruntime: pip install 'bayesfs[onnx]'") from error
    there = runtime.get_available_providers()
    wanted = torch.device(device).type if device is not None else None
    on_gpu = "CUDAExecutionProvider" in there and wanted in (None, "cuda")
    if wanted not in (None, "cpu") and not on_gpu:
        raise DataError(f"--device {wanted}: this onnxruntime has {there} only")
    providers = (["CUDAExecutionProvider"] if on_gpu else []) + ["CPUExecutionProvider"]
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    if not path.is_file():
        raise DataError(f"{str(path)!r}: expected an ONNX file, found none")
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime has many kinds
        raise DataError(f"{str(path)!r}: no readable ONNX file ({str(error)[:200]})") from error
    return session, on_gpu


def _beside(path: Path) -> list[Path]:
    """Files of weights that large ONNX files have beside them, under their usual names."""
    named = (path.with_name(path.name + end) for end in (".data", "_data"))
    return [one for one in named if one.is_file()]
