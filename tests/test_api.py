"""The same words from Python."""

from __future__ import annotations

import html
import json
import re

import pytest
import torch
from torch import Tensor, nn

import vggscope
from vggscope.api import diff
from vggscope.errors import CheckpointError, ModelError, OptionError, ShapeError


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 64, 10))


def test_a_word_a_module_and_a_network_are_models() -> None:
    assert vggscope.summary("D").totals.params == 138357544
    assert vggscope.summary(small(), (3, 16, 16)).totals.params == sum(p.numel() for p in small().parameters())
    network = vggscope.network("A", head="dense")
    assert vggscope.summary(network, (2, 3, 384, 384)).layers[-1].output_shape == (2, 1000, 6, 6)


def test_print_shows_the_commands_table() -> None:
    assert "138,357,544" in str(vggscope.summary("D"))
    assert str(vggscope.diff("C", ref="paper")).splitlines()[2].startswith("identical")
    assert json.loads(vggscope.summary("A").to_json())["schema"] == "vggscope/summary@1"
    assert "|" in vggscope.summary("A")._repr_markdown_()


def test_diff_takes_modules_and_names_the_nearest() -> None:
    assert vggscope.diff(small(), ref=small(), input_size=(3, 16, 16)).verdict == "identical"
    assert vggscope.diff("A", ref="torchvision").verdict == "identical"
    assert vggscope.diff(vggscope.network("C"), ref="paper").reference == "the paper's column C"


def test_memory_takes_the_options_of_both(tmp_path) -> None:
    report = vggscope.memory("D", batch=64, optimizer="adam", gpu="24GiB", batch_norm=True)
    assert report.model == "D_bn"
    assert report.fit.fits
    assert report.max_batch > 64


def test_memory_takes_its_batch_from_the_input_as_summary_does() -> None:
    for call in (vggscope.memory, vggscope.summary, vggscope.operations, vggscope.measure):
        by_input = call("conv3-8 FC-10", (16, 3, 8, 8))
        assert by_input == call("conv3-8 FC-10", input_size=(3, 8, 8), batch=16)
        assert by_input == call("conv3-8 FC-10", (1, 3, 8, 8), batch=16)
    assert vggscope.memory("conv3-8 FC-10", (16, 3, 8, 8)).batch == 16


def test_build_and_inspect(tmp_path) -> None:
    model = vggscope.build("conv3-8 maxpool FC-10", head="flatten")
    path = tmp_path / "x.pth"
    torch.save(model.state_dict(), path)
    assert vggscope.inspect(str(path)).params == sum(p.numel() for p in model.parameters())


def test_a_picture_saves_and_shows_itself(tmp_path) -> None:
    picture = vggscope.diagram("A")
    picture.save(tmp_path / "a.svg")
    saved = (tmp_path / "a.svg").read_text()
    assert picture._repr_svg_().replace(' style="max-width:100%;height:auto"', "") == saved


def printed(vggscope_command, *words: str) -> str:
    return vggscope_command(*words).out.rstrip("\n")


CALLS = {
    "summary D --batch-norm": lambda: vggscope.summary("D", batch_norm=True),
    "summary A --input 3x384x384 --head dense --batch 8": lambda: vggscope.summary("A", (8, 3, 384, 384), head="dense"),
    "summary A --depth stage": lambda: vggscope.summary("A", depth="stage"),
    "summary A --backward --batch 2": lambda: vggscope.operations("A", batch=2),
    "list": vggscope.catalogue,
    "diff C --ref D --training --ignore names,dropout": lambda: vggscope.diff(
        "C", ref="D", training=True, ignore=["names", "dropout"]
    ),
    "diff A --ref torchvision --input 3x32x32 --numeric --seed 3 --float64": lambda: vggscope.diff(
        "A", input_size=(3, 32, 32), numeric=True, seed=3, float64=True
    ),
    "compare A D --batch 4 --num-classes 10": lambda: vggscope.compare("A", "D", batch=4, num_classes=10),
    "compare --paper": lambda: vggscope.compare(paper=True),
    "explain": vggscope.explain,
    "explain conv --size 6 --kernel 3 --stride 2 --padding 1": lambda: vggscope.explain(
        "conv", size=6, kernel=3, stride=2, padding=1
    ),
    "explain E conv3_4 --num-classes 7": lambda: vggscope.explain("E", "conv3_4", num_classes=7),
    "explain why-tools-disagree A": lambda: vggscope.explain("why-tools-disagree", "A"),
    "rf D --at conv5_3 --unit 6,6": lambda: vggscope.receptive_fields("D", at="conv5_3", unit=(6, 6)),
    "rf A --input 3x32x32 --at conv2_1 --effective --samples 1 --seed 5": lambda: vggscope.receptive_fields(
        "A", (3, 32, 32), at="conv2_1", effective=True, samples=1, seed=5
    ),
    "memory D --batch 96 --gpu 24GiB --context 600MiB --mode inference": lambda: vggscope.memory(
        "D", batch=96, gpu="24GiB", context="600MiB", mode="inference"
    ),
    "memory A --measure --batch 2": lambda: vggscope.measure("A", batch=2),
    "verify conv3-8 --input 3x32x32": lambda: vggscope.verify("conv3-8", (3, 32, 32)),
}
"""Command lines, and what is the same in Python."""


