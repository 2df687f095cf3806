"""The Python code that loads a checkpoint into the model that it belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from vggscope.checkpoint.config_match import same_shape
from vggscope.checkpoint.contents import WRAPPERS, Checkpoint, StoredLayer, parametrizing_call
from vggscope.checkpoint.conv_runs import TORCHVISION
from vggscope.checkpoint.formats.pickle_objects import NEVER_WEIGHTS_ONLY, module_of
from vggscope.checkpoint.problems import Problems
from vggscope.checkpoint.structure import StoredVGG
from vggscope.record import record
from vggscope.vgg.configs import CONFIGS

_KEY = "key"

_UNKNOWN_MODEL = "model = ...  # of the class that these weights belong to"

WITH_BACKBONE = (
    *("fasterrcnn_", "fcos_", "keypointrcnn_", "maskrcnn_", "retinanet_", "ssd300_", "ssdlite320_"),
    *("deeplabv3_", "fcn_", "lraspp_"),
)
"""How the names of torchvision's models begin that have an argument `weights_backbone`."""

_WIDTH = 100
"""The longest line of code, in characters."""


@record
class Target:
    """The model that a file's tensors are loaded into.

    `model` holds the lines that build it, `key` the expression that turns a key of the file into one of the model's.
    `has_all_keys`: file and model then have the same keys.
    """

    model: tuple[str, ...]
    key: str
    has_all_keys: bool


def loading_code(checkpoint: Checkpoint, target: Target) -> str:
    """A script that loads the file; it needs torch and the packages that it imports.

    Of a whole module vggscope reads the tensors, which runs no code of the file.
    """
    if checkpoint.is_foreign or checkpoint.modules:
        own = f"vggscope.build({checkpoint.path!r}"
        *lines, last = target.model
        is_own = last == f"model = {own})"
        body = (
            (*lines, f"model = {own}, weights={checkpoint.path!r})")
            if is_own
            else (
                *target.model,
                f"model = vggscope.build(model, weights={checkpoint.path!r})",
            )
        )
        return "\n".join((*_imports("\n".join(body), ()), "", *body))
    state = list(_state(checkpoint, target.key))
    strict = "" if target.has_all_keys else ", strict=False"
    body = (*state, *target.model, f"model.load_state_dict(state{strict})")
    return "\n".join((*_imports("\n".join(body), checkpoint.guarded), "", *body))


def _imports(body: str, guarded: Iterable[str]) -> Iterator[str]:
    packages = ("json", "pathlib", "timm", "torch", "torchvision", "vggscope")
    used = {package for package in packages if f" {package}." in body}
    prune = {"torch.nn.utils.prune"} if " torch.nn.utils.prune." in body else set()
    allowed = set(guarded) if NEVER_WEIGHTS_ONLY.isdisjoint(guarded) else set()
    modules = {module_of(name) for name in allowed} - {"builtins"}
    for module in sorted({*modules, *used, *prune}):
        yield f"import {module}"
    if "load_file(" in body:
        yield "from safetensors.torch import load_file"


def _state(checkpoint: Checkpoint, key: str) -> Iterator[str]:
    """The lines that read the state dict and rename its keys."""
    inside = "".join(f"[{name!r}]" for name in checkpoint.wrapper)
    if checkpoint.shards:
        folder, index = os.path.split(checkpoint.path)
        yield f"folder = pathlib.Path({folder or '.'!r})"
        yield f"shards = json.loads((folder / {index!r}).read_text())['weight_map'].values()"
        yield "state = {}"
        yield "for shard in sorted(set(shards)):"
        if checkpoint.format == "safetensors":
            yield "    state.update(load_file(folder / shard))"
        else:
            call = f"torch.load(folder / shard, map_location='cpu', weights_only=True){inside}"
            yield from (f"    {line}" for line in _torch_load(call, checkpoint.guarded, "part"))
            yield "    state.update(part)"
    elif checkpoint.format == "safetensors":
        yield f"state = load_file({checkpoint.path!r})"
    else:
        call = f"torch.load({checkpoint.path!r}, map_location='cpu', weights_only=True){inside}"
        yield from _torch_load(call, checkpoint.guarded)
    if key != _KEY or checkpoint.sparse or checkpoint.averages:
        value = "value.to_dense()" if checkpoint.sparse else "value"
        yield f"state = {{{key}: {value} for key, value in state.items(){_filter(checkpoint.averages)}}}"


