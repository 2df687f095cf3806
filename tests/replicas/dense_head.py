"""VGG-16 as the paper tests it: the FC layers are convolutions, so that any larger image goes in."""

from torch import nn


class FullyConvolutional(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [(3, 64), (64, 64), None, (64, 128), (128, 128), None]
        widths += [(128, 256), (256, 256), (256, 256), None]
        widths += [(256, 512), (512, 512), (512, 512), None, (512, 512), (512, 512), (512, 512), None]
        self.body = nn.ModuleList()
        for pair in widths:
            if pair is None:
                self.body.append(nn.MaxPool2d(2, 2))
            else:
                self.body.append(nn.Conv2d(*pair, kernel_size=3, padding="same"))
                self.body.append(nn.ReLU(inplace=True))
        self.fc6 = nn.Conv2d(512, 4096, kernel_size=7)
        self.fc7 = nn.Conv2d(4096, 4096, kernel_size=1)
        self.fc8 = nn.Conv2d(4096, 1000, kernel_size=1)
        self.act = nn.ReLU()
        self.drop = nn.Dropout2d(0.5)

    def forward(self, x):
        for layer in self.body:
            x = layer(x)
        x = self.drop(self.act(self.fc6(x)))
        x = self.drop(self.act(self.fc7(x)))
        return self.fc8(x).flatten(1)
