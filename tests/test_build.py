"""What is built from a Network: modules, source files, weights, ONNX graphs; torchvision is the judge of columns."""

from __future__ import annotations

import ast
import copy
import io
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

import vggscope
from vggscope.builders.initialisation import initialised
from vggscope.builders.module import module, submodule
from vggscope.builders.save import write_onnx, write_pth, write_safetensors
from vggscope.builders.source import source
from vggscope.errors import MissingTool, ModelError, OptionError, ShapeError
from vggscope.graph import INPUT, Failure, Network, Node, Parameter, module_node, one_input
from vggscope.ops.activation import ReLU
from vggscope.ops.convolution import Convolution, conv2d
from vggscope.ops.linear import Linear
from vggscope.ops.pooling import MaxPool2d
from vggscope.ops.shape import Flatten
from vggscope.sources.resolve import resolve
from vggscope.vgg.options import BuildOptions

CONFIGS = ["A", "A-LRN", "B", "C", "D", "E"]
SMALL = "conv3-8 BN conv3-8 LRN maxpool conv3-16 avgpool FC-12 FC-10"
TORCHVISION = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}


def small(**options: object) -> Network:
    return resolve(SMALL, BuildOptions(**{"input": (3, 32, 32), **options}))


def on_meta(network: Network) -> nn.Module:
    with torch.device("meta"):
        return module(network)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def loaded(text: str) -> nn.Module:
    scope: dict[str, type[nn.Module]] = {"__name__": "written"}
    exec(compile(text, "written.py", "exec"), scope)
    with torch.device("meta"):
        return scope["VGG"]()


def chain(*nodes: tuple[str, object], name: str = "chain", label: str = "") -> Network:
    previous, found = INPUT, []
    for path, op in nodes:
        found.append(module_node(path, op, previous, label))
        previous = path
    return Network(name, one_input((1, 3, 8, 8)), tuple(found))


