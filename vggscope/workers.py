"""Call a function on many values in several processes.

A worker is a new Python process that imports the function by its name. Unlike multiprocessing's, it does not run the
caller's script again, so a script needs no `if __name__ == "__main__"`. Unlike a fork, it inherits no threads of torch.
Values and results are pickled and travel through the pipes of its stdin and stdout.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, BinaryIO

from vggscope.errors import Stopped, VggscopeError, option, stop
from vggscope.record import record

GRACE = 5.0
"""Seconds that a worker has to end, once it is told to."""

MEMORY = 2 * 2**30
"""Bytes of the machine's memory for each worker. One takes 0.9 GB over 69 models of timm, and 2.0 GB over torchvision's
detection, optical flow, video and quantized models."""

_START = (
    "import os, pickle, sys; values = os.fdopen(os.dup(0), 'rb'); sys.path[:] = pickle.load(values);"
    " from vggscope.workers import serve; serve(values, {function!r})"
)


@record
class Died:
    """The result of a worker that ended while it worked: its exit code, the negative number of a signal."""

    code: int

    @property
    def reason(self) -> str:
        """Why, in words."""
        if self.code >= 0:
            return f"the process ended with exit code {self.code}"
        with suppress(ValueError):
            return f"the process was ended by {signal.Signals(-self.code).name}"
        return f"the process was ended by signal {-self.code}"


def available() -> int:
    """Return how many workers this machine runs at once: a core and MEMORY for each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        # The limit of a container: microseconds of processor time in each period.
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        cores = min(cores, max(int(quota) // int(period), 1))
    with suppress(OSError, ValueError, AttributeError):
        cores = min(cores, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MEMORY)
    return max(cores, 1)


@contextmanager
def results(function: str, values: Sequence[object], jobs: int) -> Iterator[Iterator[tuple[int, Any]]]:
    """A context with the index and the result of each value, in the order in which they are done, from `jobs` workers.

    `function` is `package.module:name`. It takes one value and raises nothing. A worker that ends while it works
    gives Died, and another one takes its place. All workers end with the context, which may take seconds.

    The iterator raises VggscopeError where no worker starts.

    >>> with results("math:sqrt", [16, 25, 36], jobs=2) as found:
    ...     sorted(found)
    [(0, 4.0), (1, 5.0), (2, 6.0)]
    """
    todo: SimpleQueue[tuple[int, object]] = SimpleQueue()
    for item in enumerate(values):
        todo.put(item)
    done: SimpleQueue[tuple[int, Any] | BaseException] = SimpleQueue()
    pool = _Workers(function)
    threads = [Thread(target=partial(_feed, pool, todo, done), daemon=True) for _ in range(min(jobs, len(values)))]
    try:
        for thread in threads:
            thread.start()
        yield (_next(done) for _ in values)
    finally:
        pool.close()
        for thread in threads:
            thread.join(GRACE)
        pool.kill()


def _next(done: SimpleQueue[tuple[int, Any] | BaseException]) -> tuple[int, Any]:
    """The next result. Waiting without a timeout would hold signals back on Windows."""
    while True:
        with suppress(Empty):
            item = done.get(timeout=0.5)
            if isinstance(item, BaseException):
                raise item
            return item


class _Workers:
    """The workers. After `close` none is started."""

    def __init__(self, function: str) -> None:
        self._code = _START.format(function=function)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = Lock()
        self._is_closed = False

    def start(self) -> subprocess.Popen[bytes] | None:
        """Start a worker; None if the pool is closed. Raises VggscopeError where it does not start."""
        # The workers are as many as the cores: each computes in one thread. A terminal's Ctrl-C is for us alone.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        with self._lock:
            if self._is_closed:
                return None
            try:
                process = subprocess.Popen(  # noqa: S603 - this Python, with our own code
                    [sys.executable, "-c", self._code],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise _does_not_start(str(error.strerror)) from None
            self._processes.append(process)
        with suppress(OSError):
            _send(process, sys.path)
        if _received(process) is None and not self._is_closed:
            raise _does_not_start(Died(_ended(process)).reason)
        return process

    def close(self) -> None:
        """Tell the workers to end."""
        with self._lock:
            self._is_closed = True
        for process in self._processes:
            process.terminate()

    def kill(self) -> None:
        """End the workers that have not ended."""
        for process in self._processes:
            process.kill()


def _does_not_start(why: str) -> VggscopeError:
    return VggscopeError(f"a process of {sys.executable} does not start: {why}", f"{option('jobs', 1)} needs none")


def _feed(pool: _Workers, todo: SimpleQueue[Any], done: SimpleQueue[Any]) -> None:
    """Keep one worker busy until nothing is to be done: the body of a thread."""
    process = None
    try:
        while True:
            index, value = todo.get_nowait()
            if process is None and (process := pool.start()) is None:
                return
            with suppress(BrokenPipeError):
                _send(process, value)
            answer = _received(process)
            if answer is None:
                answer, process = (Died(_ended(process)),), None
            done.put((index, answer[0]))
    except Empty:
        pass
    except BaseException as error:  # it is raised again by `results`
        done.put(error)
    finally:
        if process is not None:
            _ended(process)


def _send(process: subprocess.Popen[bytes], value: object) -> None:
    assert process.stdin is not None
    pickle.dump(value, process.stdin)
    process.stdin.flush()


def _received(process: subprocess.Popen[bytes]) -> tuple[Any] | None:
    """The answer of a worker; None if it has ended."""
    assert process.stdout is not None
    with suppress(EOFError, OSError, pickle.UnpicklingError):
        answer: tuple[Any] = pickle.load(process.stdout)  # noqa: S301 - of our own process
        return answer
    return None


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Close the pipes of a worker, which ends it, and return its exit code."""
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            assert pipe is not None
            pipe.close()
    return process.wait()


def serve(values: BinaryIO, name: str) -> None:
    """Answer each of the `values` by the result of the function `package.module:name`: the work of a worker."""
    # A user's code may read stdin, which is empty, and print, which goes to stderr.
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    gc.set_threshold(50_000)
    module, _, attribute = name.partition(":")
    function: Callable[[object], object] = getattr(import_module(module), attribute)
    # It raises an exception, so that temporary files are removed.
    signal.signal(signal.SIGTERM, stop)
    _answer(answers, "ready")
    # The signal may come just when the last value has: it is ignored before the context that expects it ends.
    with suppress(Stopped):
        with suppress(EOFError, BrokenPipeError):
            while True:
                value = pickle.load(values)  # noqa: S301 - of the process that started this one
                _answer(answers, function(value))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _answer(answers: BinaryIO, result: object) -> None:
    pickle.dump((result,), answers)
    answers.flush()
