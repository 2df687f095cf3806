"""What a shell may complete: the words that can stand where the cursor is.

The scripts that `--install-completion` writes are typer's: at a tab the shell runs the program with ASKED and the
line's words in its environment, and shows what it prints. Each option says beside itself what completes it
(`options.completed`), by the name of a function here. None of them imports torch, torchvision or timm, or runs a user's
code; whatever goes wrong is silent, since a message would spoil the line that is being written.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vggscope.cli.options import CHECKPOINTS
from vggscope.columns import COLUMNS, LITERATURE
from vggscope.errors import OptionError, OutputError
from vggscope.record import record
from vggscope.sources.cache import LIBRARIES, recalled
from vggscope.sources.options import Options
from vggscope.sources.resolve import read
from vggscope.sources.toml import column_names
from vggscope.units import parse_shape

if TYPE_CHECKING:
    from vggscope.graph import Network

PROGRAM = "vggscope"

ASKED = "_VGGSCOPE_COMPLETE"
"""The environment variable by which a shell asks, as `complete_bash`."""

OPENED = (".py", ".toml", *CHECKPOINTS)
"""Files that are models, or that hold some."""

LARGEST_FILE = 10**6
"""Bytes of a file that is looked into."""

MOST_ENTRIES = 10_000
"""Entries of a folder that are looked at."""

Candidate = tuple[str, str]
"""What can stand there, and what it is."""


@record
class Line:
    """The words before the cursor, without the program's name, and the one at it.

    `kept` is how much of that the shell takes for a word of its own, before what it replaces. `quote` is the quotation
    mark that it begins with, if any.
    """

    words: tuple[str, ...]
    word: str
    kept: str = ""
    quote: str = ""


# The shells: how each asks, and how it wants to be answered.


def answer() -> str:
    """What to print for the shell that asks; nothing where anything fails."""
    try:
        read, shown = SHELLS[os.environ[ASKED].removeprefix("complete_")]
        line = read(os.environ)
        return shown(line, [] if _is_fish_condition() else candidates(line.words, line.word))
    except Exception:  # whatever it is, the line that is being written stays as it is
        return ""


def _is_fish_condition() -> bool:
    """Whether fish asks if it should ask: it should, since files are completed here too."""
    return os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args"


def _read_bash(env: Mapping[str, str]) -> Line:
    """Bash parts words at colons and equals signs too, and replaces what is behind the last."""
    at = int(env["COMP_CWORD"])
    words: list[str] = []
    kept = raw = ""
    joined = False
    for raw in [*env["COMP_WORDS"].split("\n"), ""][: at + 1]:
        breaks = raw != "" and not raw.strip(":=")
        if words and (breaks or joined):
            kept = words[-1] + (raw if breaks else "")
            words[-1] += _unquoted(raw)
        else:
            kept = ""
            words.append(_unquoted(raw))
        joined = breaks
    return Line(tuple(words[1:-1]), words[-1], kept, raw[:1] if raw[:1] in _ESCAPED else "")


def _read_line(env: Mapping[str, str]) -> Line:
    words = _split(env["_TYPER_COMPLETE_ARGS"] + _CURSOR)
    return Line(tuple(words[1:-1]), words[-1].replace(_CURSOR, ""))


def _read_powershell(env: Mapping[str, str]) -> Line:
    word = env.get("_TYPER_COMPLETE_WORD_TO_COMPLETE", "")
    words = _split(env["_TYPER_COMPLETE_ARGS"])[1:]
    return Line(tuple(words[:-1] if word else words), word)


_CURSOR = "\x1f"


def _split(text: str) -> list[str]:
    """A line's words as a POSIX shell parts them; quotes may be open at its end."""
    parts = shlex.shlex(text, posix=True)
    parts.whitespace_split = True
    parts.commenters = ""
    found: list[str] = []
    try:
        found.extend(parts)
    except ValueError:
        found.append(parts.token)
    return found


def _unquoted(raw: str) -> str:
    return "".join(_split(raw))


_ESCAPED = {"": r"[^\w@%+=:,./~-]", '"': r'[\\"$`]', "'": r"(?!)"}
"""What bash does not take as it stands but behind a backslash: outside quotes, and inside each kind."""

_REFUSED = {"": r"(?!)", '"': "!", "'": "'"}
"""What it does not take there at all."""


