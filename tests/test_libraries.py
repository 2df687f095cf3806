"""The models of other libraries, each held to torch's own counts: torchvision's beside classification, and timm's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vggscope.analysis.cost import costs, total_macs
from vggscope.graph import Network
from vggscope.ops.base import numel
from vggscope.sources import libraries
from vggscope.sources.resolve import resolve
from vggscope.suppress import suppress_output
from vggscope.trace.build import without_data
from vggscope.trace.inputs import CallInputs, candidates
from vggscope.trace.network import network_of
from vggscope.trace.tensors import tensors_in
from vggscope.vgg.options import BuildOptions

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


OTHER_TASKS = [name for name in libraries.names("torchvision") if libraries.task(name)]
DETECTION = [name for name in OTHER_TASKS if libraries.task(name) == "detection"]


def test_every_task_of_torchvision_has_models() -> None:
    assert {*map(libraries.task, OTHER_TASKS)} == {"detection", "optical_flow", "quantization", "segmentation", "video"}
    assert len(DETECTION) >= 12


def built(name: str, num_classes: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    return libraries.build(f"torchvision:{name}", BuildOptions(num_classes=num_classes)).eval()


def small_detector(name: str) -> nn.Module:
    """A detection model that resizes its images to 128 pixels, unless its size is fixed, and returns few boxes."""
    module = built(name, num_classes=3)
    if module.transform.fixed_size is None:
        module.transform.min_size, module.transform.max_size = (128,), 128
    if hasattr(module, "rpn"):
        module.rpn._post_nms_top_n = {"training": 8, "testing": 8}
    for part in module.modules():
        if hasattr(part, "detections_per_img"):
            part.detections_per_img = 3
    return module


def counted(module: nn.Module, inputs: CallInputs) -> tuple[int, tuple[Tensor, ...]]:
    """What torch counts of a call, and the tensors that it returns."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = module(*inputs.args, **inputs.kwargs)
    return counter.get_total_flops() // 2, tensors_in(result)


def check(network: Network, module: nn.Module, inputs: CallInputs) -> None:
    """Hold a network to torch: parameters, multiply-accumulates, and the shapes of inputs and output."""
    macs, outputs = counted(module, inputs)
    assert network.failure is None
    assert [tensor.shape for tensor in network.inputs] == [tensor.shape for tensor in inputs.tensors()]
    assert sum(numel(p.shape) for p in network.parameters()) == sum(p.numel() for p in module.parameters())
    assert total_macs(costs(network, 1)) == macs
    assert network.shapes[network.end] == outputs[network.output_place].shape


@pytest.mark.parametrize("name", DETECTION)
def test_a_detection_model_agrees_with_torch_and_is_left_as_it_was(name: str) -> None:
    module = small_detector(name)
    inputs = next(candidates(module))
    side = 128 if module.transform.fixed_size is None else module.transform.fixed_size[0]
    assert [tensor.shape for tensor in inputs.tensors()] == [(3, side, side)]
    image = CallInputs(([torch.rand(3, 96, 120)],), batch_axis=None)
    _, before = counted(module, image)
    check(network_of(module, name), module, inputs)
    check(network_of(module, name, image), module, image)
    _, after = counted(module, image)
    assert all(map(torch.equal, before, after))


def test_a_detection_model_is_named_by_a_word() -> None:
    network = resolve("torchvision:ssdlite320_mobilenet_v3_large")
    assert network.inputs[0].shape == (3, 320, 320)
    assert network == resolve("torchvision:ssdlite320_mobilenet_v3_large")  # its random weights are the same each time
    assert any("forward reads values" in warning for warning in network.warnings)


@pytest.mark.parametrize("name", [name for name in OTHER_TASKS if name not in (*DETECTION, "raft_large")])
def test_a_model_of_another_task_agrees_with_torch(name: str) -> None:
    network = resolve(f"torchvision:{name}")
    with suppress_output():
        module = without_data(lambda: built(name)).to("meta")
    inputs = CallInputs(tuple(torch.zeros(given.shape, device="meta") for given in network.inputs))
    check(network, module, inputs)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("fcn_resnet50", [(1, 3, 64, 64)]),
        ("lraspp_mobilenet_v3_large", [(1, 3, 64, 64)]),
        ("quantized_mobilenet_v2", [(1, 3, 64, 64)]),
        ("raft_large", [(1, 3, 128, 128)] * 2),
        ("mc3_18", [(1, 3, 4, 32, 32)]),
        ("swin3d_t", [(1, 3, 4, 64, 64)]),
    ],
)
def test_a_module_computes_the_same_after_it_was_looked_at(name: str, shapes: list[tuple[int, ...]]) -> None:
    module = built(name)
    inputs = CallInputs(tuple(map(torch.rand, shapes)), {"num_flow_updates": 2} if len(shapes) > 1 else {})
    macs, before = counted(module, inputs)
    network = network_of(module, name, inputs)
    _, after = counted(module, inputs)
    assert all(map(torch.equal, before, after))
    assert total_macs(costs(network, 1)) == macs
