"""A TorchScript archive of torch.jit.save as a Network: its code is followed on shapes, and never run."""

from __future__ import annotations

import ast
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from vggscope.builders.graph_module import GraphTape
from vggscope.checkpoint.contents import Checkpoint, Extent, StoredModule, StoredTensor
from vggscope.checkpoint.formats.archive import opened
from vggscope.checkpoint.formats.pickle_objects import Instance, Tensor
from vggscope.checkpoint.formats.script_tree import script_modules
from vggscope.checkpoint.formats.torch_save import scanned
from vggscope.checkpoint.reader import read
from vggscope.errors import CheckpointError, OptionError, ShapeError, option, printable
from vggscope.foreign.growth import growth, nodes_with_growth
from vggscope.foreign.program import Program, buffer_value, output_of, parameter_value
from vggscope.foreign.torch.program_tape import program_tape
from vggscope.foreign.torch.script_code import ScriptCode
from vggscope.foreign.torch.script_run import REMEDY, Budget, ScriptRun
from vggscope.foreign.values import ProgramValue, values_in
from vggscope.graph import INPUT, INPUT_MARK, OUTPUT, Buffer, ConstantValue, Input, Network, Output
from vggscope.ops.base import Shape, numel
from vggscope.trace.inputs import SIDES, TOKENS
from vggscope.trace.node_names import cost_warnings
from vggscope.units import DTYPE_BYTES, count_text, shape_text
from vggscope.vgg.labels import labelled
from vggscope.vgg.options import BuildOptions

MOST_OUTPUTS = 100
"""The most tensors of which the network's output is chosen."""

SINGLE = "the program takes only a batch of one, and its shapes do not tell those of another"
"""Why only one batch is known."""

_CODES = {"int64": "q", "int32": "i", "float32": "f", "float64": "d", "bool": "?"}
"""The struct codes of the dtypes of constants whose number is read."""


def network_of_script(path: str, name: str, options: BuildOptions) -> Network:
    """The Network of the program in an archive.

    Raises CheckpointError, without the path, for code that is not followed, ShapeError and OptionError for inputs that
    it does not take.
    """
    with _reading(path, name, options) as reader:
        return reader.network()


def tape_of_script(path: str, name: str, options: BuildOptions) -> tuple[GraphTape, Checkpoint]:
    """The calls of torch's functions that compute the program, with its Network, and the tensors that they read: the
    archive's with the constants of its code. Raises as `network_of_script` does.
    """
    with _reading(path, name, options) as reader:
        network, run = reader.network(), reader.one
        assert run is not None
        tape = program_tape(network, run.program, run.values, run.held, run.results)
        return tape, reader.constants.added_to(read(path))


@contextmanager
def _reading(path: str, name: str, options: BuildOptions) -> Iterator[_ScriptReader]:
    options.refuse_column_options(f"{name} has its layers")
    with opened(path) as (file, archive):
        member = next((m for m in archive.namelist() if m.endswith("/data.pkl") and m.count("/") == 1), "")
        folder = member.removesuffix("data.pkl")
        if not member or folder + "constants.pkl" not in archive.NameToInfo:
            raise CheckpointError("it is no archive of torch.jit.save")
        root, _ = scanned(file, archive, archive.getinfo(member), is_script=True)
        held, _ = scanned(file, archive, archive.getinfo(folder + "constants.pkl"), is_script=True)
        assert isinstance(root, Instance)
        code = ScriptCode(file, archive, folder)
        modules = script_modules(root, code.text_of)
        constants = _Constants(archive, folder, held if isinstance(held, tuple) else ())
        try:
            yield _ScriptReader(root, modules, code, constants, name, options)
        except ShapeError as error:
            raise ShapeError(f"{name}: {error.problem}", error.remedy) from None
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            what = printable(f"{type(error).__name__} {error}", 80)
            raise CheckpointError(f"its code is not of a form that is read ({what})", REMEDY) from None


