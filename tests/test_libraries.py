"""The models of other libraries, each held to torch's own counts: torchvision's beside classification, and timm's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.recorded import Recorded
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


TORCHVISION = Recorded("torchvision_tasks", "torch", "torchvision")
TIMM = Recorded("timm", "torch", "timm")


def counted(module: nn.Module, inputs: CallInputs) -> tuple[int, tuple[Tensor, ...]]:
    """What torch counts of a call, and the tensors that it returns."""
    # Without gradients, the counter fails at an einsum of meta tensors.
    on_meta = any(tensor.is_meta for tensor in inputs.tensors())
    with torch.set_grad_enabled(on_meta), FlopCounterMode(display=False) as counter:
        result = module(*inputs.args, **inputs.kwargs)
    return counter.get_total_flops() // 2, tensors_in(result)


def figures(network: Network) -> dict[str, object]:
    """What is held to torch of a network: parameters, multiply-accumulates, and the shapes of inputs and output."""
    assert network.failure is None
    return {
        "params": sum(numel(p.shape) for p in network.parameters()),
        "macs": total_macs(costs(network, 1)),
        "inputs": [list(tensor.shape) for tensor in network.inputs],
        "output": list(network.shapes[network.end]),
    }


def torchs_figures(network: Network, module: nn.Module, inputs: CallInputs) -> dict[str, object]:
    """The same figures by torch."""
    macs, outputs = counted(module, inputs)
    return {
        "params": sum(p.numel() for p in module.parameters()),
        "macs": macs,
        "inputs": [list(tensor.shape) for tensor in inputs.tensors()],
        "output": list(outputs[network.output_place].shape),
    }


def check(reference: Recorded, key: str, network: Network, make: Callable[[], nn.Module], inputs: CallInputs) -> None:
    """Hold a network to torch's figures of `make`'s module."""

    def measure() -> None:
        assert figures(network) == torchs_figures(network, make(), inputs)

    reference.confirm(key, figures(network), measure)


def check_word(reference: Recorded, word: str) -> Network:
    """Hold a word's network to torch, on meta tensors, and return it."""
    network = resolve(word)

    def make() -> nn.Module:
        with suppress_output():
            return without_data(lambda: libraries.build(word, BuildOptions())).to("meta").eval()

    inputs = CallInputs(tuple(torch.zeros(given.shape, device="meta") for given in network.inputs))
    check(reference, word, network, make, inputs)
    return network


@pytest.mark.parametrize("name", DETECTION)
def test_a_detection_model_agrees_with_torch_and_is_left_as_it_was(name: str) -> None:
    module = small_detector(name)
    inputs = next(candidates(module))
    side = 128 if module.transform.fixed_size is None else module.transform.fixed_size[0]
    assert [tensor.shape for tensor in inputs.tensors()] == [(3, side, side)]
    network = network_of(module, name)
    check(TORCHVISION, name, network, lambda: module, inputs)
    image = CallInputs(([torch.rand(3, 96, 120)],), batch_axis=None)
    macs, before = counted(module, image)
    given = network_of(module, name, image)
    assert (total_macs(costs(given, 1)), given.inputs[0].shape) == (macs, (3, 96, 120))
    assert given.shapes[given.end] == before[given.output_place].shape
    _, after = counted(module, image)
    assert all(map(torch.equal, before, after))


def test_a_detection_model_is_named_by_a_word() -> None:
    network = resolve("torchvision:ssdlite320_mobilenet_v3_large")
    assert network.inputs[0].shape == (3, 320, 320)
    assert network == resolve("torchvision:ssdlite320_mobilenet_v3_large")  # its random weights are the same each time
    assert any("forward reads values" in warning for warning in network.warnings)


@pytest.mark.parametrize("name", [name for name in OTHER_TASKS if name not in (*DETECTION, "raft_large")])
def test_a_model_of_another_task_agrees_with_torch(name: str) -> None:
    check_word(TORCHVISION, f"torchvision:{name}")


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


