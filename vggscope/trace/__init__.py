"""From an nn.Module to a Network: its forward runs once, for a batch of one, on tensors without data.

`recorder` watches the call and writes the nodes down, `modules` and `functions` are the tables that say which op a
class of torch.nn and a function of torch is, `build` makes a module without allocating its weights, `run` puts them
together.
"""
