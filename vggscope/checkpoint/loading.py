"""The Python that loads a checkpoint into the model that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vggscope.checkpoint import trusted
from vggscope.checkpoint.configs import same
from vggscope.checkpoint.problems import Differences
from vggscope.checkpoint.reparametrised import remedy
from vggscope.checkpoint.runs import TORCHVISION
from vggscope.checkpoint.stored import WRAPPERS, Checkpoint, StoredLayer
from vggscope.checkpoint.vgg import VGG
from vggscope.record import record
from vggscope.vgg.configs import LITERATURE

_KEY = "key"

_WRITTEN = "model = ...  # of the class whose weights these are"


@record
class Target:
    """Where a file's tensors go: `model` are the lines that build it, `key` the expression that makes its keys of the
    file's, and `is_whole` tells that both have the same keys.
    """

    model: tuple[str, ...]
    key: str
    is_whole: bool


def loading(checkpoint: Checkpoint, target: Target) -> str:
    """Lines that run where torch and, as they name them, torchvision, timm, vggscope or safetensors are installed."""
    state = list(_state(checkpoint, target.key))
    body = (*state, *target.model, f"model.load_state_dict(state{'' if target.is_whole else ', strict=False'})")
    return "\n".join((*_imports("\n".join(body), checkpoint.guarded), "", *body))


def _imports(body: str, guarded: Iterable[str]) -> Iterator[str]:
    named = {package for package in ("timm", "torch", "torchvision", "vggscope") if f" {package}." in body}
    prune = {"torch.nn.utils.prune"} if " torch.nn.utils.prune." in body else set()
    for package in sorted({*trusted.imports(guarded), *named, *prune}):
        yield f"import {package}"
    if " load_file(" in body:
        yield "from safetensors.torch import load_file"


def _state(checkpoint: Checkpoint, key: str) -> Iterator[str]:
    inside = "".join(f"[{name!r}]" for name in checkpoint.wrapper)
    if checkpoint.format == "safetensors":
        yield f"state = load_file({checkpoint.path!r})"
    else:
        call = f"torch.load({checkpoint.path!r}, map_location='cpu', weights_only=True){inside}"
        yield from trusted.loading(call, checkpoint.guarded)
    if key != _KEY or checkpoint.sparse:
        value = "value.to_dense()" if checkpoint.sparse else "value"
        yield f"state = {{{key}: {value} for key, value in state.items()}}"


def target_for(
    path: str, vgg: VGG | None, layers: Sequence[StoredLayer], prefix: str, told: Differences, *, is_buildable: bool
) -> Target:
    """Where the tensors of the file at `path` go.

    `layers` are the network's own in the file, `prefix` is what stands before the paths of all of them, `told` is how
    they differ from the column's.
    """
    made = _reparametrised(layers)
    if made is None:
        return Target((_WRITTEN,), _without(prefix), True)
    # torchvision's convolutions have a bias, ours are built as the file's are.
    name = _literature(vgg) if vgg and not told.unbiased else None
    model: tuple[str, ...]
    if vgg and name and vgg.head.has_usual_names(vgg.run):
        classes = vgg.num_classes
        if vgg.style == "timm":
            channels = "" if vgg.input_channels in (3, None) else f", in_chans={vgg.input_channels}"
            model = (f"model = timm.create_model({name!r}, num_classes={classes or 0}{channels})",)
        else:
            number = "" if classes in (1000, None) else f"num_classes={classes}"
            model = (f"model = torchvision.models.{name}({number})", *_first_convolution(vgg))
        return Target((*model, *made), _key(layers, vgg.run.prefix), told.is_whole)
    if vgg and name and not vgg.head.layers and all(vgg.convs):
        features = "features." if vgg.style == TORCHVISION else ""
        model = (f"model = torchvision.models.{name}()", *_first_convolution(vgg), "model = model.features")
        return Target((*model, *made), _key(layers, vgg.run.prefix + features), told.is_whole)
    if is_buildable:
        return Target((f"model = vggscope.build({path!r})", *made), _KEY, told.is_whole)
    return Target((_WRITTEN,), _without(prefix), True)


def _key(layers: Sequence[StoredLayer], prefix: str) -> str:
    """The expression that takes `prefix`, and the parts that wrappers put into it or behind it, from the file's keys.

    >>> from vggscope.checkpoint.stored import StoredLayer
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
    leading = f"{names[0].partition('.')[0]}."
    is_wrapped = leading[:-1] in WRAPPERS and all(name.startswith(leading) for name in names)
    key = _without(leading if is_wrapped else "")
    for part in WRAPPERS:
        if any(f".{part}." in name for name in names):
            key += f".replace('.{part}.', '.')"
    return key + (f".removeprefix({prefix!r})" if prefix else "")


def _without(prefix: str) -> str:
    return f"{_KEY}.removeprefix({prefix!r})" if prefix else _KEY


def _reparametrised(layers: Sequence[StoredLayer]) -> tuple[str, ...] | None:
    """Lines that have the model make its weights of the parts that the file holds; None where none would."""
    found = {layer.name: remedy(layer.name, [tensor.name for tensor in layer.tensors]) for layer in layers}
    calls = set(found.values()) - {""}
    if not calls:
        return ()
    ops = {layer.op for layer in layers if found[layer.name]}
    if len(calls) > 1 or None in calls or not all(found[layer.name] for layer in layers if layer.op in ops):
        return None
    kinds = ", ".join(f"torch.nn.{op}" for op in sorted(filter(None, ops)))
    return (
        "for layer in list(model.modules()):",
        f"    if isinstance(layer, ({kinds})):" if "," in kinds else f"    if isinstance(layer, {kinds}):",
        f"        {calls.pop()}",
    )


def _first_convolution(vgg: VGG) -> Iterator[str]:
    if vgg.input_channels not in (3, None):
        yield f"model.features[0] = torch.nn.Conv2d({vgg.input_channels}, 64, 3, padding=1)"


def _literature(vgg: VGG) -> str | None:
    """What torchvision and timm call the model, if the features' keys and shapes are those of its own."""
    found = vgg.found
    if found is None or found.renumbered or found.run.style not in (TORCHVISION, "bare Sequential"):
        return None
    if any(conv and not same(conv.shape, p.shape, not i) for i, (conv, p) in enumerate(zip(found.convs, found.places))):
        return None
    name = next((name for name, column in LITERATURE.items() if column == found.column), None)
    return f"{name}_bn" if name and found.run.batch_norm else name