class TestModule:
    @pytest.mark.parametrize("batch_norm", [False, True])
    @pytest.mark.parametrize("column", TORCHVISION)
    def test_is_torchvisions_to_the_letter(self, column: str, batch_norm: bool) -> None:
        with torch.device("meta"):
            reference = torchvision.models.get_model(TORCHVISION[column] + "_bn" * batch_norm)
        ours = on_meta(resolve(column, BuildOptions(batch_norm=batch_norm)))
        assert repr(ours) == repr(reference)
        assert shapes(ours) == shapes(reference)
        ours.load_state_dict(reference.state_dict(), strict=True, assign=True)

    @pytest.mark.parametrize("head", ["adaptive", "flatten", "dense"])
    @pytest.mark.parametrize("column", CONFIGS)
    def test_gives_the_shapes_of_the_network(self, column: str, head: str) -> None:
        network = resolve(column, BuildOptions(head=head, batch_norm=True, input=(4, 64, 96), soft_max=True))
        if head == "dense":
            network = network.with_input((4, 256, 224))
        model = on_meta(network)
        seen = {}
        for path, layer in model.named_modules():
            layer.register_forward_hook(lambda _, __, output, path=path: seen.update({path: tuple(output.shape)}))
        model(torch.empty(network.input_shape, device="meta"))
        expected = {node.module: network.output_shape(node) for node in network.nodes if node.module}
        assert len(expected) > 20
        assert {path: seen[path] for path in expected} == expected
        keys = {parameter.name: parameter.shape for parameter in network.parameters()}
        assert keys == {name: tuple(p.shape) for name, p in model.named_parameters()}

    def test_lrn_divides_as_the_paper_does(self) -> None:
        layer = submodule(on_meta(resolve("A-LRN")), "features.2")
        x = torch.rand(1, 8, 2, 2) * 10
        padded = torch.nn.functional.pad(x**2, (0, 0, 0, 0, 2, 2))
        squares = sum(padded[:, i : i + 8] for i in range(5))
        torch.testing.assert_close(layer(x), x / (2 + 1e-4 * squares) ** 0.75)

    def test_survives_pickle_and_copy(self) -> None:
        model = module(small()).eval()
        x = torch.rand(1, 3, 32, 32)
        expected = model(x)
        assert torch.equal(copy.deepcopy(model)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)

    def test_builds_nested_and_named_modules(self) -> None:
        network = chain(
            ("stem.conv", conv2d(3, 4, 3)), ("stem.0.act", ReLU()), ("head.pool", MaxPool2d((2, 2), (2, 2)))
        )
        model = on_meta(network)
        assert [path for path, _ in model.named_modules()] == [
            "", "stem", "stem.conv", "stem.0", "stem.0.act", "head", "head.pool",
        ]  # fmt: skip
        assert model(torch.empty(1, 3, 8, 8, device="meta")).shape == (1, 4, 3, 3)

    def test_part_by_path_or_label(self) -> None:
        network = resolve("D")
        model = on_meta(network)
        assert submodule(model, "features.0") is model.features[0]
        assert submodule(model, "features") is model.features
        assert submodule(model, "conv5_3", network) is model.features[28]
        with pytest.raises(ModelError, match=r"no module 'features.77'\nthe nearest are features.7"):
            submodule(model, "features.77")
        with pytest.raises(ModelError, match="nearest are conv1_2, "):
            submodule(model, "conv1_22", network)

    @pytest.mark.parametrize(
        ("nodes", "problem"),
        [
            ((Node("add", ReLU(), (INPUT, INPUT), "add"),), "add reads other than the one layer before it"),
            ((Node("relu", ReLU(), (INPUT,)),), "relu is the call of a function"),
            (
                (Node("relu", ReLU(), (INPUT,), "relu"), Node("relu:2", ReLU(), ("relu",), "relu")),
                "relu:2 is in a module that is called more than once",
            ),
            (
                tuple(
                    Node(path, op, (before,), path if "." in path else None)
                    for before, path, op in [
                        (INPUT, "a.0", ReLU()),
                        ("a.0", "flat", Flatten()),
                        ("flat", "a.1", ReLU()),
                    ]
                ),
                "a.1 is in a module that is called more than once",
            ),
            (
                tuple(
                    Node(path, Linear(8, 8), (before,), path, "", (Parameter("tied.weight", (8, 8)),))
                    for before, path in [(INPUT, "a"), ("a", "b")]
                ),
                "b shares the weights of a",
            ),
            ((Node("forward", ReLU(), (INPUT,), "forward"),), "attribute 'forward' already exists"),
        ],
    )
    def test_refuses_what_is_no_chain_of_modules(self, nodes: tuple[Node, ...], problem: str) -> None:
        with pytest.raises(ModelError, match=f"net cannot be built: {problem}"):
            module(Network("net", one_input((1, 3, 8, 8)), nodes))

    def test_refuses_a_network_whose_end_is_not_known(self) -> None:
        network = Network("net", one_input((1, 3, 8, 8)), (Node("relu", ReLU(), (INPUT,), "relu"),))
        failing = replace(network, failure=Failure("next: no rule", "size", "the layers up to it are described"))
        with pytest.raises(ShapeError, match="net fails: next: no rule"):
            module(failing)


