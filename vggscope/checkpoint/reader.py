"""Opens a weights file and reads it by its format, which its first bytes tell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from vggscope.checkpoint.contents import Checkpoint
from vggscope.checkpoint.formats import safetensors, torch_save
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.errors import CheckpointError, printable

_HEAD = 264
"""Bytes that are enough to tell every format; a tar archive's signature ends there."""

_UNSUPPORTED = (
    (b"version https://git-lfs", "a Git LFS pointer in place of the weights", "fetch them with git lfs pull"),
    (b"<", "a web page or XML", "the download failed: fetch the file again"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it", "convert it to a PyTorch state dict first"),
    (b"\x93NUMPY", "a NumPy array", "convert it to a PyTorch state dict first"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it first"),
    (b"BZh", "compressed by bzip2", "unpack it first"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"MATLAB", "a MATLAB file", "convert it to a PyTorch state dict first"),
    (b"GGUF", "a GGUF file", "convert it to .safetensors first"),
    (b"{", "JSON, such as the index of a checkpoint in several files", "give one of those files: each has some layers"),
)
"""Formats that are recognised but not read: their first bytes, what they are, and the remedy."""


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """The names, shapes and dtypes of a checkpoint's tensors. Neither their data is read nor code in the file run.

    Raises CheckpointError, with the reason, where there is no such file or it is refused.
    """
    path = os.fspath(path)
    with explained(path), BoundedFile(path) as file:
        return read_from(file, path)


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
    if head.startswith(b"PK\x03\x04"):
        return torch_save.read_zip(file, path)
    # A header of 640 bytes begins with the bytes of a pickle too: look for the brace, and the zeros of a small length.
    if head[6:9] == b"\0\0{":
        return safetensors.read(file, path)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return torch_save.read_legacy(file, path)
    if head[8:9] == b"{" or path.lower().endswith(".safetensors"):
        return safetensors.read(file, path)
    if head[257:262] == b"ustar":
        raise CheckpointError("it is a tar archive", "unpack it; one that torch before 0.2 wrote, load and save anew")
    if head.startswith(b"\x08") and (head[2:3] == b"\x12" or path.lower().endswith(".onnx")):
        raise CheckpointError("it is an ONNX file", "give the checkpoint that it was exported from")
    if path.lower().endswith((".t7", ".caffemodel")):
        raise CheckpointError("it is a file of Lua Torch or Caffe", "convert it to a PyTorch state dict first")
    for signature, kind, remedy in _UNSUPPORTED:
        if head.lstrip().startswith(signature):
            raise CheckpointError(f"it is {kind}", remedy)
    raise CheckpointError("it is neither a file of torch.save nor a safetensors file", f"it begins with {head[:8]!r}")
