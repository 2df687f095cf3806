"""vggscope looks into VGG networks, and any PyTorch model, and tells exactly what is there.

    import vggscope

    print(vggscope.summary("D"))
    vggscope.diff(my_module, ref="torchvision").verdict

The functions are those of `vggscope.api`, imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vggscope.api import (
        build,
        compare,
        diagram,
        diff,
        explain,
        grid,
        inspect,
        measure,
        memory,
        network,
        operations,
        receptive_fields,
        report,
        summary,
        verify,
    )
    from vggscope.errors import VggscopeError

__version__ = "0.1.0"

__all__ = [
    "VggscopeError",
    "__version__",
    "build",
    "compare",
    "diagram",
    "diff",
    "explain",
    "grid",
    "inspect",
    "measure",
    "memory",
    "network",
    "operations",
    "receptive_fields",
    "report",
    "summary",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'vggscope' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("vggscope.errors" if name == "VggscopeError" else "vggscope.api"), name)


def __dir__() -> list[str]:
    return __all__
