"""Networks and data sets as data: frozen, validated, with canonical JSON and a digest.  Imports no JAX.

Depth and width follow the experiments of Chen et al. (§5): ``depth`` is the number ``L`` of hidden layers
of width ``K``, so there are ``L + 1`` weight matrices.  Its Theorem 3 counts the matrices instead; `hdsgd.networks.
theorems` says so where it matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from hdsgd.checks import finite, whole
from hdsgd.errors import SpecificationError, choice
from hdsgd.networks.activations import ACTIVATIONS
from hdsgd.records import Record

__all__ = [
    "GPT",
    "LOSSES",
    "NETWORKS",
    "PARAMETRISATIONS",
    "Data",
    "FullyConnected",
    "LeNet",
    "Network",
    "ResNet",
    "count_parameters",
    "network_from_dict",
    "solve_width",
]

PARAMETRISATIONS = ("standard", "ntk", "unit")
LOSSES = ("square", "cross-entropy")
SOURCES = ("gaussian", "digits", "openml", "file", "text")
LABELS = ("auto", "classes", "parity", "values")
SAMPLINGS = ("without-replacement", "replacement", "epochs")
NORMALISATIONS = ("standardise", "centre", "unit", "none")


class Network(Record):
    """Base of the architectures; ``kind`` names them in JSON."""

    kind: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **super().to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Any:
        """Inverse of `to_dict`.

        Raises
        ------
        SpecificationError
            If the kind or a key is unknown (with the choices) or a value is invalid.
        """
        data = dict(data)
        kind = data.pop("kind", None)
        if cls is Network:
            return NETWORKS[choice("network kind", str(kind), NETWORKS)].from_dict(data)
        return super().from_dict(data)

    @property
    def label(self) -> str:
        """A short name for legends."""
        return self.kind


def network_from_dict(data: Mapping[str, Any]) -> Network:
    """The network that `Network.to_dict` described (its ``kind`` says which class)."""
    network: Network = Network.from_dict(data)
    return network


def network_title(data: Mapping[str, Any]) -> str:
    """A network that `Network.to_dict` described, in a few words: "L=3, K=256, tanh"."""
    label = network_from_dict(data).label
    return f"{label}, {data['activation']}" if data["kind"] == "fully-connected" else label


@dataclass(frozen=True)
class FullyConnected(Network):
    """``f(x) = W_{L+1} σ(W_L … σ(W_1 x))``, with ``L = depth`` hidden layers of ``K = width`` units.

    Parameters
    ----------
    depth : int
        Hidden layers ``L``; 0 is the linear model ``f(x) = W x``.
    width : int
        Units ``K`` of every hidden layer.
    activation : {"linear", "tanh", "softsign", "arctan", "relu"}
    parametrisation : {"standard", "ntk", "unit"}
        ``standard``: entries ``N(0, g/fan_in)``, used as they are.  ``ntk``: entries ``N(0, 1)``, each layer multiplied
        by ``sqrt(g/fan_in)`` (the saturation paper, §4, has ``g = 1``).  ``unit``: entries ``N(0, 1)`` and no factor
        (Chen et al.'s theorems).
    gain : float, optional
        ``g`` of the layers that follow an activation (the first layer has ``g = 1``).  By default that of the
        activation in the standard parametrisation (2 for ReLU), 1 otherwise.
    bias : bool
        Add biases, zero at the start.  None in both papers, and not counted in the width solver's budget.

    Raises
    ------
    SpecificationError
        If a name is unknown or a number out of range.
    """

    depth: int = 1
    width: int = 256
    activation: str = "relu"
    parametrisation: str = "standard"
    gain: float | None = None
    bias: bool = False
    kind: ClassVar[str] = "fully-connected"

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", whole("depth", self.depth, low=0, high=1000))
        object.__setattr__(self, "width", whole("width", self.width, low=1, high=10**6))
        ACTIVATIONS[self.activation]
        choice("parametrisation", self.parametrisation, PARAMETRISATIONS)
        if self.gain is not None:
            object.__setattr__(self, "gain", finite("gain", self.gain, low=0.0, open_low=True))
        if not isinstance(self.bias, bool):
            raise SpecificationError(f"bias must be true or false, not {self.bias!r}")

    @property
    def resolved_gain(self) -> float:
        """``g``, with the default filled in."""
        if self.gain is not None:
            return self.gain
        return ACTIVATIONS[self.activation].gain if self.parametrisation == "standard" else 1.0

    @property
    def label(self) -> str:
        return f"L={self.depth}, K={self.width}"


@dataclass(frozen=True)
class LeNet(Network):
    """Two 5×5 convolutions with 2×2 max pooling, then ``depth`` fully connected layers of ``width`` units.

    The defaults have 431 080 parameters on 28×28 images with ten classes (Chen et al., Table 1: 431k).  Images smaller
    than 16 pixels are convolved with zero padding, since nothing would be left of them.

    Parameters
    ----------
    depth, width : int
        Fully connected hidden layers ``L`` and their units ``K``.
    channels : (int, int)
        Filters of the two convolutions.
    activation : {"linear", "tanh", "softsign", "arctan", "relu"}
    """

    depth: int = 1
    width: int = 500
    channels: tuple[int, int] = (20, 50)
    activation: str = "relu"
    kind: ClassVar[str] = "lenet"

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", whole("depth", self.depth, low=0, high=1000))
        object.__setattr__(self, "width", whole("width", self.width, low=1, high=10**6))
        object.__setattr__(self, "channels", _whole_list("channels", self.channels, 2))
        ACTIVATIONS[self.activation]

    @property
    def label(self) -> str:
        return f"LeNet L={self.depth}, K={self.width}"


@dataclass(frozen=True)
class ResNet(Network):
    """Residual network of basic blocks (two 3×3 convolutions each), one entry of ``blocks`` per chunk.

    The first convolution is 3×3 with stride 1 (images of 32 pixels); every chunk after the first halves the image and
    doubles the filters.  ResNet-18 is ``(2, 2, 2, 2)``, ResNet-34 ``(3, 4, 6, 3)``.  ResNet-28 is ``(4, 4, 4)``: 6·4 +
    4 layers, counting as wide residual networks do (three chunks, 1×1 shortcuts included); the saturation paper does
    not give its blocks.  Group normalisation takes the place of batch normalisation, which would tie the examples of a
    batch together: then there would be no gradient of one example.

    Parameters
    ----------
    blocks : tuple of int
    channels : int
        Filters of the first chunk.
    depth, width : int
        Fully connected hidden layers after the pooling, and their units (Chen et al., Figure 3(f)).
    normalisation : {"group", "none"}
    groups : int
        Groups of the group normalisation (reduced to a divisor of the filters).
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    channels: int = 64
    depth: int = 0
    width: int = 256
    normalisation: str = "group"
    groups: int = 8
    kind: ClassVar[str] = "resnet"

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", _whole_list("blocks", self.blocks))
        object.__setattr__(self, "channels", whole("channels", self.channels, low=1, high=4096))
        object.__setattr__(self, "depth", whole("depth", self.depth, low=0, high=1000))
        object.__setattr__(self, "width", whole("width", self.width, low=1, high=10**6))
        choice("normalisation", self.normalisation, ("group", "none"))
        object.__setattr__(self, "groups", whole("groups", self.groups, low=1))

    @property
    def label(self) -> str:
        return f"ResNet {list(self.blocks)}×{self.channels}"


@dataclass(frozen=True)
class GPT(Network):
    """Character-level transformer of the saturation paper (§5): pre-norm blocks, causal attention, output tied to the
    embedding.

    No dropout and no biases; weights ``N(0, 0.02²)``, those that write to the residual stream
    ``N(0, 0.02²/(2·layers))``. An example is one window of ``context`` characters; its loss is the mean cross-entropy
    over the window.

    Parameters
    ----------
    layers, heads, channels, context : int
        Blocks; attention heads (a divisor of the channels); features; largest number of characters seen.
    """

    layers: int = 6
    heads: int = 6
    channels: int = 384
    context: int = 256
    kind: ClassVar[str] = "gpt"

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "channels", "context"):
            object.__setattr__(self, name, whole(name, getattr(self, name), low=1, high=65536))
        if self.channels % self.heads:
            raise SpecificationError(f"channels must be a multiple of heads, not {self.channels} and {self.heads}")

    @property
    def label(self) -> str:
        return f"GPT {self.layers}×{self.channels}"


