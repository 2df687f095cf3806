"""The numeric error between two networks that have the same weights and get the same input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from typing import TYPE_CHECKING

from vggscope.diffing.locate import align_networks
from vggscope.diffing.result import Numeric
from vggscope.errors import ModelError, option
from vggscope.graph import Network, Node
from vggscope.trace.forward import random_state
from vggscope.trace.inputs import CallInputs, inputs_of
from vggscope.trace.quantized import has_quantized_tensors
from vggscope.trace.tensors import tensors_in

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MISMATCH = 1e-3
"""The error, relative to a layer's largest value, above which two layers' outputs count as different."""

STEPS = ("building ours", "building the reference", "running ours", "running the reference")

Build = Callable[[], "nn.Module"]


def measure(
    ours: Network,
    reference: Network,
    build_ours: Build,
    build_reference: Build,
    seed: int = 0,
    dtype: str = "float32",
    progress: Callable[[str], None] = lambda step: None,
) -> Numeric:
    """Copy our weights to the aligned layers of the reference, run both on one seeded input, and compare the outputs.

    Both modules are built on the CPU under the seed, and the reference's weights are overwritten in place: no weight is
    held twice. A layer's weights are copied if they are equally many, reshaped if necessary (a Linear's to a
    convolution that covers its input). Layers without a counterpart keep their own. The errors are infinite if the
    outputs differ in size. `progress` is called with each of STEPS before that step begins.

    Raises ModelError for quantised weights, and for a module that does not run in `dtype`.
    """
    with random_state():  # a forward may draw numbers
        return _measured(ours, reference, build_ours, build_reference, seed, dtype, progress)


def _measured(
    ours: Network,
    reference: Network,
    build_ours: Build,
    build_reference: Build,
    seed: int,
    dtype: str,
    progress: Callable[[str], None],
) -> Numeric:
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        progress(STEPS[0])
        left = _in_dtype(build_ours(), ours.name, dtype)
        progress(STEPS[1])
        right = _in_dtype(build_reference(), reference.name, dtype)
    generator = torch.Generator().manual_seed(seed)
    inputs = _random_inputs(inputs_of(left, ours), generator, kind)
    pairs = [(mine, other) for mine, other in align_networks(ours, reference).layer_pairs() if mine and other]
    with torch.no_grad():
        for mine, other in pairs:
            _copy(mine, left, other, right)
        progress(STEPS[2])
        with _outputs(left, [mine for mine, _ in pairs]) as our_outputs:
            result = _output(left, inputs.map(torch.clone), ours, seed)  # forward may write to its inputs
        progress(STEPS[3])
        with _outputs(right, [other for _, other in pairs]) as their_outputs:
            fitted = _fitted(inputs, inputs_of(right, reference))
            expected = _output(right, fitted, reference, seed)
    absolute, relative = _errors(result, expected)
    mismatches = (m.title for m, o in pairs if _differ(our_outputs.get(m.name), their_outputs.get(o.name)))
    return Numeric(absolute, relative, seed, tuple(inputs.tensors()[0].shape), dtype, next(mismatches, None))


def _in_dtype(module: nn.Module, name: str, dtype: str) -> nn.Module:
    """The module at evaluation with its floating-point tensors in float32 or float64.

    Raises ModelError for quantised weights.
    """
    if has_quantized_tensors(module):
        raise ModelError(f"{name} has quantised weights, which cannot be copied", f"leave out {option('numeric')}")
    # `to(kind)` would convert complex tensors too.
    return module.eval().double() if dtype == "float64" else module.eval().float()


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


def _copy(mine: Node, ours: nn.Module, other: Node, reference: nn.Module) -> None:
    """Copy a layer's parameters and buffers to its counterpart in place, reshaped, if they are equally many."""
    for source, target in zip(_tensors(mine, ours), _tensors(other, reference)):
        if source.numel() == target.numel():
            target.copy_(source.reshape(target.shape))


def _tensors(node: Node, module: nn.Module) -> list[Tensor]:
    parameters = [module.get_parameter(parameter.name) for parameter in node.parameters]
    buffers = [f"{node.module}.{name}" for name in node.op.buffers()] if node.module is not None else []
    return [*parameters, *(module.get_buffer(name) for name in buffers)]


@contextmanager
def _outputs(module: nn.Module, nodes: list[Node]) -> Iterator[dict[str, Tensor]]:
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


def _differ(left: Tensor | None, right: Tensor | None) -> bool:
    return left is not None and right is not None and _errors(left, right)[1] > MISMATCH
