"""Files of PyTorch that hold a graph: programs of torch.export, TorchScript archives, whole modules."""
