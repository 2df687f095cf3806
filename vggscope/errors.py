"""The errors that vggscope raises::

    Exception
    └── VggscopeError
        ├── ModelError           unknown model, or a value that is not a model
        │   ├── NotationError    unreadable word in Table 1 notation
        │   └── CheckpointError  checkpoint that is unreadable, damaged, or contains code
        ├── ShapeError           layer that does not fit its input
        ├── OptionError          unknown or impossible value of an option
        ├── UnknownName          name that none of a result's rows has; also a KeyError
        ├── OutputError          file that cannot be written
        └── MissingTool          package or program that is not installed

The text of an error is one or two lines: the `problem` and the `remedy`. The command line prints it and exits with
`exit_code`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType


class VggscopeError(Exception):
    """The base class of all errors that vggscope raises on purpose.

    `problem` and `remedy` are its two lines; `remedy` may be empty.

    >>> import vggscope
    >>> try:
    ...     vggscope.summary("D", dtype="int8")
    ... except VggscopeError as error:
    ...     print(error.problem, error.remedy, sep="; ")
    unknown dtype 'int8'; dtype is one of float32, float64, float16, bfloat16
    """

    exit_code = 2

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return "\n".join(filter(None, (self.problem, self.remedy)))


class ModelError(VggscopeError):
    """The model is unknown, or the value is not a model.

    >>> import vggscope
    >>> vggscope.network("vgg17")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vggscope.errors.ModelError: unknown model 'vgg17', did you mean ...?
    ...
    """


class NotationError(ModelError):
    """A line in Table 1 notation has an unreadable word.

    >>> import vggscope
    >>> vggscope.network("conv3-64 maxpoool FC-10")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vggscope.errors.NotationError: ...maxpoool...
    """


class CheckpointError(ModelError):
    """The checkpoint does not exist, is damaged, contains code, or does not fit the model.

    >>> import vggscope
    >>> vggscope.inspect("nothing.pth")
    Traceback (most recent call last):
    vggscope.errors.CheckpointError: nothing.pth: there is no such file
    give the path of a .pth, .pt or .safetensors file
    """


class ShapeError(VggscopeError):
    """A layer does not fit its input.

    >>> import vggscope
    >>> vggscope.summary("D", input_size=(3, 16, 16))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vggscope.errors.ShapeError: ...
    the smallest square input that fits is input_size=(3, 32, 32)
    """


class OptionError(VggscopeError):
    """The value of an option is unknown or impossible, alone or for this model.

    >>> import vggscope
    >>> vggscope.memory("D", batch=0)
    Traceback (most recent call last):
    vggscope.errors.OptionError: a batch of 0 makes no sense
    batch is 1 to 1000000000
    """


class UnknownName(VggscopeError, KeyError):
    """None of a result's rows has this name, or several have it. It is a KeyError too.

    >>> import vggscope
    >>> vggscope.summary("D")["conv3_4"]
    Traceback (most recent call last):
    vggscope.errors.UnknownName: Summary has no layer 'conv3_4'
    near it: conv3_3, conv3_2, conv3_1
    """


class OutputError(VggscopeError):
    """The file of a result cannot be written.

    >>> import vggscope
    >>> vggscope.summary("D").save("nowhere/x.csv")
    Traceback (most recent call last):
    vggscope.errors.OutputError: cannot write nowhere/x.csv: the folder is not there
    name a file in a folder that you may write to
    """


class MissingTool(VggscopeError):
    """A package or a program is needed and not installed.

    >>> raise MissingTool("timm is not installed", "pip install timm")
    Traceback (most recent call last):
    vggscope.errors.MissingTool: timm is not installed
    pip install timm
    """


class Stopped(BaseException):
    """A signal that ends the program: no error. It is raised so that files are closed and temporary files removed.

    The command line sends its signals to `stop`. In a script, Ctrl-C is Python's KeyboardInterrupt.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_received: list[int] = []


def stop(number: int, frame: FrameType | None) -> None:
    """Raise Stopped: the handler of a signal."""
    _received.append(number)
    raise Stopped(number)


def received() -> int | None:
    """Return the first signal that `stop` received; None without one.

    A C extension may replace a Stopped that is raised in it by another error.
    """
    return _received[0] if _received else None


_command_lines: list[None] = []
"""An entry for each command line that runs: messages name its options."""


@contextmanager
def naming_options() -> Iterator[None]:
    """Within this context, messages name the options of the command line in place of Python's arguments."""
    _command_lines.append(None)
    try:
        yield
    finally:
        _command_lines.pop()


