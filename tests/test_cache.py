"""A Network as JSON, and the library models that are remembered with it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vggscope
from tests.house import files, imports, reached, room
from tests.strategies import columns
from vggscope import ops
from vggscope.analysis.compare import Compared, compared
from vggscope.cli.app import run
from vggscope.errors import naming_options
from vggscope.files import HOUR, remove_oldest
from vggscope.graph import INPUT, Network, Node, one_input
from vggscope.graph_json import FAMILIES, from_json, to_json
from vggscope.inputs import Inputs, InputSize
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.view import Slice
from vggscope.recorded_step import StepRequest
from vggscope.sources import cache, figures, installed, library_names
from vggscope.sources import resolve as resolving
from vggscope.sources.cache import recalled, remembered
from vggscope.sources.entry import packed, unpacked
from vggscope.sources.installed import COMPARING, SHAPING
from vggscope.sources.library_names import matching
from vggscope.sources.resolve import note_other_code, own_process, resolve
from vggscope.vgg.options import BuildOptions

OPTIONS = BuildOptions(input=(3, 64, 64), cache=False)
"""Options with which a test loads a model itself."""

STORED = replace(OPTIONS, cache=True)

PEAKS = (StepRequest(trains=False), StepRequest(trains=True))
"""The steps that a summary asks for."""
WORD = "torchvision:vgg11"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VGGSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Loads:
    """Counts how often the library is asked."""

    def __init__(self, word: str = WORD, options: BuildOptions = OPTIONS) -> None:
        self.count = 0
        self.network = resolve(word, options)

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


def differences(ours: object, theirs: object, place: str = "network") -> list[str]:
    """The places where two records differ in any field, those that == leaves out included."""
    if type(ours) is not type(theirs):
        return [f"{place}: {type(ours)} and {type(theirs)}"]
    if is_dataclass(ours):
        pairs = [(getattr(ours, f.name), getattr(theirs, f.name), f"{place}.{f.name}") for f in fields(ours)]
    elif isinstance(ours, tuple):
        assert isinstance(theirs, tuple)
        if len(ours) != len(theirs):
            return [f"{place}: {len(ours)} and {len(theirs)} values"]
        pairs = [(one, other, f"{place}[{number}]") for number, (one, other) in enumerate(zip(ours, theirs))]
    else:
        return [] if repr(ours) == repr(theirs) or ours == theirs else [f"{place}: {ours!r} and {theirs!r}"]
    return [text for one, other, where in pairs for text in differences(one, other, where)]


@given(columns())
def test_an_entry_reads_back_as_it_was(column: str) -> None:
    network = resolve(column)
    assert differences(unpacked(packed(network)), network) == []


@pytest.mark.parametrize(
    ("word", "options", "has"),
    [
        ("torchvision:densenet121", BuildOptions(), "answers_any"),
        ("torchvision:vit_b_32", BuildOptions(steps=PEAKS), "steps"),
        ("torchvision:googlenet", BuildOptions(backward=True), "in_training"),
        ("torchvision:googlenet", BuildOptions(steps=PEAKS, num_classes=7), "training_step"),
        ("torchvision:r3d_18", BuildOptions(steps=PEAKS), "answers_any"),
        ("torchvision:lraspp_mobilenet_v3_large", BuildOptions(steps=PEAKS, input=(3, 96, 96)), "follows_rules"),
        ("torchvision:ssdlite320_mobilenet_v3_large", BuildOptions(), "reads_values"),
        ("timm:resnet18", BuildOptions(steps=PEAKS), "answers_any"),
        ("timm:vit_tiny_patch16_224", BuildOptions(steps=PEAKS), "registered"),
        ("timm:levit_128s", BuildOptions(backward=True), "nodes"),
    ],
)
def test_the_entry_of_a_library_model_reads_back_as_it_was(word: str, options: BuildOptions, has: str) -> None:
    pytest.importorskip(word.partition(":")[0])
    network = resolve(word, replace(options, cache=False))
    assert getattr(network, has)
    assert differences(unpacked(packed(network)), network) == []


def test_a_broken_forward_is_not_packed() -> None:
    with pytest.raises(ValueError, match="fails"):
        packed(Network("x", one_input((1, 3, 8, 8)), (), failure="no"))


def repacked(change: Callable[[dict[str, object]], object]) -> bytes:
    values = json.loads(
        zlib.decompress(packed(resolve("torchvision:vit_b_32", replace(OPTIONS, input=(3, 224, 224), steps=PEAKS))))
    )
    change(values)
    return zlib.compress(json.dumps(values).encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(more=1),
        lambda values: values.pop("steps"),
        lambda values: values.update(answers_any=1),
        lambda values: values.update(network=GOOD["nodes"][0]),
        lambda values: values.update(network={**GOOD, "failure": "no"}),
        lambda values: values.update(in_training=GOOD),
        lambda values: values.update(steps=[1]),
        lambda values: values.update(positions=[]),
        lambda values: values.update(positions={"no layer": [[], []]}),
        lambda values: values["positions"].update(conv_proj=[[["net.py", 1, 0, 1]], []]),
        lambda values: values["positions"].update(conv_proj=[[["net.py", 1, 0, 1, True]], []]),
        lambda values: values["positions"].update(conv_proj=[[]]),
        lambda values: values["steps"][0].update(samples="1"),
        lambda values: values["steps"][0].update(trained=[1]),
        lambda values: values["steps"][0]["request"].append(1),
        lambda values: values["steps"][0]["events"].append([]),
        lambda values: values["steps"][0]["events"].append(["forward", "", 1, "", 0, 0, 0]),
        lambda values: values["network"]["nodes"][0]["op"].update({"class": "os.system"}),
        lambda values: values["network"]["nodes"][0]["op"].update(in_channels=4),
        lambda values: values["network"]["nodes"][0].update(built_at=[["/etc/passwd", 1]]),
    ],
)
def test_any_other_values_are_no_network(change: Callable[[dict[str, object]], object]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, vggscope.ShapeError)):
        unpacked(repacked(change))


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    from vggscope.sources import entry

    monkeypatch.setattr(entry, "LARGEST_TEXT", 2**16)
    with pytest.raises(ValueError, match="too large"):
        unpacked(zlib.compress(b" " * 2**20))


def test_the_second_call_does_not_import_the_library(folder: Path) -> None:
    load = Loads()
    first, second = remembered(WORD, STORED, load), remembered(WORD, STORED, load)
    assert load.count == 1
    assert differences(first, load.network) == differences(second, load.network) == []
    assert re.fullmatch(r"torchvision-vgg11-[0-9a-f]{32}\.network", entry(folder).name)


def test_each_option_that_shapes_the_network_is_remembered_for_itself(folder: Path) -> None:
    load = Loads()
    sizes = Inputs((InputSize((3, 64, 64)), InputSize((3, 64, 64))))
    typed = Inputs((InputSize((3, 64, 64), dtype="float16"), InputSize((3, 64, 64), dtype="int64")))
    variants = [
        STORED,
        BuildOptions(input=(3, 32, 32)),
        BuildOptions(num_classes=10),
        BuildOptions(head="dense"),
        BuildOptions(batch_norm=True),
        BuildOptions(soft_max=True),
        BuildOptions(inputs=sizes),
        BuildOptions(inputs=replace(sizes, batch_axis=1)),
        BuildOptions(inputs=typed),
    ]
    assert len(set(map(repr, variants))) == len(variants)
    for options in variants:
        remembered(WORD, options, load)
    assert load.count == len(list(folder.iterdir())) == len(variants)


REQUESTS = [{"steps": PEAKS}, {"batch": 7}, {"backward": True}]


def test_a_network_for_any_request_answers_each(folder: Path) -> None:
    load = Loads()
    assert load.network.answers_any
    for request in ({}, *REQUESTS):
        remembered(WORD, replace(STORED, **request), load)
    assert load.count == len(list(folder.iterdir())) == 1


def test_another_network_answers_its_own_request(folder: Path) -> None:
    load = Loads()
    load.network = replace(load.network, answers_any=False)
    for request in ({}, *REQUESTS, {}, *REQUESTS):
        remembered(WORD, replace(STORED, **request), load)
    assert load.count == len(list(folder.iterdir())) == 4


@pytest.mark.parametrize(
    "word", ["torchvision:vgg11_bn", "torchvision:mobilenet_v2", "timm:resnet18", "torchvision:shufflenet_v2_x0_5"]
)
def test_what_answers_any_request_is_the_same_for_each(word: str) -> None:
    pytest.importorskip(word.partition(":")[0])
    networks = [resolve(word, replace(OPTIONS, **request)) for request in ({}, *REQUESTS)]
    if any(network.answers_any for network in networks):
        assert [differences(network, networks[0]) for network in networks] == [[]] * len(networks)
    assert networks[0].answers_any == (word != "torchvision:shufflenet_v2_x0_5")


@pytest.mark.parametrize("word", ["D", "torchvision:../x", "torchvision:a/b", "timm:hf-hub:x", "net.py:Net", "timm:"])
def test_other_words_are_not_remembered(folder: Path, word: str) -> None:
    load = Loads()
    remembered(word, STORED, load)
    remembered(word, STORED, load)
    assert load.count == 2
    assert not folder.exists()


def test_given_data_are_not_remembered(folder: Path) -> None:
    load = Loads()
    remembered(WORD, BuildOptions(inputs=Inputs(data=[1.0])), load)
    remembered(WORD, OPTIONS, load)  # without the cache
    assert load.count == 2
    assert not folder.exists()


def flip_a_bit(data: bytes) -> bytes:
    return data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]


def other_options(data: bytes) -> bytes:
    """Another network with a right digest: caught because it is of other options."""
    head, _, rest = data.partition(b"\n")
    return json.dumps({**json.loads(head), "options": "BuildOptions()"}).encode() + b"\n" + rest


def another_body(data: bytes) -> bytes:
    """A right digest of what is no Network."""
    body = zlib.compress(b"{}")
    return b"\n".join((data.partition(b"\n")[0], installed.digest(body).encode(), body))


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
        flip_a_bit,
        other_options,
        another_body,
    ],
)
def test_a_damaged_entry_is_written_anew(folder: Path, spoil: Callable[[bytes], bytes]) -> None:
    load = Loads()
    remembered(WORD, STORED, load)
    good = entry(folder).read_bytes()
    bad = spoil(good)
    assert bad != good
    entry(folder).write_bytes(bad)
    assert remembered(WORD, STORED, load) == load.network
    assert load.count == 2
    assert entry(folder).read_bytes() == good


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no user numbers")
def test_an_entry_of_another_user_is_written_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Loads()
    remembered(WORD, STORED, load)
    monkeypatch.setattr(os, "geteuid", lambda: -1)
    remembered(WORD, STORED, load)
    assert load.count == 2


def test_a_link_in_the_place_of_an_entry_is_replaced_and_not_followed(folder: Path, tmp_path: Path) -> None:
    load = Loads()
    remembered(WORD, STORED, load)
    target, place = tmp_path / "mine.txt", entry(folder)
    place.replace(target)
    before = target.read_bytes()
    place.symlink_to(target)
    target.write_bytes(b"mine")
    remembered(WORD, STORED, load)
    assert load.count == 2
    assert target.read_bytes() == b"mine"
    assert not place.is_symlink()
    assert place.read_bytes() == before


def test_a_pipe_in_the_place_of_an_entry_is_not_waited_for(folder: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    load = Loads()
    remembered(WORD, STORED, load)
    place = entry(folder)
    place.unlink()
    os.mkfifo(place)
    assert remembered(WORD, STORED, load) == load.network
    assert remembered(WORD, STORED, load) == load.network
    assert load.count == 2  # the second has put a file in its place


@pytest.mark.parametrize("place", ["/dev/null/x", "/proc/vggscope"])
def test_a_folder_that_cannot_be_made_is_no_cache(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("VGGSCOPE_CACHE", place)
    load = Loads()
    assert remembered(WORD, STORED, load) == load.network
    assert remembered(WORD, STORED, load) == load.network
    assert load.count == 2


@pytest.mark.parametrize("place", ["/dev/null/x", "a file"])
def test_verbose_says_once_why_nothing_is_remembered(
    vggscope, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    if place == "a file":
        place = str(tmp_path / place)
        Path(place).touch()
    monkeypatch.setenv("VGGSCOPE_CACHE", place)
    monkeypatch.setattr(cache, "_unusable", set())
    words = ("compare", "torchvision:alexnet", "torchvision:vgg1[16]", "--columns", "params")
    quiet = vggscope(*words)
    assert (quiet.code, quiet.err) == (0, "")
    monkeypatch.setattr(cache, "_unusable", set())
    told = vggscope(*words, "-v")
    assert (told.code, told.out) == (0, quiet.out)
    (line,) = [line for line in told.err.splitlines() if "remembered" in line]
    assert line.startswith(f"vggscope: nothing is remembered in {place}: ")
    assert line.endswith((os.strerror(errno.ENOTDIR), "it is a file"))


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VGGSCOPE_CACHE")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: "~/.cache/vggscope")
    assert cache.folder() is None
    load = Loads()
    assert remembered(WORD, STORED, load) == load.network


def test_a_broken_forward_is_not_remembered(folder: Path) -> None:
    load = Loads()
    load.network = Network("x", one_input((1, 3, 8, 8)), (), failure="no")
    remembered(WORD, STORED, load)
    assert not folder.exists()


def test_layers_are_recalled_whatever_the_options(folder: Path) -> None:
    assert recalled(WORD) is None
    load = Loads()
    remembered(WORD, STORED, load)
    assert recalled(WORD) == load.network
    assert recalled("torchvision:vgg1") is recalled("timm:vgg11") is recalled("D") is None


# What an entry depends on.


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installed package `made_up`."""
    site = tmp_path / "site-packages"
    folder, listed = site / "made_up", site / "made_up-1.2.dist-info"
    (folder / "models").mkdir(parents=True)
    listed.mkdir()
    for path in (folder / "__init__.py", folder / "models" / "net.py", listed / "RECORD"):
        path.write_text("made_up/__init__.py,sha256=x,1\n" if path.name == "RECORD" else "")
        os.utime(path, (1000, 1000))
    monkeypatch.syspath_prepend(str(site))
    return folder


