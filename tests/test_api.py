"""The same words from Python."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import vggscope
from vggscope.errors import ModelError, OptionError


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


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: vggscope.summary("nothing"), ModelError),
        (lambda: vggscope.summary(3), ModelError),
        (lambda: vggscope.summary("D", (0, 224, 224)), OptionError),
        (lambda: vggscope.summary("D", (224, 224)), OptionError),
        (lambda: vggscope.summary("D", heads="dense"), OptionError),
        (lambda: vggscope.memory("D", batch=0), OptionError),
    ],
)
def test_errors_are_ours(call, error) -> None:
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
