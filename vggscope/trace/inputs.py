"""Build the arguments of forward: from a user's sizes, from a program's data, or by the kind of the first layer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, is_dataclass, replace
from functools import cache
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Union

from vggscope.errors import OptionError, names_options, option
from vggscope.graph import Network
from vggscope.inputs import Inputs, InputSize, check_batch_axis
from vggscope.ops.base import Shape
from vggscope.trace.parts import parts_of, tensors_of
from vggscope.trace.preserve import stored_tensors
from vggscope.trace.tensors import dtype_name, mapped_tensors, named_tensors, with_tensors
from vggscope.units import sample_text

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class CallInputs:
    """The arguments of one call of forward, which may nest tensors in tuples, lists and dicts.

    `batch_axis` is the batch dimension, None if there is none. `note` is a sentence on how the inputs were chosen.
    `names` are those of the positional arguments, if they are known.
    """

    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)
    batch_axis: int | None = 0
    note: str = ""
    names: tuple[str, ...] = ()

    def tensors(self) -> list[Tensor]:
        """Return the tensors in the arguments, in order."""
        return [tensor for _, tensor in named_tensors("", (self.args, dict(self.kwargs)))]

    def named(self, module: nn.Module) -> list[tuple[str, Tensor]]:
        """Return the tensors with the names of their arguments: `x`, `images[0]`, `batch.mask`."""
        names = _positional_names(module, len(self.args))
        pairs = [*zip(names, self.args), *self.kwargs.items()]
        return [leaf for name, value in pairs for leaf in named_tensors(name, value)]

    @property
    def batch(self) -> int:
        """The number of samples: the size of the batch axis of the first tensor that has one."""
        return next((t.shape[self.batch_axis] for t in self.tensors() if self._has_batch(t)), 1)  # type: ignore[index]

    @property
    def has_batch(self) -> bool:
        """Whether any tensor has a batch axis."""
        return any(map(self._has_batch, self.tensors()))

    @property
    def text(self) -> str:
        """The sizes of one sample: `3x224x224`, `128:int64`."""
        single = self.for_samples(1)
        return ", ".join(single._sample_text(tensor) for tensor in single.tensors())

    @property
    def options(self) -> str:
        """How tensors of these sizes are given. Empty if no options of the command line give this nest of them."""
        from torch import Tensor

        single = self.for_samples(1)
        if names_options():
            single = single._in_several_arguments()
        values = [*single.args, *single.kwargs.values()]
        is_flat = all(isinstance(value, Tensor) for value in values)
        if not names_options():
            return single._keywords(is_flat)
        if not is_flat:
            return ""
        names = [*("" for _ in single.args), *(f"{name}=" for name in single.kwargs)]
        words = [
            option("input_size", name + single._sample_text(tensor)) for name, tensor in zip(names, single.tensors())
        ]
        axis = [] if self.batch_axis == 0 else [option("batch_axis", str(self.batch_axis).lower())]
        return " ".join((*words, *axis))

    def _in_several_arguments(self) -> CallInputs:
        """These inputs with the items of one list or dict as arguments: the command line gives both alike."""
        only = self.args[0] if len(self.args) == 1 and not self.kwargs and len(self.tensors()) > 1 else None
        if isinstance(only, list):
            return replace(self, args=tuple(only))
        return replace(self, args=(), kwargs=dict(only)) if isinstance(only, dict) else self

    def _keywords(self, is_flat: bool) -> str:
        """The keyword arguments of a function of Python that give tensors of these sizes."""
        tensors = self.tensors()
        axis = "" if self.batch_axis == 0 else f", batch_axis={self.batch_axis}"
        if not is_flat or self.kwargs or not all(tensor.dim() for tensor in tensors) or axis:
            return f"input_data={self.literal}{axis}"
        shapes = [tuple(tensor.shape) for tensor in tensors]
        names = [dtype_name(tensor) for tensor in tensors]
        dtypes = "" if all(tensor.is_floating_point() for tensor in tensors) else f", dtypes={names}"
        return f"input_size={shapes[0] if len(shapes) == 1 else shapes}{dtypes}"

    @property
    def literal(self) -> str:
        """The Python expression for the inputs, with tensors of zeros."""
        return _literal({**dict(zip(self.names, self.args)), **self.kwargs} if self.kwargs else self.args)

    def _sample_text(self, tensor: Tensor) -> str:
        axis = self.batch_axis_of(tensor)
        if axis is not None and tensor.dim() == 1:
            return f":{dtype_name(tensor)}"
        dtype = "" if tensor.is_floating_point() else dtype_name(tensor)
        return ":".join(filter(None, (sample_text(tuple(tensor.shape), axis), dtype)))

    def for_samples(self, count: int) -> CallInputs:
        """Return the inputs for `count` samples: each tensor's first sample, repeated."""
        batch = self.batch
        if not self.has_batch or count == batch:
            return self

        def resized(tensor: Tensor) -> Tensor:
            axis = self.batch_axis_of(tensor)
            if axis is None or tensor.shape[axis] != batch:
                return tensor
            sample = tensor.narrow(axis, 0, 1)
            return sample if count == 1 else sample.repeat_interleave(count, axis)

        return self.map(resized)

    def map(self, function: Callable[[Tensor], Tensor]) -> CallInputs:
        """Return the inputs with `function` applied to each tensor."""
        args, kwargs = mapped_tensors((self.args, dict(self.kwargs)), function)
        return replace(self, args=args, kwargs=kwargs)

    def to(self, device: str) -> CallInputs:
        """Return the inputs on a device: zeros for a tensor whose data are on the meta device."""
        import torch

        def moved(tensor: Tensor) -> Tensor:
            has_no_data = tensor.is_meta and device != "meta"
            return torch.zeros_like(tensor, device=device) if has_no_data else tensor.to(device)

        return self.map(moved)

    def call(self, module: Callable[..., object]) -> object:
        """Return what the module returns for these inputs."""
        return module(*self.args, **self.kwargs)

    def _has_batch(self, tensor: Tensor) -> bool:
        return self.batch_axis is not None and tensor.dim() > self.batch_axis and tensor.shape[self.batch_axis] > 0

    def batch_axis_of(self, tensor: Tensor) -> int | None:
        """Return the batch axis of a tensor. One number per sample, such as a length, has no other axis."""
        if self._has_batch(tensor):
            return self.batch_axis
        return 0 if self.batch_axis and tensor.dim() == 1 and tensor.shape[0] == self.batch else None


