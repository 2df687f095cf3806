"""Models of Keras: as torch computes them, by Keras itself with torch as its backend; hostile files are refused.

The tests that run Keras need the package `keras`, which the extra `test` installs. The dialect of Keras 2, which needs
TensorFlow, is written here by hand.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import vggscope
from tests.counting import growth
from tests.evaluate import outputs_of
from tests.peak_memory import RESOLVING
from tests.test_hdf5 import h5, keras3_arrays, keras_arrays
from tests.test_other_weights import model
from vggscope.checkpoint.data import open_tensors
from vggscope.checkpoint.load_weights import load_weights
from vggscope.errors import CheckpointError, ModelError, OptionError, ShapeError
from vggscope.graph import Network

__all__ = ["model"]  # the fixture of the small VGG

needs_keras = pytest.mark.skipif(find_spec("keras") is None, reason="pip install keras")

Entry = dict[str, Any]

DTYPE = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}


def layer(kind: str, name: str, dialect: int = 3, **settings: Any) -> Entry:
    """The entry of a layer in a configuration."""
    own = {"name": name, "trainable": True, "dtype": DTYPE if dialect == 3 else "float32", **settings}
    return {"class_name": kind, "config": own}


def given(name: str, shape: Sequence[int | None], dialect: int = 3) -> Entry:
    key = "batch_shape" if dialect == 3 else "batch_input_shape"
    return {"class_name": "InputLayer", "config": {key: [None, *shape], "dtype": "float32", "name": name}}


def sequential(*layers: Entry, name: str = "net") -> Entry:
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def called(entry: Entry, *sources: str, dialect: int = 3) -> Entry:
    """A layer of a functional model, called once on those layers."""
    if dialect == 3:
        tensors = [
            {"class_name": "__keras_tensor__", "config": {"shape": None, "keras_history": [one, 0, 0]}}
            for one in sources
        ]
        nodes: list[Any] = [{"args": [tensors] if len(tensors) > 1 else tensors, "kwargs": {}}] if sources else []
    else:
        nodes = [[[one, 0, 0, {}] for one in sources]] if sources else []
    return {**entry, "name": entry["config"]["name"], "inbound_nodes": nodes}


def functional(layers: Sequence[Entry], inputs: Sequence[str], outputs: Sequence[str]) -> Entry:
    ends = {"input_layers": [[one, 0, 0] for one in inputs], "output_layers": [[one, 0, 0] for one in outputs]}
    return {"class_name": "Functional", "config": {"name": "net", "layers": list(layers), **ends}}


def written(folder: Path, config: Entry | bytes, name: str = "x.keras") -> str:
    """The path of a file with a configuration and no weights."""
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    path = folder / name
    if name.endswith(".keras"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", text)
    else:
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = text if b"\0" not in text else np.bytes_(text)
    return str(path)


def network_of(folder: Path, config: Entry, **options: Any) -> Network:
    """The Network of a configuration, which is the same in both kinds of files."""
    network = vggscope.network(written(folder, config), **options)
    assert vggscope.network(written(folder, config, "x.h5"), **options).nodes == network.nodes
    return network


# Keras itself

MODELS = """
import keras
from keras import Input, Model, Sequential, layers as L

