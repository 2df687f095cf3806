"""What a model is given: sizes on the command line and in Python, tensors, and what is chosen where nobody says."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import vggscope
from tests.test_diagram import svg_texts
from vggscope.api import lock
from vggscope.errors import ModelError, OptionError, ShapeError, naming_options
from vggscope.explorer.data import facts
from vggscope.inputs import Inputs, InputSize, parse_batch_axis, parse_input
from vggscope.ops.base import Shape
from vggscope.render.formats import write
from vggscope.trace.inputs import copied, specified
from vggscope.trace.network import network_of

FILE = """
import torch
from torch import nn


class Signal(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 5)

    def forward(self, x):
        return self.conv(x)


class Labelled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.embedding = nn.Embedding(10, 4)

    def forward(self, image, label, *, scale=None):
        y = self.conv(image).mean((2, 3)) + self.embedding(label)
        return y if scale is None else y * scale


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8)

    def forward(self, ids):
        return {"hidden": self.embedding(ids)}


def with_inputs():
    return Labelled(), (torch.zeros(2, 3, 16, 16), torch.tensor([1, 2]))


def with_keywords():
    return Labelled(), {"image": torch.zeros(1, 3, 8, 8), "label": torch.tensor([1])}
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "net.py"
    file.write_text(FILE)
    return str(file)


class Labelled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.embedding = nn.Embedding(10, 4)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        return self.conv(image).mean((2, 3)) + self.embedding(label)


def shapes(result: vggscope.Summary) -> list[tuple[str, tuple[int, ...], str]]:
    return [(tensor.name, tensor.shape, tensor.dtype) for tensor in result.inputs]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("3x224x224", InputSize((3, 224, 224))),
        ("1x16000", InputSize((1, 16000))),
        ("3×16,112x112", InputSize((3, 16, 112, 112))),
        ("scalar", InputSize(())),
        (":int64", InputSize((), dtype="int64", per_sample=True)),
        ("label=:int64", InputSize((), "label", "int64", per_sample=True)),
        ("label=", None),
        (":", None),
        ("128:int64", InputSize((128,), dtype="int64")),
        ("mask=128:bool", InputSize((128,), "mask", "bool")),
        ("x=scalar:torch.float64", None),
        ("3x0x3", None),
        ("", None),
        ("-3", None),
        ("3x224x224:floaty", None),
        ("a b=3", None),
    ],
)
def test_sizes_as_text(text: str, size: InputSize | None) -> None:
    if size is not None:
        assert parse_input(text) == size
        return
    with pytest.raises(OptionError, match="input_size"):
        parse_input(text)


def test_the_batch_axis_as_text() -> None:
    assert (parse_batch_axis("0"), parse_batch_axis("none")) == (0, None)
    with pytest.raises(OptionError, match="batch_axis x: no axis"):
        parse_batch_axis("x")


def test_several_inputs_on_the_command_line(vggscope, path: str) -> None:
    ran = vggscope("summary", f"{path}:Labelled", "--input", "3x16x16", "--input", "scalar:int64", "-f", "json")
    assert ran.code == 0
    found = json.loads(ran.out)
    assert [(tensor["name"], tensor["shape"], tensor["dtype"]) for tensor in found["inputs"]] == [
        ("image", [1, 3, 16, 16], "float32"),
        ("label", [], "int64"),
    ]
    assert found["totals"]["macs"] == 14 * 14 * 4 * 27
    named = vggscope("summary", f"{path}:Labelled", *("--input", "label=scalar:int64", "--input", "image=3x16x16"))
    assert "input label scalar int64 and" in named.out.splitlines()[0]


