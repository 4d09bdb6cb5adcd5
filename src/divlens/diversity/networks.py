"""Networks whose feature vectors turn LPIPS into a squared Euclidean distance.

LPIPS (Zhang et al., 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", eq. 1) sums, over
the layers l of a network, mean over positions of sum_c w_lc (y_lc - y'_lc)^2, where y is a layer's output with unit
length over channels. With w >= 0 that is |g - g'|^2 for g = concatenation over l of sqrt(w_l / (H_l W_l)) y_l.

`stlpips` is the shift-tolerant AlexNet of Ghildyal & Liu (2022, "Shift-tolerant Perceptual Similarity Metric"). Its
weights come inside the wheel `stlpips_pytorch`, so it needs no download; only the weights are read, none of that
package's code is run.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from divlens.errors import DivlensError

NETWORKS = ("stlpips", "alex", "vgg")

_WEIGHTS_FILE = "weights/vST0.0/alex_shift_tolerant.pth"
_WEIGHTS_SHA256 = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"

# The same guard against a zero vector as in both reference packages; a smaller one would move parity for dark corners.
_EPSILON = 1e-10


class DiversityInputError(DivlensError, ValueError):
    """Bad input to a diversity measure. One line: what was expected and what came."""


class MissingPackageError(DivlensError, ImportError):
    """A network needs a package that is not installed. One line, with the command that installs it."""


def _reflected_blur(x: Float[Tensor, "batch c h w"], kernel: Float[Tensor, "c 1 3 3"]) -> Float[Tensor, "batch c i j"]:
    """Anti-aliased halving: pad by reflection with 2, blur with (1, 2, 1) / 4 on both axes, keep every second."""
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])


class BlurredConvolution(nn.Module):
    """An 11x11 convolution (stride 1, zero padding 2) and the anti-aliased halving after it, in one pass.

    Blurring is linear, so convolution and blur are one 13x13 convolution of stride 2, a quarter of the outputs: a third
    of the time. Only the reflection at the border needs care. Reflecting a symmetric blur repeats the neighbour
    (centres -1 and 1 see the same values), so the first row is a copy of the second. So is the last when the
    convolution's output has an odd size; when it is even, the last centre sits on the border itself, and its taps
    (1, 2, 1) fold into (2, 2).
    """

    def __init__(self, weight: Float[Tensor, "out c 11 11"], bias: Float[Tensor, " out"]) -> None:
        super().__init__()
        interior, border = (0.25, 0.5, 0.25), (0.5, 0.5)
        self.bias = nn.Buffer(bias.clone())
        self.interior = nn.Buffer(_blur_kernel(weight, interior, interior))
        self.bottom = nn.Buffer(_blur_kernel(weight, border, interior))
        self.right = nn.Buffer(_blur_kernel(weight, interior, border))
        self.corner = nn.Buffer(_blur_kernel(weight, border, border))

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch out i j"]:
        x = F.pad(x, (2, 2, 2, 2))
        even_height, even_width = x.shape[2] % 2 == 0, x.shape[3] % 2 == 0
        y = F.conv2d(x, self.interior, self.bias, stride=2)
        if even_width:
            y = torch.cat((y, F.conv2d(x[..., -12:], self.right, self.bias, stride=2)), dim=3)
        if even_height:
            last = F.conv2d(x[..., -12:, :], self.bottom, self.bias, stride=2)
            if even_width:
                last = torch.cat((last, F.conv2d(x[..., -12:, -12:], self.corner, self.bias)), dim=3)
            y = torch.cat((y, last), dim=2)
        return F.pad(y, (1, not even_width, 1, not even_height), mode="replicate")


def _blur_kernel(weight: Tensor, rows: Sequence[float], columns: Sequence[float]) -> Tensor:
    """The one kernel that equals `weight` followed by a sum of its outputs at neighbouring positions, weighted."""
    out, channels, height, width = weight.shape
    kernel = torch.zeros(out, channels, height + len(rows) - 1, width + len(columns) - 1, dtype=torch.float64)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            kernel[:, :, i : i + height, j : j + width] += row * column * weight.double()
    return kernel.float().contiguous(memory_format=torch.channels_last)


class ShiftTolerantAlexNet(nn.Module):
    """The five rectified convolutions of the shift-tolerant AlexNet (Ghildyal & Liu, 2022).

    Against AlexNet: the first convolution has stride 1, every downsampling blurs with a (1, 2, 1) filter first, and it
    pads by reflection. `state` holds the published tensors under their published names.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.first = BlurredConvolution(state["net.slice1.0.weight"], state["net.slice1.0.bias"])
        self.blur2 = nn.Buffer(state["net.slice2.4.filt"].clone())
        self.conv2 = _frozen_convolution(state, "net.slice2.5", padding=2)
        self.blur3 = nn.Buffer(state["net.slice3.8.filt"].clone())
        self.conv3 = _frozen_convolution(state, "net.slice3.9", padding=1)
        self.conv4 = _frozen_convolution(state, "net.slice4.11", padding=1)
        self.conv5 = _frozen_convolution(state, "net.slice5.13", padding=1)

    def forward(self, x: Float[Tensor, "batch 3 h w"]) -> tuple[Tensor, ...]:
        y1 = F.relu(self.first(x))
        y2 = F.relu(self.conv2(_reflected_blur(F.max_pool2d(y1, 3, stride=1), self.blur2)))
        y3 = F.relu(self.conv3(_reflected_blur(F.max_pool2d(y2, 3, stride=1), self.blur3)))
        y4 = F.relu(self.conv4(y3))
        y5 = F.relu(self.conv5(y4))
        return y1, y2, y3, y4, y5