TIMM_MODELS = """
bat_resnext26ts beit_base_patch16_224 beitv2_base_patch16_224 caformer_s18 cait_s24_224 cait_xs24_384
cait_xxs24_224 coat_tiny coatnet_0_rw_224 coatnet_bn_0_rw_224 coatnet_nano_cc_224 coatnet_rmlp_0_rw_224
coatnext_nano_rw_224 convformer_s18 convit_tiny convmixer_1024_20_ks9_p14 convmixer_1536_20 convnext_atto
convnext_atto_rms convnext_femto_ols convnext_zepto_rms_ols convnextv2_femto cpubone_b0_bfrobust
cpubone_b1_dwnorm cpubone_nano crossvit_9_dagger_240 crossvit_tiny_240 cs3darknet_focus_x cs3darknet_s
cs3darknet_x cs3edgenet_x cs3se_edgenet_x cs3sedarknet_x csatv2 cspnext_tiny cspnext_x davit_base_fl davit_tiny
deepseek_vit_412m deepseek_vit_412m_align deepseek_vit_412m_enc deit_tiny_distilled_patch16_224
deit_tiny_patch16_224 densenet121 densenetblur121d dla102x2 dla34 dla46_c dla60_res2net dla60_res2next
dm_nfnet_f0 dpn48b eca_halonext26ts eca_nfnet_l0 eca_resnet33ts eca_resnext26ts eca_vovnet39b ecaresnet26t
ecaresnet50d_pruned ecaresnetlight edgenext_small_rw edgenext_x_small edgenext_xx_small efficientformer_l1
efficientformerv2_s0 efficientnet_b1_pruned efficientnet_blur_b0 efficientnet_el efficientnet_el_pruned
efficientnet_em efficientnet_es efficientvim_m1 efficientvim_m1_dist efficientvit_b0 efficientvit_m0
ese_vovnet19b_dw ese_vovnet19b_slim ese_vovnet19b_slim_dw ese_vovnet39b ese_vovnet39b_evos
eva02_tiny_patch14_224 fasternet_t0 fastvit_ma36 fastvit_mci0 fastvit_sa12 fastvit_t8 fbnetv3_d
focalnet_tiny_lrf focalnet_tiny_srf gcresnet33ts gcresnext26ts gcvit_tiny gcvit_xtiny gcvit_xxtiny
gemma4_vit_167m gernet_s ghostnet_050 ghostnetv3_050 gmixer_12_224 gmlp_b16_224 gmlp_ti16_224 halonet26t
halonet50ts halonet_h1 hardcorenas_a hardcorenas_b hardcorenas_c hardcorenas_d hardcorenas_f hgnet_tiny
hgnetv2_b0 hiera_base_plus_224 hiera_small_abswin_256 hiera_tiny_224 hieradet_small hrnet_w18 hrnet_w18_small_v2
hrnet_w18_ssld iformer_l2_distilled iformer_t inception_next_atto inception_resnet_v2 inception_v3 inception_v4
lambda_resnet50ts lcnet_035 lcnetv2_small legacy_senet154 legacy_seresnet18 legacy_seresnext26_32x4d
legacy_xception levit_384_s8 levit_conv_128 lowformer_b0 lowformer_e1 mambaout_base_plus_rw
mambaout_base_short_rw mambaout_base_tall_rw mambaout_femto mambaout_kobe mambaout_small_rw maxvit_pico_rw_256
mixer_b16_224 mobilenet_edgetpu_v2_xs mobilenetv3_rw mobilenetv3_small_050 mobilenetv4_conv_small
mobilenetv5_300m mobilevit_xxs mobilevitv2_050 mvitv2_small_cls mvitv2_tiny naflexvit_base_patch16_gap
naflexvit_base_patch16_map naflexvit_base_patch16_par_gap naflexvit_base_patch16_siglip nest_tiny nest_tiny_jx
nextvit_small nf_ecaresnet26 nf_regnet_b0 nf_seresnet26 nfnet_f0 pit_ti_distilled_224 pit_xs_224 poolformer_s12
poolformerv2_s12 pvt_v2_b0 pvt_v2_b2_li qwen3_vit_88m qwen3_vit_88m_merge rdnet_tiny regnetv_040 regnetx_002
regnetx_004_tv regnety_002 regnety_008_tv regnetz_005 repghostnet_050 repvit_m1_1 res2net50_14w_8s res2next50
resmlp_12_224 resmlp_big_24_224 resnest14d resnest50d_1s4x24d resnest50d_4s2x40d resnetaa34d resnetblur18
resnetv2_18 resnetv2_50d_evos resnetv2_50d_frn resnetv2_50d_gn resnetv2_50x1_bit rexnet_100 rexnetr_100
sam2_hiera_base_plus sam2_hiera_tiny samvit_base_patch16 sehalonet33ts selecsls42 sequencer2d_s seresnet18
shvit_s1 skresnet18 skresnext50_32x4d starnet_s1 swiftformer_xs swin_s3_tiny_224 swinv2_cr_tiny_224
swinv2_cr_tiny_ns_224 swinv2_tiny_window8_256 test_byobnet test_coatnet test_convnext test_convnext2
test_convnext3 test_efficientnet test_efficientnet_evos test_efficientnet_gn test_efficientnet_ln test_mambaout
test_maxvit test_nfnet test_resnet test_vit test_vit2 test_vit3 test_vit4 test_vit_relpos
tf_mobilenetv3_small_075 tiny_vit_5m_224 tnt_s_legacy_patch16_224 tnt_s_patch16_224 tresnet_m twins_pcpvt_small
twins_svt_base visformer_tiny vit_base_mci_224 vit_betwixt_patch16_gap_256 vit_betwixt_patch16_rope_reg4_gap_256
vit_betwixt_patch32_clip_224 vit_mediumd_patch16_rope_reg1_gap_256 vit_relpos_base_patch16_clsgap_224
vit_relpos_base_patch16_plus_240 vit_relpos_medium_patch16_cls_224 vit_relpos_small_patch16_224
vit_relpos_small_patch16_rpn_224 vit_small_r26_s32_224 vit_small_resnet26d_224 vit_srelpos_small_patch16_224
vit_tiny_patch16_dinov3_qkvb vit_tiny_r_s16_p8_224 vit_xsmall_patch16_clip_224 vitamin_small_224 volo_d1_224
xception41 xcit_nano_12_p8_224
""".split()  # noqa: SIM905
"""Small models of each file of timm.models, at most six families of a file, and timm's own for tests."""


def test_timm_has_about_250_models_here() -> None:
    assert len(set(TIMM_MODELS)) >= 250


@pytest.mark.parametrize("name", TIMM_MODELS)
def test_a_timm_model_agrees_with_torch(name: str) -> None:
    network = check_word(TIMM, f"timm:{name}")
    assert not any("unknown" in warning for warning in network.warnings)