def models():
    conv = lambda width: L.Conv2D(width, 3, padding="same", activation="relu")
    yield "vgg", Sequential([Input((28, 28, 3)), conv(8), conv(8), L.MaxPooling2D(), conv(16), conv(16),
        L.MaxPooling2D(), L.Flatten(), L.Dense(16, activation="relu"), L.Dropout(0.5),
        L.Dense(10, activation="softmax")])
    yield "same", Sequential([Input((28, 31, 3)), L.Conv2D(8, 3, strides=2, padding="same"), L.BatchNormalization(),
        L.ReLU(6.0), L.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2, use_bias=False),
        L.BatchNormalization(scale=False), L.LeakyReLU(), L.SeparableConv2D(7, 5, padding="same", strides=2),
        L.MaxPooling2D(3, strides=2, padding="same"), L.GlobalAveragePooling2D(), L.Dense(3, activation="sigmoid")])
    yield "maps", Sequential([Input((29, 30, 3)), L.ZeroPadding2D(((1, 2), (0, 3))),
        L.AveragePooling2D(2, padding="same"), L.MaxPooling2D((3, 2), strides=(2, 3), padding="same"),
        L.AveragePooling2D(3, strides=1, padding="same"),
        L.Cropping2D(((1, 0), (0, 2))), L.UpSampling2D(2, interpolation="bilinear"), L.UpSampling2D((2, 1)),
        L.Conv2DTranspose(5, 3, strides=2, padding="same"), L.Conv2DTranspose(4, 4, strides=2, padding="same"),
        L.Conv2DTranspose(4, 2, strides=3), L.PReLU(shared_axes=[1, 2]), L.GlobalMaxPooling2D(keepdims=True),
        L.Flatten(), L.Dense(2)])
    i = Input((8, 8, 3))
    x = L.Conv2D(4, 3, padding="same", activation="gelu")(i)
    y = L.Add()([x, x])
    z = L.Concatenate()([y * 2.0 + x, x])
    z = 1.0 - L.Average()([L.Multiply()([z, z]), z, z])
    shared, flat = L.Dense(3), L.BatchNormalization()(L.Flatten()(z))
    yield "branches", Model(i, [shared(L.GlobalAveragePooling2D()(z)), shared(L.GlobalMaxPooling2D()(z)),
        L.Dense(2, activation="softmax")(L.Concatenate()([flat, flat])), L.Maximum()([x, y])])
    base = Sequential([Input((8, 8, 3)), L.Conv2D(4, 3)], name="base")
    yield "nested", Sequential([Input((8, 8, 3)), L.Rescaling(1 / 127.5, -1), base, L.SpatialDropout2D(0.2),
        L.Reshape((12, 12)), L.LayerNormalization(), L.Permute((2, 1)), L.Dense(3), L.Flatten(), L.Dense(2)])
    yield "sequence", Sequential([Input((32, 6)), L.Conv1D(8, 3, padding="causal", dilation_rate=2),
        L.Activation("tanh"), L.MaxPooling1D(2, padding="same"), L.Conv1D(8, 4, padding="same", strides=2, groups=2),
        L.Dense(4), L.Conv1D(4, 1), L.GlobalAveragePooling1D(), L.Dense(2, activation="hard_sigmoid")])
    i = Input((6, 6, 8))
    gate = L.Conv2D(8, 1, activation="sigmoid")(L.Reshape((1, 1, 8))(L.GlobalAveragePooling2D()(i)))
    yield "gate", Model(i, L.Conv2D(3, 1)(L.Multiply()([i, gate])))
    yield "flat", Sequential([Input((4, 5, 3)), L.Conv2D(4, 1), L.Flatten(), L.ReLU()])
    yield "map", Sequential([Input((4, 5, 3)), L.Conv2D(4, 1), L.Flatten(), L.Reshape((5, 4, 4)),
        L.Activation("softmax")])
    first = {"data_format": "channels_first"}
    yield "first", Sequential([Input((3, 12, 12)), L.Conv2D(8, 3, padding="same", strides=2, **first),
        L.BatchNormalization(axis=1), L.MaxPooling2D(2, **first), L.Flatten(**first), L.Dense(4)])
    yield "volume", Sequential([Input((6, 7, 8, 2)), L.Conv3D(3, 3, padding="same", strides=2),
        L.MaxPooling3D(2, padding="same"), L.Flatten(), L.Dense(2)])
    yield "oblong", Sequential([Input((12, 10, 3)), L.SeparableConv2D(9, 3, depth_multiplier=2, name="sep"),
        L.DepthwiseConv2D(3, depth_multiplier=2, name="dw"), L.MaxPooling2D(), L.Flatten(),
        L.BatchNormalization(name="norm"), L.Dense(7, name="fc"), L.Dense(3, name="out")])
    i = Input((6, 4, 3))
    x, y = L.Conv2D(4, 3, name="one")(i), L.Conv2D(4, 3, name="two")(i)
    flat = L.Flatten()(x)
    points = [L.GlobalAveragePooling2D()(x), L.GlobalMaxPooling2D()(x), L.GlobalAveragePooling2D()(y)]
    yield "accident", Model(i, [L.Dense(2, name="square")(L.Concatenate()([*points, L.GlobalMaxPooling2D()(y)])),
        L.Dense(2, name="mixed")(L.Concatenate()([flat, points[0]]))])
    yield "mobile", keras.applications.MobileNet(weights=None, input_shape=(65, 66, 3), classes=5, alpha=0.25)
"""

WRITER = f"""
import os, sys
import numpy as np
{MODELS}
keras.utils.set_random_seed(0)
folder = sys.argv[1]
for name, model in models():
    for weight in model.weights:
        low = 0.2 if weight.name in ("moving_variance", "gamma") else -0.3
        weight.assign(np.random.uniform(low, low + 0.6, weight.shape))
    x = np.random.uniform(0, 1, (1, *model.input_shape[1:])).astype("float32")
    y = model(x, training=False)
    outputs = [each.detach().cpu().numpy() for each in (y if isinstance(y, list) else [y])]
    model.save(f"{{folder}}/{{name}}.keras")
    model.save(f"{{folder}}/{{name}}.h5")
    names = {{}}
    def walk(part, prefix):
        for one in part.layers:
            if hasattr(one, "layers"):
                walk(one, prefix + one.name + ".")
            for weight in one.weights if not hasattr(one, "layers") else ():
                kind = type(one).__name__
                prefixed = {{"SeparableConv2D": ("bias", "pointwise_bias"), "DepthwiseConv2D": ("kernel", "depthwise")}}
                own, other = prefixed.get(kind, ("", ""))
                leaf = other if weight.name == own else weight.name
                names[f"w:{{prefix}}{{one.name}}|{{leaf}}"] = weight.value.detach().cpu().numpy()
    walk(model, "")
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    names.update({{f"y{{i}}": v for i, v in enumerate(outputs)}})
    np.savez(f"{{folder}}/{{name}}.npz", x=x, trained=trained, **names)
