"""Architectures in files of other tools, read without running code in them: ONNX graphs, programs of torch.export."""
