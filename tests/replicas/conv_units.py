"""VGG-13 with batch norm, of units that hold a convolution, its norm and its activation."""

from torch import nn


class Unit(nn.Module):
    def __init__(self, in_ch, out_ch):
        super().__init__()
        self.conv = nn.Conv2d(in_channels=in_ch, out_channels=out_ch, kernel_size=3, stride=1, padding=1)
        self.bn = nn.BatchNorm2d(num_features=out_ch)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.bn(self.conv(x)))


class VGG13(nn.Module):
    def __init__(self):
        super().__init__()
        self.stage1 = nn.Sequential(Unit(3, 64), Unit(64, 64))
        self.stage2 = nn.Sequential(Unit(64, 128), Unit(128, 128))
        self.stage3 = nn.Sequential(Unit(128, 256), Unit(256, 256))
        self.stage4 = nn.Sequential(Unit(256, 512), Unit(512, 512))
        self.stage5 = nn.Sequential(Unit(512, 512), Unit(512, 512))
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.head = nn.Sequential(
            nn.Linear(7 * 7 * 512, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()
        )
        self.out = nn.Linear(4096, 1000)

    def forward(self, x):
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4, self.stage5):
            x = self.pool(stage(x))
        return self.out(self.head(self.flatten(x)))
