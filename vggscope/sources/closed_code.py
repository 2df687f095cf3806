"""Find whether a user's file makes its model from its own code and libraries alone, and which files that code is in.

A Network can be remembered only if all that it depends on is known. Python does not tell what a program reads, but its
text can: this file allows what a model's code usually consists of (torch.nn, torch's functions, arithmetic, modules
beside it, and what `closed_names` lists), and takes everything else for a way to read more. Nothing is run and nothing
is imported.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import cache_from_source

from vggscope.record import record
from vggscope.sources.closed_names import (
    CREATORS,
    FROM_NUMPY,
    GET_LOGGER,
    LOGGER,
    PACKAGES,
    PARENTS,
    REGISTRARS,
    VALUES,
    WITH_ALL,
    is_closed,
    is_importable,
    is_random,
    registered_in_timm,
)

MOST_FILES = 500
"""Code in more files is not looked at."""

LARGEST_FILE = 2**20
"""The largest file that is looked at, in bytes."""

COARSEST_CLOCK = 0.05
"""The seconds by which a file system may err in when a file was written."""

_COMPILED = (*EXTENSION_SUFFIXES, ".pyc", ".pyd", ".so")
"""How the names of files with compiled modules end."""

_OPEN_NAMES = frozenset(
    {
        *("open", "input", "exec", "eval", "compile", "globals", "locals", "vars", "dir", "breakpoint", "id", "hash"),
        *("print", "repr", "ascii", "set", "frozenset", "help", "exit", "quit", "memoryview", "delattr"),
    }
)
"""Names of Python by which code reads or writes more, or that differ from run to run, as the order of a set does."""

_ATTRIBUTES_BY_NAME = frozenset({"getattr", "hasattr", "setattr"})

_OPEN_ATTRIBUTES = frozenset(
    {
        *("DataParallel", "DistributedDataParallel"),
        *("cuda", "xpu", "mps", "from_file", "numpy", "data_ptr", "is_pinned", "pin_memory"),
        *("ctypes", "dump", "dumps", "tofile", "load_pretrained"),
        *("builtins", "importlib", "inspect", "io", "json", "os", "pathlib", "random", "subprocess", "sys", "time"),
        *("torch", "torchvision"),
    }
)
"""Attributes of tensors, arrays and modules that depend on the machine, give values away, or lead to other modules."""

_READS = frozenset({"item", "tolist"})
"""Methods that read values, which may be random ones."""

_COUNTED = frozenset({f"{top}.{name}" for top in ("torch", "numpy") for name in ("arange", "cumsum", "linspace")})
"""Functions whose values may be read: they depend on arguments alone."""

_DUNDERS = frozenset(
    {
        *("__init__", "__class__", "__name__", "__call__", "__len__", "__getitem__", "__setitem__", "__iter__"),
        *("__contains__", "__repr__", "__str__", "__post_init__", "__version__", "__doc__", "__annotations__"),
        *(
            "__new__",
            "__constants__",
            "__all__",
            "__getattr__",
            "__setattr__",
            "__init_subclass__",
            "__add__",
            "__mul__",
        ),
        *("__eq__", "__slots__", "__author__"),
    }
)
"""Names with two underscores that lead nowhere else."""


_OTHER_PLACE = re.compile(r"hf[-_]|hub:|local-|dir:|checkpoint_path", re.IGNORECASE)
"""In what timm's `create_model` is given: a repository, a folder or a file."""


_READERS = frozenset(
    {
        *("list", "tuple", "dict", "sorted", "reversed", "iter", "enumerate", "zip", "map", "filter"),
        *("len", "sum", "min", "max", "any", "all", "OrderedDict"),
    }
)
"""Functions that read the items of an argument in order, and make no set of it."""


class _More(Exception):
    """The code may depend on more than files and libraries."""


@record
class Sources:
    """What closed code depends on: the contents of files by their paths, in their order, and the names of packages
    besides torch and torchvision.
    """

    texts: dict[str, bytes]
    packages: tuple[str, ...] = ()