def identity() -> str | None:
    return installed.identity.__wrapped__("made_up")


def test_a_package_is_known_by_its_version_and_the_list_of_its_files(package: Path) -> None:
    first = identity()
    assert first is not None
    assert first.startswith("1.2 ")
    listed = package.parent / "made_up-1.2.dist-info"
    listed.rename(package.parent / "made_up-1.3.dist-info")
    second = identity()
    assert second is not None
    assert second == first.replace("1.2 ", "1.3 ")
    record = package.parent / "made_up-1.3.dist-info" / "RECORD"
    record.write_text(record.read_text() + "made_up/new.py,sha256=y,2\n")
    assert identity() not in (None, first, second)


def test_a_file_that_is_changed_after_the_installation_makes_another_package(package: Path) -> None:
    seen = {identity()}
    for moment in (2000, 3000):
        os.utime(package / "models" / "net.py", (moment, moment))
        seen.add(identity())
    (package / "models" / "net.py").write_text("# longer")
    os.utime(package / "models" / "net.py", (3000, 3000))
    assert len({*seen, identity()}) == 4


def test_a_package_under_development_is_not_known(package: Path) -> None:
    record = package.parent / "made_up-1.2.dist-info" / "RECORD"
    record.write_text("__editable___made_up_finder.py,sha256=x,1\n")
    assert identity() is None
    record.unlink()
    assert identity() is None
    record.parent.rename(package.parent.parent / "made_up-1.2.dist-info")
    assert identity() is None


