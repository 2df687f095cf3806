"""vggscope inspects VGG networks, and any PyTorch model.

    import vggscope

    print(vggscope.summary("D"))
    vggscope.diff(my_module, ref="torchvision").verdict

The functions are those of `vggscope.api`. Each name is imported when it is first used, so `import vggscope` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vggscope import result as _result

if TYPE_CHECKING:
    from vggscope._version import __version__
    from vggscope.analysis.compare import Comparison
    from vggscope.analysis.fleet import Fleet
    from vggscope.analysis.memory.grid import Estimate, Grid
    from vggscope.analysis.memory.report import MemoryReport
    from vggscope.analysis.operations import Operations
    from vggscope.analysis.receptive_field.result import ReceptiveFields
    from vggscope.analysis.summary import CostSums, Summary
    from vggscope.api import (
        activations,
        build,
        catalogue,
        compare,
        diagram,
        diff,
        explain,
        export,
        fleet,
        grid,
        inspect,
        lock,
        measure,
        memory,
        network,
        operations,
        receptive_fields,
        register_op,
        report,
        stats,
        summary,
        values,
        verify,
    )
    from vggscope.checkpoint.inspection import Inspection
    from vggscope.checkpoint.statistics import Statistics
    from vggscope.cross_checks.measured_step import Measurement
    from vggscope.cross_checks.verification import Verification
    from vggscope.diffing.result import Diff
    from vggscope.diffing.values import ValueDiff
    from vggscope.diffing.weight_check import WeightCheck
    from vggscope.drawing import Diagram
    from vggscope.errors import (
        CheckpointError,
        MissingTool,
        ModelError,
        NotationError,
        OptionError,
        OutputError,
        ShapeError,
        UnknownName,
        VggscopeError,
    )
    from vggscope.execution.activations import Activations
    from vggscope.explorer.result import Page
    from vggscope.graph import Network
    from vggscope.lock_file import Lock
    from vggscope.sources.catalogue import Catalogue
    from vggscope.trace.registered import OpCall, Registration
    from vggscope.tutorials.tutorial import Tutorial

__all__ = [
    "Activations",
    "Catalogue",
    "CheckpointError",
    "Comparison",
    "CostSums",
    "Diagram",
    "Diff",
    "Estimate",
    "Fleet",
    "Grid",
    "Inspection",
    "Lock",
    "Measurement",
    "MemoryReport",
    "MissingTool",
    "ModelError",
    "Network",
    "NotationError",
    "OpCall",
    "Operations",
    "OptionError",
    "OutputError",
    "Page",
    "ReceptiveFields",
    "Registration",
    "ShapeError",
    "Statistics",
    "Summary",
    "Tutorial",
    "UnknownName",
    "ValueDiff",
    "Verification",
    "VggscopeError",
    "WeightCheck",
    "__version__",
    "activations",
    "build",
    "catalogue",
    "compare",
    "diagram",
    "diff",
    "explain",
    "export",
    "fleet",
    "grid",
    "inspect",
    "lock",
    "measure",
    "memory",
    "network",
    "operations",
    "receptive_fields",
    "register_op",
    "report",
    "stats",
    "summary",
    "values",
    "verify",
]

_MODULES = {
    "__version__": "_version",
    "Activations": "execution.activations",
    "Catalogue": "sources.catalogue",
    "Comparison": "analysis.compare",
    "CostSums": "analysis.summary",
    "Diagram": "drawing",
    "Diff": "diffing.result",
    "Estimate": "analysis.memory.grid",
    "Fleet": "analysis.fleet",
    "Grid": "analysis.memory.grid",
    "Inspection": "checkpoint.inspection",
    "Lock": "lock_file",
    "Measurement": "cross_checks.measured_step",
    "MemoryReport": "analysis.memory.report",
    "Network": "graph",
    "OpCall": "trace.registered",
    "Operations": "analysis.operations",
    "Page": "explorer.result",
    "ReceptiveFields": "analysis.receptive_field.result",
    "Registration": "trace.registered",
    "Statistics": "checkpoint.statistics",
    "Summary": "analysis.summary",
    "Tutorial": "tutorials.tutorial",
    "ValueDiff": "diffing.values",
    "Verification": "cross_checks.verification",
    "WeightCheck": "diffing.weight_check",
}
"""The modules of the names that are neither a function of `api` nor an error."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'vggscope' has no attribute {name!r}")
    from importlib import import_module

    module = _MODULES.get(name, "errors" if name[0].isupper() else "api")
    return getattr(import_module(f"vggscope.{module}"), name)


def __dir__() -> list[str]:
    return __all__


def _presentation() -> _result.Presentation:
    from vggscope.render import formats

    return formats


_result.presentation = _presentation