def _filter(averages: Sequence[str]) -> str:
    """The condition that leaves out the keys of averages.

    >>> _filter(("ema.",)), _filter(())
    (" if not key.startswith('ema.')", '')
    """
    starts = averages[0] if len(averages) == 1 else tuple(averages)
    return f" if not key.startswith({starts!r})" if averages else ""


def _torch_load(call: str, guarded: tuple[str, ...], name: str = "state") -> Iterator[str]:
    """The lines that call torch.load with the `guarded` classes allowed and assign to `name`."""
    if not NEVER_WEIGHTS_ONLY.isdisjoint(guarded):
        unsafe = call.replace("weights_only=True", "weights_only=False")
        yield "# this runs what the file asks for: only if you trust who made it"
        yield f"{name} = {unsafe}"
        return
    if guarded:
        allowed = [global_expression(guarded_name) for guarded_name in guarded]
        line = f"with torch.serialization.safe_globals([{', '.join(allowed)}]):"
        if len(line) > _WIDTH:
            yield from ("trusted = [", *(f"    {expression}," for expression in allowed), "]")
            line = "with torch.serialization.safe_globals(trusted):"
        yield line
    yield f"{'    ' if guarded else ''}{name} = {call}"


def global_expression(name: str) -> str:
    """A pickle's global as an argument of safe_globals, paired with its name where other versions call it otherwise.

    >>> global_expression("builtins.list"), global_expression("pathlib._local.PosixPath")
    ('list', "(pathlib.PosixPath, 'pathlib._local.PosixPath')")
    """
    expression = f"{module_of(name)}.{name.rpartition('.')[2]}".removeprefix("builtins.")
    is_versioned = name.startswith(("numpy.core.", "numpy._core.", "pathlib."))
    return f"({expression}, {name!r})" if is_versioned else expression


def target_for(
    path: str,
    vgg: StoredVGG | None,
    layers: Sequence[StoredLayer],
    prefix: str,
    problems: Problems,
    *,
    is_buildable: bool,
) -> Target:
    """The model for the file at `path`: torchvision's, timm's, one that vggscope builds, or an unknown one.

    `layers` are the file's layers of the network, `prefix` precedes the paths of all of them.
    """
    parametrizing = _parametrizing_lines(layers)
    if parametrizing is None:
        return Target((_UNKNOWN_MODEL,), _without(prefix), True)
    # torchvision's convolutions have a bias; vggscope.build follows the file.
    name = _library_name(vgg) if vgg and not problems.missing_biases else None
    model: tuple[str, ...]
    if vgg and name and vgg.head.has_usual_names(vgg.run):
        classes = vgg.num_classes
        if vgg.style == "timm":
            channels = "" if vgg.input_channels in (3, None) else f", in_chans={vgg.input_channels}"
            model = (f"model = timm.create_model({name!r}, num_classes={classes or 0}{channels})",)
        else:
            number = "" if classes in (1000, None) else f"num_classes={classes}"
            model = (f"model = torchvision.models.{name}({number})", *_first_convolution(vgg))
        return Target((*model, *parametrizing), _key(layers, vgg.run.prefix), problems.has_all_keys)
    if vgg and name and not vgg.head.layers and all(vgg.convs):
        features = "features." if vgg.style == TORCHVISION else ""
        model = (f"model = torchvision.models.{name}()", *_first_convolution(vgg), "model = model.features")
        return Target((*model, *parametrizing), _key(layers, vgg.run.prefix + features), problems.has_all_keys)
    if is_buildable:
        return Target((f"model = vggscope.build({path!r})", *parametrizing), _KEY, problems.has_all_keys)
    return Target((_UNKNOWN_MODEL,), _without(prefix), True)


