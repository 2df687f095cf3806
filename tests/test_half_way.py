"""A model whose forward pass fails: figures are known up to the failure, none is invented, and the exit code says
that something is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import isfunction
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import vggscope as api
from vggscope import api as api_module
from vggscope.errors import ModelError, ShapeError, VggscopeError, naming_options

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(10, 2)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))
"""
"""A 3x3 convolution maps 3x32x32 to 4x30x30: 3,600 features where ten are expected."""

REASON = "10 features are expected, the input has 3,600"


@pytest.fixture
def word(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:Net"


@pytest.mark.parametrize("words", [("summary",), ("summary", "--backward"), ("rf",), ("compare",)])
def test_known_figures_are_shown_and_the_exit_code_is_two(words: tuple[str, ...], word: str, vggscope) -> None:
    ran = vggscope(*words, word, "--input", "3x32x32", "-f", "json")
    assert ran.code == 2
    assert REASON in ran.err
    assert ran.err.count("\n") == 2
    assert "4, 30, 30" in ran.out or "conv" in ran.out
    json.loads(ran.out)


@pytest.mark.parametrize(
    "words",
    [("memory",), ("memory", "--measure"), ("verify",), ("build",), ("build", "-o", "net.py"), ("report", "-o")],
)
def test_a_command_that_needs_the_whole_model_fails(
    words: tuple[str, ...], word: str, vggscope, tmp_path: Path
) -> None:
    target = [str(tmp_path / "out.html")] if words[-1] == "-o" else []
    words = tuple(str(tmp_path / "out.py") if part == "net.py" else part for part in words)
    ran = vggscope(*words, *target, word, "--input", "3x32x32")
    assert (ran.code, ran.out) == (2, "")
    assert REASON in ran.err
    assert ran.err.count("\n") == 2
    assert [path.name for path in tmp_path.glob("out*")] == []


@pytest.mark.parametrize("words", [("summary",), ("rf",), ("compare",), ("diff", "--ref", "A")])
def test_a_text_gives_the_reason_once(words: tuple[str, ...], word: str, vggscope) -> None:
    ran = vggscope(*words, word, "--input", "3x32x32")
    assert (ran.out + ran.err).replace("\n", " ").count("features are expected") == 1
    if words[0] != "diff":
        assert ran.err.splitlines()[0] == "vggscope: the forward pass fails in fc (Linear), as noted"


def test_its_picture_states_where_it_fails(word: str, vggscope, tmp_path: Path) -> None:
    ran = vggscope("diagram", word, "--input", "3x32x32", "-o", str(tmp_path / "x.svg"))
    assert ran.code == 2
    assert REASON in ran.err
    assert "forward pass fails here" in (tmp_path / "x.svg").read_text()


def test_the_peaks_of_a_step_that_fails_are_unknown(word: str) -> None:
    report = api.summary(word, (3, 32, 32))
    assert (report.memory.inference_peak_bytes, report.memory.training_peak_bytes) == (None, None)
    assert "peak memory" not in str(report)
    assert any(REASON in note for note in api.receptive_fields(word, (3, 32, 32)).notes)


@pytest.mark.parametrize(
    ("words", "layer", "other"),
    [
        (("D", "--head", "dense", "--input", "3x64x64"), "classifier.0", None),
        (("D", "--input", "3x8x8"), "features.23", "features.23"),
        (("A", "--ref", "paper", "--input", "3x8x8"), "features.15", "features.15"),
        (("conv3-8 maxpool conv3-8 maxpool", "--ref", "B", "--input", "3x2x2"), "features.5", "features.9"),
    ],
)
def test_a_diff_at_an_input_that_does_not_fit(words: tuple[str, ...], layer: str, other: str | None, vggscope) -> None:
    """The window of fc6 is 7x7, and 64 halved five times is 2; 8 halved three times is 1, and no pool of 2x2 fits."""
    ran = vggscope("diff", *words, "-f", "json")
    assert (ran.code, ran.err) == (1, "")
    result = json.loads(ran.out)
    assert result["verdict"] == "different"
    failed = next(difference for difference in result["differences"] if difference["ours"] == layer)
    assert (failed["kind"], failed["effect"], failed["reference"]) == ("changed", "shape", other)
    assert any("does not run at this input" in note for note in result["notes"])
    failed = [row for row in result["rows"] if row["sign"] == "!"]
    assert [row["our_layer"]["name"] for row in failed] == [layer]
    assert result["rows"][0]["ours"].startswith("features.0 (conv1_1) Conv2d")


def test_a_diff_with_itself_and_by_numbers(word: str, vggscope) -> None:
    ran = vggscope("diff", word, "--ref", word, "--input", "3x32x32", "--numeric", "-f", "json")
    result = json.loads(ran.out)
    assert (ran.code, result["verdict"], result["numeric"]) == (1, "different", None)
    assert [(d["ours"], d["reference"]) for d in result["differences"]] == [("fc", "fc")]
    # 4 x 3 x 3 x 3 + 4 of the convolution, 10 x 2 + 2 of the layer that fails
    assert (result["params"]["ours"], result["params"]["reference"]) == (134, 134)


def test_a_failure_of_both_networks_is_not_attributed_to_a_difference(vggscope) -> None:
    result = json.loads(vggscope("diff", "E", "--input", "1x16x16", "-f", "json").out)
    assert [d["ours"] for d in result["differences"]] == ["features.0", "features.36"]
    assert result["differences"][0]["follows"] == []


def test_a_reference_that_does_not_run_is_an_error(word: str, vggscope) -> None:
    ran = vggscope("diff", "A", "--ref", word, "--input", "3x32x32")
    assert (ran.code, ran.out) == (2, "")
    assert REASON in ran.err


def _sized(function: Callable[..., object]) -> Callable[[object], object]:
    return lambda model: function(model, input_size=SIZE)


SIZE = (3, 32, 32)

RETURNS: dict[str, Callable[[object], object]] = {
    name: _sized(getattr(api, name))
    for name in ("network", "summary", "operations", "receptive_fields", "compare", "diagram")
}
RETURNS["fleet"] = lambda model: next(api.fleet(model, input_size=SIZE))
RETURNS["diff"] = lambda model: api.diff(model, ref="A", input_size=SIZE)
"""The functions that return what is known up to the layer that fails."""

RAISES: dict[str, Callable[[object], object]] = {
    name: _sized(getattr(api, name)) for name in ("memory", "measure", "verify", "report", "lock")
}
RAISES["grid"] = lambda model: list(api.grid(model, sizes=[SIZE]))
RAISES["export"] = lambda model: api.export(model, "net.pth", SIZE)
RAISES["activations"] = lambda model: api.activations(model, PHOTO, SIZE)
"""The functions whose figures need the whole forward pass."""

PHOTO = str(Path(__file__).parents[1] / "docs" / "images" / "page-light.png")

OTHERS = {"build", "explain", "inspect", "catalogue", "stats", "values", "register_op"}
"""The functions that do not run forward, or show one layer."""


def test_every_function_is_one_of_these() -> None:
    public = {n for n, f in vars(api_module).items() if isfunction(f) and f.__module__ == api_module.__name__}
    assert {name for name in public if not name.startswith("_")} == {*RETURNS, *RAISES, *OTHERS}


@pytest.fixture
def net(word: str) -> nn.Module:
    return api.build(word)


@pytest.mark.parametrize("name", RETURNS)
def test_functions_return_what_is_known_with_the_failure(name: str, word: str, net: nn.Module) -> None:
    for model in (word, net):
        result = RETURNS[name](model)
        (failure,) = {r.failure for r in getattr(result, "models", (result,))}
        assert failure.startswith("fc (Linear): " + REASON)
        assert "net.py, line 11: return self.fc(self.conv(x).flatten(1))" in failure


@pytest.mark.parametrize("name", RAISES)
def test_functions_that_need_the_whole_forward_pass_raise(name: str, word: str, net: nn.Module) -> None:
    for model in (word, net):
        with pytest.raises(ShapeError, match=REASON) as raised:
            RAISES[name](model)
        assert raised.value.remedy


class Returns(nn.Module):
    def __init__(self, value: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.value = value

    def forward(self, x: torch.Tensor) -> object:
        self.conv(x)
        return self.value


@pytest.mark.parametrize("name", [*RETURNS, *RAISES])
@pytest.mark.parametrize(
    ("value", "what"),
    [(None, "None"), ({}, "no tensor"), (torch.ones(3), "a tensor that no input went into")],
    ids=["none", "empty", "constant"],
)
def test_every_function_refuses_a_forward_that_returns_nothing(name: str, value: object, what: str) -> None:
    with pytest.raises(
        ModelError, match=rf"forward of Returns returns {what} \(.*test_half_way.py, line \d+\)"
    ) as raised:
        {**RETURNS, **RAISES}[name](Returns(value))
    assert "return" in raised.value.remedy


def test_the_reason_is_on_top_and_the_remedy_fits_it(word: str, vggscope) -> None:
    ran = vggscope("summary", word, "--input", "3x32x32")
    assert ran.out.splitlines()[2].startswith("note: it fails here: fc (Linear): " + REASON)
    assert ran.out.count(REASON) == 1
    assert REASON not in ran.err
    assert "fails in fc (Linear)" in ran.err.splitlines()[0]

    class Misspelt(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu().rellu()

    with pytest.raises(ShapeError, match="AttributeError") as raised:
        api.memory(Misspelt(), (3, 8, 8))
    assert raised.value.remedy == "call the model on the same input to see the traceback"


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.words = nn.Conv2d(3, 8, 3), nn.Embedding(10, 8)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return self.conv(image).mean((2, 3)) + F.embedding(text, self.words.weight).mean(1)


class Refuses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, image: torch.Tensor, text: torch.Tensor | None = None) -> torch.Tensor:
        out = self.conv(image)
        if text is None:
            raise ValueError("text is needed")
        return out


class Keyed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.fc(batch["x"])


class NoForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)


def test_the_remedy_for_several_inputs_names_them() -> None:
    report = api.summary(Two())
    assert report.warnings[-1].endswith("; give input_data with image, text")
    with pytest.raises(ShapeError) as raised:
        api.memory(Two())
    assert raised.value.remedy == "dtypes, one for each size in input_size, gives another dtype"
    with pytest.raises(ShapeError, match="text is needed") as raised:
        api.memory(Refuses())
    assert raised.value.remedy == "input_data, a tuple or a dict, gives other inputs"


@pytest.mark.parametrize(("model", "remedy"), [(Keyed(), "takes a dict"), (NoForward(), "define forward in the class")])
@pytest.mark.filterwarnings("error")
def test_no_other_size_is_advised_where_none_helps(model: nn.Module, remedy: str) -> None:
    with pytest.raises(ModelError) as raised:
        api.summary(model)
    assert remedy in raised.value.remedy


class Takes(nn.Module):
    """A convolution of what a function makes of the argument."""

    def __init__(self, function: Callable[[Any], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 8, 3), function

    def forward(self, x: Any) -> torch.Tensor:
        return self.conv(self.function(x))


def unbatched(x: torch.Tensor) -> torch.Tensor:
    c, h, w = x.shape
    return x.view(1, c, h, w)


def two(xs: list[torch.Tensor]) -> torch.Tensor:
    a, b = xs
    return a + b


FORMS = [
    (two, "a list of 2", "--input 3x224x224 --input 3x224x224"),
    (lambda batch: batch["image"] + batch["mask"], "a dict", "--input image=3x224x224 --input mask=3x224x224"),
    (lambda xs: xs[0] * xs[1], "a list of 2", "--input 3x224x224 --input 3x224x224"),
    (unbatched, "an input without a batch", "--input 3x224x224 --batch-axis none"),
    (lambda x: x.permute(0, 3, 1, 2), "channels last", "--input 224x224x3"),
]


@pytest.mark.parametrize(("function", "what", "words"), FORMS)
@pytest.mark.filterwarnings("error")
def test_the_form_that_forward_takes_is_advised(function: Callable[[Any], torch.Tensor], what: str, words: str) -> None:
    """The advice runs: 8 x 3 x 3 x 3 x 222 x 222 MACs."""
    with pytest.raises(VggscopeError) as raised:
        api.memory(Takes(function))
    form, _, keywords = raised.value.remedy.partition(": ")
    assert form == f"forward takes {what}"
    given = eval(f"dict({keywords})", {"torch": torch, "dict": dict})
    assert api.summary(Takes(function), **given).totals.macs == 8 * 27 * 222 * 222
    with naming_options(), pytest.raises(VggscopeError) as raised:
        api.memory(Takes(function))
    advice = raised.value.remedy.partition(": ")[2]
    assert advice == words


def test_a_remedy_names_the_option_or_the_argument(word: str, vggscope) -> None:
    with pytest.raises(ShapeError) as raised:
        api.memory(word, (3, 32, 32))
    assert raised.value.remedy == "in_features of 3,600 would fit, or input_size gives another size"
    assert "or --input gives another size" in vggscope("memory", word, "--input", "3x32x32").err
    with pytest.raises(VggscopeError, match=r"^a batch of 0 makes no sense\nbatch is 1 to"):
        api.memory("D", batch=0)
    assert "--batch is 1 to" in vggscope("memory", "D", "--batch", "0").err
    assert api.errors.option("batch") == "batch"


def test_a_class_is_refused_with_the_call_that_makes_a_model() -> None:
    with pytest.raises(ModelError, match="Two is a class, not a model") as raised:
        api.summary(Two)  # type: ignore[arg-type]
    assert raised.value.remedy == "make one: Two(...)"


def test_the_remedy_for_mixed_dtypes_converts_the_module() -> None:
    mixed = nn.Sequential(nn.Linear(8, 8).bfloat16(), nn.Linear(8, 2))
    with pytest.raises(ShapeError) as raised:
        api.memory(mixed)
    assert raised.value.remedy == "convert the module to one dtype in its code, as module.float() does"


def test_an_input_that_was_chosen_is_noted_where_rows_are_sequences() -> None:
    chosen = api.summary(nn.LSTM(16, 32))
    assert any(note.startswith("no input was given: ") for note in chosen.warnings)


MIXED = """
from torch import nn

class Net(nn.Module):
    def __init__(self, pool=False):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2 if pool else 1))
        self.classifier = nn.Linear(8 * 4 * 4, 10)

    def forward(self, x):
        x = self.features(x)
        x = x.view(-1, 8 * 4 * 4)
        return self.classifier(x)

def pooled():
    return Net(True)

def flattened():
    return nn.Sequential(*Net(True).features, nn.Flatten(), Net().classifier)
"""
"""A map of 8x8x8 is 512 values where a row takes 128."""

MIXED_NOTE = "view: 1 sample becomes 4 rows of 128 values, since a sample has 8x8x8 = 512"


def test_a_reshape_that_mixes_the_batch_is_named(tmp_path: Path, vggscope) -> None:
    (tmp_path / "mixed.py").write_text(MIXED)
    word, right = f"{tmp_path / 'mixed.py'}:Net", f"{tmp_path / 'mixed.py'}:pooled"
    ran = vggscope("summary", word, "--input", "3x8x8")
    assert ran.code == 0
    first = " ".join(ran.out.splitlines()[2:5])
    assert first.startswith(f"note: {MIXED_NOTE}")
    assert "mixed.py, line 12: x = x.view(-1, 8 * 4 * 4)" in first.replace("  ", " ")
    assert "write x.flatten(1), and 512 as the in_features after it" in first
    report = api.summary(word, (3, 8, 8))
    assert report.outputs[0].shape == (4, 10)
    for result in (api.memory(word, (3, 8, 8)).assumptions, api.operations(word, (3, 8, 8)).alerts):
        assert any(MIXED_NOTE in text for text in result)
    assert api.network(right, (3, 8, 8)).mixed_batch is None


def test_a_diff_does_not_call_such_a_reshape_harmless(tmp_path: Path) -> None:
    (tmp_path / "mixed.py").write_text(MIXED)
    path = tmp_path / "mixed.py"
    result = api.diff(f"{path}:Net", ref=f"{path}:flattened", input_size=(3, 8, 8))
    assert {d.reference: d.effect for d in result.differences if d.ours == "view"} == {"3": "shape"}
    assert any(note.startswith(MIXED_NOTE) for note in result.notes)
    assert api.diff(f"{path}:pooled", ref=f"{path}:flattened", input_size=(3, 8, 8)).verdict == "equivalent"


def test_several_samples_in_one_row() -> None:
    class Fewer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(-1, 20) * 2

    text = api.network(Fewer(), [(2, 10)]).mixed_batch
    assert text is not None
    assert text.startswith("view: 2 samples become 1 row of 20 values, since a sample has 10 (")


class Calls(nn.Module):
    """A function of a convolution's map, 4x6x6 for an image of 8x8."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.conv(x))


@pytest.mark.parametrize(
    ("function", "name"),
    [(lambda x: x.flatten(), "flatten"), (nn.Flatten(0), "function"), (lambda x: x.view(-1) * 2, "view")],
)
def test_a_batch_that_is_flattened_is_named(function: Callable[[torch.Tensor], torch.Tensor], name: str) -> None:
    """4 x 6 x 6 values of each sample lie in one axis."""
    report = api.summary(Calls(function), (3, 8, 8), batch=2)
    assert report.alerts[0].startswith(f"{name}: the batch and the 4x6x6 = 144 values of a sample become one axis")
    assert report.alerts[0].endswith(": write x.flatten(1)")
    assert report.outputs[0].shape == (288,)
    (row,) = (line for line in str(api.summary(Calls(function), (3, 8, 8))).splitlines() if line.startswith(name))
    assert "144" in row.split()
    assert "scalar" not in row


@pytest.mark.parametrize(
    ("function", "shape"), [(lambda x: x[0], "4x6x6"), (lambda x: x.sum(0) + 1, "4x6x6"), (lambda x: x.mean(), "")]
)
def test_an_output_without_the_batch_is_named(function: Callable[[torch.Tensor], torch.Tensor], shape: str) -> None:
    """A loss, which has no axes, is not."""
    warnings = api.summary(Calls(function), (3, 8, 8)).warnings
    assert [warning.endswith(f"it is {shape} for every batch") for warning in warnings] == [True] * bool(shape)


@pytest.mark.parametrize(("axis", "given"), [(0, "2x8"), (1, "5x8"), (None, "5x2x8")])
def test_one_batch_alone_has_its_axis(axis: int | None, given: str) -> None:
    """Ten rows of 16 x 4 MACs after an LSTM of 4 x 16 x (8 + 16) MACs a step and sample."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = nn.LSTM(8, 16), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.rnn(x)[0].view(5 * 2, 16))

    report = api.summary(Fixed(), input_data=torch.zeros(5, 2, 8), batch_axis=axis)
    assert report.totals.macs == 10 * 4 * 16 * (8 + 16) + 10 * 16 * 4
    assert f"input {given}," in str(report).splitlines()[0].replace(" x 5,", ",")
    rows = {line.split()[0]: line.split()[2] for line in str(report).splitlines() if line.startswith(("rnn", "fc"))}
    assert rows == ({"rnn": "2x16", "fc": "4"} if axis == 0 else {"rnn": "5x2x16", "fc": "10x4"})
    wholes = [text for text in report.warnings if text.startswith("the figures are those of the whole batch of")]
    assert len(wholes) == (axis is not None)
    with pytest.raises(ShapeError, match="is known for the batch of its inputs alone"):
        api.memory(Fixed(), input_data=torch.zeros(5, 2, 8), batch_axis=axis, batch=3)


def test_a_row_for_each_position_is_no_mixture() -> None:
    class Positions(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.permute(0, 2, 3, 1).reshape(-1, 3)

    assert api.network(Positions(), (3, 8, 8)).mixed_batch is None


def test_a_model_that_runs_on_a_small_image_alone_is_compared_on_the_usual_one(tmp_path, vggscope) -> None:
    """Without three pools, its FC layers fit an image of 28 pixels a side, which five pools reduce to nothing."""
    layers = ", ".join(
        f"nn.Conv2d({before}, {after}, 3, padding=1), nn.ReLU(){', nn.MaxPool2d(2)' if place in (0, 1) else ''}"
        for place, (before, after) in enumerate(((3, 64), (64, 128), (128, 256), (256, 512), (512, 512)))
    )
    code = f"from torch import nn\ndef net():\n    return nn.Sequential({layers}, nn.Flatten(), nn.Linear(25088, 10))\n"
    (tmp_path / "net.py").write_text(code, encoding="utf-8")
    ran = vggscope("diff", f"{tmp_path}/net.py:net", "--ref", "A")
    assert ran.code == 1, ran.err
    assert "it is compared up to 13 (Linear), which fails" in " ".join(ran.out.split())