def _literal(value: object) -> str:
    from torch import Tensor

    if isinstance(value, Tensor):
        dtype = "" if value.is_floating_point() else f", dtype={value.dtype}"
        return f"torch.zeros({', '.join(map(str, value.shape)) or '()'}{dtype})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        items = ", ".join(map(_literal, value))
        return f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})"
    return repr(value)


def _positional_names(module: nn.Module, count: int) -> list[str]:
    """Return the names of forward's first `count` arguments; `input`, or `input1`, `input2`, ..., for variadic ones."""
    names = [p.name for p in _parameters(module) if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    missing = count - len(names)
    return [*names[:count], *(f"input{len(names) + 1 + n}" if count > 1 else "input" for n in range(missing))]


def _parameters(module: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return []


# Inputs that the caller specifies

InputSpec = CallInputs | Inputs | Shape
"""Inputs that a caller specifies: arguments, sizes, data, or the shape of one input without the batch dimension."""


def specified(module: nn.Module, spec: InputSpec) -> CallInputs:
    """Return the inputs that a caller specifies. Raises OptionError for data without a tensor.

    A named tuple or a dict of several tensors is the only argument if forward does not take its items as arguments.
    """
    if isinstance(spec, CallInputs):
        return spec
    if not isinstance(spec, Inputs):
        return from_sizes(module, [InputSize(spec)])
    if spec.data is not None:
        given = from_data(spec.data, spec.batch_axis)
        if isinstance(spec.data, Mapping):
            return _in_one_argument(module, given)
        as_one = replace(given, args=(with_tensors(spec.data),))
        is_named = hasattr(spec.data, "_asdict") and not fits_signature(module, given)
        return as_one if is_named and fits_signature(module, as_one) else given
    return from_sizes(module, spec.sizes, spec.batch_axis)


def from_data(data: object, batch_axis: int | None = 0) -> CallInputs:
    """Return the inputs for `data`: a tensor, a tuple or list of positional arguments, or a dict of keyword arguments.

    A dataclass is the only positional argument. A NumPy array stands for its tensor. Raises OptionError if it contains
    no tensor, one that is nested, quantized or sparse, or a generator.
    """
    from torch import Tensor

    data = with_tensors(data)
    if isinstance(data, Mapping):
        inputs = CallInputs((), dict(data), batch_axis)
    elif isinstance(data, (tuple, list)):
        inputs = CallInputs(tuple(data), {}, batch_axis)
    elif isinstance(data, Tensor) or is_dataclass(data):
        inputs = CallInputs((data,), {}, batch_axis)
    else:
        raise OptionError(
            f"input_data is a {type(data).__name__}",
            "give a tensor, a tuple of arguments or a dict of keyword arguments",
        )
    if any(isinstance(value, Iterator) for value in (*inputs.args, *inputs.kwargs.values())):
        raise OptionError("input_data holds a generator, which is empty after one run of forward", "give a list")
    if not inputs.tensors():
        raise OptionError(
            "input_data holds no tensor", "give a tensor, a tuple of arguments or a dict of keyword arguments"
        )
    for tensor in inputs.tensors():
        _check_layout(tensor)
    check_batch_axis(batch_axis, [tensor.dim() for tensor in inputs.tensors()])
    return inputs


def _check_layout(tensor: Tensor) -> None:
    """Raise OptionError for a tensor that is nested, quantized or sparse."""
    if tensor.is_nested:
        raise OptionError(
            "input_data holds a nested tensor, whose costs are not known", "give a padded one: x.to_padded_tensor(0.0)"
        )
    if tensor.is_quantized:
        raise OptionError("input_data holds a quantized tensor", "give its values: x.dequantize()")
    if "sparse" in str(tensor.layout):
        raise OptionError(
            "input_data holds a sparse tensor, whose costs are not known", "give a dense one: x.to_dense()"
        )


def from_sizes(module: nn.Module, sizes: Sequence[InputSize], batch_axis: int | None = 0) -> CallInputs:
    """Return tensors with these sizes, without data. A size without the batch axis gets one sample.

    The first size decides whether those that do not say so include the batch axis. It is the second one of torch's own
    Transformers, unless they are made with `batch_first`.
    If all sizes are single numbers and the first layer takes images, each is the side of a square image. Any other
    single number is the size of one axis. Where no size states a dtype, those for an embedding are int64.
    Several sizes for a forward with one argument are a list, or a dict if they have names.
    """
    import torch

    given_axis = batch_axis
    batch_axis = 1 if batch_axis == 0 and _takes_steps_first(module) else batch_axis
    sides_only = all(len(size.shape) == 1 for size in sizes)
    include_batch = bool(sizes) and _holds_batch(module, sizes[0].shape)
    states_dtype = any(size.dtype for size in sizes)

    def zeros(size: InputSize) -> Tensor:
        batched = size.batched if size.batched is not None else include_batch
        shape = _square(module, size.shape) if sides_only and not batched and not size.dtype else size.shape
        is_token = not states_dtype and _is_token(module, shape)
        own = torch.int64 if is_token else floating_dtype(module)
        dtype = getattr(torch, size.dtype) if size.dtype else own
        if (shape or size.per_sample) and batch_axis is not None and not batched:
            axis = min(batch_axis, len(shape))
            shape = (*shape[:axis], 1, *shape[axis:])
        return torch.empty(shape, dtype=dtype, device="meta")

    args = tuple(zeros(size) for size in sizes if not size.name)
    inputs = CallInputs(args, {size.name: zeros(size) for size in sizes if size.name}, batch_axis)
    check_batch_axis(given_axis, [tensor.dim() for tensor in inputs.tensors()])
    return _in_one_argument(module, inputs)


def _in_one_argument(module: nn.Module, inputs: CallInputs) -> CallInputs:
    """Return several inputs as one list or dict if forward does not take them as arguments, but does take that."""
    if len(inputs.tensors()) < 2 or (inputs.args and inputs.kwargs) or fits_signature(module, inputs):
        return inputs
    nested = replace(inputs, args=(list(inputs.args) or dict(inputs.kwargs),), kwargs={})
    return nested if fits_signature(module, nested) else inputs


def _holds_batch(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Return whether a size includes the batch axis, by the number of axes that the first layer takes.

    Three numbers are the channels, height and width of an image, unless the first layer takes signals or sequences.
    """
    from torch import nn

    first = first_layer(module)
    if isinstance(first, (nn.Conv1d, nn.ConvTranspose1d, nn.modules.rnn.RNNBase)) or _attention_of(module, first):
        return len(shape) >= 3
    if isinstance(first, (nn.Conv3d, nn.ConvTranspose3d)):
        return len(shape) >= 5
    return len(shape) == 2 or len(shape) >= 4


def _attention_of(module: nn.Module, layer: nn.Module | None) -> nn.MultiheadAttention | None:
    """Return the attention that a layer is the output projection of, else None."""
    from torch import nn

    attentions = (part for part in parts_of(module) if isinstance(part, nn.MultiheadAttention))
    return next((part for part in attentions if part.out_proj is layer), None)


def _takes_steps_first(module: nn.Module) -> bool:
    """Return whether a module is an attention or a Transformer of torch that takes the batch as its second axis."""
    from torch import nn
    from torch.nn.modules import transformer

    names = ("Transformer", *(f"Transformer{kind}{part}" for kind in ("Encoder", "Decoder") for part in ("", "Layer")))
    if type(module) not in (nn.MultiheadAttention, *(getattr(transformer, name) for name in names)):
        return False
    attentions = (part for part in parts_of(module) if isinstance(part, nn.MultiheadAttention))
    return not any(attention.batch_first for attention in attentions)


def _square(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 1:
        return shape
    first = first_layer(module)
    channels = getattr(first, "in_channels", None)
    if channels == 0:  # a lazy layer takes any number
        channels = 3
    return (channels, *shape * 2) if channels and len(getattr(first, "kernel_size", ())) == 2 else shape


def floating_dtype(module: nn.Module) -> Any:
    """Return the dtype of the first floating-point parameter or buffer, else of the first complex one.

    Returns torch's default if there is neither.
    """
    import torch

    dtypes = [tensor.dtype for tensor in tensors_of(module)]
    floating = (dtype for dtype in dtypes if dtype.is_floating_point)
    return (*floating, *(dtype for dtype in dtypes if dtype.is_complex), torch.get_default_dtype())[0]


def _is_token(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Return whether a size of at most one axis is that of tokens, because the first layer is an embedding."""
    from torch import nn

    return isinstance(first_layer(module), (nn.Embedding, nn.EmbeddingBag)) and len(shape) <= 1


@cache
def _attached() -> MutableMapping[nn.Module, CallInputs]:
    """The inputs of modules by identity. They are no attribute, because a module is saved with its attributes."""
    from torch.utils.weak import WeakIdKeyDictionary

    inputs: MutableMapping[nn.Module, CallInputs] = WeakIdKeyDictionary()
    return inputs


def attach(module: nn.Module, spec: InputSpec) -> nn.Module:
    """Return the module. From now on `example_of` and `inputs_of` return these inputs for it, zeros for sizes."""
    inputs = specified(module, spec)
    is_sized = isinstance(spec, Inputs) and spec.data is None
    _attached()[module] = inputs.to("cpu") if is_sized else inputs
    return module


def copied(module: nn.Module) -> nn.Module:
    """Return a deep copy of a module, with the inputs that are attached to it."""
    return copied_with(module, computed_copies(module))


def copied_with(module: nn.Module, replacements: dict[int, object]) -> nn.Module:
    """Return a deep copy of a module with its attached inputs, and `replacements` of its tensors, by id."""
    copy = deepcopy(module, replacements)
    if module in _attached():
        attach(copy, _attached()[module])
    return copy


def computed_copies(module: nn.Module) -> dict[int, object]:
    """Return copies of the tensors that a forward computed and stored in the module, by id, for `deepcopy`.

    torch does not copy them. weight_norm and pruning store a layer's weight so, and compute it anew in each forward.
    """
    return {id(tensor): tensor.detach().clone() for tensor in stored_tensors(module) if not tensor.is_leaf}


def inputs_of(module: nn.Module, network: Network, samples: int = 1) -> CallInputs:
    """Return the inputs on which the module became this network, for so many samples if the batch may vary.

    These are copies of the attached ones or of the module's own example, or zeros: forward may write to them.
    """
    import torch

    example = example_of(module)
    if example is not None:
        example = example.map(lambda tensor: tensor.detach().clone())
        return example if network.single else example.for_samples(samples)
    keywords = {p.name for p in _parameters(module) if p.kind is p.KEYWORD_ONLY}
    own: torch.dtype = getattr(torch, network.dtype)
    # The module of a configuration or a checkpoint may have another dtype than its Network.
    floating = own if any(p.dtype == own for p in module.parameters()) else floating_dtype(module)
    types = {t.label: getattr(torch, t.dtype) if t.dtype else floating for t in network.inputs}
    zeros = {t.label: torch.zeros(t.shape, dtype=types[t.label]) for t in network.inputs}
    args = tuple(tensor for name, tensor in zeros.items() if name not in keywords)
    axes = [t.batch_axis for t in network.inputs if t.batch_axis is not None]
    axis = axes[0] if axes and not network.single else None
    call = CallInputs(args, {name: tensor for name, tensor in zeros.items() if name in keywords}, axis)
    return call if network.single else call.for_samples(samples)


def arguments(module: nn.Module, network: Network, tensors: Mapping[str, Tensor]) -> CallInputs:
    """Return the arguments of forward with `tensors`, by the names of the inputs, in place of the module's own.

    Raises OptionError for a nested argument, such as a list of tensors, of a module that carries no example of it.
    """
    call = inputs_of(module, network)
    nested = next((given.label for given in network.inputs if not given.label.isidentifier()), None)
    is_known = nested is None or example_of(module) is not None
    if not is_known or len(call.tensors()) != len(network.inputs):
        raise OptionError(
            f"{network.name} takes {nested or network.inputs[0].label} as a part of another argument",
            "give the module with its inputs: a function that returns (module, inputs)",
        )
    values = iter([tensors[given.name] for given in network.inputs])
    return call.map(lambda _: next(values))


def example_of(module: nn.Module) -> CallInputs | None:
    """Return the attached inputs, the module's own `example_input_array` (Lightning) or `dummy_inputs` (transformers);
    None without any.
    """
    if module in _attached():
        return _attached()[module]
    for name in ("example_input_array", "dummy_inputs"):
        # A property of a user's class may raise any exception.
        with suppress(Exception):
            inputs = from_data(getattr(module, name))
            # transformers gives tokens as the dummy inputs of models of images and signals too.
            if inputs.args or inputs.kwargs.keys() >= _telling_names(module).keys():
                return replace(inputs, note=f"the input is the model's own {name}")
    return None


# Inputs chosen by the first layer

TOKENS, STEPS, SAMPLES, FRAMES, VIDEO_SIDES = 128, 32, 16000, 16, (112, 224)
"""Default sizes: tokens of a text, steps of a sequence, samples of a signal (one second at 16 kHz), frames of a video
and the sides in pixels to try (112 by Tran et al. 2015, section 3.2; 224 by Carreira and Zisserman 2017).
"""

CAPTION = 64
"""Tokens of a text that is given with an image. CLIP has 77 positions (Radford et al. 2021, section 2.4)."""

SIDES = (224, 32, 28)
"""Sides of the images to try: the paper's, then those of CIFAR and MNIST. There are no more, because a faulty model may
fit some other size by accident.
"""


@dataclass(frozen=True)
class FunctionReader:
    """A function of torch that reads an input, and the shape of the tensor that it reads beside it, if there is one."""

    name: str
    beside: Shape | None = None

    def sizes(self, dtype: str) -> Iterator[InputSize]:
        """Yield sizes of the input that may fit, of this floating-point dtype."""
        sample = self.beside[1:] if self.beside else None
        if self.name == "stft":
            yield from (InputSize((SAMPLES,), dtype=dtype), InputSize((1, SAMPLES), dtype=dtype))
        elif self.name in ("cross_entropy", "nll_loss"):
            yield InputSize((), dtype="int64", per_sample=True)
        elif self.name == "grid_sample" and sample:
            yield InputSize((*sample[1:], len(sample) - 1), dtype=dtype)
        if sample:
            yield InputSize(sample, dtype=dtype)
        yield InputSize((), dtype=dtype, per_sample=True)


Reader = Union["nn.Module", FunctionReader]
"""A layer or a function that reads an input."""


def first_layer(module: nn.Module) -> nn.Module | None:
    """Return the first layer with a known input size: one of torch's, else any with `in_channels` or `in_features`."""
    parts = parts_of(module)
    layer = next(filter(fixes_input_size, parts), None)
    return layer or next((p for p in parts if hasattr(p, "in_channels") or hasattr(p, "in_features")), None)


def fixes_input_size(layer: nn.Module) -> bool:
    """Return whether a layer is one of torch's that take inputs of a known size."""
    from torch import nn

    kinds = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.modules.rnn.RNNBase, nn.RNNCellBase)
    return isinstance(layer, kinds)


def takes_images(module: nn.Module) -> bool:
    """Return whether the first layer with a known input size takes images, or there is none."""
    return _takes_maps(first_layer(module))


def _takes_maps(layer: Reader | None) -> bool:
    return layer is None or len(getattr(layer, "kernel_size", ())) == 2


def candidates(module: nn.Module, readers: Mapping[int, Reader] = MappingProxyType({})) -> Iterator[CallInputs]:
    """Yield inputs that may fit, the likeliest first.

    Each required argument gets a tensor for the layer or the function that reads it: that of `readers`, by the
    argument's position, else the first layer.
    """
    arguments = required_arguments(module)
    if arguments and _takes_image_list(module, arguments[0]):
        yield from map(_noted, _image_lists(module))
        return
    telling = _telling_names(module)
    if telling:
        yield from map(_noted, _inputs_by_name(module, telling))
        return
    keywords = [argument.name for argument in arguments if argument.kind is argument.KEYWORD_ONLY]
    names = [*[""] * (len(arguments) - len(keywords)), *keywords] or [""]
    first = first_layer(module)
    layers = [readers.get(place, first) for place in range(len(names))]
    is_image = len(names) == 1 and _takes_maps(layers[0])
    distinct = list(dict.fromkeys(layers))
    for place, sizes in enumerate(product(*(_candidate_sizes(module, layer) for layer in distinct))):
        by_layer = dict(zip(distinct, sizes))
        inputs = from_sizes(module, [replace(by_layer[layer], name=name) for layer, name in zip(layers, names)])
        inputs = replace(inputs, names=tuple(argument.name for argument in arguments)[: len(inputs.args)])
        yield inputs if place == 0 and is_image else _noted(inputs)


def _noted(inputs: CallInputs) -> CallInputs:
    was = "were" if len(inputs.tensors()) > 1 else "was"
    return replace(inputs, note=f"no input was given: {inputs.text} {was} taken; {option('input_size')} gives another")


_TELLING_NAMES = {"input_ids": "tokens", "pixel_values": "image", "input_values": "signal"}
"""What an argument of forward is by its name, in the convention of transformers."""


def _telling_names(module: nn.Module) -> dict[str, str]:
    """Return the arguments of forward whose names tell what they are, with that."""
    names = (parameter.name for parameter in _parameters(module))
    return {name: _TELLING_NAMES[name] for name in names if name in _TELLING_NAMES}


def _inputs_by_name(module: nn.Module, kinds: Mapping[str, str]) -> Iterator[CallInputs]:
    from torch import nn

    images = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    channels = images[0].in_channels if images else 3
    for image in _image_sizes(module, channels):
        sizes = {"tokens": ((CAPTION,), "int64"), "image": (image, ""), "signal": ((SAMPLES,), "")}
        yield from_sizes(module, [InputSize(sizes[kind][0], name, sizes[kind][1]) for name, kind in kinds.items()])


_LIST_OF_TENSORS = re.compile(r"(?:list|List|Sequence|collections\.abc\.Sequence)\[(?:torch\.)?Tensor\]")


def _takes_image_list(module: nn.Module, argument: inspect.Parameter) -> bool:
    """Return whether an argument is a list of images: by its annotation, or because the module resizes its images."""
    annotation = inspect.formatannotation(argument.annotation).strip("'")
    return _LIST_OF_TENSORS.fullmatch(annotation) is not None or _resize_of(module) is not None


def _resize_of(module: nn.Module) -> Any:
    """Return the part of one of torchvision's detection models that resizes its images; None in other models."""
    return next((part for part in module.children() if type(part).__name__ == "GeneralizedRCNNTransform"), None)


def _image_lists(module: nn.Module) -> Iterator[CallInputs]:
    """Yield lists of one image without a batch dimension, first of the size to which the model resizes its images."""
    resize = _resize_of(module)
    sizes = []
    if resize is not None:
        width, height = resize.fixed_size or resize.min_size[-1:] * 2
        sizes.append((3, height, width))
    for shape in (*sizes, *_image_sizes(module, 3)):
        image = from_sizes(module, [InputSize(shape)], batch_axis=None)
        yield CallInputs(([*image.args],), {}, batch_axis=None)


def required_arguments(module: nn.Module) -> list[inspect.Parameter]:
    """Return the arguments of forward that have no default."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in _parameters(module) if p.default is p.empty and p.kind not in variable]


def takes_positions(module: nn.Module) -> bool:
    """Return whether forward takes an argument by position; True if its arguments are not known."""
    keywords = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    parameters = _parameters(module)
    return not parameters or any(p.kind not in keywords for p in parameters)


def _candidate_sizes(module: nn.Module, layer: Reader | None) -> Iterator[InputSize]:
    from torch import nn

    if isinstance(layer, FunctionReader):
        yield from layer.sizes(str(floating_dtype(module)).removeprefix("torch."))
    elif isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
        yield InputSize((TOKENS,), dtype="int64")
        if isinstance(layer, nn.Embedding):
            yield InputSize((), dtype="int64", per_sample=True)  # a class
    elif isinstance(layer, nn.modules.rnn.RNNBase):
        yield InputSize((STEPS, layer.input_size))
    elif attention := _attention_of(module, layer):
        yield InputSize((STEPS, attention.embed_dim))
        yield InputSize((attention.embed_dim,))
    elif isinstance(layer, nn.RNNCellBase):
        yield InputSize((layer.input_size,))
        yield InputSize((STEPS, layer.input_size))
    elif getattr(layer, "in_features", None):
        yield from map(InputSize, _row_sizes(int(layer.in_features)))  # type: ignore[union-attr,arg-type]
    else:
        channels = int(getattr(layer, "in_channels", None) or 3)
        kernel = getattr(layer, "kernel_size", None)
        axes = len(kernel) if isinstance(kernel, tuple) else 2
        yield from map(InputSize, _map_sizes(module, channels, axes))


def _row_sizes(features: int) -> Iterator[tuple[int, ...]]:
    """Yield the image that flattens to this number of features, if there is one, then a row."""
    yield from ((depth, side, side) for side in SIDES for depth in (3, 1) if depth * side * side == features)
    yield (features,)


def _map_sizes(module: nn.Module, channels: int, axes: int) -> Iterator[tuple[int, ...]]:
    if axes == 1:
        yield (channels, SAMPLES)
    elif axes == 3:
        yield from ((channels, FRAMES, side, side) for side in VIDEO_SIDES)
    else:
        yield from _image_sizes(module, channels)


def _image_sizes(module: nn.Module, channels: int) -> Iterator[tuple[int, ...]]:
    """Yield the size of the images that a part of the module states, if one does, then those of SIDES."""
    stated = (getattr(part, name, None) for part in module.modules() for name in ("image_size", "img_size"))
    pairs = ((size, size) if isinstance(size, int) else size for size in stated)
    known = next((pair for pair in pairs if _is_pair_of_sides(pair)), None)
    sides = dict.fromkeys((*([tuple(known)] if known else []), *((side, side) for side in SIDES)))
    yield from ((channels, *pair) for pair in sides)


def _is_pair_of_sides(size: object) -> bool:
    return isinstance(size, (tuple, list)) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)


def fits_signature(module: nn.Module, inputs: CallInputs) -> bool:
    """Return whether forward has the arguments of a call; true if it has no signature."""
    try:
        inspect.signature(module.forward).bind(*inputs.args, **inputs.kwargs)
    except TypeError:
        return False
    except ValueError:
        pass
    return True


def defines_forward(module: nn.Module) -> bool:
    """Return whether a module has a forward of its own."""
    from torch import nn

    return type(module).forward is not nn.Module.forward


def forward_signature(module: nn.Module) -> str:
    """Return forward's signature as in its source: `forward(image, mask: Tensor, scale=1.0)`."""
    try:
        return f"forward{inspect.signature(module.forward)}"
    except (TypeError, ValueError):
        return "forward(...)"
