"""Sums of products in the processor's vectors, written for LLVM: what Numba's loops are not compiled to by themselves.

A loop over numbers becomes vectors on its own, but not with many sums at a time, and never with a call that has memory
brought nearer in advance. A weight is read once per step, from beginning to end; without that call the processor waits
at each row, because it looks ahead no further than a page.
"""

from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 16  # numbers of a vector; where the processor's are shorter, LLVM takes several
AHEAD = 6  # rows of the weight between what is multiplied and what is fetched: 24 KiB at the large shape

INT32, FLOAT = ir.IntType(32), ir.FloatType()
VECTOR, BYTES = ir.VectorType(FLOAT, LANES), ir.IntType(8).as_pointer()
FMA = ir.FunctionType(VECTOR, [VECTOR] * 3)
SUM = ir.FunctionType(FLOAT, [FLOAT, VECTOR])
PREFETCH = ir.FunctionType(ir.VoidType(), [BYTES, INT32, INT32, INT32])
FOR_READING, FOR_SECOND_LEVEL_CACHE, DATA = INT32(0), INT32(2), INT32(1)


def dot_products(rows: int, outputs: int) -> Callable:
    """A function for compiled loops: `rows` rows of states from row r on, by `outputs` rows of a weight from o on.

    It takes states [n, I], a weight [O, I], a bias [O], the output [n, O] to write to, r and o: contiguous float32, I
    a multiple of LANES. Rows behind the last one are the last one once more.
    """

    @intrinsic
    def multiply(typing, states, weight, bias, output, r, o):
        def generate(context, builder, signature, arguments):
            *arrays, r, o = arguments
            arrays = [
                context.make_array(kind)(context, builder, array)
                for kind, array in zip(signature.args[:4], arrays, strict=True)
            ]
            _generate(builder, *arrays, _following(builder, r, rows), _following(builder, o, outputs))
            return context.get_dummy_value()

        return types.void(states, weight, bias, output, types.intp, types.intp), generate

    return multiply


def _following(builder: ir.IRBuilder, first: ir.Value, count: int) -> list[ir.Value]:
    """`count` numbers from the first on."""
    return [builder.add(first, first.type(k)) for k in range(count)]


def _generate(builder, states, weight, bias, output, rows, outs) -> None:
    def known(name: str, kind: ir.FunctionType) -> ir.Function:
        return cgutils.get_or_insert_function(builder.module, kind, name)

    fma, total = known(f"llvm.fma.v{LANES}f32", FMA), known(f"llvm.vector.reduce.fadd.v{LANES}f32", SUM)
    prefetch = known("llvm.prefetch.p0", PREFETCH)
    n, inputs = cgutils.unpack_tuple(builder, states.shape)
    size = cgutils.unpack_tuple(builder, weight.shape)[0]
    rows, outs = ([_at_most(builder, place, end) for place in places] for places, end in ((rows, n), (outs, size)))

    def row_starts(table, places: list[ir.Value]) -> list[ir.Value]:
        return [builder.gep(table.data, [builder.mul(place, inputs)]) for place in places]

    def vector(start: ir.Value, i: ir.Value) -> ir.Value:
        return builder.load(builder.bitcast(builder.gep(start, [i]), VECTOR.as_pointer()), align=4)

    state_rows, weight_rows = row_starts(states, rows), row_starts(weight, outs)
    ahead = builder.mul(inputs, inputs.type(AHEAD))
    zero = ir.Constant(VECTOR, [0.0] * LANES)
    sums = [[cgutils.alloca_once(builder, VECTOR) for _ in outs] for _ in rows]
    for cell in sum(sums, []):
        builder.store(zero, cell)
    with cgutils.for_range_slice(builder, inputs.type(0), inputs, inputs.type(LANES)) as (i, _):
        numbers = [vector(start, i) for start in weight_rows]
        for start in weight_rows:  # past the end of the weight this does nothing
            later = builder.bitcast(builder.gep(start, [builder.add(i, ahead)]), BYTES)
            builder.call(prefetch, [later, FOR_READING, FOR_SECOND_LEVEL_CACHE, DATA])
        for start, cells in zip(state_rows, sums, strict=True):
            state = vector(start, i)
            for number, cell in zip(numbers, cells, strict=True):
                builder.store(builder.call(fma, [state, number, builder.load(cell)]), cell)
    for row, cells in zip(rows, sums, strict=True):
        for out, cell in zip(outs, cells, strict=True):
            addend = builder.load(builder.gep(bias.data, [out]))
            place = builder.add(builder.mul(row, size), out)
            result = builder.call(total, [addend, builder.load(cell)], fastmath=("reassoc",))
            builder.store(result, builder.gep(output.data, [place]))


def _at_most(builder: ir.IRBuilder, place: ir.Value, end: ir.Value) -> ir.Value:
    """The place, or the last one before the end."""
    last = builder.sub(end, end.type(1))
    return builder.select(builder.icmp_signed("<", place, last), place, last)
