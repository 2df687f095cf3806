"""From an nn.Module to a Network: its forward runs once, for a batch of one, on tensors without data.

`build` makes a module without allocating its weights; `run` calls it under `watch`, which sees every module and every
function that is called; `modules` and `function_table` say which op each is; `recorder` writes the nodes down, each
with the nodes that gave its inputs; `failure` tells where and why a forward broke off.
"""
