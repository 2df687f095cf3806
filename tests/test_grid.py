"""Memory over a grid equals memory one by one."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vggscope
from tests.conftest import Ran
from tests.strategies import SIDE, columns
from vggscope.analysis.memory.allocation_log import BatchLinear
from vggscope.analysis.memory.grid import Estimate, grid, largest_at
from vggscope.analysis.memory.optimizers import OPTIMIZERS
from vggscope.analysis.memory.report import memory
from vggscope.analysis.memory.step_config import DTYPES, MODES, StepConfig
from vggscope.errors import ShapeError
from vggscope.graph import Network
from vggscope.sources.resolve import resolve
from vggscope.vgg.options import BuildOptions

CONFIGS = [StepConfig(*parts) for parts in itertools.product(MODES, OPTIMIZERS, DTYPES)]
BATCHES = [1, 2, 7, 64, 10**6]


def agree(network: Network, batches: list[int], configs: list[StepConfig]) -> None:
    estimates = grid([network], batches, configs)
    for config, batch in itertools.product(configs, batches):
        one = memory(network, batch, config)
        assert next(estimates) == Estimate(
            network.name, network.input_shape[1:], config.mode, one.optimizer, one.dtype, batch, one.peak_bytes
        )
    assert next(estimates, None) is None


@pytest.mark.parametrize("word", ["A", "A-LRN", "E_bn"])
def test_the_grid_is_memory_one_by_one(word: str) -> None:
    agree(resolve(word), [1, 64], CONFIGS)


@pytest.mark.slow
@pytest.mark.parametrize("word", ["torchvision:resnet18", "torchvision:vit_b_32"])
def test_networks_with_branches_and_attention(word: str) -> None:
    agree(resolve(word), [64], CONFIGS[::5])


@pytest.mark.parametrize(
    "config",
    [
        StepConfig(foreach=True, optimizer="adam"),
        StepConfig(checkpoint=True, optimizer="rmsprop"),
        StepConfig(accumulate=4),
        StepConfig(gpus=4, optimizer="adamw"),
        StepConfig(gpus=4, parallel="zero1", optimizer="adam"),
        StepConfig(gpus=4, parallel="zero2"),
        StepConfig(gpus=8, parallel="fsdp", optimizer="adam", dtype="amp"),
        StepConfig(runtime="tracker", optimizer="adam"),
        StepConfig(optimizer="adam", weight_decay=0.1, foreach=False, ema=True, clip_grad_norm=True),
        StepConfig(nesterov=True, weight_decay=0.1, fused=True, ema=True),
    ],
    ids=repr,
)
def test_the_other_settings_of_a_config(config: StepConfig) -> None:
    agree(resolve("B", BuildOptions(input=(3, 64, 64))), BATCHES, [config, StepConfig()])


@given(columns(), st.sampled_from(CONFIGS), st.integers(1, 10**6))
def test_any_network_with_any_config(column: str, config: StepConfig, batch: int) -> None:
    agree(resolve(column, BuildOptions(input=(3, SIDE, SIDE))), [batch], [config])


def test_rows_come_one_at_a_time_and_in_order() -> None:
    requested = []

    def networks() -> Iterator[Network]:
        for side in (32, 64):
            requested.append(side)
            yield resolve("A", BuildOptions(input=(3, side, side)))

    estimates = grid(networks(), [1, 2], [StepConfig(), StepConfig("inference")])
    first = next(estimates)
    assert requested == [32]
    rest = list(estimates)
    assert [(e.input_shape, e.optimizer, e.batch) for e in (first, *rest)] == [
        ((3, side, side), optimizer, batch)
        for side in (32, 64)
        for optimizer in ("sgd-momentum", None)
        for batch in (1, 2)
    ]


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**9)), min_size=1, max_size=5),
    st.lists(st.integers(1, 10**6), max_size=5),
)
def test_the_largest_of_sizes(lines: list[tuple[int, int]], samples: list[int]) -> None:
    assert largest_at([BatchLinear(*line) for line in lines], samples) == [
        max(a + b * n for a, b in lines) for n in samples
    ]


def test_a_grid_is_read_more_than_once() -> None:
    points = vggscope.grid("A", "D", batches=[1, 64], modes=["train", "inference"])
    rows = list(points)
    assert len(rows) == 8
    assert next(points) == rows[0]
    assert [next(points), *points] == [rows[1], *rows]
    columns = points.columns()
    assert list(columns) == list(Estimate._fields)
    assert list(map(Estimate, *columns.values())) == rows
    assert vggscope.grid("A", modes=[]).columns() == {name: [] for name in Estimate._fields}


@pytest.mark.parametrize(
    ("library", "table"), [("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "table")], ids=str
)
def test_a_grid_is_a_table_of_other_libraries(library: str, table: str) -> None:
    points = vggscope.grid("A", batches=[1, 64], modes=["train", "inference"])
    made = getattr(pytest.importorskip(library), table)(points.columns())
    assert made.shape == (4, len(Estimate._fields))
    assert [int(size) for size in made["peak_bytes"].to_numpy()] == [point.peak_bytes for point in points]
    assert [list(shape) for shape in _values(made["input_shape"])] == [[3, 224, 224]] * 4
    assert _values(made["optimizer"]) == ["sgd-momentum", "sgd-momentum", None, None]


def _values(column: Any) -> list[Any]:
    """The values of a column, None for a missing one."""
    values = (getattr(column, "to_pylist", None) or column.to_list)()
    return [None if value != value else value for value in values]


def test_a_size_that_does_not_fit_is_an_error() -> None:
    network = resolve("A").with_input((3, 8, 8))
    with pytest.raises(ShapeError, match="does not fit"):
        list(grid([network], [1], [StepConfig()]))


def test_the_command_writes_csv(vggscope: Callable[..., Ran], tmp_path: Path) -> None:
    lists = ("--sizes", "64,3x96x128", "--batches", "1-3,64", "--optimizers", "sgd,adam", "--modes", "train,inference")
    done = vggscope("compare", "A", "vgg16_bn", "--grid", *lists, "--dtypes", "float32,amp")
    assert (done.code, done.err) == (0, "")
    rows = list(csv.DictReader(done.out.splitlines()))
    assert len(rows) == 2 * 2 * 4 * (2 + 1) * 2  # inference has no optimizer
    for row in rows[::7]:
        shape = tuple(map(int, row["input_shape"].split("x")))
        network = resolve(row["model"], BuildOptions(input=shape))
        config = StepConfig(row["mode"], row["optimizer"] or "sgd", row["dtype"])
        assert memory(network, int(row["batch"]), config).peak_bytes == int(row["peak_bytes"])
    file = tmp_path / "grid.csv"
    assert vggscope("compare", "A", "vgg16_bn", "--grid", *lists, "--dtypes", "float32,amp", "-o", str(file)).code == 0
    assert file.read_text() == done.out


def test_the_command_writes_json_lines(vggscope: Callable[..., Ran], tmp_path: Path) -> None:
    done = vggscope("compare", "A", "--grid", "--batches", "64", "-f", "json")
    assert json.loads(done.out) == {
        "schema": "vggscope/grid@1",
        "model": "A",
        "input_shape": [3, 224, 224],
        "mode": "train",
        "optimizer": "sgd-momentum",
        "dtype": "float32",
        "batch": 64,
        "peak_bytes": 4749085928,
    }
    assert vggscope("compare", "A", "--grid", "--batches", "64", "-o", str(tmp_path / "x.jsonl")).code == 0
    assert (tmp_path / "x.jsonl").read_text() == done.out


def test_names_are_escaped_in_csv(tmp_path: Path, vggscope: Callable[..., Ran]) -> None:
    file = tmp_path / "x.toml"
    file.write_text('[columns]\n"=1,2" = "conv3-8 FC-10"\n')
    done = vggscope("compare", f"{file}:=1,2", "--grid", "--batches", "1")
    assert done.code == 0
    assert next(csv.DictReader(done.out.splitlines()))["model"] == "'=1,2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--batches", "1"), "--batches without --grid"),
        (("--grid", "-f", "table"), "a grid is not written as table"),
        (("--grid", "-o", "x.txt"), "a grid is not written as txt"),
        (("--grid", "--batches", "3-1"), "is not a number or a range"),
        (("--grid", "--batches", "1-9999999999"), "is not a number or a range"),
        (("--grid", "--batches", "1-900000,1-900000"), "is not a number or a range"),
        (("--grid", "--sizes", "0"), "not a size"),
        (("--grid", "--sizes", ","), "names nothing"),
        (("--grid", "--sizes", "8"), "does not fit"),
        (("--grid", "--optimizers", "best"), "unknown optimizer"),
        (("--grid", "--paper"), "--paper and --grid"),
    ],
)
def test_invalid_grids_are_errors(vggscope: Callable[..., Ran], words: tuple[str, ...], said: str) -> None:
    done = vggscope("compare", "A", *words)
    assert done.code == 2
    assert said in done.err


@pytest.mark.slow
def test_a_million_estimates() -> None:
    columns = [column + norm for column in ("A", "A-LRN", "B", "C", "D", "E") for norm in ("", "_bn")]
    sides = range(64, 384, 16)
    configs = [
        StepConfig(optimizer=name, dtype=dtype) for name in OPTIMIZERS for dtype in ("float32", "float16", "amp")
    ]
    networks = (resolve(column, BuildOptions(input=(3, side, side))) for column in columns for side in sides)
    count = sum(1 for _ in grid(networks, range(1, 175), configs))
    assert count == 1_002_240
