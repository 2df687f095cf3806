"""Which parts of Python's modules and of libraries depend on nothing but their arguments, by their dotted names.

Parts are listed by name. What is not listed may read a file, the environment or the machine, or change the library.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence

_PURE = frozenset(
    {
        *("__future__", "abc", "collections", "copy", "dataclasses", "enum", "functools", "itertools", "math"),
        *("numbers", "operator", "typing", "typing_extensions"),
    }
)
"""Modules of Python whose functions depend on their arguments alone."""

_WHOLE = frozenset(
    {
        *("torch.nn", "torch.optim", "torch.fft", "torch.linalg", "torch.special", "torch.func", "torch.amp"),
        *("torch.utils.checkpoint", "torchvision.models", "torchvision.ops", "torch.finfo", "torch.iinfo"),
        *("torch.autograd.Function", "torch.autograd.Variable", "torch.autograd.grad", "torch.Tensor", "torch.Size"),
        *("torch.jit.script", "torch.jit.export", "torch.jit.ignore", "torch.jit.unused", "torch.jit.Final"),
        *("torch.jit.is_scripting", "torch.jit.is_tracing", "torch.jit.annotate", "torch.jit.script_if_tracing"),
        *("torch.no_grad", "torch.enable_grad", "torch.set_grad_enabled", "torch.inference_mode"),
        *("torch.is_grad_enabled", "torch.is_tensor", "torch.is_floating_point", "torch.is_complex"),
    }
)
"""Parts of the libraries with all that is in them."""

PARENTS = frozenset(
    {
        *("torch", "torch.utils", "torch.autograd", "torch.jit", "torchvision"),
        *("einops", "einops.layers", "einops.layers.torch", "numpy", "re"),
        *("timm", "timm.data", "timm.layers", "timm.models", "logging"),
    }
)
"""Modules of which only some parts are closed."""

_TIMM_ROOMS = ("timm.data.", "timm.layers.", "timm.models.")
"""How the names of timm's modules begin that have closed parts."""

VALUES = frozenset({"torch.nn", "torch.nn.functional", "torch.nn.init", "torchvision.models", "math"})
"""Modules that may be passed on, as in `getattr(nn, name)`."""