def library_target(word: str, num_classes: int | None, layers: Sequence[StoredLayer], prefix: str, kind: str) -> Target:
    """The model `torchvision:resnet50` or `timm:resnet50`, with its own number of classes if `kind` is `exact`."""
    library, _, name = word.partition(":")
    classes = "" if kind == "exact" else f", num_classes={num_classes}"
    build = "timm.create_model" if library == "timm" else "torchvision.models.get_model"
    # Their builders download the backbone's weights where nothing else is said.
    backbone = ", weights_backbone=None" if library == "torchvision" and name.startswith(WITH_BACKBONE) else ""
    return Target((f"model = {build}({name!r}{classes}{backbone})",), _key(layers, prefix), True)


def _key(layers: Sequence[StoredLayer], prefix: str) -> str:
    """The expression that removes `prefix`, and the parts that wrappers add, from a key of the file.

    >>> from vggscope.checkpoint.contents import StoredLayer
    >>> named = lambda name: StoredLayer(name, "", "Conv2d", (8, 3, 3, 3), 216, ())
    >>> _key([named("module.features.0"), named("module.classifier.0")], "")
    "key.removeprefix('module.')"
    >>> _key([named("features.module.0"), named("classifier.0")], "")
    "key.replace('.module.', '.')"
    """
    starts = {layer.name.removesuffix(layer.path.removeprefix(prefix)) for layer in layers}
    if len(starts) == 1 and all(layer.name.endswith(layer.path.removeprefix(prefix)) for layer in layers):
        return _without(starts.pop())
    names = [layer.name for layer in layers]
    first = f"{names[0].partition('.')[0]}."
    is_wrapped = first[:-1] in WRAPPERS and all(name.startswith(first) for name in names)
    key = _without(first if is_wrapped else "")
    for part in WRAPPERS:
        if any(f".{part}." in name for name in names):
            key += f".replace('.{part}.', '.')"
    return key + (f".removeprefix({prefix!r})" if prefix else "")


def _without(prefix: str) -> str:
    return f"{_KEY}.removeprefix({prefix!r})" if prefix else _KEY


def _parametrizing_lines(layers: Sequence[StoredLayer]) -> tuple[str, ...] | None:
    """Lines that parametrize the model's layers as the file's are; None where no call on all of them does."""
    calls = {layer.name: parametrizing_call(layer.name, [tensor.name for tensor in layer.tensors]) for layer in layers}
    distinct = set(calls.values()) - {""}
    if not distinct:
        return ()
    ops = {layer.op for layer in layers if calls[layer.name]}
    if len(distinct) > 1 or None in distinct or not all(calls[layer.name] for layer in layers if layer.op in ops):
        return None
    kinds = ", ".join(f"torch.nn.{op}" for op in sorted(filter(None, ops)))
    return (
        "for layer in list(model.modules()):",
        f"    if isinstance(layer, ({kinds})):" if "," in kinds else f"    if isinstance(layer, {kinds}):",
        f"        {distinct.pop()}",
    )


def _first_convolution(vgg: StoredVGG) -> Iterator[str]:
    if vgg.input_channels not in (3, None):
        yield f"model.features[0] = torch.nn.Conv2d({vgg.input_channels}, 64, 3, padding=1)"


def _library_name(vgg: StoredVGG) -> str | None:
    """Torchvision's and timm's name of the model, if the keys and shapes of the features are those of that model."""
    match = vgg.match
    if match is None or match.renumbered or match.run.style not in (TORCHVISION, "bare Sequential"):
        return None
    pairs = enumerate(zip(match.convs, match.expected))
    if any(conv and not same_shape(conv.shape, expected.shape, not i) for i, (conv, expected) in pairs):
        return None
    name = CONFIGS[match.config].literature if match.config else None
    return f"{name}_bn" if name and match.run.batch_norm else name
