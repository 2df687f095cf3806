"""Which parts of other libraries the user's code may use and be remembered, and what its entry then depends on."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_cache import OPTIONS, STORED, Loads, commands_in_a_process, differences, on_each_command
from tests.test_closed_code import of, remembered, written
from vggscope.sources import closed_code, code, installed
from vggscope.sources.closed_code import Sources, sources_of
from vggscope.sources.resolve import resolve

IMPORTS = """
import re
import einops
import einops.layers.torch as layers
import numpy as np
import torch
from einops import rearrange, reduce
from einops.layers.torch import Rearrange
from torch import nn
"""

IN_A_MODEL = """

class Net(nn.Module):
    def __init__(self, name="a1b2", depth=4):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        {0}

    def forward(self, x):
        x = self.conv(x)
        {1}
        return x
"""

CLOSED = {
    "widths": (
        "self.widths = [int(w) for w in np.cumsum(np.arange(1, depth))]; self.b = nn.Linear(self.widths[-1], 2)",
        "",
    ),
    "a product of a shape": ("self.b = nn.Linear(int(np.prod((2, 3))), int(np.ceil(np.sqrt(depth))))", ""),
    "rates": ("self.b = nn.Sequential(*[nn.Dropout(x.item()) for x in np.linspace(0, 0.1, depth)])", "x = self.b(x)"),
    "rates in a list": ("self.b = nn.Dropout(np.linspace(0, 0.1, depth).tolist()[1])", "x = self.b(x)"),
    "a table": (
        "self.register_buffer('b', torch.from_numpy(np.eye(8)).float().clone())",
        "x = x.mean((2, 3)) @ self.b",
    ),
    "a copied table": (
        "self.b = nn.Parameter(torch.zeros(8, 8)); self.b.data.copy_(torch.from_numpy(np.eye(8)).float().view(8, 8))",
        "x = x.mean((2, 3)) @ self.b",
    ),
    "a table of numbers": (
        "self.b = nn.Parameter(torch.tensor(np.ones((8, 2), np.float32)))",
        "x = x.mean((2, 3)) @ self.b",
    ),
    "numbers in forward": ("", "x = x * float(np.log2(x.shape[1])) + np.pi"),
    "a type": ("self.b: np.ndarray | None = None", ""),
    "digits": ("self.b = nn.Conv2d(8, int(re.findall(r'[0-9]', name)[1]), 1)", "x = self.b(x)"),
    "a pattern": ("self.b = nn.Conv2d(8, len(re.compile('([a-z])').sub(r'', name)), 1)", "x = self.b(x)"),
    "rearrange": ("", "x = rearrange(x, 'b c h w -> b (h w) c')"),
    "by its module": ("", "x = einops.rearrange(x, 'b c h w -> b (h w) c')"),
    "reduce": ("", "x = reduce(x, 'b c h w -> b c', 'mean')"),
    "a layer": ("self.b = nn.Sequential(Rearrange('b c h w -> b (h w) c'), nn.Linear(8, 2))", "x = self.b(x)"),
    "a layer by its module": ("self.b = layers.Rearrange('b c h w -> b (h w) c')", "x = self.b(x)"),
    "a layer by its package": ("self.b = einops.layers.torch.Rearrange('b c h w -> b (h w) c')", "x = self.b(x)"),
}
"""Lines of a constructor and of forward."""

OPEN = {
    "a file": "self.a = np.load('widths.npy')",
    "a text file": "self.a = np.loadtxt('widths')",
    "a file of numbers": "self.a = np.fromfile('widths')",
    "a mapped file": "self.a = np.memmap('widths')",
    "a written file": "np.arange(3).tofile('widths')",
    "a dumped array": "np.arange(3).dump('widths')",
    "random numbers": "self.a = nn.Linear(3, np.random.randint(1, 9))",
    "uninitialised memory": "self.a = nn.Linear(3, int(np.empty(1)[0]))",
    "an address": "self.a = np.arange(3).ctypes.data",
    "an address by the interface": "self.a = np.arange(3).__array_interface__",
    "the machine": "self.a = np.show_config()",
    "an array's memory": "t = torch.from_numpy(np.ones(8)); t.uniform_(1, 60)",
    "an array's memory in a buffer": "self.register_buffer('a', torch.from_numpy(np.ones(8)))",
    "an array's memory in place": "torch.from_numpy(np.ones(8)).uniform_(1, 60).clone()",
    "from_numpy as a value": "self.a = torch.from_numpy",
    "from_numpy by name": "self.a = getattr(torch, 'from_numpy')(np.ones(8)).uniform_(1, 60)",
    "a tensor that may share memory": "self.a = torch.as_tensor(np.ones(8))",
    "a machine's number": "self.a = np.finfo(np.longdouble)",
    "numpy's settings": "np.seterr(all='raise')",
    "numpy's way to print": "np.set_printoptions(precision=1)",
    "Python's modules within numpy": "self.a = np.os.environ",
    "files within numpy": "self.a = np.lib.npyio",
    "numpy as a value": "t = np; self.a = t.load('widths.npy')",
    "numpy by name": "self.a = getattr(np, name)",
    "numpy by a known name": "self.a = getattr(np, 'load')('widths.npy')",
    "a function that is changed": "np.prod = sum",
    "a part that is imported": "from numpy.lib import npyio",
    "random numbers that are imported": "from numpy import random as r",
    "a file's function that is imported": "from numpy import load",
    "random numbers as a module": "import numpy.random as r",
    "values": "self.a = einops.asnumpy(self.conv.weight)",
    "a module of einops": "self.a = einops.einops",
    "Python's modules within einops": "self.a = einops._backends.sys.argv",
    "a backend of einops": "from einops import _backends",
    "a function of einops that is changed": "einops.rearrange = None",
    "einops by name": "self.a = getattr(einops, name)",
    "einops as a value": "self.a = [einops]",
    "a module within re": "self.a = re.enum.sys",
    "re's cache": "re.purge()",
    "re as a value": "self.a = [re]",
    "Python's module under another name": "from collections import _sys; self.a = _sys.argv",
    "Python's module within a pure one": "import functools; self.a = functools._thread.get_ident()",
    "Python's module within torch": "self.a = torch.utils.checkpoint.platform.node()",
}

EINOPS = {
    "einops/__init__": """