def _frozen_convolution(state: Mapping[str, Tensor], name: str, padding: int) -> nn.Conv2d:
    weight = state[f"{name}.weight"]
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=padding)
    layer.load_state_dict({"weight": weight, "bias": state[f"{name}.bias"]})
    # Pictures travel channels last (about twice as fast on a CPU); weights in another layout are reordered every call.
    return layer.requires_grad_(False).to(memory_format=torch.channels_last)


class FeatureNetwork(nn.Module):
    """Images to LPIPS feature vectors g: the LPIPS of two images is |g - g'|^2.

    `backbone` maps normalised images (batch, 3, h, w) to one output (batch, c, h_l, w_l) a layer. `shift` and `scale`
    (3 channels each) normalise images in [-1, 1], as published. `weights` are the linear layers, one vector of c
    channels a layer. `smallest` is the smallest height and width, in pixels, that leaves no layer empty.

    Raises DiversityInputError when a linear weight is negative or NaN: then LPIPS is no squared distance.
    """

    def __init__(
        self, backbone: nn.Module, shift: Tensor, scale: Tensor, weights: Sequence[Tensor], *, smallest: int
    ) -> None:
        super().__init__()
        for layer, weight in enumerate(weights):
            if not bool((weight >= 0).all()):
                raise DiversityInputError(
                    f"expected linear weights of at least 0, got {float(weight.min()):g} in layer {layer}: "
                    "LPIPS is then not a squared distance"
                )
        self.backbone = backbone
        self.smallest = smallest
        # Images come in [0, 1]: (2 x - 1 - shift) / scale, as one product and one sum.
        self.gain = nn.Buffer((2 / scale).reshape(1, 3, 1, 1))
        self.offset = nn.Buffer((-(1 + shift) / scale).reshape(1, 3, 1, 1))
        self.roots = nn.ParameterList(
            nn.Parameter(weight.detach().reshape(-1).sqrt(), requires_grad=False) for weight in weights
        )

    @property
    def device(self) -> torch.device:
        return self.gain.device

    def check_size(self, images: Float[Tensor, "*leading 3 h w"], name: str = "images") -> None:
        """Raises DiversityInputError for images that would leave a layer empty; `name` is theirs in the message."""
        if images.numel() and min(images.shape[-2:]) < self.smallest:
            raise DiversityInputError(
                f"expected {name} of at least {self.smallest} x {self.smallest} pixels for this network, "
                f"got {images.shape[-2]} x {images.shape[-1]}"
            )

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch features"]:
        """Images in [0, 1] to feature vectors, with the layers in order and channels last within a layer."""
        normalised = images.contiguous(memory_format=torch.channels_last) * self.gain + self.offset
        parts = []
        for output, root in zip(self.backbone(normalised), self.roots, strict=True):
            y = output.permute(0, 2, 3, 1)
            length = torch.linalg.vector_norm(y, dim=3, keepdim=True)
            positions = y.shape[1] * y.shape[2]
            parts.append((y * (root * positions**-0.5 / (length + _EPSILON))).flatten(1))
        return torch.cat(parts, dim=1)