"""

COUNTED = """
i = Input((12,), dtype="int32")
x = L.GRU(4, return_sequences=True)(L.LSTM(5, return_sequences=True)(L.Embedding(50, 6)(i)))
x = L.SimpleRNN(3, return_sequences=True, use_bias=False)(L.GRU(3, return_sequences=True, reset_after=False)(x))
b = L.Bidirectional(L.LSTM(2, return_sequences=True))(L.RepeatVector(3)(L.Flatten()(x)))
b = L.MultiHeadAttention(2, 3, value_dim=2)(b, L.Bidirectional(L.GRU(5, return_sequences=True), merge_mode="sum")(b))
b = L.TimeDistributed(L.Dense(2), name="apart")(L.GroupNormalization(2)(b))
model = Model(i, L.Dense(2)(b))
model.save(f"{folder}/counted.keras")
model.save(f"{folder}/counted.h5")
np.savez(f"{folder}/counted.npz", **{layer.name: layer.count_params() for layer in model.layers})
norms = [L.BatchNormalization(scale=scale, center=center) for scale in (0, 1) for center in (0, 1)]
norms = keras.Sequential([Input((4, 4, 3)), L.Conv2D(5, 3, use_bias=False), *norms])
norms.save(f"{folder}/norms.keras")
counts = [sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights) for layer in norms.layers]
np.savez(f"{folder}/norms.npz", counts=counts)
convs = lambda: keras.Sequential([Input((4, 4, 3)), *(L.Conv2D(3, 1) for _ in range(4))])
keras.utils.clear_session()
once = convs()
keras.utils.clear_session()
L.Conv2D(3, 1)
again = convs()
again.set_weights(once.get_weights())
once.save(f"{folder}/once.keras")
again.save(f"{folder}/again.keras")
"""

WRITER += COUNTED

NAMES = (
    "vgg",
    "same",
    "maps",
    "branches",
    "nested",
    "sequence",
    "gate",
    "flat",
    "map",
    "first",
    "volume",
    "oblong",
    "accident",
    "mobile",
)


@pytest.fixture(scope="module")
def by_keras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Keras's files of each model, its weights, an input and its outputs."""
    folder = tmp_path_factory.mktemp("keras")
    environment = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def in_torch(arrays: Mapping[str, np.ndarray[Any, Any]], network: Network) -> dict[str, torch.Tensor]:
    """The weights as the Network's warnings say that they are permuted, and the statistics of norms."""
    notes = [note for note in network.warnings if "reads a flattened map" in note]
    reordered = {note.split(" reads a flattened map")[0]: note.partition("kernel.")[2] for note in notes}
    state = {}
    for key, value in arrays.items():
        if not key.startswith("w:"):
            continue
        path, leaf = key[2:].split("|")
        if leaf == "kernel" and value.ndim == 2:
            values = eval(f"kernel.{reordered.get(path, 'T')}", {"kernel": value})  # what the note says, as it is
        elif leaf in ("depthwise", "depthwise_kernel"):
            values = value.transpose(2, 3, 0, 1).reshape(-1, 1, *value.shape[:2])
        elif leaf in ("kernel", "pointwise_kernel"):
            values = value.transpose(value.ndim - 1, value.ndim - 2, *range(value.ndim - 2))
        else:
            values = value
        ends = {"kernel": "weight", "depthwise": "weight", "gamma": "weight", "alpha": "weight", "beta": "bias"}
        ends |= {"depthwise_kernel": "depthwise.weight", "pointwise_kernel": "pointwise.weight"}
        ends |= {"pointwise_bias": "pointwise.bias"}
        ends |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
        state[f"{path}.{ends.get(leaf, leaf)}"] = torch.tensor(np.ascontiguousarray(values))
    return state


@needs_keras
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_network_computes_what_keras_computes(by_keras: Path, name: str) -> None:
    network = vggscope.network(str(by_keras / f"{name}.keras"), soft_max=True)
    assert network.failure is None
    arrays = dict(np.load(by_keras / f"{name}.npz"))
    x, is_first = torch.tensor(arrays["x"]), name == "first"
    if tuple(x.shape) != network.input_shape or (x.ndim > 2 and not is_first):
        x = x.movedim(-1, 1)
    assert tuple(x.shape) == network.input_shape
    outputs = outputs_of(network, in_torch(arrays, network), x)
    expected = [torch.tensor(arrays[key]) for key in arrays if key.startswith("y")]
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected):
        torch.testing.assert_close(
            ours.movedim(1, -1) if ours.ndim == 4 and name != "map" else ours, theirs, atol=1e-5, rtol=1e-5
        )
    assert vggscope.summary(network).totals.trainable_params == arrays["trained"]
    old = vggscope.network(str(by_keras / f"{name}.h5"), soft_max=True)
    assert vggscope.diff(old, network).verdict == "identical"


@needs_keras
@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("name", ["vgg", "first"])
def test_built_weights_compute_what_keras_computes(by_keras: Path, name: str, suffix: str) -> None:
    columns = {"vgg": "conv3-8 conv3-8 maxpool conv3-16 conv3-16 maxpool FC-16 FC-10"}
    arrays = dict(np.load(by_keras / f"{name}.npz"))
    path = str(by_keras / f"{name}.{suffix}")
    network = vggscope.network(path)
    if name in columns:
        model = vggscope.build(columns[name], (3, 28, 28), head="flatten", weights=path).eval()
        x = torch.tensor(arrays["x"]).movedim(-1, 1)
        expected = torch.tensor(arrays["y0"])
        with torch.no_grad():
            torch.testing.assert_close(model(x).softmax(1), expected, atol=1e-5, rtol=1e-5)
            own = vggscope.build(path, weights=path).eval()  # what `inspect` prints
            torch.testing.assert_close(own(x).softmax(1), expected, atol=1e-5, rtol=1e-5)
        assert vggscope.diff(network, columns[name], head="flatten").verdict == "equivalent"
        return
    # The kernels of the linear layer are those of a map that Keras flattens pixel by pixel, also with channels first.
    expected = in_torch(arrays, network)
    found = next(key for key in expected if key.startswith("dense") and key.endswith(".weight"))
    with open_tensors(path) as file:
        (own,) = (t for t in file.checkpoint.tensors if t.shape == tuple(expected[found].shape))
        np.testing.assert_array_equal(file.whole(own), expected[found].numpy())