@pytest.mark.parametrize("name", ["torch", "torchvision"])
@pytest.mark.parametrize("known", ["99 x", None])
def test_another_version_asks_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, known: str | None
) -> None:
    load = Loads()
    remembered(WORD, STORED, load)
    own = installed.identity
    monkeypatch.setattr(installed, "identity", lambda package: known if package == name else own(package))
    remembered(WORD, STORED, load)
    remembered(WORD, STORED, load)
    assert load.count == (2 if known else 3)


@pytest.mark.parametrize(("word", "count"), [(WORD, 1), ("timm:resnet10t", 2)])
def test_another_timm_changes_its_own_models_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, word: str, count: int
) -> None:
    load = Loads(word)
    remembered(word, STORED, load)
    own = installed.identity
    monkeypatch.setattr(installed, "identity", lambda package: "99 x" if package == "timm" else own(package))
    remembered(word, STORED, load)
    assert load.count == count


def test_timm_is_not_remembered_with_a_torchvision_under_development(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, known = Loads("timm:resnet10t"), installed.identity
    monkeypatch.setattr(installed, "identity", lambda package: None if package == "torchvision" else known(package))
    remembered("timm:resnet10t", STORED, load)
    remembered("timm:resnet10t", STORED, load)
    assert load.count == 2
    assert not folder.exists()


@pytest.mark.parametrize("name", ["TIMM_FUSED_ATTN", "TORCH_X", "PYTORCH_X", "CUDA_VISIBLE_DEVICES"])
def test_another_environment_asks_again(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    load = Loads()
    remembered(WORD, STORED, load)
    monkeypatch.setenv(name, "7")
    remembered(WORD, STORED, load)
    assert load.count == 2


def test_python_and_the_command_line_have_entries_of_their_own(folder: Path) -> None:
    """A warning names the argument or the option that gives another input."""
    load = Loads()
    remembered(WORD, STORED, load)
    with naming_options():
        remembered(WORD, STORED, load)
    assert load.count == 2


def test_an_entry_depends_on_every_file_that_shapes_a_network() -> None:
    """What the sources of libraries import, by way of whatever file, and what reads an entry."""
    root = Path(vggscope.__file__).parent
    graph = {path: [target for _, target in imports(root, path)] for path in files(root)}
    starts = [root / "sources" / "libraries.py", root / "sources" / "entry.py"]
    shaping = {path.relative_to(root).as_posix() for start in starts for path in (start, *reached(graph, start))}
    assert {name if name in SHAPING else name.partition("/")[0] for name in shaping} == set(SHAPING)


def test_figures_depend_on_every_file_that_shapes_a_network_or_analyses_it() -> None:
    root = Path(vggscope.__file__).parent
    graph = {path: [target for _, target in imports(root, path)] for path in files(root)}
    start = root / "sources" / "figures.py"
    analysing = {path.relative_to(root).as_posix() for path in reached(graph, start)}
    rooms = {name if name in (*SHAPING, *COMPARING) else name.partition("/")[0] for name in analysing}
    assert rooms - set(SHAPING) == set(COMPARING)


@pytest.mark.parametrize("parts", [SHAPING, COMPARING])
def test_an_entry_is_stale_once_such_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...]
) -> None:
    package = tmp_path / "vggscope"
    shutil.copytree(Path(vggscope.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    own_identity = installed.own_identity.__wrapped__
    before = own_identity(parts)
    monkeypatch.setattr(installed, "__file__", str(package / "sources" / "installed.py"))
    assert own_identity(parts) == before  # whatever its times are, as in a fresh container
    shaping = [path for path in files(package) if {room(package, path), f"{room(package, path)}.py"} & set(parts)]
    assert len(shaping) > 20
    for path in shaping:
        before = own_identity(parts)
        path.write_bytes(path.read_bytes() + b"\n")
        assert own_identity(parts) != before, path


# Figures of a comparison.

FIGURED = [
    ("torchvision:vgg11", {}),
    ("torchvision:googlenet", {"batch": 4, "dtype": "float16"}),
    ("torchvision:ssdlite320_mobilenet_v3_large", {}),
    ("torchvision:r3d_18", {"batch": 2}),
    ("timm:vit_tiny_patch16_224", {"num_classes": 7}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("word", "options"), FIGURED)
def test_figures_read_back_as_they_were(word: str, options: dict[str, object]) -> None:
    pytest.importorskip(word.partition(":")[0])
    (row,) = vggscope.compare(word, cache=False, **options).models
    back = figures.unpacked(figures.packed(row))
    assert differences(back, row) == []


@given(columns())
def test_the_figures_of_any_column_read_back_as_they_were(column: str) -> None:
    row = compared(resolve(column))
    assert differences(figures.unpacked(figures.packed(row)), row) == []


@pytest.fixture
def analysed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models whose figures are computed while every process is fresh."""
    done: list[str] = []

    def noted(network: Network, *settings: object) -> Compared:
        done.append(network.name)
        return compared(network, *settings)

    monkeypatch.setattr(resolving, "has_unchanged_libraries", lambda: True)
    monkeypatch.setattr("vggscope.analysis.compare.compared", noted)
    return done


def test_the_second_comparison_analyses_nothing(analysed: list[str], folder: Path) -> None:
    first, second = (vggscope.compare("A", WORD, "torchvision:alexnet") for _ in range(2))
    assert first == second
    assert first.to_json() == second.to_json()
    assert analysed == ["A", WORD, "torchvision:alexnet", "A"]
    assert first == vggscope.compare("A", WORD, "torchvision:alexnet", cache=False)
    assert analysed[4:] == ["A", WORD, "torchvision:alexnet"]


def test_remembered_figures_need_no_process(analysed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = [WORD, "torchvision:alexnet"]
    first = vggscope.compare(*words)
    monkeypatch.setattr("vggscope.workers.results", lambda *_: pytest.fail("a process is started"))
    assert vggscope.compare(*words, jobs=2) == first
    assert analysed == words


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 2},
        {"dtype": "float16"},
        {"input_size": (3, 96, 96)},
        {"input_size": (3, 96, 96), "batch": 3},
        {"num_classes": 10},
    ],
)
def test_other_options_have_other_figures(analysed: list[str], options: dict[str, Any]) -> None:
    vggscope.compare("torchvision:alexnet")
    first, second = (vggscope.compare("torchvision:alexnet", **options) for _ in range(2))
    assert len(analysed) == 2
    assert first == second == vggscope.compare("torchvision:alexnet", **options, cache=False)


def test_figures_of_other_code_are_computed_anew(analysed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    vggscope.compare("torchvision:alexnet")
    own = installed.own_identity
    monkeypatch.setattr(installed, "own_identity", lambda parts=SHAPING: "x" if parts == COMPARING else own(parts))
    vggscope.compare("torchvision:alexnet")
    assert len(analysed) == 2


def test_a_forward_that_fails_has_no_figures_to_remember(analysed: list[str], folder: Path) -> None:
    for _ in range(2):
        (row,) = vggscope.compare("torchvision:alexnet", input_size=(3, 8, 8)).models
        assert row.failure is not None
    assert not folder.exists()
    assert len(analysed) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(more=1),
        lambda values: values.pop("params"),
        lambda values: values.update(params="1"),
        lambda values: values.update(inputs=[{"name": "input"}]),
        lambda values: values["inputs"][0].update(shape="1"),
        lambda values: values.update(warnings=[1]),
        lambda values: values["last_convolution"].update(receptive_field={"size": [1.5]}),
        lambda values: values.update(last_convolution=[]),
    ],
)
def test_any_other_values_are_no_figures(change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(figures.packed(compared(resolve("A"))))
    change(values)
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        figures.unpacked(json.dumps(values).encode())


def test_damaged_figures_are_computed_anew(analysed: list[str], folder: Path) -> None:
    first = vggscope.compare("torchvision:alexnet")
    (path,) = folder.glob("*.figures")
    path.write_bytes(path.read_bytes().replace(b"61100840", b"61100841"))
    assert vggscope.compare("torchvision:alexnet") == first
    assert len(analysed) == 2


# Names of a library's models.


def test_the_second_pattern_reads_no_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = "torchvision:vgg1[13]"
    first, uncached = matching(pattern), matching(pattern, cache=False)
    monkeypatch.setattr(library_names, "_registered", lambda _: pytest.fail("the source is read"))
    assert first == matching(pattern) == uncached == ("torchvision:vgg11", "torchvision:vgg13")
    assert entry(folder).suffix == ".names"


def test_another_version_has_other_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matching("torchvision:vgg*")
    monkeypatch.setattr(library_names, "_registered", lambda _: ("vgg99",))
    for known in ("99 x", None):
        monkeypatch.setattr(installed, "identity", lambda _, known=known: known)
        assert matching("torchvision:vgg*") == ("torchvision:vgg99",)
    assert len(list(folder.iterdir())) == 2


# In which process it serves.


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which nothing has run yet."""
    for name in ("is_ours", "ran_other_code"):
        monkeypatch.setitem(resolving._process, name, False)
    monkeypatch.setattr(resolving, "sys", type("sys", (), {"modules": {}}))


def import_torch() -> None:
    resolving.sys.modules["torch"] = resolving


@pytest.mark.usefixtures("fresh")
def test_libraries_are_unchanged_until_other_code_runs_beside_them() -> None:
    trusted = resolving.has_unchanged_libraries
    assert trusted()
    with own_process():
        import_torch()
        assert trusted()
        with own_process():
            assert trusted()
        note_other_code()
        assert not trusted()
    assert not trusted()


@pytest.mark.usefixtures("fresh")
def test_what_is_imported_before_may_be_changed() -> None:
    import_torch()
    with own_process():
        assert not resolving.has_unchanged_libraries()


def test_a_changed_library_is_not_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "has_unchanged_libraries", lambda: True)
    resolve(WORD, STORED)
    assert entry(folder)
    monkeypatch.setattr(resolving, "has_unchanged_libraries", lambda: False)
    monkeypatch.setattr(cache, "remembered", lambda *_: pytest.fail("it is read"))
    resolve(WORD, STORED)


# The folder.


def test_the_entries_that_were_used_longest_ago_are_removed(tmp_path: Path) -> None:
    names = re.compile(r"\d\.network")
    for number in range(10):
        (tmp_path / f"{number}.network").write_bytes(b"x" * 10)
        os.utime(tmp_path / f"{number}.network", (1000 + number, 1000 + number))
    (tmp_path / "notes.txt").write_bytes(b"x" * 1000)
    os.utime(tmp_path / "notes.txt", (1, 1))
    remove_oldest(str(tmp_path), names, 100)
    assert len(list(tmp_path.iterdir())) == 11
    remove_oldest(str(tmp_path), names, 70)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*(f"{n}.network" for n in range(4, 10)), "notes.txt"]


def test_what_a_killed_process_left_is_removed_after_an_hour(tmp_path: Path) -> None:
    old, new = (tmp_path / f".vggscope-{letter * 16}.tmp" for letter in "ab")
    other = tmp_path / ".other.tmp"
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (time.time() - HOUR - 1,) * 2)
    remove_oldest(str(tmp_path), re.compile("x"), 10)
    assert set(tmp_path.iterdir()) == {new, other}


