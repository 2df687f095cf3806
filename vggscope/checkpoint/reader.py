"""Opens a weights file and reads it by its format, which its first bytes tell."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from vggscope.checkpoint.contents import Checkpoint, StoredTensor
from vggscope.checkpoint.folder import weights_in
from vggscope.checkpoint.formats import (
    caffemodel,
    export_archive,
    hdf5,
    matconvnet,
    matlab,
    numpy_files,
    onnx_file,
    safetensors,
    torch7,
    torch_save,
    torch_tar,
)
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.pickle_objects import LARGEST_COUNT
from vggscope.checkpoint.formats.shard_index import read_index
from vggscope.errors import CheckpointError, printable

_HEAD = 264
"""Bytes that are enough to tell every format; a tar archive's signature ends there."""

_NO_PICTURE = "name a model: D, my_vgg.py:Net, or a file of weights"

_UNSUPPORTED = (
    (b"version https://git-lfs", "a Git LFS pointer in place of the weights", "fetch them with git lfs pull"),
    (b"<", "a web page or XML", "the download failed: fetch the file again"),
    (b"PK\x05\x06", "an empty zip archive", "copy or download it again"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it first"),
    (b"BZh", "compressed by bzip2", "unpack it first"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"GGUF", "a GGUF file", "convert it to .safetensors first"),
    (b"\x89PNG", "a PNG image", _NO_PICTURE),
    (b"\xff\xd8\xff", "a JPEG image", _NO_PICTURE),
    (b"GIF8", "a GIF image", _NO_PICTURE),
    (b"%PDF", "a PDF file", _NO_PICTURE),
)
"""Formats that are recognised but not read: their first bytes, what they are, and the remedy."""


_MOST_HEADERS = 16 * 2**20
"""Bytes of headers that all shards of a checkpoint may have: as many as one file may."""


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """The names, shapes and dtypes of a checkpoint's tensors. Neither their data is read nor code in the file run.

    `path` may be the index of a checkpoint in several files, and a folder as Hugging Face keeps it.

    Raises CheckpointError, with the reason, where there is no such file or it is refused.
    """
    path = weights_path(path)
    with explained(path), BoundedFile(path) as file:
        return read_from(file, path)


def weights_path(path: str | os.PathLike[str]) -> str:
    """The path itself, or for a folder as Hugging Face keeps it that of the weights in it."""
    path = os.fspath(path)
    return (weights_in(path) if os.path.isdir(path) else None) or path


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Raise the errors of a file's readers as CheckpointError with its path."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{printable(path, 200)}: {error.problem}", error.remedy) from None
    except (OSError, MemoryError, RecursionError) as error:
        raise CheckpointError(f"{printable(path, 200)}: it cannot be read: {printable(str(error))}") from None


def read_from(file: BoundedFile, path: str) -> Checkpoint:
    """What `read` returns, from an open file. Raises CheckpointError without the path."""
    file.allow(_HEAD)
    head = file.read(_HEAD)
    is_json = head.lstrip().startswith(b"{") and head[6:9] != b"\0\0{"
    return _read_shards(file, path) if is_json else _read_single(file, path, head)


def _read_shards(file: BoundedFile, path: str) -> Checkpoint:
    """The checkpoint whose index is in the file: the tensors of all shards, shard by shard."""
    shard_of = read_index(file)
    counts = Counter(shard_of.values())
    folder, budget, shards = os.path.dirname(path), _MOST_HEADERS, []
    tensors: list[StoredTensor] = []
    beside: list[str] = []
    for name in sorted(counts):
        shard_path = os.path.join(folder, name)
        if not os.path.exists(shard_path):
            raise CheckpointError(
                f"its shard {printable(name)} is missing, which has {counts[name]} of its {len(shard_of)} tensors",
                "copy or download it to the folder of the index",
            )
        with explained(shard_path), BoundedFile(shard_path) as shard_file:
            shard_file.allow(_HEAD)
            shard = _read_single(shard_file, shard_path, shard_file.read(_HEAD))
            budget -= shard_file.bytes_read + shard_file.bytes_inflated
        own = tuple(tensor for tensor in shard.tensors if shard_of.get(tensor.name) == name)
        if len(own) < counts[name]:
            held = {tensor.name for tensor in own}
            absent = next(key for key, where in shard_of.items() if where == name and key not in held)
            raise CheckpointError(f"its shard {printable(name)} does not hold {printable(absent)}, as the index says")
        tensors += own
        beside += (*shard.beside, *(tensor.name for tensor in shard.tensors if shard_of.get(tensor.name) != name))
        shards.append(replace(shard, tensors=own))
        if len(tensors) + len(beside) > LARGEST_COUNT or budget < 0:
            raise CheckpointError("its shards hold more than any checkpoint", "it is damaged or malicious")
    return _merged(path, tuple(tensors), tuple(beside), tuple(shards))


def _merged(
    path: str, tensors: tuple[StoredTensor, ...], beside: tuple[str, ...], shards: tuple[Checkpoint, ...]
) -> Checkpoint:
    wrappers = {shard.wrapper for shard in shards}
    formats = {shard.format for shard in shards}
    if len(wrappers) > 1 or len(formats) > 1:
        raise CheckpointError("its shards are of different kinds", "it is damaged: copy or download it again")
    return replace(
        shards[0],
        path=path,
        tensors=tensors,
        beside=beside,
        guarded=tuple(sorted({name for shard in shards for name in shard.guarded})),
        sparse=tuple(name for shard in shards for name in shard.sparse),
        packed=tuple(name for shard in shards for name in shard.packed),
        storages={},
        shards=shards,
    )


def _read_single(file: BoundedFile, path: str, head: bytes) -> Checkpoint:
    """The checkpoint in one file, whose first bytes are `head`."""
    reader = next((reader for fits, reader in _READERS if fits(head, path.lower())), None)
    if reader is None:
        raise _unsupported(head, path.lower())
    return reader(file, path)


def _is_npz(head: bytes, path: str) -> bool:
    """Whether the first member of a zip archive is an array."""
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    return head.startswith(_ZIP) and name.endswith(b".npy")


_ZIP = b"PK\x03\x04"

_READERS: tuple[tuple[Callable[[bytes, str], bool], Callable[[BoundedFile, str], Checkpoint]], ...] = (
    # Protobuf has no signature.
    (lambda head, path: path.endswith(".caffemodel"), caffemodel.read),
    (lambda head, path: path.endswith(".onnx"), onnx_file.read),
    (lambda head, path: path.endswith(".t7") or torch7.BINARY.match(head) is not None, torch7.read),
    (_is_npz, numpy_files.read_npz),
    (lambda head, path: head.startswith(_ZIP) and path.endswith(".keras"), hdf5.read_keras),
    (lambda head, path: head.startswith(_ZIP) and path.endswith(".pt2"), export_archive.read),
    (lambda head, path: head.startswith(hdf5.MAGIC), hdf5.read),
    (lambda head, path: head.startswith(matlab.MAGIC), matconvnet.read),
    (lambda head, path: head.startswith(_ZIP), torch_save.read_zip),
    (lambda head, path: head.startswith(numpy_files.MAGIC), numpy_files.read_npy),
    # A header of 640 bytes begins with the bytes of a pickle too: look for the brace, and the zeros of a small length.
    (lambda head, path: head[6:9] == b"\0\0{", safetensors.read),
    (
        lambda head, path: head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"),
        torch_save.read_legacy,
    ),
    (lambda head, path: head[257:262] == b"ustar", torch_tar.read),
    (lambda head, path: head[8:9] == b"{" or path.endswith(".safetensors"), safetensors.read),
)
"""The formats: whether a file's first bytes and its path, in small letters, are those of one, and what reads it."""


def _unsupported(head: bytes, path: str) -> CheckpointError:
    """The error that names what a file is that has none of the formats."""
    if head.startswith(b"\x08") and head[2:3] == b"\x12":
        return CheckpointError("it is an ONNX file", "give it the suffix .onnx")
    for signature, kind, remedy in _UNSUPPORTED:
        if head.lstrip().startswith(signature):
            return CheckpointError(f"it is {kind}", remedy)
    if path.endswith((".py", ".ipynb")):
        return CheckpointError("it is Python code, no file of weights", "summary and the other commands read it")
    if path.endswith(".prototxt"):
        remedy = "summary and the other commands read it; give the .caffemodel with its weights"
        return CheckpointError("it is an architecture of Caffe and holds no weights", remedy)
    if path.endswith(".toml"):
        return CheckpointError(
            "it holds columns and no weights", "summary and the other commands read one as FILE.toml:NAME"
        )
    # Its bytes are not shown: `vggscope mcp` may be asked for any file, and a model's suffix does not make it one.
    remedy = "copy or download it again; .onnx, .caffemodel, .t7 and .pt2 are known by their suffix"
    return CheckpointError("it is neither a file of torch.save nor a safetensors file", remedy)