NETWORKS: dict[str, type[Network]] = {cls.kind: cls for cls in (FullyConnected, LeNet, ResNet, GPT)}


def _whole_list(what: str, values: Any, length: int | None = None) -> tuple[int, ...]:
    try:
        result = tuple(whole(what, v, low=1, high=10**5) for v in values)
    except TypeError:
        raise SpecificationError(f"{what} must be a list of whole numbers, not {values!r}") from None
    if not result or (length is not None and len(result) != length):
        raise SpecificationError(f"{what} must be {length or 'one or more'} whole numbers, not {list(result)}")
    return result


@dataclass(frozen=True)
class Data(Record):
    """A data set.

    Parameters
    ----------
    source : {"gaussian", "digits", "openml", "file", "text"}
        Synthetic; scikit-learn's 1797 digits of 8×8; OpenML by name; a file from disk (IDX, NPZ, CSV); a text file,
        cut into windows of characters.
    name : str
        OpenML name (``mnist``, ``emnist``, ``cifar10``, ``svhn``, ``gisette`` are known, others are taken literally,
        ``name@version``), or the path of the file.  IDX: the image file, labels in `label_file`.
    label_file : str
        Second file of an IDX pair.
    n : int, optional
        Number of examples: drawn for ``gaussian`` (required there), otherwise a random subset (all by default).
    dim : int, optional
        Input dimension of ``gaussian``.
    outputs : int
        Outputs of the teacher of ``gaussian``.
    teacher : FullyConnected, optional
        Network that labels ``gaussian`` data (realisable labels); by default a linear one, ``N(0, 1/dim)``.
    noise : float
        Variance of the label noise of ``gaussian``.
    labels : {"auto", "classes", "parity", "values"}
        Class numbers; -1 and +1 for even and odd class numbers (one output); real values.  ``auto``: values for
        ``gaussian``, classes otherwise.
    normalise : {"standardise", "centre", "unit", "none"}
        Subtract the mean of all entries and divide by their standard deviation; subtract the mean of every feature and
        divide by the standard deviation of all entries; scale every row to norm ``sqrt(dim)``; or leave.  Not applied
        to ``gaussian`` and ``text``.
    context : int
        Window of ``text``.
    checksum : str
        Expected sha256 of the data (the file's, or of the arrays); empty: not checked.

    Raises
    ------
    SpecificationError
        If a name is unknown, a number out of range, or something the source needs is missing.
    """

    source: str = "digits"
    name: str = ""
    label_file: str = ""
    n: int | None = None
    dim: int | None = None
    outputs: int = 1
    teacher: FullyConnected | None = None
    noise: float = 0.0
    labels: str = "auto"
    normalise: str = "standardise"
    context: int = 256
    checksum: str = ""

    def __post_init__(self) -> None:
        choice("data source", self.source, SOURCES)
        choice("labels", self.labels, LABELS)
        choice("normalise", self.normalise, NORMALISATIONS)
        if self.n is not None:
            object.__setattr__(self, "n", whole("n", self.n, low=1))
        object.__setattr__(self, "outputs", whole("outputs", self.outputs, low=1))
        object.__setattr__(self, "noise", finite("noise", self.noise, low=0.0))
        object.__setattr__(self, "context", whole("context", self.context, low=1))
        if isinstance(self.teacher, Mapping):
            object.__setattr__(self, "teacher", network_from_dict(self.teacher))
        if self.teacher is not None and not isinstance(self.teacher, FullyConnected):
            raise SpecificationError(f"teacher must be a fully connected network, not {type(self.teacher).__name__}")
        if self.source == "gaussian":
            if self.n is None or self.dim is None:
                raise SpecificationError("gaussian data need n and dim (examples and input dimension)")
            object.__setattr__(self, "dim", whole("dim", self.dim, low=1))
            if self.labels not in ("auto", "values"):
                raise SpecificationError(f"gaussian data have real labels, not {self.labels!r}")
        else:
            defaults = {f.name: f.default for f in fields(self)}
            for name in ("dim", "teacher", "noise", "outputs"):
                if getattr(self, name) != defaults[name]:
                    raise SpecificationError(f"{name} belongs to gaussian data; this source is {self.source!r}")
            if self.source != "digits" and not self.name:
                raise SpecificationError(
                    f"{self.source} data need a name ({'path' if self.source != 'openml' else 'set'})"
                )