def rearrange(x, pattern):
    return x.flatten(2).transpose(1, 2)

def reduce(x, pattern, kind):
    return x.mean((2, 3))
""",
    "einops/layers/__init__": "",
    "einops/layers/torch": """
import torch
from einops import rearrange

class Rearrange(torch.nn.Module):
    def __init__(self, pattern):
        super().__init__()
        self.pattern = pattern

    def forward(self, x):
        return rearrange(x, self.pattern)
""",
}
"""A package that has einops's names, and answers one pattern."""


TIMM_IMPORTS = """
import timm
import torch
from functools import partial
from timm.data import IMAGENET_DEFAULT_MEAN
from timm.layers import DropPath, Mlp, PatchEmbed, create_conv2d, to_2tuple, trunc_normal_, use_fused_attn
from timm.models import register_model
from timm.models.layers import SqueezeExcite
from timm.models.registry import register_model as register
from timm.models.resnet import BasicBlock, ResNet, resnet18
from timm.models.vision_transformer import Block, VisionTransformer, _cfg
from torch import nn
import timm.models.vision_transformer as vits
"""

CLOSED_WITH_TIMM = {
    "layers": (
        "self.b = nn.Sequential(Mlp(8, 16), DropPath(0.1)); trunc_normal_(self.b[0].fc1.weight)",
        "x = self.b(x.mean((2, 3)))",
    ),
    "a layer by name": ("self.b = create_conv2d(8, 8, to_2tuple(3)[0])", "x = self.b(x)"),
    "a layer by its package": ("self.b = timm.layers.SqueezeExcite(8)", "x = self.b(x)"),
    "a layer of a former package": ("self.b = SqueezeExcite(8)", "x = self.b(x)"),
    "a setting that is read": ("self.b = nn.ReLU() if use_fused_attn() else nn.GELU()", "x = self.b(x)"),
    "a block": (
        "self.b = Block(8, 2, norm_layer=partial(nn.LayerNorm, eps=1e-6))",
        "x = self.b(x.flatten(2).transpose(1, 2))",
    ),
    "a class": ("self.b = ResNet(BasicBlock, [1, 1, 1, 1], in_chans=8, num_classes=2)", "x = self.b(x)"),
    "a subclass": (
        "self.b = type('V', (VisionTransformer,), {})(16, 8, 8, 2, embed_dim=8, depth=1, num_heads=2)",
        "x = self.b(x[:, :, :16, :16])",
    ),
    "a network": ("self.b = resnet18(in_chans=8)", "x = self.b(x)"),
    "a network by name": ("self.b = timm.create_model('resnet18', in_chans=8, num_classes=0)", "x = self.b(x)"),
    "a network by a name that is given": (
        "self.b = timm.create_model(f'resnet1{depth + 4}', False, in_chans=8)",
        "x = self.b(x)",
    ),
    "a network with weights": (
        "self.b = timm.create_model('resnet18', pretrained=True, in_chans=8)",
        "x = self.b(x)",
    ),
    "its features": (
        "self.b = timm.create_model('resnet18', features_only=True, in_chans=8); self.c = self.b.feature_info",
        "x = self.b(x)[-1]",
    ),
    "a model with options": ("self.b = timm.create_model('resnet18', **dict(in_chans=8))", "x = self.b(x)"),
    "a module": ("self.b = vits.Attention(8, num_heads=2)", "x = self.b(x.flatten(2).transpose(1, 2))"),
    "a constant": ("self.b = len(IMAGENET_DEFAULT_MEAN), _cfg()", ""),
}

