"""VGG-16 from a tuple of stages, in which a word stands for the pool."""

from torch import nn


class VGG16(nn.Module):
    def __init__(self):
        super().__init__()
        layout = (
            (64, 64, "pool"),
            (128, 128, "pool"),
            (256, 256, 256, "pool"),
            (512, 512, 512, "pool"),
            (512, 512, 512, "pool"),
        )
        layers, c = [], 3
        for stage in layout:
            for item in stage:
                if item == "pool":
                    layers.append(nn.MaxPool2d(2))
                else:
                    layers.append(nn.Conv2d(c, item, 3, padding=1))
                    layers.append(nn.ReLU())
                    c = item
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(25088, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, 1000),
        )

    def forward(self, x):
        return self.head(self.body(x))
