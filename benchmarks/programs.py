"""The programs that are measured, and the bounds on their ratios."""

from __future__ import annotations

from dataclasses import dataclass

from startup import Run

VGG = "import torch; from torchvision.models import vgg16; m = vgg16().eval(); x = torch.zeros(1, 3, 224, 224);"
TORCHINFO = "from torchinfo import summary; print(summary(m, (1, 3, 224, 224)));"
FVCORE = "from fvcore.nn import FlopCountAnalysis; print(FlopCountAnalysis(m, x).total());"
COUNTER = """from torch.utils.flop_counter import FlopCounterMode
with torch.no_grad(), FlopCounterMode(): m(x)"""
TORCHVIEW = """import torch; from torchvision.models import vgg19; from torchview import draw_graph
with torch.device("meta"): m = vgg19()
draw_graph(m, input_size=(1, 3, 224, 224), device="meta").visual_graph.render("{folder}/torchview", format="svg")"""
CHECKPOINT = """import torch; from torchvision.models import vgg16; from safetensors.torch import save_file
with torch.device("meta"): m = vgg16()
state = m.to_empty(device="cpu").state_dict()
torch.save(state, "{folder}/vgg16.pth"); save_file(state, "{folder}/vgg16.safetensors")"""
BYTES_READ = """import vggscope
def read(): return int(open("/proc/self/io").readline().split()[1])
vggscope.inspect("{folder}/vgg16.safetensors"); before = read(); vggscope.inspect("{folder}/vgg16.safetensors")
print(read() - before)"""

PLAIN = {
    "summary D": ["summary", "D"],
    "summary of 2,000 layers": ["summary", " ".join(["conv3-64"] * 1000 + ["FC-10"])],
    "diagram E": ["diagram", "E", "-o", "{folder}/ours.svg"],
    "diff A, nothing remembered": ["diff", "A", "--ref", "torchvision"],
    "diff A, remembered": ["diff", "A", "--ref", "torchvision"],
    "summary torchvision:resnet50, remembered": ["summary", "torchvision:resnet50"],
    "compare torchvision:vgg1?, remembered": ["compare", "torchvision:vgg1?"],
    "inspect": ["inspect", "{folder}/vgg16.safetensors"],
    "verify D": ["verify", "D"],
}
"""Command lines of vggscope."""

SCRIPTS = {
    "typer and rich imported": "import typer, rich.table, rich.console",
    "torchvision imported": "import torchvision",
    "torchinfo": VGG + TORCHINFO,
    "torchinfo, fvcore and torch's counter": VGG + TORCHINFO + FVCORE + COUNTER,
    "torchview draws vgg19": TORCHVIEW,
    "torch.load": 'import torch; torch.load("{folder}/vgg16.pth", weights_only=True)',
    "fvcore": VGG + FVCORE,
    "torchscan": VGG + "from torchscan import summary; summary(m, (3, 224, 224));",
    "ptflops": VGG + "from ptflops import get_model_complexity_info as f; f(m, (3, 224, 224));",
    "torchlens": VGG + "import torchlens; print(torchlens.trace(m, x));",
}
"""Other tools, each as a typical script."""

REMEMBERED = {
    "diff A, remembered": 0.4,
    "summary torchvision:resnet50, remembered": 0.3,
    "compare torchvision:vgg1?, remembered": 0.3,
}
"""The commands whose library model is in the cache, and the CPU seconds that each may take."""

LIGHT = {
    "summary D",
    "summary of 2,000 layers",
    "diagram E",
    *REMEMBERED,
    "inspect",
    "typer and rich imported",
}
"""Fast programs, which run three times as often."""


@dataclass(frozen=True)
class Wanted:
    """A bound on a ratio: `theirs` over `ours` at least `bound`, or, with `most`, `ours` over `theirs` at most."""

    ours: str
    theirs: str
    bound: float
    measure: str = "cpu"
    most: bool = False

    def ratio(self, medians: dict[str, Run]) -> float:
        """The measured ratio."""
        ours, theirs = (getattr(medians[name], self.measure) for name in (self.ours, self.theirs))
        return float(ours / theirs if self.most else theirs / ours)

    def is_met(self, medians: dict[str, Run], slack: float = 1) -> bool:
        """Whether the ratio is within the bound, or no more than `slack` times worse."""
        ratio = self.ratio(medians)
        return ratio <= self.bound * slack if self.most else ratio >= self.bound / slack


FROM_MODULE = "warm process: what torchinfo shows, of the nn.Module"
ALL_FROM_MODULE = "warm process: all that `summary` shows, of the nn.Module"
TORCHINFO_ON = "warm process: torchinfo of"

SAME = {"vgg16": 1.3, "resnet50": 0.7, "swin_v2_b": 1.0}
"""The most that the same content may take of torchinfo's time, by model."""

ALL = {"resnet50": 1.0, "swin_v2_b": 2.0}
"""The most that a whole summary may take of torchinfo's time, by model."""

WANTED = (
    Wanted("summary D", "torchinfo", 40),
    Wanted("summary D", "torchinfo", 30, "peak"),
    Wanted("summary D", "typer and rich imported", 1.3, most=True),
    Wanted("summary of 2,000 layers", "summary D", 3, most=True),
    Wanted("compare torchvision:vgg1?, remembered", "summary D", 1.6, most=True),
    Wanted("diagram E", "torchview draws vgg19", 15),
    Wanted("diff A, nothing remembered", "torchvision imported", 1.2, most=True),
    Wanted("inspect", "torch.load", 20),
    Wanted("verify D", "torchinfo, fvcore and torch's counter", 1.2, most=True),
    Wanted("warm process: what torchinfo shows, of D", "warm process: torchinfo", 10),
    *(Wanted(f"{FROM_MODULE} {model}", f"{TORCHINFO_ON} {model}", most, most=True) for model, most in SAME.items()),
    *(Wanted(f"{ALL_FROM_MODULE} {model}", f"{TORCHINFO_ON} {model}", most, most=True) for model, most in ALL.items()),
)
WARM = {
    "costs": "vggscope, what torchinfo shows",
    "summarize": "vggscope, all that `summary` shows",
    "trace": "vggscope, what torchinfo shows, from an nn.Module",
    "trace_summary": "vggscope, all that `summary` shows, from an nn.Module",
    "torchinfo": "torchinfo",
    "flop_counter": "torch's FLOP counter",
    "torchview": "torchview, not drawn",
    "torchscan": "torchscan",
    "fvcore": "fvcore (real tensors)",
    "ptflops": "ptflops (real tensors)",
    "torchlens": "torchlens (real tensors)",
}

WARM_WANTED = {
    "warm process: what torchinfo shows, of D": ("costs", "vgg16"),
    "warm process: torchinfo": ("torchinfo", "vgg16"),
    **{f"{TORCHINFO_ON} {model}": ("torchinfo", model) for model in SAME},
    **{f"{FROM_MODULE} {model}": ("trace", model) for model in SAME},
    **{f"{ALL_FROM_MODULE} {model}": ("trace_summary", model) for model in ALL},
}
"""Tool and model of the warm-process entries of WANTED."""


def work(wanted: Wanted) -> str:
    """The compared programs of a bound, in words."""
    what = ", peak memory" if wanted.measure == "peak" else ""
    return f"{wanted.ours} against {wanted.theirs}{what}"


def bound(wanted: Wanted) -> str:
    """A bound in words."""
    return f"at most {wanted.bound:g}" if wanted.most else f"at least {wanted.bound:g}"
