"""The numeric error between two networks that have the same weights and get the same input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, count
from typing import TYPE_CHECKING, Protocol

from vggscope.diffing.folded import FoldedNorm, folded_norms
from vggscope.diffing.locate import align_networks
from vggscope.diffing.result import Numeric
from vggscope.errors import ModelError, OptionError, option
from vggscope.graph import Network, Node
from vggscope.record import record
from vggscope.trace.forward import random_state
from vggscope.trace.inputs import CallInputs, inputs_of
from vggscope.trace.quantized import has_quantized_tensors
from vggscope.trace.tensors import tensors_in

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

TOLERANCES = {"float64": 1e-9, "float32": 3e-5, "float16": 1e-2, "bfloat16": 5e-2}
"""The error by dtype, relative to a layer's largest value, above which two layers' outputs count as different.

It is some 250 times the rounding error of float32, which a sum of a thousand products reaches in another order.
"""

STEPS = ("building ours", "building the reference", "running ours", "running the reference")


class Runner(Protocol):
    """A network that is run: a module by torch, or a file of another runtime by that.

    `holds_weights`: its weights are those of a file, which are copied to a module that it is compared with.
    """

    holds_weights: bool

    @property
    def network(self) -> Network:
        """The Network that it is."""

    @property
    def engine(self) -> str:
        """What runs it, with the version: `torch 2.9.0`."""

    @property
    def dtype(self) -> str:
        """The floating-point type that it computes in."""

    def inputs(self) -> CallInputs:
        """Its inputs, with zeros where they have no values of their own."""

    def tensors(self, nodes: Sequence[Node]) -> Mapping[str, list[Tensor]]:
        """The parameters and buffers of these layers in torch's layout, by the layer's name."""

    def run(self, inputs: CallInputs, nodes: Sequence[Node], seed: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The output, and the outputs of those of these layers that can be recorded, by the layer's name."""


Build = Callable[[], "nn.Module | Runner"]


def measure(
    ours: Network,
    reference: Network,
    build_ours: Build,
    build_reference: Build,
    seed: int = 0,
    dtype: str = "float32",
    progress: Callable[[str], None] = lambda step: None,
    *,
    copies: bool = True,
) -> Numeric:
    """Copy our weights to the aligned layers of the reference, run both on one seeded input, and compare the outputs.

    Both modules are built on the CPU under the seed, and the reference's weights are overwritten in place: no weight is
    held twice. A layer's weights are copied if they are equally many, reshaped if necessary (a Linear's to a
    convolution that covers its input). Layers without a counterpart keep their own. The weights of a file are copied to
    the module beside it, whichever is the reference; two files keep their own. So do both if not `copies`.

    The errors are infinite if the outputs differ in size. `progress` is called with each of STEPS before that step
    begins.

    Raises ModelError for quantised weights, and for a module that does not run in `dtype`; OptionError for a `dtype` in
    which a file is not run.
    """
    with random_state():  # a forward may draw numbers
        return _measured(ours, reference, (build_ours, build_reference), seed, dtype, progress, copies=copies)


def _measured(
    ours: Network,
    reference: Network,
    builds: tuple[Build, Build],
    seed: int,
    dtype: str,
    progress: Callable[[str], None],
    *,
    copies: bool,
) -> Numeric:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        progress(STEPS[0])
        left = _runner(builds[0](), ours, dtype)
        progress(STEPS[1])
        right = _runner(builds[1](), reference, dtype)
    coarsest = max(left.dtype, right.dtype, key=list(TOLERANCES).index)
    generator = torch.Generator().manual_seed(seed)
    inputs = _random_inputs(left.inputs(), generator, getattr(torch, coarsest))
    aligned = align_networks(ours, reference)
    pairs = [(mine, other) for mine, other in aligned.layer_pairs() if mine and other]
    folds = [*folded_norms(aligned)]
    is_file = left.holds_weights or right.holds_weights
    with torch.no_grad():
        copied = _copy_weights(pairs, left, right) if copies else None
        if copied is not None:
            _undo_norms(folds, left, right)
        pairs = _after_norms(pairs, folds)
        progress(STEPS[2])
        given = _fitted(inputs, right.inputs())
        # A forward may write to its inputs.
        result, our_outputs = left.run(_cloned(inputs, left.dtype), [mine for mine, _ in pairs], seed)
        progress(STEPS[3])
        expected, their_outputs = right.run(_cloned(given, right.dtype), [other for _, other in pairs], seed)
    absolute, relative = _errors(result, expected)
    tolerance = TOLERANCES[coarsest]
    errors = ((m.title, _error(our_outputs.get(m.name), their_outputs.get(o.name))) for m, o in pairs)
    # Where the outputs agree, two layers of other sizes are no counterparts, and no mismatch.
    most = float("inf") if relative > tolerance else sys.float_info.max
    apart = ((title, error) for title, error in errors if tolerance < error <= most)
    parts_at, parts_error = next(apart, (None, None))
    return Numeric(
        absolute,
        relative,
        seed,
        tuple(inputs.tensors()[0].shape),
        coarsest,
        parts_at,
        parts_error,
        tolerance,
        (left.engine, right.engine) if is_file else (),
        copied.changed if copied is not None and is_file else None,
        _unmatched(ours, copied, folds),
        _unmatched(reference, copied, folds),
    )


