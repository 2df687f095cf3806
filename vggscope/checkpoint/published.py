"""Published weights: the names that torchvision gives its files, and the preprocessing that belongs to each.

A file's name ends with the first digits of its SHA-256 (`vgg16-397923af.pth`), so the digest of a file tells which it
is, whatever it is called. A test holds the table to the installed torchvision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import PurePath
from typing import Any

from vggscope.photo import IMAGENET_MEAN, IMAGENET_STD
from vggscope.record import record

Triple = tuple[float, float, float]


@record
class PublishedWeights:
    """Weights that torchvision publishes: the member of its enum, the file, and what becomes of an image.

    The shorter side of an RGB image is scaled to `resize` pixels, its centre of `crop` x `crop` is cut out, its values
    are scaled to 0..1, `mean` is subtracted and the rest divided by `std`, channel by channel.
    """

    name: str
    file: str
    resize: int
    crop: int
    interpolation: str
    mean: Triple
    std: Triple

    json_names = ("name", "file", "resize", "crop", "interpolation", "mean", "std", "channels")

    @property
    def channels(self) -> str:
        """The order of the channels."""
        return "RGB"

    @property
    def title(self) -> str:
        """The name with its library."""
        return f"torchvision's {self.name}"

    @property
    def preprocessing(self) -> str:
        """The preprocessing in words."""
        mean, std = (", ".join(f"{value:.5g}" for value in values) for values in (self.mean, self.std))
        return (
            f"RGB, shorter side to {self.resize} ({self.interpolation}), centre crop {self.crop}x{self.crop},"
            f" values 0..1, minus {mean}, divided by {std}"
        )


_CAFFE_MEAN = (0.48235, 0.45882, 0.40784)
"""The paper's mean, in values of 0..1."""

_BICUBIC = ("bicubic", IMAGENET_MEAN, IMAGENET_STD)

