"""The Python that loads a checkpoint into the model that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.analysis.inspection.columns import same
from vggscope.analysis.inspection.runs import TORCHVISION
from vggscope.analysis.inspection.stored import Checkpoint
from vggscope.analysis.inspection.vgg import VGG
from vggscope.columns import LITERATURE
from vggscope.record import record

_WRITTEN = "model = ...  # of the class whose weights these are"


@record
class Target:
    """Where a file's tensors go: `model` are the lines that build it, `prefix` what the file has before its keys,
    and `is_whole` tells that both have the same keys.
    """

    model: tuple[str, ...]
    prefix: str
    is_whole: bool


def loading(checkpoint: Checkpoint, vgg: VGG | None, prefix: str, *, is_whole: bool, is_buildable: bool) -> str:
    """Lines that run where torch and, as they name them, torchvision, timm, vggscope or safetensors are installed."""
    target = _target(checkpoint, vgg, prefix, is_whole=is_whole, is_buildable=is_buildable)
    state = list(_state(checkpoint, target.prefix))
    body = (*state, *target.model, f"model.load_state_dict(state{'' if target.is_whole else ', strict=False'})")
    return "\n".join((*_imports("\n".join(body)), "", *body))


def _imports(body: str) -> Iterator[str]:
    for package in ("argparse", "timm", "torch", "torchvision", "vggscope"):
        if any(f"{start}{package}." in body for start in (" ", "[")):
            yield f"import {package}"
    if " load_file(" in body:
        yield "from safetensors.torch import load_file"


def _state(checkpoint: Checkpoint, prefix: str) -> Iterator[str]:
    inside = "".join(f"[{name!r}]" for name in checkpoint.wrapper)
    if checkpoint.format == "safetensors":
        yield f"state = load_file({checkpoint.path!r})"
    elif checkpoint.guarded == ("argparse.Namespace",):
        yield "with torch.serialization.safe_globals([argparse.Namespace]):"
        yield f"    state = torch.load({checkpoint.path!r}, map_location='cpu', weights_only=True){inside}"
    else:
        yield f"state = torch.load({checkpoint.path!r}, map_location='cpu', weights_only=True){inside}"
    if prefix:
        yield f"state = {{key.removeprefix({prefix!r}): value for key, value in state.items()}}"


def _target(checkpoint: Checkpoint, vgg: VGG | None, prefix: str, *, is_whole: bool, is_buildable: bool) -> Target:
    name = _literature(vgg) if vgg else None
    model: tuple[str, ...]
    if vgg and name and vgg.head.has_usual_names(vgg.run):
        classes = vgg.num_classes
        if vgg.style == "timm":
            channels = "" if vgg.input_channels in (3, None) else f", in_chans={vgg.input_channels}"
            model = (f"model = timm.create_model({name!r}, num_classes={classes or 0}{channels})",)
        else:
            number = "" if classes in (1000, None) else f"num_classes={classes}"
            model = (f"model = torchvision.models.{name}({number})", *_first_convolution(vgg))
        return Target(model, prefix, is_whole)
    if vgg and name and not vgg.head.layers and all(vgg.convs):
        features = "features." if vgg.style == TORCHVISION else ""
        model = (f"model = torchvision.models.{name}()", *_first_convolution(vgg), "model = model.features")
        return Target(model, prefix + features, is_whole)
    if is_buildable:
        return Target((f"model = vggscope.build({checkpoint.path!r})",), "", is_whole)
    return Target((_WRITTEN,), prefix, True)


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
