"""A Network as JSON, and the references that are remembered with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vggscope
from tests.conftest import Ran
from tests.house import files, imports, reached, room
from tests.strategies import columns
from vggscope import ops
from vggscope.graph import INPUT, Network, Node, one_input
from vggscope.graph_json import FAMILIES, from_json, to_json
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.view import Slice
from vggscope.sources import cache
from vggscope.sources.cache import SHAPING, remembered
from vggscope.sources.resolve import resolve
from vggscope.vgg.options import BuildOptions

OPTIONS = BuildOptions(input=(3, 64, 64))
WORD = "torchvision:vgg11"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VGGSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Loads:
    """Counts how often the library is asked."""

    def __init__(self) -> None:
        self.count = 0
        self.network = resolve(WORD, OPTIONS)

    def __call__(self) -> Network:
        self.count += 1
        return self.network


def entry(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


@given(columns())
def test_a_network_reads_back_as_it_was(column: str) -> None:
    network = resolve(column)
    assert from_json(to_json(network)) == network


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "vit_b_32", "swin_t", "maxvit_t", "shufflenet_v2_x0_5"])
def test_a_library_model_reads_back_as_it_was(name: str) -> None:
    network = resolve(f"torchvision:{name}")
    back = from_json(to_json(network))
    assert back == network
    # What == leaves out.
    assert [node.named_until for node in back.nodes] == [node.named_until for node in network.nodes]


def test_values_that_json_has_not_are_kept_or_refused() -> None:
    def single(op: Slice | Elementwise) -> Network:
        return Network("x", one_input((1, 3, 8, 8)), (Node("a", op, (INPUT,)),))

    kept = single(Slice(("...", None, (0, None, 2), -1)))
    assert from_json(to_json(kept)).nodes[0].op == kept.nodes[0].op
    floats = from_json(to_json(single(Elementwise("clamp", (None, -float("inf"), 0.1, (1, 2))))))
    assert floats.nodes[0].op.arguments_given == (None, -float("inf"), 0.1, (1, 2))
    for value in ([1, 2], {"a": 1}, object()):
        with pytest.raises(ValueError, match="not written"):
            to_json(single(Elementwise("clamp", (None, value))))


def test_every_family_of_ops_is_written() -> None:
    folder = Path(ops.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "base", "axis_maps", "normal_form"} == FAMILIES


GOOD = json.loads(to_json(resolve("conv3-8 maxpool FC-10", OPTIONS)))


def changed(*path: str | int, value: object) -> str:
    tree = json.loads(json.dumps(GOOD))
    place = tree
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(tree)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '"Network"',
        "[" * 100_000,
        "1" * 5000,
        json.dumps(GOOD["nodes"][0]),
        changed("class", value="Op"),
        changed("class", value=["Network"]),
        changed("nodes", value={}),
        changed("nodes", 0, "op", "class", value="os.system"),
        changed("nodes", 0, "op", "class", value="base.Op"),
        changed("nodes", 0, "op", "class", value="view.ShapeError"),
        changed("nodes", 0, "op", "class", value="convolution.Op"),
        changed("nodes", 0, "op", "class", value="convolution.__builtins__"),
        changed("nodes", 0, "op", "class", value="...convolution.Convolution"),
        changed("nodes", 0, "op", "class", value="Node"),
        changed("nodes", 0, "op", "out_channels", value="8"),
        changed("nodes", 0, "op", "out_channels", value=True),
        changed("nodes", 0, "op", "out_channels", value=8.0),
        changed("nodes", 0, "op", "kernel_size", value=3),
        changed("nodes", 0, "op", "kernel_size", value=[3, None]),
        changed("nodes", 0, "op", "extra", value=1),
        changed("nodes", 0, "inputs", value=["nowhere"]),
        changed("nodes", 1, "name", value=GOOD["nodes"][0]["name"]),
        changed("input_shape", value=[[1]]),
        changed("unused", value=[[1, "why"]]),
    ],
)
def test_any_other_text_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_json(text)


@given(
    st.text()
    | st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        json.dumps
    )
)
def test_no_text_makes_another_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        from_json(text)


def test_the_second_call_does_not_import_the_library(folder: Path) -> None:
    load = Loads()
    first, second = remembered(WORD, OPTIONS, load), remembered(WORD, OPTIONS, load)
    assert load.count == 1
    assert first == second == load.network
    assert entry(folder).name == "torchvision-vgg11-3x64x64-own.json"


def test_each_size_and_number_of_classes_is_remembered_for_itself(folder: Path) -> None:
    load = Loads()
    for options in (OPTIONS, BuildOptions(input=(3, 32, 32)), BuildOptions(input=(3, 64, 64), num_classes=10)):
        remembered(WORD, options, load)
    assert load.count == len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("word", ["D", "torchvision:../x", "torchvision:a/b", "timm:hf-hub:x", "net.py:Net", "timm:"])
def test_other_words_are_not_remembered(folder: Path, word: str) -> None:
    load = Loads()
    remembered(word, OPTIONS, load)
    remembered(word, OPTIONS, load)
    assert load.count == 2
    assert not folder.exists()


def flip_a_digit(data: bytes) -> bytes:
    return data.replace(b'"out_channels":64', b'"out_channels":65', 1)


def forge(data: bytes) -> bytes:
    """Another network with a right digest: caught because it is of other options."""
    head, _, body = data.partition(b"\n")
    found = json.loads(head)
    return json.dumps({**found, "options": "BuildOptions()"}).encode() + b"\n" + body


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data + b" ",
        lambda data: b"\xff\xfe" + data,
        lambda data: b"[]\n" + data,
        lambda data: b"{}\n" + data,
        lambda data: b"[" * 100_000,
        lambda data: data + b"\n" * cache.LARGEST_ENTRY,
        lambda data: data.replace(b'"defined_in": "models/vgg.py"', b'"defined_in": "../../x.py"'),
        lambda data: data.replace(b'"defined_in": "models/vgg.py"', b'"defined_in": 1'),
        flip_a_digit,
        forge,
    ],
)
def test_a_damaged_entry_is_written_anew(folder: Path, spoil: Callable[[bytes], bytes]) -> None:
    load = Loads()
    remembered(WORD, OPTIONS, load)
    good = entry(folder).read_bytes()
    bad = spoil(good)
    assert bad != good
    entry(folder).write_bytes(bad)
    assert remembered(WORD, OPTIONS, load) == load.network
    assert load.count == 2
    assert entry(folder).read_bytes() == good


@pytest.mark.parametrize("package", ["torch", "torchvision"])
def test_another_version_asks_again(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    load = Loads()
    remembered(WORD, OPTIONS, load)
    known = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99" if name == package else known(name))
    remembered(WORD, OPTIONS, load)
    remembered(WORD, OPTIONS, load)
    assert load.count == 2
    assert json.loads(entry(folder).read_bytes().partition(b"\n")[0])[package] == "99"


def test_another_text_of_the_defining_file_asks_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Loads()
    remembered(WORD, OPTIONS, load)
    library = tmp_path / "torchvision"
    (library / "models").mkdir(parents=True)
    (library / "models" / "vgg.py").write_text("# changed\n")
    monkeypatch.setattr(cache, "_folder_of", lambda name: os.path.realpath(library))
    remembered(WORD, OPTIONS, load)
    assert load.count == 2


def test_a_pipe_in_the_place_of_an_entry_is_not_waited_for(folder: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    folder.mkdir()
    os.mkfifo(folder / "torchvision-vgg11-3x64x64-own.json")
    load = Loads()
    assert remembered(WORD, OPTIONS, load) == load.network
    assert remembered(WORD, OPTIONS, load) == load.network
    assert load.count == 1  # the first has put a file in its place


@pytest.mark.parametrize("place", ["/dev/null/x", "/proc/vggscope"])
def test_a_folder_that_cannot_be_made_is_no_cache(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("VGGSCOPE_CACHE", place)
    load = Loads()
    assert remembered(WORD, OPTIONS, load) == load.network
    assert remembered(WORD, OPTIONS, load) == load.network
    assert load.count == 2


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VGGSCOPE_CACHE")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: "~/.cache/vggscope")
    assert cache.folder() is None
    load = Loads()
    assert remembered(WORD, OPTIONS, load) == load.network


def test_a_broken_forward_is_not_remembered(folder: Path) -> None:
    load = Loads()
    load.network = Network("x", one_input((1, 3, 8, 8)), (), failure="no")
    remembered(WORD, OPTIONS, load)
    assert not folder.exists()


def diff_in_a_process(folder: Path, *words: str) -> tuple[str, set[str]]:
    """What `diff A` prints as JSON, and the packages that it has loaded."""
    code = (
        "import sys; from vggscope.cli.app import run\n"
        f"code = run(['diff', 'A', '-f', 'json', *{words!r}])\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr); sys.exit(code)"
    )
    environment = {**os.environ, "VGGSCOPE_CACHE": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout, set(done.stderr.split())


def test_an_entry_depends_on_every_file_that_shapes_a_network() -> None:
    """What the sources of libraries import, by way of whatever file, and what reads an entry."""
    root = Path(vggscope.__file__).parent
    graph = {path: [target for _, target in imports(root, path)] for path in files(root)}
    starts = [root / "sources" / "libraries.py", root / "graph_json.py"]
    shaping = {path.relative_to(root).as_posix() for start in starts for path in (start, *reached(graph, start))}
    assert {name if name in SHAPING else name.partition("/")[0] for name in shaping} == set(SHAPING)


def test_an_entry_is_stale_once_such_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vggscope"
    shutil.copytree(Path(vggscope.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "__file__", str(package / "sources" / "cache.py"))
    shaping = [path for path in files(package) if {room(package, path), f"{room(package, path)}.py"} & set(SHAPING)]
    assert len(shaping) > 40
    for path in shaping:
        before = cache._own_digest()
        assert before == cache._own_digest()
        os.utime(path, (1, 1))
        assert cache._own_digest() != before, path


@pytest.mark.slow
def test_a_second_diff_loads_no_torch_and_prints_the_same(folder: Path) -> None:
    uncached, loaded = diff_in_a_process(folder, "--no-cache")
    assert "torch" in loaded
    assert not folder.exists()
    first, loaded = diff_in_a_process(folder)
    assert "torch" in loaded
    second, loaded = diff_in_a_process(folder)
    assert not loaded & {"torch", "torchvision", "numpy"}
    assert uncached == first == second
    assert json.loads(second)["verdict"] == "identical"


def test_two_at_once_do_no_harm(folder: Path) -> None:
    load = Loads()
    found: list[Network] = []

    def work() -> None:
        for _ in range(20):
            found.append(remembered(WORD, OPTIONS, load))
            for path in folder.glob("*.json"):
                path.unlink(missing_ok=True)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert all(network == load.network for network in found)
    assert [path.suffix for path in folder.iterdir()] in ([], [".json"])  # and no temporary file


def test_no_cache_is_an_option(folder: Path, vggscope: Callable[..., Ran]) -> None:
    assert vggscope("diff", "A", "--no-cache", "--input", "3x64x64").code == 0
    assert not folder.exists()
    assert vggscope("diff", "A", "--input", "3x64x64").code == 0
    assert entry(folder).stat().st_size > 1000