def without_stated_names(archive: Path, path: Path) -> Path:
    """A copy of an archive whose groups of weights do not state the names of their layers, as older ones."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        source.extract("model.weights.h5", path.parent)
        with h5py.File(path.parent / "model.weights.h5", "r+") as weights:
            weights.visititems(lambda _, entry: entry.attrs.pop("name", None))
        target.write(path.parent / "model.weights.h5", "model.weights.h5")
        target.writestr("config.json", source.read("config.json"))
    return path


@needs_keras
@pytest.mark.parametrize(("name", "is_stated"), [*product(NAMES, (True, False)), ("counted", True)])
def test_both_formats_of_keras_hold_the_same_layers(
    by_keras: Path, tmp_path: Path, name: str, *, is_stated: bool
) -> None:
    """A configuration alone does not name the cells of recurrent layers, which `counted` has."""
    archive, old = by_keras / f"{name}.keras", by_keras / f"{name}.h5"
    path = archive if is_stated else without_stated_names(archive, tmp_path / "x.keras")
    found = vggscope.values(path, old)
    assert {tensor.relation for tensor in found.tensors} == {"equal"}
    assert found.paired_by == "keys"
    new, known = vggscope.inspect(path), vggscope.inspect(old)
    assert {layer.name: layer.shape for layer in new.layers} == {layer.name: layer.shape for layer in known.layers}
    assert not any("numbered by class" in note for note in new.notes)


@needs_keras
def test_the_layers_of_two_archives_are_paired_by_their_order_in_the_class(by_keras: Path) -> None:
    """Keras counts the names of layers on, so that a name of the first model may be another layer's of the second."""
    again, once = by_keras / "again.keras", by_keras / "once.keras"
    assert {tensor.relation for tensor in vggscope.values(again, once).tensors} == {"equal"}
    ours, theirs = ({layer.name for layer in vggscope.inspect(path).layers} for path in (again, once))
    assert theirs - ours == {"conv2d"}
    assert ours - theirs == {"conv2d_4"}


def test_layers_without_names_are_said_to_be_numbered(tmp_path: Path, model: nn.Module) -> None:
    path = h5(tmp_path / "x.weights.h5", keras3_arrays(model))
    said = "its layers are numbered by class: it does not tell their names"
    assert said in vggscope.inspect(path).notes
    assert f"{path}: {said}" in vggscope.values(path, path).notes
    names = {f"layers/{group}": "twice" for group in ("conv2d", "conv2d_1")}
    with h5py.File(path, "r+") as weights:
        for group, name in names.items():
            weights[f"{group}/vars"].attrs["name"] = name
    assert "conv2d" in [layer.name for layer in vggscope.inspect(path).layers]


# Configurations


