"""The memory of one step at every batch, for each mode, dtype and optimizer that the HTML page offers."""

from __future__ import annotations

from itertools import product

from vggscope.analysis.memory.allocation_log import KINDS, Moment
from vggscope.analysis.memory.optimizers import OPTIMIZERS
from vggscope.analysis.memory.report import assumptions
from vggscope.analysis.memory.simulate import simulate_step
from vggscope.analysis.memory.step_config import MODES, StepConfig
from vggscope.graph import Network
from vggscope.record import record

SIMULATED_AS = {"float32": "float32", "float16": "float16", "bfloat16": "float16", "amp": "amp"}
"""The dtype to simulate for each dtype: one with the same bytes per element."""

WEIGHTS_AS = {"float32": "float32", "float16": "float16", "bfloat16": "float16", "amp": "float32"}
"""The dtype of the optimizer's states for each dtype; they are as wide as the weights."""

OPTIMIZER_STEP = "optimizer step"


@record
class OptimizerMemory:
    """The bytes that an optimizer adds to a step with plain SGD, at any batch.

    `states` are allocated during the whole step, `temporary` at the peak of the optimizer step, which is at `layer`.
    """

    states: int
    temporary: int
    layer: str


@record
class StepMemory:
    """The memory of one step, in bytes as a function of the batch.

    `moments` are those of a step with plain SGD, by mode and dtype (a value of SIMULATED_AS). `optimizers` holds what
    each optimizer adds, by mode, dtype (a value of WEIGHTS_AS) and name. `assumptions` holds sentences, by mode,
    optimizer and dtype.
    """

    moments: dict[tuple[str, str], tuple[Moment, ...]]
    optimizers: dict[tuple[str, str, str], OptimizerMemory]
    assumptions: dict[tuple[str, str, str], tuple[str, ...]]

    def peak_bytes(self, mode: str, optimizer: str, dtype: str, batch: int) -> int:
        """Return the peak of a step, as `memory` does."""
        added = self.optimizers.get((mode, WEIGHTS_AS[dtype], optimizer), OptimizerMemory(0, 0, ""))
        return added.states + max(
            moment.total.at(batch) + (added.temporary if moment.event == OPTIMIZER_STEP else 0)
            for moment in self.moments[mode, SIMULATED_AS[dtype]]
        )


def step_memory(network: Network) -> StepMemory:
    """Return the memory of a step of the network for every setting.

    What an optimizer adds does not depend on the batch, so activations are simulated once for each mode and dtype.

    >>> from vggscope.sources.resolve import resolve
    >>> step_memory(resolve("A")).peak_bytes("train", "sgd-momentum", "float32", 64)
    4749085928
    """
    simulated, weights = dict.fromkeys(SIMULATED_AS.values()), dict.fromkeys(WEIGHTS_AS.values())
    return StepMemory(
        moments={
            (mode, dtype): simulate_step(network, StepConfig(mode, "sgd", dtype)).moments
            for mode, dtype in product(MODES, simulated)
        },
        optimizers={
            (mode, dtype, name): _optimizer(network, StepConfig(mode, name, dtype))
            for mode, dtype, name in product(MODES, weights, OPTIMIZERS)
            if mode != "inference"
        },
        assumptions={
            (mode, name, dtype): tuple(assumptions(network, StepConfig(mode, name, dtype), batch=1))
            for mode, name, dtype in product(MODES, OPTIMIZERS, SIMULATED_AS)
        },
    )


def _optimizer(network: Network, config: StepConfig) -> OptimizerMemory:
    moments = simulate_step(network, config).moments
    peak = max((moment for moment in moments if moment.event == OPTIMIZER_STEP), key=lambda moment: moment.total.fixed)
    states = moments[0].alive[KINDS.index("optimizer")].fixed
    return OptimizerMemory(states, peak.alive[KINDS.index("temporary")].fixed, peak.layer)
