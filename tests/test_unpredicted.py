"""Figures that no rule predicts: they are recorded from torch, withheld, or said to be by rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import vggscope
from vggscope.analysis.cost import costs
from vggscope.errors import ModelError
from vggscope.graph import Network
from vggscope.inputs import InputSize
from vggscope.trace.inputs import from_sizes
from vggscope.trace.network import network_of
from vggscope.trace.preserve import stored_tensors

BY_RULES = "the peak memory is by the rules of each op"


def holds(module: nn.Module, mode: str = "train", **given: object) -> None:
    """Hold the predicted peak to torch's memory tracker."""
    result = vggscope.measure(module, mode=mode, optimizer="sgd", **given)  # type: ignore[arg-type]
    assert result.predicted_bytes == result.measured_bytes


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


def test_a_summary_says_that_a_peak_is_by_rule() -> None:
    module = Attends()
    network = vggscope.network(module, input_data=torch.randn(1, 16, 32))
    assert [text.partition(",")[0] for text in vggscope.summary(network).warnings] == [BY_RULES]
    assert vggscope.compare(network).models[0].warnings == vggscope.summary(network).warnings
    assert not vggscope.summary(module, input_data=torch.randn(1, 16, 32)).warnings
    assert not vggscope.summary(vggscope.network("D")).warnings


class NotesItsMode(nn.Module):
    """Passes its mode on, and permutes: torch copies a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        seen.append(self.linear.training)
        return self.linear(functional.dropout(x, training=self.training).permute(0, 2, 1).reshape(-1, 6, 8))


seen: list[bool] = []


def test_a_trace_without_memory_runs_no_training_mode_and_says_so() -> None:
    inputs = from_sizes(module := NotesItsMode(), [InputSize((6, 8))])
    runs = {}
    for memory in (True, False):
        seen.clear()
        runs[memory] = network_of(module, "net", inputs, memory=memory), True in seen
    (whole, ran_training), (plain, ran_training_without) = runs[True], runs[False]
    assert (ran_training, ran_training_without) == (True, False)
    assert whole == plain
    assert costs(whole) == costs(plain)
    assert (whole.predicts_memory, plain.predicts_memory) == (True, False)
    assert [text.partition(",")[0] for text in vggscope.summary(plain).warnings] == [BY_RULES]
    assert not vggscope.summary(whole).warnings


def test_a_trace_without_memory_says_of_unused_parameters_what_it_knows() -> None:
    class WithHead(NotesItsMode):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.spare = nn.Linear(8, 2), nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Any:
            y = super().forward(x)
            return (y, self.head(y)) if self.training else y

    inputs = from_sizes(module := WithHead(), [InputSize((6, 8))])
    whole, plain = (network_of(module, "net", inputs, memory=memory) for memory in (True, False))
    in_training, never = "runs only in training", "not used by forward"
    assert [why for _, why in whole.unused] == [never, in_training, in_training]
    assert [why for _, why in plain.unused] == ["not used at evaluation"] * 3
    assert [parameter for parameter, _ in plain.unused] == [parameter for parameter, _ in whole.unused]
    assert plain.parameter_count == whole.parameter_count


@pytest.mark.parametrize("analysis", [vggscope.receptive_fields, vggscope.summary])
def test_receptive_fields_run_no_training_mode(analysis: Callable[..., object]) -> None:
    seen.clear()
    analysis(NotesItsMode(), (1, 6, 8))
    assert seen
    assert (True in seen) == (analysis is vggscope.summary)


def test_a_diff_compares_training_memory_by_rule_only_where_rules_hold() -> None:
    def texts(ours: nn.Module | Network, ref: nn.Module) -> str:
        differences = vggscope.diff(ours, ref, input_data=torch.randn(1, 16, 32)).differences
        return " ".join(text for difference in differences for text in difference.consequences)

    plain, wider = (nn.Sequential(nn.Linear(32, n), nn.ReLU(), nn.Linear(n, 4)) for n in (8, 16))
    assert "to train" in texts(wider, plain)
    attending = (nn.Sequential(Attends(), *layers) for layers in (wider, plain))
    assert "to train" not in texts(*attending)


def widened(x: Tensor, linear: nn.Linear) -> Tensor:
    """Read the mode in a function outside the class."""
    return functional.relu(linear(functional.relu(x))) if linear.training else x


def spread(x: Tensor, *, training: bool) -> Tensor:
    return torch.cat([x, x, x], 1)[:, : x.shape[1]] * x if training else x


class InAFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(widened(x, self.linear))


class PassesItOn(InAFunction):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(spread(x, training=self.training))


class Hooked(nn.Sequential):
    """A hook reads the mode."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
        self[0].register_forward_hook(lambda module, _, y: y.repeat(3, 1)[: len(y)] * y if module.training else y)