OPEN_WITH_TIMM = {
    "a repository": "self.a = timm.create_model('hf-hub:timm/resnet18')",
    "a repository under its former word": "self.a = timm.create_model('HF_hub:timm/resnet18')",
    "a folder": "self.a = timm.create_model(model_name='local-dir:weights')",
    "a folder by a name that is computed": "source = 'local-dir'; self.a = timm.create_model(f'{source}:weights')",
    "a repository in an option": "self.a = timm.create_model(**{'model_name': 'hf-hub:timm/resnet18'})",
    "a checkpoint": "self.a = timm.create_model('resnet18', checkpoint_path='weights.pth')",
    "a checkpoint in an option": "self.a = timm.create_model('resnet18', **{'checkpoint_path': 'weights.pth'})",
    "a checkpoint in a dict": "self.a = timm.create_model('resnet18', **dict(checkpoint_path='weights.pth'))",
    "a checkpoint by its place": "self.a = timm.create_model('resnet18', False, None, None, 'weights.pth')",
    "several arguments": "self.a = timm.create_model(*[name, False, None, None, 'weights.pth'])",
    "create_model as a value": "make = timm.create_model; self.a = make('hf-hub:timm/resnet18')",
    "create_model in part": "self.a = partial(timm.create_model, 'hf-hub:timm/resnet18')()",
    "create_model by name": "self.a = getattr(timm, 'create_model')('hf-hub:timm/resnet18')",
    "a loaded checkpoint": "timm.models.load_checkpoint(self, 'weights.pth')",
    "a loaded checkpoint of helpers": "from timm.models.helpers import load_checkpoint as f; f(self, 'x.pth')",
    "a state dict": "timm.models.load_state_dict('weights.pth')",
    "weights of a class": "self.a = VisionTransformer(); self.a.load_pretrained('weights.npz')",
    "a list of models": "self.a = timm.list_models()",
    "a model that may be registered": "self.a = timm.models.model_entrypoint(name)()",
    "a setting": "timm.layers.set_fused_attn(False)",
    "a setting of layers": "from timm.layers import set_layer_config; set_layer_config(scriptable=True)",
    "a setting for export": "timm.layers.config.set_exportable(True)",
    "a setting of timm itself": "timm.set_scriptable(True)",
    "a setting under another name": "from timm.layers.fast_norm import set_fast_norm as f; f()",
    "a setting that is written": "timm.layers.config._USE_FUSED_ATTN = 0",
    "another package's layer": "self.a = timm.layers.InplaceAbn(3)",
    "Python's module within timm": "self.a = timm.models.helpers.os.environ",
    "a class of Python's within timm": "self.a = timm.models._hub.Path('width').read_text()",
    "the hub": "self.a = timm.models._hub.HfApi()",
    "a function of the hub": "from timm.models.hub import load_state_dict_from_hf as f; f('timm/resnet18')",
    "a module": "self.a = timm.models.helpers",
    "a module as a value": "m = timm.models; self.a = m.helpers.load_checkpoint(self, 'weights.pth')",
    "a network by name": "self.a = getattr(timm.models, name)()",
    "a changed class": "timm.models.ResNet.forward = None",
    "a changed layer": "Mlp.forward = None",
    "data": "self.a = timm.data.create_dataset('folder', 'images')",
    "a module of data": "self.a = timm.data.auto_augment.PIL.Image.open('x.png')",
    "a tool": "self.a = timm.utils.get_state_dict(self)",
    "a tool that is imported": "from timm.utils import distributed",
    "registered by a call": "register_model(resnet18)",
}


