"""Hostile files of ONNX and of torch.export: each is refused or described within 5 seconds and 300 MB.

The limits are the system's: a process of its own that exceeds them dies, and the test fails.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tests.protobuf import length, varint
from tests.test_onnx import _bomb, graph
from vggscope.builders.save import write_onnx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS bounds memory on Linux alone"),
]

SECONDS, BYTES = 5, 300 * 10**6

READING = f"""
import resource, sys
import vggscope
from vggscope.errors import VggscopeError

import vggscope.api, vggscope.sources.onnx, vggscope.foreign.onnx.network, vggscope.foreign.torch.export
import vggscope.analysis.summary, vggscope.checkpoint.inspection

with open("/proc/self/statm") as file:
    held = int(file.read().split()[0]) * resource.getpagesize()
seconds = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
for path in sys.argv[1:]:
    for ask in (vggscope.summary, vggscope.inspect):
        # Of the processor, which a busy machine does not change; the next file gets as much again.
        seconds = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (seconds + {SECONDS}, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_AS, (held + {BYTES}, resource.RLIM_INFINITY))
        try:
            ask(path)
            print("described", path)
        except VggscopeError as error:
            assert "\\n" not in error.problem
            print("refused", path)
"""
"""Reads each file within the limits, beyond what the process holds once the code is imported."""


def outcomes(paths: list[Path]) -> list[str]:
    """What two questions to each file gave. Fails if one exceeds the limits or ends in any other way."""
    done = subprocess.run(
        [sys.executable, "-c", READING, *map(str, paths)], capture_output=True, text=True, check=False, timeout=600
    )
    found = [line.split()[0] for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.returncode, len(found), done.stderr[-2000:])
    assert len(found) == 2 * len(paths)
    return found


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()


def test_the_limits_are_enforced(tmp_path: Path) -> None:
    """The program that is to die of them does."""
    greedy = READING.replace("ask(path)", "bytearray(400 * 10**6)")
    done = subprocess.run([sys.executable, "-c", greedy, "x"], capture_output=True, text=True, check=False, timeout=60)
    assert "MemoryError" in done.stderr
    endless = READING.replace("ask(path)", "all(True for _ in iter(int, 1))").replace(f"+ {SECONDS},", "+ 1,")
    done = subprocess.run([sys.executable, "-c", endless, "x"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode < 0


def cut(data: bytes, name: str, folder: Path) -> list[Path]:
    """The first tenths of a file, each as a file."""
    paths = [folder / f"{tenth}-{name}" for tenth in range(10)]
    for tenth, path in enumerate(paths):
        path.write_bytes(data[: len(data) * tenth // 10])
    return paths


def test_an_onnx_file_that_is_cut_short_is_refused(model: nn.Module, tmp_path: Path) -> None:
    write_onnx(model, (1, 3, 8, 8), tmp_path / "whole.onnx")
    assert outcomes([tmp_path / "whole.onnx"]) == ["described"] * 2
    assert set(outcomes(cut((tmp_path / "whole.onnx").read_bytes(), "x.onnx", tmp_path))) == {"refused"}


def test_a_program_that_is_cut_short_is_refused(model: nn.Module, tmp_path: Path) -> None:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        torch.export.save(torch.export.export(model, (torch.zeros(1, 3, 8, 8),)), tmp_path / "whole.pt2")
    assert outcomes([tmp_path / "whole.pt2"]) == ["described"] * 2
    assert set(outcomes(cut((tmp_path / "whole.pt2").read_bytes(), "x.pt2", tmp_path))) == {"refused"}


def _outside(location: str) -> onnx.ModelProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3, 3, 3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "-5", "length": "9" * 30}.items():
        tensor.external_data.add(key=key, value=value)
    return graph([helper.make_node("Conv", ["x", "w"], ["y"])], tensors=[tensor])


def _weights(**dims: list[int]) -> onnx.ModelProto:
    tensors = [TensorProto(name=name, data_type=1, dims=sides, raw_data=bytes(4)) for name, sides in dims.items()]
    nodes = [helper.make_node("Conv", ["x" if i == 0 else f"v{i}", name], [f"v{i + 1}"]) for i, name in enumerate(dims)]
    return graph(nodes, tensors=tensors, outputs=[f"v{len(dims)}"])


def _doubling(count: int) -> onnx.ModelProto:
    """Constants, each of which is the one before beside itself."""
    nodes = [helper.make_node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=0) for i in range(count)]
    nodes.append(helper.make_node("Reshape", ["x", f"c{count}"], ["y"]))
    return graph(nodes, tensors=[numpy_helper.from_array(torch.ones(1, dtype=torch.int64).numpy(), "c0")])


def _large_constants() -> onnx.ModelProto:
    """Numbers that grow without bound where they are computed as Python's."""
    nodes = [helper.make_node("Mul", [f"c{i}", f"c{i}"], [f"c{i + 1}"]) for i in range(200)]
    nodes.append(helper.make_node("Reshape", ["x", "c200"], ["y"]))
    return graph(nodes, tensors=[numpy_helper.from_array(torch.tensor([3]).numpy(), "c0")])