@pytest.mark.parametrize(
    "words", [pytest.param(words, marks=pytest.mark.slow) if "--numeric" in words else words for words in CALLS]
)
def test_python_gives_what_the_command_prints(vggscope, words: str) -> None:
    assert printed(vggscope, *words.split()) == str(CALLS[words]())


def test_a_grid_is_the_commands_and_memorys(vggscope) -> None:
    import vggscope as api

    ran = vggscope(
        "compare", "A", "D", "--grid", "--sizes", "64,3x32x48", "--batches", "1,8", "--optimizers", "sgd,adam"
    )
    points = list(api.grid("A", "D", sizes=[64, (3, 32, 48)], batches=[1, 8], optimizers=["sgd", "adam"]))
    assert [line.split(",")[-1] for line in ran.out.splitlines()[1:]] == [str(p.peak_bytes) for p in points]
    assert len(points) == 16
    point = points[-1]
    again = api.memory("D", (3, 32, 48), batch=point.batch, optimizer="adam")
    assert (point.model, point.peak_bytes) == ("D", again.peak_bytes)


def test_a_page_is_the_commands(vggscope, tmp_path) -> None:
    import vggscope as api

    path = tmp_path / "x.html"
    assert vggscope("report", "A", "B", "-o", str(path)).code == 0
    page = api.report("A", "B")
    assert page.html == path.read_text()
    assert page.title == "A (VGG-11), B (VGG-13)"
    page.save(tmp_path / "y.html")
    assert (tmp_path / "y.html").read_text() == page.html
    shown = page._repr_html_()
    assert html.unescape(re.search('srcdoc="([^"]*)"', shown)[1]) == page.html
    assert 'sandbox="allow-scripts allow-downloads"' in shown


def test_a_module_stays_as_it_is() -> None:
    """Weights, dtype and mode, whatever is run with it."""
    ours, reference = small().train(), small().half()
    before = [{key: tensor.clone() for key, tensor in model.state_dict().items()} for model in (ours, reference)]
    found = vggscope.diff(ours, ref=reference, input_size=(3, 16, 16), numeric=True, float64=True)
    assert found.numeric.max_abs_error < 1e-12
    vggscope.receptive_fields(ours, (3, 16, 16), at="0", effective=True, samples=1)
    vggscope.verify(ours, (3, 16, 16))
    vggscope.measure(ours, (3, 16, 16), batch=2)
    for model, state in zip((ours, reference), before):
        assert model.training
        assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
        assert all(tensor.dtype == state[key].dtype for key, tensor in model.state_dict().items())


def test_weights_are_read_from_a_checkpoint(tmp_path) -> None:
    """Where they are zero, ReLU and tanh give the same, 0; those that the model begins with tell them apart."""
    path = str(tmp_path / "x.pth")
    built = {"input_size": (3, 8, 8), "head": "flatten"}
    model = vggscope.build("conv3-4 FC-3", **built)
    torch.save({key: torch.zeros_like(tensor) for key, tensor in model.state_dict().items()}, path)
    other = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(256, 3))
    assert vggscope.diff("conv3-4 FC-3", ref=other, numeric=True, **built).numeric.max_abs_error > 1e-3
    assert vggscope.diff("conv3-4 FC-3", ref=other, weights=path, **built).numeric.max_abs_error == 0
    assert vggscope.diff(model, ref=other, input_size=(3, 8, 8), weights=path).numeric.max_abs_error == 0
    assert any(tensor.any() for tensor in model.state_dict().values()), "the module that was given stays as it is"
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        vggscope.receptive_fields(small(), (3, 16, 16), at="0", effective=True, weights=path)