@pytest.mark.parametrize("kind", [InAFunction, PassesItOn, Hooked])
def test_a_mode_that_is_read_anywhere_changes_the_step(kind: type[nn.Module]) -> None:
    network = vggscope.network(kind(), input_size=(64,))
    assert not network.follows_rules or network.training_step is not None
    holds(kind(), input_size=(64,))


class DropsOut(nn.Module):
    """Passes its mode on to torch, where it makes no difference to the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.linear(x), 0.5, self.training)


def test_a_mode_that_torch_gets_follows_the_rules() -> None:
    network = vggscope.network(DropsOut(), input_size=(64,))
    assert network.follows_rules
    assert not network.warnings
    assert "training" not in vars(nn.Module)
    holds(DropsOut(), input_size=(64,))


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.encoder(x, src_key_padding_mask=mask)


@pytest.mark.filterwarnings("ignore::UserWarning")  # nested tensors
def test_a_padding_mask_counts_as_it_is() -> None:
    mask = torch.zeros(2, 10, dtype=torch.bool)
    mask[1, 7:] = True  # the fast path packs 10 and 7 positions
    given = {"input_data": (torch.randn(2, 10, 32), mask)}
    for mode in ("inference", "train"):
        holds(Masked(), mode, **given)
    numeric = vggscope.diff(Masked(), Masked(), numeric=True, **given).numeric  # type: ignore[arg-type]
    assert numeric is not None
    assert numeric.max_abs_error == 0


class PlainList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(64, 64)]
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden[0](x))


class PlainTensor(PlainList):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Identity()]
        self.scales = [nn.Parameter(torch.ones(64))]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.scales[0])


@pytest.mark.parametrize("kind", [PlainList, PlainTensor])
def test_what_autograd_trains_outside_the_state_is_not_known(kind: type[nn.Module]) -> None:
    report = vggscope.summary(kind(), input_size=(64,))
    assert (report.memory.inference_peak_bytes, report.memory.training_peak_bytes) == (None, None)
    assert any("registered" in text for text in report.warnings[:-1])
    assert report.warnings[-1].startswith("the peak memory of a forward pass and a training step is not known")
    assert vggscope.operations(kind(), input_size=(64,)).totals.backward_macs is None
    for ask in (vggscope.memory, vggscope.measure):
        with pytest.raises(ModelError, match="its unregistered parameters"):
            ask(kind(), input_size=(64,))


class Restores(nn.Module):
    """Gives a transposed convolution the size of the input."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x), output_size=x.shape[-2:])


@pytest.mark.parametrize("side", [15, 16])
def test_an_output_size_is_an_output_padding(side: int) -> None:
    report = vggscope.summary(Restores(), input_size=(3, side, side))
    assert (report.warnings, report.layers[1].output_shape) == ((), (1, 6, side, side))
    figures = {figure.name: figure for figure in vggscope.verify(Restores(), input_size=(3, side, side)).figures}
    assert (figures["macs"].agrees, figures["backward_macs"].outcome) == (True, "agrees")


class Trilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,oij,bj->bo", x, self.weight, x)


