"""The diff on files as people write them: correct ones, and the same with one mistake each.

For each mistake the diff must name the layer and the attribute, and no other cause.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from tests.explained import assert_explained
from vggscope.api import diff as vggscope_diff
from vggscope.diffing.compare import compare
from vggscope.diffing.result import Diff
from vggscope.errors import ModelError, OptionError
from vggscope.sources.reference import reference_for
from vggscope.sources.resolve import resolve
from vggscope.vgg.options import BuildOptions

REPLICAS = Path(__file__).parent / "replicas"

RIGHT = [
    ("by_hand.py:VGG11", "A", "identical"),
    ("cfg_loop.py:VGG", "D", "equivalent"),
    ("cfg_loop.py:vgg16_bn", "D_bn", "equivalent"),
    ("functional.py:Net", "A", "equivalent"),
    ("blocks.py:vgg", "E", "equivalent"),
    ("conv_units.py:VGG13", "B_bn", "equivalent"),
    ("dense_head.py:FullyConvolutional", "D", "equivalent"),
    ("with_lrn.py:make_net", "A-LRN", "equivalent"),
    ("column_c.py:ColumnC", "C", "equivalent"),
    ("helper.py:make_net", "A_bn", "equivalent"),
    ("cfg_dict.py:VGG", "D", "equivalent"),
    ("stage_tuples.py:VGG16", "D", "equivalent"),
    ("pool_positions.py:VGG16", "D", "equivalent"),
    ("shared_list.py:make", "D", "equivalent"),
    ("computed_list.py:VGG", "D", "equivalent"),
    ("appended.py:VGG", "D", "equivalent"),
    ("block_attributes.py:VGG16", "D", "equivalent"),
    ("sequential_attributes.py:VGG11", "A", "equivalent"),
    ("named_calls.py:VGG11", "A", "equivalent"),
    *(
        (f"written_otherwise.py:{name}", "A", "equivalent")
        for name in (
            *("VGG11", "LeakyZero", "Clamp", "Threshold", "Maximum", "MaximumOfNumber", "PaddedByHand", "AdaptivePool"),
            *("Resized", "Scaled", "Chunked", "Squeezed", "Alpha", "Pixels", "InPlace", "Flipped", "BiasApart"),
            *("Where", "Masked", "FilledBelowZero", "SetBelowZero", "HalfOfSum", "ByHand", "ChannelsLast"),
        )
    ),
]

NOT_THE_SAME = [
    ("Shared", "shares convs.6.weight with an earlier layer"),
    ("Tied", "shares convs.5.weight with an earlier layer"),
    ("Normalised", "sub(x, 0.5)"),
]

FEATURES_A = "            nn.MaxPool2d(kernel_size=2, stride=2),\n"

MISTAKES = [
    # padding, kernel, stride
    ("by_hand.py:VGG11", "nn.Conv2d(64, 128, kernel_size=3, padding=1)", "nn.Conv2d(64, 128, kernel_size=3)", "changed conv2_1 padding"),
    ("by_hand.py:VGG11", "nn.Conv2d(512, 512, kernel_size=3, padding=1)", "nn.Conv2d(512, 512, kernel_size=5, padding=2)", "changed conv4_2 kernel_size"),
    ("by_hand.py:VGG11", "nn.Conv2d(3, 64, kernel_size=3, padding=1)", "nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1)", "changed conv1_1 stride"),
    ("functional.py:Net", "nn.Conv2d(256, 512, 3, padding=1)", "nn.Conv2d(256, 512, 3, padding=2)", "changed conv4_1 padding"),
    ("functional.py:Net", "nn.Conv2d(128, 256, 3, padding=1)", "nn.Conv2d(128, 256, 3, padding=2, dilation=2)", "changed conv3_1 padding"),
    ("cfg_loop.py:VGG", "v, 3, padding=1)", "v, 3)", "changed conv1_1 padding"),
    ("column_c.py:ColumnC", "stage(4, 256, 512, (3, 3, 1))", "stage(4, 256, 512, (3, 3, 3))", "changed conv4_3 kernel_size"),
    # channels and bias
    ("by_hand.py:VGG11", "nn.Conv2d(64, 128, kernel_size=3, padding=1),\n            nn.ReLU(inplace=True),\n            nn.MaxPool2d(kernel_size=2, stride=2),\n            nn.Conv2d(128, 256", "nn.Conv2d(64, 96, kernel_size=3, padding=1),\n            nn.ReLU(inplace=True),\n            nn.MaxPool2d(kernel_size=2, stride=2),\n            nn.Conv2d(96, 256", "changed conv2_1 out_channels"),
    ("blocks.py:vgg", "(4, 256), (4, 512), (4, 512))", "(4, 256), (4, 512), (4, 256))", "changed conv5_1 out_channels"),
    ("functional.py:Net", "nn.Conv2d(256, 256, 3, padding=1)", "nn.Conv2d(256, 256, 3, padding=1, bias=False)", "changed conv3_2 bias"),
    ("conv_units.py:VGG13", "stride=1, padding=1)", "stride=1, padding=1, bias=False)", "changed conv1_1 bias"),
    ("by_hand.py:VGG11", "nn.Linear(4096, num_classes)", "nn.Linear(4096, num_classes, bias=False)", "changed fc8 bias"),
    # a missing layer, an inserted layer
    ("cfg_loop.py:VGG", '256, 256, 256, "M"', '256, 256, "M"', "missing conv3_3"),
    ("cfg_loop.py:VGG", '64, 64, "M", 128', '64, 64, 64, "M", 128', "inserted conv1_3"),
    ("blocks.py:vgg", "(2, 128)", "(1, 128)", "missing conv2_2"),
    ("conv_units.py:VGG13", "Unit(256, 512), Unit(512, 512))\n        self.stage5", "Unit(256, 512))\n        self.stage5", "missing conv4_2"),
    ("with_lrn.py:make_net", "nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0), ", "", "missing norm1_1"),
    ("with_lrn.py:make_net", "alpha=5e-4", "alpha=1e-4", "changed norm1_1 alpha"),
    ("conv_units.py:VGG13", "self.relu(self.bn(self.conv(x)))", "self.relu(self.conv(x))", "missing bn1_1"),
    ("helper.py:make_net", "nn.BatchNorm2d(cout), ", "", "missing bn1_1"),
    ("by_hand.py:VGG11", "            nn.Linear(4096, 4096),\n            nn.ReLU(inplace=True),\n            nn.Dropout(0.5),\n", "", "missing fc7"),
    # pools
    ("by_hand.py:VGG11", "nn.MaxPool2d(kernel_size=2, stride=2)", "nn.AvgPool2d(kernel_size=2, stride=2)", "changed pool1 op"),
    ("by_hand.py:VGG11", "nn.MaxPool2d(kernel_size=2, stride=2)", "nn.MaxPool2d(kernel_size=2, stride=1)", "changed pool1 stride"),
    ("by_hand.py:VGG11", "nn.MaxPool2d(kernel_size=2, stride=2)", "nn.MaxPool2d(kernel_size=3, stride=2)", "changed pool1 kernel_size"),
    # without the pool, its view(-1, 512 * 7 * 7) turns one image into four rows
    ("functional.py:Net", "F.max_pool2d(F.relu(self.conv4b(x)), 2)", "F.relu(self.conv4b(x))", "missing pool4, changed view op"),
    ("functional.py:Net", "x = F.relu(self.conv5a(x))", "x = F.max_pool2d(F.relu(self.conv5a(x)), 2)", "inserted pool5"),
    ("conv_units.py:VGG13", "nn.MaxPool2d(2)", "nn.AvgPool2d(2)", "changed pool1 op"),
    # activations
    ("functional.py:Net", "x = F.relu(self.conv3a(x))", "x = self.conv3a(x)", "missing relu3_1"),
    ("functional.py:Net", "F.relu(self.fc1(x))", "F.sigmoid(self.fc1(x))", "changed relu6 op"),
    ("cfg_loop.py:VGG", "nn.ReLU()]\n            in_channels", "nn.Sigmoid()]\n            in_channels", "changed relu1_1 op"),
    ("by_hand.py:VGG11", "            nn.Linear(512 * 7 * 7, 4096),\n            nn.ReLU(inplace=True),\n", "            nn.Linear(512 * 7 * 7, 4096),\n", "missing relu6"),
    ("functional.py:Net", "return self.fc3(x)", "return F.softmax(self.fc3(x), dim=1)", "inserted prob"),
    # a relocated layer
    ("conv_units.py:VGG13", "self.relu(self.bn(self.conv(x)))", "self.bn(self.relu(self.conv(x)))", "changed relu1_1 order"),
    ("cfg_loop.py:VGG", '256, 256, 256, "M"', '256, 256, "M", 256', "changed pool3 order"),
    ("functional.py:Net", "F.max_pool2d(F.relu(self.conv4b(x)), 2)", "F.avg_pool2d(self.conv4b(x), 2).relu()", "changed relu4_2 order, changed pool4 op"),
    # order, head, classes, input
    ("blocks.py:vgg", "(4, 256), (4, 512), (4, 512))", "(4, 512), (4, 256), (4, 512))", "changed conv3_1 out_channels, changed conv4_1 out_channels"),
    ("cfg_loop.py:VGG", "nn.Linear(4096, 1000)", "nn.Linear(4096, 100)", "changed fc8 out_features"),
    ("functional.py:Net", "nn.Conv2d(3, 64, 3, padding=1)", "nn.Conv2d(1, 64, 3, padding=1)", "changed conv1_1 in_channels"),
    ("by_hand.py:VGG11", "nn.AdaptiveAvgPool2d((7, 7))", "nn.AdaptiveAvgPool2d((1, 1))", "changed avgpool output_size"),
    ("functional.py:Net", "F.dropout(F.relu(self.fc2(x)), 0.5, self.training)", "F.dropout(F.relu(self.fc2(x)))", "changed drop7 active_in"),
    # training only: the verdict stays equivalent
    ("by_hand.py:VGG11", "nn.Dropout(0.5)", "nn.Dropout(0.2)", "training changed drop6 p"),
    ("conv_units.py:VGG13", "num_features=out_ch)", "num_features=out_ch, momentum=0.01)", "training changed bn1_1 momentum"),
    ("functional.py:Net", "F.dropout(F.relu(self.fc1(x)), 0.5, self.training)", "F.relu(self.fc1(x))", "training missing drop6"),
    # it does not run
    ("by_hand.py:VGG11", "nn.Linear(512 * 7 * 7, 4096)", "nn.Linear(512 * 6 * 6, 4096)", "changed fc6 in_features"),
    ("functional.py:Net", "nn.Conv2d(256, 512, 3, padding=1)", "nn.Conv2d(128, 512, 3, padding=1)", "changed conv4_1 in_channels"),
]  # fmt: skip


def against_its_column(word: str) -> Diff:
    path, _, name = word.partition(":")
    column = next(
        column for right, column, _ in RIGHT if right.partition(":")[0] == Path(path).name and right.endswith(name)
    )
    ours = resolve(word)
    return compare(
        ours, resolve(column, BuildOptions(input=ours.input_shape[1:] if ours.input_shape[1] == 3 else None))
    )


@pytest.mark.parametrize(("word", "column", "verdict"), RIGHT)
def test_a_correct_file_has_no_difference_that_counts(word: str, column: str, verdict: str) -> None:
    word = f"{REPLICAS}/{word}"
    ours = resolve(word)
    reference = reference_for("paper", word, ours, BuildOptions())
    name = column.removesuffix("_bn") + (" with batch norm added" if column.endswith("_bn") else "")
    assert reference.network.name == f"the paper's column {name}"
    assert compare(ours, reference.network).verdict == verdict


PROOFS = [
    ("Where", "with the layers around it, it is max(x, 0)"),
    ("Masked", "with the layers around it, it is max(x, 0)"),
    ("FilledBelowZero", "with the layers around it, it is max(x, 0)"),
    ("SetBelowZero", "with the layers around it, it is max(x, 0)"),
    ("HalfOfSum", "with the layers around it, it is 2 x above 0 and 0 below"),
    ("HalfOfSum", "with the layers around it, it is max(x, 0)"),
    ("BiasApart", "it adds a bias of each channel"),
    ("ByHand", "the product with the transpose of a weight is a linear layer"),
]


@pytest.mark.parametrize(("name", "text"), PROOFS)
def test_the_proof_of_several_layers_together_is_in_a_message(name: str, text: str) -> None:
    diff = compare(resolve(f"{REPLICAS}/written_otherwise.py:{name}"), resolve("A"))
    assert any(f"; the same function: {text}" in difference.message for difference in diff.differences)


@pytest.mark.parametrize(("name", "message"), NOT_THE_SAME)
def test_shared_weights_and_constants_are_another_network(name: str, message: str) -> None:
    diff = compare(resolve(f"{REPLICAS}/written_otherwise.py:{name}"), resolve("A"))
    assert diff.verdict == "different"
    assert_explained(diff)
    assert any(message in d.message for d in diff.differences if d.changes_output), diff.differences


@pytest.mark.parametrize(("word", "old", "new", "expected"), MISTAKES)
def test_one_mistake_is_named(tmp_path: Path, word: str, old: str, new: str, expected: str) -> None:
    file, _, name = word.partition(":")
    source = (REPLICAS / file).read_text()
    assert old in source
    (tmp_path / file).write_text(source.replace(old, new, 1))
    diff = against_its_column(f"{tmp_path / file}:{name}")
    wanted = expected.removeprefix("training ")
    effects = ("training_only",) if wanted != expected else ("shape", "function")
    causes = [d for d in diff.differences if d.effect in effects]
    assert ", ".join(named(d) for d in causes if d.effect in effects) == wanted, diff.differences
    assert diff.verdict == ("different" if wanted == expected else "equivalent")
    assert_explained(diff)


def named(difference) -> str:
    layer = difference.label or difference.ours
    attribute = difference.changes[0].attribute if difference.changes else ""
    return f"{difference.kind} {layer} {attribute}".strip()


RETURN = "return self.out(self.head(self.flatten(x)))"

ASIDE = [
    ("x = self.pool(stage(x))", "x = self.pool(stage(x)); print(x.mean())"),
    (RETURN, f"x = {RETURN[7:]}; return x, F.softmax(x, dim=1)"),
    (RETURN, f"x = {RETURN[7:]}; self.spread = x.std(); return x"),
]


@pytest.mark.parametrize(("old", "new"), ASIDE)
def test_side_outputs_have_no_effect(tmp_path: Path, old: str, new: str) -> None:
    source = (REPLICAS / "conv_units.py").read_text()
    assert old in source
    (tmp_path / "net.py").write_text("import torch.nn.functional as F\n" + source.replace(old, new, 1))
    ours = resolve(f"{tmp_path / 'net.py'}:VGG13")
    diff = compare(ours, resolve("B_bn"))
    assert diff.verdict == "equivalent"
    (difference,) = (d for d in diff.differences if d.kind == "inserted")
    assert "; the output does not depend on it" in difference.message
    assert [n.label for n in ours.nodes if n.op.name == "Conv2d"] == [
        f"conv{stage}_{i}" for stage in range(1, 6) for i in (1, 2)
    ]


def test_a_mean_that_the_output_depends_on_counts(tmp_path: Path) -> None:
    source = (REPLICAS / "conv_units.py").read_text()
    (tmp_path / "net.py").write_text(
        source.replace("(stage(x))", "(stage(x)); x = x if x.shape[1] > 64 else x - x.mean()")
    )
    diff = compare(resolve(f"{tmp_path / 'net.py'}:VGG13"), resolve("B_bn"))
    assert [(d.kind, d.ours) for d in diff.differences if d.effect in ("shape", "function")] == [
        ("inserted", "mean"),
        ("inserted", "sub"),
    ]


ADVICE = [
    # as in Keras and TensorFlow
    ("x = self.pool(stage(x))\n", "x = self.pool(stage(x))\n        x = x.permute(0, 2, 3, 1)\n", "permute", "in another order"),
    (RETURN, f"return {RETURN[7:]}.softmax(1)", "softmax", "torch.nn.CrossEntropyLoss takes the logits"),
    ("    def forward(self, x):\n        for", "    def forward(self, x):\n        x = x.permute(0, 3, 1, 2)\n        for", "permute", "the channels last, 224x224x3"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "layer", "advice"), ADVICE)
def test_a_habit_from_keras_is_one_mistake_with_advice(
    tmp_path: Path, old: str, new: str, layer: str, advice: str
) -> None:
    source = (REPLICAS / "conv_units.py").read_text()
    assert old in source
    (tmp_path / "net.py").write_text(source.replace(old, new, 1))
    diff = compare(resolve(f"{tmp_path / 'net.py'}:VGG13"), resolve("B_bn"))
    (difference,) = (d for d in diff.differences if d.effect in ("shape", "function"))
    assert (difference.kind, difference.ours) == ("inserted", layer)
    assert any(advice in text for text in difference.consequences), difference.consequences


LIST_D = '"VGG16": [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],'
POOL_5 = "self.layer8 = nn.Sequential(nn.Conv2d(512, 512, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2))"
WIDE_FC = "self.fc = nn.Sequential(nn.Linear(100352, 4096), nn.ReLU(), nn.Dropout(0.5))"
RIGHT_FC = "self.fc = nn.Sequential(nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(0.5))"
LOOP_D = "        for block in (self.block1, self.block2, self.block3, self.block4, self.block5):\n            x = block(x)\n"
CALLS_D = "".join(f"        x = self.block{i}(x)\n" for i in range(1, 6))

NAMED_CALLS = (REPLICAS / "named_calls.py").read_text()
OWN_CONV = NAMED_CALLS[NAMED_CALLS.index("        self.conv5_2") : NAMED_CALLS.index("        x = x.view")]
"""The line that builds conv5_2, and all to the line that calls it."""

REMEDIES = [
    # A list of widths and pools: one element missing, superfluous or another.
    ("cfg_dict.py:VGG", "D", '128, 128, "M", 256, 256, 256', "128, 128, 256, 256, 256", f"7: write {LIST_D}"),
    ("cfg_dict.py:VGG", "D", '128, 128, "M", 256, 256, 256', '128, "M", 128, "M", 256, 256, 256', f"7: write {LIST_D}"),
    ("cfg_dict.py:VGG", "D", '512, 512, 512, "M"],', "512, 512, 512],", f"7: write {LIST_D}"),
    ("cfg_dict.py:VGG", "D", "256, 256, 256", "256, 256", f"7: write {LIST_D}"),
    ("cfg_dict.py:VGG", "D", "256, 256, 256", "256, 256, 256, 256", f"7: write {LIST_D}"),
    ("cfg_dict.py:VGG", "D", "256, 256, 256", "256, 256, 512", f"7: write {LIST_D}"),
    ("stage_tuples.py:VGG16", "D", '(256, 256, 256, "pool")', "(256, 256, 256)", '12: write (256, 256, 256, "pool"),'),
    ("pool_positions.py:VGG16", "D", "[1, 3, 6, 9, 12]", "[1, 3, 6, 9]", "14: write self.pool_after = [1, 3, 6, 9, 12]"),
    ("shared_list.py:make", "D", '[*START, 256, "M", 512,', '[*START, 256, 512,', '7: write 16: [*START, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],'),
    # A layer that a loop appends.
    ("appended.py:VGG", "D", "                layers.append(nn.ReLU())\n", "", "17: add layers.append(nn.ReLU(inplace=True)) after this line"),
    # A module that forward never calls, in a line, in an expression, in a loop; or in place of another one.
    ("block_attributes.py:VGG16", "D", "        x = self.block4(x)\n", "", "32: add x = self.block4(x) after this line"),
    ("block_attributes.py:VGG16", "D", "        x = self.block5(x)\n", "", "33: add x = self.block5(x) after this line"),
    ("block_attributes.py:VGG16", "D", "self.block5(x)", "self.block4(x)", "34: write x = self.block5(x)"),
    ("block_attributes.py:VGG16", "D", CALLS_D, LOOP_D.replace("self.block4, ", ""), "30: write for block in (self.block1, self.block2, self.block3, self.block4, self.block5):"),
    ("block_attributes.py:VGG16", "D", "        x = self.drop(self.relu(self.fc2(x)))\n", "", "37: add x = self.drop(self.relu(self.fc2(x))) after this line"),
    ("sequential_attributes.py:VGG11", "A", "self.layer8(out)", "self.layer7(out)", "29: write out = self.layer8(out)"),
    ("sequential_attributes.py:VGG11", "A", "        out = self.layer7(out)\n", "", "27: add out = self.layer7(out) after this line"),
    # A module that runs once too often.
    ("block_attributes.py:VGG16", "D", "        x = self.block5(x)\n", "        x = self.block5(x)\n        x = self.block5(x)\n", "35: delete this line"),
    ("block_attributes.py:VGG16", "D", "self.block5(x)", "self.block5(self.block5(x))", "34: write x = self.block5(x)"),
    # A module that runs twice where the reference has two.
    ("named_calls.py:VGG11", "A", OWN_CONV, OWN_CONV.partition("\n")[2].replace("conv5_2", "conv5_1"), f"31: write x = self.pool(F.relu(self.conv5_2(x))) and line 16: add {OWN_CONV.partition(chr(10))[0].strip()} after this line"),
    # A missing pool and the layer after it that has the width without it.
    ("sequential_attributes.py:VGG11", "A", f"{POOL_5}\n        self.fc = nn.Sequential(nn.Linear(7 * 7 * 512,", f"{POOL_5.replace(', nn.MaxPool2d(2, 2)', '')}\n        self.fc = nn.Sequential(nn.Linear(100352,", f"16: write {POOL_5.replace('2, 2', 'kernel_size=2, stride=2')} and line 17: write {RIGHT_FC}"),
    ("named_calls.py:VGG11", "A", "self.pool(F.relu(self.conv3_2(x)))", "F.relu(self.conv3_2(x))", "28: write x = self.pool(F.relu(self.conv3_2(x)))"),
]  # fmt: skip
"""Mistakes with the line of the first difference and what to write there."""


@pytest.mark.parametrize(("word", "column", "old", "new", "expected"), REMEDIES)
def test_the_remedy_is_a_line_of_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, column: str, old: str, new: str, expected: str
) -> None:
    file = word.partition(":")[0]
    source = (REPLICAS / file).read_text()
    assert old in source
    (tmp_path / file).write_text(source.replace(old, new, 1))
    monkeypatch.chdir(tmp_path)
    difference = vggscope_diff(word, ref=column).differences[0]
    assert f"{difference.line.partition(':')[2]}: {difference.remedy}" == expected


OTHER_MISTAKES = [
    ("cifar.py:VGG", "vgg16-cifar_bn", "nn.MaxPool2d(", "nn.AvgPool2d("),
    ("cifar.py:VGG", "vgg16-cifar_bn", "nn.Linear(512, num", "nn.Linear(512, 2 * num"),
    ("dense_head.py:FullyConvolutional", "D", "self.act = nn.ReLU()", "self.act = nn.Sigmoid()"),
    ("dense_head.py:FullyConvolutional", "D", 'padding="same"', "padding=0"),
    ("dense_head.py:FullyConvolutional", "D", "(256, 256), (256, 256), None", "(256, 256), None"),
    ("written_otherwise.py:VGG11", "A", "return 1\n", "return 2\n"),
    ("written_otherwise.py:VGG11", "A", "F.max_pool2d(x, 2)", "F.avg_pool2d(x, 2)"),
    ("written_otherwise.py:Normalised", "A", "Not column A", "Another than column A"),
    *((word, column, old, new) for word, column, old, new, _ in REMEDIES),
]
"""Mistakes in the other files, each with its reference."""

NOTHING_TO_MEND = "changed conv1_1 in_channels"
"""The column is built for an image of one channel too: the two agree as they are."""

WITHOUT_A_PATCH = {
    "Shared": "a layer takes the place of another one after it was built: no call or list shows that",
    "Tied": "weights are assigned after they were built: no call or list shows that",
}
"""Classes of written_otherwise.py that no patch mends, with the reason."""


def column_of(word: str) -> str:
    return next(column for right, column, _ in RIGHT if right == word)


def patch_cases() -> Iterator[object]:
    """All mistakes: the first of each file in the quick suite, the others in the slow one."""
    mistakes = [*((word, column_of(word), old, new) for word, old, new, _ in MISTAKES), *OTHER_MISTAKES]
    files: set[str] = set()
    for mistake in mistakes:
        file = mistake[0].partition(":")[0]
        yield pytest.param(*mistake, marks=[pytest.mark.slow] if file in files else [])
        files.add(file)


@pytest.mark.parametrize(("word", "column", "old", "new"), list(patch_cases()))
def test_a_patch_mends_the_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, column: str, old: str, new: str
) -> None:
    """`git apply` takes the patch, and after it the diff agrees."""
    file = word.partition(":")[0]
    source = (REPLICAS / file).read_text()
    assert old in source
    wrong = source.replace(old, new, 1)
    (tmp_path / file).write_text(wrong)
    monkeypatch.chdir(tmp_path)
    found = vggscope_diff(word, ref=column, patch=True)
    assert found.patch is not None
    assert (found.patch == "") == (new == "nn.Conv2d(1, 64, 3, padding=1)"), NOTHING_TO_MEND
    for difference in found.differences:
        assert (difference.line.partition(":")[0] == file) == (difference.kind != "renamed")
    if found.patch:
        (tmp_path / "fix.diff").write_text(found.patch)
        subprocess.run(["git", "apply", "fix.diff"], check=True, cwd=tmp_path)
        assert (tmp_path / file).read_text() != wrong
    mended = vggscope_diff(word, ref=column)
    assert mended.verdict in ("identical", "equivalent")
    if found.verdict == "equivalent":
        assert not any(difference.effect == "training_only" for difference in mended.differences)


@pytest.mark.parametrize("name", WITHOUT_A_PATCH)
def test_where_no_patch_mends_it_the_error_says_so(name: str) -> None:
    with pytest.raises(ModelError, match="no patch was found that mends the difference"):
        vggscope_diff(f"{REPLICAS}/written_otherwise.py:{name}", ref="A", patch=True)


IN_WORDS = [
    ("shared_list.py:make", "D", '128, 128, "M", 256, 256]', '128, "M", 256, 256]', "5: add 128 after element 4 (128) (the list is part of others too)"),
    ("computed_list.py:VGG", "D", '["M"] + [8 * width] * 3 + ["M"]', '[8 * width] * 3 + ["M"]', '10: add "M" after element 13 (8 * width) (the list is computed)'),
    ("computed_list.py:VGG", "D", "[4 * width] * 3", "[4 * width] * 2", "9: add 256 after element 8 (4 * width) (the list is computed)"),
]  # fmt: skip
"""Mistakes in lists that no patch changes: others contain the list, or it is computed. Words say what it lacks."""


@pytest.mark.parametrize(("word", "column", "old", "new", "expected"), IN_WORDS)
def test_a_shared_or_computed_list_is_mended_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, column: str, old: str, new: str, expected: str
) -> None:
    """An element of a shared list would mend one configuration and break another."""
    file = word.partition(":")[0]
    source = (REPLICAS / file).read_text()
    assert old in source
    (tmp_path / file).write_text(source.replace(old, new, 1))
    monkeypatch.chdir(tmp_path)
    (difference,) = (d for d in vggscope_diff(word, ref=column).differences if d.changes_output)
    assert f"{difference.line.partition(':')[2]}: {difference.remedy}" == expected


def test_no_patch_changes_a_list_that_others_contain(tmp_path: Path) -> None:
    source = (REPLICAS / "shared_list.py").read_text()
    (tmp_path / "net.py").write_text(source.replace('128, 128, "M", 256, 256]', '128, "M", 256, 256]', 1))
    with pytest.raises(ModelError, match="no patch was found that mends the difference"):
        vggscope_diff(f"{tmp_path}/net.py:make", ref="D", patch=True)


def test_what_forward_does_not_use_is_named(tmp_path: Path) -> None:
    """A slice leaves out a block: no call and no list shows which one, but its unused parameters do."""
    source = (REPLICAS / "block_attributes.py").read_text()
    calls = "        for block in nn.ModuleList(list(self.children())[:5])[:-1]:\n            x = block(x)\n"
    assert CALLS_D in source
    (tmp_path / "net.py").write_text(source.replace(CALLS_D, calls, 1))
    (difference,) = (d for d in vggscope_diff(f"{tmp_path}/net.py:VGG16", ref="D").differences if d.changes_output)
    assert difference.remedy == "call block5, which forward does not use, after block4.6 (pool4)"
    assert difference.line == f"{tmp_path}/net.py:31"


def test_a_shared_layer_in_a_loop_is_mended_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPLICAS)
    (difference,) = (d for d in vggscope_diff("written_otherwise.py:Shared", ref="A").differences if d.changes_output)
    assert difference.remedy == "give it a module of its own: nn.Conv2d(512, 512, kernel_size=3, padding=1)"
    lines = (REPLICAS / "written_otherwise.py").read_text().splitlines()
    assert lines[int(difference.line.partition(":")[2]) - 1].strip() == "return layer(x)"


def test_a_candidate_of_a_patch_runs_at_one_size(tmp_path: Path) -> None:
    """The diff tries three sizes, of which none fits. The code with a change runs at the reference's alone."""
    source = (REPLICAS / "cfg_dict.py").read_text().replace('128, 128, "M", 256', "128, 128, 256", 2)
    noted = "with open(__file__ + '.sizes', 'a') as sizes: print(x.shape[-1], file=sizes)"
    (tmp_path / "net.py").write_text(source.replace("        x = self.fe", f"        {noted}\n        x = self.fe", 1))
    vggscope_diff(f"{tmp_path}/net.py:VGG", ref="D")
    without = (tmp_path / "net.py.sizes").read_text().split()
    (tmp_path / "net.py.sizes").unlink()
    assert vggscope_diff(f"{tmp_path}/net.py:VGG", ref="D", patch=True).patch
    sizes = (tmp_path / "net.py.sizes").read_text().split()
    assert len(set(without)) == 3
    assert sizes[: len(without)] == without
    assert set(sizes[len(without) :]) == {"224"}