def sources_of(path: str, root: str, arguments: str = "") -> Sources | None:
    """Return a file and all that it imports from its folder, and the packages that these import; None if its code may
    depend on more than that.

    `root` is the folder in which its imports are searched first, `arguments` the text of those that it is called with.
    """
    try:
        return _Closure(root).of(path, arguments)
    except (_More, OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


class _Closure:
    """The files of a program, each looked at once."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.texts: dict[str, bytes] = {}
        self.files: dict[str, _File] = {}
        self.libraries: set[str] = set()
        self.has_open_names = False

    def of(self, path: str, arguments: str) -> Sources:
        self.add(os.path.realpath(path))
        waiting = list(self.files)
        for name in waiting:  # grows
            imported = (*self.packages(name), *self.files[name].find_imports())
            waiting += [other for other in dict.fromkeys(imported) if other not in waiting]
        for file in self.files.values():
            file.check()
        if self.has_open_names and any(map(_OTHER_PLACE.search, (arguments, *self.constants()))):
            raise _More
        return Sources(dict(sorted(self.texts.items())), tuple(sorted(self.libraries & PACKAGES)))

    def constants(self) -> Iterator[str]:
        """Yield the texts and the names of arguments in the code, without the texts that stand alone to describe it."""
        for file in self.files.values():
            for node in file.nodes:
                if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
                    if not isinstance(file.parents.get(node), ast.Expr):
                        yield str(node.value)
                elif isinstance(node, ast.keyword):
                    yield node.arg or ""

    def add(self, path: str) -> None:
        """Read a file. Raises _More if there are too many, it is too large, or Python may run another text."""
        if path in self.files:
            return
        with open(path, "rb") as opened:
            text = opened.read(LARGEST_FILE + 1)
        if len(text) > LARGEST_FILE or len(self.files) >= MOST_FILES or _is_compiled_before(path):
            raise _More
        self.texts[path] = text
        self.files[path] = _File(self, path, ast.parse(text))

    def packages(self, path: str) -> list[str]:
        """Read and return the own files of the packages that a file is in: Python runs them first.

        Raises _More if another package may have the name of the outermost.
        """
        folders = os.path.relpath(os.path.dirname(path), self.root).split(os.sep)
        if folders == [os.curdir]:
            return []
        _require_unique(folders[0], self.root)
        packages = [os.path.join(self.root, *folders[:depth]) for depth in range(1, len(folders) + 1)]
        files = [file for package in packages for file in _package(package)]
        for file in files:
            self.add(file)
        return files

    def module(self, folder: str, name: str) -> list[str] | None:
        """Return the files of a module below a folder, its packages first, which may have none; None without a module.

        Raises _More for a module that is no text, and for one that may be another of the same name.
        """
        *packages, last = name.split(".")
        if not _exists(folder, name.partition(".")[0]):
            return None
        if folder == self.root:
            _require_unique(name.partition(".")[0], folder)
        found = []
        for package in packages:
            folder = os.path.join(folder, package)
            found.append(os.path.join(folder, "__init__.py"))
        if not _exists(folder, last):
            return None
        own, package = os.path.join(folder, f"{last}.py"), os.path.join(folder, last, "__init__.py")
        found.append(own if os.path.isfile(own) and not os.path.isfile(package) else package)
        return list(filter(os.path.isfile, found))  # not where a link leads: Python imports beside the link

    def has_module(self, path: str, name: str) -> bool:
        """Whether a file is a package's own, which does not define a name that is a module in the package."""
        folder, file = os.path.split(path)
        return file == "__init__.py" and name not in self.files[path].names and _exists(folder, name)


def _is_compiled_before(path: str) -> bool:
    """Whether Python compiled a file in the second in which it was last written, before that: it would not notice."""
    try:
        compiled = os.path.getmtime(cache_from_source(path))
    except (OSError, NotImplementedError):
        return False
    written = os.path.getmtime(path)
    return int(compiled) == int(written) and compiled <= written + COARSEST_CLOCK


def _package(folder: str) -> list[str]:
    """Return the file of a package itself, if it has one."""
    own = os.path.join(folder, "__init__.py")
    return [own] if os.path.isfile(own) else []


def _exists(folder: str, name: str) -> bool:
    """Whether a folder has a module of this name. Raises _More for one that is no text."""
    if not os.path.isdir(folder):
        return False
    names = [entry for entry in os.listdir(folder) if entry.partition(".")[0] == name]
    if any(entry.endswith(_COMPILED) for entry in names):
        raise _More
    return f"{name}.py" in names or os.path.isdir(os.path.join(folder, name))


def _require_unique(name: str, root: str) -> None:
    """Raise _More if Python may import another module of this name than that in the root folder.

    A package elsewhere, also in the current folder, goes before a folder without `__init__.py`.
    """
    others = {os.path.realpath(place) for place in (*sys.path, os.getcwd()) if place} - {root}
    places = [os.path.join(other, end) for other in others for end in (name, f"{name}.py")]
    if name in sys.stdlib_module_names or any(map(os.path.exists, places)):
        raise _More


class _File:
    """One file: what its names stand for, and whether its code is closed.

    `names` are the names that it imports, with a library's part (`torch.nn`), or a file and a name in it. `with_all`
    are the modules from which it imports all names: libraries' modules, or files.
    """

    def __init__(self, closure: _Closure, path: str, tree: ast.Module) -> None:
        self.closure, self.path = closure, path
        tree.body = [statement for statement in tree.body if not _is_main(statement)]
        self.nodes = list(ast.walk(tree))
        self.parents = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self.names: dict[str, str | tuple[str, str]] = {}
        self.with_all: list[str | tuple[str, str]] = []

    def find_imports(self) -> list[str]:
        """Note what is imported, and return the files of it."""
        files: list[str] = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    files += self._import(alias)
            elif isinstance(node, ast.ImportFrom):
                files += self._import_from(node)
            elif isinstance(node, ast.Assign):
                self._note_logger(node)
        for path in files:
            self.closure.add(path)
        return files

    def _note(self, name: str, meant: str | tuple[str, str]) -> None:
        """Note what a name stands for. Raises _More if it may stand for something else too, unless both are closed."""
        before = self.names.setdefault(name, meant)
        if before != meant and not (_is_plain(before) and _is_plain(meant)):
            raise _More

    def _import(self, alias: ast.alias) -> list[str]:
        """Note what `import a.b as c` gives, and return the files of it."""
        files = self.closure.module(self.closure.root, alias.name)
        top = alias.name.partition(".")[0]
        if files is None:
            self._require_module(alias.name)
            self._note(alias.asname or top, alias.name if alias.asname else top)
            return []
        if not files or ("." in alias.name and alias.asname is None):
            raise _More  # the name is that of a package, with modules in it
        self._note(alias.asname or top, (files[-1], ""))
        return files

    def _import_from(self, node: ast.ImportFrom) -> list[str]:
        """Note what `from a import b as c` gives, and return the files of it."""
        folder, name = self._folder(node.level), node.module or ""
        files = self.closure.module(folder, name) if name else _package(folder)
        if files is None and node.level:
            raise _More
        if node.names[0].name == "*":
            return self._import_all(name, files)
        return [file for alias in node.names for file in self._import_name(alias, folder, name, files)]

    def _import_all(self, name: str, files: list[str] | None) -> list[str]:
        """Note that all names are imported from a module with these files, a library's without any."""
        if files is None:
            if name not in WITH_ALL:
                raise _More
            self.with_all.append(name)
            return []
        if not files or os.path.basename(files[-1]) == "__init__.py":
            raise _More  # in a package there are modules too
        self.with_all.append((files[-1], ""))
        return files

    def _note_logger(self, node: ast.Assign) -> None:
        """Note a name for a logger, as in `logger = logging.getLogger(__name__)`."""
        if isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name):
            name, parts = _chain(node.value.func)
            if ".".join((str(self.names.get(name)), *parts)) == GET_LOGGER:
                self._note(node.targets[0].id, LOGGER)

    def _import_name(self, alias: ast.alias, folder: str, name: str, files: list[str] | None) -> list[str]:
        """Note one name that is imported from a module with these files, a library's without any."""
        own = alias.asname or alias.name
        if files is None:
            if alias.name in _OPEN_ATTRIBUTES:
                raise _More  # a module that this one imports
            self._require_module(f"{name}.{alias.name}" if name in PARENTS else name)
            self._note(own, f"{name}.{alias.name}")
            return []
        inner = self.closure.module(folder, f"{name}.{alias.name}".lstrip("."))
        if not (files if inner is None else inner):
            raise _More  # a package without a file
        self._note(own, (inner[-1], "") if inner else (files[-1], alias.name))
        return [*files, *(inner or ())]

    def _folder(self, level: int) -> str:
        """Return the folder in which a module is searched: the root, or for a relative import that of the package."""
        folder = self.path if level else self.closure.root
        for _ in range(level):
            folder = os.path.dirname(folder)
        return folder

    def _require_module(self, name: str) -> None:
        """Note the library of a module. Raises _More if it may not be imported."""
        if not is_importable(name):
            raise _More
        self.closure.libraries.add(name.partition(".")[0])

    def check(self) -> None:
        """Raise _More if the code may depend on more than files and libraries."""
        for name, meant in self.names.items():
            if any(other != meant for module in self._files_with_all() for other in module.meanings(name)):
                raise _More  # the later import holds
        for node in self.nodes:
            if isinstance(node, ast.Attribute):
                self._check_attribute(node)
            elif isinstance(node, ast.Name):
                self._check_name(node)
            elif isinstance(node, ast.Set):
                parent = self.parents.get(node)
                if not (isinstance(parent, ast.Compare) and isinstance(parent.ops[0], (ast.In, ast.NotIn))):
                    raise _More
            elif isinstance(node, ast.SetComp) or self._may_make_set(node):
                raise _More

    def _may_make_set(self, node: ast.AST) -> bool:
        """Whether a call is of `keys` or `items`, and not for a loop or an argument: `a.keys() - b` is a set.

        The order of a set differs from run to run.
        """
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            return False
        if node.func.attr not in ("keys", "items"):
            return False
        parent = self.parents.get(node)
        if isinstance(parent, ast.Call):
            return not (isinstance(parent.func, ast.Name) and parent.func.id in _READERS)
        return not isinstance(parent, (ast.For, ast.comprehension, ast.Compare, ast.Starred))

    def _check_attribute(self, node: ast.Attribute) -> None:
        is_library = node.attr == "torch" and self._path(node) in PARENTS  # einops.layers.torch
        if (node.attr in _OPEN_ATTRIBUTES and not is_library) or _is_open_dunder(node.attr):
            raise _More
        if node.attr in _READS and not self._reads_counted(node):
            raise _More
        is_read = isinstance(node.ctx, ast.Load)
        if not is_read and (self._is_imported(_chain(node)[0]) or _is_class_of(node.value)):
            raise _More  # a change of a library or of a module, which other models in the process may meet
        if isinstance(self.parents.get(node), ast.Attribute):
            return
        path = self._path(node)
        if path is not None:
            self._check_path(path, node)

    def _check_name(self, node: ast.Name) -> None:
        if _is_open_dunder(node.id) or (node.id in _OPEN_NAMES and not self._is_parameter(node)):
            raise _More
        parent = self.parents.get(node)
        if node.id in _ATTRIBUTES_BY_NAME:
            self._check_attribute_by_name(node, parent)
        if isinstance(parent, ast.Attribute) or not isinstance(node.ctx, ast.Load):
            return
        path = self._resolved(node.id)
        if path is not None:
            self._check_path(path, node)

    def _check_attribute_by_name(self, node: ast.Name, parent: ast.AST | None) -> None:
        """Check `getattr(x, name)`: the name is known, or x is the module itself or a module of layers."""
        if not isinstance(parent, ast.Call) or parent.func is not node or len(parent.args) < 2:
            raise _More
        of, name = parent.args[:2]
        if node.id == "setattr" and (self._is_imported(_chain(of)[0]) or _is_class_of(of)):
            raise _More
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            path = self._path(of)
            if name.value in _OPEN_ATTRIBUTES | _READS or _is_open_dunder(name.value):
                raise _More
            if path is not None:
                self._check_path(f"{path}.{name.value}", node)
        elif not (isinstance(of, ast.Name) and of.id == "self") and self._path(of) not in VALUES:
            raise _More

    def _check_path(self, path: str, node: ast.AST) -> None:
        """Check a part of a library that the code uses."""
        if path in VALUES:
            return
        has_random_values = is_random(path) or (path == "torch.Tensor" and self._is_called(node))
        if not is_closed(path) or (has_random_values and not self._is_for_values(node)):
            raise _More
        if path == FROM_NUMPY and not self._is_copied(node):
            raise _More
        if path in CREATORS and not self._names_own_model(node):
            raise _More
        if path in REGISTRARS and not self._registers_new(node):
            raise _More
        if path == GET_LOGGER and not self._is_noted_logger(node):
            raise _More

    def _is_noted_logger(self, node: ast.AST) -> bool:
        """Whether a call gives a name of this file, not an attribute of a class, a logger other than ours."""
        call = self.parents.get(node)
        if not isinstance(call, ast.Call) or call.func is not node:
            return False
        above = self.parents.get(call)
        if not isinstance(above, ast.Assign) or len(above.targets) != 1 or not isinstance(above.targets[0], ast.Name):
            return False
        scopes = (part for part in self._ancestors(above) if isinstance(part, (ast.ClassDef, ast.FunctionDef)))
        if isinstance(next(scopes, None), ast.ClassDef):
            return False
        own = [ast.unparse(value) for value in ast.walk(call) if isinstance(value, (ast.Name, ast.Constant))]
        return self.names.get(above.targets[0].id) == LOGGER and not any("vggscope" in name for name in own)

    def _names_own_model(self, node: ast.AST) -> bool:
        """Whether a call of timm's `create_model` names a model of timm, and reads no checkpoint.

        Notes a name that the text does not show.
        """
        call = self.parents.get(node)
        if not isinstance(call, ast.Call) or call.func is not node:
            return False
        options = {keyword.arg: keyword.value for keyword in call.keywords}
        names = [*call.args[:1], *(options[name] for name in ("model_name",) if name in options)]
        if len(call.args) > 2 or len(names) != 1 or isinstance(names[0], ast.Starred) or "checkpoint_path" in options:
            return False
        shown = isinstance(names[0], ast.Constant) and None not in options
        self.closure.has_open_names |= not shown
        return not shown or not _OTHER_PLACE.search(str(getattr(names[0], "value", "")))

    def _registers_new(self, node: ast.AST) -> bool:
        """Whether timm's `register_model` decorates a function that has no name of a model of timm."""
        function = self.parents.get(node)
        if not isinstance(function, ast.FunctionDef) or node not in function.decorator_list:
            return False
        return function.name not in registered_in_timm()

    def _is_copied(self, node: ast.AST) -> bool:
        """Whether what a function returns is copied and has no name, as in `w.copy_(torch.from_numpy(x).float())`."""
        call = self.parents.get(node)
        while isinstance(call, ast.Call) and call.func is node:
            above = self.parents.get(call)
            if isinstance(above, ast.Call) and call in above.args:
                return isinstance(above.func, ast.Attribute) and above.func.attr == "copy_"
            if not isinstance(above, ast.Attribute) or above.attr.endswith("_"):
                return False
            if above.attr == "clone":
                return True
            node, call = above, self.parents.get(above)
        return False

    def _is_called(self, node: ast.AST) -> bool:
        parent = self.parents.get(node)
        return isinstance(parent, ast.Call) and parent.func is node

    def _path(self, node: ast.AST) -> str | None:
        """Return the part of a library that an expression like `torch.nn.Conv2d` names; None for any other.

        Raises _More for a module of the program that is used as a value.
        """
        name, parts = _chain(node)
        return self._resolved(name, parts) if name else None

    def _resolved(self, name: str, parts: Sequence[str] = ()) -> str | None:
        """Return the part of a library that a name of this file stands for, with further attributes; None for none."""
        meant = self.names.get(name)
        if meant is None:
            return self._resolved_in_all(name, parts)
        if isinstance(meant, str):
            return ".".join((meant, *parts))
        file, inner = meant
        names = (inner, *parts) if inner else tuple(parts)
        if not names or self.closure.has_module(file, names[0]):
            raise _More
        return self.closure.files[file]._resolved(names[0], names[1:])

    def _resolved_in_all(self, name: str, parts: Sequence[str]) -> str | None:
        """Return the part of a library that a name stands for if one of the modules has it from which all is imported.

        Raises _More for a name that may be one of Python's modules, and for one that two files give to two parts.
        """
        own = {path for file in self._files_with_all() if (path := file._resolved(name, parts)) is not None}
        others = [module for module in self.with_all if isinstance(module, str)]
        if len(own) > 1 or (others and name in _OPEN_ATTRIBUTES):
            raise _More
        if not all(is_closed(f"{module}.{name}") for module in others):
            raise _More
        if own or not others or name in self.bound:
            return next(iter(own), None)
        return ".".join((others[-1], name, *parts))

    @cached_property
    def bound(self) -> frozenset[str]:
        """The names that the file gives to something itself."""
        names = [node.id for node in self.nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
        names += [node.arg for node in self.nodes if isinstance(node, ast.arg)]
        names += [node.name for node in self.nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        return frozenset(names)

    def meanings(self, name: str) -> Iterator[str | tuple[str, str]]:
        """Yield what a name may stand for that this file imports, also from modules from which it imports all."""
        if name in self.names:
            yield self.names[name]
        for file in self._files_with_all():
            yield from file.meanings(name)

    def _files_with_all(self) -> list[_File]:
        return [self.closure.files[module[0]] for module in self.with_all if isinstance(module, tuple)]

    def _is_imported(self, name: str) -> bool:
        return name in self.names or (bool(name) and bool(self.with_all) and name not in self.bound)

    def _ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        above = self.parents.get(node)
        while above is not None:
            yield above
            above = self.parents.get(above)

    def _is_parameter(self, node: ast.Name) -> bool:
        """Whether a name is that of a parameter of a function around it, as in `def forward(self, input)`."""
        inner: ast.AST = node
        for above in self._ancestors(node):
            if isinstance(above, (ast.FunctionDef, ast.Lambda)) and _is_body(inner, above):
                parameters = above.args
                every = (*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs)
                if any(parameter.arg == node.id for parameter in every):
                    return True
            inner = above
        return False

    def _is_for_values(self, node: ast.AST) -> bool:
        """Whether random numbers are the values of a parameter, or are drawn in forward, where the trace sees them."""
        for above in self._ancestors(node):
            if isinstance(above, ast.Call):
                called = above.func
                name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                if name in ("Parameter", "register_buffer", "register_parameter"):
                    return True
            if isinstance(above, ast.FunctionDef) and above.name == "forward":
                return True
        return False

    def _reads_counted(self, node: ast.AST) -> bool:
        """Whether the expression around a method that reads values computes them, and reads no other tensors."""
        around = [above for above in self._ancestors(node) if isinstance(above, ast.expr)]
        inside = list(ast.walk(around[-1])) if around else []
        reads_own = any(isinstance(part, ast.Name) and part.id == "self" for part in inside)
        return not reads_own and any(self._path(part) in _COUNTED for part in inside if isinstance(part, ast.Attribute))


def _is_plain(meant: str | tuple[str, str]) -> bool:
    """Whether a name stands for a part of a library that may be used in any way."""
    needs_more = {*CREATORS, *REGISTRARS, FROM_NUMPY, GET_LOGGER, LOGGER, "torch.Tensor"}
    return isinstance(meant, str) and is_closed(meant) and not is_random(meant) and meant not in needs_more


def _chain(node: ast.AST) -> tuple[str, list[str]]:
    """Return the name with which an expression like `torch.nn.Conv2d` begins, and the attributes that follow; an empty
    name for one that begins otherwise.
    """
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return node.id if isinstance(node, ast.Name) else "", parts[::-1]


def _is_class_of(node: ast.AST) -> bool:
    """Whether an expression is like `x.__class__` or `type(x)`, which may be a library's class."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "type"
    return isinstance(node, ast.Attribute) and node.attr == "__class__"


def _is_body(node: ast.AST, function: ast.FunctionDef | ast.Lambda) -> bool:
    """Whether a node is in the body of a function, not among its defaults, decorators or annotations."""
    return node is function.body or (isinstance(function.body, list) and node in function.body)


def _is_main(node: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__":` without an else."""
    if not isinstance(node, ast.If) or node.orelse or not isinstance(node.test, ast.Compare):
        return False
    sides = [node.test.left, *node.test.comparators]
    names = [side.id for side in sides if isinstance(side, ast.Name)]
    values = [side.value for side in sides if isinstance(side, ast.Constant)]
    return isinstance(node.test.ops[0], ast.Eq) and names == ["__name__"] and values == ["__main__"]


def _is_open_dunder(name: str) -> bool:
    return name.startswith("__") and name not in _DUNDERS
