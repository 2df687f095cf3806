"""From a Network to things that run elsewhere: an nn.Module, a source file, weights, an ONNX graph."""
