"""Vggscope's figures against those of torch, torchinfo, fvcore, torchvision and the paper."""

from __future__ import annotations

import logging
import random
import re
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.prune import l1_unstructured

import vggscope
from tests.strategies import examples
from tests.test_zoo import call_inputs
from tests.tracker import recorded_peaks
from tests.zoo import ZOO
from vggscope.analysis.cost import backward_macs
from vggscope.cross_checks import flop_counter, measured_step, verification
from vggscope.cross_checks.paper import column_of
from vggscope.cross_checks.reference_tool import (
    NotApplicable,
    ReferenceTool,
    ReportedFigure,
    Term,
    on_cpu,
    without_data,
)
from vggscope.cross_checks.torchinfo import BIASES, COMPLEX, UNSEEN
from vggscope.cross_checks.torchvision import model_name
from vggscope.cross_checks.verification import Answer, Figure, Verification, verify
from vggscope.errors import ModelError
from vggscope.graph import INPUT, Network, Node, module_node, one_input
from vggscope.inputs import InputSize
from vggscope.ops.convolution import Convolution
from vggscope.ops.recorded import Unknown
from vggscope.render.formats import write
from vggscope.sources.resolve import resolve
from vggscope.trace.build import without_data as build_without_data
from vggscope.trace.inputs import inputs_of
from vggscope.trace.run import trace
from vggscope.vgg.options import BuildOptions

FACTS = {
    "A": (132863336, 7609090048),
    "A-LRN": (132863336, 7609090048),
    "B": (133047848, 11308466176),
    "C": (133638952, 11770888192),
    "D": (138357544, 15470264320),
    "E": (143667240, 19632062464),
}
SMALL = BuildOptions(input=(3, 16, 16))
TORCH_ONLY = {
    "backward_macs": ["torch"],
    "inference_peak_bytes": ["tracker"],
    "training_peak_bytes": ["tracker"],
    "receptive_fields": ["autograd"],
}
"""The figures that only torch's tools report."""


def figure(result: Verification, name: str) -> Figure:
    return next(figure for figure in result.figures if figure.name == name)


def answer(result: Verification, name: str, tool: str) -> Answer:
    return next(answer for answer in figure(result, name).answers if answer.witness == tool)


def tools(result: Verification) -> dict[str, list[str]]:
    return {figure.name: [answer.witness for answer in figure.answers] for figure in result.figures}


@pytest.mark.parametrize("column", FACTS)
def test_a_column_agrees_with_every_tool(column: str) -> None:
    result = verify(resolve(column))
    params, macs = FACTS[column]
    assert (figure(result, "params").ours, figure(result, "macs").ours) == (params, macs)
    published = ["torchvision"] if column in "ABDE" else []
    assert tools(result) == {
        "params": ["torch", "torchinfo", "fvcore", *published, "paper"],
        "macs": ["torch", "torchinfo", "fvcore", *published],
        **TORCH_ONLY,
    }
    assert result.agrees is True
    assert answer(result, "macs", "torch").value == macs
    assert answer(result, "macs", "fvcore").terms == (
        Term(512 * 7 * 7, "1 for each value that AdaptiveAvgPool2d reads"),
    )