class Generator(nn.Module):
    """A generator of a class: a row of noise, and a number per sample."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.fc = nn.Embedding(10, 8), nn.Linear(108, 16)

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        return self.fc(torch.cat([noise, self.embedding(label)], 1))


def test_a_number_per_sample_has_the_batch_axis_alone() -> None:
    """The batch of four holds 400 floats and four integers, the loss four labels of eight bytes."""
    as_words = tuple(map(parse_input, ("100", "label=:int64")))
    data = (torch.zeros(1, 100), torch.zeros(1, dtype=torch.int64))
    given = [{"input_size": as_words}, {"input_data": data}, {"input_size": [(1, 100), (1,)], "dtypes": DTYPES}]
    for keywords in given:
        report = vggscope.summary(Generator(), **keywords, batch=4)
        assert shapes(report) == [("noise", (4, 100), "float32"), ("label", (4,), "int64")]
        assert report.totals.macs == 4 * 108 * 16
        assert vggscope.memory(Generator(), **keywords, batch=4).input_bytes == 4 * (400 + 8 + 8)


def test_a_single_number_that_does_not_fit_names_one_for_each_sample() -> None:
    sizes = tuple(map(parse_input, ("100", "label=scalar:int64")))
    with pytest.raises(ShapeError) as raised:
        vggscope.memory(Generator(), input_size=sizes)
    assert "label is one number for all samples: the size (1,) in input_size gives one" in raised.value.remedy
    with naming_options(), pytest.raises(ShapeError) as raised:
        vggscope.memory(Generator(), input_size=sizes)
    assert "--input label=:int64 gives one for each" in raised.value.remedy


DTYPES = ("float32", "int64")


def test_a_number_per_sample_follows_a_batch_elsewhere() -> None:
    class Tagged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.tag = nn.LSTM(8, 16), nn.Embedding(10, 16)

        def forward(self, x: Tensor, tag: Tensor) -> Tensor:
            return self.rnn(x)[0][-1] + self.tag(tag)

    sizes = tuple(map(parse_input, ("5x8", ":int64")))
    for given in ({"input_size": sizes}, {"input_data": (torch.zeros(5, 3, 8), torch.zeros(3, dtype=torch.int64))}):
        network = vggscope.network(Tagged(), **given, batch_axis=1)
        assert network.single is None
        assert [tensor.batched(4) for tensor in network.inputs] == [(5, 4, 8), (4,)]


class Reading(nn.Module):
    """Calls a function of its layers: an image of 3 channels and of 8, a row of ten features and a class."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.deep, self.image = nn.Conv2d(8, 4, 3), nn.Conv2d(3, 8, 3)
        self.row, self.words, self.up = nn.Linear(10, 8), nn.Embedding(10, 8), nn.ConvTranspose2d(8, 4, 4)
        self.forward = partial(forward, self)


def pooled(module: nn.Module, image: Tensor) -> Tensor:
    return module.image(image).mean((2, 3))


@pytest.mark.parametrize(
    ("forward", "sizes"),
    [
        (lambda m, a: m.deep(m.image(a)), "3x224x224"),
        (lambda m, a, b: pooled(m, a) + m.row(b), "3x224x224, 10"),
        (lambda m, a, b: m.row(a) + pooled(m, b), "10, 3x224x224"),
        (lambda m, a, b: pooled(m, a) + m.words(b).mean(1), "3x224x224, 128:int64"),
        (lambda m, a, b, *, c: pooled(m, a) + m.row(b) + m.words(c), "3x224x224, 10, 128:int64"),
        (lambda m, a: m.up(m.words(a)[:, :, None, None]), ":int64"),
        (lambda m, a, b: pooled(m, a) + pooled(m, b), "3x224x224, 3x224x224"),
    ],
)
def test_an_input_is_chosen_by_the_layer_that_reads_it(forward: Callable[..., Tensor], sizes: str) -> None:
    network = vggscope.network(Reading(forward))
    assert network.failure is None
    notes = [note for note in network.warnings if note.endswith("gives another")]
    assert [sizes in note for note in notes] == ([] if sizes == "3x224x224" else [True])


