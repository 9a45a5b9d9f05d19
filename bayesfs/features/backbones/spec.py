"""From what a person types to a backbone, and from a backbone's name to the same again.

    SPEC = [multiscale+]KIND[:WHAT][,OPTION=VALUE]...

    multiscale+efficientnet-lite0            in the box: the frame and its middle, see `multiscale`
    efficientnet-lite0                       the whole frame alone, in half the time
    efficientnet-lite2                       stronger and slower, extra `lite2`
    timm:resnet18.a1_in1k                    weights from this machine or the hub, extra `timm`
    timm:resnet18,weights=FILE               of a file
    open_clip:ViT-B-32/laion2b_s34b_b79k     extra `open-clip`
    torch:my_nets:make                       a function of a module of one's own: code, and run
    onnx:net.onnx#output                     extra `onnx`
    features:FILE                            made elsewhere: npz, Zarr or parquet, by frames' names

with the options px=160, pool=gem3:centre0.125 (or cls, mean), weights=FILE, and for torch and onnx
mean=0.5;0.5;0.5 and std=0.5;0.5;0.5. Use `backbone_of(spec)`, and `remade(name)` for the name that
a store or a run keeps. This is the only place that knows what kinds there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch

from bayesfs.errors import DataError
from bayesfs.features.backbones.naming import (
    MULTISCALE,
    BackboneName,
    Normalisation,
    read_normalisation,
)
from bayesfs.features.backbones.pooling import Pooling
from bayesfs.protocols import Backbone

KINDS = (
    "efficientnet-lite0, efficientnet-lite2, timm:NAME, open_clip:NAME/WEIGHTS, "
    "torch:MODULE:FUNCTION, onnx:FILE or features:FILE; all but the last also after multiscale+"
)
"""What may stand before the options, in words."""

DEFAULT = "multiscale+efficientnet-lite0"
"""What commands take if nothing is asked for."""

OPTIONS = ("px", "pool", "weights", "mean", "std")

Device = torch.device | str | None


@dataclass(frozen=True)
class Spec:
    """What a person typed, read.

    Attributes:
        kind: such as "timm".
        what: the rest before the options.
        px: side of the frames; None as the backbone has it by default.
        pooling: of positions; None likewise.
        weights: file of the weights, in place of those that the name has.
        normalisation: mean and sd of the colours; None as the backbone has it.
        multiscale: whether frames are seen at two scales; px is then that of the larger.
    """

    kind: str
    what: str = ""
    px: int | None = None
    pooling: Pooling | None = None
    weights: Path | None = None
    normalisation: Normalisation | None = None
    multiscale: bool = False

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Read a SPEC.

        Raises:
            DataError: an option is unknown, or its value cannot be read.
        """
        first, *rest = text.removeprefix(MULTISCALE).split(",")
        kind, _, what = first.partition(":")
        options: dict[str, str] = {}
        for part in rest:
            name, equals, value = part.partition("=")
            if name not in OPTIONS or not equals or not value or name in options:
                raise DataError(
                    f"--backbone {text}: expected options {', '.join(f'{n}=' for n in OPTIONS)} "
                    f"after commas, once each, got {part!r}"
                )
            options[name] = value
        if "px" in options and not options["px"].isdecimal():
            raise DataError(
                f"--backbone {text}: expected a number of pixels, got {options['px']!r}"
            )
        return cls(
            kind,
            what,
            int(options["px"]) if "px" in options else None,
            Pooling.of_text(options["pool"]) if "pool" in options else None,
            Path(options["weights"]) if "weights" in options else None,
            _normalisation(text, options),
            text.startswith(MULTISCALE),
        )

    def refuse(self, *names: str) -> None:
        """Refuse options that this kind of backbone does not have.

        Raises:
            DataError: one is given.
        """
        values = dict(px=self.px, pool=self.pooling, weights=self.weights, mean=self.normalisation)
        given = [name for name in names if values[name] is not None]
        if given:
            raise DataError(f"--backbone {self.kind}: has no option {given[0]}=")


def _normalisation(text: str, options: Mapping[str, str]) -> Normalisation | None:
    if ("mean" in options) != ("std" in options):
        raise DataError(f"--backbone {text}: expected mean= and std= together")
    return read_normalisation(options["mean"], options["std"]) if "mean" in options else None