class _Constants:
    """The constants of the code: their values for a run, and where their data is."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, held: Sequence[object]) -> None:
        self.values = [_constant(archive, folder, tensor) for tensor in held]
        self._tensors = [tensor for tensor in held if isinstance(tensor, Tensor)]
        self._members = {name: archive.NameToInfo.get(f"{folder}constants/{name}") for name in self._storages()}

    def _storages(self) -> list[str]:
        return [tensor.place.storage for tensor in self._tensors if tensor.place is not None]

    def added_to(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint of the archive with these tensors, under the names that the code has for them."""
        storages, tensors = dict(checkpoint.storages), list(checkpoint.tensors)
        for number, tensor in enumerate(self._tensors):
            place = tensor.place
            info = self._members[place.storage] if place is not None else None
            if place is not None and info is not None:
                place = replace(place, storage=f"constants/{place.storage}")
                kind = "zip" if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1 else "packed"
                storages[place.storage] = Extent(info.header_offset, info.file_size, kind)
            tensors.append(StoredTensor(constant_key(number), tensor.shape, tensor.dtype, place, is_buffer=True))
        return replace(checkpoint, tensors=tuple(tensors), storages=storages)


def constant_key(number: int) -> str:
    """The name of a constant in the code."""
    return f"CONSTANTS.c{number}"


def _constant(archive: zipfile.ZipFile, folder: str, tensor: object) -> ProgramValue:
    """A constant of the code, with its number if it is a single one."""
    if not isinstance(tensor, Tensor):
        raise CheckpointError("its constants are not all tensors", REMEDY)
    value = ProgramValue(tensor.shape, tensor.dtype)
    code = _CODES.get(tensor.dtype)
    if tensor.place is None or tensor.shape or code is None:
        return value
    member = archive.NameToInfo.get(f"{folder}constants/{tensor.place.storage}")
    if member is None or member.compress_type != zipfile.ZIP_STORED:
        return value
    with archive.open(member) as stream:
        data = stream.read(min(tensor.place.offset, 64) + 8)[tensor.place.offset :]
    size = struct.calcsize(code)
    if len(data) >= size:
        (number,) = struct.unpack(f"<{code}", data[:size])
        value.known = ConstantValue(repr(number), number=float(number))
    return value


def _named_tensors(root: Instance) -> Iterator[tuple[str, Tensor]]:
    """The tensors of all modules with their keys, as `script_modules` names them."""
    waiting = [("", root)]
    while waiting:
        path, module = waiting.pop()
        prefix = f"{path}." if path else ""
        held = module.attributes.named()
        yield from ((prefix + name, value) for name, value in held.items() if isinstance(value, Tensor))
        parts = [(prefix + name, value) for name, value in held.items() if isinstance(value, Instance)]
        waiting += reversed(parts)