class TestSource:
    @pytest.mark.parametrize("column", CONFIGS)
    def test_gives_the_same_network(self, column: str) -> None:
        network = resolve(column, BuildOptions(batch_norm=column in "AC", soft_max=column == "E"))
        text = source(network)
        written, built = loaded(text), on_meta(network)
        assert repr(written) == repr(built)
        assert shapes(written) == shapes(built)
        assert "  # conv1_1\n" in text
        assert "  # fc6\n" in text
        assert {
            alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names
        } == {"torch"}
        assert max(map(len, text.splitlines())) <= 100

    @pytest.mark.slow
    def test_runs_and_computes_the_same(self, tmp_path: Path) -> None:
        network = small()
        path = tmp_path / "small.py"
        path.write_text(source(network), encoding="utf-8")
        ran = subprocess.run([sys.executable, "-W", "error", path], capture_output=True, text=True, check=True)
        parameters = sum(p.numel() for p in module(network).parameters())
        assert ran.stdout == f"output (1, 10), {parameters:,} parameters\n"
        assert ran.stderr == ""
        ours = initialised(network, seed=3).eval()
        theirs = loaded(path.read_text(encoding="utf-8")).to_empty(device="cpu").eval()
        theirs.load_state_dict(ours.state_dict(), strict=True)
        x = torch.rand(2, 3, 32, 32)
        assert torch.equal(ours(x), theirs(x))

    def test_needs_no_torch_to_be_written(self) -> None:
        code = (
            "import sys; from vggscope.sources.resolve import resolve; from vggscope.builders.source import source\n"
            "assert 'nn.Conv2d(3, 64, kernel_size=3, padding=1)' in source(resolve('D'))\n"
            "assert 'torch' not in sys.modules"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stderr == b""

    @pytest.mark.parametrize("kind", ["D", "long", "named", "numbers"])
    def test_is_laid_out_as_ruff_does(self, tmp_path: Path, kind: str) -> None:
        long = Convolution(100000, 100000, (3, 1), (2, 1), (1, 0), (2, 3), 100000, False, "replicate")
        networks = {
            "D": resolve("D"),
            "long": chain(("features.0", long), ("a" * 60, long), name="x" * 150, label="conv1_1"),
            "named": chain(("stem.conv", long), ("stem.0.act", ReLU(inplace=True)), ("x-y.pool.class", ReLU())),
            "numbers": chain(("0.0", long), ("0.1.0", ReLU()), ("1", long), label="relu"),
        }
        path = tmp_path / "net.py"
        path.write_text(source(networks[kind]), encoding="utf-8")
        settings = ["--isolated", "--line-length", "100", "--no-cache"]
        pytest.importorskip("ruff")
        ruff = [sys.executable, "-m", "ruff"]
        ran = subprocess.run([*ruff, "format", "--diff", *settings, path], capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout) == (0, "")
        ran = subprocess.run(
            [*ruff, "check", "--select", "E,F,W,I,UP,B", "--ignore", "E501", *settings, path],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (ran.returncode, ran.stdout) == (0, "All checks passed!\n")

    @pytest.mark.parametrize(
        "name",
        [
            'x"); import os; os.abort() #',
            '"""\nimport os\nos.abort()\n"""',
            "x\rraise SystemExit",
            "x\x0craise SystemExit\u2028raise SystemExit",
            "coding: utf-7",
            "\ud800\x00",
            "class",
            "__mangled",
            "ﬁne",
            "a b",
        ],
    )
    def test_a_name_is_never_code(self, name: str) -> None:
        path = name.replace(".", "_")
        network = chain((f"{path}.{path}", conv2d(3, 4, 1)), ("last", ReLU()), name=name, label=name)
        text = source(network)
        model = loaded(text.encode("utf-8").decode("utf-8"))
        assert [key for key, _ in model.named_modules()] == ["", path, f"{path}.{path}", "last"]
        tree = ast.parse(text.encode("utf-8"))
        assert [type(node).__name__ for node in tree.body] == ["Expr", "Import", "ImportFrom", "ClassDef", "If"]

    def test_refuses_an_argument_that_is_no_literal(self) -> None:
        class Hostile(int):
            def __repr__(self) -> str:
                return "os.abort()"

        with pytest.raises(ModelError, match="fc cannot be written as source"):
            source(chain(("fc", Linear(Hostile(8), 2))))


class FullDisk(io.BytesIO):
    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


class TestWeights:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
    def test_torchvisions_draws_are_torchvisions(self, name: str) -> None:
        torch.manual_seed(7)
        reference = torchvision.models.get_model(name).state_dict()
        before = torch.get_rng_state()
        ours = initialised(resolve(name), "torchvision", seed=7).state_dict()
        assert torch.equal(torch.get_rng_state(), before)
        assert ours.keys() == reference.keys()
        assert all(torch.equal(ours[key], reference[key]) for key in reference)

    def test_paper_draws_with_variance_a_hundredth(self) -> None:
        tensors = initialised(
            resolve("conv3-64 BN conv3-64 FC-100", BuildOptions(input=(3, 8, 8))), "paper", seed=1
        ).state_dict()
        weights = torch.cat([t.flatten() for t in tensors.values() if t.dim() > 1])
        assert len(weights) > 300_000
        assert weights.mean().item() == pytest.approx(0, abs=1e-3)
        assert weights.var().item() == pytest.approx(1e-2, rel=1e-2)
        assert all(not t.any() for key, t in tensors.items() if key.endswith("bias"))
        assert torch.equal(tensors["features.1.weight"], torch.ones(64))

    def test_a_seed_decides(self) -> None:
        one, again, other = (initialised(small(), "paper", seed).state_dict() for seed in (5, 5, 6))
        assert all(torch.equal(one[key], again[key]) for key in one)
        assert not torch.equal(one["features.0.weight"], other["features.0.weight"])
        with torch.device("meta"):
            assert initialised(small()).state_dict()["features.0.weight"].device.type == "cpu"

    def test_files_load_safely_and_whole(self, tmp_path: Path) -> None:
        from safetensors.torch import load_file

        tensors = initialised(small(), "paper", 2).state_dict()
        file = io.BytesIO()
        write_pth(tensors, file)
        file.seek(0)
        write_safetensors(tensors, tmp_path / "x.safetensors")
        for read in (torch.load(file, weights_only=True), load_file(tmp_path / "x.safetensors")):
            assert read.keys() == tensors.keys()
            assert all(torch.equal(read[key], tensors[key]) for key in tensors)
            module(small()).load_state_dict(read, strict=True)

    def test_a_full_disk_is_an_os_error(self, tmp_path: Path) -> None:
        tensors = initialised(small(), "paper").state_dict()
        with pytest.raises(OSError, match="No space left"):
            write_pth(tensors, FullDisk())
        with pytest.raises(OSError, match="No such file"):
            write_safetensors(tensors, tmp_path / "nowhere" / "x.safetensors")

    def test_bad_options(self) -> None:
        with pytest.raises(OptionError, match="unknown initialisation 'xavier'\ninit is one of paper, torchvision"):
            initialised(small(), "xavier")
        with pytest.raises(OptionError, match="\nseed is 0 to"):
            initialised(small(), "paper", -1)


class TestOnnx:
    @pytest.mark.slow
    def test_graph_computes_the_same_in_silence(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        network = resolve("conv3-8 LRN maxpool conv3-8 BN FC-10", BuildOptions(input=(3, 16, 16), head="flatten"))
        model = initialised(network, "paper", 4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            write_onnx(model, network.input_shape, tmp_path / "x.onnx")
        assert capfd.readouterr() == ("", "")
        assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]
        onnx.checker.check_model(str(tmp_path / "x.onnx"), full_check=True)
        x = torch.rand(3, 3, 16, 16)
        (output,) = ReferenceEvaluator(str(tmp_path / "x.onnx")).run(None, {"input": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(output), model.eval()(x).detach(), rtol=1e-4, atol=1e-5)

    def test_without_onnx_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(MissingTool, match=r"pip install 'vggscope\[onnx\]'"):
            write_onnx(nn.ReLU(), (1, 3, 8, 8), tmp_path / "x.onnx")


def test_a_recurrent_layer_is_refused_and_named() -> None:
    chain = nn.Sequential(nn.LSTM(4, 3, batch_first=True))
    network = vggscope.network(chain, input_data=torch.zeros(1, 5, 4))
    with pytest.raises(ModelError, match="0 returns its last states too"):
        module(network)