class ByFunction(nn.Module):
    """A module whose second argument is read by a function alone, or whose only one is read by torch.stft."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv, self.bins = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(201, 2)
        self.function = function

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.function(self.conv(x), other)


class Spectrum(ByFunction):
    def forward(self, wave: Tensor) -> Tensor:  # type: ignore[override]
        return self.bins(torch.stft(wave, 400, return_complex=True).abs().transpose(1, 2))


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (ByFunction(lambda x, mask: x * mask), [(1, 3, 224, 224), (1, 8, 224, 224)]),
        (ByFunction(partial(nn.functional.grid_sample, align_corners=True)), [(1, 3, 224, 224), (1, 224, 224, 2)]),
        (ByFunction(lambda x, y: nn.functional.cross_entropy(x.mean((2, 3)), y)), [(1, 3, 224, 224), (1,)]),
        (Spectrum(abs), [(1, 16000)]),
    ],
    ids=["factor", "grid", "target", "signal"],
)
def test_an_input_is_chosen_by_the_function_that_reads_it(model: nn.Module, shapes: list[Shape]) -> None:
    network = vggscope.network(model)
    assert network.failure is None
    assert [given.shape for given in network.inputs] == shapes


class OneArgument(nn.Module):
    """A module that reads two tensors from one list or dict."""

    def __init__(self, first: object, second: object) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(5, 8)
        self.keys = first, second

    def forward(self, given: Any) -> Tensor:
        return self.conv(given[self.keys[0]]).mean((2, 3)) + self.fc(given[self.keys[1]])


def test_several_sizes_for_one_argument_are_a_list_or_a_dict() -> None:
    macs = 8 * 27 * 30 * 30 + 40
    assert vggscope.summary(OneArgument(0, 1), input_size=[(1, 3, 32, 32), (1, 5)]).totals.macs == macs
    sizes = (InputSize((3, 32, 32), "image"), InputSize((5,), "row"))
    network = network_of(OneArgument("image", "row"), "net", Inputs(sizes))
    assert vggscope.summary(network).totals.macs == macs
    assert [given.name for given in network.inputs] == ["given.image", "given.row"]


def test_a_factory_may_give_a_dict_that_is_the_only_argument() -> None:
    data = {"image": torch.zeros(1, 3, 32, 32), "row": torch.zeros(1, 5)}
    assert vggscope.summary(OneArgument("image", "row"), input_data=data).totals.macs == 8 * 27 * 30 * 30 + 40


def test_a_single_number_is_a_length_where_no_square_fits() -> None:
    class SpectrumImage(Spectrum):
        def forward(self, wave: Tensor) -> Tensor:  # type: ignore[override]
            return self.conv(torch.stft(wave, 400, return_complex=True).abs()[:, None].expand(-1, 3, -1, -1))

    summary = vggscope.summary(SpectrumImage(abs), input_size=(1600,))
    assert summary.inputs[0].shape == (1, 1600)


def test_a_reference_gets_the_inputs_of_the_model() -> None:
    data = torch.zeros(1, 3, 40, 24), torch.zeros(1, 8, 40, 24)
    ours, reference = (ByFunction(lambda x, mask: x * mask) for _ in range(2))
    diff = vggscope.diff(ours, ref=reference, input_data=data)
    assert diff.verdict == "identical"
    ours.example_input_array = data  # type: ignore[assignment]
    assert vggscope.diff(ours, ref=reference).verdict == "identical"


def test_a_cell_that_forward_runs_over_steps_gets_a_sequence() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(8, 16)

        def forward(self, x: Tensor) -> Tensor:
            samples, steps, _ = x.shape
            state = x.new_zeros(samples, 16)
            for step in range(steps):
                state = self.cell(x[:, step], state)
            return state

    report = vggscope.summary(Steps())
    assert shapes(report) == [("input", (1, 32, 8), "float32")]
    assert report.totals.macs == 32 * 3 * 16 * (8 + 16)
    assert report.warnings == ("8 does not fit, 32x8 was taken; input_size gives another",)


def test_a_single_number_is_the_side_of_an_image_or_a_length(vggscope, path: str) -> None:
    square = json.loads(vggscope("summary", "D", "--input", "64", "-f", "json").out)
    assert square["input_shape"] == [1, 3, 64, 64]
    tokens = json.loads(vggscope("summary", f"{path}:Tokens", "--input", "7", "-f", "json").out)
    assert [(tensor["shape"], tensor["dtype"]) for tensor in tokens["inputs"]] == [([1, 7], "int64")]


def test_a_single_number_beside_a_full_size_is_a_length() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.row = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)

        def forward(self, image: Tensor, v: Tensor) -> Tensor:
            return self.conv(image).mean((2, 3)) + self.row(v)

    shapes = [tensor.shape for tensor in vggscope.network(Both(), [InputSize((3, 9, 9)), InputSize((5,), "v")]).inputs]
    assert shapes == [(1, 3, 9, 9), (1, 5)]


def test_a_vgg_takes_one_image(vggscope) -> None:
    for sizes in (("3x64x64", "3x64x64"), ("1x16000",), ("image=3x64x64",)):
        ran = vggscope("summary", "D", *(word for size in sizes for word in ("--input", size)))
        assert ran.code == 2
        assert ran.err.splitlines() == [
            "vggscope: a VGG takes one image",
            "give --input as channels x height x width: --input 3x224x224",
        ]


def test_what_was_chosen_is_a_note(vggscope, path: str) -> None:
    signal = vggscope("summary", f"{path}:Signal")
    assert "note: no input was given: 1x16000 was taken; --input gives another" in signal.out
    tokens = vggscope("summary", f"{path}:Tokens")
    assert "note: no input was given: 128:int64 was taken; --input gives another" in tokens.out
    assert "no input was given: 1x16000 was taken" in vggscope("rf", f"{path}:Signal").out


def test_a_factory_gives_the_inputs_with_the_module(vggscope, path: str) -> None:
    found = json.loads(vggscope("summary", f"{path}:with_inputs", "-f", "json").out)
    assert [tensor["shape"] for tensor in found["inputs"]] == [[1, 3, 16, 16], [1]]
    found = json.loads(vggscope("summary", f"{path}:with_keywords", "--batch", "2", "-f", "json").out)
    assert [tensor["shape"] for tensor in found["inputs"]] == [[2, 3, 8, 8], [2]]


def test_tensors_from_python() -> None:
    pair = (torch.zeros(2, 3, 16, 16), torch.tensor([1, 2]))
    by_position = vggscope.summary(Labelled(), input_data=pair)
    by_keyword = vggscope.summary(Labelled(), input_data={"image": pair[0], "label": pair[1]})
    assert by_position == by_keyword
    assert shapes(by_position) == [("image", (2, 3, 16, 16), "float32"), ("label", (2,), "int64")]
    assert by_position.totals.macs == 2 * 14 * 14 * 4 * 27


def test_several_sizes_from_python() -> None:
    found = vggscope.summary(Labelled(), [(2, 3, 16, 16), (2, 1)], dtypes=[torch.float32, "int64"])
    assert shapes(found) == [("image", (2, 3, 16, 16), "float32"), ("label", (2, 1), "int64")]
    with pytest.raises(OptionError, match="1 dtype for 2 sizes"):
        vggscope.summary(Labelled(), [(3, 16, 16), (1,)], dtypes=["int64"])
    with pytest.raises(OptionError, match="input_size: unknown dtype 'floaty'"):
        vggscope.summary(Labelled(), [(3, 16, 16), (1,)], dtypes=["float32", "floaty"])
    with pytest.raises(OptionError, match="input_size and input_data"):
        vggscope.summary(Labelled(), (3, 16, 16), input_data=torch.zeros(1))
    with pytest.raises(OptionError, match="input_data holds no tensor"):
        vggscope.summary(Labelled(), input_data=())


def test_three_numbers_for_a_signal_hold_the_batch() -> None:
    conv = nn.Conv1d(3, 4, 5)
    assert vggscope.summary(conv, (2, 3, 40)).input_shape == (2, 3, 40)
    assert vggscope.summary(conv, (3, 40)).input_shape == (1, 3, 40)
    assert vggscope.summary(nn.Conv3d(3, 4, 3), (2, 3, 8, 8, 8)).input_shape == (2, 3, 8, 8, 8)
    assert vggscope.summary(nn.Conv2d(3, 4, 3), (3, 8, 8)).input_shape == (1, 3, 8, 8)
    assert vggscope.summary(nn.Linear(5, 2), (64, 5)).input_shape == (64, 5)


def test_the_batch_may_lie_elsewhere_or_nowhere() -> None:
    lstm = nn.LSTM(5, 5)
    assert vggscope.summary(lstm, (3, 5), batch_axis=1, batch=4).inputs[0].shape == (3, 4, 5)
    whole = vggscope.network(nn.Linear(4, 2), input_data=torch.zeros(4), batch_axis=None)
    assert whole.input_shape == (4,)
    assert whole.single == "the inputs have no batch axis"
    with pytest.raises(vggscope.ShapeError, match="no batch axis"):
        vggscope.summary(whole, batch=2)


def test_a_table_drops_the_batch_where_it_lies(vggscope, tmp_path: Path) -> None:
    path = tmp_path / "gru.py"
    path.write_text("from torch import nn\n\n\ndef make():\n    return nn.GRU(8, 16, num_layers=2)\n")
    words = ("summary", f"{path}:make", "--input", "5x8", "--batch-axis", "1", "--batch", "3")
    table = vggscope(*words, "--columns", "op,input,output").out
    assert "input 5x8 x 3" in table
    assert [line.split() for line in table.splitlines() if line.startswith("GRU ")] == [["GRU", "5x8", "5x16"]]
    layers = json.loads(vggscope(*words, "--format", "json").out)["layers"]
    assert [layer["output_shape"] for layer in layers] == [[5, 3, 16]]


def test_a_module_brings_its_own_example() -> None:
    net = Labelled()
    net.example_input_array = (torch.zeros(1, 3, 8, 8), torch.tensor([1]))
    found = vggscope.summary(net)
    assert shapes(found) == [("image", (1, 3, 8, 8), "float32"), ("label", (1,), "int64")]
    assert found.warnings == ("the input is the model's own example_input_array",)


def test_a_model_against_itself_on_several_inputs() -> None:
    net = Labelled()
    pair = (torch.zeros(2, 3, 16, 16), torch.tensor([1, 2]))
    assert vggscope.diff(net, ref=net, input_data=pair).verdict == "identical"
    with pytest.raises(ModelError, match="does not take one image"):
        vggscope.diff(net, ref="torchvision", input_data=pair)


def test_outputs_are_compared_on_several_inputs(path: str) -> None:
    for ref in ("with_keywords", "with_inputs"):  # the first has an input of 3x8x8 of its own
        same = vggscope.diff(f"{path}:with_inputs", ref=f"{path}:{ref}", numeric=True)
        assert same.numeric is not None
        assert same.numeric.max_abs_error == 0
        assert same.numeric.input_shape == (1, 3, 16, 16)
    scaled = [(1, 3, 8, 8), (1,)]
    same = vggscope.diff(
        f"{path}:Labelled", ref=f"{path}:Labelled", input_size=scaled, dtypes=["float32", "int64"], numeric=True
    )
    assert same.numeric is not None
    assert same.numeric.max_abs_error == 0


def test_other_tools_run_on_the_inputs_of_the_model(path: str) -> None:
    verification = vggscope.verify(f"{path}:with_inputs")
    answers = {(answer.witness, figure.name) for figure in verification.figures for answer in figure.answers}
    assert verification.agrees
    assert {
        ("torch", "macs"),
        ("torchinfo", "params"),
        ("fvcore", "macs"),
        ("tracker", "training_peak_bytes"),
    } <= answers
    measured = vggscope.measure(f"{path}:with_keywords", batch=7)
    assert measured.difference_bytes == 0
    given = vggscope.measure(f"{path}:Labelled", [(2, 3, 8, 8), (2,)], dtypes=["float32", "int64"])
    assert given.batch == 2
    assert given.difference_bytes == 0


@pytest.mark.parametrize("command", [("summary",), ("summary", "--backward"), ("memory",), ("compare",), ("verify",)])
def test_every_result_names_all_inputs(
    vggscope, monkeypatch: pytest.MonkeyPatch, path: str, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(Path(path).parent)
    word = "net.py:with_keywords"
    head = vggscope(command[0], word, *command[1:]).out.splitlines()[0]
    assert "image 3x8x8 and label scalar int64" in head
    found = json.loads(vggscope(command[0], word, *command[1:], "--format", "json").out)
    inputs = found["models"][0]["inputs"] if command == ("compare",) else found["inputs"]
    assert inputs == [
        {"name": "image", "shape": [1, 3, 8, 8], "dtype": "float32"},
        {"name": "label", "shape": [1], "dtype": "int64"},
    ]


@pytest.mark.parametrize("style", ["blocks", "layers", "volumes"])
def test_a_picture_shows_each_input(path: str, style: str) -> None:
    svg = vggscope.diagram(f"{path}:with_keywords", style=style).render("svg").decode()
    assert "2 inputs" in svg
    assert svg.count(">image<") == 1
    if style != "volumes":
        assert svg.count(">label<") == 1
        assert svg.count(">scalar int64<") == 1
    if style == "layers":
        assert "image: 3 × 8 × 8" in svg


def test_a_forward_without_return_is_refused_by_every_function() -> None:
    class Forgets(nn.Module):
        def forward(self, x: Tensor) -> None:
            x + 1

    for function in (vggscope.summary, vggscope.memory, vggscope.network, vggscope.diff):
        with pytest.raises(ModelError, match="returns None"):
            function(Forgets(), input_data=torch.zeros(1, 3))


class TakesImages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        return [self.conv(image) for image in images]


def test_an_argument_annotated_as_a_list_of_tensors_gets_a_list_of_one_image() -> None:
    network = network_of(TakesImages(), "TakesImages")
    assert [(given.name, given.shape) for given in network.inputs] == [("input", (3, 224, 224))]
    assert network.shapes["conv"] == (4, 222, 222)


class Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image_size = (40, 48)
        self.conv = nn.Conv2d(3, 4, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2:] == self.image_size
        return self.conv(x)


def test_the_image_size_that_a_module_states_is_taken() -> None:
    network = network_of(nn.Sequential(Patches()), "Patches")
    assert network.input_shape == (1, 3, 40, 48)
    assert network.warnings == ()


class Captioned(nn.Module):
    """Takes an image and a text by the names of transformers' arguments, and has its dummy inputs: tokens."""

    dummy_inputs = {"input_ids": torch.ones(3, 5, dtype=torch.int64)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.conv = nn.Conv2d(3, 4, 8, 8)


class Text(Captioned):
    def forward(self, input_ids: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        return self.embedding(input_ids)


class Image(Captioned):
    def forward(self, pixel_values: Tensor | None = None, **kwargs: object) -> Tensor:
        return self.conv(pixel_values)


class TextAndImage(Captioned):
    def forward(self, input_ids: Tensor | None = None, pixel_values: Tensor | None = None) -> Tensor:
        return self.embedding(input_ids).mean() + self.conv(pixel_values)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [(Text, [(1, 5)]), (Image, [(1, 3, 224, 224)]), (TextAndImage, [(1, 64), (1, 3, 224, 224)])],
)
def test_dummy_inputs_are_taken_if_they_are_those_of_forward(
    kind: type[Captioned], shapes: list[tuple[int, ...]]
) -> None:
    network = network_of(kind(), "model")
    assert [given.shape for given in network.inputs] == shapes
    assert network.failure is None


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(device_type=x.device.type, enabled=False):
            return self.conv(x)


def test_autocast_on_the_device_of_the_input_runs() -> None:
    network = network_of(Autocast(), "Autocast", (3, 8, 8))
    assert network.failure is None
    assert network.shapes["conv"] == (1, 4, 6, 6)


def test_a_wrong_size_gets_one_that_the_first_layer_accepts(tmp_path: Path) -> None:
    path = tmp_path / "speech.py"
    path.write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Conv1d(1, 16, 80, 4), nn.ReLU())\n"
    )
    with pytest.raises(ModelError) as error:
        vggscope.summary(f"{path}:net", input_size=(3, 16000))
    assert error.value.remedy == "input_size gives another size, as in input_size=(1, 1, 16000)"


