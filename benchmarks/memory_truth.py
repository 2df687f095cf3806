"""Compare MACs and peak memory with torch's own tools over many models, and write the tables of the docs.

    python benchmarks/memory_truth.py [--only PATTERN...] [--limit SECONDS] [--pages]

For every model: forward and backward MACs beside torch.utils.flop_counter's, and the peaks of a forward pass and of a
training step beside torch's memory tracker's. The models run in another process, each for a limited time. Their results
are kept in memory_truth.json as they come. A later call runs the models that have none, and --only runs those of its
patterns, such as 'timm:*', again. The tables of docs/memory.md and docs/models.md are written from the file; --pages
writes them without a run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from fnmatch import fnmatch
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from memory_truth_page import write_pages  # noqa: E402

if TYPE_CHECKING:
    from torch import nn

    from vggscope.graph import Network
    from vggscope.recorded_step import StepRequest
    from vggscope.trace.inputs import CallInputs

RESULTS = Path(__file__).with_suffix(".json")

TORCHVISION = """
alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d wide_resnet50_2
shufflenet_v2_x0_5 squeezenet1_0 squeezenet1_1 swin_t swin_v2_t vgg11 vgg16 vgg16_bn vit_b_16 vit_b_32
deeplabv3_mobilenet_v3_large fcn_resnet50 lraspp_mobilenet_v3_large mc3_18 r2plus1d_18 r3d_18 mvit_v1_b mvit_v2_s s3d
swin3d_t raft_small ssdlite320_mobilenet_v3_large fasterrcnn_mobilenet_v3_large_320_fpn
"""
"""One or two models of each family, of every task."""

TIMM = """
beit_base_patch16_224 halonet_h1 test_byobnet cait_xxs24_224 coat_tiny convit_tiny convmixer_1024_20_ks9_p14
test_convnext cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_s cspnext_tiny davit_tiny deit_tiny_patch16_224
densenet121 dla46_c dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0 test_efficientnet efficientvim_m1
efficientvit_b0 efficientvit_m0 vit_tiny_patch16_dinov3_qkvb fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny
gemma4_vit_167m ghostnet_050 hardcorenas_b hgnetv2_b0 hiera_tiny_224 sam2_hiera_tiny hrnet_w18_small_v2 iformer_t
inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small levit_conv_128 lowformer_b0
test_mambaout test_coatnet poolformerv2_s12 gmlp_ti16_224 mobilenetv3_small_050 mobilenetv5_300m mobilevit_xxs
mvitv2_tiny naflexvit_base_patch16_gap nest_tiny nextvit_small test_nfnet pit_ti_distilled_224 pvt_v2_b0 qwen3_vit_88m
rdnet_tiny regnetx_002 repghostnet_050 repvit_m1_1 res2next50 resnest14d test_resnet resnetv2_18 rexnet_100 selecsls42
legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18 starnet_s1 swiftformer_xs swin_s3_tiny_224 swinv2_tiny_window8_256
swinv2_cr_tiny_224 tiny_vit_5m_224 tnt_s_legacy_patch16_224 tresnet_m twins_pcpvt_small visformer_tiny test_vit
vit_tiny_r_s16_p8_224 test_vit_relpos samvit_base_patch16 vitamin_small_224 volo_d1_224 ese_vovnet19b_slim_dw
legacy_xception xception41 xcit_nano_12_p8_224
"""
"""The smallest model of each file of timm.models."""

BATCH = 2
"""Samples of a step: some models cannot be trained on one."""

MODES = {"inference": "inference", "training": "train"}

Row = dict[str, Any]
"""A model's results: for each figure [ours, torch's, reason], for the whole model {"failure": reason}."""


def models() -> list[str]:
    """The words of all models: of torchvision and timm, and the modules of tests/zoo.py."""
    from tests.zoo import ZOO

    named = {"torchvision": TORCHVISION.split(), "timm": TIMM.split(), "zoo": sorted(ZOO)}
    return [f"{library}:{name}" for library, names in named.items() for name in names]


def compared(word: str) -> Row:
    """The figures of a model and torch's."""
    from vggscope.analysis.cost import backward_macs, costs, total_macs
    from vggscope.cross_checks.reference_tool import BACKWARD_MACS, MACS
    from vggscope.recorded_step import StepRequest

    requests = tuple(StepRequest(trains, samples=BATCH, on_gpu=False) for trains in (False, True))
    network, make = _zoo(word, requests) if word.startswith("zoo:") else _library(word, requests)
    if network.failure is not None:
        return {"failure": str(network.failure)}
    row: Row = {
        "macs": _counted(network, make, MACS, total_macs(costs(network))),
        "backward MACs": _counted(network, make, BACKWARD_MACS, backward_macs(network)),
    }
    for figure, mode in MODES.items():
        row[figure] = _tracked(network, make, mode)
    return row


def _library(word: str, steps: tuple[StepRequest, ...]) -> tuple[Network, Callable[[], nn.Module]]:
    from vggscope.sources.resolve import resolve, resolve_module
    from vggscope.trace.inputs import attach, candidates, copied, example_of
    from vggscope.vgg.options import BuildOptions

    network = resolve(word, BuildOptions(steps=steps, backward=True))
    module = resolve_module(word, BuildOptions())
    likeliest = next(iter(candidates(module)), None)
    if likeliest is not None and example_of(module) is None:
        shapes = [tuple(tensor.shape) for tensor in likeliest.for_samples(1).tensors()]
        if shapes == [given.shape for given in network.inputs]:
            module = attach(module, likeliest)  # a list of images stays one
    return network, partial(copied, module)


