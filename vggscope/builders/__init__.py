"""Builds what runs elsewhere from a Network: an nn.Module, PyTorch source code, weights, an ONNX graph."""