class Branches(nn.Module):
    """Takes a way that its values choose."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(torch.cat([y, y, y], 1)[:, :64]) * y if self.first.weight.std().item() > 0 else y


@pytest.mark.parametrize("module", [Trilinear(), Branches()])
def test_verify_accuses_no_sound_model(module: nn.Module) -> None:
    size = 8 if isinstance(module, Trilinear) else 64
    verification = vggscope.verify(module, input_size=(size,))
    assert verification.agrees
    assert "disagrees" not in {figure.outcome for figure in verification.figures}


class HalfInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8).half(), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_a_mixture_that_fails_is_not_said_to_be_converted() -> None:
    (alert, note) = vggscope.summary(HalfInside(), input_size=(8,)).warnings
    assert "must have the same dtype" in alert
    assert note.endswith("module.float() in the model's code converts them to one")


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bags, self.linear = nn.EmbeddingBag(20, 8), nn.Linear(8, 3)

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor:
        return self.linear(self.bags(indices, offsets))


def test_bags_of_one_flat_tensor_are_not_cut() -> None:
    given = {"input_data": (torch.arange(10), torch.tensor([0, 4, 7]))}
    report = vggscope.summary(Bag(), **given)  # type: ignore[arg-type]
    assert [row.output_shape for row in report.layers] == [(3, 8), (3, 3)]
    numeric = vggscope.diff(Bag(), Bag(), numeric=True, **given).numeric  # type: ignore[arg-type]
    assert numeric is not None
    assert numeric.max_abs_error == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_step_that_trains_nothing_has_no_peak() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    quantised = torch.ao.quantization.quantize_dynamic(module, {nn.Linear})
    frozen = nn.Sequential(nn.Linear(8, 8)).requires_grad_(requires_grad=False)
    for model in (quantised, frozen):
        report = vggscope.summary(model, input_size=(8,))
        assert report.memory.inference_peak_bytes is not None
        assert report.memory.training_peak_bytes is None
        assert report.warnings[-1].startswith(
            "the peak memory of a training step is not known: it has nothing to train"
        )
        assumptions = vggscope.memory(model, input_size=(8,)).assumptions
        assert any("without a backward pass: it has nothing to train" in text for text in assumptions)


class Refuses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        if y.sum().item() > -1e9 and self.training:
            raise ValueError("no")
        return y


def test_measure_says_whether_its_tensors_have_data() -> None:
    with pytest.raises(ModelError, match="a step of Refuses on tensors with data fails"):
        vggscope.measure(Refuses(), input_size=(8,))


class Autocasts(nn.Module):
    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.convolution, self.linear = device, nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16):
            y = functional.relu(self.convolution(x))
        return self.linear(functional.gelu(y.float()).mean((2, 3)))


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_autocast_in_forward_is_followed_or_said(device: str) -> None:
    (note,) = vggscope.summary(Autocasts(device), input_size=(3, 16, 16)).warnings
    assert note.startswith(f"forward turns on autocast for {device}")
    for mode in ("inference", "train"):
        holds(Autocasts("cpu"), mode, input_size=(3, 16, 16))


class AutocastsAll(nn.Module):
    """Layers and functions of every policy of autocast: to half precision, to single, the widest, and as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(2), nn.LayerNorm(36)])
        self.attention, self.head = nn.MultiheadAttention(36, 4, batch_first=True), nn.Linear(36, 10)

    def outputs(self, x: Tensor) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = [x]
            for layer in self.layers:
                outputs.append(layer(outputs[-1]))
            outputs.append(self.attention(*outputs[-1:] * 3)[0])
            outputs.append(torch.cat([outputs[-1], outputs[-1].float()], 1))
            outputs.append(outputs[-1] @ self.head.weight.mT)
            outputs.append(outputs[-1].prod(-1))
            outputs.append(functional.mse_loss(outputs[-1], outputs[-1].bfloat16()))
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)[-1]


def test_dtypes_under_autocast_are_those_of_torch() -> None:
    model = AutocastsAll().eval()
    x = torch.randn(1, 3, 8, 8)
    expected = [output.dtype for output in model.outputs(x)[1:]]
    assert len(set(expected)) == 2
    summary = vggscope.summary(model, input_data=x)
    known = {layer.name: layer for layer in summary.layers}
    names = [*(f"layers.{place}" for place in range(5)), "attention", "cat", "matmul", "prod", "mse_loss"]
    assert [known[name].dtype for name in names] == [str(dtype).removeprefix("torch.") for dtype in expected]
    assert known["layers.0"].activation_bytes == 8 * 6 * 6 * 2
    assert [note for note in summary.warnings if "autocast" in note] == [
        "forward turns on autocast for cpu: the dtypes and bytes of layers are those that it gives"
    ]


class Layers(nn.Module):
    """Two convolutions and a head, with something odd between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def between(self, x: Tensor) -> Tensor:
        return functional.relu(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.between(self.first(x))).mean((2, 3)))


class ReplacesBuffer(Layers):
    """Puts another tensor in the place of a buffer, as a moving average does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(8))

    def between(self, x: Tensor) -> Tensor:
        self.average = self.average * 0.9 + x.detach().mean((0, 2, 3)) * 0.1
        return x - self.average[:, None, None]