def test_a_signal_has_positions_and_an_image_pixels(tmp_path: Path) -> None:
    path = tmp_path / "speech.py"
    path.write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Conv1d(1, 16, 80, 4), nn.ReLU())\n"
    )
    for show in (vggscope.summary, vggscope.receptive_fields):
        text = str(show(f"{path}:net"))
        assert "positions" in text
        assert "pixels" not in text
        assert "pixels" in str(show("A"))


def test_a_list_of_sizes_may_hold_a_scalar() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, image: Tensor, factor: Tensor) -> Tensor:
            return self.conv(image) * factor

    report = vggscope.summary(Scaled(), input_size=[(3, 8, 8), ()])
    assert report.inputs[1].name == "factor"
    assert report.layers[-1].output_shape == (1, 4, 6, 6)
    with pytest.raises(OptionError, match="is not a size"):
        vggscope.summary(Scaled(), input_size=[()])


class LengthFirst(nn.Module):
    """A recurrent network on steps x batch x features."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.act, self.fc = nn.GRU(8, 16), nn.ReLU(), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.gru(x)[0]))


class Cells(nn.Module):
    """A loop over the steps of a sequence, with a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.fc = nn.GRUCell(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x:
            state = self.cell(step, state)
        return self.fc(state)


class ImageAndLabel(nn.Module):
    """An image and a label of shape (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.embedding = nn.Conv2d(3, 8, 3), nn.Embedding(10, 8)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        return self.conv(image) + self.embedding(label)[:, :, None, None]


BATCHES = [
    (LengthFirst(), (torch.zeros(5, 2, 8),), 1, {"5 × 8", "5 × 16", "5 × 4"}, {"1 × 8", "1 × 16", "1 × 4"}),
    (Cells(), (torch.zeros(5, 2, 8),), 1, {"5 × 8", "8", "16", "4"}, {"1 × 8"}),
    (
        nn.TransformerDecoderLayer(16, 2, 32),
        (torch.zeros(5, 1, 16), torch.zeros(4, 1, 16)),
        1,
        {"5 × 32", "memory: 4 × 16"},
        {"1 × 16"},
    ),
    (
        nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)),
        (torch.zeros(6, 8),),
        None,
        {"6 × 8", "6 × 16"},
        {"8"},
    ),
    (ImageAndLabel(), (torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)), 0, {"label: scalar"}, {"label: 1"}),
]
"""Modules with inputs, the axis of their batch, shapes of a sample that pictures show, and texts that they do not."""


@pytest.mark.parametrize(("module", "data", "axis", "shown", "wrong"), BATCHES, ids=lambda value: type(value).__name__)
def test_pictures_drop_the_batch_where_it_lies(
    module: nn.Module, data: tuple[Tensor, ...], axis: int | None, shown: set[str], wrong: set[str]
) -> None:
    texts = set(svg_texts(vggscope.diagram(module, input_data=data, batch_axis=axis, style="layers")))
    assert shown <= texts
    assert not wrong & texts


@pytest.mark.parametrize("axis", [1, None])
def test_every_result_gives_the_shape_of_a_sample(axis: int | None) -> None:
    module, given = LengthFirst(), torch.zeros(5, 1, 8) if axis else torch.zeros(5, 8)
    options = {"input_data": given, "batch_axis": axis}
    network = vggscope.network(module, **options)
    page = facts(network)
    assert (page["input"], page["layers"][-1]["out"]) == ((5, 8), (5, 4))
    assert vggscope.diff(network, network).rows[-1].ours == "fc Linear 5x4"
    csv = write(vggscope.summary(module, **options), "csv").splitlines()[1]
    assert ("5x1x16" if axis else "5x16") in csv.split(",")  # data have all axes in their order
    for result in (vggscope.summary(module, **options), vggscope.operations(module, **options)):
        assert "| fc | 5x4 |" in write(result, "markdown", columns=("name", "output_shape"))
    assert "input 5x8" in str(vggscope.receptive_fields(module, **options))


class TwoOf(nn.Module):
    """A layer that is called on two inputs; the second is a keyword argument."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, one: Tensor, *, other: Tensor) -> Tensor:
        return first_tensor(self.layer(one)) + first_tensor(self.layer(other))


def first_tensor(value: Tensor | tuple[Tensor, ...]) -> Tensor:
    return value if isinstance(value, Tensor) else value[0]


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Linear(10, 4), "10"),
        (nn.Embedding(10, 4), "128:int64"),
        (nn.Conv1d(2, 4, 3), "2x16000"),
        (nn.Conv2d(5, 4, 3), "5x224x224"),
        (nn.Conv3d(1, 4, 3), "1x16x112x112"),
        (nn.LSTM(6, 4), "32x6"),
        (nn.GRUCell(6, 4), "6"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_suggested_input_fits_the_first_layer(layer: nn.Module, size: str) -> None:
    """In the words of the command line, and as a keyword argument of Python."""
    module = TwoOf(layer)

    def refused() -> str:
        with pytest.raises(ModelError, match="missing 1 required keyword-only argument") as missing:
            vggscope.network(module, input_data=torch.zeros(1, 7))
        return missing.value.remedy.partition("as in ")[2]

    with naming_options():
        options = refused()
    assert options == f"--input {size} --input other={size}"
    inputs = Inputs(tuple(parse_input(word) for word in options.split() if word != "--input"))
    assert network_of(module, "two", inputs).failure is None
    keywords = eval(f"dict({refused()})", {"torch": torch, "dict": dict})
    assert vggscope.network(module, **keywords).inputs == network_of(module, "two", inputs).inputs


def test_channels_are_moved_first_for_a_layer_of_as_many_channels_only() -> None:
    for channels, hint in (
        (3, "input_size is channels x height x width: (3, 32, 32)"),
        (5, "as in input_size=(1, 5, 224, 224)"),
    ):
        with pytest.raises(ModelError) as error:
            vggscope.network(nn.Conv2d(channels, 4, 3), input_data=torch.zeros(1, 32, 32, 3))
        assert (error.value.remedy or "").endswith(hint)


def test_the_inputs_of_a_factory_are_not_saved_with_its_module(tmp_path: Path) -> None:
    """Who loads the file needs no vggscope. A deep copy, as of `diff --numeric`, keeps the inputs."""
    (tmp_path / "pair.py").write_text(
        "import torch\n\n\ndef make():\n    return torch.nn.Linear(4, 2), torch.zeros(3, 5, 4)\n"
    )
    module = vggscope.build(f"{tmp_path / 'pair.py'}:make")
    network = vggscope.network(module)
    file = io.BytesIO()
    torch.save(module, file)
    assert b"vggscope" not in file.getvalue()
    assert not any("vggscope" in name for name in vars(module))
    assert network.inputs[0].shape == (1, 5, 4)
    assert vggscope.network(copied(module)).inputs == network.inputs
    assert vggscope.diff(module, ref=module, numeric=True).verdict == "identical"


class Attends(nn.Module):
    """Embeds rows by a linear layer if `features` is given, then attends to them."""

    def __init__(self, features: int | None = None) -> None:
        super().__init__()
        if features:
            self.embed = nn.Linear(features, 32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) if hasattr(self, "embed") else x
        return self.attention(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize(
    ("module", "size", "batch"),
    [
        (Attends(), (16, 32), 1),
        (Attends(), (1, 16, 32), 1),
        (Attends(), (4, 16, 32), 4),
        (Attends(8), (1, 16, 8), 1),
        (Attends(8), (4, 16, 8), 4),
        (nn.TransformerEncoderLayer(32, 4, batch_first=True), (16, 32), 1),
        (nn.TransformerEncoderLayer(32, 4, batch_first=True), (4, 16, 32), 4),
        (nn.TransformerEncoderLayer(32, 4), (16, 32), 1),
        (nn.TransformerEncoderLayer(32, 4), (16, 4, 32), 4),
    ],
)
def test_a_size_of_tokens_is_given_with_or_without_the_batch(module: nn.Module, size: Shape, batch: int) -> None:
    seven = vggscope.summary(module, input_size=size, batch=7)
    assert vggscope.summary(module, input_size=size).batch == batch
    steps_first = isinstance(module, nn.TransformerEncoderLayer) and not module.self_attn.batch_first
    shape = (16, 7, size[-1]) if steps_first else (7, 16, size[-1])
    with FlopCounterMode(display=False) as counter:  # on the CPU it does not count attention
        output = module.to("meta")(torch.zeros(shape, device="meta"))
    assert seven.outputs[0].shape == output.shape
    assert seven.totals.macs == counter.get_total_flops() // 2


def test_an_attention_without_a_size_attends_to_several_tokens() -> None:
    report = vggscope.summary(nn.TransformerEncoderLayer(32, 4, batch_first=True), batch=2)
    assert report.outputs[0].shape == (2, 32, 32)


def test_attention_takes_a_size_for_each_argument() -> None:
    attention = nn.MultiheadAttention(32, 4, batch_first=True)
    for sizes, batch in (([(16, 32)] * 3, 1), ([(4, 16, 32)] * 3, 4)):
        report = vggscope.summary(attention, input_size=sizes)
        assert [given.shape for given in report.inputs] == [(batch, 16, 32)] * 3


def test_a_size_of_gigabytes_allocates_nothing() -> None:
    module = nn.Conv2d(3, 8, 3)
    inputs = specified(module, Inputs((InputSize((3, 100_000, 100_000)),)))
    assert all(tensor.is_meta for tensor in inputs.tensors())
    summary = vggscope.summary(module, input_size=(3, 100_000, 100_000))
    assert summary.totals.macs == 8 * 27 * 99_998**2


@pytest.mark.parametrize("dtypes", ["int64", torch.int64, ["int64"], (torch.int64,)])
def test_one_dtype_is_that_of_one_size(dtypes: object) -> None:
    network = vggscope.network(nn.Sequential(nn.Embedding(10, 4)), input_size=(1, 5), dtypes=dtypes)
    assert (network.inputs[0].dtype, network.shapes[network.end]) == ("int64", (1, 5, 4))


@pytest.mark.parametrize("given", [{"input_size": (2, 3, 8, 8)}, {"input_data": torch.zeros(2, 3, 8, 8)}])
@pytest.mark.parametrize("axis", [4, 9, -1, True])
def test_a_batch_axis_that_no_input_has_is_refused(given: dict[str, object], axis: int) -> None:
    with pytest.raises(OptionError, match=rf"batch_axis.{axis}\b.*(the input has 4 axes|is not an axis)"):
        vggscope.network(nn.Sequential(nn.Conv2d(3, 4, 3)), batch_axis=axis, **given)


def test_a_batch_axis_that_one_of_the_inputs_has_is_taken() -> None:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
            return x * factor

    network = vggscope.network(Both(), input_data=(torch.zeros(5, 3, 2), torch.zeros(())), batch_axis=2)
    assert [given.batch_axis for given in network.inputs] == [2, None]


@pytest.mark.parametrize("model", ["net.py", "conv3-8"])
def test_the_command_line_refuses_a_batch_axis_that_no_input_has(
    vggscope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("from torch import nn\ndef net(): return nn.Sequential(nn.Conv2d(3, 4, 3))\n")
    ran = vggscope("summary", model, "--input", "3x8x8", "--batch-axis", "9")
    assert ran.code == 2
    assert ran.err.splitlines()[0] == "vggscope: --batch-axis 9: the input has 4 axes, the batch among them"


class Read(nn.Module):
    """Reads its argument as `read` does."""

    def __init__(self, read: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.conv, self.read = nn.Conv2d(3, 4, 3), read

    def forward(self, given: Any) -> Tensor:
        return self.conv(self.read(given))


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (lambda batch: batch["image"], {"image": torch.zeros(1, 3, 8, 8)}),
        (lambda pair: pair[0] + pair[1], [torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)]),
        (lambda image: image, {"image": torch.zeros(1, 3, 8, 8)}),
    ],
)
def test_the_advice_for_arguments_that_forward_does_not_have_works(read: Callable[[Any], Tensor], data: object) -> None:
    model = Read(read)
    with pytest.raises(ModelError) as raised:
        vggscope.network(model, input_data=data)
    name, _, value = raised.value.remedy.partition("as in ")[2].partition("=")
    advised = {name: eval(value, {"torch": torch})}
    assert vggscope.network(model, **advised).nodes[-1].op.name == "Conv2d"


def test_no_size_is_advised_on_which_forward_fails() -> None:
    with pytest.raises(ModelError) as raised:
        vggscope.network(Read(lambda three: three[0] + three["key"]), input_data=[torch.zeros(1, 3, 8, 8)] * 3)
    assert "input_size" not in raised.value.remedy
    with naming_options(), pytest.raises(ModelError) as raised:
        vggscope.network(nn.Sequential(nn.Conv2d(3, 4, 3)), Inputs((InputSize(()),)).sizes)
    assert raised.value.remedy == "--input gives another size, as in --input 3x224x224"


def test_a_number_for_each_sample_is_advised_of_a_single_input() -> None:
    class Column(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.unsqueeze(1))

    table = Column(1, 2)
    with naming_options(), pytest.raises(ModelError) as raised:
        vggscope.network(table, (InputSize(()),))
    advised = raised.value.remedy.partition("--input ")[2].partition(" ")[0]
    assert "is one number for all samples" in raised.value.remedy
    assert vggscope.network(table, (parse_input(advised),)).nodes[-1].op.name == "Linear"


@pytest.mark.parametrize("suffix", [".pt2", ".json"])
def test_a_file_of_an_image_takes_its_side(vggscope, tmp_path: Path, suffix: str) -> None:
    path, model = tmp_path / f"net{suffix}", nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval()
    if suffix == ".pt2":
        torch.export.save(torch.export.export(model, (torch.zeros(1, 3, 8, 8),)), path)
    else:
        path.write_text(write(lock(model, input_size=(1, 3, 8, 8)), "json"))
    for size in ("8", "3x8x8"):
        found = json.loads(vggscope("summary", str(path), "--input", size, "-f", "json").out)
        assert (found["input_shape"], found["layers"][-1]["output_shape"]) == ([1, 3, 8, 8], [1, 4 * 36])