def test_a_patch_is_tested_for_every_replica() -> None:
    words = [*(word for word, *_ in MISTAKES), *(word for word, *_ in OTHER_MISTAKES)]
    words += [word for word, *_ in IN_WORDS]
    assert {word.partition(":")[0] for word in words} == {path.name for path in REPLICAS.glob("*.py")}


RIGHT_CONV = "nn.Conv2d(64, 128, kernel_size=3, padding=1),"
WRONG_CONV = "nn.Conv2d(64, 128, kernel_size=3),"


@pytest.mark.parametrize(("name", "comment", "encoding"), [
    (b"n\xe9t.py", "", "utf-8"),
    (b'q"\\ q.py', "  # R\u00e9seau", "utf-8"),
    (b"mark.py", "  # R\u00e9seau", "utf-8-sig"),
    (b"latin.py", "", "latin-1"),
])  # fmt: skip
def test_a_patch_of_a_file_in_any_encoding_applies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes, comment: str, encoding: str
) -> None:
    """Names and texts that are no UTF-8 go into a patch as `git` writes them."""
    source = (REPLICAS / "by_hand.py").read_text().replace(RIGHT_CONV, WRONG_CONV + comment, 1)
    file = os.fsdecode(name)
    coding = "# -*- coding: latin-1 -*-\n# R\u00e9seau\n\n\n" if encoding == "latin-1" else ""
    wrong = (coding + source).encode(encoding)
    monkeypatch.chdir(tmp_path)
    Path(file).write_bytes(wrong)
    found = vggscope_diff(f"{file}:VGG11", ref="A", patch=True)
    assert found.patch
    (tmp_path / "fix.diff").write_text(found.patch, encoding="utf-8")
    subprocess.run(["git", "apply", "fix.diff"], check=True, cwd=tmp_path)
    assert Path(file).read_bytes() == wrong.replace(WRONG_CONV.encode(), RIGHT_CONV.encode())


