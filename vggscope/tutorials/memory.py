"""`explain memory`: what a training step holds at its peak, for one image and for many."""

from __future__ import annotations

from vggscope.analysis.memory.report import memory
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.graph import Network
from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.tutorial import Tutorial, facts, listing, text, tutorial
from vggscope.units import bytes_text

COLUMN = "D"
STEPS = (("inference", 1), ("inference", 64), ("train", 1), ("train", 64))


@record
class PeakParts:
    """The bytes alive at the peak of a step. `other_bytes` are the buffers, the temporary tensors and the input."""

    mode: str
    batch: int
    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    other_bytes: int
    peak_bytes: int


@record
class MemoryParts:
    """The steps of a model, with SGD and momentum in training."""

    model: str
    steps: tuple[PeakParts, ...]


def explain(network: Network | None = None) -> Tutorial:
    """The parts of the peak of column D, or of `network`, at inference and in training.

    Raises ShapeError for a network that is known for one sample only.
    """
    described = network or resolve(COLUMN)
    steps = tuple(_parts(described, mode, batch) for mode, batch in STEPS)
    names = ("parameters", "gradients", "optimizer", "activations", "other", "peak")
    rows = tuple((name, *(bytes_text(getattr(step, f"{name}_bytes")) for step in steps)) for name in names)
    return tutorial(
        "memory",
        f"memory: what a step of {described.name} holds at its peak",
        MemoryParts(described.name, steps),
        text("At the peak of a step, in float32, with SGD and momentum:"),
        listing(("", *(f"{step.mode}, batch {step.batch}" for step in steps)), rows),
        facts(
            {
                "parameters": "4 bytes each; they do not depend on the batch",
                "gradients": "one number for each parameter, in training; at the peak some layers have none yet",
                "optimizer": "momentum is one more number for each parameter, Adam two",
                "activations": "what the backward pass needs of the forward pass: in proportion to the batch, and to"
                " the pixels of the image",
                "inference": "a layer's input is freed as soon as no other layer reads it",
                "less of it": "a smaller batch, bfloat16, or checkpointing, which computes activations twice:"
                " vggscope memory D --batch 64 --gpu 24GiB",
            }
        ),
    )


def _parts(network: Network, mode: str, batch: int) -> PeakParts:
    report = memory(network, batch, StepConfig(mode))
    parts = report.parameters_bytes, report.gradients_bytes, report.optimizer_bytes, report.activations_bytes
    return PeakParts(mode, batch, *parts, report.peak_bytes - sum(parts), report.peak_bytes)
