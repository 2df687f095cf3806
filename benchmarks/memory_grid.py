"""Compare the computed peak memory with torch's memory tracker over a grid, and print the largest error per model.

    python benchmarks/memory_grid.py [--quick | --sample 20] [MODEL...]

For every model: batches 1 to 256, inputs of 64 to 384 pixels, training with four optimizers and inference, float32 and
bfloat16. The tracker records the second step on CPU tensors without data. Both figures exclude the input batch. The
exit code is 1 if an error is above one percent. A case takes a fifth of a second for a VGG, a second for densenet121.

--sample takes that many random cases of each model instead, always the same ones, with every optimizer and kernel,
weight decay, Nesterov momentum, clipping, a moving average and micro-batches.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from functools import partial
from random import Random

from vggscope.analysis.memory.optimizers import OPTIMIZERS
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.cross_checks.measured_step import Measurement, measure
from vggscope.graph import Network
from vggscope.sources.resolve import resolve, resolve_module
from vggscope.trace.build import without_data
from vggscope.vgg.options import BuildOptions

CONFIGS = [f"{column}{norm}" for column in ("A", "A-LRN", "B", "C", "D", "E") for norm in ("", "_bn")]
OTHERS = ["torchvision:resnet50", "torchvision:mobilenet_v2", "torchvision:densenet121"]
BATCHES = (1, 8, 64, 256)
SIDES = (64, 128, 224, 384)
RUNS = [("train", name) for name in ("sgd", "sgd-momentum", "adam", "rmsprop")] + [("inference", "sgd")]
DTYPES = ("float32", "bfloat16")
LARGEST_ERROR = 0.01


def cases(model: str, quick: bool) -> Iterator[Measurement]:
    """Yield a model's measurements; `quick` takes only the ends of each range."""
    for side in (SIDES[0], SIDES[-1]) if quick else SIDES:
        options = BuildOptions(input=(3, side, side))
        network: Network = resolve(model, options)
        make = partial(without_data, partial(resolve_module, model, options))
        batches = (BATCHES[0], BATCHES[-1]) if quick else BATCHES
        for batch, (mode, optimizer), dtype in itertools.product(batches, RUNS, DTYPES):
            config = StepConfig(mode=mode, optimizer=optimizer, dtype=dtype)
            yield measure(network, make, batch, config)


def sampled(model: str, count: int) -> Iterator[Measurement]:
    """Yield a model's measurements of random steps."""
    random = Random(model)
    for _ in range(count):
        side, batch, config = random.choice(SIDES), random.choice(BATCHES), random_step(random)
        options = BuildOptions(input=(3, side, side))
        make = partial(without_data, partial(resolve_module, model, options))
        yield measure(resolve(model, options), make, max(batch, config.accumulate), config)


def random_step(random: Random) -> StepConfig:
    """A step with random settings."""
    optimizer = random.choice(list(OPTIMIZERS.values()))
    kernels = [{}, {"foreach": False}, {"foreach": True}, *([{"fused": True}] if optimizer.has_fused else [])]
    return StepConfig(
        mode=random.choice(("train", "train", "train", "finetune-head", "inference")),
        optimizer=optimizer.name,
        dtype=random.choice(DTYPES),
        weight_decay=random.choice((0.0, 5e-4)),
        nesterov=optimizer.name == "sgd-momentum" and random.random() < 0.5,
        clip_grad_norm=random.random() < 0.3,
        ema=random.random() < 0.3,
        accumulate=random.choice((1, 1, 2, 3)),
        **random.choice(kernels),
    )


def main() -> int:
    """Print a row for each model and the largest error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=[*CONFIGS, *OTHERS])
    parser.add_argument("--quick", action="store_true", help="only the ends of each range")
    parser.add_argument("--sample", type=int, metavar="N", help="N random cases of each model")
    arguments = parser.parse_args()
    started = time.perf_counter()
    total = equal = 0
    worst = 0.0
    print("| model | cases | equal to the byte | largest error, bytes | largest error |")
    print("|---|---:|---:|---:|---:|")
    for model in arguments.models:
        given = arguments.sample
        measurements = list(sampled(model, given) if given else cases(model, arguments.quick))
        errors = [abs(m.difference_bytes) for m in measurements]
        share = max(abs(m.difference_bytes) / m.measured_bytes for m in measurements)
        print(f"| {model} | {len(measurements)} | {errors.count(0)} | {max(errors):,} | {share:.4%} |", flush=True)
        total, equal, worst = total + len(measurements), equal + errors.count(0), max(worst, share)
    print(f"\n{equal} of {total} cases equal to the byte; the largest error is {worst:.4%}")
    print(f"reference tool: {measurements[0].witness}; {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return int(worst > LARGEST_ERROR)


if __name__ == "__main__":
    sys.exit(main())