_TABLE: tuple[tuple[Any, ...], ...] = (
    ("AlexNet.IMAGENET1K_V1", "alexnet-owt-7be5be79", 256, 224),
    ("ConvNeXt_Base.IMAGENET1K_V1", "convnext_base-6075fbad", 232, 224),
    ("ConvNeXt_Large.IMAGENET1K_V1", "convnext_large-ea097f82", 232, 224),
    ("ConvNeXt_Small.IMAGENET1K_V1", "convnext_small-0c510722", 230, 224),
    ("ConvNeXt_Tiny.IMAGENET1K_V1", "convnext_tiny-983f1562", 236, 224),
    ("DenseNet121.IMAGENET1K_V1", "densenet121-a639ec97", 256, 224),
    ("DenseNet161.IMAGENET1K_V1", "densenet161-8d451a50", 256, 224),
    ("DenseNet169.IMAGENET1K_V1", "densenet169-b2777c0a", 256, 224),
    ("DenseNet201.IMAGENET1K_V1", "densenet201-c1103571", 256, 224),
    ("EfficientNet_B0.IMAGENET1K_V1", "efficientnet_b0_rwightman-7f5810bc", 256, 224, *_BICUBIC),
    ("EfficientNet_B1.IMAGENET1K_V1", "efficientnet_b1_rwightman-bac287d4", 256, 240, *_BICUBIC),
    ("EfficientNet_B1.IMAGENET1K_V2", "efficientnet_b1-c27df63c", 255, 240),
    ("EfficientNet_B2.IMAGENET1K_V1", "efficientnet_b2_rwightman-c35c1473", 288, 288, *_BICUBIC),
    ("EfficientNet_B3.IMAGENET1K_V1", "efficientnet_b3_rwightman-b3899882", 320, 300, *_BICUBIC),
    ("EfficientNet_B4.IMAGENET1K_V1", "efficientnet_b4_rwightman-23ab8bcd", 384, 380, *_BICUBIC),
    ("EfficientNet_B5.IMAGENET1K_V1", "efficientnet_b5_lukemelas-1a07897c", 456, 456, *_BICUBIC),
    ("EfficientNet_B6.IMAGENET1K_V1", "efficientnet_b6_lukemelas-24a108a5", 528, 528, *_BICUBIC),
    ("EfficientNet_B7.IMAGENET1K_V1", "efficientnet_b7_lukemelas-c5b4e57e", 600, 600, *_BICUBIC),
    (
        "EfficientNet_V2_L.IMAGENET1K_V1",
        "efficientnet_v2_l-59c71312",
        480,
        480,
        "bicubic",
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
    ),
    ("EfficientNet_V2_M.IMAGENET1K_V1", "efficientnet_v2_m-dc08266a", 480, 480),
    ("EfficientNet_V2_S.IMAGENET1K_V1", "efficientnet_v2_s-dd5fe13b", 384, 384),
    ("GoogLeNet.IMAGENET1K_V1", "googlenet-1378be20", 256, 224),
    ("Inception_V3.IMAGENET1K_V1", "inception_v3_google-0cc3c7bd", 342, 299),
    ("MaxVit_T.IMAGENET1K_V1", "maxvit_t-bc5ab103", 224, 224, *_BICUBIC),
    ("MNASNet0_5.IMAGENET1K_V1", "mnasnet0.5_top1_67.823-3ffadce67e", 256, 224),
    ("MNASNet0_75.IMAGENET1K_V1", "mnasnet0_75-7090bc5f", 232, 224),
    ("MNASNet1_0.IMAGENET1K_V1", "mnasnet1.0_top1_73.512-f206786ef8", 256, 224),
    ("MNASNet1_3.IMAGENET1K_V1", "mnasnet1_3-a4c69d6f", 232, 224),
    ("MobileNet_V2.IMAGENET1K_V1", "mobilenet_v2-b0353104", 256, 224),
    ("MobileNet_V2.IMAGENET1K_V2", "mobilenet_v2-7ebf99e0", 232, 224),
    ("MobileNet_V3_Large.IMAGENET1K_V1", "mobilenet_v3_large-8738ca79", 256, 224),
    ("MobileNet_V3_Large.IMAGENET1K_V2", "mobilenet_v3_large-5c1a4163", 232, 224),
    ("MobileNet_V3_Small.IMAGENET1K_V1", "mobilenet_v3_small-047dcff4", 256, 224),
    ("RegNet_X_16GF.IMAGENET1K_V1", "regnet_x_16gf-2007eb11", 256, 224),
    ("RegNet_X_16GF.IMAGENET1K_V2", "regnet_x_16gf-ba3796d7", 232, 224),
    ("RegNet_X_1_6GF.IMAGENET1K_V1", "regnet_x_1_6gf-e3633e7f", 256, 224),
    ("RegNet_X_1_6GF.IMAGENET1K_V2", "regnet_x_1_6gf-a12f2b72", 232, 224),
    ("RegNet_X_32GF.IMAGENET1K_V1", "regnet_x_32gf-9d47f8d0", 256, 224),
    ("RegNet_X_32GF.IMAGENET1K_V2", "regnet_x_32gf-6eb8fdc6", 232, 224),
    ("RegNet_X_3_2GF.IMAGENET1K_V1", "regnet_x_3_2gf-f342aeae", 256, 224),
    ("RegNet_X_3_2GF.IMAGENET1K_V2", "regnet_x_3_2gf-7071aa85", 232, 224),
    ("RegNet_X_400MF.IMAGENET1K_V1", "regnet_x_400mf-adf1edd5", 256, 224),
    ("RegNet_X_400MF.IMAGENET1K_V2", "regnet_x_400mf-62229a5f", 232, 224),
    ("RegNet_X_800MF.IMAGENET1K_V1", "regnet_x_800mf-ad17e45c", 256, 224),
    ("RegNet_X_800MF.IMAGENET1K_V2", "regnet_x_800mf-94a99ebd", 232, 224),
    ("RegNet_X_8GF.IMAGENET1K_V1", "regnet_x_8gf-03ceed89", 256, 224),
    ("RegNet_X_8GF.IMAGENET1K_V2", "regnet_x_8gf-2b70d774", 232, 224),
    ("RegNet_Y_128GF.IMAGENET1K_SWAG_E2E_V1", "regnet_y_128gf_swag-c8ce3e52", 384, 384, *_BICUBIC),
    ("RegNet_Y_128GF.IMAGENET1K_SWAG_LINEAR_V1", "regnet_y_128gf_lc_swag-cbe8ce12", 224, 224, *_BICUBIC),
    ("RegNet_Y_16GF.IMAGENET1K_V1", "regnet_y_16gf-9e6ed7dd", 256, 224),
    ("RegNet_Y_16GF.IMAGENET1K_V2", "regnet_y_16gf-3e4a00f9", 232, 224),
    ("RegNet_Y_16GF.IMAGENET1K_SWAG_E2E_V1", "regnet_y_16gf_swag-43afe44d", 384, 384, *_BICUBIC),
    ("RegNet_Y_16GF.IMAGENET1K_SWAG_LINEAR_V1", "regnet_y_16gf_lc_swag-f3ec0043", 224, 224, *_BICUBIC),
    ("RegNet_Y_1_6GF.IMAGENET1K_V1", "regnet_y_1_6gf-b11a554e", 256, 224),
    ("RegNet_Y_1_6GF.IMAGENET1K_V2", "regnet_y_1_6gf-0d7bc02a", 232, 224),
    ("RegNet_Y_32GF.IMAGENET1K_V1", "regnet_y_32gf-4dee3f7a", 256, 224),
    ("RegNet_Y_32GF.IMAGENET1K_V2", "regnet_y_32gf-8db6d4b5", 232, 224),
    ("RegNet_Y_32GF.IMAGENET1K_SWAG_E2E_V1", "regnet_y_32gf_swag-04fdfa75", 384, 384, *_BICUBIC),
    ("RegNet_Y_32GF.IMAGENET1K_SWAG_LINEAR_V1", "regnet_y_32gf_lc_swag-e1583746", 224, 224, *_BICUBIC),
    ("RegNet_Y_3_2GF.IMAGENET1K_V1", "regnet_y_3_2gf-b5a9779c", 256, 224),
    ("RegNet_Y_3_2GF.IMAGENET1K_V2", "regnet_y_3_2gf-9180c971", 232, 224),
    ("RegNet_Y_400MF.IMAGENET1K_V1", "regnet_y_400mf-c65dace8", 256, 224),
    ("RegNet_Y_400MF.IMAGENET1K_V2", "regnet_y_400mf-e6988f5f", 232, 224),
    ("RegNet_Y_800MF.IMAGENET1K_V1", "regnet_y_800mf-1b27b58c", 256, 224),
    ("RegNet_Y_800MF.IMAGENET1K_V2", "regnet_y_800mf-58fc7688", 232, 224),
    ("RegNet_Y_8GF.IMAGENET1K_V1", "regnet_y_8gf-d0d0e4a8", 256, 224),
    ("RegNet_Y_8GF.IMAGENET1K_V2", "regnet_y_8gf-dc2b1b54", 232, 224),
    ("ResNet101.IMAGENET1K_V1", "resnet101-63fe2227", 256, 224),
    ("ResNet101.IMAGENET1K_V2", "resnet101-cd907fc2", 232, 224),
    ("ResNet152.IMAGENET1K_V1", "resnet152-394f9c45", 256, 224),
    ("ResNet152.IMAGENET1K_V2", "resnet152-f82ba261", 232, 224),
    ("ResNet18.IMAGENET1K_V1", "resnet18-f37072fd", 256, 224),
    ("ResNet34.IMAGENET1K_V1", "resnet34-b627a593", 256, 224),
    ("ResNet50.IMAGENET1K_V1", "resnet50-0676ba61", 256, 224),
    ("ResNet50.IMAGENET1K_V2", "resnet50-11ad3fa6", 232, 224),
    ("ResNeXt101_32X8D.IMAGENET1K_V1", "resnext101_32x8d-8ba56ff5", 256, 224),
    ("ResNeXt101_32X8D.IMAGENET1K_V2", "resnext101_32x8d-110c445d", 232, 224),
    ("ResNeXt101_64X4D.IMAGENET1K_V1", "resnext101_64x4d-173b62eb", 232, 224),
    ("ResNeXt50_32X4D.IMAGENET1K_V1", "resnext50_32x4d-7cdf4587", 256, 224),
    ("ResNeXt50_32X4D.IMAGENET1K_V2", "resnext50_32x4d-1a0047aa", 232, 224),
    ("ShuffleNet_V2_X0_5.IMAGENET1K_V1", "shufflenetv2_x0.5-f707e7126e", 256, 224),
    ("ShuffleNet_V2_X1_0.IMAGENET1K_V1", "shufflenetv2_x1-5666bf0f80", 256, 224),
    ("ShuffleNet_V2_X1_5.IMAGENET1K_V1", "shufflenetv2_x1_5-3c479a10", 232, 224),
    ("ShuffleNet_V2_X2_0.IMAGENET1K_V1", "shufflenetv2_x2_0-8be3c8ee", 232, 224),
    ("SqueezeNet1_0.IMAGENET1K_V1", "squeezenet1_0-b66bff10", 256, 224),
    ("SqueezeNet1_1.IMAGENET1K_V1", "squeezenet1_1-b8a52dc0", 256, 224),
    ("Swin_B.IMAGENET1K_V1", "swin_b-68c6b09e", 238, 224, *_BICUBIC),
    ("Swin_S.IMAGENET1K_V1", "swin_s-5e29d889", 246, 224, *_BICUBIC),
    ("Swin_T.IMAGENET1K_V1", "swin_t-704ceda3", 232, 224, *_BICUBIC),
    ("Swin_V2_B.IMAGENET1K_V1", "swin_v2_b-781e5279", 272, 256, *_BICUBIC),
    ("Swin_V2_S.IMAGENET1K_V1", "swin_v2_s-637d8ceb", 260, 256, *_BICUBIC),
    ("Swin_V2_T.IMAGENET1K_V1", "swin_v2_t-b137f0e2", 260, 256, *_BICUBIC),
    ("VGG11.IMAGENET1K_V1", "vgg11-8a719046", 256, 224),
    ("VGG11_BN.IMAGENET1K_V1", "vgg11_bn-6002323d", 256, 224),
    ("VGG13.IMAGENET1K_V1", "vgg13-19584684", 256, 224),
    ("VGG13_BN.IMAGENET1K_V1", "vgg13_bn-abd245e5", 256, 224),
    ("VGG16.IMAGENET1K_V1", "vgg16-397923af", 256, 224),
    (
        "VGG16.IMAGENET1K_FEATURES",
        "vgg16_features-amdegroot-88682ab5",
        256,
        224,
        "bilinear",
        (0.48235, 0.45882, 0.40784),
        (1 / 255,) * 3,
    ),
    ("VGG16_BN.IMAGENET1K_V1", "vgg16_bn-6c64b313", 256, 224),
    ("VGG19.IMAGENET1K_V1", "vgg19-dcbb9e9d", 256, 224),
    ("VGG19_BN.IMAGENET1K_V1", "vgg19_bn-c79401a0", 256, 224),
    ("ViT_B_16.IMAGENET1K_V1", "vit_b_16-c867db91", 256, 224),
    ("ViT_B_16.IMAGENET1K_SWAG_E2E_V1", "vit_b_16_swag-9ac1b537", 384, 384, *_BICUBIC),
    ("ViT_B_16.IMAGENET1K_SWAG_LINEAR_V1", "vit_b_16_lc_swag-4e70ced5", 224, 224, *_BICUBIC),
    ("ViT_B_32.IMAGENET1K_V1", "vit_b_32-d86f8d99", 256, 224),
    ("ViT_H_14.IMAGENET1K_SWAG_E2E_V1", "vit_h_14_swag-80465313", 518, 518, *_BICUBIC),
    ("ViT_H_14.IMAGENET1K_SWAG_LINEAR_V1", "vit_h_14_lc_swag-c1eb923e", 224, 224, *_BICUBIC),
    ("ViT_L_16.IMAGENET1K_V1", "vit_l_16-852ce7e3", 242, 224),
    ("ViT_L_16.IMAGENET1K_SWAG_E2E_V1", "vit_l_16_swag-4f3808c9", 512, 512, *_BICUBIC),
    ("ViT_L_16.IMAGENET1K_SWAG_LINEAR_V1", "vit_l_16_lc_swag-4d563306", 224, 224, *_BICUBIC),
    ("ViT_L_32.IMAGENET1K_V1", "vit_l_32-c7638314", 256, 224),
    ("Wide_ResNet101_2.IMAGENET1K_V1", "wide_resnet101_2-32ee1156", 256, 224),
    ("Wide_ResNet101_2.IMAGENET1K_V2", "wide_resnet101_2-d733dc28", 232, 224),
    ("Wide_ResNet50_2.IMAGENET1K_V1", "wide_resnet50_2-95faca4d", 256, 224),
    ("Wide_ResNet50_2.IMAGENET1K_V2", "wide_resnet50_2-9ba9bcbe", 232, 224),
)
"""The enum's member without `_Weights`, the file without `.pth`, resize, crop; then, if one of them is not
the usual, the interpolation, the mean and the standard deviation.
"""