def test_the_documentation_shows_the_output() -> None:
    text = (Path(__file__).parent.parent / "docs" / "verify.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"\$ vggscope verify D\n(.*?)```", text, re.DOTALL)
    assert shown == write(verify(resolve("D")))


@pytest.mark.parametrize("column", FACTS)
def test_a_column_with_batch_norm_agrees(column: str) -> None:
    result = verify(resolve(column, BuildOptions(batch_norm=True, input=(3, 64, 64))))
    assert result.agrees is True
    assert len(answer(result, "macs", "torchinfo").terms) == 2
    reasons = {skipped.witness: skipped.reason for skipped in result.skipped}
    assert reasons["paper"] == "Table 2 has the paper's columns at 3x224x224 with 1000 classes"


def test_the_reasons_for_vgg16_are_exact() -> None:
    result = verify(resolve("D"))
    positions = [(64, 224, 2), (128, 112, 2), (256, 56, 3), (512, 28, 3), (512, 14, 3)]
    biases = sum(channels * side**2 * layers for channels, side, layers in positions) + 4096 + 4096 + 1000
    assert biases == 13_556_712
    torchinfo = answer(result, "macs", "torchinfo")
    assert torchinfo.reason == (
        "15,483,821,032 = 15,470,264,320 + 13,556,712 (each bias, once for each output position)"
    )
    assert (torchinfo.difference, [term.amount for term in torchinfo.terms]) == (biases, [biases])
    assert answer(result, "macs", "fvcore").reason == (
        "15,470,289,408 = 15,470,264,320 + 25,088 (1 for each value that AdaptiveAvgPool2d reads)"
    )
    paper = answer(result, "params", "paper")
    assert (paper.value, paper.rounded_to, paper.difference) == (138_000_000, 10**6, -357_544)
    assert (paper.agrees, paper.reason) == (True, "rounded to 1,000,000")
    assert (result.schema, result.model, result.input_shape) == ("vggscope/verify@1", "D", (1, 3, 224, 224))


def test_batch_norm_is_explained_to_the_digit() -> None:
    result = verify(resolve("vgg11_bn"))
    maps = 64 * 224**2 + 128 * 112**2 + 2 * 256 * 56**2 + 2 * 512 * 28**2 + 2 * 512 * 14**2
    assert [term.amount for term in answer(result, "macs", "fvcore").terms] == [2 * maps, 25088]
    norms = 2 * (64 + 128 + 2 * 256 + 4 * 512)
    assert [term.amount for term in answer(result, "macs", "torchinfo").terms] == [maps + 9192, norms]
    assert answer(result, "params", "torchvision").value == 132868840
    assert result.agrees is True


@pytest.mark.parametrize("options", [
    BuildOptions(head="flatten", input=(1, 32, 32), num_classes=10),
    BuildOptions(head="dense", input=(4, 224, 224), batch_norm=True),
    BuildOptions(soft_max=True, input=(3, 96, 64)),
])  # fmt: skip
def test_heads_and_inputs_agree(options: BuildOptions) -> None:
    result = verify(resolve("A-LRN", options))
    assert result.agrees is True
    assert tools(result)["macs"] == ["torch", "torchinfo", "fvcore"]


FEATURES = st.lists(
    st.builds("conv{}-{}{}{}".format, st.sampled_from([1, 3, 5]), st.integers(1, 9), st.sampled_from(["", "/s2"]),
              st.sampled_from(["", " BN", " LRN", " dropout"]))
    | st.just("avgpool3/s1p1"),
    min_size=1, max_size=5,
)  # fmt: skip
HEAD = st.lists(st.builds("FC-{}".format, st.integers(1, 9)), max_size=2)


@settings(examples(25), suppress_health_check=[HealthCheck.too_slow])
@given(FEATURES, HEAD)
def test_any_column_agrees(features: list[str], head: list[str]) -> None:
    result = verify(resolve(" ".join([*features, *head]), SMALL))
    assert result.agrees is True
    assert tools(result) == {
        "params": ["torch", "torchinfo", "fvcore"],
        "macs": ["torch", "torchinfo", "fvcore"],
        **TORCH_ONLY,
        "training_peak_bytes": ["tracker"] * (figure(result, "params").ours != 0),
    }


def test_grouped_convolutions_are_explained_backward() -> None:
    convolutions = (
        Convolution(3, 6, (3, 3), padding=(1, 1), groups=3),
        Convolution(6, 4, (1, 1), groups=2, bias=False),
        Convolution(4, 4, (3, 3), (2, 2)),
    )
    nodes = tuple(module_node(str(i), op, str(i - 1) if i else INPUT) for i, op in enumerate(convolutions))
    result = verify(Network("grouped", one_input((1, 3, 8, 8)), nodes))
    first, second, third = 6 * 1 * 9 * 64, 4 * 3 * 64, 4 * 4 * 9 * 9
    assert figure(result, "macs").ours == first + second + third
    assert figure(result, "backward_macs").ours == first + 2 * second + 2 * third
    assert [t.amount for t in answer(result, "backward_macs", "torch").terms] == [2 * first + second]
    assert result.agrees is True


def test_grouped_transposed_convolutions_and_compiled_modules_are_explained() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 6, 2, 2, groups=2))
    result = verify(trace(plain, (3, 8, 8), "up"), torch.compile(plain))
    (term,) = answer(result, "backward_macs", "torch").terms
    assert term.amount == 4 * 3 * 2 * 2 * 6 * 6  # one more group's share
    assert result.agrees is True


def test_upsampling_and_padding_in_words_are_explained_for_fvcore() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.Upsample(scale_factor=2), nn.UpsamplingBilinear2d(32))
    result = verify(trace(net, (3, 8, 8), "net"), net)
    amounts = {term.what: term.amount for term in answer(result, "macs", "fvcore").terms}
    assert sorted(amounts.values()) == [-4 * 27 * 64, 4 * 16 * 16, 4 * 4 * 32 * 32]


def test_instance_norms_are_explained_for_fvcore() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.InstanceNorm2d(4))
    result = verify(trace(net, (3, 8, 8), "net"), net)
    amounts = [term.amount for term in answer(result, "macs", "fvcore").terms]
    assert amounts == [5 * 4 * 36, 4 * 4 * 36]
    assert result.agrees is True


class StandardisedConv(nn.Conv2d):
    """Weights standardised to mean 0 and variance 1 for each output channel, as in timm's NFNets."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = nn.functional.batch_norm(rows, None, None, training=True).reshape_as(self.weight)
        return nn.functional.conv2d(x, self.gain * weight, self.bias)


class Placed(nn.Module):
    """A product with a learned table, as the relative positions in timm's MViT."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.table = StandardisedConv(3, 96, 3), nn.Parameter(torch.zeros(14, 17, 96))
        self.conv.gain = nn.Parameter(torch.ones(96, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bhwc,hkc->bhwk", self.conv(x).permute(0, 2, 3, 1), self.table)


def test_standardised_weights_and_learned_tables_are_explained_for_fvcore() -> None:
    result = verify(trace(Placed(), (3, 16, 19), "placed"), Placed())
    exact, reported = 14 * 17 * 17 * 96, 388_400  # of 2 * 388,416 FLOPs torch's text has 7.768e+05
    assert sorted(t.amount for t in answer(result, "macs", "fvcore").terms) == [reported - exact, 4 * 96 * 27]
    assert [t.amount for t in answer(result, "macs", "torchinfo").terms] == [96 * 14 * 17, -exact]
    assert result.agrees is True


class Pooled(nn.Module):
    """Attention with one learned query, projected by a layer that no input reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.project, self.head = nn.Parameter(torch.zeros(1, 8)), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.project(self.query) @ x.transpose(1, 2)).softmax(-1) @ x)


def test_a_layer_that_reads_a_learned_tensor_is_explained_for_torchinfo() -> None:
    result = verify(trace(Pooled(), (5, 8), "pooled"), Pooled())
    amounts = {term.what: term.amount for term in answer(result, "macs", "torchinfo").terms}
    assert amounts == {BIASES: 8 + 3, UNSEEN: -2 * 5 * 8}
    assert result.agrees is True


def test_a_complex_convolution_is_explained_for_torchinfo() -> None:
    layers = [nn.Conv2d(3, 8, 3, dtype=torch.complex64), nn.Flatten(), nn.Linear(8, 4, dtype=torch.complex64)]
    result = vggscope.verify(nn.Sequential(*layers), [InputSize((3, 3, 3), dtype="complex64")])
    amounts = {term.what: term.amount for term in answer(result, "macs", "torchinfo").terms}
    assert amounts == {BIASES: 8 + 4, COMPLEX: -2 * 8 * 27}
    assert result.agrees is True


def test_a_product_with_a_fixed_table_gives_the_table_no_gradient() -> None:
    class Looked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.fc = nn.Parameter(torch.zeros(6, 8)), nn.Linear(8, 3)
            self.register_buffer("places", torch.eye(5, 6, dtype=torch.long))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x + self.places.to(self.table) @ self.table)

    result = verify(trace(Looked(), (5, 8), "looked"), Looked())
    assert figure(result, "backward_macs").ours == 5 * 6 * 8 + 2 * 5 * 8 * 3
    assert answer(result, "backward_macs", "torch").difference == 0


def test_parts_of_several_modules_are_no_mismatch() -> None:
    class Part(nn.Module):
        def __init__(self, shared: nn.Module) -> None:
            super().__init__()
            self.shared, self.own = shared, nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.own(self.shared(x))

    shared = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Part(shared), Part(shared))
    result = verify(trace(model, (3, 8, 8), "shared"), model)
    assert result.agrees is True
    reasons = [s.reason for s in result.skipped if s.figure == "params" and s.witness == "torchinfo"]
    assert reasons == ["it counts a module with several parents once for each"]


class Read(nn.Module):
    """Reads a sequence, optionally after a layer, optionally with initial states computed from it."""

    def __init__(self, layer: nn.RNNBase, front: bool, states: bool) -> None:
        super().__init__()
        self.front, self.layer = nn.Linear(8, 8) if front else nn.Identity(), layer
        self.state = nn.Linear(8, layer.hidden_size) if states else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.front(x)
        if self.state is None:
            return self.layer(x)[0]
        first = self.state(x.mean(1 if self.layer.batch_first else 0))
        several = self.layer.num_layers * (1 + self.layer.bidirectional)
        return self.layer(x, torch.stack([first] * several))[0]


@pytest.mark.parametrize(("kind", "states"), [(nn.RNN, True), (nn.GRU, True), (nn.GRU, False), (nn.LSTM, False)])
@pytest.mark.parametrize("arguments", [
    {}, {"num_layers": 2, "batch_first": True}, {"num_layers": 2, "bidirectional": True},
])  # fmt: skip
@pytest.mark.parametrize("front", [False, True])
def test_backward_macs_of_recurrent_layers_equal_the_counters(
    kind: type[nn.RNNBase], states: bool, arguments: dict[str, int], front: bool
) -> None:
    model = Read(kind(8, 6, **arguments), front, states)
    for learns in (True, False):
        model.layer.requires_grad_(learns)
        network = trace(model, (5, 8), "read")
        inputs = inputs_of(model, network)
        assert backward_macs(network) == flop_counter.backward_count(without_data(model), inputs).macs


def test_a_recurrent_layer_is_counted_on_the_cpu_as_on_the_meta_device() -> None:
    empty = without_data(nn.LSTM(3, 4, bidirectional=True))
    inputs = inputs_of(empty, trace(empty, (5, 3), "net"))
    for count in (flop_counter.forward_count, flop_counter.backward_count):
        assert count(on_cpu(empty), inputs) == count(empty, inputs)
        assert count(empty, inputs).macs > 0


def test_recurrent_layers_are_explained_for_fvcore() -> None:
    model = Read(nn.GRU(8, 6), front=True, states=False)
    (term,) = answer(verify(trace(model, (5, 8), "read"), model), "macs", "fvcore").terms
    assert term.amount == -5 * (3 * 6 * 8 + 3 * 6 * 6)


def test_attention_reads_each_token_with_all_its_features() -> None:
    model = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True)

    class Decoded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x, x.flip(1))

    result = verify(trace(Decoded(), (7, 32), "decoded"), Decoded())
    fields = answer(result, "receptive_fields", "autograd")
    assert (fields.agrees, fields.difference) == (True, 0)


def test_backward_stops_at_frozen_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 6, 1)).requires_grad_(False)
    model[1].requires_grad_(True)
    network = resolve("conv3-4/p0 conv3-5/p0 conv1-6", SMALL)
    convolutions = [node for node in network.nodes if node.parameters]
    nodes = tuple(
        replace(node, inputs=(before,), parameters=tuple(replace(p, trainable=i == 1) for p in node.parameters))
        for i, (before, node) in enumerate(zip([INPUT, *(n.name for n in convolutions)], convolutions))
    )
    network = replace(network, nodes=nodes)
    assert backward_macs(network) == 5 * 4 * 9 * 144 + 6 * 5 * 144
    assert answer(verify(network, model), "backward_macs", "torch").difference == 0


def test_the_module_is_left_as_it_was() -> None:
    network = resolve("conv3-8 BN FC-4", SMALL)
    from vggscope.builders.module import module

    model = module(network).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert verify(network, model).agrees is True
    assert all(part.training for part in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_a_module_with_a_layer_in_two_places_is_left_as_it_was() -> None:
    layer = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), layer, nn.ReLU(), layer)
    before = list(model.parameters())
    assert verify(trace(model, (3, 8, 8), "twice"), model).agrees is True
    assert all(now is then for now, then in zip(model.parameters(), before, strict=True))
    assert {parameter.device.type for parameter in before} == {"cpu"}


def test_computed_weights_are_explained_or_not_applicable() -> None:
    for wrap in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        model = nn.Sequential(wrap(nn.Conv2d(3, 16, 3)), nn.ReLU(), nn.Conv2d(16, 4, 1))
        result = verify(trace(model, (3, 8, 8), "made"), model)
        assert result.agrees is True
        (skipped,) = [s for s in result.skipped if s.figure == "training_peak_bytes"]
        assert skipped.reason.startswith("torch cannot be recorded")
        recorded = vggscope.verify(model, input_size=(1, 3, 8, 8))
        assert recorded.agrees is True
        assert not [s for s in recorded.skipped if s.figure == "training_peak_bytes"]


def test_a_module_without_gradients_has_its_receptive_fields() -> None:
    class Still(nn.Sequential):
        @torch.no_grad()
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    result = verify(
        trace(Still(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), (3, 9, 9), "still"),
        Still(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)),
    )
    assert result.agrees is True
    assert figure(result, "backward_macs").ours == 0
    assert answer(result, "receptive_fields", "autograd").value == 2


def test_a_copy_without_data_keeps_what_is_shared() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    copied = without_data(model)
    assert copied[2].weight is copied[0].weight
    assert copied[0].weight is not model[0].weight
    assert {tensor.device.type for tensor in copied.state_dict().values()} == {"meta"}
    assert [p.requires_grad for p in copied.parameters()] == [p.requires_grad for p in model.parameters()]
    assert (copied.training, model.training) == (False, True)


def test_a_module_that_cannot_be_copied_is_named() -> None:
    model = nn.Conv2d(3, 8, 3, padding=1)
    model.lock = threading.Lock()
    with pytest.raises(ModelError, match="conv3-8 cannot be copied for the reference tools: cannot pickle"):
        verify(resolve("conv3-8", SMALL), model)


def test_torchinfo_does_not_count_a_normalisation_with_submodules() -> None:
    class NormAndActivation(nn.BatchNorm2d):
        def __init__(self, channels: int) -> None:
            super().__init__(channels)
            self.act = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(super().forward(x))

    class Scale(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(channels, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    model = nn.Sequential(nn.Conv2d(3, 4, 3), NormAndActivation(4), nn.BatchNorm2d(4), Scale(4)).eval()
    result = verify(trace(model, (3, 9, 9), "parts"), model)
    terms = answer(result, "macs", "torchinfo").terms
    assert [term.amount for term in terms] == [4 * 7 * 7, 2 * 4 + 4]
    assert result.agrees is True
    assert answer(result, "training_peak_bytes", "tracker").agrees is True


def test_a_module_that_is_not_the_network_disagrees() -> None:
    result = verify(resolve("conv3-8 FC-4", SMALL), nn.Conv2d(3, 8, 3, padding=1, bias=False))
    assert result.agrees is False
    params = answer(result, "params", "torch")
    assert (params.value, params.agrees, params.terms, params.reason) == (216, False, (), "")
    assert params.difference == 216 - figure(result, "params").ours
    assert answer(result, "macs", "fvcore").agrees is False


class TestReferenceTools:
    def verified(self, monkeypatch: pytest.MonkeyPatch, *reference_tools: ReferenceTool) -> Verification:
        monkeypatch.setattr(verification, "REFERENCE_TOOLS", reference_tools)
        return verify(resolve("conv3-8 FC-4", SMALL))

    def test_the_output_of_tools_is_suppressed(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        def loud(network: Network, module: nn.Module) -> ReportedFigure:
            print("counting")
            print("counting", file=sys.stderr)
            warnings.warn("deprecated", FutureWarning, stacklevel=1)
            logging.getLogger("loud").error("unsupported operator")
            return ReportedFigure(sum(p.numel() for p in module.parameters()))

        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            result = self.verified(
                monkeypatch, *verification.REFERENCE_TOOLS, ReferenceTool("loud", "Loud", {"params": loud})
            )
        assert answer(result, "params", "loud").agrees is True
        assert (capfd.readouterr(), warned, caplog.records) == (("", ""), [], [])
        logging.getLogger("loud").error("after")
        assert [record.message for record in caplog.records] == ["after"]

    def test_a_package_that_is_missing_is_skipped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torchinfo", None)
        result = self.verified(monkeypatch, *verification.REFERENCE_TOOLS)
        skipped = {(s.figure, s.reason) for s in result.skipped if s.witness == "torchinfo"}
        assert skipped == {(name, "torchinfo is not installed: pip install torchinfo") for name in ("params", "macs")}
        assert tools(result)["macs"] == ["torch", "fvcore"]
        assert result.agrees is True

    def test_failing_not_applicable_and_wrong_tools(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(network: Network, module: nn.Module) -> ReportedFigure:
            raise ZeroDivisionError("by zero\nat length")

        def not_applicable(network: Network, module: nn.Module) -> ReportedFigure:
            raise NotApplicable("not my field")

        ours = figure(verify(resolve("conv3-8 FC-4", SMALL)), "macs").ours
        assert ours is not None

        def wrong(network: Network, module: nn.Module) -> ReportedFigure:
            return ReportedFigure(ours + 7)

        half = ReferenceTool("half", "Half", {"macs": wrong}, {"macs": lambda network, value: (Term(6, "nearly"),)})
        silent = ReferenceTool("silent", "Silent", {"params": fails, "macs": not_applicable}, package="silent")
        result = self.verified(monkeypatch, silent, half)
        assert [s.reason for s in result.skipped] == ["silent failed: ZeroDivisionError: by zero", "not my field"]
        mismatch = answer(result, "macs", "half")
        assert (mismatch.difference, mismatch.agrees, mismatch.terms) == (7, False, ())
        assert result.agrees is False
        assert self.verified(monkeypatch, silent).agrees is False

    def test_unknown_figures_are_not_compared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(verification, "total_macs", lambda costs: None)
        result = verify(resolve("conv3-8 FC-4", SMALL))
        macs = answer(result, "macs", "torch")
        assert (macs.difference, macs.agrees, macs.reason) == (None, None, "ours is not known")
        assert result.agrees is True

    def test_progress_names_each_tool_in_turn(self) -> None:
        titles: list[str] = []
        verify(resolve("conv3-8", SMALL), progress=titles.append)
        assert titles == [tool.title for tool in verification.REFERENCE_TOOLS]


class TestPublished:
    @pytest.mark.parametrize("column", FACTS)
    @pytest.mark.parametrize("head", ["adaptive", "flatten", "dense"])
    def test_a_column_is_known_by_its_layers(self, column: str, head: str) -> None:
        network = replace(resolve(column, BuildOptions(head=head, batch_norm=head == "dense")), name="mine")
        assert column_of(network) == column
        names = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}
        expected = names.get(column)
        assert model_name(network) == (expected and expected + "_bn" * (head == "dense"))

    @pytest.mark.parametrize(
        "options", [BuildOptions(num_classes=10), BuildOptions(input=(3, 256, 256)), BuildOptions(input=(1, 224, 224))]
    )
    def test_another_size_is_no_column(self, options: BuildOptions) -> None:
        assert column_of(resolve("D", options)) is None

    def test_a_name_does_not_make_a_column(self) -> None:
        network = replace(resolve("conv3-64 maxpool FC-1000"), name="D")
        assert column_of(network) is None
        assert model_name(network) is None

    @pytest.mark.parametrize("name", ["vgg11", "vgg13_bn", "vgg16", "vgg19_bn"])
    def test_torchvisions_own_module_agrees(self, name: str) -> None:
        with torch.device("meta"):
            model = torchvision.models.get_model(name)
        result = verify(resolve(name), model)
        assert result.agrees is True
        assert answer(result, "macs", "torchvision").rounded_to == 10**6
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        assert answer(result, "params", "torchvision").value == weights.meta["num_params"]


class TestTraced:
    """Networks that are no chains, traced from torchvision's modules."""

    def verified(self, name: str, **arguments: object) -> Verification:
        side = 299 if name == "inception_v3" else 224
        model = build_without_data(lambda: torchvision.models.get_model(name, weights=None, **arguments))
        with recorded_peaks(f"torchvision:{name} {side} 1"):
            result = verify(trace(model, (3, side, side), f"torchvision:{name}"), model)
        every_tool = ["torch", "torchinfo", "fvcore", "torchvision"]
        assert (tools(result)["params"], tools(result)["macs"]) == (every_tool, every_tool)
        assert tools(result)["backward_macs"] == ["torch"]
        assert tools(result)["receptive_fields"] == ["autograd"]
        assert result.agrees is True
        return result

    def test_residuals(self) -> None:
        result = self.verified("resnet18")
        assert figure(result, "macs").ours == 1814073344
        assert answer(result, "receptive_fields", "autograd").value == 60
        label, third_tensor = 8, 4 * 256 * 14**2
        terms = answer(result, "training_peak_bytes", "tracker").terms
        assert [term.amount for term in terms] == [-(4 * 3 * 224**2 + label), third_tensor]

    @pytest.mark.slow
    def test_depthwise_convolutions(self) -> None:
        (term,) = answer(self.verified("mobilenet_v2"), "backward_macs", "torch").terms
        assert "grouped" in term.what

    @pytest.mark.slow
    def test_heads_for_training_alone(self) -> None:
        result = self.verified("googlenet", init_weights=False)
        assert figure(result, "params").ours == 13004888
        assert answer(result, "params", "torchvision").terms == (
            Term(6624904 - 13004888, "parameters that nothing reads at evaluation"),
        )
        terms = answer(result, "inference_peak_bytes", "tracker").terms
        assert [term.amount for term in terms] == [-4 * 3 * 224**2]  # our figure has their running statistics too
        assert answer(result, "training_peak_bytes", "tracker").agrees is True

    @pytest.mark.slow
    def test_attention(self) -> None:
        result = self.verified("vit_b_16")
        tokens, width, layers = 197, 768, 12
        attention, norms = answer(result, "macs", "fvcore").terms
        assert {attention.amount, norms.amount} == {
            -2 * tokens * tokens * width * layers, 5 * tokens * width * (2 * layers + 1),
        }  # fmt: skip

    @pytest.mark.slow
    def test_einsum_is_explained_by_its_rounded_text(self) -> None:
        result = self.verified("maxvit_t")
        products = [(64 * 2 * 49 * 49 * 32, 8), (16 * 4 * 49 * 49 * 32, 8), (4 * 8 * 49 * 49 * 32, 20),
                    (16 * 49 * 49 * 32, 8)]  # fmt: skip
        read = sum((int(float(f"{2 * macs:.3e}")) // 2 - macs) * times for macs, times in products)
        assert read == 8 * 504 - 8 * 248 - 20 * 124 + 8 * 188
        (term,) = (t for t in answer(result, "macs", "fvcore").terms if "einsum" in t.what)
        assert term.amount == read

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "name", ["alexnet", "squeezenet1_1", "densenet121", "mobilenet_v3_small", "shufflenet_v2_x0_5", "swin_t"]
    )
    def test_other_families(self, name: str) -> None:
        self.verified(name)


def test_an_unchecked_figure_is_counted_as_such() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    result = vggscope.verify(model, input_size=(1, 8))
    assert {figure.name: figure.outcome for figure in result.figures} == {
        "params": "agrees",
        "macs": "explained",
        "backward_macs": "agrees",
        "inference_peak_bytes": "explained",
        "training_peak_bytes": "explained",
        "receptive_fields": "unchecked",
    }
    assert result.agrees is True
    assert str(result).rstrip().endswith("2 agree, 3 explained, 1 unchecked (layers' fields)")


SOUND = [
    "image_with_batch_norm",
    "unbatched_image",
    "signal_three_channels",
    "volume_up",
    "embedding_first",
    "one_layer_twice",
    "lstm_length_first",
    "gru_cell",
    "matrix_by_hand",
    "convolution_same_padding",
    "loop_over_samples",
    "auxiliary_head",
    "half_precision",
    "dict_with_a_forward",
    "frames_as_batch",
    "grid_sampler",
    "bilinear_pair",
]


@pytest.mark.parametrize("name", SOUND)
def test_no_tool_disagrees_on_a_sound_model(name: str) -> None:
    module, inputs = ZOO[name]()
    axis = None if name == "unbatched_image" else int(name == "lstm_length_first")
    result = vggscope.verify(module.eval(), input_data=inputs, batch_axis=axis)
    assert [figure.name for figure in result.figures if figure.outcome == "disagrees"] == []


class MaskedAttention(nn.Module):
    """Attention with a mask, which is an input, or is made by forward, which then also chooses its kernel."""

    def __init__(self, *, need_weights: bool = True, is_given: bool = False) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, add_zero_attn=True)
        self.need_weights, self.is_given = need_weights, is_given

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        tokens = batch["tokens"]
        mask = batch["mask"] if self.is_given else torch.zeros(tokens.shape[:2], dtype=torch.bool)
        attended, _ = self.attention(tokens, tokens, tokens, key_padding_mask=mask, need_weights=self.need_weights)
        return attended


@pytest.mark.parametrize(
    ("need_weights", "is_given", "uncounted"), [(True, True, 1), (True, False, 1), (False, False, 2)]
)
def test_masked_attention_is_explained_for_fvcore(need_weights: bool, is_given: bool, uncounted: int) -> None:
    """torch adds the products of queries with keys to a mask by baddbmm, which fvcore does not know."""
    module = MaskedAttention(need_weights=need_weights, is_given=is_given).eval()
    batch = {"tokens": torch.zeros(1, 5, 16), "mask": torch.zeros(1, 5, dtype=torch.bool)}
    result = vggscope.verify(module, input_data=(batch if is_given else {"tokens": batch["tokens"]},))
    (term,) = answer(result, "macs", "fvcore").terms
    assert term.amount == -uncounted * 5 * 6 * 16
    checked = {figure.name: [answer.witness for answer in figure.answers] for figure in result.figures}
    assert checked["macs"] == ["torch", "torchinfo", "fvcore"]
    assert all(checked[name] == tools for name, tools in TORCH_ONLY.items())
    assert result.agrees is True


def test_a_module_that_is_one_layer_has_its_field_measured() -> None:
    result = vggscope.verify(nn.Conv2d(3, 4, 3), input_size=(1, 3, 8, 8))
    assert (result.agrees, result.unchecked) == (True, ())


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), (1, 3, 4)),
        (nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 8, 3)), (1, 3, 20)),
        (nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU()), (1, 3, 5, 5, 5)),
        (nn.Linear(4, 3), (1, 5, 4)),
        (nn.Sequential(nn.Conv2d(3, 4, 4, padding="same"), nn.ReLU()), (1, 3, 8, 8)),
        (nn.Sequential(nn.Linear(4, 3), nn.Flatten(0)), (1, 4)),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_a_measured_step_equals_the_simulated_one(module: nn.Module, shape: tuple[int, ...]) -> None:
    axis = None if isinstance(module, nn.Sequential) and isinstance(module[-1], nn.Flatten) else 0
    for mode in ("train", "inference"):
        result = vggscope.measure(module, input_data=(torch.zeros(shape),), batch_axis=axis, mode=mode)
        assert result.difference_bytes == 0


def test_a_frozen_model_has_nothing_to_train() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 2)).requires_grad_(False)
    with pytest.raises(ModelError, match="Sequential has nothing to train: all its parameters are frozen"):
        vggscope.measure(model, input_size=(1, 3, 32, 32))
    assert vggscope.measure(model, input_size=(1, 3, 32, 32), mode="inference").difference_bytes == 0


class Refuses(nn.Module):
    """Runs at evaluation and raises in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise ValueError("no labels were given")
        return self.layer(x)


def halved(x: torch.Tensor) -> torch.Tensor:
    return x / 2


class Compiled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.halved = torch.compile(halved)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.compile(lambda y: self.fc(y).relu())(self.halved(x))


class WithCompiledMethod(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.run = torch.compile(self.whole)

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x).relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)


def test_tools_run_compiled_code_as_plain_python() -> None:
    result = vggscope.verify(Compiled(), (8,))
    assert result.agrees
    assert result.unchecked == ("receptive_fields",)
    assert vggscope.measure(Compiled(), (8,)).difference_bytes == 0


def test_a_compiled_method_runs_the_original_and_not_the_copy() -> None:
    result = vggscope.verify(WithCompiledMethod(), (8,))
    assert result.agrees
    assert "forward calls a Linear" in next(
        s.reason for s in result.skipped if (s.witness, s.figure) == ("torch", "macs")
    )


def test_an_error_of_the_model_names_its_line() -> None:
    with pytest.raises(ModelError, match=r"test_cross_checks.py, line \d+.*ValueError: no labels were given") as raised:
        vggscope.measure(Refuses(), input_size=(1, 4))
    assert "defect" not in str(raised.value)


def test_an_error_of_vggscope_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(measured_step, "_memory_tracker", broken)
    with pytest.raises(ZeroDivisionError):
        vggscope.measure(nn.Linear(4, 2), input_size=(1, 4))


def pruned() -> nn.Module:
    layer = nn.Conv2d(3, 4, 3)
    l1_unstructured(layer, "weight", 0.3)
    return layer


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [pruned, lambda: nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), lambda: nn.utils.spectral_norm(nn.Conv2d(3, 4, 3))],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_module_with_a_weight_computed_by_a_hook_is_copied(make: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(make(), nn.ReLU())
    model(torch.ones(1, 3, 8, 8))
    assert vggscope.verify(model, input_size=(1, 3, 8, 8)).agrees
    assert vggscope.measure(model, input_size=(1, 3, 8, 8)).difference_bytes == 0
    numeric = vggscope.diff(model, ref=model, input_size=(1, 3, 8, 8), numeric=True).numeric
    assert numeric is not None
    assert numeric.max_abs_error == 0


class Disturbs(nn.Module):
    """Writes to its input and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.add_(random.random() + torch.rand(1))
        return self.layer(x)


COMMANDS: dict[str, Callable[[nn.Module, torch.Tensor], object]] = {
    "verify": lambda model, x: vggscope.verify(model, input_data=(x,)),
    "measure": lambda model, x: vggscope.measure(model, input_data=(x,)),
    "diff": lambda model, x: vggscope.diff(model, ref=model, input_data=(x,), numeric=True),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_random_numbers_and_inputs_stay_as_they_were(command: str) -> None:
    model, x = Disturbs(), torch.ones(1, 3, 8, 8)
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    COMMANDS[command](model, x)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert torch.equal(x, torch.ones(1, 3, 8, 8))


class Catches(nn.Module):
    """Catches an error in forward, on which torch.jit's tracer may end the process."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            return self.layer(x)
        except RuntimeError:
            return x


def test_fvcore_does_not_run_a_forward_that_catches_errors() -> None:
    result = vggscope.verify(nn.Sequential(Catches()), input_size=(1, 4))
    (skipped,) = [s for s in result.skipped if (s.witness, s.figure) == ("fvcore", "macs")]
    assert skipped.reason == "forward of Catches catches errors, on which torch.jit's tracer may end the process"
    assert result.agrees


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "name",
    [
        *("signal_up", "flattened_rows", "tied_autoencoder", "text_convolution", "encoder_with_mask", "siamese"),
        *("attention_with_weights", "dict_input", "dataclass_output", "normal_output", "complex_linear"),
        *("spectral_norm", "weight_norm", "checkpointed", "script_function_without_source", "quantized_dynamically"),
        *("language_model_of_transformers", "deformable_convolution"),
    ],
)
def test_no_tool_disagrees_on_a_module_of_another_kind(name: str) -> None:
    module, inputs = ZOO[name]()
    result = vggscope.verify(module, input_data=inputs, batch_axis=call_inputs(name, inputs).batch_axis)
    assert [figure.name for figure in result.figures if figure.outcome == "disagrees"] == []


@pytest.mark.parametrize("kind", [nn.LSTM, nn.RNN, nn.GRU])
def test_layers_after_gates_that_saturate_are_not_measured(kind: type[nn.RNNBase]) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.fc = kind(11, 32, batch_first=True), nn.Linear(32, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.fc(self.recurrent(x)[0][:, -1])
            return scores

    assert vggscope.verify(Last(), input_size=(7, 11)).agrees


class PaddedByWord(nn.Module):
    """Passes the padding as a word to the function, not to a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3, 3, 3))
        self.mirrored = nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mirrored(nn.functional.conv2d(x, self.weight, padding="same"))


@pytest.mark.parametrize(
    "kind",
    [
        PaddedByWord,
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True), nn.Conv2d(4, 4, 3)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.InstanceNorm1d(4, affine=True)),
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.RMSNorm(6), nn.Conv2d(8, 4, 3)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False, track_running_stats=False)),
    ],
)
def test_norms_and_named_paddings_are_explained(kind: Callable[[], nn.Module]) -> None:
    net = kind()
    assert verify(trace(net, (3, 8, 8), "net"), net).agrees is True


class Shortcut(nn.Module):
    """No chain, with a table that only its file has."""

    def __init__(self, table: float) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.register_buffer("table", torch.full((4, 1, 1), table))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x) * self.table
        return x + self.second(x)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("suffix", [".pt2", ".pt", ".json", "network"])
def test_a_graph_that_is_no_chain_is_run_op_by_op(tmp_path: Path, suffix: str) -> None:
    image, model = torch.zeros(1, 3, 8, 8), Shortcut(0.5).eval()
    path = str(tmp_path / f"net{suffix}")
    if suffix == ".pt2":
        torch.export.save(torch.export.export(model, (image,)), path)
    elif suffix == ".pt":
        torch.jit.trace(model, image).save(path)
    elif suffix == ".json":
        Path(path).write_text(write(vggscope.lock(model, input_size=(1, 3, 8, 8)), "json"))
    traced = vggscope.network(model, input_size=(1, 3, 8, 8))
    result = vggscope.verify(*((traced,) if suffix == "network" else (path, (1, 3, 8, 8))))
    macs = 64 * 9 * 4 * (3 + 4)
    answers = {(figure.name, answer.witness): answer.value for figure in result.figures for answer in figure.answers}
    ours = {figure.name: figure.ours for figure in result.figures}
    assert (ours["params"], ours["macs"]) == (4 * 28 + 4 * 37, macs)
    assert result.agrees
    assert answers == {("macs", "torch"): macs}
    reasons = {(skipped.witness, skipped.figure): skipped.reason for skipped in result.skipped}
    assert "op by op" in reasons["autograd", "receptive_fields"]
    assert "10 figures" not in str(result)
    assert "9 figures of torch, torchinfo, fvcore, torch's memory tracker, autograd: the network" in str(result)


def test_a_network_that_nothing_runs_is_compared_with_what_is_published() -> None:
    network = resolve("torchvision:vgg11")
    last = network.nodes[-1]
    unknown = Unknown("Magic", (network.shapes[last.name],), network.shapes[last.name])
    changed = replace(network, nodes=(*network.nodes, Node("magic", unknown, (last.name,))), output=None)
    result = verify(changed)
    answers = {(figure.name, answer.witness): answer for figure in result.figures for answer in figure.answers}
    assert answers["params", "torchvision"].difference == 0
    assert {witness for _, witness in answers} <= {"torchvision", "paper"}
    (reason,) = {skipped.reason for skipped in result.skipped if skipped.witness == "torch"}
    assert "magic is a call of Magic, for which there is no call of torch's to run" in reason
