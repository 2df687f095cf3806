"""Architectures in files, read without running code in them: of Caffe, Keras, Lua Torch, MatConvNet, ONNX and PyTorch.

The files beside the folders are for all: a layer or a call that a file holds becomes a node here.
"""