def _nested(count: int) -> bytes:
    data = b""
    for _ in range(count):
        data = length(1, length(5, length(6, data)))
    return length(7, data)


def test_hostile_onnx_files_are_refused_or_described(tmp_path: Path) -> None:
    files = {
        "functions": _bomb(12).SerializeToString(),
        "nested": _nested(3000),
        "deep": _nested(7),
        "nodes": length(7, length(1, length(1, b"x") + length(2, b"y")) * 25_000),
        "fields": length(7, length(5, b"\x08\x01" * 2_000_000)),
        "texts": length(7, length(1, length(1, b"x" * 4000) * 20_000)),
        "initializers": length(7, b"".join(length(5, length(8, b"%d" % i)) for i in range(150_000))),
        "length": length(7, length(5, b"", 2**62)),
        "many sides": _weights(w=[2] * 5000).SerializeToString(),
        "huge": _weights(w=[2**40, 2**40]).SerializeToString(),
        "false size": _weights(w=[2**20, 3, 3, 3]).SerializeToString(),
        "doubling": _doubling(60).SerializeToString(),
        "constants": _large_constants().SerializeToString(),
        "outside": _outside("../../../etc/passwd").SerializeToString(),
        "device": _outside("/dev/zero").SerializeToString(),
        "long tag": b"\xba\x80\x80\x80\x80\x01" + varint(0),
        "two graphs": graph([helper.make_node("Relu", ["x"], ["y"])]).SerializeToString() * 2,
    }
    paths = []
    for name, data in files.items():
        paths.append(tmp_path / f"{name.replace(' ', '-')}.onnx")
        paths[-1].write_bytes(data)
    found = dict(zip(files, zip(*[iter(outcomes(paths))] * 2)))
    assert found["functions"] == ("refused", "described")  # weights alone need no calls
    for name in ("nested", "nodes", "fields", "texts", "length", "huge", "long tag", "two graphs"):
        assert found[name] == ("refused", "refused"), name
    # The graph is described without its weights, and they are not looked for.
    assert found["outside"] == found["device"] == ("described", "refused")


def _program(values: object, *, name: str = "x/models/model.json", count: int = 1) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(count):
            archive.writestr(name if count == 1 else f"{number}/{name}", json.dumps(values))
    return file.getvalue()


def test_hostile_programs_are_refused_or_described(tmp_path: Path) -> None:
    nested: object = 0
    for _ in range(900):
        nested = [nested]
    expression = "(" * 3000 + "s0" + ")" * 3000
    tensor = {"dtype": 7, "sizes": [{"as_expr": {"expr_str": expression}}], "requires_grad": False}
    tower = {"dtype": 7, "sizes": [{"as_expr": {"expr_str": "**".join(["9"] * 200)}}]}
    specs = [{"parameter": {"arg": {"name": "p"}, "parameter_name": "w"}}]

    def module(meta: object, nodes: object = ()) -> dict[str, object]:
        empty = {"nodes": nodes, "tensor_values": {"p": meta}, "sym_int_values": {}}
        return {"graph_module": {"graph": empty, "signature": {"input_specs": specs, "output_specs": []}}}

    files = {
        "bomb": _program(" " * (2 * 10**8)),
        "nested": _program(nested),
        "expression": _program(module(tensor)),
        "tower": _program(module(tower)),
        "huge": _program(module({"dtype": 7, "sizes": [{"as_int": 10**300}] * 50})),
        "calls": _program(module({"dtype": 7, "sizes": []}, [{}] * 30_000)),
        "graphs": _program({}, count=500),
        "no member": _program({}, name="x/other.json"),
        "directory": _program({}, count=20_000),
    }
    paths = []
    for name, data in files.items():
        paths.append(tmp_path / f"{name.replace(' ', '-')}.pt2")
        paths[-1].write_bytes(data)
    assert outcomes(paths).count("refused") >= 2 * len(files) - 1
