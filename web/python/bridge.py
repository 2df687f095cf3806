"""What the page asks of vggscope.

A request is JSON: a view, the words of the models, and what the reader chose, as text by the names of the options in
Python. `answer` calls the function of `vggscope.api` that is the view's command, and returns JSON: HTML and SVG as the
command writes them, and the command line that gives the same in a shell.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_args

import vggscope
from vggscope import choices
from vggscope.errors import MissingTool, OptionError, VggscopeError, naming_options, visible
from vggscope.graph import Network
from vggscope.inputs import parse_input
from vggscope.render.formats import FORMATS, fragment, write
from vggscope.result import Drawn, Result
from vggscope.sources import stand_ins
from vggscope.sources.cache import LIBRARIES
from vggscope.tutorials import TOPICS
from vggscope.vgg.configs import CONFIGS, LITERATURE, config_named
from vggscope.vgg.families import FAMILIES, family_named
from vggscope.vgg.notation import is_notation
from vggscope.vgg.notation import write as notation_of

Answer = dict[str, Any]

MODEL_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "input_size": lambda text: [parse_input(text)],
    "num_classes": lambda text: _number("num_classes", text),
    "head": str,
    "batch_norm": bool,
    "soft_max": bool,
}
"""The options of every command that builds a model, and how their text is read."""

STEP_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "mode": str,
    "optimizer": str,
    "dtype": str,
    "gpu": str,
    "batch": lambda text: _number("batch", text),
}
"""The options of `memory`."""

REFERENCE: Mapping[str, Callable[[str], Any]] = {"ref": str}

THEME: Mapping[str, Callable[[str], Any]] = {"theme": str}

PICTURE_OPTIONS: Mapping[str, Callable[[str], Any]] = {"style": str, **THEME}

SAVED_PICTURES = {"overview": ("svg", "dot", "tex"), "diff": ("svg", "dot", "tex"), "lesson": ("svg", "dot", "tex")}
"""The forms of each view's picture that need no other package. The page makes a PNG of the SVG itself."""


