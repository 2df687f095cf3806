"""What users call says what it does, which errors it raises, and shows it by an example; pytest runs the examples."""

from __future__ import annotations

import builtins
import doctest
import inspect
import re
from collections.abc import Iterator

import pytest

import vggscope
from vggscope import api, errors
from vggscope.drawing import Diagram
from vggscope.explorer.result import Page
from vggscope.graph import Network
from vggscope.result import Drawn, Result, TableResult, Tabular

CLASSES = (Network, Result, Tabular, TableResult, Drawn, Diagram, Page)

ERRORS = [found for found in vars(errors).values() if inspect.isclass(found) and issubclass(found, Exception)]


def functions() -> Iterator[tuple[str, object]]:
    for name, found in vars(api).items():
        if inspect.isfunction(found) and found.__module__ == api.__name__ and not name.startswith("_"):
            yield name, found


def members() -> Iterator[tuple[str, object]]:
    """The methods and properties that each class defines itself."""
    for cls in CLASSES:
        for name, found in vars(cls).items():
            if not name.startswith("_") and (callable(found) or hasattr(found, "__get__")):
                yield f"{cls.__name__}.{name}", found


PUBLIC = dict([*functions(), *members(), *((found.__name__, found) for found in ERRORS)])


def doc(found: object) -> str:
    return inspect.getdoc(found) or ""


def test_all_names_the_functions_of_api_what_they_return_and_every_error() -> None:
    returned = {
        word for _, function in functions() for word in re.findall(r"\b[A-Z]\w+", function.__annotations__["return"])
    }
    results = (returned | {"Estimate", "CostSums", "OpCall"}) - {"Iterator", "Module", "None"}  # a Grid has Estimates
    errors = {error.__name__ for error in ERRORS}
    assert set(vggscope.__all__) == {name for name, _ in functions()} | results | errors | {"__version__"}
    for name in vggscope.__all__:
        assert name == "__version__" or getattr(vggscope, name).__name__ == name


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_public_has_an_example(name: str) -> None:
    text = doc(PUBLIC[name])
    assert text
    assert doctest.DocTestParser().get_examples(text), f"{name} shows no example"


@pytest.mark.parametrize("name", PUBLIC)
def test_each_error_that_is_named_exists(name: str) -> None:
    known = {*(found.__name__ for found in ERRORS), *dir(builtins)}
    named = set(re.findall(r"\b([A-Z]\w*(?:Error|Tool))\b", doc(PUBLIC[name])))
    assert named <= known


@pytest.mark.parametrize(("name", "function"), list(functions()))
def test_each_function_says_what_it_raises(name: str, function: object) -> None:
    text = " ".join(doc(function).split())
    said = re.search(r"Raises (.*?[.;:])", text)
    assert said is not None
    assert re.search(r"Error|MissingTool|nothing", said[1])


@pytest.mark.parametrize(("name", "function"), list(functions()))
def test_each_option_is_explained(name: str, function: object) -> None:
    """By its name in the function's docstring, or in that of the module, which has what all of them take."""
    text = f"{doc(function)} {doc(api)}"
    for parameter in inspect.signature(function).parameters:  # type: ignore[arg-type]
        assert re.search(rf"\b{parameter}\b", text), parameter