def _runner(built: nn.Module | Runner, network: Network, dtype: str) -> Runner:
    """What was built as a runner. Raises ModelError for quantised weights, and OptionError for a file's own dtype."""
    from torch import nn

    if isinstance(built, nn.Module):
        return _TorchRunner(_in_dtype(built, network.name, dtype), network, dtype)
    if built.dtype not in TOLERANCES:
        raise ModelError(f"{network.name} computes in {built.dtype}", f"leave out {option('numeric')}")
    if dtype == "float64" != built.dtype:
        raise OptionError(
            f"{network.name} computes in {built.dtype}: a file is run in its own dtypes",
            f"leave out {option('float64', True)}",
        )
    return built


def _in_dtype(module: nn.Module, name: str, dtype: str) -> nn.Module:
    """The module at evaluation with its floating-point tensors in float32 or float64.

    Raises ModelError for quantised weights.
    """
    if has_quantized_tensors(module):
        raise ModelError(f"{name} has quantised weights, which cannot be copied", f"leave out {option('numeric')}")
    # `to(kind)` would convert complex tensors too.
    return module.eval().double() if dtype == "float64" else module.eval().float()


@record
class _TorchRunner:
    """A module at evaluation, in one floating-point type."""

    module: nn.Module
    network: Network
    dtype: str

    holds_weights = False

    @property
    def engine(self) -> str:
        import torch

        return f"torch {torch.__version__.partition('+')[0]}"

    def inputs(self) -> CallInputs:
        return inputs_of(self.module, self.network)

    def tensors(self, nodes: Sequence[Node]) -> Mapping[str, list[Tensor]]:
        return {node.name: self._tensors(node) for node in nodes}

    def _tensors(self, node: Node) -> list[Tensor]:
        parameters = [self.module.get_parameter(parameter.name) for parameter in node.parameters]
        buffers = [f"{node.module}.{name}" for name in node.op.buffers()] if node.module is not None else []
        return [*parameters, *(self.module.get_buffer(name) for name in buffers)]

    def run(self, inputs: CallInputs, nodes: Sequence[Node], seed: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        with _outputs(self.module, nodes) as outputs:
            return _output(self.module, inputs, self.network, seed), outputs


def _output(module: nn.Module, inputs: CallInputs, network: Network, seed: int) -> Tensor:
    """The output to compare, with random numbers drawn with `seed`.

    Raises ModelError if forward fails, as one that names another dtype does.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    try:
        result = inputs.call(module)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        problem = f"{network.name} does not run with all tensors in one dtype: {reason}"
        raise ModelError(problem, f"leave out {option('numeric')}") from error
    output = tensors_in(result)[network.output_place]
    if output.is_nested:
        raise ModelError(
            f"{network.name} returns a nested tensor, which is not compared", f"leave out {option('numeric')}"
        )
    return output


def _random_inputs(inputs: CallInputs, generator: torch.Generator, kind: torch.dtype) -> CallInputs:
    """The inputs in the dtype of the comparison; those without values of their own are drawn from N(0, 1)."""
    import torch

    def drawn(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor.clone()
        if not tensor.is_meta and tensor.any():
            return tensor.detach().cpu().to(kind, copy=True)
        return torch.randn(*tensor.shape, generator=generator, dtype=torch.float64).to(kind)

    return inputs.map(drawn)


def _fitted(ours: CallInputs, theirs: CallInputs) -> CallInputs:
    """Our inputs as the reference takes them, by their order. An image gets as many channels: a single one is repeated,
    surplus ones are dropped.
    """
    tensors = iter(ours.tensors())

    def fitted(expected: Tensor) -> Tensor:
        tensor = next(tensors, expected)
        if tensor.dim() != 4 or expected.dim() != 4:
            return tensor
        channels = expected.shape[1]
        return (tensor.expand(-1, channels, -1, -1) if tensor.shape[1] == 1 else tensor)[:, :channels]

    return theirs.map(fitted)


def _cloned(inputs: CallInputs, dtype: str) -> CallInputs:
    """A copy of the inputs, with floating-point tensors in another dtype."""
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    return inputs.map(lambda tensor: tensor.to(kind if tensor.is_floating_point() else tensor.dtype, copy=True))


@record
class _Copied:
    """How many tensors had other values before, and the layers whose parameters are the same on both sides."""

    changed: int
    layers: frozenset[int]


def _unmatched(network: Network, copied: _Copied | None, folds: Sequence[FoldedNorm]) -> tuple[str, ...]:
    """The layers with parameters that neither gave them to a counterpart nor got them from one; none if none should."""
    if copied is None:
        return ()
    # A norm that the other side has folded into a convolution is done with it.
    matched = copied.layers | {id(node) for fold in folds for node in (fold.norm, fold.convolution, fold.folded)}
    keys = {parameter.name for node in network.nodes if id(node) in matched for parameter in node.parameters}
    return tuple(
        node.title for node in network.nodes if any(parameter.name not in keys for parameter in node.parameters)
    )


def _copy_weights(pairs: Sequence[tuple[Node, Node]], ours: Runner, reference: Runner) -> _Copied | None:
    """Copy our layers' weights to their counterparts, or a file's to the module's. None for two files."""
    import torch

    if reference.holds_weights:
        if ours.holds_weights:
            return None
        pairs, ours, reference = [(other, mine) for mine, other in pairs], reference, ours
    sources = ours.tensors([source for source, _ in pairs])
    targets = reference.tensors([target for _, target in pairs])
    changed, layers = 0, set[int]()
    for node, other in pairs:
        kept = sources.get(node.name, []), targets.get(other.name, [])
        if node.op.name != other.op.name:
            # A product with a weight, and a bias before it, is a linear layer.
            kept = _matrices_first(kept[0]), _matrices_first(kept[1])
        fitting = [(source, target) for source, target in zip(*kept) if source.numel() == target.numel()]
        for source, target in fitting:
            values = _laid_out(source, target, is_other_op=node.op.name != other.op.name)
            changed += not torch.equal(values.to(target.dtype), target)
            target.copy_(values)
        layers.update(id(one) for one in (node, other) if len(fitting) >= len(one.parameters))
    return _Copied(changed, frozenset(layers))


def _undo_norms(folds: Sequence[FoldedNorm], ours: Runner, reference: Runner) -> None:
    """Let the batch norms that a file has folded into its convolutions do no more than add the bias of the file's."""
    for fold in folds:
        file, module = (ours, reference) if fold.is_in_reference else (reference, ours)
        biases = file.tensors([fold.folded]).get(fold.folded.name, [])
        tensors = module.tensors([fold.norm])[fold.norm.name]
        if len(biases) == 2 and len(tensors) >= 4 and not module.holds_weights:
            weight, bias, mean, variance = tensors[:4]
            mean.zero_()
            variance.fill_(1)
            weight.fill_((1 + getattr(fold.norm.op, "eps", 0.0)) ** 0.5)
            has_own = len(fold.convolution.parameters) == 2
            bias.zero_() if has_own else bias.copy_(biases[1])


def _after_norms(pairs: list[tuple[Node, Node]], folds: Sequence[FoldedNorm]) -> list[tuple[Node, Node]]:
    """The pairs of layers, with a batch norm in place of the convolution before it that a file has with both."""
    norms = {(fold.convolution.name, fold.is_in_reference): fold.norm for fold in folds}
    return [(norms.get((m.name, False), m), norms.get((o.name, True), o)) for m, o in pairs]


def _matrices_first(tensors: list[Tensor]) -> list[Tensor]:
    return sorted(tensors, key=lambda tensor: -tensor.dim())


def _laid_out(source: Tensor, target: Tensor, *, is_other_op: bool) -> Tensor:
    """A weight in the shape of its counterpart: the matrix of a product is transposed to that of a linear layer."""
    is_matrix = source.dim() == target.dim() == 2
    is_transposed = is_matrix and source.shape == target.shape[::-1] and (source.shape != target.shape or is_other_op)
    return source.t() if is_transposed else source.reshape(target.shape)


@contextmanager
def _outputs(module: nn.Module, nodes: Sequence[Node]) -> Iterator[dict[str, Tensor]]:
    """Record the output of each node's module while the context is open, by the node's name (`pool:2` for the second
    call of `pool`).
    """
    outputs: dict[str, Tensor] = {}
    modules = dict(module.named_modules())
    wanted = {node.name for node in nodes}
    hooks = []
    for path in dict.fromkeys(node.module for node in nodes):
        if path is None or path not in modules:
            continue
        first = path or next(node.name for node in nodes if node.module == "")  # the whole model is one layer
        names = chain([first], (f"{first}:{call}" for call in count(2)))

        def record(_module: nn.Module, _inputs: object, output: object, names: Iterator[str] = names) -> None:
            name = next(names)
            # Copied, since an in-place ReLU overwrites the convolution's output.
            if name in wanted and hasattr(output, "detach") and not getattr(output, "is_nested", False):
                outputs[name] = output.detach().clone()

        hooks.append(modules[path].register_forward_hook(record))
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _errors(result: Tensor, expected: Tensor) -> tuple[float, float]:
    if result.numel() != expected.numel():
        return float("inf"), float("inf")
    if not result.numel():
        return 0.0, 0.0
    if not (result.is_floating_point() or result.is_complex()):
        result, expected = result.double(), expected.double()  # torch does not subtract booleans
    absolute = float((result.flatten() - expected.flatten()).abs().max())
    scale = float(expected.abs().max())
    return absolute, absolute / scale if scale else absolute


def _error(left: Tensor | None, right: Tensor | None) -> float:
    """The relative error of a layer's outputs, 0 if either one was not recorded."""
    return 0.0 if left is None or right is None else _errors(left, right)[1]
