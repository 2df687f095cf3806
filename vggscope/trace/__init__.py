"""Trace an nn.Module into a Network by running its forward on meta tensors.

`build` constructs a module without allocating its weights. `run` calls the module; `watch` intercepts every module and
function that forward calls. `modules` and `function_table` map them to ops, and `recorder` stores the nodes with their
inputs. `failure` explains where and why a forward failed.
"""