def count_parameters(depth: int, width: int, d_in: int, d_out: int) -> int:
    """Weights of a fully connected network: ``d_in K + (L-1) K² + K d_out`` (Chen et al., §5); L = 0: ``d_in d_out``"""
    return d_in * width + (depth - 1) * width**2 + width * d_out if depth else d_in * d_out


def solve_width(budget: int, depth: int, d_in: int, d_out: int) -> int:
    """Width ``K`` whose number of weights is nearest to the budget.

    Solves ``d_in K + (L-1) K² + K d_out = budget`` (Chen et al., §5) and rounds to the nearer whole number in weights.

    Parameters
    ----------
    budget : int
        Number of weights.
    depth : int
        Hidden layers ``L >= 1``.
    d_in, d_out : int

    Raises
    ------
    SpecificationError
        If even one unit per layer exceeds the budget by more than rounding would.
    """
    budget, depth = whole("budget", budget, low=1), whole("depth", depth, low=1)
    a, b = depth - 1, d_in + d_out
    # The form that stays accurate for a = 0 and for small a.
    root = 2.0 * budget / (b + math.sqrt(b * b + 4.0 * a * budget))
    if root < 1.0:
        least = count_parameters(depth, 1, d_in, d_out)
        raise SpecificationError(f"{depth} layers need at least {least} weights; the budget is {budget}")
    low = math.floor(root)
    return min((low, low + 1), key=lambda K: abs(count_parameters(depth, K, d_in, d_out) - budget))