@contextmanager
def naming_arguments() -> Iterator[None]:
    """Within this context, messages name the arguments of Python's functions, also in a command that answers calls."""
    before = _command_lines[:]
    _command_lines.clear()
    try:
        yield
    finally:
        _command_lines[:] = before


def names_options() -> bool:
    """Return whether messages name the options of the command line."""
    return bool(_command_lines)


def described(error: Exception) -> tuple[str, str]:
    """The problem and the remedy of any error, which may be empty.

    >>> described(OptionError("a batch of 0 makes no sense"))
    ('a batch of 0 makes no sense', '')
    >>> described(ZeroDivisionError("division by zero"))
    ('ZeroDivisionError: division by zero', 'this is a defect of vggscope')
    """
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("vggscope"):
        package = error.name.partition(".")[0]
        return f"this needs {package}, which is not installed", f"pip install {package}"
    if isinstance(error, VggscopeError):
        return error.problem, error.remedy
    if isinstance(error, OSError) and error.filename is None:
        return f"cannot write: {error.strerror}", ""
    shows = f"; {option('debug')} shows where" if names_options() else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}", f"this is a defect of vggscope{shows}"


def check_count(name: str, value: int, said: str, most: int) -> None:
    """Raise OptionError unless the value of the option `name` is a whole number from 1 to `most`.

    `said` is the sentence that names the value.

    >>> check_count("batch", 2.5, "a batch of 2.5 makes no sense", 10**9)
    Traceback (most recent call last):
    vggscope.errors.OptionError: a batch of 2.5 makes no sense
    batch is 1 to 1000000000, a whole number
    """
    is_whole = hasattr(value, "__index__")
    if not (is_whole and 1 <= value <= most):
        raise OptionError(said, f"{option(name)} is 1 to {most}{'' if is_whole else ', a whole number'}")


def option(name: str, value: object = None) -> str:
    """How a message names an argument of Python's functions: as the option that it is on the command line there.

    `value` is one that the message advises.

    >>> option("batch_axis"), option("style", "table")
    ('batch_axis', "style='table'")
    >>> with naming_options():
    ...     option("batch_axis"), option("input_size"), option("style", "table"), option("foreach", False)
    ('--batch-axis', '--input', '--style table', '--no-foreach')
    """
    if not names_options():
        return name if value is None else f"{name}={value!r}"
    word = _OPTIONS.get(name, name).replace("_", "-")
    if value is None or isinstance(value, bool):
        return f"--no-{word}" if value is False else f"--{word}"
    return f"--{word} {','.join(map(str, value)) if isinstance(value, tuple) else value}"


_OPTIONS = {"input_size": "input", "card": "gpu", "list_all": "all"}
"""The options that have another name than the argument."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The suffix of a message on an unknown word: the known word that it begins or that is nearest, empty for none.

    >>> nearest("ligth", ["light", "dark"]), nearest("A100", ["A10", "A100-40GB"]), nearest("blue", ["light", "dark"])
    (', did you mean light?', ', did you mean A100-40GB?', '')
    """
    from difflib import get_close_matches

    word = _DTYPES.get(word.lower(), word.lower())
    by_case = {name.lower(): name for name in known}
    longer = [name for name in by_case if len(word) > 1 and name.startswith(word)]
    names = longer or get_close_matches(word, by_case, n=1, cutoff=0.65)
    return f", did you mean {by_case[names[0]]}?" if names else ""


_DTYPES = {"fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}
"""Short names of dtypes that are common elsewhere."""


def unknown(what: str, word: str, known: Iterable[str], argument: str = "") -> OptionError:
    """The error for an unknown word of an option: it names the nearest word, and all of them.

    >>> print(unknown("theme", "ligth", ["light", "dark"]))
    unknown theme 'ligth', did you mean light?
    theme is one of light, dark
    """
    names = tuple(known)
    problem = f"unknown {what} {printable(word)!r}{nearest(word, names)}"
    return OptionError(problem, f"{option(argument or what)} is one of {', '.join(names)}")


def printable(text: str, longest: int = 80) -> str:
    r"""Text from an untrusted file for a message: one line of at most `longest` characters, no control characters.

    >>> printable("conv1\x1b[31m"), printable("a" * 100, longest=8)
    ('conv1\\x1b[31m', 'aaaaa...')
    """
    text = text if len(text) <= longest else text[: longest - 3] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def visible(text: str) -> str:
    r"""Text in which control and invisible characters are shown as their escape codes.

    >>> visible("conv\x1b[31m1")
    'conv\\x1b[31m1'
    """
    return printable(text, len(text))
