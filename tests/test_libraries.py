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
    # Without gradients, the counter fails at an einsum of meta tensors.
    on_meta = any(tensor.is_meta for tensor in inputs.tensors())
    with torch.set_grad_enabled(on_meta), FlopCounterMode(display=False) as counter:
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
def test_a_module_computes_the_same_after_inspection(name: str, shapes: list[tuple[int, ...]]) -> None:
    module = built(name)
    inputs = CallInputs(tuple(map(torch.rand, shapes)), {"num_flow_updates": 2} if len(shapes) > 1 else {})
    macs, before = counted(module, inputs)
    network = network_of(module, name, inputs)
    _, after = counted(module, inputs)
    assert all(map(torch.equal, before, after))
    assert total_macs(costs(network, 1)) == macs


TIMM = (
    *("beit_base_patch16_224", "caformer_s18", "cait_xxs24_224", "coat_tiny", "convit_tiny", "convmixer_1536_20"),
    *("convnext_atto", "cpubone_nano", "crossvit_tiny_240", "cs3darknet_s", "csatv2", "cspnext_tiny"),
    *("davit_tiny", "deepseek_vit_412m", "deit_tiny_patch16_224", "dla34", "edgenext_xx_small"),
    *("efficientformer_l1", "efficientformerv2_s0", "efficientvim_m1", "efficientvit_b0", "efficientvit_m0"),
    *("ese_vovnet19b_slim", "eva02_tiny_patch14_224", "fasternet_t0", "fastvit_t8", "focalnet_tiny_lrf"),
    *("gcvit_tiny", "gemma4_vit_167m", "gernet_s", "ghostnet_050", "gmlp_ti16_224", "halonet26t", "hardcorenas_a"),
    *("hgnet_tiny", "hiera_tiny_224", "hrnet_w18_ssld", "iformer_t", "inception_next_atto"),
    *("lcnetv2_small", "legacy_xception", "levit_384_s8", "lowformer_b0", "mambaout_femto"),
    *("maxvit_pico_rw_256", "mobilenet_edgetpu_v2_xs", "mobilenetv3_small_050"),
    *("mobilevit_xxs", "mvitv2_tiny", "naflexvit_base_patch16_siglip", "nest_tiny", "nextvit_small"),
    *("nf_seresnet26", "pit_xs_224", "pvt_v2_b0", "qwen3_vit_88m", "rdnet_tiny", "regnetx_004_tv"),
    *("repghostnet_050", "repvit_m1_1", "res2net50_14w_8s", "resnest50d_1s4x24d", "resnetv2_18"),
    *("rexnet_100", "sam2_hiera_tiny", "samvit_base_patch16", "selecsls42", "shvit_s1"),
    *("skresnet18", "starnet_s1", "swiftformer_xs", "swin_s3_tiny_224", "swinv2_cr_tiny_224"),
    *("swinv2_tiny_window8_256", "test_byobnet", "test_coatnet", "test_convnext", "test_convnext2"),
    *("test_convnext3", "test_efficientnet", "test_efficientnet_evos", "test_efficientnet_gn"),
    *("test_efficientnet_ln", "test_mambaout", "test_maxvit", "test_nfnet", "test_resnet", "test_vit"),
    *("test_vit2", "test_vit3", "test_vit4", "test_vit_relpos", "tiny_vit_5m_224", "tnt_s_patch16_224"),
    *("tresnet_m", "twins_svt_base", "visformer_tiny", "vit_relpos_small_patch16_224"),
    *("vit_tiny_r_s16_p8_224", "vit_xsmall_patch16_clip_224", "vitamin_small_224", "volo_d1_224"),
    "xcit_nano_12_p8_224",
)
"""A small model of each file of timm.models, and timm's own for tests."""


@pytest.mark.parametrize("name", TIMM)
def test_a_timm_model_agrees_with_torch(name: str) -> None:
    word = f"timm:{name}"
    network = resolve(word)
    with suppress_output():
        module = without_data(lambda: libraries.build(word, BuildOptions())).to("meta").eval()
    check(network, module, CallInputs((torch.zeros(network.input_shape, device="meta"),)))
    assert not any("unknown" in warning for warning in network.warnings)
