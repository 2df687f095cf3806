"""Every way in which vggscope says no.

    VggscopeError
    ├── ModelError        a MODEL word that names nothing, or names it wrongly
    │   ├── NotationError a line of Table 1 notation with a word that cannot be read
    │   └── CheckpointError a checkpoint that cannot be read, or that holds code
    ├── ShapeError        a layer that does not fit the tensor it meets
    ├── OptionError       an option's value that makes no sense
    ├── OutputError       a file that cannot be written
    └── MissingTool       a package or a program that is not installed

An error's text is one or two lines: what was wrong, then what would work. Only `cli/` prints it and exits, with
`exit_code`.
"""

from __future__ import annotations

from collections.abc import Iterable


class VggscopeError(Exception):
    """The root: catch it to catch whatever vggscope raises on purpose.

    >>> import vggscope
    >>> try:
    ...     vggscope.summary("D", dtype="int8")
    ... except VggscopeError as error:
    ...     print(error.problem, error.remedy, sep="; ")
    unknown dtype 'int8'; --dtype is one of float32, float64, float16, bfloat16
    """

    exit_code = 2

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return "\n".join(filter(None, (self.problem, self.remedy)))


class ModelError(VggscopeError):
    """The word for the model names nothing that can be found, or not a model.

    >>> import vggscope
    >>> vggscope.network("vgg17")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vggscope.errors.ModelError: unknown model 'vgg17', did you mean ...?
    ...
    """


class NotationError(ModelError):
    """A line of Table 1 notation has a word that cannot be read there.

    >>> import vggscope
    >>> vggscope.network("conv3-64 maxpoool FC-10")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vggscope.errors.NotationError: ...maxpoool...
    """


class CheckpointError(ModelError):
    """A checkpoint that is no such file, is damaged, holds code, or is not what it says.

    >>> import vggscope
    >>> vggscope.inspect("nothing.pth")
    Traceback (most recent call last):
    vggscope.errors.CheckpointError: nothing.pth: there is no such file
    give the path of a .pth, .pt or .safetensors file
    """


class ShapeError(VggscopeError):
    """A layer does not fit the tensor that it meets.

    >>> import vggscope
    >>> vggscope.summary("D", input_size=(3, 16, 16))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vggscope.errors.ShapeError: ...
    the smallest square input that fits is --input 3x32x32
    """


class OptionError(VggscopeError):
    """An option's value makes no sense, alone or with this model.

    >>> import vggscope
    >>> vggscope.memory("D", batch=0)
    Traceback (most recent call last):
    vggscope.errors.OptionError: a batch of 0 makes no sense
    --batch is 1 to 1000000000
    """


class OutputError(VggscopeError):
    """A result cannot be written where it was asked for.

    >>> import vggscope
    >>> vggscope.summary("D").save("nowhere/x.csv")
    Traceback (most recent call last):
    vggscope.errors.OutputError: cannot write nowhere/x.csv: the folder is not there
    name a file in a folder that you may write to
    """


class MissingTool(VggscopeError):
    """A package or a program that this needs is not installed.

    >>> raise MissingTool("timm is not installed", "pip install timm")
    Traceback (most recent call last):
    vggscope.errors.MissingTool: timm is not installed
    pip install timm
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """What to add to a message on an unknown word: the known one that it begins, or else is nearest to, if any is.

    >>> nearest("ligth", ["light", "dark"]), nearest("A100", ["A10", "A100-40GB"]), nearest("blue", ["light", "dark"])
    (', did you mean light?', ', did you mean A100-40GB?', '')
    """
    from difflib import get_close_matches

    word = word.lower()
    by_case = {name.lower(): name for name in known}
    begun = [name for name in by_case if len(word) > 1 and name.startswith(word)]
    found = begun or get_close_matches(word, by_case, n=1, cutoff=0.65)
    return f", did you mean {by_case[found[0]]}?" if found else ""


def unknown(what: str, word: str, known: Iterable[str], option: str = "") -> OptionError:
    """What to say of an option's word that is none of those it takes: the nearest, and all of them.

    >>> print(unknown("theme", "ligth", ["light", "dark"]))
    unknown theme 'ligth', did you mean light?
    --theme is one of light, dark
    """
    names = tuple(known)
    return OptionError(
        f"unknown {what} {printable(word)!r}{nearest(word, names)}", f"--{option or what} is one of {', '.join(names)}"
    )


def printable(text: str, longest: int = 80) -> str:
    r"""A text from a file that we do not trust, as a message may show it: one line, no control characters, not long.

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