def text(in_constructor: str = "pass", in_forward: str = "pass") -> str:
    return IMPORTS + IN_A_MODEL.format(in_constructor or "pass", in_forward or "pass")


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache."""
    monkeypatch.setenv("VGGSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def einops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which a package of this name is installed."""
    site = tmp_path / "site-packages"
    written(site, **EINOPS)
    listed = site / "einops-1.0.dist-info" / "RECORD"
    listed.parent.mkdir()
    listed.write_text("einops/__init__.py,sha256=x,1\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(installed, "identity", installed.identity.__wrapped__)  # no longer that of the first call
    for name in [name for name in sys.modules if name.partition(".")[0] == "einops"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    yield site
    for name in [name for name in sys.modules if name.partition(".")[0] == "einops"]:
        del sys.modules[name]


@pytest.mark.parametrize("line", OPEN.values(), ids=list(OPEN))
def test_what_leads_to_more_is_open(line: str, tmp_path: Path) -> None:
    assert of(written(tmp_path, net=text(line))) is None
    assert of(written(tmp_path, net="from blocks import Net", blocks=text(line))) is None


LOGGING = """
import logging
from torch import nn
logger = logging.getLogger(__name__)
"""

CLOSED_WITH_LOGGING = {
    "a message": "logger.info('depth %d', depth)",
    "another": "logger.debug(f'{name}')",
    "a logger of its own": "log = logging.getLogger('net'); log.info(name)",
}

OPEN_WITH_LOGGING = {
    "a warning": "logger.warning('depth %d', depth)",
    "an error": "logger.error(name)",
    "a message of any level": "logger.log(depth, name)",
    "a message of the root": "logging.info(name)",
    "a shown message": "logging.basicConfig(level=0)",
    "a level": "logger.setLevel(0)",
    "what handles messages": "self.a = logger.handlers",
    "what handles all": "self.a = logger.manager",
    "a logger that is passed on": "self.a = [logger]",
    "another name of a logger": "other = logger; other.warning(name)",
    "a logger without a name": "logging.getLogger(__name__).warning(name)",
    "a logger of two names": "a = b = logging.getLogger(__name__); a.warning(name)",
    "a logger of a class": "pass\n    log = logging.getLogger(__name__)\n    def f(self):\n        self.log.warning(1)",
    "a logger of a class in part": "pass\n    if True:\n        log = logging.getLogger(__name__)",
    "a logger in an attribute": "self.log = logging.getLogger(__name__)",
    "a logger in a walrus": "(log := logging.getLogger(__name__)).warning(name)",
    "our own logger": "log = logging.getLogger('vggscope'); log.info(name)",
    "a part of our logger": "log = logging.getLogger('vggscope.net'); log.info(name)",
    "the function as a value": "get = logging.getLogger; get(name).warning(name)",
    "a method by name": "getattr(logger, name)(name)",
    "a method by a known name": "getattr(logger, 'warning')(name)",
    "a handler": "logger.addHandler(logging.FileHandler('log'))",
    "a logger's class": "logging.Logger('x').warning(name)",
    "Python's modules within logging": "self.a = logging.os.environ",
    "a module of logging": "import logging.handlers",
    "a warning of Python": "import warnings; warnings.warn(name)",
}


@pytest.mark.parametrize("line", CLOSED_WITH_LOGGING.values(), ids=list(CLOSED_WITH_LOGGING))
def test_code_that_logs_what_is_not_shown_is_closed(
    line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, net=LOGGING + IN_A_MODEL.format(line, "pass"))
    assert of(path) == {"net.py"}
    resolve(f"{path}:Net", OPTIONS)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("line", OPEN_WITH_LOGGING.values(), ids=list(OPEN_WITH_LOGGING))
def test_code_that_may_show_a_message_is_open(line: str, tmp_path: Path) -> None:
    assert of(written(tmp_path, net=LOGGING + IN_A_MODEL.format(line, "pass"))) is None
    by_way = "from common import logger, logging\nfrom torch import nn\n" + IN_A_MODEL.format(line, "pass")
    assert of(written(tmp_path, net=by_way, common=LOGGING)) is None


ALL = {
    "a library's": ({"net": "from torch.nn import *\nx = Conv2d(3, 8, functional.relu and 3)"}, {"net.py"}),
    "two libraries'": ({"net": "from torch.nn import *\nfrom math import *\nx = Linear(3, ceil(2))"}, {"net.py"}),
    "a model": ({"net": "from torch.nn import *\n" + IN_A_MODEL.replace("nn.", "").format("pass", "pass")}, {"net.py"}),
    "a file's": ({"net": "from a import *\nx = f(3)", "a": "def f(x):\n    return x"}, {"net.py", "a.py"}),
    "a file's library": (
        {"net": "from a import *\nx = nn.Linear(3, np.prod((1, 2)))", "a": "import numpy as np\nfrom torch import nn"},
        {"net.py", "a.py"},
    ),
    "the same library": (
        {"net": "import torch\nfrom a import *\nx = torch.ones(3)", "a": "import torch"},
        {"net.py", "a.py"},
    ),
    "a module of a package": (
        {"net": "from a.b import *", "a/__init__": "", "a/b": ""},
        {"net.py", "a/__init__.py", "a/b.py"},
    ),
    "relative": ({"net": "from .b import *\nx = f(3)", "b": "from torch.nn import Linear as f"}, {"net.py", "b.py"}),
    "of all": (
        {"net": "from a import *\nx = torch.ones(3)", "a": "from b import *", "b": "import torch"},
        {"net.py", "a.py", "b.py"},
    ),
    "a package": ({"net": "from a import *", "a/__init__": "", "a/b": ""}, None),
    "a package from within": ({"net": "from . import *"}, None),
    "torch": ({"net": "from torch import *"}, None),
    "timm's layers": ({"net": "from timm.layers import *"}, None),
    "numpy": ({"net": "from numpy import *"}, None),
    "os": ({"net": "from os import *"}, None),
    "a machine's number by all": ({"net": "from a import *\nx = torch.get_num_threads()", "a": "import torch"}, None),
    "a machine's number by all of all": (
        {"net": "from a import *\nx = torch.get_num_threads()", "a": "from b import *", "b": "import torch"},
        None,
    ),
    "a file by all": ({"net": "from a import *\nx = b.np.load('x')", "a": "import b", "b": "import numpy as np"}, None),
    "a file's number": ({"net": "from a import *\nx = np.load('x')", "a": "import numpy as np"}, None),
    "a module of the library": ({"net": "from torch.nn.functional import *\nx = importlib.import_module('os')"}, None),
    "torch in the library": ({"net": "from torch.nn.functional import *\nx = torch.get_num_threads()"}, None),
    "warnings in the library": ({"net": "from torch.nn.functional import *\nwarnings.warn('x')"}, None),
    "a changed class": ({"net": "from torch.nn import *\nLinear.forward = None"}, None),
    "a changed function": ({"net": "from a import *\nf.x = 1", "a": "def f():\n    pass"}, None),
    "by name": ({"net": "from torch.nn import *\nx = getattr(modules, name)"}, None),
    "another module of the name": (
        {"net": "import re as t\nfrom a import *\nx = t.compile(1)", "a": "import torch as t"},
        None,
    ),
    "another module of the name by all": (
        {"net": "import re as t\nfrom a import *\nx = 1", "a": "from b import *", "b": "import torch as t"},
        None,
    ),
    "a circle": ({"net": "from a import *\nx = f(1)", "a": "from net import *"}, None),
    "two modules of a name": ({"net": "import torch as t\nimport re as t\nx = t.compile(1)"}, None),
    "a library or a file": (
        {"net": "try:\n    import numpy as t\nexcept ImportError:\n    import a as t\nx = t.prod", "a": ""},
        None,
    ),
    "two functions of a name": (
        {"net": "try:\n    from torch.nn import A as N\nexcept ImportError:\n    from torch.nn import B as N"},
        {"net.py"},
    ),
}
"""Files of which one imports all from another module, and those on which net.py depends."""


@pytest.mark.parametrize(("texts", "expected"), ALL.values(), ids=list(ALL))
def test_imports_of_all_names_are_followed(texts: dict[str, str], expected: set[str] | None, tmp_path: Path) -> None:
    assert of(written(tmp_path, **texts)) == expected


@pytest.mark.parametrize(
    "texts",
    [
        {"net": "from torch.nn import *\n" + IN_A_MODEL.replace("nn.", "").format("self.b = ReLU()", "x = self.b(x)")},
        {
            "net": "from a import *\n" + IN_A_MODEL.format("self.b = Conv(8, WIDTH, 1)", "x = self.b(x)"),
            "a": "from torch import nn\nfrom torch.nn import Conv2d as Conv\nWIDTH = 5\n",
        },
        {"net": LOGGING + IN_A_MODEL.format("logger.info(name); self.b = nn.ReLU()", "x = self.b(x)")},
    ],
)
def test_what_imports_all_names_and_what_logs_is_read_back(
    texts: dict[str, str], entries: Path, tmp_path: Path
) -> None:
    word = written(tmp_path / "mine", **texts) + ":Net"
    load = Loads(word)
    remembered(word, STORED, load)
    second = remembered(word, STORED, load)
    assert load.count == 1
    assert differences(second, resolve(word, OPTIONS)) == []


def test_a_module_in_a_package_is_no_name_of_its(tmp_path: Path) -> None:
    texts = {"a/__init__": "from a.b import f", "a/b": "import numpy as np\nf = 1"}
    assert of(written(tmp_path, net="import a\nx = a.f", **texts)) is not None
    assert of(written(tmp_path, net="import a\nx = a.b.np.load('x')", **texts)) is None


@pytest.mark.usefixtures("einops")
@pytest.mark.parametrize(("constructor", "forward"), CLOSED.values(), ids=list(CLOSED))
def test_what_is_read_back_is_what_is_traced(constructor: str, forward: str, entries: Path, tmp_path: Path) -> None:
    word = written(tmp_path / "mine", net=text(constructor, forward)) + ":Net"
    load = Loads(word)
    remembered(word, STORED, load)
    second = remembered(word, STORED, load)
    assert load.count == 1
    assert differences(second, resolve(word, OPTIONS)) == []


@pytest.mark.parametrize(("constructor", "forward"), CLOSED_WITH_TIMM.values(), ids=list(CLOSED_WITH_TIMM))
def test_a_model_with_parts_of_timm_is_read_back_as_it_is_traced(
    constructor: str, forward: str, entries: Path, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    body = TIMM_IMPORTS + IN_A_MODEL.format(constructor or "pass", forward or "pass")
    word = written(tmp_path / "mine", net=body) + ":Net"
    load = Loads(word)
    remembered(word, STORED, load)
    second = remembered(word, STORED, load)
    assert load.count == 1
    assert differences(second, resolve(word, OPTIONS)) == []


@pytest.mark.parametrize("line", OPEN_WITH_TIMM.values(), ids=list(OPEN_WITH_TIMM))
def test_what_leads_to_more_by_way_of_timm_is_open(line: str, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    body = TIMM_IMPORTS + IN_A_MODEL.format(line, "pass")
    assert of(written(tmp_path, net=TIMM_IMPORTS + IN_A_MODEL.format("pass", "pass"))) == {"net.py"}
    assert of(written(tmp_path, net=body)) is None
    assert of(written(tmp_path, net="from blocks import Net", blocks=body)) is None


@pytest.mark.parametrize(("name", "is_closed"), [("my_own_net", True), ("resnet18", False)])
def test_a_model_is_registered_under_a_name_of_its_own(name: str, is_closed: bool, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    body = f"{TIMM_IMPORTS}\n@register_model\ndef {name}(pretrained=False, **options):\n    return Mlp(3, 4)\n"
    for other in (body, body.replace("@register_model", "@register")):
        assert of(written(tmp_path, net=other)) == ({"net.py"} if is_closed else None)


def test_a_name_of_a_repository_may_come_from_the_word(entries: Path, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    line = "self.a = timm.create_model(name, **options)"
    body = TIMM_IMPORTS + IN_A_MODEL.format(line, "pass").replace("depth=4", "**options")
    path = written(tmp_path / "mine", net=body)
    name, head = code.origin(f"{path}:Net('resnet18', in_chans=4)")
    assert (name, set(head)) == ("net.py", {"code", "timm"})
    for arguments in ("'hf-hub:timm/resnet18'", "name='local-dir:x'", "'resnet18', checkpoint_path='x.pth'"):
        with pytest.raises(LookupError, match="not known"):
            code.origin(f"{path}:Net({arguments})")


@pytest.mark.parametrize(
    ("imports", "packages"),
    [
        ("import torch", ()),
        ("import numpy as np", ("numpy",)),
        ("from einops.layers.torch import Rearrange", ("einops",)),
        (
            "import math, re\nimport numpy\ntry:\n    import einops\nexcept ImportError:\n    pass\n",
            ("einops", "numpy"),
        ),
    ],
)
def test_code_depends_on_the_packages_that_it_imports(imports: str, packages: tuple[str, ...], tmp_path: Path) -> None:
    for texts in ({"net": imports}, {"net": "import blocks", "blocks": imports}):
        assert sources_of(written(tmp_path, **texts), str(tmp_path)) == Sources(
            {os.path.realpath(tmp_path / f"{name}.py"): content.encode() for name, content in sorted(texts.items())},
            packages,
        )


def test_another_package_asks_again_where_it_is_imported(
    einops: Path, entries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it = written(tmp_path / "with", net=text(in_forward="x = rearrange(x, 'b c h w -> b (h w) c')")) + ":Net"
    without = written(tmp_path / "without", net="from torch import nn\n" + IN_A_MODEL.format("pass", "pass")) + ":Net"
    loads = {word: Loads(word) for word in (with_it, without)}
    for number in (1, 2, 3):
        for word, load in loads.items():
            remembered(word, STORED, load)
            remembered(word, STORED, load)
            assert load.count == (number if word == with_it else 1)
        record = next(einops.glob("*.dist-info")) / "RECORD"
        if number == 1:
            record.parent.rename(einops / "einops-1.1.dist-info")
        else:
            record.write_text(record.read_text() + "einops/new.py,sha256=y,2\n")


def test_a_package_under_development_is_not_known(einops: Path, entries: Path, tmp_path: Path) -> None:
    word = written(tmp_path / "mine", net=text()) + ":Net"
    (einops / "einops-1.0.dist-info" / "RECORD").unlink()
    remembered(word, STORED, Loads(word))
    assert not entries.exists()


def test_a_missing_package_is_not_known(entries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = installed.identity
    monkeypatch.setattr(installed, "identity", lambda package: None if package == "einops" else known(package))
    body = "try:\n    import einops\nexcept ImportError:\n    einops = None\nfrom torch import nn\n"
    word = written(tmp_path / "mine", net=body + IN_A_MODEL.format("pass", "pass")) + ":Net"
    remembered(word, STORED, Loads(word))
    assert not entries.exists()


READS = {
    "memory that is shared": "(t := torch.zeros(1), a := np.asarray(t), t.uniform_(1, 60), int(a[0]))[3]",
    "a weight": "int(np.asarray(self.conv.weight.detach()).sum() > 0) + 1",
    "the size of a weight": "int(np.abs(self.conv.weight.detach()).max() * 50) + 1",
    "an array of a weight": "int(np.array(self.conv.weight.detach())[0, 0, 0, 0] > 0) + 1",
}
"""Widths that are others in each run."""


@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # numpy's, of torch
@pytest.mark.parametrize("width", READS.values(), ids=list(READS))
@pytest.mark.parametrize("line", ["self.b = nn.Linear(3, {0})", "self.b = nn.ReLU() if {0} > 1 else nn.GELU()"])
def test_random_values_that_are_read_by_way_of_numpy_are_not_remembered(
    width: str, line: str, entries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closed_code, "sources_of", lambda path, *_: Sources({path: b""}))
    imports = "import numpy as np\nimport torch\nfrom torch import nn\n"
    word = written(tmp_path / "mine", net=imports + IN_A_MODEL.format(line.format(width), "pass")) + ":Net"
    remembered(word, STORED, lambda: code.load(word, STORED))
    assert not entries.exists()


def test_values_that_forward_reads_by_way_of_numpy_are_not_remembered(
    entries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closed_code, "sources_of", lambda path, *_: Sources({path: b""}))
    line = "x = x * 2 if np.asarray(x.detach()).sum() > 0 else x"
    imports = "import numpy as np\nfrom torch import nn\n"
    word = written(tmp_path / "mine", net=imports + IN_A_MODEL.format("pass", line)) + ":Net"
    remembered(word, STORED, lambda: code.load(word, STORED))
    assert not entries.exists()


@pytest.mark.parametrize(("imports", "is_stored"), [("", True), ("import numpy; numpy.prod = sum; ", False)])
def test_numpy_that_a_program_may_have_changed_is_not_known(
    imports: str, is_stored: bool, entries: Path, tmp_path: Path
) -> None:
    line = "self.b = nn.Linear(int(np.prod((2, 3))), 2)"
    body = "import numpy as np\nfrom torch import nn\n" + IN_A_MODEL.format(line, "pass")
    word = written(tmp_path / "mine", net=body) + ":Net"
    program = f"{imports}import vggscope; vggscope.summary({word!r}, input_size=(3, 16, 16))"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert entries.exists() == is_stored


@pytest.mark.slow
def test_a_second_command_imports_no_library(entries: Path, tmp_path: Path) -> None:
    body = "import numpy as np\nfrom torch import nn\n" + IN_A_MODEL.format(*CLOSED["widths"])
    word = written(tmp_path / "mine", net=body) + ":Net"
    command = on_each_command(word, "--input", "3x32x32")[0]
    first, loaded = commands_in_a_process(tmp_path / "first", {0: command})
    second, again = commands_in_a_process(tmp_path / "second", {0: command})
    assert first == second
    assert {"torch", "numpy"} <= set(loaded)
    assert {"torch", "numpy"}.isdisjoint(again)
    assert len(list(entries.iterdir())) == 1
