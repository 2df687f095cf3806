"""Architectures in files, read without running code in them: nets of Caffe, models of Keras, ONNX graphs, files of PyTorch.

Each tool has a folder. The files beside them are for all: a layer or a call that a file holds becomes a node here.
"""
