"""Vectors for numba: one number a lane, and a lane a pair; added, compared and chosen among by single instructions.

``width`` is a number of a numpy integer type with as many bits as there are lanes: ``np.int32(0)`` stands for 32 of
them. So kernels are compiled once a width, and a mask fits into one number of that type. Arrays that vectors are
loaded from end in a dimension of that many lanes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

Build = Callable[..., Any]


class Vector(types.Type):
    """``count`` numbers of one type; of booleans, a mask."""

    def __init__(self, element: types.Type, count: int) -> None:
        self.element, self.count = element, count
        super().__init__(name=f"Vector({element}, {count})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        element = ir.IntType(1) if kind.element == types.boolean else manager[kind.element].get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.count))


def _mask(kind: Vector) -> Vector:
    return Vector(types.boolean, kind.count)


def _same(kind: Vector) -> Vector:
    return kind


def _is_real(kind: Vector) -> bool:
    return isinstance(kind.element, types.Float)


def _of_one(build: Build, result: Callable[[Vector], Vector] = _same) -> Any:
    @intrinsic
    def operation(typing_context, x):
        def generate(context, builder, signature, arguments):
            return build(builder, signature.args[0], signature.return_type, *arguments)

        return (result(x)(x), generate) if isinstance(x, Vector) else None

    return operation


def _of_two(build: Build, result: Callable[[Vector], Vector] = _same) -> Any:
    @intrinsic
    def operation(typing_context, x, y):
        def generate(context, builder, signature, arguments):
            return build(builder, signature.args[0], *arguments)

        return (result(x)(x, y), generate) if isinstance(x, Vector) and x == y else None

    return operation


def _either(real: str, whole: str) -> Build:
    return lambda builder, kind, x, y: getattr(builder, real if _is_real(kind) else whole)(x, y)


def _compared(sign: str) -> Build:
    return lambda builder, kind, x, y: (builder.fcmp_ordered if _is_real(kind) else builder.icmp_signed)(sign, x, y)


def _smaller(builder: Any, kind: Vector, x: Any, y: Any) -> Any:
    return builder.select(_compared("<")(builder, kind, x, y), x, y)


def _larger(builder: Any, kind: Vector, x: Any, y: Any) -> Any:
    return builder.select(_compared("<")(builder, kind, x, y), y, x)


def _cast(instruction: str) -> Build:
    return lambda builder, kind, into, x: getattr(builder, instruction)(x, _machine_type(into))


def _machine_type(kind: Vector) -> ir.VectorType:
    elements = {types.float32: ir.FloatType(), types.float64: ir.DoubleType(), types.int32: ir.IntType(32)}
    return ir.VectorType(elements[kind.element], kind.count)


def _made_of(element: types.Type) -> Callable[[Vector], Vector]:
    return lambda kind: Vector(element, kind.count)


def _called(name: str) -> Build:
    """A function of LLVM over vectors of float32 or float64."""

    def build(builder: Any, kind: Vector, *operands: Any) -> Any:
        values = [operand for operand in operands if not isinstance(operand, Vector)]
        machine = values[0].type
        function = ir.FunctionType(machine, [machine] * len(values))
        full_name = f"llvm.{name}.v{kind.count}f{kind.element.bitwidth}"
        return builder.call(cgutils.get_or_insert_function(builder.module, function, full_name), values)

    return build


# The smaller or larger of two numbers; the second where either is NaN.
minimum = _of_two(_smaller)
maximum = _of_two(_larger)
is_nan = _of_one(lambda builder, kind, into, x: builder.fcmp_unordered("uno", x, x), _mask)
magnitude = _of_one(_called("fabs"))
rounded = _of_one(_called("rint"))
widened = _of_one(_cast("fpext"), _made_of(types.float64))
whole = _of_one(_cast("fptosi"), _made_of(types.int32))
bits = _of_one(_cast("bitcast"), _made_of(types.int32))
of_bits = _of_one(_cast("bitcast"), _made_of(types.float32))

_OPERATORS = {
    operator.add: _of_two(_either("fadd", "add")),
    operator.sub: _of_two(_either("fsub", "sub")),
    operator.mul: _of_two(_either("fmul", "mul")),
    operator.truediv: _of_two(_either("fdiv", "sdiv")),
    operator.lshift: _of_two(_either("shl", "shl")),
    operator.rshift: _of_two(_either("ashr", "ashr")),
    operator.and_: _of_two(_either("and_", "and_")),
    operator.or_: _of_two(_either("or_", "or_")),
    operator.lt: _of_two(_compared("<"), _mask),
    operator.eq: _of_two(_compared("=="), _mask),
    operator.ne: _of_two(_compared("!="), _mask),
}


def _overload_operator(sign: Callable[..., Any], operation: Any) -> None:
    @overload(sign, inline="always")
    def of_vectors(x, y):
        if isinstance(x, Vector) and x == y:
            return lambda x, y: operation(x, y)
        return None


for _sign, _operation in _OPERATORS.items():
    _overload_operator(_sign, _operation)


@intrinsic
def multiply_add(typing_context, x, y, z):
    """``x * y + z``, rounded once on every machine."""

    def generate(context, builder, signature, arguments):
        return _called("fma")(builder, x, *arguments)

    return x(x, x, x), generate


@intrinsic
def where(typing_context, condition, x, y):
    """``x`` in lanes where the condition holds, else ``y``."""
    return x(condition, x, x), lambda context, builder, signature, arguments: builder.select(*arguments)


@intrinsic
def num_lanes(typing_context, width):
    """Lanes that a width stands for."""
    return types.intp(width), lambda context, builder, signature, arguments: ir.Constant(
        context.get_value_type(types.intp), width.bitwidth
    )


@intrinsic
def fill(typing_context, number, width):
    """A vector of one number."""
    kind = Vector(number, width.bitwidth)

    def generate(context, builder, signature, arguments):
        machine = context.get_value_type(kind)
        one = builder.insert_element(ir.Constant(machine, ir.Undefined), arguments[0], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
        return builder.shuffle_vector(one, ir.Constant(machine, ir.Undefined), zeros)

    return kind(number, width), generate


def _address(context: Any, builder: Any, array_type: Any, array: Any, position: Any, machine: ir.Type) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [position]), machine.as_pointer())


def _element_bytes(kind: Vector) -> int:
    return kind.element.bitwidth // 8


@intrinsic
def load(typing_context, array, position, width):
    """The vector at ``position``, counted in vectors, of an array that ends in the lanes."""
    kind = Vector(array.dtype, width.bitwidth)

    def generate(context, builder, signature, arguments):
        first = builder.mul(arguments[1], ir.Constant(arguments[1].type, kind.count))
        machine = context.get_value_type(kind)
        pointer = _address(context, builder, array, arguments[0], first, machine)
        return builder.load(pointer, align=_element_bytes(kind))

    return kind(array, types.intp, width), generate


@intrinsic
def store(typing_context, array, position, vector):
    """Writes a vector where ``load`` reads it."""

    def generate(context, builder, signature, arguments):
        first = builder.mul(arguments[1], ir.Constant(arguments[1].type, vector.count))
        pointer = _address(context, builder, array, arguments[0], first, context.get_value_type(vector))
        builder.store(arguments[2], pointer, align=_element_bytes(vector))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def as_number(typing_context, mask, width):
    """A mask as a number of the width's type, the first lane in its lowest bit."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(width))

    return width(mask, width), generate


