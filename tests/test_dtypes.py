"""Each tensor in its own dtype: bytes as torch counts them, and conversion as `module.to(dtype)` does it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import vggscope
from tests.test_zoo import call_inputs, network_in_zoo, run, weights_of
from tests.zoo import ZOO, Calls
from vggscope.choices import Mode
from vggscope.dtypes import converted
from vggscope.errors import ModelError
from vggscope.graph import Network
from vggscope.graph_json import from_json, to_json
from vggscope.trace.inputs import CallInputs
from vggscope.trace.network import network_of
from vggscope.trace.tensors import tensors_in
from vggscope.trace.transforms import is_transforming

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def name_of(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def size_of(tensor: Tensor) -> int:
    if tensor.layout == torch.sparse_coo:
        return size_of(tensor._values()) + size_of(tensor._indices())
    return tensor.numel() * tensor.element_size()


def traced(name: str) -> tuple[nn.Module, CallInputs, Network]:
    module, inputs = ZOO[name]()
    return module.eval(), call_inputs(name, inputs), network_in_zoo(name)


@pytest.mark.parametrize("name", ZOO)
def test_bytes_and_dtypes_are_torchs(name: str) -> None:
    module, call, network = traced(name)
    results: dict[str, list[tuple[str, int]]] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(part: nn.Module, args: object, result: object) -> None:
            tensors = tensors_in(result)
            if tensors and not is_transforming():
                results.setdefault(path, []).append((name_of(tensors[0]), size_of(tensors[0])))

        return hook

    scripted = any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())
    for path, part in () if scripted else module.named_modules():
        part.register_forward_hook(keep(path))
    outputs = tensors_in(run(module, call))
    summary = vggscope.summary(network, batch=1 if network.single else call.batch)
    assert summary.totals.param_bytes == sum(map(size_of, weights_of(module)))
    assert sum(entry.bytes for entry in summary.totals.dtypes) == summary.totals.param_bytes
    assert [tensor.dtype for tensor in summary.inputs] == [name_of(tensor) for tensor in call.tensors()]
    assert [tensor.dtype for tensor in summary.outputs] == [name_of(tensor) for tensor in outputs]
    for node, row in zip(network.nodes, summary.layers):
        if node.module in results and ":" not in node.name:
            dtype, size = results[node.module][0]
            assert (row.dtype, row.activation_bytes or size) == (dtype, size), row.name


NOT_FOLLOWED = {
    # Forward names a dtype.
    *("type_as_another_shape", "script_function_without_source", "complex_layer_in_a_real_model"),
    *("half_layer_in_a_float_model", "sparse_weight"),
    # Forward computes a constant in float32 whatever the dtype of its weights is.
    "rotary_embedding",
}


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("name", ZOO)
def test_a_converted_network_is_that_of_the_converted_module(name: str, dtype: str) -> None:
    wanted = getattr(torch, dtype)
    module, call, network = traced(name)
    if isinstance(module, torch.jit.ScriptModule) or name in NOT_FOLLOWED or "quantized" in name:
        return
    module = ZOO[name]()[0].eval().double() if dtype == "float64" else ZOO[name]()[0].eval().bfloat16()
    theirs = network_of(module, name, call.map(lambda t: t.to(wanted) if t.is_floating_point() else t))
    if theirs.failure is not None:  # the model names a dtype
        return
    ours = converted(network, dtype)
    assert {node.name: ours.dtype_of(node.name) for node in ours.nodes} == {
        node.name: theirs.dtype_of(node.name) for node in theirs.nodes
    }
    assert [tensor.dtype or dtype for tensor in ours.outputs] == [
        tensor.dtype or theirs.dtype for tensor in theirs.outputs
    ]
    mode: Mode = "train" if any(p.requires_grad for p in module.parameters()) else "inference"
    ours_peak, their_peak = (vggscope.memory(n, dtype=dtype, mode=mode).peak_bytes for n in (network, theirs))
    assert ours_peak == their_peak
    assert vggscope.summary(network, dtype=dtype).totals.param_bytes == sum(map(size_of, module.parameters()))


MIXED = ("half_layer_in_a_float_model", "complex_layer_in_a_real_model", "int8_weights_in_buffers", "four_bit_weights")


@pytest.mark.parametrize("name", ["half_precision", "double_precision", "sparse_weight", "boolean_table", *MIXED])
def test_a_network_reads_back_with_its_dtypes(name: str) -> None:
    _, _, network = traced(name)
    again = from_json(to_json(network))
    assert again.dtype == network.dtype
    assert [node.dtype for node in again.nodes] == [node.dtype for node in network.nodes]
    # A file has no lines of the code that calls a layer.
    whole = re.sub(r'"line": ".*"', '"line": ""', vggscope.summary(network).to_json())
    assert vggscope.summary(again).to_json() == whole


def test_a_module_is_reported_in_its_own_dtype() -> None:
    half, full = nn.Linear(6, 4).half(), nn.Linear(6, 4)
    report = vggscope.summary(half, (6,))
    assert (report.dtype, report.totals.param_bytes, report.layers[0].activation_bytes) == ("float16", 56, 8)
    assert "float16" in str(report).splitlines()[0]
    assert vggscope.memory(half, (6,), mode="inference").peak_bytes == 56 + 12 + 8
    assert vggscope.summary(half, (6,), dtype="float32").totals.param_bytes == 112
    assert vggscope.operations(half, (6,)).totals.bytes == 56 + 12 + 8
    assert [model.dtype for model in vggscope.compare(half, full, input_size=(6,)).models] == ["float16", "float32"]
    assert vggscope.compare(half, full, input_size=(6,)).dtype == "mixed"


def test_mixed_parameters_are_listed() -> None:
    _, _, network = traced("half_layer_in_a_float_model")
    report = vggscope.summary(network)
    # 6x5 weights and 5 biases of two bytes, 5x7 and 7 of four
    assert (report.dtype, report.totals.param_bytes) == ("mixed", 35 * 2 + 42 * 4)
    warning, by_rules = report.warnings
    assert by_rules.startswith("the peak memory is by the rules of each op")
    assert warning.startswith("the floating-point parameters are of several dtypes: 42 float32, 35 bfloat16")
    rows = [line.split() for line in str(report).splitlines() if " Linear " in line]
    assert ["bfloat16" in row for row in rows] == [True, False]
    one = vggscope.summary(network, dtype="float16")
    assert (one.dtype, one.warnings, one.totals.param_bytes) == ("float16", (by_rules,), 77 * 2)


def test_complex_weights_are_not_converted() -> None:
    _, _, network = traced("complex_layer_in_a_real_model")
    for dtype in (None, "float16"):
        entries = {entry.dtype: entry for entry in vggscope.summary(network, dtype=dtype).totals.dtypes}
        # 8x25 kernels of 3x3 and 25 biases
        assert (entries["complex64"].params, entries["complex64"].bytes) == (1825, 14600)


def test_quantised_weights_are_listed_with_their_bytes() -> None:
    module, _, network = traced("quantized_convolution")
    report = vggscope.summary(network)
    found = {entry.dtype: (entry.params, entry.bytes) for entry in report.totals.dtypes}
    assert found == {"qint8": (108 + 144, 252), "float32": (8, 32)}
    assert [row.dtype for row in report.layers] == ["quint8", "quint8", "quint8", "float32"]
    assert not list(module.parameters())
    assert vggscope.memory(network, mode="inference").parameters_bytes == 284


def test_buffers_have_their_own_bytes() -> None:
    for name, size in (("int8_weights_in_buffers", 30 + 20), ("double_buffer", 32), ("boolean_table", 4)):
        assert vggscope.memory(traced(name)[2], mode="inference").buffers_bytes == size


@pytest.mark.parametrize("name", ["half_precision", "double_precision", "half_layer_in_a_float_model"])
def test_a_step_is_measured_in_its_own_dtypes(name: str) -> None:
    module, inputs = ZOO[name]()
    for options in ({}, {"dtype": "float64"}, {"optimizer": "adam"}):
        assert vggscope.measure(module, input_data=inputs, **options).difference_bytes == 0


def test_four_bits_of_torch_are_half_a_byte() -> None:
    table = torch.quantize_per_channel(torch.ones(10, 8), torch.ones(10), torch.zeros(10), 0, torch.quint4x2)
    module = Calls(lambda self, x: x * 2, table=nn.Parameter(table, requires_grad=False))
    assert vggscope.summary(module, (4,)).totals.param_bytes == table.untyped_storage().nbytes() == 40


def test_the_dtype_column_is_shown_if_dtypes_differ() -> None:
    assert "dtype" not in str(vggscope.summary("D", dtype="float16"))
    assert "dtype" not in str(vggscope.operations("D", dtype="float16"))
    for function in (vggscope.summary, vggscope.operations):
        table = str(function(traced("boolean_table")[2]))
        assert "dtype" in table
        assert "int64" in table
    assert json.loads(vggscope.summary("A").to_json())["layers"][0]["dtype"] == "float32"


@pytest.mark.parametrize("name", ["half", "double", "bfloat16"])
def test_a_module_of_another_dtype_is_run_in_float32_where_an_image_goes_in(name: str, tmp_path: Path) -> None:
    module = getattr(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), name)()
    Image.new("RGB", (16, 16), (200, 120, 40)).save(tmp_path / "orange.png")
    assert vggscope.activations(module, str(tmp_path / "orange.png"), (3, 16, 16)).layers[0].op == "Conv2d"
    assert vggscope.receptive_fields(module, (3, 16, 16), at="2", effective=True, samples=1).effective is not None
    assert vggscope.diff(module, ref=module, input_size=(3, 16, 16), numeric=True).numeric.max_abs_error == 0
    assert vggscope.verify(module, (3, 16, 16)).agrees
    assert {name_of(tensor) for tensor in module.parameters()} == {vggscope.summary(module, (3, 16, 16)).dtype}


def test_what_cannot_be_run_in_one_dtype_is_an_error_with_its_reason(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "black.png")
    for name, problem in (
        ("quantized_convolution", "quantised weights, which cannot be copied"),
        ("half_layer_in_a_float_model", "does not run with all tensors in one dtype"),
    ):
        module, inputs = ZOO[name]()
        with pytest.raises(ModelError, match=problem):
            vggscope.diff(module, ref=module, input_data=inputs, numeric=True)
    module, inputs = ZOO["complex_convolution"]()
    assert vggscope.diff(module, ref=module, input_data=inputs, numeric=True).numeric.max_abs_error == 0
    for name in ("quantized_convolution", "complex_convolution"):
        with pytest.raises(ModelError, match="quantised or complex weights"):
            vggscope.activations(ZOO[name]()[0], str(tmp_path / "black.png"), input_data=ZOO[name]()[1])


def test_the_tools_do_not_count_packed_weights() -> None:
    module, inputs = ZOO["quantized_convolution"]()
    found = vggscope.verify(module, input_data=inputs)
    assert found.agrees
    (params,) = (figure for figure in found.figures if figure.name == "params")
    assert params.ours == 260
    assert {term.amount for answer in params.answers for term in answer.terms} == {-260}


def test_a_grid_has_the_models_own_dtype() -> None:
    half = nn.Sequential(nn.Linear(6, 4)).half()
    network = vggscope.network(half, (6,))
    own, converted_to = vggscope.grid(network, batches=[1], dtypes=[None, "float32"])
    assert (own.dtype, own.peak_bytes) == ("float16", vggscope.memory(half, (6,)).peak_bytes)
    assert (converted_to.dtype, converted_to.peak_bytes) == (
        "float32",
        vggscope.memory(half, (6,), dtype="float32").peak_bytes,
    )


def test_the_json_of_a_network_leaves_out_what_is_usual() -> None:
    text = to_json(vggscope.network("conv3-8 FC-10", (3, 8, 8)))
    assert "dtype" not in text
    assert '"class":"Parameter","name":"features.0.weight","shape":[8,3,3,3]}' in text


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_checkpoint_is_reported_in_its_own_dtype(suffix: str, tmp_path: Path) -> None:
    features = vggscope.build("A", num_classes=10).features.half()
    path = str(tmp_path / f"half.{suffix}")
    if suffix == "pth":
        torch.save(features.state_dict(), path)
    else:
        save_file(features.state_dict(), path)
    report = vggscope.summary(path, (3, 32, 32))
    assert (report.dtype, report.totals.param_bytes) == ("float16", sum(map(size_of, features.parameters())))
    assert report.layers[0].activation_bytes == 64 * 32 * 32 * 2
    assert {tensor.dtype for tensor in vggscope.build(path).parameters()} == {torch.float16}
    assert vggscope.verify(path, (3, 32, 32)).agrees
    same = vggscope.diff(path, ref=path, input_size=(3, 32, 32), numeric=True, weights=path)
    assert same.numeric is not None
    assert same.numeric.max_abs_error == 0


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "onnx"])
def test_what_is_exported_has_the_dtype_of_the_model(suffix: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).half()
    path = str(tmp_path / f"half.{suffix}")
    vggscope.export(model, path, (3, 8, 8))
    if suffix == "onnx":
        weights = onnx.load(path).graph.initializer
        assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    else:
        assert vggscope.inspect(path).dtypes == ("float16",)


def test_one_tensor_of_another_dtype_in_a_checkpoint(tmp_path: Path) -> None:
    state = vggscope.build("A", num_classes=10).features.state_dict()
    state["0.weight"] = state["0.weight"].half()
    torch.save(state, tmp_path / "mixed.pth")
    report = vggscope.summary(str(tmp_path / "mixed.pth"), (3, 32, 32))
    assert (report.dtype, report.totals.param_bytes) == ("mixed", sum(map(size_of, state.values())))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_batch_statistics_of_another_width_are_no_disagreement(dtype: torch.dtype) -> None:
    """torch keeps the statistics of a batch norm in the input's dtype on a CPU, in float32 at least elsewhere."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).to(dtype)
    network = network_of(model, "net")
    assert network.torch_count is not None
    assert network.torch_count.disagreements == ()