def test_a_patch_that_quotes_another_encoding_is_refused(tmp_path: Path) -> None:
    source = (REPLICAS / "by_hand.py").read_text().replace(RIGHT_CONV, f"{WRONG_CONV}  # R\u00e9seau", 1)
    (tmp_path / "net.py").write_text(f"# -*- coding: latin-1 -*-\n{source}", encoding="latin-1")
    with pytest.raises(OptionError, match="encoded in iso-8859-1, a patch in UTF-8"):
        vggscope_diff(f"{tmp_path}/net.py:VGG11", ref="A", patch=True)


@pytest.mark.parametrize(("file", "column", "old", "new", "remedy"), [
    # The module that the model holds is called, of the layers that it has and does not run.
    ("functional.py:Net", "A", "F.relu(self.conv4b(x))", "F.relu(self.conv5a(x))", "self.conv4b("),
    ("functional.py:Net", "A", "        x = F.relu(self.conv5a(x))\n", "", "F.relu(self.conv5a("),
    # One call makes layers of several widths: the code has the width's name, no number.
    ("conv_units.py:VGG13", "B_bn", "self.relu(self.bn(self.conv(x)))", "self.relu(self.conv(x))", "self.bn("),
    ("helper.py:make_net", "A_bn", "nn.BatchNorm2d(cout), ", "", "nn.BatchNorm2d(cout)"),
])  # fmt: skip
def test_a_patch_calls_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, column: str, old: str, new: str, remedy: str
) -> None:
    name = file.partition(":")[0]
    source = (REPLICAS / name).read_text()
    assert old in source
    (tmp_path / name).write_text(source.replace(old, new, 1))
    monkeypatch.chdir(tmp_path)
    patch = vggscope_diff(file, ref=column, patch=True).patch
    assert patch is not None
    assert remedy in patch
    subprocess.run(["git", "apply"], input=patch.encode(), check=True, cwd=tmp_path)
    assert vggscope_diff(file, ref=column).verdict == "equivalent"


