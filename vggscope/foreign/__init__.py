"""Architectures in files of other tools, read without running code in them: an ONNX graph as a Network."""
