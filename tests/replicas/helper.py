"""VGG-11 with batch norm from one function that makes every convolution."""

from torch import nn


def unit(cin, cout):
    return nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU(inplace=True))


def make_net():
    pairs = [(3, 64), None, (64, 128), None, (128, 256), (256, 256), None]
    pairs += [(256, 512), (512, 512), None, (512, 512), (512, 512), None]
    units = [nn.MaxPool2d(2) if pair is None else unit(*pair) for pair in pairs]
    head = [nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(*units, nn.Flatten(), *head, nn.Linear(4096, 1000))