@dataclass
class _ScriptReader:
    """Makes the Network of an archive's module, for the inputs that the caller wants or for chosen ones."""

    root: Instance
    modules: Sequence[StoredModule]
    code: ScriptCode
    constants: _Constants
    name: str
    options: BuildOptions
    one: _FinishedRun | None = None

    def __post_init__(self) -> None:
        elements: dict[str, int] = {}
        for parameter in (parameter for module in self.modules for parameter in module.parameters):
            elements[parameter.dtype] = elements.get(parameter.dtype, 0) + numel(parameter.shape)
        known = (dtype for dtype in sorted(elements, key=elements.__getitem__, reverse=True) if dtype in DTYPE_BYTES)
        self.dtype = next(known, "float32")
        self.budget = Budget()
        self.paths = frozenset(module.path for module in self.modules)

    def network(self) -> Network:
        """The Network. Raises ShapeError or OptionError for inputs that the program does not take."""
        names = self._input_names()
        given, note = self._given(names)
        one, note = self._first(names, given, note)
        self.one = one
        try:
            two = self._run(names, one.shapes, 2)
            nodes = nodes_with_growth(one.program.finished(one.sources), one.program, two.program)
        except (ShapeError, CheckpointError):
            nodes = None
        network = self._network(one, tuple(filter(None, (note, self._frozen()))))
        if nodes is None:
            return replace(network, single=SINGLE)
        inputs = tuple(replace(x, batch_growth=growth(x.shape, y.shape)) for x, y in zip(one.inputs, two.inputs))
        pairs = zip(network.returned, two.results)
        returned = tuple(replace(x, batch_growth=growth(x.shape, value.shape)) for x, value in pairs)
        return labelled(replace(network, nodes=nodes, inputs=inputs, returned=returned))

    def _frozen(self) -> str:
        """A warning on weights that are constants of the code, as torch.jit.freeze leaves them; empty without any."""
        large = [
            value
            for value in self.constants.values
            if value.numel() > 1 and value.dtype.startswith(("float", "bfloat"))
        ]
        if not large:
            return ""
        count = count_text(sum(value.numel() for value in large))
        return (
            f"{len(large)} constants of its code hold {count} values, as torch.jit.freeze leaves weights: no parameters"
        )

    def _input_names(self) -> list[str]:
        """The tensors that forward takes. Raises CheckpointError where it takes others."""
        forward = self.code.method(self.root.kind, "forward")
        if forward is None:
            raise CheckpointError("its code has no forward", REMEDY)
        arguments = forward.args.args[1:]
        required = arguments[: len(arguments) - len(forward.args.defaults)]
        for argument in required:
            if ast.unparse(argument.annotation or ast.Name("Tensor")) != "Tensor":
                kind = printable(ast.unparse(argument.annotation), 60) if argument.annotation else ""
                raise CheckpointError(
                    f"its forward takes {printable(argument.arg, 40)}, a {kind} and no tensor", REMEDY
                )
        if not required:
            raise CheckpointError("its forward takes no tensor", REMEDY)
        return [argument.arg for argument in required]

    def _given(self, names: Sequence[str]) -> tuple[list[tuple[Shape, str]], str]:
        """The shapes and dtypes that the caller gives, for one sample; empty without any."""
        options = self.options
        if options.input is not None:
            return [((1, *options.input), "")], ""
        if options.inputs is None:
            return [], ""
        if options.inputs.data is not None:
            from vggscope.trace.inputs import from_data

            tensors = from_data(options.inputs.data, options.inputs.batch_axis).for_samples(1).tensors()
            return [(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for tensor in tensors], ""
        sizes = options.inputs.sizes
        if options.inputs.batch_axis != 0 or any(size.name and size.name not in names for size in sizes):
            raise OptionError(f"{self.name} takes {', '.join(names)}, with the batch first", "give a size for each")
        first = self._first_weight()
        shapes = []
        for size in sizes:
            shape = size.shape if size.batched else (1, *size.shape)
            if len(sizes) == 1 and len(size.shape) == 1 and len(first) == 4:
                shape = (1, first[1], *size.shape * 2)
            shapes.append((shape, size.dtype))
        return shapes, ""

    def _first_weight(self) -> Shape:
        """The shape of the weight of the first convolution, linear layer or lookup; empty without one."""
        weights = (p.shape for module in self.modules for p in module.parameters if p.name.endswith("weight"))
        return next((shape for shape in weights if len(shape) > 1), ())

    def _first(self, names: Sequence[str], given: list[tuple[Shape, str]], note: str) -> tuple[_FinishedRun, str]:
        """The run on one sample, and a note on the input if it was chosen."""
        if given:
            if len(given) != len(names):
                raise OptionError(f"{self.name} takes {', '.join(names)}", f"give {option('input_size')} for each")
            return self._run(names, given, 1), ""
        weight = self._first_weight()
        if len(names) > 1 or len(weight) not in (2, 4):
            what = ", ".join(names)
            raise ShapeError(f"the file does not tell the sizes of {what}", f"give {option('input_size')} for each")
        is_lookup = any(m.kind.endswith(".Embedding") for m in self.modules[:3]) and len(weight) == 2
        if len(weight) == 4:
            tried: list[tuple[Shape, str]] = [((1, weight[1], side, side), "") for side in SIDES]
        else:
            tried = [((1, TOKENS), "int64") if is_lookup else ((1, weight[1]), "")]
        first_error: ShapeError | None = None
        for shape, dtype in tried:
            try:
                run = self._run(names, [(shape, dtype)], 1)
            except ShapeError as error:
                first_error = first_error or error
                continue
            text = shape_text(shape)
            note = f"no input was given: {text} was taken; {option('input_size')} gives another"
            return run, "" if shape[-1] == SIDES[0] else note
        assert first_error is not None
        raise first_error

    def _run(self, names: Sequence[str], given: Sequence[tuple[Shape, str]], batch: int) -> _FinishedRun:
        program = Program(self.dtype, self.paths)
        parents = frozenset(path.rpartition(".")[0] for path in self.paths)
        tensors, held = self._tensors()
        values, inputs = [], []
        for argument, (shape, dtype) in zip(names, given):
            label = argument + INPUT_MARK if argument in self.paths else argument
            name = INPUT if len(names) == 1 else label
            value = ProgramValue((batch, *shape[1:]), dtype or self.dtype)
            program.given(name, value)
            values.append(value)
            inputs.append(Input(name, value.shape, "" if value.dtype == self.dtype else value.dtype))
        constants = [replace(value) for value in self.constants.values]
        held += [(value, constant_key(number)) for number, value in enumerate(constants)]
        run = ScriptRun(self.code, program, tensors, constants, parents, self.budget)
        returned = run.forward(self.root, values)
        return _FinishedRun(program, tuple(inputs), given, returned, values, held)

    def _tensors(self) -> tuple[dict[int, ProgramValue], list[tuple[ProgramValue, str]]]:
        """The tensors of the modules as constants, by the identity of the file's, and with their keys."""
        parameters = {p.name: p for module in self.modules for p in module.parameters}
        values: dict[int, ProgramValue] = {}
        keys: list[tuple[ProgramValue, str]] = []
        for key, tensor in _named_tensors(self.root):
            if id(tensor) in values:
                continue
            own = "" if tensor.dtype == self.dtype else tensor.dtype
            parameter = parameters.get(key)
            values[id(tensor)] = (
                buffer_value(key, tensor.shape, tensor.dtype)
                if parameter is None
                else parameter_value(replace(parameter, dtype=own), tensor.dtype)
            )
            keys.append((values[id(tensor)], key))
        return values, keys

    def _network(self, run: _FinishedRun, warnings: tuple[str, ...]) -> Network:
        program = run.program
        output, place = output_of(program.nodes, [value.source for value in run.results][:MOST_OUTPUTS])
        nodes = program.finished(run.sources)
        if output is None or not nodes:
            raise CheckpointError("its code computes nothing from its inputs", REMEDY)
        returned = tuple(
            Output(label, value.shape, "" if value.dtype == self.dtype else value.dtype, source=value.source)
            for label, value in zip(run.labels, run.results)
        )
        read = program.read
        every = dict.fromkeys(p for module in self.modules for p in module.parameters if p.name not in read)
        unused = (replace(p, dtype="" if p.dtype == self.dtype else p.dtype) for p in every)
        return Network(
            self.name,
            run.inputs,
            nodes,
            tuple((parameter, "not used by forward") for parameter in unused),
            (*warnings, *program.warnings, *cost_warnings(program.unknown)),
            output=output if output != nodes[-1].name else None,
            output_place=place,
            returned=returned,
            tables=self._tables(run),
            dtype=self.dtype,
        )

    def _tables(self, run: _FinishedRun) -> tuple[Buffer, ...]:
        """The buffers that belong to no layer."""
        layers = [node for node in run.program.nodes.values() if node.module is not None]
        owned = {f"{node.module}.{name}" for node in layers for name in node.op.buffers()}
        buffers = dict.fromkeys(buffer for module in self.modules for buffer in module.buffers)
        return tuple(
            replace(buffer, dtype="" if buffer.dtype == self.dtype else buffer.dtype)
            for buffer in buffers
            if buffer.name not in owned
        )


@dataclass
class _FinishedRun:
    """What one run of forward recorded and returned. `shapes` are those of its inputs for one sample.

    `values` are its inputs, and `held` the tensors of the archive with their keys.
    """

    program: Program
    inputs: tuple[Input, ...]
    shapes: Sequence[tuple[Shape, str]]
    returned: Any
    values: Sequence[ProgramValue]
    held: Sequence[tuple[ProgramValue, str]]

    @property
    def results(self) -> tuple[ProgramValue, ...]:
        """The tensors that forward returns."""
        return values_in(self.returned)

    @property
    def labels(self) -> list[str]:
        """The names of these tensors."""
        if isinstance(self.returned, dict):
            named = [(key, values_in(value)) for key, value in self.returned.items()]
            return [str(key) if len(held) == 1 else f"{key}[{i}]" for key, held in named for i in range(len(held))]
        count = len(self.results)
        return [OUTPUT] if isinstance(self.returned, ProgramValue) else [f"{OUTPUT}[{i}]" for i in range(count)]

    @property
    def sources(self) -> frozenset[str]:
        """The nodes and inputs that are returned."""
        return frozenset(value.source for value in self.results)