def test_a_used_entry_is_the_newest_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Loads()
    remembered(WORD, STORED, load)
    first = entry(folder)
    os.utime(first, (1000, 1000))
    remembered(WORD, STORED, load)
    assert first.stat().st_mtime > time.time() - HOUR
    monkeypatch.setattr(cache, "LARGEST_FOLDER", first.stat().st_size * 3 // 2)
    remembered(WORD, BuildOptions(input=(3, 32, 32)), load)
    assert entry(folder) != first


def test_two_at_once_do_no_harm(folder: Path) -> None:
    load = Loads()
    found: list[Network] = []

    def work() -> None:
        for _ in range(20):
            found.append(remembered(WORD, STORED, load))
            for path in folder.glob("*.network"):
                path.unlink(missing_ok=True)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert all(network == load.network for network in found)
    assert [path.suffix for path in folder.iterdir()] in ([], [".network"])  # and no temporary file


WRITER = """
import sys
from vggscope.sources import cache
from vggscope.sources.resolve import resolve
from vggscope.vgg.options import BuildOptions

cache.LARGEST_FOLDER = 20_000
for number in range(int(sys.argv[1]), int(sys.argv[1]) + 8):
    options = BuildOptions(num_classes=number % 12 + 1)
    network = resolve("A", options)
    assert cache.remembered("torchvision:vgg11", options, lambda: network) == network
"""


@pytest.mark.slow
def test_fifty_processes_at_once_do_no_harm(folder: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(n)], stderr=subprocess.PIPE) for n in range(50)]
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [(b"", 0)] * 50
    assert {path.suffix for path in folder.iterdir()} == {".network"}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 20_000
    for path in folder.iterdir():
        unpacked(path.read_bytes().split(b"\n", 2)[2])