class PassesBuffersOn(Layers):
    """Detaches one buffer in place, and puts each of two others in the place of the other."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("table", "even", "odd"):
            self.register_buffer(name, torch.ones(8, 16, 16))

    def between(self, x: Tensor) -> Tensor:
        self.table = self.table.detach()
        self.even, self.odd = self.odd, self.even
        return x * self.table + self.even


class AsksGradient(Layers):
    """Runs a layer again if it is trained."""

    def between(self, x: Tensor) -> Tensor:
        return self.second(functional.relu(x)) if self.second.weight.requires_grad else x


class MakesLeaf(Layers):
    """Cuts the graph, and asks for a gradient at the cut."""

    def between(self, x: Tensor) -> Tensor:
        return x.detach().requires_grad_()


class Hooks(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.first.register_forward_hook(lambda _, inputs, output: output * 2 + inputs[0].mean())
        self.second.register_forward_pre_hook(lambda _, inputs: (torch.sin(inputs[0]),))


class Averages(torch.autograd.Function):
    """A custom function with results that are no tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: int) -> tuple[Tensor, str, int]:  # type: ignore[override]
        ctx.save_for_backward(x)
        return x * factor, "name", factor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: object) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient * 2, None


class CallsCustom(Layers):
    def between(self, x: Tensor) -> Tensor:
        y, _, factor = Averages.apply(x, 2)
        return functional.relu(y) * factor


class WritesViews(Layers):
    def between(self, x: Tensor) -> Tensor:
        x[:, :4].mul_(2)
        y = x.clone()
        y.view(len(y), -1)[:, ::2].add_(1)
        y[:, 4:].relu_()
        return y


class CallsFunctionally(Layers):
    def between(self, x: Tensor) -> Tensor:
        state = {"weight": self.second.weight * 2, "bias": self.second.bias}
        return functional.relu(torch.func.functional_call(self.second, state, (x,)))


class Detaches(Layers):
    def between(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            gate = self.second(x)
        return x.detach() * gate.sigmoid() + x


class Rounds(Layers):
    """A straight-through estimator."""

    def between(self, x: Tensor) -> Tensor:
        weight = self.second.weight
        weight = weight + (weight.round() - weight).detach()
        return functional.conv2d(x, weight, padding=1)


def torch_macs(module: nn.Module, x: Tensor) -> tuple[int, int]:
    """The multiply-accumulates of both passes by torch's counter."""
    with FlopCounterMode(display=False) as forward:
        output = module(x)
    with FlopCounterMode(display=False) as backward:
        output.abs().sum().backward()
    return forward.get_total_flops() // 2, backward.get_total_flops() // 2


ODD = [
    ReplacesBuffer,
    PassesBuffersOn,
    AsksGradient,
    MakesLeaf,
    Hooks,
    CallsCustom,
    WritesViews,
    CallsFunctionally,
    Detaches,
    Rounds,
]


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_module_has_the_figures_of_torch_or_none(kind: type[nn.Module]) -> None:
    module = kind()
    totals = vggscope.operations(module, input_size=(3, 16, 16)).totals
    macs, backward = torch_macs(module.eval(), torch.randn(1, 3, 16, 16))
    assert totals.macs == macs
    assert totals.backward_macs == (None if kind is MakesLeaf else backward)
    for mode in ("inference", "train"):
        holds(kind(), mode, input_size=(3, 16, 16))


def test_a_compiled_module_is_measured_as_it_was() -> None:
    holds(torch.compile(Layers()), input_size=(3, 16, 16))


class LooksUp(nn.Module):
    """Reads rows of a table of 50 x 4 in each way that torch can give a sparse gradient."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.layer = how, nn.EmbeddingBag(50, 4, sparse=True) if how == "bag" else nn.Embedding(50, 4)
        self.layer.sparse, self.head = how in ("bag", "layer"), nn.Linear(4, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        table = self.layer.weight
        if self.how == "function":
            rows = functional.embedding(tokens, table, sparse=True).mean(1)
        elif self.how == "gather":
            rows = table.gather(0, tokens[:, :1].expand(-1, 4), sparse_grad=True)
        else:
            rows = self.layer(tokens) if self.how == "bag" else self.layer(tokens).mean(1)
        return self.head(rows)


@pytest.mark.parametrize("how", ["layer", "bag", "function", "gather"])
def test_a_sparse_gradient_has_no_known_bytes(how: str) -> None:
    model = LooksUp(how)
    tokens = torch.zeros(1, 3, dtype=torch.long)
    summary = vggscope.summary(model, input_data=tokens)
    assert summary.memory.training_peak_bytes is None
    reason = "the gradient of layer.weight is sparse: its size depends on the rows that the batch reads"
    assert [w for w in summary.warnings if "memory" in w] == [
        f"the peak memory of a training step is not known: {reason}"
    ]
    for ask in (vggscope.memory, vggscope.measure):
        with pytest.raises(ModelError, match=reason):
            ask(model, input_data=tokens)
    holds(model, "inference", input_data=tokens)
    model.layer.weight.requires_grad_(False)
    assert vggscope.summary(model, input_data=tokens).memory.training_peak_bytes is not None


def test_a_dense_gradient_of_a_table_is_known() -> None:
    holds(LooksUp("dense"), "train", input_data=torch.zeros(1, 3, dtype=torch.long))


class Helper:
    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.named: dict[str, list[Tensor]] = {"last": []}


class SlotHelper:
    __slots__ = ("last", "tensors")

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []


class StoresTensor(nn.Module):
    """Stores the double of a layer's output for its next call."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.first, self.last = where, nn.Linear(16, 64), nn.Linear(64, 4)
        self.helper, self.slots, self.nested = Helper(), SlotHelper(), ([],)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        kept = y * 2
        if self.where == "attribute":
            self.kept = kept
        elif self.where == "list of a helper":
            self.helper.tensors = [*self.helper.tensors[-1:], kept.detach()]
        elif self.where == "dict of a helper":
            self.helper.named["last"][:] = [kept]
        elif self.where == "slot":
            self.slots.last, self.slots.tensors = kept, [kept]
        else:
            self.nested[0][:] = [kept]
        return self.last(y)


@pytest.mark.parametrize("where", ["attribute", "list of a helper", "dict of a helper", "slot", "list in a tuple"])
@pytest.mark.parametrize("has_run", [False, True])
def test_tensors_that_forward_stores_are_in_memory_and_not_in_the_model(where: str, has_run: bool) -> None:
    model = StoresTensor(where)
    if has_run:
        model(torch.zeros(2, 16))
    before = [id(tensor) for tensor in stored_tensors(model)]
    for mode in ("inference", "train"):
        holds(model, mode, input_size=(16,))
    assert [id(tensor) for tensor in stored_tensors(model)] == before


class SparseWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(16).to_sparse())

    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(self.weight, x)