def _zoo(word: str, steps: tuple[StepRequest, ...]) -> tuple[Network, Callable[[], nn.Module]]:
    from tests.test_zoo import call_inputs
    from tests.zoo import ZOO
    from vggscope.trace.inputs import attach
    from vggscope.trace.network import network_of

    name = word.partition(":")[2]
    module, given = ZOO[name]()
    inputs = call_inputs(name, given)
    network = network_of(attach(module, inputs), name, steps=steps, backward=True)
    return network, lambda: attach(ZOO[name]()[0], inputs)


def _counted(network: Network, make: Callable[[], nn.Module], figure: str, ours: int | None) -> list[Any]:
    """MACs of one sample: ours, and torch's with the products that its counter has no formula for."""
    from vggscope.cross_checks import flop_counter
    from vggscope.cross_checks.reference_tool import BACKWARD_MACS, NotApplicable, ReportedFigure, without_data
    from vggscope.trace.inputs import attach, inputs_of

    tool = flop_counter.REFERENCE_TOOL
    inputs = inputs_of(make(), network)
    try:
        reported = tool.reports[figure](network, attach(without_data(make()), inputs))
    except NotApplicable as reason:
        return [ours, None, _without_folders(str(reason))]
    except Exception:  # forward reads values, or holds tensors that are no parameters
        try:
            trains = figure == BACKWARD_MACS and network.in_training is not None
            reported = ReportedFigure(_counted_on_data(make().eval(), inputs, figure, trains))
        except Exception as error:
            return [ours, None, f"the counter fails: {_text(error)}"]
    if ours is None:
        return [ours, reported.value, "withheld"]
    explain = tool.explain.get(figure, lambda network, value: ())
    terms = (*reported.terms, *explain(network, reported.value))
    is_explained = reported.value != ours and sum(term.amount for term in terms) == reported.value - ours
    return [ours, reported.value, " ".join(map(str, terms)) if is_explained else ""]


def _counted_on_data(module: nn.Module, inputs: CallInputs, figure: str, trains: bool) -> int:
    """torch's MACs of a run on the module's own weights: forward, or backward from the sum of the outputs.

    `trains` runs the layers of training.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from vggscope.cross_checks.reference_tool import MACS
    from vggscope.trace.forward import layers_of_training
    from vggscope.trace.tensors import tensors_in

    counter = FlopCounterMode(display=False)
    if figure == MACS:
        with torch.no_grad(), counter:
            inputs.call(module)
    else:
        with layers_of_training(module) if trains else nullcontext():
            outputs = [tensor.sum() for tensor in tensors_in(inputs.call(module)) if tensor.requires_grad]
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        with counter:
            if outputs and trained:
                torch.autograd.grad(outputs, trained, allow_unused=True)
    return int(counter.get_total_flops()) // 2


def _tracked(network: Network, make: Callable[[], nn.Module], mode: str) -> list[Any]:
    """The peak of a step in bytes, ours and the tracker's."""
    from vggscope.analysis.memory.simulate import recorded_step
    from vggscope.analysis.memory.step_config import StepConfig
    from vggscope.cross_checks.measured_step import measure, step_measured

    config = StepConfig(mode=mode)
    batch = BATCH if network.single is None else 1
    is_known = network.predicts_memory or recorded_step(network.for_batch(batch), step_measured(config)) is not None
    try:
        measured = measure(network, make, batch, config)
    except Exception as error:
        return [None, None, _text(error)]
    reason = "" if is_known else next((w for w in network.warnings if "by the rules" in w), "by the rules of each op")
    return [measured.predicted_bytes, measured.measured_bytes, reason]


def _text(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return _without_folders(lines[0])


def _without_folders(text: str) -> str:
    return re.sub(r"\S*/site-packages/", "", text)[:200]


def _work(connection: Connection) -> None:
    """Compare the models whose words arrive. What torch has compiled and cached for one serves the next."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    while True:
        try:
            word = connection.recv()
        except EOFError:
            return
        try:
            connection.send(compared(word))
        except Exception as error:
            connection.send({"failure": f"{type(error).__name__}: {_text(error)}"})


class Worker:
    """A process that compares one model after another. One that takes too long ends it, and the next starts another."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._process: multiprocessing.Process | None = None

    def run(self, word: str) -> Row:
        """Return the results of a model, or the reason why there are none."""
        if self._process is None:
            self._connection, theirs = multiprocessing.Pipe()
            self._process = multiprocessing.Process(target=_work, args=(theirs,))
            self._process.start()
            theirs.close()
        self._connection.send(word)
        try:
            if self._connection.poll(self.limit):
                row: Row = self._connection.recv()
                return row
            failure = f"takes more than {self.limit:.0f} s"
        except EOFError:
            failure = "the process ended"
        self.end()
        return {"failure": failure}

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _save(results: Mapping[str, Any]) -> None:
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in results.items())
    RESULTS.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def main() -> None:
    """Run the models that have no results, or those of the patterns, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="run these models, again if they have results")
    parser.add_argument("--limit", type=float, default=90, metavar="SECONDS", help="longest time for a model")
    parser.add_argument("--pages", action="store_true", help="write the pages from the results, without a run")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if not arguments.pages:
        import timm
        import torch
        import torchvision

        known = models()
        if arguments.only:
            chosen = [word for word in known if any(fnmatch(word, pattern) for pattern in arguments.only)]
        else:
            chosen = [word for word in known if word not in results]
        worker = Worker(arguments.limit)
        for number, word in enumerate(chosen, 1):
            started = time.perf_counter()
            results[word] = worker.run(word)
            print(f"{number}/{len(chosen)} {word}, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
            versions = {library.__name__: library.__version__ for library in (torch, torchvision, timm)}
            _save({"versions": versions, **{word: results[word] for word in known if word in results}})
        worker.end()
    write_pages(results, models())


if __name__ == "__main__":
    main()