@pytest.mark.parametrize("dialect", [2, 3])
def test_a_vgg16_is_torchvisions(tmp_path: Path, dialect: int) -> None:
    layers = [called(given("input_1", (224, 224, 3), dialect))]
    last = "input_1"

    def add(kind: str, name: str, **settings: Any) -> None:
        nonlocal last
        layers.append(called(layer(kind, name, dialect, **settings), last, dialect=dialect))
        last = name

    for block, (count, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for number in range(1, count + 1):
            kernel = {"filters": width, "kernel_size": [3, 3], "padding": "same", "activation": "relu"}
            add("Conv2D", f"block{block}_conv{number}", data_format="channels_last", strides=[1, 1], **kernel)
        add("MaxPooling2D", f"block{block}_pool", pool_size=[2, 2], strides=[2, 2], padding="valid")
    add("Flatten", "flatten", data_format="channels_last")
    add("Dense", "fc1", units=4096, activation="relu")
    add("Dense", "fc2", units=4096, activation="relu")
    add("Dense", "predictions", units=1000, activation="softmax")
    network = network_of(tmp_path, functional(layers, ["input_1"], ["predictions"]))
    assert vggscope.summary(network).totals.params == 138_357_544
    assert vggscope.diff(network, "torchvision").verdict == "equivalent"
    assert vggscope.receptive_fields(network).layers[30].size == vggscope.receptive_fields("D").layers[30].size
    assert vggscope.memory(network).peak_bytes > 0
    notes = "\n".join(network.warnings)
    assert "kernel.transpose(3, 2, 0, 1) and kernel.T" in notes
    assert "fc1 reads a flattened map" in notes
    assert "kernel.reshape(7, 7, 512, 4096).transpose(3, 2, 0, 1).reshape(4096, -1)" in notes
    assert "the softmax of predictions is left out" in notes
    assert [node.name for node in network.nodes[:2]] == ["block1_conv1", "block1_conv1_relu"]
    kept = network_of(tmp_path, functional(layers, ["input_1"], ["predictions"]), soft_max=True)
    assert kept.nodes[-1].op.name == "Softmax"


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_same_pads_as_tensorflow_does(tmp_path: Path, size: int, stride: int, kernel: int) -> None:
    settings = {"filters": 2, "kernel_size": kernel, "strides": stride, "padding": "same"}
    network = network_of(tmp_path, sequential(given("x", (size, size, 1)), layer("Conv2D", "c", **settings)))
    # tensorflow.org/api_docs/python/tf/nn: the output has ceil(size / stride), the odd pixel is padded at the end.
    made = -(-size // stride)
    total = max((made - 1) * stride + kernel - size, 0)
    assert network.shapes["c"] == (1, 2, made, made)
    row = vggscope.receptive_fields(network).layers[-1]
    assert (row.size, row.stride, row.padding) == ((kernel,) * 2, (stride,) * 2, (total // 2,) * 2)


def test_old_configurations_are_read(tmp_path: Path) -> None:
    first = layer("Conv2D", "c", 2, filters=4, kernel_size=[3, 3], batch_input_shape=[None, 8, 8, 3])
    old = [first, layer("Activation", "a", 2, activation="hard_sigmoid"), layer("Flatten", "f", 2)]
    # Before Keras 2.2.3 a Sequential's configuration was its list of layers.
    network = network_of(tmp_path, {"class_name": "Sequential", "config": [*old, layer("Dense", "d", 2, units=2)]})
    assert [node.name for node in network.nodes] == ["c", "a.mul", "a.add", "a.clamp", "f", "d"]
    state = {p.name: torch.randn(p.shape) for p in network.parameters()}
    x = torch.randn(1, 3, 8, 8)
    maps = nn.functional.conv2d(x, state["c.weight"], state["c.bias"])
    expected = nn.functional.linear((maps * 0.2 + 0.5).clamp(0, 1).flatten(1), state["d.weight"], state["d.bias"])
    torch.testing.assert_close(outputs_of(network, state, x)[0], expected)


class Oblong(nn.Module):
    """The model of the same name, as somebody writes it in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.sep = nn.ModuleDict(
            {"depthwise": nn.Conv2d(3, 6, 3, groups=3, bias=False), "pointwise": nn.Conv2d(6, 9, 1)}
        )
        self.dw = nn.Conv2d(9, 18, 3, groups=9)
        self.norm = nn.BatchNorm1d(18 * 4 * 3, eps=1e-3)
        self.fc, self.out = nn.Linear(18 * 4 * 3, 7), nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.dw(self.sep["pointwise"](self.sep["depthwise"](x)))
        x = self.norm(nn.functional.max_pool2d(x, 2).flatten(1))
        return (self.out(self.fc(x)),)


class Accident(nn.Module):
    """The model of the same name: a layer that reads 16 features, as many as a square map of 4 channels has."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.square, self.mixed = nn.Linear(16, 2), nn.Linear(36, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x, y = self.one(x), self.two(x)
        points = [x.mean((2, 3)), x.amax((2, 3)), y.mean((2, 3)), y.amax((2, 3))]
        return self.square(torch.cat(points, 1)), self.mixed(torch.cat([x.flatten(1), points[0]], 1))


@needs_keras
@pytest.mark.parametrize("kind", [Oblong, Accident])
def test_weights_of_keras_compute_the_same_in_torch(by_keras: Path, kind: type[nn.Module]) -> None:
    path = by_keras / f"{kind.__name__.lower()}.h5"
    with np.load(path.with_suffix(".npz")) as file:
        x = torch.from_numpy(file["x"]).movedim(-1, 1)
        expected = [torch.from_numpy(file[name]) for name in sorted(file.files) if re.fullmatch(r"y\d", name)]
    loaded = vggscope.build(kind(), tuple(x.shape), weights=str(path)).eval()
    torch.testing.assert_close(list(loaded(x)), expected, rtol=1e-4, atol=1e-5)
    if kind is Oblong:
        with pytest.raises(CheckpointError, match=r"fc.weight may read a flattened map, whose sides are not known"):
            load_weights(kind(), str(path))


@needs_keras
@pytest.mark.parametrize("kind", [Oblong, Accident])
def test_values_are_compared_by_the_sides_of_the_file(by_keras: Path, tmp_path: Path, kind: type[nn.Module]) -> None:
    """The map before the linear layer is 4x3; 16 means that are as many as a square map are none."""
    path = by_keras / f"{kind.__name__.lower()}.h5"
    size = tuple(np.moveaxis(np.load(path.with_suffix(".npz"))["x"], -1, 1).shape)
    state = vggscope.build(kind(), size, weights=str(path)).state_dict()
    torch.save(state, tmp_path / "torch.pth")
    found = vggscope.values(path, tmp_path / "torch.pth")
    # A layer that reads a map beside other features stays as the file has it.
    others = {"mixed.weight"} if kind is Accident else set()
    counted = [tensor for tensor in found.tensors if not (tensor.reference or "").endswith("num_batches_tracked")]
    assert {tensor.name for tensor in counted if tensor.relation not in ("equal", "untouched")} == others
    assert len(counted) == len([key for key in state if not key.endswith("num_batches_tracked")])
    notes = " ".join((*found.notes, *vggscope.inspect(path).notes))
    assert "taken to be square" not in notes
    if kind is Oblong:
        assert notes.count("fc.weight reads a map of 4x3 with the channels last") == 2
    else:
        assert (
            notes.count("mixed.weight reads a map beside other features, and its columns are in the file's order") == 2
        )
    # A .keras has other names: there a matrix is known by its shape.
    matrices = {tuple(value.shape): value.numpy() for value in state.values() if value.ndim == 2}
    with open_tensors(path.with_suffix(".keras"), vggscope.network) as file:
        stored = [tensor for tensor in file.checkpoint.tensors if tensor.leaf == "weight" and len(tensor.shape) == 2]
        assert {tensor.shape for tensor in stored} == matrices.keys()
        for tensor in stored:
            is_equal = np.array_equal(file.whole(tensor), matrices[tensor.shape])
            assert is_equal != (tensor.shape == (2, 36)), tensor.name


@needs_keras
def test_parameters_are_those_of_keras_or_at_least_the_known_ones(by_keras: Path) -> None:
    with np.load(by_keras / "counted.npz") as file:
        counted = {name: int(file[name]) for name in file.files}
    report = vggscope.summary(str(by_keras / "counted.keras"))
    ours = {layer.name: layer.params for layer in report.layers}
    (unknown,) = (name for name, params in ours.items() if params is None)
    assert unknown == "apart"
    assert {name: params for name, params in ours.items() if params} == {
        name: count for name, count in counted.items() if count and name != unknown
    }
    assert report.totals.params is report.totals.param_bytes is report.memory.inference_peak_bytes is None
    assert report.totals.params_known == sum(counted.values()) - counted[unknown]
    assert f"at least {report.totals.params_known:,}" in str(report)
    assert json.loads(report.to_json())["totals"]["params"] is None
    macs = {layer.name: layer.macs for layer in report.layers}
    assert macs["bidirectional"] == 2 * 3 * 4 * 2 * (36 + 2)  # directions, steps, gates, units, features and states
    assert macs["bidirectional_1"] == 2 * 3 * 3 * 5 * (4 + 5)
    projections = 3 * 2 * (4 * 3 + 5 * 3 + 5 * 2 + 2 * 4)  # steps, heads: query, key, value, output
    assert macs["multi_head_attention"] == projections + 3 * 3 * 2 * (3 + 2)
    with pytest.raises(ModelError, match="the parameters of apart are not known"):
        vggscope.memory(str(by_keras / "counted.keras"))


@needs_keras
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_each_tensor_of_a_layer_in_parts_is_in_a_named_row(by_keras: Path, suffix: str) -> None:
    with np.load(by_keras / "counted.npz") as file:
        counted = {name: int(file[name]) for name in file.files}
    found = vggscope.inspect(str(by_keras / f"counted.{suffix}"))
    assert found.params == sum(counted.values())
    rows = {layer.name: layer.params for layer in found.layers}
    assert "" not in rows
    assert not any(name.endswith("recurrent") for name in rows)
    parts = [params for name, params in rows.items() if name.startswith("bidirectional.")]
    assert sum(parts) == counted["bidirectional"]


@needs_keras
def test_norms_without_scale_or_centre_have_the_trained_weights_of_keras(by_keras: Path) -> None:
    with np.load(by_keras / "norms.npz") as file:
        counts = file["counts"].tolist()
    found = vggscope.inspect(str(by_keras / "norms.keras"))
    ours = {layer.name: layer.params for layer in found.layers}
    assert sorted(ours.values()) == sorted(counts)
    assert found.params == sum(counts)
    assert found.buffers == 4 * 2 * 5


def test_padding_that_depends_on_the_size_is_not_kept_at_another(tmp_path: Path) -> None:
    given_size = given("x", (8, 8, 3))
    path = written(
        tmp_path,
        sequential(given_size, layer("Conv2D", "c", filters=2, kernel_size=[3, 3], strides=[2, 2], padding="same")),
    )
    network = vggscope.network(path)
    assert vggscope.network(network, (3, 10, 10)).shapes == vggscope.network(path, (3, 10, 10)).shapes
    with pytest.raises(ShapeError, match="has other padding on 3x9x9: 2x2 and not 1x1 pixels for 3x3 windows"):
        vggscope.network(network, (3, 9, 9))
    # At stride 1 the padding is the same for every size.
    path = written(
        tmp_path, sequential(given_size, layer("Conv2D", "c", filters=2, kernel_size=[4, 4], padding="same"))
    )
    assert vggscope.network(vggscope.network(path), (3, 9, 9)).shapes["c"] == (1, 2, 9, 9)


def test_what_a_file_has_after_its_first_unknown_layer_is_not_counted_as_nothing(tmp_path: Path) -> None:
    for before in ([], [layer("Conv2D", "c", filters=2, kernel_size=[3, 3])]):
        config = sequential(given("x", (8, 8, 3)), *before, layer("Strange", "s"), layer("Dense", "d", units=2))
        report = vggscope.summary(written(tmp_path, config))
        assert (report.totals.params, report.totals.params_known) == (None, 56 * len(before))
        assert ("layer" in str(report).splitlines()[4]) == bool(before)  # no table without rows
        assert f"parameters   at least {56 * len(before)}" in str(report)


INT8 = {"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8", "source_name": "float32"}}
MIXED = {**DTYPE, "config": {"name": "mixed_float16"}}


@pytest.mark.parametrize(
    ("policies", "named"),
    [
        ((DTYPE, "float32"), ""),
        ((MIXED, "mixed_bfloat16"), "mixed_float16 and mixed_bfloat16"),
        ((DTYPE, INT8), "int8"),
    ],
)
def test_the_figures_of_a_policy_with_two_dtypes_are_said_to_be_those_of_one(
    tmp_path: Path, policies: tuple[Any, ...], named: str
) -> None:
    layers = [layer("Dense", f"d{place}", units=2, dtype=policy) for place, policy in enumerate(policies)]
    summary = vggscope.summary(written(tmp_path, sequential(given("x", (5,)), *layers)))
    assert summary.totals.param_bytes == 4 * (12 + 6)
    said = f"the model has the dtype policy {named}: the figures are those of float32 throughout"
    assert [note for note in summary.warnings if "policy" in note] == ([said] if named else [])


def test_a_padded_convolution_after_the_last_pool_is_no_fully_connected_layer(tmp_path: Path) -> None:
    def labels(*pads: Entry) -> list[str]:
        conv = [layer("Conv2D", name, filters=4, kernel_size=[3, 3]) for name in "ab"]
        head = [layer("Flatten", "f"), layer("Dense", "d", units=3)]
        rest = [layer("MaxPooling2D", "p", pool_size=[2, 2]), *pads, conv[1], *head]
        network = vggscope.network(written(tmp_path, sequential(given("x", (16, 16, 3)), conv[0], *rest)))
        return [node.label for node in network.nodes if node.name in "abd"]

    assert labels(layer("ZeroPadding2D", "z", padding=[[1, 1], [1, 1]])) == ["conv1_1", "conv2_1", "fc3"]
    assert labels() == ["conv1_1", "fc2", "fc3"]


def test_unknown_layers_are_kept_and_code_is_not_read(tmp_path: Path) -> None:
    code = "4wEAAAAAAAAAAAAAAAEAAAABAAAA"
    function = {"class_name": "__lambda__", "config": {"code": code}}
    strange = layer("Lambda", "l", function=function, output_shape=None)
    after = {**layer("Dense", "d", units=2), "build_config": {"input_shape": [None, 5]}}
    network = network_of(tmp_path, sequential(given("x", (8,)), strange, after))
    assert network.shapes == {"input": (1, 8), "l": (1, 5), "d": (1, 2)}
    assert any("the cost of Lambda is unknown" in note for note in network.warnings)
    assert network.parameter_count == 12  # a Lambda has none
    cut = network_of(tmp_path, sequential(given("x", (8,)), strange, layer("Dense", "d", units=2)))
    assert "no rule for a layer Lambda" in (cut.failure or "")
    own = {"module": "my.code", "class_name": "MyModel", "config": {}, "registered_name": "mine>MyModel"}
    with pytest.raises(ModelError, match="MyModel, which has code of its own"):
        vggscope.network(written(tmp_path, own))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (layer("Conv2D", "c", filters=4, kernel_size=[9, 9]), "does not fit"),
        (layer("Conv2D", "c", filters=4, kernel_size="3"), "its kernel_size"),
        (layer("Conv2D", "c", filters=-4, kernel_size=3), "its filters"),
        (layer("Conv2D", "c", filters=4, kernel_size=3, groups=2), "2 groups do not divide"),
        (layer("Conv2D", "c", filters=4, kernel_size=3, padding="reflect"), "its padding"),
        (layer("Conv1D", "c", filters=4, kernel_size=3), "maps with 1 sides"),
        (layer("Conv2D", "c", filters=2**40, kernel_size=[2**20, 1], padding="same"), "any machine holds"),
        (layer("Reshape", "r", target_shape=[7, 7]), "elements"),
        (layer("Concatenate", "c", axis=0), "joins the samples"),
        (layer("Concatenate", "c", axis=9), "no axis 9"),
        (layer("Permute", "p", dims=[1, 1, 2]), "its dims"),
        (layer("Cropping2D", "c", cropping=4), "cuts off more"),
        (layer("BatchNormalization", "b", epsilon="x"), "its epsilon"),
        (layer("Dropout", "d", rate=float("nan")), "its rate"),
        (layer("Add", "a"), "reads 1 tensor"),
        (layer("Dense", "d", units=4, activation="glu"), "halves an axis"),
    ],
)
def test_what_cannot_be_ends_the_layers(tmp_path: Path, entry: Entry, reason: str) -> None:
    network = network_of(tmp_path, sequential(given("x", (8, 8, 3)), entry))
    assert reason in (network.failure or "")


def test_a_layer_that_is_called_twice_is_one_module(tmp_path: Path) -> None:
    conv = called(layer("Conv2D", "c", filters=3, kernel_size=3, padding="same", activation="relu"), "x")
    conv["inbound_nodes"] += called(conv, "c")["inbound_nodes"]
    config = functional([called(given("x", (8, 8, 3)), dialect=3), conv], ["x"], ["c"])
    config["config"]["output_layers"] = [["c", 1, 0]]
    network = network_of(tmp_path, config)
    assert [node.module for node in network.nodes] == ["c", "c_relu", "c", "c_relu"]
    assert vggscope.summary(network).totals.params == 3 * 3 * 9 + 3
    with pytest.raises(ModelError, match="called more than once"):
        vggscope.build(network)


def test_the_input_is_the_callers_where_the_file_leaves_it_open(tmp_path: Path) -> None:
    convolution = layer("Conv2D", "c", filters=4, kernel_size=3)
    config = sequential(given("x", (None, None, 3)), convolution)
    assert any("3x224x224 is taken" in note for note in network_of(tmp_path, config).warnings)
    assert network_of(tmp_path, config, input_size=(3, 20, 24)).input_shape == (1, 3, 20, 24)
    with pytest.raises(ShapeError, match="fixes the channels of x as 3"):
        network_of(tmp_path, config, input_size=(4, 20, 20))
    with pytest.raises(ShapeError, match="states no shape of input"):
        network_of(tmp_path, sequential(convolution))
    with pytest.raises(OptionError, match="has its layers"):
        network_of(tmp_path, config, batch_norm=True)


def test_a_file_without_a_configuration_is_weights(tmp_path: Path, model: nn.Module) -> None:
    path = str(h5(tmp_path / "x.h5", keras_arrays(model)))
    with pytest.raises(ModelError, match="do not show where its pools are"):
        vggscope.network(path)


# Hostile files


def refused(folder: Path, config: Entry | bytes, reason: str) -> None:
    for name in ("x.keras", "x.h5"):
        with pytest.raises(ModelError, match=reason) as caught:
            vggscope.network(written(folder, config, name))
        assert "\n" not in caught.value.problem


def test_damaged_and_hostile_configurations_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, b"[" * 3000, "not valid JSON|holds no object")
    refused(tmp_path, b'{"a":' * 200_000, "not valid JSON")
    refused(tmp_path, b'{"a": [' + b"[]," * 500_000 + b"[]]}", "more values than any graph")
    refused(tmp_path, {"class_name": "Sequential"}, "no list of layers")
    refused(tmp_path, {"class_name": "Sequential", "config": {"layers": [1]}}, "no list of layers")
    refused(tmp_path, sequential(given("x", (8,))), "no layers that compute")
    nested: Entry = sequential(given("x", (8,)), layer("Dense", "d", units=2))
    for number in range(40):
        nested = sequential(nested, name=f"n{number}")
    refused(tmp_path, nested, "nested too deep")
    dense = layer("Dense", "d", units=2)
    circle = [called(given("x", (8,))), called(dense, "e"), called(layer("Dense", "e", units=2), "d")]
    refused(tmp_path, functional(circle, ["x"], ["e"]), "has a circle|no layer before it")
    refused(tmp_path, functional([called(given("x", (8,)))], ["x"], ["y"]), "no inputs or outputs")
    absent = [called(given("x", (8,))), called(dense, "nobody")]
    refused(tmp_path, functional(absent, ["x"], ["d"]), "no layer before it")
    refused(tmp_path, sequential(given("x", (8,)), dense, dense), "same name")
    arguments: Any = []
    for _ in range(100):
        arguments = [arguments]
    strange = {**called(dense, "x"), "inbound_nodes": [{"args": arguments}]}
    refused(tmp_path, functional([called(given("x", (8,))), strange], ["x"], ["d"]), "nested too deep")
    missing = {**called(dense, "x"), "inbound_nodes": [{"args": [{"class_name": "__keras_tensor__", "config": {}}]}]}
    refused(tmp_path, functional([called(given("x", (8,))), missing], ["x"], ["d"]), "does not tell what it reads")


