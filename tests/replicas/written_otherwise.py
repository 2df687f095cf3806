"""VGG-11 in which a layer is written otherwise. Each function gives one way; the network stays the same."""

import torch
import torch.nn.functional as F
from torch import nn


class VGG11(nn.Module):
    """Column A, whose parts a subclass replaces."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(*widths, 3, padding=self.padding())
            for widths in ((3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512))
        )
        self.fc1, self.fc2, self.fc3 = self.classifier()
        self.drop = self.dropout()

    def padding(self):
        return 1

    def classifier(self):
        return nn.Linear(512 * 7 * 7, 4096), nn.Linear(4096, 4096), nn.Linear(4096, 1000)

    def dropout(self):
        return nn.Dropout()

    def relu(self, x):
        return F.relu(x)

    def conv(self, layer, x):
        return layer(x)

    def pool(self, x):
        return F.max_pool2d(x, 2)

    def before_head(self, x):
        return x

    def forward(self, x):
        for place, layer in enumerate(self.convs):
            x = self.relu(self.conv(layer, x))
            if place in (0, 1, 3, 5, 7):
                x = self.pool(x)
        x = torch.flatten(self.before_head(x), 1)
        x = self.drop(self.relu(self.fc1(x)))
        x = self.drop(self.relu(self.fc2(x)))
        return self.fc3(x)


class LeakyZero(VGG11):
    def relu(self, x):
        return F.leaky_relu(x, 0.0)


class Clamp(VGG11):
    def relu(self, x):
        return x.clamp(min=0)


class Threshold(VGG11):
    def relu(self, x):
        return F.threshold(x, 0.0, 0.0)


class Maximum(VGG11):
    def relu(self, x):
        return torch.maximum(x, torch.zeros_like(x))


class MaximumOfNumber(VGG11):
    def relu(self, x):
        return torch.maximum(x, torch.tensor(0.0))


class PaddedByHand(VGG11):
    def padding(self):
        return 0

    def conv(self, layer, x):
        return layer(F.pad(x, (1, 1, 1, 1)))


class AdaptivePool(VGG11):
    def pool(self, x):
        return F.adaptive_max_pool2d(x, x.shape[-1] // 2)


class Resized(VGG11):
    def before_head(self, x):
        return F.interpolate(x, size=(7, 7), mode="bilinear", align_corners=False)


class Scaled(VGG11):
    def before_head(self, x):
        return x * 1.0 + 0


class Chunked(VGG11):
    def before_head(self, x):
        return torch.cat(x.chunk(4, 1), 1)


class Squeezed(VGG11):
    def before_head(self, x):
        return x.unsqueeze(1).squeeze(1)


class Alpha(VGG11):
    def dropout(self):
        return nn.AlphaDropout()


class Where(VGG11):
    def relu(self, x):
        return torch.where(x > 0, x, 0)


class Masked(VGG11):
    def relu(self, x):
        return x * (x > 0)


class FilledBelowZero(VGG11):
    def relu(self, x):
        return x.masked_fill(x < 0, 0)


class SetBelowZero(VGG11):
    def relu(self, x):
        x[x < 0] = 0
        return x


class HalfOfSum(VGG11):
    def relu(self, x):
        return (x + x.abs()) / 2


class InPlace(VGG11):
    def relu(self, x):
        return torch.relu_(x)


class BiasApart(VGG11):
    def conv(self, layer, x):
        return F.conv2d(x, layer.weight, padding=1) + layer.bias.view(1, -1, 1, 1)


class Flipped(VGG11):
    def before_head(self, x):
        return x.flip(2).flip([2])


class ByHand(VGG11):
    """The fully connected layers are products of matrices."""

    def forward(self, x):
        for place, layer in enumerate(self.convs):
            x = F.relu(layer(x))
            if place in (0, 1, 3, 5, 7):
                x = F.max_pool2d(x, kernel_size=2, ceil_mode=True)
        x = x.view(x.size(0), -1)
        x = self.drop(F.relu(x @ self.fc1.weight.t() + self.fc1.bias))
        x = self.drop(F.relu(torch.addmm(self.fc2.bias, x, self.fc2.weight.T)))
        return self.fc3.bias + torch.matmul(x, self.fc3.weight.transpose(0, 1))


class ChannelsLast(VGG11):
    """The last layers are 1x1 convolutions in another layout, with the weights of linear layers."""

    def forward(self, x):
        for place, layer in enumerate(self.convs):
            x = F.relu(layer(x))
            if place in (0, 1, 3, 5, 7):
                x = F.max_pool2d(x, 2)
        x = self.drop(F.relu(self.fc1(torch.flatten(x, 1))))[:, :, None, None]
        x = F.relu(F.conv2d(x, self.fc2.weight[:, :, None, None], self.fc2.bias))
        x = self.fc3(self.drop(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x.squeeze(-1).squeeze(-1)


class Pixels(VGG11):
    """The last layers are 1x1 convolutions."""

    def classifier(self):
        return nn.Linear(512 * 7 * 7, 4096), nn.Conv2d(4096, 4096, 1), nn.Conv2d(4096, 1000, 1)

    def forward(self, x):
        for place, layer in enumerate(self.convs):
            x = F.relu(layer(x))
            if place in (0, 1, 3, 5, 7):
                x = F.max_pool2d(x, 2)
        x = self.drop(F.relu(self.fc1(torch.flatten(x, 1))))[:, :, None, None]
        return self.fc3(self.drop(F.relu(self.fc2(x)))).flatten(1)


class Shared(VGG11):
    """Not column A: conv5_1 is called twice, conv5_2 never."""

    def __init__(self):
        super().__init__()
        self.convs[7] = self.convs[6]


class Tied(VGG11):
    """Not column A: conv4_2, conv5_1 and conv5_2 have the same weights."""

    def __init__(self):
        super().__init__()
        self.convs[6].weight = self.convs[7].weight = self.convs[5].weight


class Normalised(VGG11):
    """Not column A: the input is normalised in forward."""

    def conv(self, layer, x):
        return layer((x - 0.5) / 0.224 if x.shape[1] == 3 else x)