def test_torch_draws_what_it_would_have_drawn() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    vggscope.receptive_fields("conv3-4", (3, 8, 8), at="conv1_1", effective=True, samples=1)
    vggscope.diff("conv3-4", ref="conv3-4", input_size=(3, 8, 8), numeric=True)
    assert torch.equal(torch.rand(3), expected)


def test_a_result_saves_itself_as_the_suffix_says(tmp_path) -> None:
    report = vggscope.summary("A")
    for suffix in (".txt", ".json", ".csv", ".md", ".html"):
        report.save(tmp_path / f"x{suffix}")
    assert (tmp_path / "x.txt").read_text().rstrip() == str(report)
    assert (tmp_path / "x.json").read_text() == report.to_json()
    found = vggscope.diff("C", ref="D")
    found.save(tmp_path / "x.svg", theme="dark")
    assert (tmp_path / "x.svg").read_bytes() == found.picture(theme="dark").render("svg")
    sums = report.by_operator()
    with pytest.raises(OptionError, match=r"no format ends in '\.svg'"):
        sums.save(tmp_path / "y.svg")
    with pytest.raises(OptionError, match="sums has no picture"):
        sums.picture()
    with pytest.raises(OptionError, match="has no 'colour'"):
        found.picture(colour="red")


def test_what_is_built_fits_the_input() -> None:
    model = vggscope.build("A", input_size=(3, 64, 64), head="flatten")
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
    assert vggscope.verify("conv3-8 maxpool FC-10", input_size=(3, 32, 32), head="flatten").agrees


def test_python_shows_one_line() -> None:
    network = vggscope.network("D")
    shown = [
        (network, "<Network D at 3x224x224: 40 layers, 138,357,544 parameters>"),
        (vggscope.summary(network), "<Summary of D at 3x224x224: 40 layers, 138,357,544 parameters, 15.47 GMACs>"),
        (
            vggscope.summary(network, (8, 3, 32, 32)),
            "<Summary of D at 3x32x32 x 8: 40 layers, 138,357,544 parameters, 3.49 GMACs>",
        ),
        (vggscope.diff("C", ref=network), "<Diff of C against D: different, 3 differences>"),
        (vggscope.diff("D", ref=network), "<Diff of D against D: identical>"),
        (
            vggscope.explain("conv", size=4),
            "<Tutorial of conv: convolution: a 3x3 kernel over a 4x4 picture, stride 1, padding 1>",
        ),
        (vggscope.compare("A", "E"), "<Comparison of A, E at 3x224x224, batch 1>"),
        (vggscope.receptive_fields("A", at="pool5"), "<ReceptiveFields of A at 3x224x224: pool5 150x150>"),
    ]
    for result, line in shown:
        assert repr(result) == line
    assert repr(vggscope.summary("FC-10")).count("\n") == 0


def test_a_network_is_drawn_or_else_named() -> None:
    assert vggscope.network("D")._repr_svg_().startswith("<svg ")
    assert vggscope.network(nn.Sequential(*[nn.ReLU() for _ in range(501)]), (3, 8, 8))._repr_svg_() is None
    assert vggscope.network("D", (3, 8, 8))._repr_svg_() is None


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: vggscope.summary("nothing"), ModelError),
        (lambda: vggscope.summary(3), ModelError),
        (lambda: vggscope.summary("D", (0, 224, 224)), OptionError),
        (lambda: vggscope.summary("D", (224, 224)), OptionError),
        (lambda: vggscope.summary("D", heads="dense"), OptionError),
        (lambda: vggscope.memory("D", batch=0), OptionError),
        (lambda: vggscope.memory("D", 64), OptionError),
        (lambda: vggscope.summary("D", input_size=224), OptionError),
        (lambda: vggscope.inspect(small()), OptionError),
        (lambda: vggscope.summary("D", dtype="int3"), OptionError),
        (lambda: vggscope.operations("D", dtype="amp"), OptionError),
        (vggscope.compare, OptionError),
        (lambda: vggscope.compare("D", batch=-1), OptionError),
        (lambda: vggscope.explain("convo"), OptionError),
        (lambda: vggscope.explain("D"), OptionError),
        (lambda: vggscope.explain(small(), "0", size=3), OptionError),
        (vggscope.report, OptionError),
        (lambda: vggscope.report("D", weights="x.pth"), OptionError),
        (lambda: vggscope.diagram("D", colour="red"), OptionError),
        (lambda: vggscope.receptive_fields("D", weights="x.pth"), OptionError),
        (lambda: vggscope.receptive_fields("D", effective=True), OptionError),
        (lambda: next(vggscope.grid("D", sizes=[8])), ShapeError),
        (lambda: vggscope.grid("D", modes=["nap"]), OptionError),
    ],
)
def test_errors_are_of_vggscope(call, error) -> None:
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, vggscope.VggscopeError)


