"""The program: the table of commands, the console script, and how errors are printed.

A command's file is imported only when that command runs, so that no command loads what another needs.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from vggscope.cli.options import flag, spread
from vggscope.errors import Stopped, VggscopeError, described, naming_options, received, stop
from vggscope.progress import LOGGER, on_terminal
from vggscope.sources.resolve import own_process

GROUPS: Mapping[str, Mapping[str, str]] = {
    "Look": {
        "summary": "shapes with the rule, parameters, MACs, memory, layer by layer",
        "diagram": "draw a model, or several side by side",
        "rf": "receptive fields, and the pixels that one unit sees",
        "memory": "memory of a step, its peak, the largest batch that fits a GPU",
        "compare": "models side by side, the paper's tables, grids of memory",
        "report": "one page to explore models, which works offline",
    },
    "Check": {
        "diff": "where a model differs from a reference model, and what follows",
        "verify": "our figures beside those of other tools",
        "inspect": "which network a checkpoint belongs to",
        "lock": "the architecture as a file to commit, which diff compares with",
    },
    "Build": {"build": "print a model's module; write its source, weights or ONNX graph"},
    "Learn": {
        "explain": "a layer or an idea worked with its numbers",
        "list": "columns, references, ops, formats, and what is installed",
    },
    "Connect": {"mcp": "offer the commands to an assistant, by the Model Context Protocol"},
}
"""The commands with a line of help, in the groups and the order of `--help`.

Each is a function in the file of the same name in this folder (`list_` for `list`).
"""

COMMANDS = {name: about for group in GROUPS.values() for name, about in group.items()}

DEBUG = "--debug"
VERBOSE = ("-v", "--verbose")
NO_CACHE = "--no-cache"


class _Command(TyperCommand):
    """A command whose help has groups of options."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        # A newer typer writes required arguments in braces, which look like a choice.
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from vggscope.cli.help import write_command

        write_command(self, ctx, formatter)


class _Commands(TyperGroup):
    """The group of all commands, which imports a command when it is looked up."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in COMMANDS:
            return None
        function = f"{name}_" if name == "list" else name
        module = import_module(f"vggscope.cli.{function}")
        app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
        app.command(name, cls=_Command)(spread(getattr(module, function)))
        return get_command(app)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in COMMANDS:
            from vggscope.cli.help import require_model

            require_model(args[0], tuple(COMMANDS))
            args = ["summary", *args]
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from vggscope.cli.help import write_commands

        write_commands(self, GROUPS, ctx, formatter)


app = typer.Typer(
    cls=_Commands,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _printing(name: str, function: str, help: str) -> Any:
    """A flag that prints what a function returns, and ends the program. The function is imported then."""

    def print_text(is_set: bool) -> None:
        if is_set:
            module, _, attribute = function.partition(":")
            typer.echo(getattr(import_module(module), attribute)())
            raise typer.Exit

    return typer.Option(name, callback=print_text, is_eager=True, help=help)


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[bool, _printing("--version", "vggscope.cli.help:version", "Show the version.")] = False,
    debug: Annotated[bool, flag(DEBUG, "Show a traceback with an error.")] = False,
    verbose: Annotated[
        bool, typer.Option(*reversed(VERBOSE), help="Say on stderr what is being done, with the seconds that it took.")
    ] = False,
    install_completion: Annotated[
        bool,
        _printing(
            "--install-completion",
            "vggscope.cli.completion:install",
            "Let your shell complete commands, models, layers and options at a tab.",
        ),
    ] = False,
    show_completion: Annotated[
        bool,
        _printing("--show-completion", "vggscope.cli.completion:script", "Print the script that this installs."),
    ] = False,
) -> None:
    """Look into VGG networks, and any PyTorch model: shapes, costs, memory, receptive fields, pictures, differences."""
    if ctx.invoked_subcommand is None:
        from vggscope.cli.help import start
        from vggscope.cli.output import print_out

        print_out(start(ctx))


def main() -> None:
    """The console script."""
    # A command makes many small objects and few cycles: collecting less often saves time.
    gc.set_threshold(50_000)
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        # nohup relies on ignored signals staying ignored.
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:
            signal.signal(getattr(signal, name), stop)
    if "_VGGSCOPE_COMPLETE" in os.environ:
        from vggscope.cli.completion import answer

        sys.stdout.write(f"{answer(app, COMMANDS)}\n")
        sys.exit(0)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code.

    0 is success, 1 a difference, 2 any error, 130 interrupted, 143 terminated.
    """
    debug, verbose = DEBUG in arguments, any(word in VERBOSE for word in arguments)
    words = [word for word in arguments if word not in (DEBUG, *VERBOSE)]
    with naming_options(), own_process(), _cache_of(words), _verbosely() if verbose else on_terminal():
        return _run(words, debug)


@contextmanager
def _verbosely() -> Iterator[None]:
    """Within this context stderr has a line for each piece of work that begins, and for each that has ended."""
    import logging

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("vggscope: %(message)s"))
    logger = logging.getLogger(LOGGER)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _cache_of(words: list[str]) -> AbstractContextManager[None]:
    """The context in which the command runs: with --no-cache not even the lists of names are read or written."""
    if NO_CACHE not in words:
        return nullcontext()
    from vggscope.sources.cache import unused

    return unused()


def _run(words: list[str], debug: bool) -> int:
    try:
        code = get_command(app)(words, prog_name="vggscope", standalone_mode=False, terminal_width=_width())
    except SystemExit as error:
        # typer exits so when the reader of a pipe has closed it.
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        # The rest of the buffer must not raise again when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Stopped as stopped:
        return 128 + stopped.number
    except Exception as error:
        signaled = received()
        if signaled is not None:
            return 128 + signaled
        if debug:
            from traceback import print_exception

            print_exception(error)
        return _report(error, words[0] if words and words[0] in COMMANDS else "")
    return code if isinstance(code, int) else 0


def _width() -> int:
    """The columns of a help page: at most 80, at least 30."""
    return max(min(shutil.get_terminal_size().columns, 80) - 1, 30)


def _report(error: Exception, command: str) -> int:
    from vggscope.cli.output import note

    if hasattr(error, "format_message"):  # an error of typer's, whose class is private before 0.28
        from vggscope.cli.help import usage_error

        problem, remedy = usage_error(error, command)
    else:
        problem, remedy = described(error)
    note(f"vggscope: {problem}", remedy)
    return error.exit_code if isinstance(error, VggscopeError) else 2