# Whole commands.

PROGRAM = """
import io, json, sys
from contextlib import redirect_stdout
from vggscope.cli.app import run
from vggscope.sources.resolve import own_process

folder, commands, every = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
with own_process():
    for number, words in commands.items():
        words = [word.format(folder=f"{folder}/{number}") for word in words]
        with open(f"{folder}/{number}.out", "w") as file, redirect_stdout(file):
            print(run([*words, *every]))
print(*{name.partition(".")[0] for name in sys.modules})
"""


def commands_in_a_process(
    folder: Path, commands: dict[int, list[str]], *every: str
) -> tuple[dict[str, bytes], set[str]]:
    """What numbered commands print and write, all with the same last options, and which packages they loaded."""
    folder.mkdir()
    words = [sys.executable, "-c", PROGRAM, str(folder), json.dumps(commands), *every]
    # In a new terminal no library has set a variable yet.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCH")}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    return {path.name: path.read_bytes() for path in folder.iterdir()}, set(done.stdout.split())


def commands_here(folder: Path, commands: dict[int, list[str]], *every: str) -> dict[str, bytes]:
    """What numbered commands print and write in this process."""
    folder.mkdir()
    for number, words in commands.items():
        own = [word.format(folder=f"{folder}/{number}") for word in words]
        with (folder / f"{number}.out").open("w", encoding="utf-8") as file, redirect_stdout(file):
            print(run([*own, *every]))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def on_each_command(word: str, *options: str) -> list[list[str]]:
    """Each command with a model, in several formats."""
    written = [("summary", form) for form in ("table", "json", "csv", "markdown", "html")]
    written += [(name, form) for name in ("memory", "rf", "compare") for form in ("table", "json")]
    commands = [[name, word, "--format", form] for name, form in written]
    commands += [
        ["summary", word, "--backward", "--format", "json"],
        ["summary", word, "--batch", "3", "--count", "all"],
    ]
    commands += [["memory", word, "--batch", "2", "--gpu", "24GiB"], ["memory", word, "--dtype", "amp"]]
    commands += [["diagram", word, "-o", "{folder}.svg"], ["diagram", word, "--style", "layers", "-o", "{folder}.dot"]]
    commands += [["lock", word, "-o", "{folder}.json"], ["report", word, "-o", "{folder}.html"]]
    commands += [["diff", word, "--ref", word, "--format", "json"]]
    return [[*command, *options] for command in commands]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "word", "options"),
    [
        (0, "torchvision:squeezenet1_1", ()),
        (1, "torchvision:resnet18", ("--input", "3x64x96", "--num-classes", "10")),
        (2, "torchvision:googlenet", ("--input", "3x96x96")),
        (3, "torchvision:lraspp_mobilenet_v3_large", ("--input", "3x64x64")),
        (4, "torchvision:vit_b_32", ("--num-classes", "5")),
        (5, "timm:resnet10t", ("--input", "x=3x64x64:float32")),
        (6, "timm:vit_tiny_patch16_224", ()),
    ],
)
def test_second_commands_load_no_torch_and_write_the_same(
    folder: Path, tmp_path: Path, place: int, word: str, options: tuple[str, ...]
) -> None:
    pytest.importorskip(word.partition(":")[0])
    # Half of the commands for a model, the others for the next. Without the cache each traces the model: a sixth.
    commands = {n: words for n, words in enumerate(on_each_command(word, *options)) if n % 2 == place % 2}
    without = {number: words for number, words in commands.items() if number % 3 == place % 3}
    uncached = commands_here(tmp_path / "uncached", without, "--no-cache")
    assert not folder.exists()
    first, loaded = commands_in_a_process(tmp_path / "first", commands)
    assert "torch" in loaded
    second, loaded = commands_in_a_process(tmp_path / "second", commands)
    assert not loaded & {"torch", "torchvision", "timm", "numpy"}
    assert first == second
    assert uncached.items() <= first.items()
    assert all(text.startswith((b"0", b"{", b"<", b"digraph")) or text.endswith(b"\n0\n") for text in second.values())