SAYS = [
    ("nn.Linear(7 * 7 * 512, 4096), nn.ReLU()", "nn.Linear(7 * 7 * 512, 4096)", "relu6", "without it fc6 and fc7 together are one"),
    ("stride=1, padding=1)", "stride=1, padding=1, bias=False)", "conv1_1", "the batch norm after it subtracts the bias"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "label", "advice"), SAYS)
def test_advice_says_what_a_relu_and_a_bias_are_for(
    tmp_path: Path, old: str, new: str, label: str, advice: str
) -> None:
    source = (REPLICAS / "conv_units.py").read_text()
    assert old in source
    (tmp_path / "net.py").write_text(source.replace(old, new, 1))
    diff = compare(resolve(f"{tmp_path / 'net.py'}:VGG13"), resolve("B_bn"))
    (difference,) = (d for d in diff.differences if d.effect == "function")
    assert difference.label == label
    assert sum(text.startswith(advice) for text in difference.consequences) == 1, difference.consequences


def test_no_advice_on_a_relu_before_a_max_pool(tmp_path: Path) -> None:
    source = (REPLICAS / "functional.py").read_text()
    (tmp_path / "net.py").write_text(
        source.replace("F.max_pool2d(F.relu(self.conv4b(x)), 2)", "F.max_pool2d(self.conv4b(x), 2)")
    )
    diff = compare(resolve(f"{tmp_path / 'net.py'}:Net"), resolve("A"))
    (difference,) = (d for d in diff.differences if d.effect == "function")
    assert not any("linear" in text for text in difference.consequences)