def _bash(line: Line, found: Sequence[Candidate]) -> str:
    """What bash sets in as it is: escaped, so that no file's name can be taken for more than a name."""
    rests = (value.removeprefix(line.kept) for value, _ in found)
    taken = (rest for rest in rests if not re.search(_REFUSED[line.quote], rest))
    return "\n".join(re.sub(f"({_ESCAPED[line.quote]})", r"\\\1", rest) for rest in taken)


def _zsh(line: Line, found: Sequence[Candidate]) -> str:
    """What zsh evaluates. It takes several blanks for one."""
    if not found:
        return "_files"
    escaped = (
        f"{_backslashed(value)}:{_backslashed(about)}" if about else _backslashed(value) for value, about in found
    )
    return f"local -a found; found=({' '.join(map(shlex.quote, escaped))}); _describe -V value found"


def _backslashed(text: str) -> str:
    return re.sub(r"([\\:])", r"\\\1", text)


def _fish(line: Line, found: Sequence[Candidate]) -> str:
    return "\n".join(f"{value}\t{about}" if about else value for value, about in found)


def _powershell(line: Line, found: Sequence[Candidate]) -> str:
    return "\n".join(f"{_powershell_word(value)}:::{about or ' '}" for value, about in found)


def _powershell_word(value: str) -> str:
    return "'" + value.replace("'", "''") + "'" if re.search(r"[\s'()]", value) else value


SHELLS: Mapping[str, tuple[Callable[[Mapping[str, str]], Line], Callable[[Line, Sequence[Candidate]], str]]] = {
    "bash": (_read_bash, _bash),
    "zsh": (_read_line, _zsh),
    "fish": (_read_line, _fish),
    "powershell": (_read_powershell, _powershell),
    "pwsh": (_read_powershell, _powershell),
}