@cache
def published() -> tuple[PublishedWeights, ...]:
    """All published weights of the table."""
    return tuple(_weights())


def published_by_digest(digest: str) -> PublishedWeights | None:
    """The weights whose file name has the first digits of this SHA-256; None for no published file."""
    return next((weights for weights in published() if digest.startswith(_digits(weights.file))), None)


def published_by_name(path: str) -> PublishedWeights | None:
    """The weights whose file has this name; copies such as `vgg16-397923af (1).pth` count too.

    >>> published_by_name("/models/vgg16-397923af.pth").name
    'VGG16_Weights.IMAGENET1K_V1'
    """
    found = re.match(r"(.{1,60}-[0-9a-f]{8,10})(?![0-9a-f])", PurePath(path).name)
    return next((weights for weights in published() if found and weights.file == f"{found[1]}.pth"), None)


def _digits(file: str) -> str:
    return PurePath(file).stem.rpartition("-")[2]


def _weights() -> Iterator[PublishedWeights]:
    for name, stem, resize, crop, *unusual in _TABLE:
        interpolation, mean, std = unusual or ("bilinear", IMAGENET_MEAN, IMAGENET_STD)
        enum, _, member = name.partition(".")
        yield PublishedWeights(f"{enum}_Weights.{member}", f"{stem}.pth", resize, crop, interpolation, mean, std)