def backbone_of(spec: str | Spec, device: Device = None, *, px: int | None = None) -> Backbone:
    """The backbone that a person asked for.

    Args:
        spec: see the module.
        device: where it runs; the best there is by default.
        px: side of the frames, where the spec does not say.

    Raises:
        DataError: there is no such kind; or the backbone cannot be made, with the reason.
    """
    asked = Spec.of_text(spec) if isinstance(spec, str) else spec
    if px is not None:
        asked = replace(asked, px=asked.px or px)
    if asked.multiscale:
        return _at_two_scales(asked, device)
    match asked.kind:
        case "efficientnet-lite0" | "efficientnet-lite2":
            return _lite(asked, device)
        case "timm":
            from bayesfs.features.backbones.timm_models import TimmBackbone

            asked.refuse("mean")
            return TimmBackbone(
                asked.what, asked.px, device, pooling=asked.pooling, weights=asked.weights
            )
        case "open_clip":
            from bayesfs.features.backbones.open_clip_models import OpenClipBackbone

            asked.refuse("mean")
            return OpenClipBackbone(
                asked.what, asked.px, device, pooling=asked.pooling, weights=asked.weights
            )
        case "torch":
            from bayesfs.features.backbones.torch_module import own_network

            return own_network(
                asked.what,
                px=asked.px,
                pooling=asked.pooling,
                normalisation=asked.normalisation,
                weights=asked.weights,
                device=device,
            )
        case "onnx":
            from bayesfs.features.backbones.onnx_file import OnnxBackbone

            asked.refuse("weights")
            file, _, output = asked.what.partition("#")
            return OnnxBackbone(
                Path(file),
                output or None,
                px=asked.px,
                pooling=asked.pooling,
                normalisation=asked.normalisation,
                device=device,
            )
        case "features":
            from bayesfs.features.backbones.precomputed import PrecomputedFeatures

            asked.refuse("px", "pool", "weights", "mean")
            return PrecomputedFeatures(Path(asked.what))
    raise DataError(f"--backbone {asked.kind}: expected {KINDS}")


def _at_two_scales(asked: Spec, device: Device) -> Backbone:
    from bayesfs.features.backbones.multiscale import MultiScale
    from bayesfs.features.backbones.network import Network

    if asked.px is not None and (asked.px % 2 or asked.px < 64):
        raise DataError(
            f"--backbone {MULTISCALE}{asked.kind}: expected px to be even and at least 64, got "
            f"{asked.px}; a frame of so many pixels is seen as a whole and its middle, half as wide"
        )
    half = None if asked.px is None else asked.px // 2
    network = backbone_of(replace(asked, px=half, multiscale=False), device)
    if not isinstance(network, Network):
        raise DataError(
            f"--backbone {MULTISCALE}{asked.kind}: features made elsewhere are of one scale"
        )
    return MultiScale(network)


def _lite(asked: Spec, device: Device) -> Backbone:
    from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0
    from bayesfs.features.backbones.efficientnet_lite2 import EfficientNetLite2

    asked.refuse("weights", "mean")
    if asked.what:
        raise DataError(f"--backbone {asked.kind}:{asked.what}: expected {asked.kind} alone")
    made = {"efficientnet-lite0": EfficientNetLite0, "efficientnet-lite2": EfficientNetLite2}
    kind = made[asked.kind]
    if asked.pooling is None:
        return kind(asked.px, device)
    if asked.pooling.kind == "cls":
        asked.pooling.of_maps(torch.zeros(0))  # says why
    return kind(asked.px, device, power=asked.pooling.power, centre=asked.pooling.centre)


def remade(name: str, device: Device = None, spec: str | None = None) -> Backbone:
    """The backbone of that name, as a store or a run keeps it, and no other.

    Pixels, pooling and colours are those of the name. Without a spec no code but bayesfs's own and
    that of libraries is run: a network of one's own and files have to be named again.

    Args:
        name: of the backbone.
        device: where it runs; the best there is by default.
        spec: where its code or its weights are, such as "onnx:net.onnx".

    Raises:
        DataError: it cannot be made without a spec, which is then said; or what is made is another.
    """
    asked = None if spec is None else Spec.of_text(spec)
    if asked is None or asked.kind != "features":
        asked = _as_named(name, asked)
    made = backbone_of(asked, device)
    if made.name != name:
        raise DataError(
            f"the features are of the backbone {name!r}, {spec or 'what can be made here'} is "
            f"{made.name!r}; are the weights of another version, or is it another network?"
        )
    return made


def _as_named(name: str, spec: Spec | None) -> Spec:
    """The spec, of what a name says where it says nothing itself."""
    parts = BackboneName.of_text(name)
    asked = spec or _by_name_alone(name, parts)
    colours = parts.normalisation if asked.kind in ("torch", "onnx") else None
    return replace(
        asked,
        px=asked.px or parts.px,
        pooling=asked.pooling or parts.pooling,
        normalisation=asked.normalisation or colours,
        multiscale=parts.multiscale,
    )


def _by_name_alone(name: str, parts: BackboneName) -> Spec:
    """What makes the backbone without any file of a person's.

    Raises:
        DataError: nothing does; it says what to type.
    """
    kind, _, what = parts.source.partition(":")
    if kind in ("efficientnet-lite0", "efficientnet-lite2", "timm") or (
        kind == "open_clip" and "/" in what
    ):
        return Spec(kind, what)
    needs = {
        "open_clip": f"its weights: --backbone {parts.source},weights=FILE",
        "torch": f"its code, which is run only when you name it: --backbone {parts.source}",
        "onnx": f"its file: --backbone onnx:{what.partition('#')[0]}.onnx",
        "features": "features of these frames made elsewhere: --backbone features:FILE",
    }
    raise DataError(
        f"the features are of the backbone {name!r}, which cannot be made here without "
        + needs.get(kind, f"knowing it; expected {KINDS}")
    )
