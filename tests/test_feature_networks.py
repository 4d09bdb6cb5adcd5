"""CLIP, DINOv2 and DreamSim as networks whose squared distance is 1 - cosine: against each package's own forward."""

import itertools
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.functional import to_pil_image, to_tensor

from divlens.diversity import FeatureSums
from divlens.errors import DivlensError
from divlens.metrics.networks import in_8_bits, network_by
from oracles import tiny_features

# Both sides are the same float32 network, in batches of other sizes: a few units in the last place of cosines near 1.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    return {
        "clip": tiny_features.clip(folder / "clip"),
        "dinov2": tiny_features.dinov2(folder / "dinov2"),
        "timm": tiny_features.dinov2_of_timm(folder / "timm"),
    }


@pytest.fixture(scope="module")
def pictures():
    """float32 (4, 3, 64, 64) in [0, 1]: real pictures."""
    with Image.open(Path(__file__).parent / "data" / "emoji8.png") as strip:
        pixels = to_tensor(strip.convert("RGB"))
    return pixels.reshape(3, 64, 8, 64).permute(2, 0, 1, 3)[::2].contiguous()


def mean_distance(name, pictures):
    with torch.inference_mode():
        return FeatureSums.of(network_by(name)(pictures)).mean_pairwise_distance()


def mean_of_pairs(features):
    pairs = itertools.combinations(features.double(), 2)
    return float(torch.stack([1 - F.cosine_similarity(a, b, 0) for a, b in pairs]).mean())


def own_features(kind, place, pictures):
    """As a user of the package would read the files of these pictures."""
    images = [to_pil_image(picture) for picture in in_8_bits(pictures)]
    if kind == "timm":
        import timm

        model = timm.create_model(f"local-dir:{place}", pretrained=True, num_classes=0).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))  # type: ignore[attr-defined]
        return torch.stack([model(transform(image)[None])[0] for image in images])
    from transformers import AutoImageProcessor, AutoModel

    pixels: Any = AutoImageProcessor.from_pretrained(place)(images=images, return_tensors="pt")["pixel_values"]
    model: Any = AutoModel.from_pretrained(place)
    return (model.get_image_features(pixels) if kind == "clip" else model(pixels)).pooler_output


@pytest.mark.parametrize("kind", ["clip", "dinov2", "timm"])
@torch.inference_mode()
def test_one_pass_gives_the_mean_over_pairs_of_the_packages_own_forward(kind, places, pictures):
    name = f"{'clip' if kind == 'clip' else 'dinov2'}:{places[kind]}"
    expected = mean_of_pairs(own_features(kind, places[kind], pictures))
    assert mean_distance(name, pictures) == pytest.approx(expected, abs=TOLERANCE)
    other = pictures.clone()
    other[1] = pictures[1].flip(0)  # red for blue
    assert abs(mean_distance(name, other) - expected) > 10 * TOLERANCE  # the control


def test_a_picture_has_the_features_of_its_file(places, pictures):
    """What 8 bits cannot tell apart is one picture; what they can is not."""
    network = network_by(f"clip:{places['clip']}")
    below = (in_8_bits(pictures).float() + 0.3) / 255
    assert torch.equal(network(pictures), network(below.clamp(0, 1)))
    assert not torch.equal(network(pictures), network((pictures + 2 / 255).clamp(0, 1)))


def test_weights_are_its_version(places, tmp_path):
    other = tiny_features.dinov2(tmp_path / "other", seed=1)
    networks: list[Any] = [network_by(f"dinov2:{place}") for place in (places["dinov2"], other)]
    versions = [network.version for network in networks]
    assert versions[0] != versions[1] and all(len(version) == 8 for version in versions)


class Embedder(torch.nn.Module):
    """Stands for the model of the package dreamsim: one batch of one picture of 224 pixels at a time, in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 5))

    def embed(self, picture):
        assert picture.shape == (1, 3, 224, 224) and picture.min() >= 0 and picture.max() <= 1
        return picture.mean((2, 3)) @ self.weight


def stand_in(model):
    def prepare(image):
        return to_tensor(image.convert("RGB").resize((224, 224)))[None]

    module: Any = ModuleType("dreamsim")
    module.asked = []
    module.dreamsim = lambda **options: (module.asked.append(options), (model, prepare))[1]
    return module


def test_dreamsim_is_asked_as_its_package_is(monkeypatch, pictures, tmp_path):
    model = Embedder()
    monkeypatch.setitem(sys.modules, "dreamsim", module := stand_in(model))
    name = f"dreamsim:{tmp_path}"
    found = mean_distance(name, pictures)
    assert module.asked == [{"pretrained": True, "device": "cpu", "cache_dir": str(tmp_path)}]
    expected = torch.cat([model.embed(F.interpolate(picture[None], (224, 224))) for picture in pictures])
    # The picture's mean, after Pillow's resizing in 8 bits: half a grey level of at most 0.5.
    assert found == pytest.approx(mean_of_pairs(expected.detach()), rel=0.02)


@pytest.mark.parametrize(
    ("name", "module", "said"),
    [
        ("dreamsim", "dreamsim", r"dreamsim needs dreamsim and torchvision .*pip install 'divlens\[dreamsim\]'"),
        ("dinov2:{timm}", "timm", r"needs timm and torchvision .*pip install 'divlens\[features\]'"),
        ("clip:{clip}", "transformers", r"needs transformers and torchvision .*pip install 'divlens\[features\]'"),
    ],
)
def test_a_missing_package_names_its_extra(name, module, said, monkeypatch, places):
    from divlens.metrics import clip, networks

    networks.loaded.cache_clear()
    clip.clip_of.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DivlensError, match=said) as caught:
        network_by(name.format(**places))
    assert "\n" not in str(caught.value)


def test_dreamsim_without_its_weights(monkeypatch, tmp_path):
    def fails(**options):
        raise ConnectionError("no route to host")

    monkeypatch.setitem(sys.modules, "dreamsim", SimpleNamespace(dreamsim=fails))  # type: ignore[arg-type]
    with pytest.raises(DivlensError, match=r"expects the weights of dreamsim in the folder .*got ConnectionError: no"):
        network_by(f"dreamsim:{tmp_path}/nothing")


def test_files_that_are_not_those_of_the_network(places, tmp_path):
    def changed(place, name, **fields):
        folder = tmp_path / name
        shutil.copytree(place, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | fields))
        return folder

    refused = {
        "clip": "clip expects a folder or a repository on the model hub after a colon, got 'clip'",
        f"clip:{tmp_path}": "lacks config.json, preprocessor_config.json",
        "clip:openai/clip-vit-base-patch16": "expected a folder, or a repository on the model hub, laid out as openai/",
        f"clip:{places['dinov2']}": "lacks tokenizer_config.json",
        f"clip:{changed(places['clip'], 'siglip', model_type='siglip')}": "model_type clip, got 'siglip'",
        f"clip:{changed(places['clip'], 'wide', projection_dim=13)}": "does not fit its network",
        f"dinov2:{places['clip']}": "model_type dinov2, or one of timm, got 'clip'",
        f"dinov2:{changed(places['timm'], 'vit', architecture='resnet18')}": "dinov2 in its name, got 'resnet18'",
        "dinov2:vit_small_patch14_dinov2.lvd142m": "cannot load 'timm/vit_small_patch14_dinov2.lvd142m'",
        "alexnet": "expected one of the networks stlpips, alex, vgg, got 'alexnet'",
    }
    for name, said in refused.items():
        with pytest.raises(DivlensError) as caught:
            network_by(name)
        assert said in str(caught.value) and "\n" not in str(caught.value)