def test_the_functions_stay_functions_when_their_code_is_loaded() -> None:
    import vggscope.builders.module
    import vggscope.diffing.compare
    import vggscope.graph

    assert callable(vggscope.build)
    assert callable(vggscope.diff)
    assert callable(vggscope.network)
    assert set(vggscope.__all__) <= set(dir(vggscope))


class FromConstants(nn.Module):
    """A convolution and a linear layer read constants alone, as those of position embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.position = nn.Conv2d(2, 4, 3, padding=1)
        self.scale = nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.scale(torch.ones(2))[:, None, None] + self.position(torch.ones(1, 2, 8, 8))


def test_layers_without_an_input_are_shown_by_every_function() -> None:
    model = FromConstants()
    network = vggscope.network(model, (3, 8, 8))
    assert [node.name for node in network.nodes if not node.inputs] == ["scale", "position"]
    assert vggscope.summary(network).totals.params == sum(parameter.numel() for parameter in model.parameters())
    assert "position" in str(vggscope.receptive_fields(network))
    assert "position" in str(vggscope.memory(network))
    assert vggscope.diff(network, ref=network).verdict == "identical"
    plain = vggscope.network(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()), (3, 8, 8))
    assert "position" in str(vggscope.diff(network, ref=plain))
    assert "position" in str(vggscope.diff(plain, ref=network))
    assert b"position" in vggscope.diagram(network, style="layers").render()
    assert "position" in vggscope.report(network).html


def test_a_batch_axis_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(OptionError, match="batch_axis 'none' is not an axis"):
        vggscope.summary(nn.Linear(4, 2), input_size=(1, 4), batch_axis="none")


@pytest.mark.parametrize("model", ["D", nn.LSTM(4, 2), "any.onnx", "any.pt2", "any.h5"], ids=str)
def test_a_batch_axis_without_a_size_is_refused(model: str | nn.Module) -> None:
    """The inputs that the model has, or that are chosen, have the batch where they have it."""
    for axis in (1, None):
        with pytest.raises(OptionError, match=rf"batch_axis{'=1' if axis else ''}.* without a size"):
            vggscope.summary(model, batch_axis=axis)


def test_an_unknown_argument_names_the_nearest() -> None:
    for model in (nn.Linear(4, 2), "A"):
        with pytest.raises(OptionError, match=r"unknown option 'inputsize', did you mean input_size\?"):
            vggscope.summary(model, inputsize=(3, 32, 32))
    with pytest.raises(OptionError, match=r"^num_classes: a module is taken as it is"):
        vggscope.summary(nn.Linear(4, 2), (4,), num_classes=3, cache=False)


def test_the_note_on_a_chosen_reference_names_the_argument_or_the_option(tmp_path, vggscope) -> None:
    """Without a reference, the note says how to name one: in Python the argument, on the command line the option."""
    found = diff(features_and_head())
    assert any(note.endswith("; the argument ref names another") for note in found.notes), found.notes
    (tmp_path / "net.py").write_text("import vggscope\n\n\ndef make():\n    return vggscope.build('A')\n")
    assert "; --ref names another" in vggscope("diff", f"{tmp_path}/net.py:make").out


def features_and_head() -> nn.Module:
    """VGG-11 as a plain Sequential, which no word names."""
    with torch.device("meta"):
        built = vggscope.build("A")
    return nn.Sequential(*built.children())
