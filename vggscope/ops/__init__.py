"""The operations of a network, one file for each family.

An op is a frozen dataclass that describes itself completely: output shape, parameters, MACs and other operations,
window (for receptive fields), the tensors that autograd saves for backward, its label and its word in a picture, and
what a diff pays for losing it. No file outside ops/ and trace/ knows an op by name.

The fields have the names of the arguments of torch's module of the same name, so that an op prints as torch code and
builds its own module. No op imports torch.
"""
