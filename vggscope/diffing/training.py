"""What structure cannot show: how the paper trained its networks (section 3.1), and what torchvision does instead."""

from __future__ import annotations

from vggscope.record import record


@record
class TrainingFact:
    """One matter of training, as the paper has it and as torchvision has it."""

    matter: str
    paper: str
    torchvision: str


TRAINING = (
    TrainingFact(
        "initialisation",
        "weights normal with mean 0 and variance 0.01, biases 0; the deeper columns start from A's layers",
        "convolutions by Kaiming's rule over the fan-out, linear layers normal with deviation 0.01, biases 0",
    ),
    TrainingFact("dropout", "0.5 behind the first two FC layers", "the same"),
    TrainingFact(
        "preprocessing",
        "the training set's mean RGB value is subtracted, nothing else (in Caffe's scale 123.68, 116.779, 103.939)",
        "pixels scaled to 0..1, the mean subtracted and divided by a standard deviation",
    ),
    TrainingFact(
        "optimiser",
        "SGD, batch 256, momentum 0.9, weight decay 5e-4, learning rate 0.01 divided by 10 three times",
        "SGD with momentum 0.9; batch, rate and schedule are those of its own recipe",
    ),
    TrainingFact("batch normalisation", "none: it came later", "in the _bn models only"),
)
