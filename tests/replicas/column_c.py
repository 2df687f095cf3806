"""Column C, stage by stage in nested Sequentials with names."""

from collections import OrderedDict

from torch import nn


def stage(number, width_in, width, kernels):
    layers = OrderedDict()
    for i, kernel in enumerate(kernels, 1):
        layers[f"conv{number}_{i}"] = nn.Conv2d(width_in, width, kernel, padding=kernel // 2)
        layers[f"relu{number}_{i}"] = nn.ReLU(inplace=True)
        width_in = width
    layers[f"pool{number}"] = nn.MaxPool2d(2, 2)
    return nn.Sequential(layers)


class ColumnC(nn.Sequential):
    def __init__(self):
        super().__init__(
            OrderedDict(
                stage1=stage(1, 3, 64, (3, 3)),
                stage2=stage(2, 64, 128, (3, 3)),
                stage3=stage(3, 128, 256, (3, 3, 1)),
                stage4=stage(4, 256, 512, (3, 3, 1)),
                stage5=stage(5, 512, 512, (3, 3, 1)),
                flatten=nn.Flatten(),
                fc6=nn.Linear(25088, 4096),
                relu6=nn.ReLU(inplace=True),
                drop6=nn.Dropout(0.5),
                fc7=nn.Linear(4096, 4096),
                relu7=nn.ReLU(inplace=True),
                drop7=nn.Dropout(0.5),
                fc8=nn.Linear(4096, 1000),
            )
        )