def bomb(depth: int) -> Entry:
    """Models, each of which calls the next one ten times."""
    inner = functional([called(given("x", (8,))), called(layer("Dense", "d", units=8), "x")], ["x"], ["d"])
    for number in range(depth):
        entry = {**inner, "name": "inner", "inbound_nodes": []}
        sources = ["x", *[f"inner:{place}" for place in range(9)]]
        nodes = []
        for source in sources:
            name, _, place = source.partition(":")
            history = [name, int(place or 0), 0]
            nodes.append({"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": history}}]})
        entry["inbound_nodes"] = nodes
        inner = functional([called(given("x", (8,))), entry], ["x"], ["inner"])
        inner["config"]["output_layers"] = [["inner", 9, 0]]
        inner["config"]["name"] = f"n{number}"
    return inner


@pytest.mark.slow
def test_models_that_call_models_are_bounded(tmp_path: Path) -> None:
    assert len(network_of(tmp_path, bomb(2)).nodes) == 100
    refused(tmp_path, bomb(8), "more than 10,000 calls")


def chain(count: int) -> Entry:
    return sequential(given("x", (8,)), *(layer("Activation", f"a{i}", activation="relu") for i in range(count)))


def test_the_work_is_proportional_to_the_layers(tmp_path: Path) -> None:
    files = [written(tmp_path, chain(count), f"{count}.keras") for count in (200, 1600)]
    assert growth(vggscope.network, *files, 8) < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.keras", "x.h5"])