class SparseGraph(nn.Module):
    """Makes a sparse matrix of learned values in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.values = nn.Buffer(torch.arange(16).repeat(2, 1)), nn.Parameter(torch.ones(16))
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse_coo_tensor(self.places, self.values, (16, 16)) @ self.fc(x)


@pytest.mark.parametrize("kind", [SparseWeight, SparseGraph])
def test_memory_with_a_sparse_matrix_is_withheld(kind: Callable[[], nn.Module]) -> None:
    given: dict[str, Any] = {"input_data": torch.randn(16, 8), "batch_axis": None}
    summary = vggscope.summary(kind(), **given)
    assert (summary.memory.inference_peak_bytes, summary.memory.training_peak_bytes) == (None, None)
    assert any("computes with a sparse matrix" in text for text in summary.warnings)
    with pytest.raises(ModelError, match="computes with a sparse matrix") as raised:
        vggscope.memory(kind(), **given)
    assert "to_dense" in raised.value.remedy


class Mapped(nn.Module):
    """A linear layer under vmap, for which torch adds the bias to a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 32)

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(self.fc)(x)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_forward_pass_under_vmap_is_recorded(batch: int) -> None:
    assert vggscope.measure(Mapped(), (16,), batch=batch, mode="inference").difference_bytes == 0


class FrozenNorm(nn.Module):
    """Freezes a norm and a dropout where it is set to training, as object detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout()

    def train(self, mode: bool = True) -> FrozenNorm:
        super().train(mode)
        self.norm.eval()
        self.drop.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.conv(x)).relu())


class FreezesInForward(FrozenNorm):
    def train(self, mode: bool = True) -> FreezesInForward:
        nn.Module.train(self, mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.norm.eval()
        self.drop.eval()
        return super().forward(x)


@pytest.mark.parametrize("kind", [FrozenNorm, FreezesInForward])
def test_layers_that_stay_in_evaluation_mode_are_recorded_so(kind: Callable[[], nn.Module]) -> None:
    module = kind()
    assert vggscope.measure(module, (3, 16, 16), batch=2).difference_bytes == 0
    assert module.norm.training