# Note [Matrices are turned by shuffles]: rows of pairs lie far apart, lanes side by side. A square of side x side
# numbers is loaded as vectors along its rows, turned within the registers, and stored as vectors along the lanes. A
# perfect shuffle of the first half of the rows with the second, done log2(side) times, transposes.
def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    side = len(rows)
    low = [x for lane in range(side // 2) for x in (lane, side + lane)]
    high = [x + side // 2 for x in low]
    masks = [ir.Constant(ir.VectorType(ir.IntType(32), side), order) for order in (low, high)]
    stage = 1
    while stage < side:
        pairs = zip(rows[: side // 2], rows[side // 2 :], strict=True)
        rows = [builder.shuffle_vector(x, y, mask) for x, y in pairs for mask in masks]
        stage *= 2
    return rows


def _square(into_lanes: bool) -> Any:
    @intrinsic(prefer_literal=True)
    def turn(typing_context, matrices, starts, column, row, lane, side_type):
        """Moves ``side`` columns of ``side`` lanes; ``starts`` are the lanes' positions in ``matrices``."""
        if not isinstance(side_type, types.IntegerLiteral):
            return None
        side = side_type.literal_value
        signature = types.void(matrices, starts, types.intp, row, types.intp, side_type)

        def generate(context, builder, signature, arguments):
            outside, beginnings, column, lanes, lane, _ = arguments
            vector = ir.VectorType(context.get_value_type(matrices.dtype), side)
            size = matrices.dtype.bitwidth // 8
            starts_array = context.make_array(starts)(context, builder, beginnings)
            lanes_array = context.make_array(row)(context, builder, lanes)
            num_lanes = builder.extract_value(lanes_array.shape, 1)
            far, near = [], []
            for k in range(side):
                step = ir.Constant(lane.type, k)
                start = builder.load(builder.gep(starts_array.data, [builder.add(lane, step)]))
                far.append(_address(context, builder, matrices, outside, builder.add(start, column), vector))
                inside = builder.add(builder.mul(builder.add(column, step), num_lanes), lane)
                near.append(_address(context, builder, row, lanes, inside, vector))
            read, write = (far, near) if into_lanes else (near, far)
            turned = _turned(builder, [builder.load(pointer, align=size) for pointer in read])
            for pointer, values in zip(write, turned, strict=True):
                builder.store(values, pointer, align=size)
            return context.get_dummy_value()

        return signature, generate

    return turn


lanes_of_matrices = _square(into_lanes=True)
matrices_of_lanes = _square(into_lanes=False)