@pytest.mark.parametrize(("file", "old", "new"), [
    ("by_hand.py:VGG11", "            nn.Linear(4096, 4096),\n            nn.ReLU(inplace=True),\n            nn.Dropout(0.5),\n", ""),
    ("conv_units.py:VGG13", "self.relu(self.bn(self.conv(x)))", "self.bn(self.relu(self.conv(x)))"),
])  # fmt: skip
def test_no_advice_on_a_relu_that_goes_with_its_layer_or_is_relocated(
    tmp_path: Path, file: str, old: str, new: str
) -> None:
    file, _, name = file.partition(":")
    source = (REPLICAS / file).read_text()
    assert old in source
    (tmp_path / file).write_text(source.replace(old, new, 1))
    diff = against_its_column(f"{tmp_path / file}:{name}")
    assert diff.verdict == "different"
    assert not any("linear" in text for difference in diff.differences for text in difference.consequences)


def test_a_missing_flatten_is_the_cause_of_a_failure(tmp_path: Path) -> None:
    source = (REPLICAS / "conv_units.py").read_text()
    (tmp_path / "net.py").write_text(source.replace("self.flatten(x)", "x", 1))
    diff = compare(resolve(f"{tmp_path / 'net.py'}:VGG13"), resolve("B_bn"))
    (difference,) = (d for d in diff.differences if d.effect in ("shape", "function"))
    assert (difference.kind, difference.reference, difference.effect, difference.consequences) == (
        "missing",
        "flatten",
        "shape",
        (),
    )
    assert "25,088 features are expected, the input has 7: 512x7x7" in difference.follows[0]


