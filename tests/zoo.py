"""Small modules of every kind of input and output, each a factory that returns the module and what its forward takes.

The inputs are a tuple (positional arguments) or a dict (keyword arguments) for a batch of one, unless the group says
otherwise. `ZOO` names every factory; tests/test_zoo.py holds each to torch's own counts.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Inputs = tuple[object, ...] | dict[str, object]
Factory = Callable[[], tuple[nn.Module, Inputs]]

ZOO: dict[str, Factory] = {}


def animal(factory: Factory) -> Factory:
    ZOO[factory.__name__] = factory
    return factory


def tokens(*shape: int, vocabulary: int = 50) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape) % vocabulary


class Calls(nn.Module):
    """A module whose forward is a function of the module and its inputs; its parts are registered by name."""

    def __init__(self, function: Callable[..., object], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: object, **kwargs: object) -> object:
        return self.function(self, *args, **kwargs)


# Images


@animal
def image_classifier():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16 * 16, 10)
    )
    return net, (torch.zeros(1, 3, 32, 32),)


@animal
def grey_image():
    return nn.Sequential(nn.Conv2d(1, 4, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 8, 3)), (
        torch.zeros(1, 1, 28, 28),
    )


@animal
def image_with_batch_norm():
    return nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.SiLU()), (torch.zeros(1, 3, 20, 24),)


@animal
def depthwise_separable():
    return nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1), nn.Hardswish()), (
        torch.zeros(1, 8, 17, 17),
    )


@animal
def transposed_convolution():
    return nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1)), (
        torch.zeros(1, 3, 32, 32),
    )


@animal
def dilated_reflected():
    return nn.Conv2d(3, 5, 3, padding=2, dilation=2, padding_mode="reflect"), (torch.zeros(1, 3, 16, 16),)


@animal
def convolution_same_padding():
    return nn.Sequential(nn.Conv2d(3, 4, 4, padding="same"), nn.ReLU()), (torch.zeros(1, 3, 15, 15),)


@animal
def residual_block():
    def forward(self, x):
        return F.relu(x + self.b(F.relu(self.a(x))))

    return Calls(forward, a=nn.Conv2d(4, 4, 3, padding=1), b=nn.Conv2d(4, 4, 3, padding=1)), (
        torch.zeros(1, 4, 12, 12),
    )


@animal
def squeeze_excite():
    def forward(self, x):
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))

    return Calls(forward, down=nn.Conv2d(8, 2, 1), up=nn.Conv2d(2, 8, 1)), (torch.zeros(1, 8, 9, 9),)


@animal
def unet_skip():
    def forward(self, x):
        small = self.down(F.max_pool2d(x, 2))
        return self.out(torch.cat([x, F.interpolate(small, scale_factor=2.0)], 1))

    return Calls(forward, down=nn.Conv2d(3, 6, 3, padding=1), out=nn.Conv2d(9, 2, 1)), (torch.zeros(1, 3, 16, 16),)


@animal
def pixel_shuffle():
    return nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)), (torch.zeros(1, 3, 8, 8),)


@animal
def dense_score_map():
    return nn.Sequential(nn.Conv2d(3, 4, 7), nn.ReLU(), nn.Dropout2d(), nn.Conv2d(4, 2, 1)), (
        torch.zeros(1, 3, 31, 40),
    )


@animal
def group_norm():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.GELU()), (torch.zeros(1, 3, 10, 10),)


@animal
def instance_norm():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8)), (
        torch.zeros(1, 3, 10, 10),
    )


@animal
def local_response_norm():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.LocalResponseNorm(5)), (torch.zeros(1, 3, 12, 12),)


@animal
def adaptive_pools():
    def forward(self, x):
        return torch.cat([F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)], 1).flatten(1)

    return Calls(forward), (torch.zeros(1, 5, 11, 13),)


@animal
def max_pool_with_indices():
    def forward(self, x):
        y, where = F.max_pool2d(self.conv(x), 2, return_indices=True)
        return F.max_unpool2d(y, where, 2)

    return Calls(forward, conv=nn.Conv2d(3, 4, 3, padding=1)), (torch.zeros(1, 3, 8, 8),)


@animal
def grid_sampler():
    def forward(self, x):
        theta = self.locate(x.flatten(1)).view(-1, 2, 3)
        return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)

    return Calls(forward, locate=nn.Linear(3 * 64, 6)), (torch.zeros(1, 3, 8, 8),)


@animal
def patch_embedding_and_attention():
    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.block(x)[:, 0])

    net = Calls(
        forward,
        embed=nn.Conv2d(3, 16, 4, 4),
        token=nn.Parameter(torch.zeros(1, 1, 16)),
        position=nn.Parameter(torch.zeros(1, 17, 16)),
        block=nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
        head=nn.Linear(16, 5),
    )
    return net, (torch.zeros(1, 3, 16, 16),)


@animal
def channels_last_norm():
    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    return Calls(forward, norm=nn.LayerNorm(6)), (torch.zeros(1, 6, 7, 7),)


# Signals: batch x channels x length


@animal
def signal_classifier():
    net = nn.Sequential(
        nn.Conv1d(1, 8, 80, 16),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(4),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    return net, (torch.zeros(1, 1, 1600),)


@animal
def signal_three_channels():
    return nn.Conv1d(3, 4, 3), (torch.zeros(1, 3, 50),)


@animal
def wavenet_block():
    def forward(self, x):
        gate = torch.tanh(self.filter(x)) * torch.sigmoid(self.gate(x))
        return x[:, :, 4:] + self.out(gate), self.skip(gate)

    net = Calls(
        forward,
        filter=nn.Conv1d(4, 4, 3, dilation=2),
        gate=nn.Conv1d(4, 4, 3, dilation=2),
        out=nn.Conv1d(4, 4, 1),
        skip=nn.Conv1d(4, 8, 1),
    )
    return net, (torch.zeros(1, 4, 32),)


@animal
def signal_up():
    return nn.Sequential(nn.ConvTranspose1d(4, 2, 4, 2, 1), nn.LeakyReLU(0.2), nn.Upsample(scale_factor=2)), (
        torch.zeros(1, 4, 16),
    )


@animal
def causal_padding():
    def forward(self, x):
        return self.conv(F.pad(x, (2, 0)))

    return Calls(forward, conv=nn.Conv1d(4, 6, 3)), (torch.zeros(1, 4, 20),)


@animal
def spectrogram():
    def forward(self, x):
        windows = torch.hann_window(32)
        return self.conv(torch.stft(x, 32, 16, window=windows, return_complex=True).abs()[:, None])

    return Calls(forward, conv=nn.Conv2d(1, 4, 3)), (torch.zeros(1, 320),)


# Volumes and video: batch x channels x depth x height x width


@animal
def video_classifier():
    net = nn.Sequential(
        nn.Conv3d(3, 4, (3, 5, 5), padding=(1, 2, 2)),
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    return net, (torch.zeros(1, 3, 8, 16, 16),)


@animal
def volume_up():
    return nn.Sequential(nn.Conv3d(1, 2, 3), nn.ConvTranspose3d(2, 1, 3)), (torch.zeros(1, 1, 6, 7, 8),)


@animal
def video_two_plus_one():
    return nn.Sequential(nn.Conv3d(3, 6, (1, 3, 3)), nn.ReLU(), nn.Conv3d(6, 4, (3, 1, 1))), (
        torch.zeros(1, 3, 5, 9, 9),
    )


@animal
def frames_as_batch():
    def forward(self, x):
        batch, frames = x.shape[:2]
        y = self.conv(x.flatten(0, 1)).mean((2, 3))
        return self.head(y.view(batch, frames, -1).mean(1))

    return Calls(forward, conv=nn.Conv2d(3, 4, 3), head=nn.Linear(4, 2)), (torch.zeros(1, 6, 3, 8, 8),)


# Rows of features


@animal
def rows():
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(1)), (torch.zeros(1, 20),)


@animal
def rows_batch_norm():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ELU(), nn.AlphaDropout(0.2)), (torch.zeros(1, 6),)


@animal
def flattened_rows():
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 32), nn.ReLU(), nn.Linear(32, 10)), (
        torch.zeros(1, 1, 28, 28),
    )


@animal
def autoencoder():
    return nn.Sequential(nn.Linear(12, 4), nn.Sigmoid(), nn.Linear(4, 12)), (torch.zeros(1, 12),)


@animal
def bilinear_pair():
    return nn.Bilinear(5, 7, 3), (torch.zeros(1, 5), torch.zeros(1, 7))


@animal
def mixture_of_experts():
    def forward(self, x):
        weights = self.gate(x).softmax(-1)
        outputs = torch.stack([expert(x) for expert in self.experts], 1)
        return (weights[..., None] * outputs).sum(1)

    return Calls(forward, gate=nn.Linear(6, 3), experts=nn.ModuleList(nn.Linear(6, 4) for _ in range(3))), (
        torch.zeros(1, 6),
    )


@animal
def einsum_layer():
    def forward(self, x):
        return torch.einsum("bi,oi->bo", x, self.weight)

    return Calls(forward, weight=nn.Parameter(torch.zeros(4, 9))), (torch.zeros(1, 9),)


@animal
def matrix_by_hand():
    def forward(self, x):
        return x @ self.weight + self.bias

    return Calls(forward, weight=nn.Parameter(torch.zeros(9, 4)), bias=nn.Parameter(torch.zeros(4))), (
        torch.zeros(1, 9),
    )


@animal
def tied_autoencoder():
    def forward(self, x):
        return F.linear(F.relu(self.encode(x)), self.encode.weight.t())

    return Calls(forward, encode=nn.Linear(10, 3)), (torch.zeros(1, 10),)


@animal
def one_layer_twice():
    def forward(self, x):
        return self.layer(F.relu(self.layer(x)))

    return Calls(forward, layer=nn.Linear(6, 6)), (torch.zeros(1, 6),)


# Tokens


@animal
def token_classifier():
    def forward(self, ids):
        return self.head(self.embedding(ids).mean(1))

    return Calls(forward, embedding=nn.Embedding(50, 8), head=nn.Linear(8, 2)), (tokens(1, 12),)


@animal
def embedding_first():
    return nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 4)), (tokens(1, 7),)


@animal
def text_convolution():
    def forward(self, ids):
        x = self.embedding(ids).transpose(1, 2)
        return self.head(torch.cat([F.relu(conv(x)).amax(2) for conv in self.convs], 1))

    net = Calls(
        forward,
        embedding=nn.Embedding(50, 8),
        convs=nn.ModuleList(nn.Conv1d(8, 6, size) for size in (2, 3, 4)),
        head=nn.Linear(18, 2),
    )
    return net, (tokens(1, 15),)


@animal
def bag_of_words():
    def forward(self, ids, offsets):
        return self.head(self.bag(ids, offsets))

    return Calls(forward, bag=nn.EmbeddingBag(50, 8), head=nn.Linear(8, 3)), (tokens(10), torch.tensor([0, 4]))


@animal
def bag_of_rows():
    return nn.Sequential(nn.EmbeddingBag(50, 8, mode="sum"), nn.Linear(8, 3)), (tokens(1, 9),)


@animal
def encoder_with_mask():
    def forward(self, ids, mask):
        x = self.embedding(ids) + self.position[: ids.shape[1]]
        return self.head(self.encoder(x, src_key_padding_mask=mask))

    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    net = Calls(
        forward,
        embedding=nn.Embedding(50, 16),
        position=nn.Parameter(torch.zeros(32, 16)),
        encoder=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        head=nn.Linear(16, 50),
    )
    return net, (tokens(1, 10), torch.zeros(1, 10, dtype=torch.bool))


@animal
def causal_language_model():
    def forward(self, ids):
        length = ids.shape[1]
        mask = torch.triu(torch.full((length, length), float("-inf")), 1)
        x = self.embedding(ids)
        attended, _ = self.attention(x, x, x, attn_mask=mask, need_weights=False)
        return self.head(self.norm(x + attended))

    net = Calls(
        forward,
        embedding=nn.Embedding(50, 16),
        attention=nn.MultiheadAttention(16, 4, batch_first=True),
        norm=nn.LayerNorm(16),
        head=nn.Linear(16, 50, bias=False),
    )
    return net, (tokens(1, 9),)


@animal
def tied_language_model():
    def forward(self, ids):
        return F.linear(self.norm(self.embedding(ids)), self.embedding.weight)

    return Calls(forward, embedding=nn.Embedding(50, 8), norm=nn.LayerNorm(8)), (tokens(1, 6),)


@animal
def scaled_dot_product():
    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))

    return Calls(forward, qkv=nn.Linear(32, 96), out=nn.Linear(32, 32)), (torch.zeros(1, 11, 32),)


@animal
def grouped_query_attention():
    def forward(self, x):
        q = self.q(x).unflatten(-1, (4, 8)).transpose(1, 2)
        k = self.k(x).unflatten(-1, (2, 8)).transpose(1, 2)
        v = self.v(x).unflatten(-1, (2, 8)).transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    return Calls(forward, q=nn.Linear(32, 32), k=nn.Linear(32, 16), v=nn.Linear(32, 16)), (torch.zeros(1, 6, 32),)


@animal
def attention_by_hand():
    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        return torch.softmax(q @ k.transpose(-2, -1) / 4, -1) @ v

    return Calls(forward, q=nn.Linear(16, 16), k=nn.Linear(16, 16), v=nn.Linear(16, 16)), (torch.zeros(1, 7, 16),)


@animal
def attention_with_weights():
    def forward(self, x):
        return self.attention(x, x, x)

    return Calls(forward, attention=nn.MultiheadAttention(16, 4, batch_first=True)), (torch.zeros(1, 8, 16),)


@animal
def cross_attention():
    def forward(self, query, memory):
        return self.attention(query, memory, memory)[0]

    net = Calls(forward, attention=nn.MultiheadAttention(16, 2, kdim=12, vdim=12, batch_first=True))
    return net, (torch.zeros(1, 5, 16), torch.zeros(1, 9, 12))


@animal
def functional_multi_head_attention():
    def forward(self, x):
        return F.multi_head_attention_forward(
            x, x, x, 16, 4, self.w, self.b, None, None, False, 0.0, self.o, None, training=False, need_weights=False
        )[0]

    net = Calls(
        forward,
        w=nn.Parameter(torch.zeros(48, 16)),
        b=nn.Parameter(torch.zeros(48)),
        o=nn.Parameter(torch.zeros(16, 16)),
    )
    return net, (torch.zeros(6, 1, 16),)


@animal
def transformer():
    def forward(self, source, target):
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.transformer(source, target, tgt_mask=mask)

    net = Calls(forward, transformer=nn.Transformer(16, 2, 1, 1, 32, batch_first=True))
    return net, (torch.zeros(1, 6, 16), torch.zeros(1, 5, 16))


@animal
def key_value_cache():
    def forward(self, x, past):
        keys = torch.cat([past, self.k(x)], 1)
        return self.q(x) @ keys.transpose(1, 2), keys

    return Calls(forward, q=nn.Linear(8, 8), k=nn.Linear(8, 8)), (torch.zeros(1, 1, 8), torch.zeros(1, 5, 8))


@animal
def empty_cache():
    def forward(self, x):
        return self.proj(torch.cat([torch.tensor([], dtype=x.dtype), x], -2))

    return Calls(forward, proj=nn.Linear(8, 8)), (torch.zeros(1, 4, 8),)


@animal
def rotary_embedding():
    def forward(self, x):
        angles = torch.outer(torch.arange(x.shape[1]).float(), self.frequencies)
        first, second = x.chunk(2, -1)
        return self.out(
            torch.cat([first * angles.cos() - second * angles.sin(), first * angles.sin() + second * angles.cos()], -1)
        )

    net = Calls(forward, out=nn.Linear(8, 8))
    net.register_buffer("frequencies", torch.ones(4))
    return net, (torch.zeros(1, 6, 8),)


@animal
def masked_fill_and_where():
    def forward(self, x, mask):
        x = self.proj(x).masked_fill(mask[..., None], 0.0)
        return torch.where(mask[..., None], x, -x)

    return Calls(forward, proj=nn.Linear(4, 4)), (torch.zeros(1, 5, 4), torch.ones(1, 5, dtype=torch.bool))


# Recurrent


@animal
def lstm():
    return nn.LSTM(5, 7, 2, batch_first=True, bidirectional=True), (torch.zeros(1, 6, 5),)


@animal
def lstm_length_first():
    return nn.LSTM(5, 5), (torch.zeros(3, 1, 5),)


@animal
def lstm_unbatched():
    return nn.LSTM(5, 4), (torch.zeros(3, 5),)


@animal
def lstm_projected():
    return nn.LSTM(6, 8, proj_size=3, batch_first=True), (torch.zeros(1, 4, 6),)


@animal
def lstm_with_state():
    def forward(self, x, hidden, cell):
        output, (hidden, cell) = self.lstm(x, (hidden, cell))
        return output, hidden, cell

    return Calls(forward, lstm=nn.LSTM(4, 6, batch_first=True)), (
        torch.zeros(1, 3, 4),
        torch.zeros(1, 1, 6),
        torch.zeros(1, 1, 6),
    )


@animal
def gru():
    return nn.GRU(4, 6, batch_first=True), (torch.zeros(1, 8, 4),)


@animal
def rnn():
    return nn.RNN(4, 6, nonlinearity="relu", batch_first=True), (torch.zeros(1, 8, 4),)


@animal
def lstm_cell_loop():
    def forward(self, x):
        hidden = cell = x.new_zeros(x.shape[0], 6)
        outputs = []
        for step in range(x.shape[1]):
            hidden, cell = self.cell(x[:, step], (hidden, cell))
            outputs.append(hidden)
        return torch.stack(outputs, 1)

    return Calls(forward, cell=nn.LSTMCell(4, 6)), (torch.zeros(1, 5, 4),)


@animal
def gru_cell():
    return nn.GRUCell(4, 6), (torch.zeros(1, 4), torch.zeros(1, 6))


@animal
def rnn_cell():
    return nn.RNNCell(4, 6), (torch.zeros(1, 4), torch.zeros(1, 6))


@animal
def packed_lstm():
    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, _ = self.lstm(packed)
        return self.head(pad_packed_sequence(output, batch_first=True)[0])

    return Calls(forward, lstm=nn.LSTM(4, 6, batch_first=True), head=nn.Linear(6, 2)), (
        torch.zeros(1, 5, 4),
        torch.tensor([5]),
    )


@animal
def speech_recogniser():
    def forward(self, x):
        y = F.relu(self.conv(x)).transpose(1, 2)
        return self.head(self.gru(y)[0]).log_softmax(-1)

    net = Calls(
        forward,
        conv=nn.Conv1d(8, 12, 5, 2),
        gru=nn.GRU(12, 10, batch_first=True, bidirectional=True),
        head=nn.Linear(20, 7),
    )
    return net, (torch.zeros(1, 8, 40),)


# Several inputs


@animal
def siamese():
    def forward(self, left, right):
        return F.pairwise_distance(self.embed(left), self.embed(right))

    return Calls(forward, embed=nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 8))), (
        torch.zeros(1, 3, 8, 8),
        torch.zeros(1, 3, 8, 8),
    )


@animal
def perceptual_distance():
    def forward(self, image, target):
        return sum(F.mse_loss(a, b) for a, b in zip(self.maps(image), self.maps(target)))

    def maps(x):
        first = F.relu(net.a(x))
        return first, F.relu(net.b(F.max_pool2d(first, 2)))

    net = Calls(forward, a=nn.Conv2d(3, 4, 3, padding=1), b=nn.Conv2d(4, 8, 3, padding=1))
    net.maps = maps
    return net, (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


@animal
def learned_perceptual_distance():
    """Zhang et al. 2018: five taps of a VGG, unit-normalised over channels, weighed by 1x1 convolutions, averaged."""
    widths = (4, 6, 8, 8, 8)

    def taps(net, x):
        for stage in net.stages:
            x = stage(x)
            yield x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)

    def forward(self, image, target):
        shift = torch.tensor([-0.03, -0.088, -0.188])[None, :, None, None]
        pairs = zip(taps(self, image - shift), taps(self, target - shift), self.weights)
        return sum(weigh((a - b).square()).mean((2, 3), keepdim=True) for a, b, weigh in pairs)

    stages = nn.ModuleList(
        nn.Sequential(*[nn.MaxPool2d(2)] * (i > 0), nn.Conv2d(before, width, 3, padding=1), nn.ReLU())
        for i, (before, width) in enumerate(zip((3, *widths), widths))
    )
    weights = nn.ModuleList(nn.Sequential(nn.Dropout(), nn.Conv2d(width, 1, 1, bias=False)) for width in widths)
    return Calls(forward, stages=stages, weights=weights), (torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32))


@animal
def structural_similarity():
    """Wang et al. 2004: means, variances and covariance in a Gaussian window, as a depthwise convolution. It reads the
    range of its input, as losses do that check it.
    """

    def forward(self, image, target):
        assert image.min() >= 0
        window = torch.exp(-((torch.arange(5.0) - 2) ** 2) / 4.5)
        kernel = (window[:, None] * window[None]).expand(3, 1, 5, 5)

        def blur(x):
            return F.conv2d(x, kernel / kernel[0].sum(), groups=3)

        a, b = blur(image), blur(target)
        variances = blur(image**2) - a**2 + blur(target**2) - b**2
        similarity = (2 * a * b + 1e-4) * (2 * (blur(image * target) - a * b) + 9e-4)
        return 1 - (similarity / ((a**2 + b**2 + 1e-4) * (variances + 9e-4))).mean()

    return Calls(forward), (torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16))


@animal
def vgg_encoder_unet():
    """Ronneberger et al. 2015 with the stages of a VGG as its encoder; each decoder block reads a skip."""

    def forward(self, x):
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        *skips, x = skips
        for block, skip in zip(self.decoder, reversed(skips)):
            x = F.interpolate(x, size=skip.shape[2:], mode="nearest")
            x = block(torch.cat([x, skip], dim=1))
        return self.head(x)

    def stage(before, width, pool):
        convolution = nn.Conv2d(before, width, 3, padding=1, bias=False)
        return nn.Sequential(*[nn.MaxPool2d(2, 2)] * pool, convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    encoder = nn.ModuleList([stage(3, 4, False), stage(4, 8, True), stage(8, 16, True)])
    decoder = nn.ModuleList([stage(16 + 8, 8, False), stage(8 + 4, 4, False)])
    return Calls(forward, encoder=encoder, decoder=decoder, head=nn.Conv2d(4, 2, 3, padding=1)), (
        torch.zeros(1, 3, 20, 28),
    )


@animal
def face_embedding():
    """Branches with residual scaling as in Inception-ResNet, and an embedding of unit length (Schroff et al. 2015)."""

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(x + 0.17 * self.up(torch.cat([self.left(x), self.right(x)], 1)))
        return F.normalize(self.norm(self.last(F.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1))), p=2, dim=1)

    parts = {
        "stem": nn.Conv2d(3, 8, 3, 2),
        "left": nn.Conv2d(8, 4, 1),
        "right": nn.Sequential(nn.Conv2d(8, 4, (1, 7), padding=(0, 3)), nn.Conv2d(4, 4, (7, 1), padding=(3, 0))),
        "up": nn.Conv2d(8, 8, 1),
        "last": nn.Linear(8, 16, bias=False),
        "norm": nn.BatchNorm1d(16),
    }
    return Calls(forward, **parts), (torch.zeros(1, 3, 17, 17),)


@animal
def conditional_generator():
    def forward(self, noise, label):
        return self.net(torch.cat([noise, self.embedding(label)], 1).view(-1, 16, 1, 1))

    net = nn.Sequential(nn.ConvTranspose2d(16, 8, 4), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())
    return Calls(forward, net=net, embedding=nn.Embedding(10, 6)), (torch.zeros(1, 10), tokens(1, vocabulary=10))


@animal
def keyword_only():
    class KeywordOnly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, *, image: Tensor) -> Tensor:
            return self.conv(image)

    return KeywordOnly(), {"image": torch.zeros(1, 3, 8, 8)}


@animal
def image_and_text():
    def forward(self, pixels, ids):
        a = F.normalize(self.image(pixels).mean((2, 3)), dim=-1)
        b = F.normalize(self.text(ids).mean(1), dim=-1)
        return a @ b.t()

    return Calls(forward, image=nn.Conv2d(3, 8, 3), text=nn.Embedding(50, 8)), {
        "pixels": torch.zeros(1, 3, 8, 8),
        "ids": tokens(1, 5),
    }


@animal
def list_input():
    def forward(self, images):
        return sum(self.conv(image) for image in images)

    return Calls(forward, conv=nn.Conv2d(3, 4, 3)), ([torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)],)


@animal
def dict_input():
    def forward(self, batch):
        return self.head(batch["image"].flatten(1)) + self.extra(batch["row"])

    return Calls(forward, head=nn.Linear(48, 4), extra=nn.Linear(5, 4)), (
        {"image": torch.zeros(1, 3, 4, 4), "row": torch.zeros(1, 5)},
    )


@animal
def nested_input():
    def forward(self, batch):
        (a, b), c = batch["pair"], batch["more"][0]
        return self.layer(a + b) + self.layer(c)

    return Calls(forward, layer=nn.Linear(4, 4)), (
        {"pair": (torch.zeros(1, 4), torch.zeros(1, 4)), "more": [torch.zeros(1, 4)]},
    )


@animal
def optional_input():
    def forward(self, x, mask=None):
        return self.layer(x if mask is None else x * mask)

    return Calls(forward, layer=nn.Linear(4, 4)), (torch.zeros(1, 4),)


@animal
def timestep_unet():
    def forward(self, x, time):
        angles = time[:, None].float() * torch.exp(torch.arange(4).float())
        shift = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        return self.conv(x) + shift[:, :, None, None]

    return Calls(forward, conv=nn.Conv2d(3, 6, 3, padding=1), time=nn.Linear(8, 6)), (
        torch.zeros(1, 3, 8, 8),
        tokens(1),
    )


@animal
def scalar_input():
    def forward(self, x, scale):
        return self.layer(x) * scale

    return Calls(forward, layer=nn.Linear(4, 4)), (torch.zeros(1, 4), torch.tensor(2.0))


@animal
def graph_convolution():
    def forward(self, features, adjacency):
        return torch.relu(adjacency @ self.layer(features))

    return Calls(forward, layer=nn.Linear(6, 4)), (torch.zeros(9, 6), torch.zeros(9, 9))


@animal
def optical_flow_correlation():
    def forward(self, left, right):
        a, b = self.encode(left).flatten(2), self.encode(right).flatten(2)
        return torch.matmul(a.transpose(1, 2), b) / a.shape[1] ** 0.5

    return Calls(forward, encode=nn.Conv2d(3, 8, 3, 2)), (torch.zeros(1, 3, 9, 9), torch.zeros(1, 3, 9, 9))


@animal
def loss_inside():
    def forward(self, x, target):
        logits = self.layer(x)
        return {"loss": F.cross_entropy(logits, target), "logits": logits}

    return Calls(forward, layer=nn.Linear(6, 4)), (torch.zeros(1, 6), tokens(1, vocabulary=4))


# Outputs


@dataclass
class Scores:
    logits: Tensor
    features: Tensor | None = None


Pair = namedtuple("Pair", ["first", "second"])


def _with_output(wrap):
    def forward(self, x):
        features = self.body(x)
        return wrap(self.head(features), features)

    return Calls(forward, body=nn.Linear(6, 5), head=nn.Linear(5, 3)), (torch.zeros(1, 6),)


@animal
def tuple_output():
    return _with_output(lambda logits, features: (logits, features))


@animal
def dict_output():
    return _with_output(lambda logits, features: {"logits": logits, "hidden": [features]})


@animal
def list_output():
    return _with_output(lambda logits, features: [logits, [features]])


@animal
def dataclass_output():
    return _with_output(Scores)


@animal
def dataclass_output_with_none():
    return _with_output(lambda logits, features: Scores(logits))


@animal
def named_tuple_output():
    return _with_output(Pair)


@animal
def distribution_output():
    return _with_output(lambda logits, features: torch.distributions.Categorical(logits=logits, validate_args=False))


@animal
def normal_output():
    return _with_output(
        lambda logits, features: torch.distributions.Normal(logits, F.softplus(logits), validate_args=False)
    )


@animal
def scalar_output():
    return _with_output(lambda logits, features: logits.sum())


@animal
def variational_autoencoder():
    def forward(self, x):
        mean, log_variance = self.encode(x).chunk(2, 1)
        sample = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decode(sample), mean, log_variance

    return Calls(forward, encode=nn.Linear(12, 8), decode=nn.Linear(4, 12)), (torch.zeros(1, 12),)


@animal
def auxiliary_head():
    def forward(self, x):
        middle = self.a(x)
        return {"out": self.b(middle), "aux": self.aux(middle)}

    return Calls(forward, a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(4, 2, 3), aux=nn.Conv2d(4, 2, 1)), (
        torch.zeros(1, 3, 9, 9),
    )


@animal
def pyramid_outputs():
    def forward(self, x):
        outputs = []
        for layer in self.layers:
            x = F.relu(layer(x))
            outputs.append(x)
        return tuple(outputs)

    return Calls(forward, layers=nn.ModuleList(nn.Conv2d(3 if n == 0 else 4, 4, 3, 2, 1) for n in range(3))), (
        torch.zeros(1, 3, 16, 16),
    )


# Batches: none, elsewhere, or only one that runs


@animal
def unbatched_image():
    return nn.Conv2d(3, 4, 3), (torch.zeros(3, 8, 8),)


@animal
def unbatched_row():
    return nn.Linear(4, 2), (torch.zeros(4),)


@animal
def first_sample_only():
    def forward(self, x):
        return self.layer(x[0])

    return Calls(forward, layer=nn.Linear(4, 2)), (torch.zeros(1, 4),)


@animal
def view_over_the_batch():
    def forward(self, x):
        return self.layer(x.view(1, 12))

    return Calls(forward, layer=nn.Linear(12, 2)), (torch.zeros(1, 3, 4),)


@animal
def batch_of_three():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (torch.zeros(3, 3, 8, 8),)


# Types


@animal
def double_precision():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU()).double(), (torch.zeros(1, 6, dtype=torch.float64),)


@animal
def half_precision():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU()).bfloat16(), (torch.zeros(1, 6, dtype=torch.bfloat16),)


@animal
def complex_numbers():
    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(x) * self.filter, n=x.shape[-1])

    return Calls(forward, filter=nn.Parameter(torch.ones(9, dtype=torch.complex64))), (torch.zeros(1, 4, 16),)


@animal
def complex_linear():
    return nn.Linear(4, 3, dtype=torch.complex64), (torch.zeros(1, 4, dtype=torch.complex64),)


@animal
def bytes_to_floats():
    def forward(self, x):
        return self.conv(x.float() / 255)

    return Calls(forward, conv=nn.Conv2d(3, 4, 3)), (torch.zeros(1, 3, 8, 8, dtype=torch.uint8),)


@animal
def complex_layer_in_a_real_model():
    def forward(self, x):
        return self.complex(self.real(x).to(torch.complex64)).abs()

    return Calls(forward, real=nn.Conv2d(3, 8, 3), complex=nn.Conv2d(8, 25, 3, dtype=torch.complex64)), (
        torch.zeros(1, 3, 9, 9),
    )


@animal
def fourier_operator():
    """Li et al. 2021: a product of the lowest frequencies with complex weights."""

    def forward(self, x):
        x = self.lift(x)
        spectrum = torch.fft.rfft2(x)
        mixed = torch.zeros_like(spectrum)
        mixed[:, :, :3, :3] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :3, :3], self.weight)
        return torch.fft.irfft2(mixed, s=x.shape[-2:])

    weight = nn.Parameter(torch.ones(4, 4, 3, 3, dtype=torch.cfloat))
    return Calls(forward, lift=nn.Conv2d(3, 4, 1), weight=weight), (torch.zeros(1, 3, 8, 8),)


@animal
def half_layer_in_a_float_model():
    def forward(self, x):
        return self.head(self.body(x.bfloat16()).float())

    return Calls(forward, body=nn.Linear(6, 5).bfloat16(), head=nn.Linear(5, 7)), (torch.zeros(1, 6),)


def _with_buffers(forward, buffers, **parts):
    net = Calls(forward, **parts)
    for name, buffer in buffers.items():
        net.register_buffer(name, buffer)
    return net


@animal
def double_buffer():
    def forward(self, x):
        return self.head(x) * self.scale

    return _with_buffers(forward, {"scale": torch.ones(4, dtype=torch.float64)}, head=nn.Linear(6, 4)), (
        torch.zeros(1, 6),
    )


@animal
def int8_weights_in_buffers():
    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype) * self.scale)

    buffers = {"weight": torch.ones(5, 6, dtype=torch.int8), "scale": torch.ones(5, 1)}
    return _with_buffers(forward, buffers), (torch.zeros(1, 6),)


@animal
def four_bit_weights():
    """Two weights of four bits in each byte."""

    def forward(self, x):
        low, high = self.weight & 15, self.weight >> 4
        return F.linear(x, (torch.stack([low, high], -1).flatten(1).to(x.dtype) - 8) * self.scale)

    weight = nn.Parameter(torch.ones(5, 3, dtype=torch.uint8), requires_grad=False)
    return Calls(forward, weight=weight, scale=nn.Parameter(torch.ones(5, 1))), (torch.zeros(1, 6),)


@animal
def boolean_table():
    def forward(self, x):
        scores = self.head(x).masked_fill(self.mask, -1.0)
        return scores, scores.argmax(1), scores > 0

    return _with_buffers(forward, {"mask": torch.eye(4, dtype=torch.bool)[:1]}, head=nn.Linear(6, 4)), (
        torch.zeros(1, 6),
    )


@animal
def quantized_parameter():
    def forward(self, x):
        return x @ self.weight.dequantize().t()

    weight = torch.quantize_per_tensor(torch.ones(3, 6), 0.1, 0, torch.qint8)
    return Calls(forward, weight=nn.Parameter(weight, requires_grad=False)), (torch.zeros(1, 6),)


@animal
def quantized_dynamically():
    from torch.ao.nn.quantized.dynamic import Linear

    return nn.Sequential(Linear(6, 5), nn.ReLU(), Linear(5, 4)), (torch.zeros(1, 6),)


@animal
def quantized_convolution():
    import torch.ao.nn.quantized as quantized
    from torch.ao.nn.intrinsic.quantized import ConvReLU2d

    net = nn.Sequential(
        quantized.Quantize(torch.tensor([0.1]), torch.tensor([0]), torch.quint8),
        quantized.Conv2d(3, 4, 3),
        ConvReLU2d(4, 4, 3),
        quantized.DeQuantize(),
    )
    return net, (torch.zeros(1, 3, 8, 8),)


@animal
def sparse_weight():
    def forward(self, x):
        return torch.sparse.mm(self.weight, x.t()).t()

    return Calls(forward, weight=nn.Parameter(torch.eye(6).to_sparse(), requires_grad=False)), (torch.zeros(1, 6),)


# Odd ways to compute


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return gradient * (s * (1 + x * (1 - s)))


@animal
def custom_function():
    def forward(self, x):
        return self.b(Swish.apply(self.a(x)))

    return Calls(forward, a=nn.Linear(6, 5), b=nn.Linear(5, 3)), (torch.zeros(1, 6),)


@animal
def checkpointed():
    from torch.utils.checkpoint import checkpoint

    def forward(self, x):
        return self.b(checkpoint(self.a, x, use_reentrant=False))

    return Calls(forward, a=nn.Sequential(nn.Linear(6, 5), nn.ReLU()), b=nn.Linear(5, 3)), (torch.zeros(1, 6),)


@animal
def spectral_norm():
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)), nn.ReLU()), (torch.zeros(1, 6),)


@animal
def weight_norm():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 4, 3)), nn.ReLU()), (torch.zeros(1, 3, 9),)


@animal
def no_grad_backbone():
    def forward(self, x):
        with torch.no_grad():
            x = self.backbone(x)
        return self.head(x)

    return Calls(forward, backbone=nn.Linear(6, 5), head=nn.Linear(5, 2)), (torch.zeros(1, 6),)


@animal
def frozen_backbone():
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    net[0].requires_grad_(False)
    return net, (torch.zeros(1, 6),)


@animal
def in_place():
    def forward(self, x):
        x = self.layer(x)
        x.clamp_(min=0).mul_(2)
        x[:, 0] = 1
        return x

    return Calls(forward, layer=nn.Linear(4, 3)), (torch.zeros(1, 4),)


@animal
def scripted_part():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        part = torch.jit.script(nn.Sequential(nn.Linear(5, 4), nn.ReLU()))
    return nn.Sequential(nn.Linear(6, 5), part), (torch.zeros(1, 6),)


@animal
def decisions_by_shape():
    def forward(self, x):
        return self.wide(x) if x.shape[-1] > 5 else self.narrow(x)

    return Calls(forward, wide=nn.Linear(6, 2), narrow=nn.Linear(4, 2)), (torch.zeros(1, 6),)


@animal
def decisions_by_value():
    def forward(self, x):
        return self.a(x) if x.sum() > 0 else self.b(x)

    return Calls(forward, a=nn.Linear(4, 2), b=nn.Linear(4, 3)), (torch.zeros(1, 4),)


@animal
def sorted_and_gathered():
    def forward(self, x):
        scores = self.score(x).squeeze(-1)
        best = scores.topk(2, 1).indices
        return x.gather(1, best[..., None].expand(-1, -1, x.shape[2]))

    return Calls(forward, score=nn.Linear(4, 1)), (torch.zeros(1, 6, 4),)


@animal
def cdist_prototypes():
    def forward(self, x):
        return -torch.cdist(self.layer(x), self.prototypes)

    return Calls(forward, layer=nn.Linear(6, 4), prototypes=nn.Parameter(torch.zeros(3, 4))), (torch.zeros(1, 6),)


@animal
def gumbel():
    def forward(self, x):
        return F.gumbel_softmax(self.layer(x), hard=True)

    return Calls(forward, layer=nn.Linear(6, 4)), (torch.zeros(1, 6),)


@animal
def unfold_fold():
    def forward(self, x):
        patches = F.unfold(x, 3, padding=1)
        return F.fold(self.layer(patches.transpose(1, 2)).transpose(1, 2), (8, 8), 1)

    return Calls(forward, layer=nn.Linear(27, 4)), (torch.zeros(1, 3, 8, 8),)


@animal
def vector_quantiser():
    def forward(self, x):
        flat = x.flatten(0, 1)
        distance = (flat**2).sum(1, keepdim=True) - 2 * flat @ self.codes.t() + (self.codes**2).sum(1)
        return F.embedding(distance.argmin(1), self.codes).view_as(x)

    return Calls(forward, codes=nn.Parameter(torch.zeros(7, 4))), (torch.zeros(1, 5, 4),)


@animal
def module_on_parameter():
    def forward(self, x):
        return self.conv(x + self.dropout(self.position))

    return Calls(
        forward,
        conv=nn.Conv2d(3, 8, 3, padding=1),
        dropout=nn.Dropout(),
        position=nn.Parameter(torch.zeros(1, 3, 8, 8)),
    ), (torch.zeros(1, 3, 8, 8),)


@animal
def numpy_spelling():
    def forward(self, x):
        return torch.sum(self.conv(x), axis=1, keepdims=True)

    return Calls(forward, conv=nn.Conv2d(3, 4, 3)), (torch.zeros(1, 3, 8, 8),)


@animal
def meshgrid_coordinates():
    def forward(self, x):
        rows, columns = torch.meshgrid(torch.arange(x.shape[2]), torch.arange(x.shape[3]), indexing="ij")
        grid = torch.stack([rows, columns])[None].to(x.dtype).expand(x.shape[0], -1, -1, -1)
        return self.conv(torch.cat([x, grid], 1))

    return Calls(forward, conv=nn.Conv2d(5, 4, 3)), (torch.zeros(1, 3, 8, 8),)


@animal
def losses():
    def forward(self, x, y):
        z = self.layer(x)
        return F.l1_loss(z, y) + F.smooth_l1_loss(z, y) + F.mse_loss(z, y) + (1 - F.cosine_similarity(z, y)).mean()

    return Calls(forward, layer=nn.Linear(6, 4)), (torch.zeros(1, 6), torch.zeros(1, 4))


@animal
def multi_dot():
    def forward(self, x):
        return torch.linalg.multi_dot([x, self.a, self.b])

    return Calls(forward, a=nn.Parameter(torch.zeros(6, 5)), b=nn.Parameter(torch.zeros(5, 4))), (torch.zeros(1, 6),)


@animal
def norm_by_hand():
    def forward(self, x):
        return self.layer(x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=1e-6))

    return Calls(forward, layer=nn.Linear(6, 4)), (torch.zeros(1, 6),)


# Calls that torch hides: transforms, gradients in forward, compiled code, values outside torch


@animal
def vmap_over_members():
    def forward(self, x):
        return torch.func.vmap(lambda weight: x @ weight.T)(self.members).mean(0)

    return Calls(forward, members=nn.Parameter(torch.zeros(4, 5, 6))), (torch.zeros(1, 6),)


@animal
def vmap_over_samples():
    def forward(self, x):
        return torch.vmap(lambda sample: F.relu(self.layer(sample)) * 2)(x)

    return Calls(forward, layer=nn.Linear(6, 4)), (torch.zeros(3, 6),)


@animal
def ensemble_of_layers():
    def forward(self, x):
        def call(weight, bias):
            return torch.func.functional_call(self.layer, {"weight": weight, "bias": bias}, (x,))

        return torch.func.vmap(call)(self.weights, self.biases).mean(0)

    return Calls(
        forward,
        layer=nn.Linear(6, 4).requires_grad_(False),
        weights=nn.Parameter(torch.zeros(3, 4, 6)),
        biases=nn.Parameter(torch.zeros(3, 4)),
    ), (torch.zeros(2, 6),)


@animal
def gradient_per_sample():
    def forward(self, x):
        return torch.func.vmap(torch.func.grad(lambda sample: self.layer(sample).sum()))(x)

    return Calls(forward, layer=nn.Linear(6, 4)), (torch.zeros(2, 6),)


@animal
def class_activation_map():
    def forward(self, x):
        with torch.enable_grad():
            features = self.features(x)
            features.retain_grad()
            self.head(features.mean((2, 3)))[:, 0].sum().backward()
        return (features.grad.mean((2, 3), keepdim=True) * features).sum(1).detach()

    return Calls(forward, features=nn.Conv2d(3, 4, 3), head=nn.Linear(4, 2)), (torch.zeros(1, 3, 8, 8),)


@animal
def gradient_of_the_input():
    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.conv(x).sum(), x, create_graph=True)
        return gradient

    return Calls(forward, conv=nn.Conv2d(3, 4, 3)), (torch.zeros(1, 3, 8, 8),)


class MatrixProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient @ weight.T, x.T @ gradient


@animal
def custom_product():
    def forward(self, x):
        return MatrixProduct.apply(self.layer(x), self.weight)

    return Calls(forward, layer=nn.Linear(6, 5), weight=nn.Parameter(torch.zeros(5, 3))), (torch.zeros(1, 6),)


def _script(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        return torch.jit.script(function)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    return torch.relu(torch.mm(x, weight)) + 1


@animal
def script_function():
    product = _script(_product)

    def forward(self, x):
        return product(self.layer(x), self.weight)

    return Calls(forward, layer=nn.Linear(6, 5), weight=nn.Parameter(torch.zeros(5, 3))), (torch.zeros(1, 6),)


@animal
def script_function_without_source():
    product = _script(_product)
    del product._torchdynamo_inline

    def forward(self, x):
        return product(self.layer(x), self.weight)

    return Calls(forward, layer=nn.Linear(6, 5), weight=nn.Parameter(torch.zeros(5, 3))), (torch.zeros(1, 6),)


@animal
def script_root():
    return _script(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))), (torch.zeros(1, 6),)


@animal
def graph_module():
    return torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), (torch.zeros(1, 3, 8, 8),)


@animal
def aten_operators():
    def forward(self, x):
        return torch.ops.aten.mm(torch.ops.aten.relu.default(self.layer(x)), self.weight)

    return Calls(forward, layer=nn.Linear(6, 5), weight=nn.Parameter(torch.zeros(5, 3))), (torch.zeros(1, 6),)


@animal
def aten_arguments():
    aten = torch.ops.aten

    def forward(self, x):
        rows = aten.embedding.default(self.table, x).mean(1)
        rows = aten.batch_norm.default(rows, None, None, self.mean, self.variance, False, 0.1, 1e-5, True)
        return self.head(aten.elu.default(rows))

    statistics = {name: nn.Parameter(torch.ones(4), requires_grad=False) for name in ("mean", "variance")}
    table = nn.Parameter(torch.ones(50, 4))
    return Calls(forward, head=nn.Linear(4, 2), table=table, **statistics), (tokens(1, 5),)


@animal
def numpy_in_between():
    def forward(self, x):
        return self.b(torch.from_numpy(self.a(x).detach().numpy() * 2))

    return Calls(forward, a=nn.Linear(6, 5), b=nn.Linear(5, 3)), (torch.zeros(1, 6),)


@animal
def low_rank_update():
    def forward(self, x):
        return F.linear(x, self.base.weight + self.up @ self.down, self.base.bias)

    parts = {"up": nn.Parameter(torch.zeros(6, 2)), "down": nn.Parameter(torch.zeros(2, 8))}
    return Calls(forward, base=nn.Linear(8, 6).requires_grad_(False), **parts), (torch.zeros(1, 8),)


@animal
def modulated_convolution():
    def forward(self, x, style):
        weight = self.weight * self.modulate(style)[:, None, :, None, None]
        weight = weight * torch.rsqrt(weight.pow(2).sum((2, 3, 4), keepdim=True) + 1e-8)
        y = F.conv2d(x.flatten(0, 1)[None], weight.flatten(0, 1), padding=1, groups=len(x))
        return y.view(len(x), -1, *y.shape[2:])

    parts = {"modulate": nn.Linear(5, 3), "weight": nn.Parameter(torch.zeros(4, 3, 3, 3))}
    return Calls(forward, **parts), (torch.zeros(1, 3, 8, 8), torch.zeros(1, 5))


@animal
def orthogonal():
    return nn.utils.parametrizations.orthogonal(nn.Linear(6, 4)), (torch.zeros(1, 6),)


@animal
def complex_convolution():
    return nn.Conv2d(3, 4, 3, dtype=torch.complex64), (torch.zeros(1, 3, 8, 8, dtype=torch.complex64),)


@animal
def deformable_convolution():
    from torchvision.ops import deform_conv2d

    def forward(self, x):
        return deform_conv2d(x, self.offsets(x), self.weight)

    return Calls(forward, offsets=nn.Conv2d(3, 18, 3), weight=nn.Parameter(torch.zeros(4, 3, 3, 3))), (
        torch.zeros(1, 3, 8, 8),
    )


# Batches of samples that differ, or that meet


@animal
def packed_with_lengths():
    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])

    return Calls(forward, rnn=nn.GRU(4, 6, batch_first=True), head=nn.Linear(6, 2)), (
        torch.zeros(3, 5, 4),
        torch.tensor([2, 5, 3]),
    )


@animal
def lstm_states_on_another_axis():
    def forward(self, x, hidden, cell):
        return self.rnn(x, (hidden, cell))[0]

    return Calls(forward, rnn=nn.LSTM(4, 6, batch_first=True)), (
        torch.zeros(2, 5, 4),
        torch.zeros(1, 2, 6),
        torch.zeros(1, 2, 6),
    )


@animal
def similarity_of_the_batch():
    def forward(self, x):
        y = self.layer(x)
        return y @ y.T

    return Calls(forward, layer=nn.Linear(6, 4)), (torch.zeros(3, 6),)


@animal
def loss_over_the_batch():
    def forward(self, x):
        return self.layer(x).pow(2).mean()

    return Calls(forward, layer=nn.Linear(6, 4)), (torch.zeros(3, 6),)


@animal
def loop_over_samples():
    def forward(self, x):
        return torch.cat([self.layer(x[n : n + 1]) for n in range(x.shape[0])])

    return Calls(forward, layer=nn.Linear(4, 6)), (torch.zeros(3, 4),)


@animal
def first_two_samples():
    def forward(self, x):
        return self.layer(x[:2])

    return Calls(forward, layer=nn.Linear(4, 6)), (torch.zeros(4, 4),)


@animal
def decision_by_batch():
    def forward(self, x):
        return self.large(x) if x.shape[0] > 2 else self.small(x)

    return Calls(forward, large=nn.Linear(4, 6), small=nn.Linear(4, 2)), (torch.zeros(4, 4),)


# As transformers writes its models


class ModelOutput(OrderedDict):
    """Its items are attributes too, and its places those that are set."""

    def __getattr__(self, name: str) -> object:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def to_tuple(self) -> tuple[object, ...]:
        return tuple(self.values())


class TransposedLinear(nn.Module):
    """A linear layer whose weight is features x outputs, as GPT-2's `Conv1D`."""

    def __init__(self, outputs: int, features: int) -> None:
        super().__init__()
        self.nf = outputs
        self.weight = nn.Parameter(torch.ones(features, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        size = (*x.size()[:-1], self.nf)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


class LanguageModelHead(nn.Module):
    """Radford et al. 2019, one block: every argument has a default, and the head has the weight of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(50, 16), nn.Embedding(32, 16)
        self.attention, self.projection = TransposedLinear(48, 16), TransposedLinear(16, 16)
        self.widen, self.narrow = TransposedLinear(64, 16), TransposedLinear(16, 64)
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(3))
        self.lm_head = nn.Linear(16, 50, bias=False)
        self.lm_head.weight = self.wte.weight

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor([[7, 6, 0, 0, 1], [1, 2, 3, 0, 0], [0, 0, 0, 4, 5]])}

    def forward(self, input_ids=None, past_key_values=None, attention_mask=None, labels=None, return_dict=None):
        if input_ids is None:
            raise ValueError("You have to specify either input_ids or inputs_embeds")
        input_ids = input_ids.view(-1, input_ids.shape[-1])
        places = torch.arange(input_ids.shape[-1], device=input_ids.device).unsqueeze(0)
        x = self.wte(input_ids) + self.wpe(places)
        q, k, v = self.attention(self.norms[0](x)).split(16, dim=2)
        heads = (part.view(*part.shape[:2], 2, 8).transpose(1, 2) for part in (q, k, v))
        attended = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.projection(attended.transpose(1, 2).contiguous().view(x.shape))
        x = x + self.narrow(F.gelu(self.widen(self.norms[1](x)), approximate="tanh"))
        logits = self.lm_head(self.norms[2](x))
        return ModelOutput(logits=logits, hidden_states=(x,))


@animal
def language_model_of_transformers():
    model = LanguageModelHead()
    return model, {"input_ids": model.dummy_inputs["input_ids"]}


# Containers and operations


@animal
def list_with_a_forward():
    class Chain(nn.ModuleList):
        def forward(self, x):
            for layer in self:
                x = layer(x)
            return x

    return Chain([nn.Linear(6, 5), nn.Linear(5, 2)]), (torch.zeros(1, 6),)


@animal
def dict_with_a_forward():
    class Named(nn.ModuleDict):
        def forward(self, x):
            return {name: layer(x) for name, layer in self.items()}

    return Named({"a": nn.Linear(6, 5), "b": nn.Linear(6, 2)}), (torch.zeros(1, 6),)


@animal
def pool_larger_than_the_map():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2, 2, ceil_mode=True), nn.AvgPool2d(2, 2, ceil_mode=True)), (
        torch.zeros(1, 3, 1, 1),
    )


@animal
def type_as_another_shape():
    def forward(self, x, like):
        return self.layer(x).type_as(like)

    return Calls(forward, layer=nn.Linear(6, 4)), (torch.zeros(1, 6), torch.zeros(1, 2, 3, dtype=torch.float64))


@animal
def refuses_the_meta_device():
    def forward(self, x):
        if x.device.type not in ("cpu", "cuda"):
            raise ValueError(f"no kernel for {x.device.type}")
        return self.layer(x)

    return Calls(forward, layer=nn.Linear(6, 4)), (torch.zeros(1, 6),)


@animal
def decompositions():
    def forward(self, x):
        matrix = self.layer(x).view(-1, 3, 3)
        return torch.linalg.inv(matrix + 2 * torch.eye(3)) @ torch.linalg.qr(matrix).Q

    return Calls(forward, layer=nn.Linear(6, 9)), (torch.zeros(1, 6),)


@animal
def data_of_another_tensor():
    def forward(self, x):
        y = self.layer(x)
        seen = torch.zeros(2)
        before = (seen * 2).sum()
        seen.data = y.detach()[:, 1:].t()
        return y * before + (seen * 2).sum()

    return Calls(forward, layer=nn.Linear(6, 4)), (torch.zeros(1, 6),)