@dataclass(frozen=True)
class Request:
    """The words of the models and the reader's choices, text by the name of an option."""

    models: tuple[str, ...]
    chosen: Mapping[str, str]

    @property
    def model(self) -> str:
        """The first model."""
        if not self.models:
            raise OptionError("no model", "type a word such as D, or drop a file")
        return self.models[0]

    def options(self, *kinds: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
        """The chosen options of these kinds, as keyword arguments."""
        read = {name: function for kind in kinds for name, function in kind.items()}
        return {name: read[name](text) for name, text in self.chosen.items() if name in read}

    def network(self) -> Network:
        """The first model's Network."""
        return vggscope.network(self.model, **self.options(MODEL_OPTIONS))

    def command(self, name: str, *kinds: Mapping[str, Callable[[str], Any]], more: tuple[str, ...] = ()) -> str:
        """The command line that gives the same in a shell."""
        words = ["vggscope", name, *self.models]
        for option in self.options(*kinds):
            words.append("--" + {"input_size": "input"}.get(option, option).replace("_", "-"))
            words += [] if option in ("batch_norm", "soft_max") else [self.chosen[option]]
        return shlex.join([*words, *more])


def answer(text: str) -> str:
    """Answer a request, JSON to JSON. An error is an answer too: its problem and its remedy."""
    asked = json.loads(text)
    chosen = {name: value.strip() for name, value in asked.get("chosen", {}).items() if value.strip()}
    request = Request(tuple(word.strip() for word in asked.get("models", ()) if word.strip()), chosen)
    command = COMMANDS.get(asked["view"])
    try:
        with naming_options():
            shown = VIEWS[asked["view"]](request)
            return json.dumps({**shown, "command": command(request)} if command else shown)
    except (MissingTool, ModuleNotFoundError) as error:
        problem = error.problem if isinstance(error, MissingTool) else f"{error.name} is not installed"
        remedy = f"a browser has no such package; in a shell: {command(request)}" if command else ""
        return json.dumps({"problem": problem, "remedy": remedy})
    except VggscopeError as error:
        closed = error.problem.split(": there is no such file")[0] in request.models
        remedy = "open the file here: a link holds its name alone" if closed else error.remedy
        return json.dumps({"problem": error.problem, "remedy": remedy})


def warm_up() -> None:
    """Answer each view once, so that the snapshot of this Python has imported and compiled what they need."""
    chosen = {"ref": "D", "topic": "conv", "what": "overview", "form": "json"}
    for view in VIEWS:
        answer(json.dumps({"view": view, "models": ["A", "B"], "chosen": chosen}))


def _start(request: Request) -> Answer:
    """What the page needs to offer choices."""
    published = [f"{name}{suffix}" for name in LITERATURE for suffix in ("", "_bn")]
    libraries = [f"{library}:{name}" for library in LIBRARIES for name in stand_ins.names(library)]
    return {
        "version": vggscope.__version__,
        "words": [*CONFIGS, *published, *FAMILIES, *libraries],
        "topics": {name: topic.about for name, topic in TOPICS.items()},
        "style": [style for style in get_args(choices.Style) if style != "table"],
        "head": get_args(choices.Head),
        "mode": get_args(choices.Mode),
        "optimizer": get_args(choices.Optimizer),
        "dtype": get_args(choices.StepDtype),
        "formats": {form.name: form.suffix for form in FORMATS},
        "pictures": SAVED_PICTURES,
    }


def _overview(request: Request) -> Answer:
    network = request.network()
    return {
        "title": visible(network.title or network.name),
        "html": fragment(vggscope.summary(network)),
        "svg": _svg(DRAWINGS["overview"](request)),
        "notation": _notation(request.model),
    }


def _notation(word: str) -> str | None:
    """The word in Table 1's notation, for the reader to edit; None for a network that has none."""
    config, family = config_named(word), family_named(word)
    if config is not None:
        return notation_of(CONFIGS[config[0]].words)
    if family is not None:
        return notation_of(FAMILIES[family[0]].words)
    return word if is_notation(word) and not os.path.exists(word) else None


def _explore(request: Request) -> Answer:
    return {"page": vggscope.report(*request.models, **request.options(MODEL_OPTIONS)).html}


def _table(view: str) -> Callable[[Request], Answer]:
    """A view that shows a result, and its picture if it has one."""

    def shown(request: Request) -> Answer:
        answer = {"html": fragment(RESULTS[view](request))}
        with suppress(OptionError):  # such as a network that is like no VGG: there is nothing to be drawn beside it
            if view in DRAWINGS:
                answer["svg"] = _svg(DRAWINGS[view](request))
        return answer

    return shown


def _svg(drawn: Drawn) -> str:
    return drawn.render("svg").decode()


def _save(request: Request) -> Answer:
    """What `-o` writes: the result of the view `what`, or its picture, in the format `form`."""
    what, form = request.chosen["what"], request.chosen["form"]
    if form in SAVED_PICTURES.get(what, ()):
        return {"text": DRAWINGS[what](request).render(form).decode(), "suffix": f".{form}"}
    suffix = next(known.suffix for known in FORMATS if known.name == form)
    return {"text": write(RESULTS[what](request), form), "suffix": suffix}


RESULTS: Mapping[str, Callable[[Request], Result]] = {
    "overview": lambda request: vggscope.summary(request.model, **request.options(MODEL_OPTIONS)),
    "fields": lambda request: vggscope.receptive_fields(request.model, **request.options(MODEL_OPTIONS)),
    "memory": lambda request: vggscope.memory(request.model, **request.options(MODEL_OPTIONS, STEP_OPTIONS)),
    "diff": lambda request: vggscope.diff(request.model, **request.options(MODEL_OPTIONS, REFERENCE)),
    "compare": lambda request: vggscope.compare(*request.models, **request.options(MODEL_OPTIONS)),
    "inspect": lambda request: vggscope.inspect(request.model),
    "lesson": lambda request: vggscope.explain(request.chosen.get("topic", "conv")),
}
"""The result that each view shows."""

DRAWINGS: Mapping[str, Callable[[Request], Drawn]] = {
    "overview": lambda request: vggscope.diagram(request.network(), **request.options(PICTURE_OPTIONS)),
    "diff": lambda request: RESULTS["diff"](request).picture(**request.options(THEME)),
    "lesson": lambda request: RESULTS["lesson"](request).picture(**request.options(THEME)),
}
"""The picture of each view that has one without matplotlib."""

VIEWS: Mapping[str, Callable[[Request], Answer]] = {
    "start": _start,
    "overview": _overview,
    "fields": _table("fields"),
    "memory": _table("memory"),
    "explore": _explore,
    "diff": _table("diff"),
    "compare": _table("compare"),
    "inspect": _table("inspect"),
    "lesson": _table("lesson"),
    "save": _save,
}

COMMANDS: Mapping[str, Callable[[Request], str]] = {
    "overview": lambda request: request.command("summary", MODEL_OPTIONS),
    "fields": lambda request: request.command("rf", MODEL_OPTIONS),
    "memory": lambda request: request.command("memory", MODEL_OPTIONS, STEP_OPTIONS),
    "explore": lambda request: request.command("report", MODEL_OPTIONS, more=("-o", "page.html")),
    "diff": lambda request: request.command("diff", MODEL_OPTIONS, REFERENCE),
    "compare": lambda request: request.command("compare", MODEL_OPTIONS),
    "inspect": lambda request: request.command("inspect"),
    "lesson": lambda request: shlex.join(["vggscope", "explain", request.chosen.get("topic", "conv")]),
}
"""The command line of each view, for a shell."""


def _number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise OptionError(f"{name.replace('_', ' ')} {visible(text)!r} is no whole number", "type digits, such as 10")
    return int(text)
