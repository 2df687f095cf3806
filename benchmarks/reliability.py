"""Print the tables of docs/reliability.md: inputs tried, refused and crashed, the slowest, and their memory.

    python benchmarks/reliability.py [EXAMPLES]

Each group of inputs, the tests' own, runs in a process of its own, whose growth in memory is measured. Prints Markdown.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

Told = tuple[str, float]
"""The outcome of an input (taken, refused, crashed) and its CPU seconds."""


def command(*words: str) -> Told:
    """A command line in this process."""
    from vggscope.cli.app import run

    out, err = io.StringIO(), io.StringIO()
    started = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(list(words))
    took = time.process_time() - started
    crashed = code not in (0, 1, 2) or "defect" in err.getvalue()
    return "crashed" if crashed else "refused" if code == 2 else "taken", took


def drawn(strategy: st.SearchStrategy[list[str]], count: int) -> Iterator[Told]:
    """Command lines as hypothesis draws them, with a fixed seed."""
    found: list[Told] = []

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def each(words: list[str]) -> None:
        found.append(command(*words))

    each()
    yield from found


def words(count: int) -> Iterator[Told]:
    from tests.test_fuzz import WORDS

    return drawn(WORDS.map(lambda word: ["summary", "--", word]), count)


def options(count: int) -> Iterator[Told]:
    from tests.test_fuzz import CHOICES, NUMBERS, OPTIONS, SIZES, TEXT

    def line(name: str) -> st.SearchStrategy[list[str]]:
        value = st.one_of(NUMBERS, SIZES, CHOICES, TEXT)
        ours = ["conv"] if name == "explain" else ["A"]
        ours += ["-o", "/dev/null/x.svg"] if name == "diagram" else []
        given_ = st.lists(st.builds("{}={}".format, st.sampled_from(OPTIONS[name]), value), min_size=1, max_size=3)
        return given_.map(lambda found: [name, *ours, *(["--ref", "paper"] if name == "diff" else []), *found])

    return drawn(st.sampled_from(sorted(OPTIONS)).flatmap(line), count)


def checkpoints(count: int) -> Iterator[Told]:
    """A file of each format cut short at each tenth, and with bytes exchanged at random."""
    import torch
    from safetensors.torch import save_file

    state = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Linear(8, 10)).state_dict()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("zip.pth", "legacy.pth", "plain.safetensors")]
        torch.save(state, paths[0])
        torch.save(state, paths[1], _use_new_zipfile_serialization=False)
        save_file(state, paths[2])
        for path in paths:
            whole = Path(path).read_bytes()
            damaged = [whole[: len(whole) * tenth // 10] for tenth in range(11)]
            for _ in range(count // 3):
                data = bytearray(whole)
                for _ in range(draw.randint(1, 4)):
                    data[draw.randrange(len(data))] = draw.randrange(256)
                damaged.append(bytes(data))
            for data in damaged:
                Path(path).write_bytes(data)
                yield command("inspect", path)


def bombs(_: int) -> Iterator[Told]:
    """Files that claim or try to cost much, written by another process."""
    make = "from pathlib import Path; from tests.test_checkpoint import _costly; _costly(Path('.'))"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-c", make], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
        )
        for path in sorted(Path(folder).iterdir()):
            yield command("inspect", str(path))


def names(_: int) -> Iterator[Told]:
    """Each hostile name in each kind of result, in each text format."""
    from tests.test_hostile_names import CHECKS, MAKERS, NAMES, PLAIN
    from vggscope.render import formats

    with tempfile.TemporaryDirectory() as folder:
        for kind, make in MAKERS.items():
            for form in formats.FORMATS:
                plain = formats.write(make(PLAIN, Path(folder)), form.name)
                for name in NAMES.values():
                    started = time.process_time()
                    text = formats.write(make(name, Path(folder)), form.name)
                    took = time.process_time() - started
                    stored = name.encode("utf-8", "replace").decode() if kind == "inspect" else name
                    try:
                        CHECKS[form.name](text, plain, stored)
                        yield "taken", took
                    except AssertionError:
                        yield "crashed", took


GROUPS: dict[str, tuple[str, Callable[[int], Iterator[Told]]]] = {
    "words": ("MODEL words and notation", words),
    "options": ("values of options", options),
    "checkpoints": ("damaged checkpoints", checkpoints),
    "bombs": ("checkpoints that try to cost much", bombs),
    "names": ("hostile names, in every kind of result and text format", names),
}


def highest() -> int:
    """Peak memory of this process in KiB (Linux)."""
    return int(Path("/proc/self/status").read_text(encoding="ascii").split("VmHWM:")[1].split()[0])


def measured(group: str, count: int) -> dict[str, object]:
    """One group, in this process."""
    if group in ("words", "checkpoints", "names"):
        import safetensors.torch  # noqa: F401 - torch, and what writes the inputs, are no part of the cost
    command("summary", "A")
    before = highest()
    told = list(GROUPS[group][1](count))
    grown = highest() - before
    counts = Counter(what for what, _ in told)
    return {"tried": len(told), **counts, "slowest": max(took for _, took in told), "grown": grown}


LAYERS = (1_000, 10_000, 50_000)


def seconds(work: Callable[[Any], object], network: object) -> float:
    """CPU seconds of a piece of work, without Python's search for cycles, which starts at any time."""
    gc.collect()
    gc.disable()
    try:
        started = time.process_time()
        work(network)
        return time.process_time() - started
    finally:
        gc.enable()


def load() -> Iterator[str]:
    """CPU seconds of each piece of work for a residual network and a chain of so many layers."""
    from tests.test_load import NETWORKS, WORK

    for kind in ("chain", "residual"):
        for name, work in WORK.items():
            took = [seconds(work, NETWORKS[kind](count)) for count in LAYERS]
            yield f"| {kind} | {name} | {' | '.join(f'{value:.2f}' for value in took)} |"


def main(count: int) -> None:
    print("| inputs | tried | taken | refused | crashed | slowest, CPU s | memory, MiB more |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for group, (title, _) in GROUPS.items():
        done = subprocess.run([sys.executable, __file__, group, str(count)], capture_output=True, text=True, check=True)
        result = json.loads(done.stdout)
        figures = [f"{result.get(key, 0):,}" for key in ("tried", "taken", "refused", "crashed")]
        print(
            f"| {title} | {' | '.join(figures)} | {result['slowest']:.2f} | {result['grown'] / 1024:.0f} |", flush=True
        )
    print("\n| network | work |", " | ".join(f"{count:,} layers" for count in LAYERS), "|")
    print("|---|---|---:|---:|---:|")
    for line in load():
        print(line, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in GROUPS:
        print(json.dumps(measured(sys.argv[1], int(sys.argv[2]))))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 3000)