IMAGE = torch.ones(1, 3, 8, 8, dtype=torch.int64)

WITHOUT_KERNEL: dict[str, Callable[[Tensor], Tensor]] = {
    "embedding": lambda x: functional.embedding(x.float(), torch.ones(10, 4)),
    "index_select": lambda x: torch.ones(10, 4).index_select(0, x[0, 0, 0].float()),
    "conv2d": lambda x: functional.conv2d(x, torch.ones(4, 3, 3, 3)),
    **{
        name: partial(lambda name, x: getattr(functional, name)(x), name)
        for name in (
            *("gelu", "silu", "mish", "hardswish", "hardsigmoid", "softplus", "celu", "logsigmoid", "softshrink"),
            *("hardshrink", "rrelu"),
        )
    },
    "glu": lambda x: functional.glu(x, 2),
    **{name: partial(lambda name, x: getattr(x, name)(), name) for name in ("std", "var")},
    "softmax": lambda x: functional.softmax(x, 1),
    "log_softmax": lambda x: x.log_softmax(1),
    "adaptive_avg_pool2d": lambda x: functional.adaptive_avg_pool2d(x, 2),
    "adaptive_max_pool2d": lambda x: functional.adaptive_max_pool2d(x, 2),
    "bilinear": lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
    "nearest": lambda x: functional.interpolate(x, scale_factor=2),
    "grid_sample": lambda x: functional.grid_sample(x, torch.ones(1, 4, 4, 2)),
    "unfold": lambda x: functional.unfold(x, 2),
}


@pytest.mark.parametrize("name", WITHOUT_KERNEL)
def test_a_dtype_that_torch_has_no_kernel_for_is_refused(name: str) -> None:
    """The meta device computes these shapes; `torch.nn.functional` on the CPU raises."""
    function = WITHOUT_KERNEL[name]
    with pytest.raises(RuntimeError):
        function(IMAGE)
    report = vggscope.summary(Calls(lambda self, x: function(x.relu())), input_data=IMAGE)
    assert report.failure is not None
    assert "dtype" in report.failure


@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.softmax(x, 1, dtype=torch.float32),
        lambda x: functional.interpolate(x.to(torch.uint8), scale_factor=2),
        lambda x: functional.embedding(x.int(), torch.ones(10, 4)),
        lambda x: functional.max_pool2d(x, 2),
    ],
)
def test_a_dtype_that_torch_has_a_kernel_for_is_accepted(function: Callable[[Tensor], Tensor]) -> None:
    assert function(IMAGE).numel()
    assert vggscope.summary(Calls(lambda self, x: function(x.relu())), input_data=IMAGE).failure is None