def test_a_changed_or_truncated_file_is_refused_or_described(tmp_path: Path, name: str) -> None:
    convolution = layer("Conv2D", "c", filters=4, kernel_size=3, activation="relu")
    config = sequential(given("x", (8, 8, 3)), convolution, layer("Flatten", "f"), layer("Dense", "d", units=2))
    data, draw = Path(written(tmp_path, config, name)).read_bytes(), Random(1)
    path = tmp_path / f"changed_{name}"
    for tenth in range(10):
        path.write_bytes(data[: len(data) * tenth // 10])
        with pytest.raises(ModelError):
            vggscope.network(str(path))
    text = json.dumps(config).encode()
    for number in range(300):
        changed = bytearray(text if number % 2 else data)
        for _ in range(draw.choice([1, 2, 8])):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        if number % 2:
            written(tmp_path, bytes(changed), path.name)
        else:
            path.write_bytes(changed)
        with suppress(ModelError, ShapeError):  # any other error fails the test
            vggscope.summary(vggscope.network(str(path)))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_no_file_costs_more_than_300_mb(tmp_path: Path) -> None:
    convolution = layer("Conv2D", "c", filters=4, kernel_size=3)
    files = {
        "long": chain(9_000),
        "bomb": bomb(9),
        "zeros": b'{"class_name": "' + b"0" * 8_000_000 + b'"}',
        "lists": b'{"class_name": "Sequential", "config": {"layers": [' + b"[]," * 390_000 + b"[]]}}",
        "large": json.dumps(sequential(given("x", (8, 8, 3)), convolution)).encode() + b" " * 20_000_000,
    }
    paths = [written(tmp_path, config, f"{name}.keras") for name, config in files.items()]
    paths += [written(tmp_path, config, f"{name}.h5") for name, config in files.items() if name in ("long", "lists")]
    done = subprocess.run(
        [sys.executable, "-c", RESOLVING],
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert int(done.stdout) < 300 * 1000