def test_a_mean_instead_of_pool_and_flatten_is_the_cause_of_a_failure(tmp_path: Path) -> None:
    source = (REPLICAS / "conv_units.py").read_text()
    (tmp_path / "net.py").write_text(source.replace("self.flatten(x)", "x.mean((2, 3))", 1))
    diff = compare(resolve(f"{tmp_path / 'net.py'}:VGG13"), resolve("B_bn"))
    (difference,) = (d for d in diff.differences if d.effect in ("shape", "function"))
    assert (difference.kind, difference.ours) == ("inserted", "mean")
    assert "25,088 features are expected, the input has 512" in difference.follows[0]


def test_the_scaling_of_an_image_is_written_as_in_torch(tmp_path: Path) -> None:
    source = (REPLICAS / "conv_units.py").read_text()
    (tmp_path / "net.py").write_text(source.replace("        for", "        x = 1 - x / 255.0\n        for", 1))
    diff = compare(resolve(f"{tmp_path / 'net.py'}:VGG13"), resolve("B_bn"))
    messages = [d.message.partition(" is inserted")[0] for d in diff.differences if d.kind == "inserted"]
    assert messages == ["div: div(x, 255.0)", "rsub: rsub(x, 1)"]


def test_a_missing_head_is_one_difference_with_its_parameters_and_macs() -> None:
    features = "conv3-64 maxpool conv3-128 maxpool conv3-256 conv3-256 maxpool conv3-512 conv3-512 maxpool"
    diff = compare(resolve(f"{features} conv3-512 conv3-512 maxpool"), resolve("A"))
    (difference,) = diff.differences
    assert (difference.kind, difference.reference, difference.effect) == ("missing", "avgpool", "shape")
    assert (
        difference.message
        == "avgpool: the network ends before it, 9 layers from there to classifier.6 (fc8) are missing"
    )
    weights = 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    assert {f"{weights + 4096 + 4096 + 1000:,} parameters fewer", f"{weights / 1e6:.2f} MMACs fewer"} <= set(
        difference.consequences
    )
    assert "the output is 512x7x7 instead of 1000" in difference.consequences


HOSTILE = """\
from torch import nn


def make():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 4))  # \x1b[31m<script>alert(1)</script>
"""


def test_the_line_of_code_is_shown_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy quotes the user's file, whatever stands in it; no format lets it act."""
    folder = tmp_path / "<b>\x1b[1m"
    folder.mkdir()
    (folder / "net.py").write_text(HOSTILE)
    monkeypatch.chdir(tmp_path)
    ours = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(512, 4))
    found = vggscope_diff("<b>\x1b[1m/net.py:make", ref=ours, input_size=(3, 8, 8))
    assert found.differences[0].remedy.startswith(
        "write return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten()"
    )
    for suffix in ("txt", "md", "html", "json"):
        found.save(f"diff.{suffix}")
        text = Path(f"diff.{suffix}").read_text()
        assert "\x1b" not in text
        assert suffix != "html" or "<script>alert" not in text


def test_a_patch_needs_a_file_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a patch changes one file of Python code"):
        vggscope_diff("C", ref="D", patch=True)
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "net.py").write_text((REPLICAS / "by_hand.py").read_text())
    with pytest.raises(OptionError, match="a patch changes one file"):
        vggscope_diff(f"{tmp_path}/net.py:VGG11", ref="D", patch=True)
