"""What a layer is: one file for each family of operation.

An op is a frozen dataclass that tells everything about itself in one place: the shape that it gives (`output_shape`),
the parameters that it owns, its MACs, the window through which a unit of it looks (for receptive fields), what
autograd keeps of it for the backward pass, and whether it works in place. Its fields are named as torch names the
arguments of the module of the same name, so that an op prints itself as torch code and builds its own module. No op
knows torch.
"""
