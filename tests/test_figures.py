"""The exact figures: hand formulas over Table 1, what torchvision publishes, and the paper's Table 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from torch import nn

import vggscope
from vggscope.analysis.summary import Summary, summarize
from vggscope.cross_checks.paper import REFERENCE_TOOL
from vggscope.cross_checks.reference_tool import NotApplicable
from vggscope.sources.resolve import resolve
from vggscope.vgg.configs import CONFIGS, LITERATURE, Config
from vggscope.vgg.options import BuildOptions

FIGURES = json.loads((Path(__file__).parent / "figures.json").read_text())


def field_at(report: Summary, label: str) -> object:
    return next(layer.receptive_field for layer in report.layers if layer.label == label)


@pytest.mark.parametrize("column", FIGURES["exact"])
def test_exact_parameters_macs_and_receptive_fields(column: str) -> None:
    expected = FIGURES["exact"][column]
    report = summarize(resolve(column))
    assert report.totals.params == expected["params"]
    assert report.totals.macs == expected["macs"]
    assert report.totals.flops == 2 * expected["macs"]
    pool5 = field_at(report, "pool5")
    assert (pool5.size, pool5.stride, pool5.padding) == tuple(
        (expected["rf_pool5"][k],) * 2 for k in ("size", "stride", "padding")
    )
    assert field_at(report, "fc6").size == (expected["rf_fc6_dense"],) * 2
    dense = summarize(resolve(column, BuildOptions(head="dense")))
    assert field_at(dense, "fc6").size == (expected["rf_fc6_dense"],) * 2
    assert dense.totals.params == expected["params"]


@pytest.mark.parametrize("name", FIGURES["torchvision_meta"])
def test_what_torchvision_publishes(name: str) -> None:
    totals = summarize(resolve(name)).totals
    assert totals.params == FIGURES["torchvision_meta"][name]["num_params"]
    assert round(totals.macs / 1e9, 3) == FIGURES["torchvision_meta"][name]["_ops"]


@pytest.mark.parametrize(("column", "millions"), FIGURES["paper_table2_params_millions"].items())
def test_table_2_in_millions(column: str, millions: int) -> None:
    assert round(summarize(resolve(column)).totals.params / 1e6) == millions
    published = CONFIGS[column].published
    assert published is not None
    assert published.params_millions == millions


def test_a_column_that_the_paper_lacks_has_computed_figures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve("A")
    paper, explained = vggscope.compare(paper=True).paper, str(vggscope.explain("paper"))
    known = CONFIGS
    configs = {**known, "F": Config("conv3-64 maxpool conv3-128 maxpool FC-1000 soft-max")}
    for name, module in list(sys.modules.items()):
        if name.startswith("vggscope.") and getattr(module, "CONFIGS", None) is known:
            monkeypatch.setattr(module, "CONFIGS", configs)
    network = resolve("f")
    assert summarize(network).totals.params == 64 * 28 + 128 * 577 + 1000 * (128 * 49 + 1)
    assert vggscope.compare(paper=True).paper == paper
    assert str(vggscope.explain("paper")) == explained
    with pytest.raises(NotApplicable, match="Table 2"):
        REFERENCE_TOOL.reports["params"](network, nn.Identity())


@pytest.mark.parametrize("column", FIGURES["paper_table2_params_millions"])
def test_hand_formula(column: str) -> None:
    """Weights and MACs by the schoolbook: K*K*C*M and as much again for each output position."""
    side, channels, params, macs = 224, 3, 0, 0
    features = 0
    for word in CONFIGS[column].words:
        if word.kind == "conv":
            params += word.kernel**2 * channels * word.size + word.size
            macs += word.kernel**2 * channels * word.size * side**2
            channels = word.size
        elif word.kind == "maxpool":
            side //= 2
        elif word.kind == "fc":
            features = features or channels * side * side
            params += features * word.size + word.size
            macs += features * word.size
            features = word.size
    totals = summarize(resolve(column)).totals
    assert (totals.params, totals.macs) == (params, macs)


def test_names_of_the_literature_are_the_columns() -> None:
    for name, column in LITERATURE.items():
        assert resolve(name) == resolve(column) == resolve(name.upper())
        assert resolve(f"{name}_bn") == resolve(column, BuildOptions(batch_norm=True))
        weights = sum(word.kind in ("conv", "fc") for word in CONFIGS[column].words)
        assert name == f"vgg{weights}"


def test_local_response_norm_has_the_papers_constants() -> None:
    """k=2, n=5, alpha=1e-4, beta=0.75, and torch divides alpha by n."""
    norm = next(node.op for node in resolve("A-LRN").nodes if node.op.name == "LocalResponseNorm")
    assert (norm.size, norm.alpha / norm.size, norm.beta, norm.k) == (5, pytest.approx(1e-4), 0.75, 2.0)


def test_c_has_three_convolutions_of_1x1() -> None:
    kernels = [node.label for node in resolve("C").nodes if getattr(node.op, "kernel_size", None) == (1, 1)]
    assert kernels == ["conv3_3", "conv4_3", "conv5_3"]


def test_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert vggscope.__version__ == version("vggscope")