class PictureNetwork(Protocol):
    """Pictures in [0, 1] to features whose squared distance is what is measured: a `FeatureNetwork`, or another
    module."""

    @property
    def device(self) -> torch.device: ...

    def check_size(self, images: Tensor, name: str) -> None: ...

    def to(self, device: torch.device) -> PictureNetwork: ...

    def __call__(self, images: Tensor) -> Tensor: ...


def load_network(name: str = "stlpips") -> FeatureNetwork:
    """The network of a name, on the CPU, frozen.

    - "stlpips": shift-tolerant AlexNet (Ghildyal & Liu, 2022), the default; works offline, images of 21 pixels and up.
    - "alex", "vgg": the networks of the package `lpips`, version 0.1 (Zhang et al., 2018), images of 31 and 16 pixels
      and up; need the extra `divlens[lpips]`, and torchvision downloads the backbone's weights on first use.

    Raises DiversityInputError for another name or a weights file with unexpected contents, MissingPackageError (an
    ImportError) when a package is not installed.
    """
    if name == "stlpips":
        return _load_shift_tolerant(_weights_path())
    if name in NETWORKS:
        return adapt_lpips(_load_lpips(name))
    raise DiversityInputError(f"expected one of the networks {', '.join(NETWORKS)}, got {name!r}")


def _weights_path() -> Path:
    # find_spec of a top-level package finds its folder without running its code, which imports undeclared packages.
    spec = find_spec("stlpips_pytorch")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            "network 'stlpips' reads its weights from the package stlpips_pytorch, which is not installed: "
            "pip install stlpips_pytorch"
        )
    return Path(next(iter(spec.submodule_search_locations))) / _WEIGHTS_FILE


def _load_shift_tolerant(path: Path) -> FeatureNetwork:
    if not path.is_file():
        raise DiversityInputError(
            f"expected the weights of network 'stlpips' at {path}, found no file: reinstall stlpips_pytorch"
        )
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != _WEIGHTS_SHA256:
        raise DiversityInputError(
            f"expected sha256 {_WEIGHTS_SHA256} of {path.name}, got {digest}: reinstall stlpips_pytorch"
        )
    # The bytes that were verified are the bytes that are read. They were saved on a GPU, hence map_location.
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return FeatureNetwork(
        ShiftTolerantAlexNet(state),
        state["scaling_layer.shift"],
        state["scaling_layer.scale"],
        [state[f"lin{layer}.model.1.weight"] for layer in range(5)],
        smallest=21,
    )


def adapt_lpips(model: Any) -> FeatureNetwork:
    """An `lpips.LPIPS` (net "alex" or "vgg", version 0.1, with its linear layers) as a FeatureNetwork.

    The backbone is shared, not copied. Raises DiversityInputError for settings whose distance is another one.
    """
    smallest = {"alex": 31, "vgg": 16}.get(model.pnet_type)
    if smallest is None or model.version != "0.1" or not model.lpips or model.spatial:
        raise DiversityInputError(
            "expected lpips.LPIPS with net 'alex' or 'vgg', version '0.1', lpips=True, spatial=False, "
            f"got net {model.pnet_type!r}, version {model.version!r}, lpips={model.lpips}, spatial={model.spatial}"
        )
    scaling = model.scaling_layer
    weights = [linear.model[-1].weight for linear in model.lins]
    return FeatureNetwork(model.net, scaling.shift, scaling.scale, weights, smallest=smallest)


def _load_lpips(name: str) -> Any:
    try:
        import lpips
    except ImportError as error:
        raise MissingPackageError(
            f"network {name!r} needs the package lpips ({error}): pip install 'divlens[lpips]'"
        ) from error
    with warnings.catch_warnings():
        # The package still asks torchvision for `pretrained=True`, deprecated; the user can do nothing about it.
        warnings.simplefilter("ignore", UserWarning)
        try:
            return lpips.LPIPS(net=name, verbose=False)
        except OSError as error:  # urllib's errors are OSErrors
            raise MissingPackageError(
                f"network {name!r} needs backbone weights that could not be downloaded ({error}); "
                "the default, stlpips, works offline"
            ) from error
