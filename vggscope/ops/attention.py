"""Matrix products of activations, and attention, which consists of two."""

from __future__ import annotations

from dataclasses import field, replace
from math import prod

from vggscope.errors import ShapeError
from vggscope.ops.axis_maps import SAME, WHOLE, AxisMaps, pointwise, without
from vggscope.ops.base import Op, SavedTensors, Shape, TensorArgument, TorchCall, numel
from vggscope.ops.elementwise import broadcast
from vggscope.ops.normal_form import NormalForm, PrimitiveStep, bias, cut, linear, permute, reshape
from vggscope.record import record
from vggscope.units import kernel_text

PRODUCTS = frozenset({"matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "addmm", "baddbmm", "addmv"})
"""torch's functions that a MatrixProduct may be."""


@record
class MatrixProduct(Op):
    """The product of the last two inputs as matrices, batched over the leading axes.

    `function` is torch's: matmul, mm, bmm, mv, dot, or addmm, baddbmm and addmv, which add `alpha` times the product to
    `beta` times the first input. `copied` is, for each factor, whether torch copies it first. It merges the leading
    axes, which a permuted tensor may not allow without a copy.
    """

    notes = frozenset({"copied"})
    gradient_layout = "batched product"

    function: str = "matmul"
    copied: tuple[bool, bool] = (False, False)
    beta: float = 1
    alpha: float = 1

    def torch_call(self, count: int) -> TorchCall | None:
        if self.function not in PRODUCTS:
            return None
        return TorchCall(
            self.function,
            tuple(map(TensorArgument, range(count))),
            (("beta", self.beta), ("alpha", self.alpha)) if self._adds else (),
        )

    @property
    def name(self) -> str:
        return self.function

    @property
    def predicts_memory(self) -> bool:
        # The layouts that tell the rest are known for batches of matrices.
        return self.function in ("matmul", "bmm")

    @property
    def needs_layout(self) -> bool:
        return True

    @property
    def saves_factors(self) -> bool:
        return not any(self.copied)

    def input_gradients(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[str, ...]:
        # torch.matmul multiplies views of its inputs.
        return ("new view" if self.function == "matmul" else "new",) * len(inputs)

    def output_shape(self, *inputs: Shape) -> Shape:
        left, right = inputs[-2:]
        rows = left if len(left) > 1 else (1, *left)
        columns = right if len(right) > 1 else (*right, 1)
        if rows[-1] != columns[-2]:
            raise ShapeError(f"the matrices of {kernel_text(left)} and {kernel_text(right)} cannot be multiplied")
        result = (*broadcast((rows[:-2] or (1,), columns[:-2] or (1,))), rows[-2], columns[-1])
        result = result if len(rows) > 2 or len(columns) > 2 else result[1:]
        result = result if len(left) > 1 else (*result[:-2], result[-1])
        return result if len(right) > 1 else result[:-1]

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return numel(output) * inputs[-2][-1]

    def has_vector(self, inputs: tuple[Shape, ...]) -> bool:
        """Whether torch multiplies by a vector, for which torch.utils.flop_counter has no formula."""
        left, right = inputs[-2:]
        return len(right) == 1 or (len(left) == 1 and len(right) > 2)

    def form_with_constants(
        self, constants: tuple[Shape | None, ...], inputs: tuple[Shape, ...], output: Shape
    ) -> NormalForm | None:
        *added, left, right = inputs
        is_row = constants[-2] is None and constants[-1] is not None and len(right) == 2 and len(left) > 1
        if not is_row or (self.beta, self.alpha) != (1, 1) or added not in ([], [right[1:]]):
            return None
        if added and constants[0] is None:
            return None
        rows = numel(left[:-1])
        steps = [reshape((rows, left[-1])), linear(rows, right[1], 1, len(added), turned=True)]
        steps += [bias(1, (rows, right[1]), 2, 0)] if added else []
        proof = "the product with the transpose of a weight is a linear layer"
        return NormalForm((*steps, reshape(output, len(steps))), proof)

    @property
    def _adds(self) -> bool:
        return self.function in ("addmm", "baddbmm", "addmv")

    @property
    def other_formula(self) -> str:
        return "sum: 1 a value" if self._adds else "none, all multiply-accumulates"

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return numel(output) * self._adds

    def backward_macs(self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool) -> int:
        return self.macs(inputs, output) * sum(needed[-2:])

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        factors = range(len(inputs) - 2, len(inputs))
        as_is = tuple(place for place, copied in zip(factors, self.copied) if not copied)
        copies = tuple((inputs[place], None) for place, copied in zip(factors, self.copied) if copied)
        return SavedTensors(inputs=as_is, extra=copies)

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        left, right = inputs[-2:]
        if min(len(left), len(right)) < 2:
            return None
        ahead = tuple(len(output) - len(shape) for shape in (left, right))
        rows = {axis: (axis + ahead[0], SAME) for axis in range(len(left) - 1)}
        columns = {axis: (axis + ahead[1], SAME) for axis in range(len(right)) if axis != len(right) - 2}
        return (*(pointwise(shape, output) for shape in inputs[:-2]), rows, columns)


@record
class Einsum(Op):
    """Einstein summation: the sum over the letters that only the left side of `equation` has.

    It has MACs if it sums products of two tensors. torch sums a letter of one tensor alone before it multiplies.
    `copied` is as in MatrixProduct.
    """

    other_formula = "1 for each product or sum that is not a multiply-accumulate"
    name = "einsum"
    notes = frozenset({"copied"})
    needs_layout = True
    gradient_layout = "contraction"

    equation: str
    copied: tuple[bool, ...] = ()

    def torch_call(self, count: int) -> TorchCall:
        return TorchCall("einsum", (self.equation, *map(TensorArgument, range(count))))

    @property
    def predicts_memory(self) -> bool:
        # It is then one product of batches of matrices, of which the result is a view in the order of its axes.
        if len(self.copied) != 2:
            return False
        batch, rows, columns, _ = self.groups
        return batch + rows + columns == self.equation.replace(" ", "").partition("->")[2]

    @property
    def saves_factors(self) -> bool:
        return not any(self.copied)

    def input_gradients(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[str, ...]:
        return ("new view",) * len(inputs)

    def kernel_shape(self, inputs: tuple[Shape, ...], output: Shape) -> Shape | None:
        if not self.predicts_memory:
            return None
        batch, rows = (len(letters) for letters in self.groups[:2])
        return numel(output[:batch]), numel(output[batch : batch + rows]), numel(output[batch + rows :])

    @property
    def groups(self) -> tuple[str, str, str, str]:
        """The letters of the batch of matrices, of the rows and the columns of the product, and those summed over."""
        left, _, output = self.equation.replace(" ", "").partition("->")
        first, second = left.split(",")
        batch = "".join(letter for letter in output if letter in first and letter in second)
        rows, columns = ("".join(i for i in output if i in term and i not in batch) for term in (first, second))
        return batch, rows, columns, "".join(sorted((set(first) & set(second)) - set(output)))

    def _sizes(self, inputs: tuple[Shape, ...]) -> tuple[dict[str, int], str]:
        left, arrow, right = self.equation.replace(" ", "").partition("->")
        if "." in left or not arrow:
            raise ShapeError(f"einsum {self.equation!r}: only letters with -> are read")
        terms = left.split(",")
        sizes: dict[str, int] = {}
        for term, shape in zip(terms, inputs):
            if len(term) != len(shape) or any(sizes.setdefault(letter, s) != s for letter, s in zip(term, shape)):
                raise ShapeError(f"einsum {self.equation!r} does not fit {' and '.join(map(kernel_text, inputs))}")
        return sizes, right

    def output_shape(self, *inputs: Shape) -> Shape:
        sizes, right = self._sizes(inputs)
        return tuple(sizes[letter] for letter in right)

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        if len(inputs) > 2:
            return None  # they depend on the order in which torch multiplies
        sizes, right = self._sizes(inputs)
        left = self.equation.partition("->")[0].replace(" ", "").split(",")
        if len(left) < 2 or all(letter in right for letter in {*left[0]} & {*left[1]}):
            return 0
        return prod(size for letter, size in sizes.items() if letter in right or all(letter in term for term in left))

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        if self.macs(inputs, output):
            return 0  # a contraction is all multiply-accumulates
        return numel(output) if len(inputs) > 1 else numel(inputs[0]) - numel(output)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        copied = self.copied or (False,) * len(inputs)
        as_is = tuple(place for place, copy in enumerate(copied) if not copy)
        return SavedTensors(as_is, extra=tuple((shape, None) for shape, copy in zip(inputs, copied) if copy))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        left, _, right = self.equation.replace(" ", "").partition("->")
        return tuple(
            {axis: (right.index(letter), SAME) for axis, letter in enumerate(term) if letter in right}
            for term in left.split(",")
        )


MASK_ALIGNMENT = 16
"""The memory-efficient kernel of attention computes rows of a mask's gradient that are a multiple of this."""


@record
class ScaledDotProductAttention(Op):
    """softmax(Q K^T / sqrt(d)) V, from queries, keys, values and optionally a mask.

    MACs: each query with each key, then each weight with each value. (Vaswani et al. 2017, section 3.2.1)
    """

    other_formula = "n keys: scale and soft-max of each query: 6n-2; a mask: n more"
    name = "scaled_dot_product_attention"
    gradient_layout = "attention"

    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None

    def torch_call(self, count: int) -> TorchCall:
        return TorchCall(
            self.name,
            tuple(map(TensorArgument, range(count))),
            (("dropout_p", self.dropout_p), ("is_causal", self.is_causal), ("scale", self.scale)),
        )

    @property
    def is_random(self) -> bool:  # type: ignore[override]
        return self.dropout_p > 0

    @property
    def predicts_memory(self) -> bool:
        # Under dropout, and where the layouts are others, torch may take a kernel that stores the weights.
        return not self.dropout_p

    @property
    def needs_layout(self) -> bool:
        return True

    def expands_last_input(self, inputs: tuple[Shape, ...]) -> bool:
        return len(inputs) > 3

    def needs_gpu(self, inputs: int) -> bool:
        # Its kernel for the CPU computes no gradient of a mask.
        return inputs > 3

    def gradient_shapes(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[Shape, ...]:
        # That of a mask has one for each sample, with rows that end at a multiple of 16 values.
        keys = -(-inputs[1][-2] // MASK_ALIGNMENT) * MASK_ALIGNMENT
        return (*inputs[:3], *((*output[:-1], keys) for _ in inputs[3:]))

    def output_shape(self, *inputs: Shape) -> Shape:
        query, key, value = inputs[:3]
        if query[-1] != key[-1] or key[-2] != value[-2]:
            raise ShapeError(f"{' and '.join(map(kernel_text, inputs[:3]))} do not fit as queries, keys and values")
        return (*broadcast((query[:-2], key[:-2], value[:-2])), query[-2], value[-1])

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        query, key, value = inputs[:3]
        return numel(output[:-1]) * key[-2] * (query[-1] + value[-1])

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        query, key = inputs[:2]
        masks = numel(query[:-1]) * key[-2] if len(inputs) > 3 else 0
        return _softmax_of_scores(numel(query[:-1]), key[-2]) + masks

    def backward_macs(self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool) -> int:
        query, key, value = inputs[:3]
        weights = numel(output[:-1]) * key[-2]
        to_query, to_key, to_value = needed[:3]
        return weights * (value[-1] * (to_value + (to_query or to_key)) + query[-1] * (to_query + to_key))

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        # Fused kernels do not store the weights. They save the logarithms of their sums, in single precision.
        return SavedTensors(inputs=tuple(range(len(inputs))), output=True, sums=(output[:-1],))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        axes = len(output)
        query = without(inputs[0], {axes - 1})
        others = (without(shape, {axes - 2, axes - 1}) for shape in inputs[1:3])
        return (query, *others, *(pointwise(shape, output) for shape in inputs[3:]))


@record
class MultiheadAttention(Op):
    """Attention in `num_heads` heads, with learned input and output projections.

    Its inputs are queries, keys and values, or one tensor for all three. (Vaswani et al. 2017, section 3.2.2)
    """

    other_formula = "n keys: scale and soft-max of each query and head: 6n-2; biases of the projections"

    embed_dim: int
    num_heads: int
    dropout: float = 0.0
    bias: bool = True
    add_bias_kv: bool = False
    add_zero_attn: bool = False
    kdim: int | None = None
    vdim: int | None = None
    batch_first: bool = False
    masks: tuple[str, ...] = field(default=(), kw_only=True, repr=False)
    """The names of the masks that the call passes."""
    roles: tuple[int, ...] = field(default=(), kw_only=True, repr=False)
    """For a call that gets one tensor several times, the place of each argument among the inputs."""

    @property
    def compares_inputs(self) -> bool:
        return True

    @property
    def features_axis(self) -> int:
        return -1

    def output_shape(self, *inputs: Shape) -> Shape:
        query = inputs[0]
        if query[-1] != self.embed_dim:
            raise ShapeError(f"a width of {self.embed_dim} is expected, the input is {kernel_text(query)}")
        return query

    def parameters(self) -> dict[str, Shape]:
        e, k, v = self.embed_dim, self.kdim or self.embed_dim, self.vdim or self.embed_dim
        if k == e == v:
            weights: dict[str, Shape] = {"in_proj_weight": (3 * e, e)}
        else:
            weights = {"q_proj_weight": (e, e), "k_proj_weight": (e, k), "v_proj_weight": (e, v)}
        into: dict[str, Shape] = {"in_proj_bias": (3 * e,)} if self.bias else {}
        out: dict[str, Shape] = {"out_proj.bias": (e,)} if self.bias else {}
        learned: dict[str, Shape] = {"bias_k": (1, 1, e), "bias_v": (1, 1, e)} if self.add_bias_kv else {}
        return {**weights, **into, **learned, "out_proj.weight": (e, e), **out}

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        is_plain = not (self.masks or any(self.roles) or self.add_bias_kv or self.add_zero_attn)
        has_one_width = {self.kdim, self.vdim} <= {None, self.embed_dim}
        if not (is_plain and has_one_width and self.bias) or len(inputs) > 1 or len(output) != 3:
            return super().normal_form(inputs, output, numbers)
        tokens, batch = (output[1], output[0]) if self.batch_first else output[:2]
        proof = "it is the projection, the attention of each head and the projection of the output"
        return NormalForm(tuple(self._steps(tokens, batch)), proof)

    def _steps(self, tokens: int, batch: int) -> list[PrimitiveStep]:
        """The steps that torch.nn.functional.multi_head_attention_forward takes where it returns no weights."""
        e, heads, rows = self.embed_dim, self.num_heads, tokens * batch
        width = e // heads
        steps = [permute((1, 0, 2), (tokens, batch, e))] if self.batch_first else []
        steps += [reshape((rows, e), len(steps))]
        steps += [linear(rows, 3 * e, len(steps)), bias(1, (rows, 3 * e), len(steps) + 1)]
        # As torch's function turns the three projections: a term equals only one that is made in the same way.
        steps.append(reshape((1, tokens, batch, 3, e), len(steps)))
        steps.append(permute((3, 1, 2, 0, 4), (3, tokens, batch, 1, e), len(steps)))
        steps.append(reshape((3, tokens, batch, e), len(steps)))
        projected, places = len(steps), []
        for piece in range(3):
            steps.append(cut(0, piece, piece + 1, 1, (1, tokens, batch, e), projected))
            steps.append(reshape((tokens, batch * heads, width), len(steps)))
            steps.append(permute((1, 0, 2), (batch * heads, tokens, width), len(steps)))
            steps.append(reshape((batch, heads, tokens, width), len(steps)))
            places.append(len(steps))
        attention = ScaledDotProductAttention().step((batch, heads, tokens, width))
        steps.append(replace(attention, inputs=tuple(places), weights=()))
        steps.append(permute((2, 0, 1, 3), (tokens, batch, heads, width), len(steps)))
        steps.append(reshape((rows, e), len(steps)))
        steps += [linear(rows, e, len(steps), 2), bias(1, (rows, e), len(steps) + 1, 3)]
        steps.append(reshape((tokens, batch, e), len(steps)))
        return [*steps, permute((1, 0, 2), (batch, tokens, e), len(steps))] if self.batch_first else steps

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return sum(self._projections(inputs)) + 2 * self.weighing_macs(inputs)

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        query, key = inputs[0], inputs[min(1, len(inputs) - 1)]
        tokens = 0 if not self.batch_first and len(query) == 3 else len(query) - 2
        keys = key[tokens] + self.add_bias_kv + self.add_zero_attn
        biases = self.embed_dim * (2 * numel(query[:-1]) + 2 * numel(key[:-1])) if self.bias else 0
        return _softmax_of_scores(numel(query[:-1]) * self.num_heads, keys) + biases

    def backward_macs(self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool) -> int:
        to = (*needed, *needed[-1:] * 2)[:3]
        *into, out = self._projections(inputs)
        projected = [need or trained for need in to]
        weighing = projected[2] + any(projected[:2]) + projected[0] + projected[1]
        projections = sum(macs * (need + trained) for macs, need in zip(into, to))
        return projections + out * (any(projected) + trained) + weighing * self.weighing_macs(inputs)

    def _projections(self, inputs: tuple[Shape, ...]) -> tuple[int, ...]:
        """The MACs of the projections of queries, keys, values and output."""
        query, key, value = (*inputs, *inputs[-1:] * 2)[:3]
        e, queries, keys = self.embed_dim, numel(query[:-1]), numel(key[:-1])
        return queries * e * e, keys * key[-1] * e, keys * value[-1] * e, queries * e * e

    def weighing_macs(self, inputs: tuple[Shape, ...]) -> int:
        """The MACs of each query with each key, which are also those of each weight with each value."""
        query, key = (*inputs, *inputs[-1:])[:2]
        batch = 1 if len(query) == 2 else query[0 if self.batch_first else 1]
        keys = numel(key[:-1]) // batch + self.add_bias_kv + self.add_zero_attn
        return numel(query[:-1]) * keys * self.embed_dim

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        # The projected queries, keys and values, the attended values, and the logarithms of the weights' sums.
        projected = (*inputs[min(1, len(inputs) - 1)][:-1], self.embed_dim)
        tensors = (output, projected, projected, output)
        sums = ((*output[:-1], self.num_heads), 4)
        return SavedTensors(tuple(range(len(inputs))), extra=(*((shape, None) for shape in tensors), sums))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        tokens = len(output) - 2 if self.batch_first or len(output) == 2 else 0
        width = len(output) - 1
        own = without(output, {width})
        everywhere = {axis: (axis, WHOLE if axis == tokens else SAME) for axis in range(width)}
        return (everywhere if len(inputs) == 1 else own, *(everywhere for _ in inputs[1:]))


def _softmax_of_scores(queries: int, keys: int) -> int:
    """The operations of scaling the products of queries with keys and of their soft-max."""
    return queries * (6 * keys - 2)