_RANDOM = frozenset(
    {
        *("rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "normal", "bernoulli"),
        *("multinomial", "poisson", "empty", "empty_like", "empty_strided"),
    }
)
"""Functions of torch whose results differ from call to call. `torch.Tensor(2)` has no fixed values either."""

_FUNCTIONS = frozenset(
    """
    abs acos acosh add addbmm addcdiv addcmul addmm addmv allclose amax amin angle any arange arccos arcsin arctan
    argmax argmin argsort as_strided asin asinh atan atan2 atanh atleast_1d atleast_2d baddbmm bfloat16 bincount bmm
    bool broadcast_tensors broadcast_to bucketize cartesian_prod cat cdist ceil celu channels_last channels_last_3d
    chunk clamp clamp_max clamp_min clone complex complex128 complex64 concat concatenate conj contiguous_format
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d copysign cos cosh cosine_similarity
    count_nonzero cov cross cummax cummin cumprod cumsum cumulative_trapezoid deg2rad det device diag diag_embed
    diagonal diff dist div divide dot double dropout dsplit dstack dtype e einsum elu eq equal erf erfc erfinv exp
    exp2 expm1 eye fill flatten flip fliplr flipud float float16 float32 float64 floor floor_divide fmod frac full
    full_like gather ge gelu greater greater_equal group_norm gt half hamming_window hann_window heaviside hsplit
    hstack hypot imag index_add index_select inf inner int int16 int32 int64 int8 inverse isclose isfinite isin
    isinf isnan istft kron layer_norm le leaky_relu lerp less less_equal linspace log log10 log1p log2 log_softmax
    logaddexp logical_and logical_not logical_or logical_xor logit logspace logsumexp long lt manual_seed
    masked_fill masked_select matmul matrix_exp max maximum mean median memory_format meshgrid min minimum mm mode
    moveaxis movedim mul multiply mv nan nan_to_num narrow ne neg negative newaxis nonzero norm not_equal numel ones
    ones_like outer permute pi pixel_shuffle pixel_unshuffle polar pow prelu preserve_format prod promote_types
    quantile rad2deg real reciprocal relu relu_ remainder renorm repeat_interleave reshape result_type roll rot90
    round rsqrt rsub scalar_tensor scatter scatter_add searchsorted select selu short sigmoid sign signbit sin sinc
    sinh slice_scatter softmax sort split sqrt square squeeze stack std std_mean stft strided sub subtract sum svd
    swapaxes swapdims t take take_along_dim tan tanh tensor tensor_split tensordot tile topk trace transpose
    trapezoid tril tril_indices triu triu_indices true_divide trunc uint8 unbind unflatten unfold unique unsqueeze
    vander var var_mean vdot view_as_complex view_as_real vmap vsplit vstack where zeros zeros_like
    """.split()  # noqa: SIM905
)
"""Names in torch that depend on nothing but their arguments: functions, and what is no module."""


_EINOPS = frozenset(
    {
        *("rearrange", "reduce", "repeat", "einsum", "pack", "unpack", "parse_shape", "EinopsError"),
        *("layers.torch.Rearrange", "layers.torch.Reduce", "layers.torch.EinMix"),
    }
)
"""What a model takes from einops. Its `asnumpy` gives values away."""

_NUMPY = frozenset(
    """
    abs absolute add all allclose any arange arccos arcsin arctan arctan2 argmax argmin argsort around array
    array_split asarray atleast_1d atleast_2d average bool_ broadcast_to ceil clip complex128 complex64 concatenate
    cos cosh cumprod cumsum deg2rad degrees diag diff divide divmod dot e einsum equal exp exp2 expand_dims expm1 eye
    fabs flip float16 float32 float64 floor floor_divide full full_like gcd geomspace greater hanning hstack hypot
    identity inf int16 int32 int64 int8 interp isclose isfinite isinf isnan kron lcm less linspace log log10 log1p
    log2 logical_and logical_not logical_or logspace matmul max maximum mean median meshgrid min minimum mod
    moveaxis multiply nan ndarray ndim negative newaxis nonzero ones ones_like outer pad percentile pi power prod
    quantile rad2deg radians ravel reciprocal remainder repeat reshape rint roll rot90 round searchsorted shape sign
    sin sinh size sort split sqrt square squeeze stack std subtract sum swapaxes take tan tanh tensordot tile
    transpose tri tril triu true_divide trunc uint16 uint32 uint64 uint8 unique unravel_index var vstack where zeros
    zeros_like
    """.split()  # noqa: SIM905
)
"""Names in numpy that depend on nothing but their arguments: no files, no random numbers, no uninitialised memory."""

_RE = frozenset(
    {
        *("compile", "escape", "findall", "finditer", "fullmatch", "match", "search", "split", "sub", "subn"),
        *("Match", "Pattern", "IGNORECASE", "VERBOSE", "MULTILINE", "DOTALL", "ASCII", "I", "X", "M", "S", "A"),
    }
)
"""Functions of regular expressions, and their options."""

WITH_ALL = frozenset(
    {
        *("torch.nn", "torch.nn.functional", "torch.nn.init", "torchvision.models", "torchvision.ops"),
        *("collections", "functools", "itertools", "math", "typing"),
    }
)
"""Modules from which all may be imported: there is nothing else in them but Python's modules."""

GET_LOGGER, LOGGER = "logging.getLogger", "logging.Logger"
"""What makes a logger, and its class. What a model logs below a warning is not shown, unless a program asks for it."""

_LOGGING = frozenset({GET_LOGGER, f"{LOGGER}.debug", f"{LOGGER}.info"})

FROM_NUMPY = "torch.from_numpy"
"""The function whose result shares its memory with an array, so that what is written to one is read from the other."""

_BY_NAME = {"numpy": _NUMPY, "re": _RE, "torch": _FUNCTIONS | _RANDOM}
"""Packages of which single names are closed."""

_MODULES = sys.stdlib_module_names - _PURE

_TIMM_LAYERS = frozenset(
    """
    DTYPE_INTERMEDIATE adaptive_avgmax_pool2d apply_keep_indices_nlc apply_rot_embed apply_rot_embed_cat
    apply_rot_embed_list build_fourier_pos_embed build_rotary_pos_embed build_sincos2d_pos_embed
    calculate_drop_path_rates conv2d_same create_aa create_act_layer create_attn create_classifier create_conv2d
    create_norm_act_layer create_norm_layer create_pool2d create_rope_embed drop_block_2d drop_path extend_tuple
    fast_group_norm fast_layer_norm freq_bands gelu gelu_tanh gen_relative_log_coords gen_relative_position_index
    get_act_fn get_act_layer get_attn get_channel_dim get_norm_act_layer get_norm_layer get_padding
    get_same_padding get_spatial_dim global_pool_nlc hard_mish hard_sigmoid hard_swish init_weight_jax
    init_weight_vit is_exportable is_no_jit is_scriptable lecun_normal_ make_divisible maybe_add_mask mish nchw_to
    ndgrid nhwc_to pad_same patch_dropout_forward pixel_freq_bands quick_gelu resample_abs_pos_embed
    resample_abs_pos_embed_nhwc resample_patch_embed resize_rel_pos_bias_table select_adaptive_pool2d sigmoid swish
    tanh to_2tuple to_3tuple to_4tuple to_ntuple trunc_normal_ trunc_normal_tf_ use_fused_attn variance_scaling_
    """.split()  # noqa: SIM905
)
"""Functions of timm.layers. Those that read its settings are closed as long as nothing that sets one is: a setting
begins as the environment has it, on which an entry depends.
"""

_TIMM_MODELS = frozenset(
    {
        *("_cfg", "adapt_input_conv", "build_model_with_cfg", "checkpoint_filter_fn", "checkpoint_seq"),
        *("feature_take_indices", "generate_default_cfgs", "named_apply"),
    }
)
"""Functions in timm.models, besides those of its networks. Whether these load weights makes no other layers."""

_OUTSIDE = frozenset({"Path", "PurePath", "TemporaryDirectory", "HfApi", "PIL", "Image", "InplaceAbn"})
"""Classes in timm's modules that reach files, the network or another package."""

CREATORS = frozenset({f"timm.{place}create_model" for place in ("", "models.", "models.factory.", "models._factory.")})
"""The function that makes a model by its name, which may also be that of a folder or of a repository."""

REGISTRARS = frozenset(
    {f"timm.models.{place}register_model" for place in ("", "registry.", "_registry.")},
)
"""The function that adds a model to those of timm."""

PACKAGES = frozenset({"einops", "numpy", "timm"})
"""Packages besides torch and torchvision in which there is anything closed: code that imports one depends on it."""


def is_closed(path: str) -> bool:
    """Return whether a part of a module or a library depends on nothing but its arguments.

    >>> is_closed("torch.nn.Conv2d"), is_closed("numpy.prod"), is_closed("numpy.load"), is_closed("numpy")
    (True, True, False, False)
    """
    if path == FROM_NUMPY or path in _LOGGING:
        return True
    top, _, rest = path.partition(".")
    parts = rest.split(".")
    if top in _PURE:
        return top == "__future__" or not _leads_on(parts)
    if any(path == whole or path.startswith(f"{whole}.") for whole in _WHOLE):
        return parts[0] == "Tensor" or not _leads_on(part.lstrip("_") for part in parts)
    if top == "einops":
        return rest in _EINOPS
    if top == "timm":
        return path in CREATORS | REGISTRARS or _is_closed_in_timm(parts)
    return parts[0] in _BY_NAME.get(top, ())


def is_importable(path: str) -> bool:
    """Return whether a module may be imported, or a part of one, of which what is used is looked at by itself."""
    return path in PARENTS or path.startswith(_TIMM_ROOMS) or is_closed(path)


def is_random(path: str) -> bool:
    """Return whether a function's results differ from call to call."""
    top, _, name = path.partition(".")
    return top == "torch" and name.partition(".")[0] in _RANDOM


def _is_closed_in_timm(parts: Sequence[str]) -> bool:
    """Whether a part of timm is a layer, a network's class or function, or a constant, perhaps in its own module."""
    if parts[:2] == ["models", "layers"]:
        parts = parts[1:]
    room, inner = parts[0], parts[1:3]
    if room == "data":
        return any(name.endswith(("_MEAN", "_STD")) for name in inner)
    if room not in ("layers", "models") or not _OUTSIDE.isdisjoint(parts):
        return False
    functions = _TIMM_LAYERS if room == "layers" else _TIMM_MODELS
    if any(name in functions or re.fullmatch(r"[A-Z]\w+", name) for name in inner):
        return True
    return room == "models" and not registered_in_timm().isdisjoint(inner)


def registered_in_timm() -> frozenset[str]:
    """Return the names of timm's own models."""
    from vggscope.sources.library_names import names_in

    return frozenset(names_in("timm"))


def _leads_on(parts: Iterable[str]) -> bool:
    """Whether one of these attributes is a module of Python's that a library imports, such as `copy.sys`."""
    return any(part in _MODULES or part.startswith("_") for part in parts)
