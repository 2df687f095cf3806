"""VGG-16 from a list that is computed from one width."""

from torch import nn


class VGG(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        cfg = [width] * 2 + ["M"] + [2 * width] * 2 + ["M"] + [4 * width] * 3 + ["M"]
        cfg += [8 * width] * 3 + ["M"] + [8 * width] * 3 + ["M"]
        self.layers = nn.ModuleList()
        c = 3
        for v in cfg:
            if v == "M":
                self.layers.append(nn.MaxPool2d(2))
            else:
                self.layers.append(nn.Conv2d(c, v, 3, padding=1))
                self.layers.append(nn.ReLU())
                c = v
        self.fc = nn.Sequential(
            nn.Linear(25088, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 1000),
        )

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.flatten(1))
