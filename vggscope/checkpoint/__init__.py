"""Weights files: what they hold, read without running code in them, and which network that is.

`reader` reads a file's tensor names and shapes, never their data; `inspection` identifies the network.
"""

from __future__ import annotations

SUFFIXES = (
    ".pth",
    ".pt",
    ".safetensors",
    ".ckpt",
    ".pth.tar",
    ".bin",
    ".th",
    ".index.json",
    ".npz",
    ".npy",
    ".h5",
    ".hdf5",
    ".keras",
    ".caffemodel",
    ".mat",
    ".t7",
)
"""Suffixes by which a MODEL word names a checkpoint."""