def entries(folder: Path) -> list[str]:
    """The kinds of entries of models: the names of all models depend on a library's files alone."""
    return sorted(path.suffix for path in folder.iterdir() if path.suffix != ".names") if folder.exists() else []


@pytest.mark.slow
def test_a_library_that_the_users_code_may_have_changed_is_not_remembered(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\ntorch.set_default_dtype(torch.float64)\ndef make():\n    return torch.nn.Conv2d(3, 8, 3)\n"
    )
    models = [f"{tmp_path}/net.py:make", "torchvision:squeezenet1_1"]
    small = ["--input", "3x64x64", "--format", "json"]
    done, _ = commands_in_a_process(tmp_path / "after", {0: ["compare", *models, *small]})
    assert entries(folder) == []
    assert json.loads(done["0.out"].rpartition(b"0")[0])["models"][1]["dtype"] == "float64"
    commands_in_a_process(tmp_path / "before", {0: ["compare", *models[::-1], *small]})
    assert entries(folder) == [".figures", ".network"]


@pytest.mark.slow
def test_in_python_a_library_that_is_imported_is_not_remembered(folder: Path) -> None:
    call = "import vggscope; vggscope.summary('torchvision:squeezenet1_1'{})"
    for code, count in (
        ("import torch; " + call.format(""), 0),
        (call.format(", cache=False"), 0),
        (call.format(""), 1),
        # Two Networks, and the figures of each.
        ("import vggscope; vggscope.compare('torchvision:alexnet', 'torchvision:vgg11')", 5),
    ):
        subprocess.run([sys.executable, "-c", code], check=True)
        assert len(entries(folder)) == count


@pytest.mark.slow
def test_each_of_several_processes_remembers_all_of_its_models(folder: Path) -> None:
    words = [f"torchvision:{name}" for name in ("alexnet", "squeezenet1_0", "squeezenet1_1", "vgg11", "resnet18")]
    code = f"import vggscope; print(vggscope.compare(*{words}, jobs=2).to_json())"
    first, second = (subprocess.check_output([sys.executable, "-c", code]) for _ in range(2))
    assert first == second
    assert len(list(folder.glob("*.network"))) == len(list(folder.glob("*.figures"))) == len(words)


def test_without_the_cache_a_models_name_alone_writes_nothing(folder: Path, vggscope) -> None:
    for words in (("squeezenet1_1",), ("summary", "squeezenet1_1"), ("diff", "squeezenet1_1", "alexnet"), ("resnet",)):
        assert vggscope(*words, "--no-cache").code in (0, 1, 2)
        assert not folder.exists()
    import vggscope as package

    assert package.network("squeezenet1_1", cache=False).name
    assert not folder.exists()