def install() -> str:
    """Write the script where the shell finds it, and say where. Raises OptionError where this is no shell that we know,
    OutputError where it cannot be written.
    """
    from typer.completion import install as written  # type: ignore[attr-defined]

    shell = _this_shell()
    try:
        _, path = written(shell, PROGRAM, ASKED)
        if shell == "zsh":
            path.write_text(script() + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot install completion for {shell}: {error}", "vggscope --show-completion") from None
    return f"installed in {path}\nit works in every {shell} that you open from now on"


def script() -> str:
    """The script for this shell. Raises OptionError where this is no shell that we know."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    shell = _this_shell()
    made = get_completion_script(prog_name=PROGRAM, complete_var=ASKED, shell=shell)
    return made + _AT_ONCE if shell == "zsh" else made


_AT_ONCE = """

# zsh reads this file at the first tab, which wants an answer too.
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _vggscope_completion "$@"
fi"""


def _this_shell() -> str:
    from shellingham import ShellDetectionFailure, detect_shell  # type: ignore[import-untyped]

    try:
        shell = str(detect_shell()[0])
    except ShellDetectionFailure:
        shell = ""
    if shell not in SHELLS:
        raise OptionError(
            f"no completion for {shell}" if shell else "cannot tell which shell this is",
            f"there is one for {', '.join(SHELLS)}: ask from there",
        )
    return shell


# The line: whose word is at the cursor.


def candidates(words: Sequence[str], word: str) -> list[Candidate]:
    """What can stand at the cursor, behind these words."""
    from typer.main import get_command

    from vggscope.cli.app import GROUPS, app

    root = get_command(app)
    at = next((i for i, known in enumerate(words) if not known.startswith("-")), None)
    if at is None:
        if word.startswith("-"):
            return _options(root, words, word)
        commands = [item for group in GROUPS.values() for item in group.items()]
        return [(name, about) for name, about in commands if name.startswith(word)]
    command: Any = root.get_command(None, words[at])  # type: ignore[attr-defined]
    return _of_command(command, list(words[at + 1 :]), word) if command is not None else []


def _of_command(command: Any, words: list[str], word: str) -> list[Candidate]:
    taking = {
        name: param
        for param in command.params
        if param.param_type_name == "option" and not param.is_flag
        for name in param.opts
    }
    name, equals, value = word.partition("=")
    if "--" not in words:
        if equals and name in taking:
            return [(f"{name}={found}", about) for found, about in _values(command, taking[name], words, value)]
        if words and words[-1] in taking:
            return _values(command, taking[words[-1]], words[:-1], word)
        if word.startswith("-"):
            return _options(command, words, word)
    ctx = command.make_context(command.name, list(words), resilient_parsing=True)
    for param in command.params:
        if param.param_type_name == "argument" and (param.nargs == -1 or ctx.params.get(param.name) is None):
            return _values(command, param, words, word)
    return _options(command, words, word or "--")


def _values(command: Any, param: Any, words: list[str], word: str) -> list[Candidate]:
    ctx = command.make_context(command.name, list(words), resilient_parsing=True)
    # A name with a line's end or the like in it could not be shown, and need not be.
    return [(item.value, item.help or "") for item in param.shell_complete(ctx, word) if item.value.isprintable()]


def _options(command: Any, words: Sequence[str], word: str) -> list[Candidate]:
    """The long options that are not there yet, as `--help` orders them."""
    from vggscope.cli.help import groups_of

    ctx = command.make_context(command.name, [], resilient_parsing=True)
    params = [param for _, params in groups_of(command, ctx) for param in params if param.param_type_name == "option"]
    names = [
        (name, param.help or "")
        for param in params
        if not {*param.opts, *param.secondary_opts} & {*words}
        for name in (*param.opts, *param.secondary_opts)
    ]
    return [(name, about) for name, about in names if name.startswith("--") and name.startswith(word)]


# The words: what each kind of option takes.


def one_of(ctx: Any, word: str, table: str) -> list[Any]:
    """A name of a table, written as `package.module:TABLE`."""
    return _names(table)


def several(ctx: Any, word: str, table: str) -> list[str]:
    """Names of a table with commas between them."""
    return _listed(word, [name for name, _ in _names(table)])


def _names(table: str) -> list[Candidate]:
    """The names that a table has, with what it says of them: it maps them, lists them, or lists what has a name."""
    module, _, name = table.partition(":")
    found = getattr(import_module(module), name)
    about = found if isinstance(found, Mapping) else {}
    names = [entry if isinstance(entry, str) else getattr(entry, "name", "") or entry.key for entry in found]
    return [(name, _said(about.get(name))) for name in names]


def _said(value: object) -> str:
    return value if isinstance(value, str) else str(getattr(value, "about", ""))


def _listed(word: str, names: Iterable[str]) -> list[str]:
    """A list with commas, begun as `word`, with each of the names that it has not yet at its end."""
    before, comma, _ = word.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name not in before.split(",")]


def models(ctx: Any, word: str, *others: str) -> list[str]:
    """A MODEL, or one of some other words. What stands alone and leads on, as `torchvision:` and a folder do, is
    opened: so a shell sets no blank behind it.
    """
    found = _begun(word, [*others, *_model_words(word)])
    while len(found) == 1 and (opened := _begun(found[0], _opened(found[0]))) and opened != found:
        found = opened
    return found


def _model_words(word: str) -> list[str]:
    if ":" in word:
        return _opened(word)
    bn = [f"{name}_bn" for name in (*LITERATURE, *(COLUMNS if "_" in word else ()))]
    return [*COLUMNS, *LITERATURE, *bn, *(f"{name}:" for name in LIBRARIES if find_spec(name)), *_paths(word, OPENED)]


def _opened(word: str) -> list[str]:
    """What a word that leads on leads to."""
    first, colon, _ = word.partition(":")
    if colon and first in LIBRARIES:
        from vggscope.sources.catalogue import names_in

        return [f"{first}:{name}" for name in names_in(first)]
    where = word.rpartition(":")[0] or word
    if where.endswith(".py"):
        return [f"{where}:{name}" for name in _classes(where)]
    if where.lower().endswith(".toml"):
        return [f"{where}:{name}" for name in column_names(os.path.expanduser(where)) if ":" not in name]
    return _paths(word, OPENED) if word.endswith("/") else []


def _begun(word: str, found: Iterable[str]) -> list[str]:
    return [value for value in dict.fromkeys(found) if value.startswith(word)]


def _classes(path: str) -> list[str]:
    """What a Python file defines that may give a module, in its order; the file is read and not run."""
    path = os.path.expanduser(path)
    if not os.path.isfile(path) or os.path.getsize(path) > LARGEST_FILE:
        return []
    with open(path, "rb") as file:
        tree = ast.parse(file.read())
    found = [node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    return [node.name for node in found if node.name[0] != "_" and (isinstance(node, ast.FunctionDef) or node.bases)]


def paths(ctx: Any, word: str, *suffixes: str) -> list[str]:
    """A file that ends in one of the suffixes."""
    found = _begun(word, _paths(word, suffixes))
    while len(found) == 1 and found[0].endswith("/") and (inside := _paths(found[0], suffixes)):
        found = inside
    return found


def _paths(word: str, suffixes: Sequence[str]) -> list[str]:
    """The folders beside the path that a word begins, and the files with one of the suffixes."""
    folder, name = os.path.split(word)
    found = []
    with os.scandir(os.path.expanduser(folder) or ".") as entries:
        for entry, _ in zip(entries, range(MOST_ENTRIES)):
            hidden = entry.name.startswith(".") and not name.startswith(".")
            if entry.name.startswith(name) and not hidden and entry.name != "__pycache__":
                path = os.path.join(folder, entry.name)
                if entry.is_dir():
                    found.append(f"{path}/")
                elif entry.name.lower().endswith(tuple(suffixes)):
                    found.append(path)
    return sorted(found)


def results(ctx: Any, word: str) -> list[str]:
    """A file to write a command's result to: the suffixes that it may have, and the files that have one."""
    from vggscope.render.formats import suffixes

    return written(ctx, word, *suffixes(ctx.info_name))


def pictures(ctx: Any, word: str) -> list[str]:
    """A file to draw to."""
    from vggscope.render.diagram import FORMATS

    return written(ctx, word, *(f".{form}" for form in FORMATS))


def modules(ctx: Any, word: str) -> list[str]:
    """A file that `build` writes."""
    from vggscope.cli.build import WRITERS

    return written(ctx, word, *WRITERS)


def written(ctx: Any, word: str, *suffixes: str) -> list[str]:
    """A file to write, with one of the suffixes: one that is there, or a name with each of them."""
    there = paths(ctx, word, *suffixes)
    stem, dot, _ = os.path.basename(word).rpartition(".")
    name = stem if dot else os.path.basename(word)
    if not name or there:
        return there
    return [os.path.join(os.path.dirname(word), name + suffix) for suffix in suffixes]


def layers(ctx: Any, word: str) -> list[str]:
    """Layers of the command's model with commas between them, by label, or by path where no label begins so."""
    model = ctx.params.get("model") or next(iter(ctx.params.get("models") or ()), "")
    return _listed(word, _layers(model, ctx.params, word.rpartition(",")[2]))


def _layers(model: str, params: Mapping[str, Any], word: str) -> list[str]:
    network = _network(model, params)
    if network is None:
        return []
    labels = _begun(word, (node.label for node in network.nodes if node.label))
    return labels or _begun(word, (node.name for node in network.nodes))


def _network(model: str, params: Mapping[str, Any]) -> Network | None:
    """The model, where it can be read without running anything; a library's, where it is remembered."""
    library, _, name = model.partition(":")
    if library == "torchvision" and name.removesuffix("_bn") in LITERATURE:
        return read(name)  # torchvision's module tree is what a column has
    size = parse_shape(params["input"]) if params.get("input") else None
    given = {name: params[name] for name in ("head", "batch_norm", "num_classes", "soft_max") if params.get(name)}
    return recalled(model) or read(model, Options(size, **given))


def layer(ctx: Any, word: str) -> list[str]:
    """A layer of the command's model, or a module that holds some."""
    found = _layers(ctx.params.get("model") or "", ctx.params, word)
    holding = (name.rpartition(".")[0] for name in found)
    return [*_begun(word, filter(None, holding)), *found]


def topics(ctx: Any, word: str) -> list[str]:
    """What `explain` takes: a topic, a topic's model, or a model and its layer."""
    from vggscope.lessons import TOPICS

    given = ctx.params.get("words") or ()
    if not given:
        return models(ctx, word, *TOPICS)
    if len(given) > 1:
        return []
    return models(ctx, word) if given[0] in TOPICS else _layers(given[0], ctx.params, word)


def references(ctx: Any, word: str) -> list[str]:
    """A reference: a library or the paper, for the model's counterpart there, or any MODEL."""
    return models(ctx, word, *LIBRARIES, "paper")
