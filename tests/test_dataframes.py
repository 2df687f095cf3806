"""Results as rows, dicts and dataframes."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

import vggscope
from vggscope.errors import MissingTool, OptionError, UnknownName
from vggscope.plain_data import LARGEST_INT64
from vggscope.result import Tabular

WORD = "conv3-8 maxpool FC-10"


@pytest.fixture(scope="module")
def report() -> vggscope.Summary:
    return vggscope.summary("D")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Tabular]:
    file = str(tmp_path_factory.mktemp("weights") / "w.safetensors")
    vggscope.export(WORD, file)
    return [
        vggscope.summary(WORD),
        vggscope.summary(WORD).by_operator(),
        vggscope.operations(WORD, count="all", card="A100-40GB"),
        vggscope.receptive_fields(WORD),
        vggscope.memory(WORD, gpu="24GiB"),
        vggscope.diff("C", ref="D"),
        vggscope.diff("D", ref="D"),
        vggscope.compare("A", "B"),
        vggscope.verify(WORD, input_size=(3, 32, 32)),
        vggscope.inspect(file),
        vggscope.stats(file),
        vggscope.values(file, file),
        vggscope.catalogue(),
        vggscope.grid("A", batches=[1, 2], modes=["train", "inference"]),
    ]


def test_a_row_is_found_by_its_label_its_path_or_its_position(report: vggscope.Summary) -> None:
    assert report["conv3_2"] is report["features.12"] is report[12] is report.layers[12]
    assert report[-1].label == "fc8"
    assert list(report) == list(report.layers)
    assert len(report) == 40
    assert "conv3_2" in report
    assert report[0] in report
    assert "conv3_4" not in report


def test_an_unknown_name_has_the_near_ones_and_is_a_key_error(report: vggscope.Summary) -> None:
    with pytest.raises(KeyError) as caught:
        report["conv3_4"]
    assert isinstance(caught.value, UnknownName)
    assert str(caught.value) == "Summary has no layer 'conv3_4'\nnear it: conv3_3, conv3_2, conv3_1"
    with pytest.raises(UnknownName, match="it has no differences"):
        vggscope.diff("D", ref="D")["conv1_1"]
    with pytest.raises(IndexError):
        report[40]


def test_a_name_of_several_rows_is_an_error(tmp_path: Any) -> None:
    for name in "ab":
        vggscope.export(WORD, tmp_path / f"{name}.safetensors")
    both = vggscope.stats(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    with pytest.raises(UnknownName, match=r"2 tensors of Statistics are named 'features.0.weight'"):
        both["features.0.weight"]


def test_a_result_without_rows_is_true() -> None:
    same = vggscope.diff("D", ref="D")
    assert len(same) == 0
    assert same


def test_to_dict_is_the_json(report: vggscope.Summary) -> None:
    assert report.to_dict() == json.loads(report.to_json())
    lock = vggscope.lock(WORD, input_size=(3, 8, 8))
    assert lock.to_dict() == json.loads(lock.to_json())


def test_pandas_reads_each_result(tables: list[Tabular]) -> None:
    pytest.importorskip("pandas")
    for table in tables:
        frame = table.to_df()
        assert len(frame) == len(list(table))  # type: ignore[call-overload]
        assert len(frame.columns) > 2
    frame = tables[0].to_df(columns=["op", "params", "receptive_field_size"])
    assert list(frame.columns) == ["op", "params", "receptive_field_size"]
    assert frame["params"].sum() == 8 * 3 * 9 + 8 + 10 * 8 * 49 + 10
    assert frame["receptive_field_size"][0] == [3, 3]
    with pytest.raises(OptionError, match="unknown column 'parms', did you mean params"):
        tables[0].to_df(columns=["parms"])


def test_arrow_reads_each_result(tables: list[Tabular]) -> None:
    arrow = pytest.importorskip("pyarrow")
    for table in tables:
        assert arrow.table(table).num_rows == len(list(table))  # type: ignore[call-overload]
    schema = arrow.table(tables[0]).schema
    assert schema.field("output_shape").type == arrow.list_(arrow.int64())
    assert schema.field("params").type == arrow.int64()


def test_polars_reads_a_result_without_pyarrow(report: vggscope.Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    polars = pytest.importorskip("polars")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    frame = polars.DataFrame(report)
    assert frame["macs"].sum() == report.totals.macs
    assert frame["kernel_size"].to_list()[:2] == [[3, 3], None]


def test_whole_numbers_stay_exact_beside_unknown_ones_and_beyond_64_bits() -> None:
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    from vggscope.plain_data import arrow_stream, pandas_frame

    large = 2**53 + 1
    assert pandas_frame({"x": [large, None]})["x"][0] == large

    class Stream:
        def __arrow_c_stream__(self, schema: object = None) -> object:
            return arrow_stream({"x": [LARGEST_INT64 + 1, None]}, schema)

    assert arrow.table(Stream())["x"].to_pylist() == [LARGEST_INT64 + 1, None]
    assert pandas_frame({"x": [LARGEST_INT64 + 1, None]})["x"][0] == LARGEST_INT64 + 1
    assert pandas.isna(pandas_frame({"x": [1, None]})["x"][1])


def test_a_missing_package_is_named(report: vggscope.Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., object] = builtins.__import__

    def without(name: str, *more: object, **named: object) -> object:
        if name in ("pandas", "pyarrow", "polars"):
            raise ImportError(name)
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingTool, match="pip install pandas"):
        report.to_df()
    with pytest.raises(MissingTool, match="pip install pyarrow"):
        report.__arrow_c_stream__()


@pytest.mark.parametrize("word", ["D", "torchvision:googlenet"])
def test_sums_add_up_to_the_totals(word: str) -> None:
    report = vggscope.summary(word, batch=2, count="all")
    for sums in (report.by_operator(), *(report.by_module(depth) for depth in (1, 2, None))):
        for figure in ("params", "macs", "flops", "activation_bytes"):
            total = getattr(report.totals, figure)
            assert total == getattr(sums.total, figure) == sum(getattr(group, figure) for group in sums)
        assert sum(group.layers for group in sums) == len(report.layers)
    assert report.by_operator()["Conv2d"].macs == sum(row.macs for row in report if row.op == "Conv2d")
    stages = vggscope.summary(word, batch=2, count="all", depth="stage")
    assert sum(row.flops or 0 for row in stages) == report.totals.flops


def test_parameters_that_no_layer_owns_are_in_the_sums() -> None:
    report = vggscope.summary("torchvision:vit_b_16")
    assert report.totals.other_params
    for sums in (report.by_operator(), report.by_module(), report.by_module(depth=2)):
        assert sum(group.params or 0 for group in sums) == report.totals.params
    assert report.by_operator()["(no layer)"].params == sum(other.params for other in report.totals.other_params)
    assert report.by_module()["(forward)"].params == 768  # the class token
    with pytest.raises(OptionError, match="a depth of 0 makes no sense"):
        report.by_module(0)


def test_a_layer_has_the_line_of_the_users_code(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 8, 3)\n\n    def forward(self, x):\n        x = self.conv(x)\n"
        "        return x.flatten(1)\n"
    )
    monkeypatch.chdir(tmp_path)
    report = vggscope.summary("net.py:Net", input_size=(3, 8, 8))
    assert [(row.module, row.line) for row in report] == [("conv", "net.py:7"), (None, "net.py:11")]
    assert vggscope.summary("D")[0].line == ""
