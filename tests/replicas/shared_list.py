"""VGG-16 and VGG-19 from lists that begin with the same one."""

from torch import nn

START = [64, 64, "M", 128, 128, "M", 256, 256]
CFG = {
    16: [*START, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
    19: [*START, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M"],
}

def make(depth=16, classes=1000):
    layers = []
    c = 3
    for v in CFG[depth]:
        if v == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers.extend([nn.Conv2d(c, v, 3, 1, 1), nn.ReLU(True)])
            c = v
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(25088, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, classes),
    )
