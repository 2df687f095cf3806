"""The witness for memory: torch.distributed._tools.mem_tracker over tensors without data.

The tracker is a dispatch mode that books every tensor which torch makes and frees. Under FakeTensorMode nothing is
allocated, so that a batch of 256 is followed in a fraction of a second on any machine. It works on fake CPU tensors;
a fake CUDA device fails in the backward pass, so what CUDA does otherwise it does not see.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vggscope.ops.base import Shape

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor, nn
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.optim import Optimizer


@dataclass(frozen=True)
class Tracked:
    """The most bytes alive at once and what they were for, in the tracker's own words (Parameter, Gradient...).

    The input batch and its labels were made before the tracker looked and are not among them.
    """

    peak_bytes: int
    parts: dict[str, int]


@dataclass(frozen=True)
class TrackedStep:
    """What is run: a forward pass without gradients, or a step of training behind a first one.

    `trained` are the names of the parameters that require a gradient, None: as the model has it. `batch` is cut into
    `accumulate` micro-batches.
    """

    mode: str = "train"
    optimizer: str = "sgd-momentum"
    dtype: str = "float32"
    foreach: bool = False
    accumulate: int = 1
    trained: Collection[str] | None = None

    def run(self, make: Callable[[], nn.Module], input_shape: Shape, batch: int) -> Tracked:
        """Follow `make`'s model on a batch of inputs of this shape (channels, height, width)."""
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode
        dtype = torch.float32 if self.dtype == "amp" else getattr(torch, self.dtype)
        with FakeTensorMode():
            module = made_in(make, dtype).train(self.mode != "inference")
            for name, parameter in module.named_parameters():
                if self.trained is not None:
                    parameter.requires_grad_(name in self.trained)
            optimizer = self.make_optimizer(module) if self.mode != "inference" else None
            size = -(-batch // self.accumulate)
            batches = [torch.zeros(size, *input_shape, dtype=dtype) for _ in range(self.accumulate)]
            tracker = make_tracker()
            step = self._step(module, optimizer, batches, tracker.reset_mod_stats)
            if optimizer is not None:
                step()
                optimizer.zero_grad(set_to_none=True)
            tracker.track_external(module, *([optimizer] if optimizer else []))
            with tracker:
                step()
            (snapshot,) = tracker.get_tracker_snapshot("peak").values()
        parts = {kind.value: size for kind, size in snapshot.items() if kind != "Total"}
        return Tracked(snapshot["Total"], parts)

    def _step(
        self, module: nn.Module, optimizer: Optimizer | None, batches: list[Tensor], between: Callable[[], None]
    ) -> Callable[[], None]:
        import torch
        from torch.nn.functional import cross_entropy

        labels = [self._labels(module, batch) for batch in batches] if optimizer else []

        def forward() -> None:
            with torch.no_grad(), self._autocast():
                module(batches[0])

        def train() -> None:
            for batch, target in zip(batches, labels):
                with self._autocast():
                    loss = cross_entropy(module(batch), target)
                loss.backward()
                between()
            assert optimizer is not None
            optimizer.step()

        return train if optimizer else forward

    def _labels(self, module: nn.Module, batch: Tensor) -> Tensor:
        """Zeros for each position of the output behind its classes."""
        import torch

        with torch.no_grad():
            shape = module(batch).shape
        return torch.zeros(shape[0], *shape[2:], dtype=torch.long)

    def _autocast(self) -> AbstractContextManager[object]:
        import torch

        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.dtype == "amp")

    def make_optimizer(self, module: nn.Module) -> Optimizer:
        """The optimizer of this name with torch's own defaults."""
        from torch import optim

        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if self.optimizer in ("sgd", "sgd-momentum"):
            momentum = 0.9 if self.optimizer == "sgd-momentum" else 0.0
            return optim.SGD(trained, lr=0.01, momentum=momentum, foreach=self.foreach)
        kinds = {"adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop}
        return kinds[self.optimizer](trained, lr=0.01, foreach=self.foreach)


def make_tracker() -> MemTracker:
    """torch's tracker, which as it stands refuses a model with a frozen parameter: it hooks the gradient of each."""
    from torch.distributed._tools.mem_tracker import MemTracker

    class Tracker(MemTracker):
        def _track_module_params_and_buffers(
            self, module: nn.Module, install_grad_hooks: bool = True
        ) -> tuple[int, int]:
            learns = all(parameter.requires_grad for parameter in module.parameters())
            return super()._track_module_params_and_buffers(module, install_grad_hooks and learns)

    return Tracker()


def made_in(make: Callable[[], nn.Module], dtype: object) -> nn.Module:
    """A model whose weights are made in this dtype from the start: fake parameters cannot be converted in place."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # type: ignore[arg-type]
    try:
        return make()
    finally:
        torch.set_default_dtype(before)
