"""Dot products and weighted sums written directly in LLVM's vector operations.

Numba vectorises a simple loop by itself, but not one that keeps many sums at a time, and it never prefetches. A
decoding step reads its weights once, from beginning to end. The processor's own prefetcher stops at the end of each
page, so without explicit prefetching it would wait there.
"""

from collections.abc import Callable, Sized

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 16  # elements of a vector; where the processor's are shorter, LLVM uses several
AHEAD = 24 << 10  # bytes by which prefetching runs ahead of multiplying
MOST_ROWS, MOST_SUMS = 5, 20  # of a weighted sum at a time: AVX-512 has 32 vector registers
LINE = 64  # bytes of a cache line

INT8, INT32, INT64, FLOAT = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
VECTOR, ADDRESS = ir.VectorType(FLOAT, LANES), INT8.as_pointer()


def dot_products(rows: int, outputs: int) -> Callable:
    """Returns a function for kernels that multiplies `rows` rows of states by `outputs` rows of a weight.

    The function takes states [n, I], a weight [O, I], an output [n, at least O] to write to, the first row r of states
    and the first row o of the weight. All are float32; I is a multiple of LANES. Where fewer rows are left, the last
    one is used again. With AVX-512 the 20 sums and their factors fit into the 32 vector registers without spilling.
    """

    @intrinsic
    def multiply(typing, states, weight, output, r, o):
        return types.void(states, weight, output, types.intp, types.intp), generate

    def generate(context, builder, signature, arguments):
        states, weight, output = tables(context, builder, signature, arguments[:3])
        rows_of = _following(builder, arguments[3], rows, states.count)
        outs = _following(builder, arguments[4], outputs, weight.count)
        sums = [[_zeros(builder) for _ in outs] for _ in rows_of]
        with cgutils.for_range_slice(builder, INT64(0), states.width, INT64(LANES)) as (i, _):
            factors = [weight.vector(out, i) for out in outs]
            for out in outs:
                fetch(builder, weight.address(out, i), AHEAD)
            for row, cells in zip(rows_of, sums, strict=True):
                state = states.vector(row, i)
                for factor, cell in zip(factors, cells, strict=True):
                    _add_product(builder, cell, state, factor)
        for row, cells in zip(rows_of, sums, strict=True):
            for out, cell in zip(outs, cells, strict=True):
                builder.store(_total(builder, builder.load(cell)), output.place(row, out))
        return context.get_dummy_value()

    return multiply


def mixtures(rows: int, width: int, *, ahead: int = 0, add: bool = False) -> Callable:
    """Returns a function for kernels that computes weighted sums of values for `rows` rows of weights.

    The function takes shares (the weights) [n, at least length], values [length or more, at least width], length, the
    sums [n, at least width] to write to, and the first row r. All are float32, rows of values and sums contiguous,
    width a multiple of LANES. Where fewer rows are left, the last one is used again.

    Args:
        ahead: bytes to prefetch ahead of each value; 0 for values that are in the cache anyway.
        add: add to the sums in place of writing over them.
    """

    @intrinsic
    def mix(typing, shares, values, length, sums, r):
        return types.void(shares, values, types.intp, sums, types.intp), generate

    def generate(context, builder, signature, arguments):
        _generate_mixture(context, builder, signature, arguments, rows, width, ahead=ahead, add=add)
        return context.get_dummy_value()

    return mix


def head_mixtures(*, ahead: int = 0, add: bool = False) -> Callable:
    """Like `mixtures`, for values as wide as a head, `rows_together` rows at a time.

    The function takes one more argument, `vectors_of` the head's size.
    """

    @intrinsic
    def mix(typing, shares, values, length, sums, r, vectors):
        return types.void(shares, values, types.intp, sums, types.intp, vectors), generate

    def generate(context, builder, signature, arguments):
        count = signature.args[5].count
        rows, width = rows_together(range(count)), count * LANES
        _generate_mixture(context, builder, signature, arguments, rows, width, ahead=ahead, add=add)
        return context.get_dummy_value()

    return mix


def vectors_of(head_size: int) -> tuple[int, ...]:
    """Returns a tuple with one entry per vector of a head.

    Kernels take it as an argument: they are compiled for its length, and so with loops of known length.
    """
    return (0,) * (head_size // LANES)


def rows_together(vectors: Sized) -> int:
    """Returns how many rows to sum at a time: their sums and one value stay in vector registers."""
    return min(MOST_ROWS, max(1, MOST_SUMS // len(vectors)))


def _generate_mixture(
    context, builder: ir.IRBuilder, signature, arguments, rows: int, width: int, *, ahead: int, add: bool
) -> None:
    shares, values, _, sums = tables(context, builder, signature, arguments[:4])
    rows_of = _following(builder, arguments[4], rows, sums.count)
    starts = [INT64(start) for start in range(0, width, LANES)]
    cells = [[_zeros(builder) for _ in starts] for _ in rows_of]
    for row, of_row in zip(rows_of if add else [], cells, strict=False):
        for start, cell in zip(starts, of_row, strict=True):
            builder.store(sums.vector(row, start), cell)
    with cgutils.for_range(builder, arguments[2]) as loop:
        factors = [values.vector(loop.index, start) for start in starts]
        for start in starts if ahead else []:
            fetch(builder, values.address(loop.index, start), ahead)
        for row, of_row in zip(rows_of, cells, strict=True):
            share = _spread(builder, builder.load(shares.place(row, loop.index)))
            for factor, cell in zip(factors, of_row, strict=True):
                _add_product(builder, cell, share, factor)
    for row, of_row in zip(rows_of, cells, strict=True):
        for start, cell in zip(starts, of_row, strict=True):
            builder.store(builder.load(cell), sums.vector_place(row, start), align=4)


class Table:
    """A two-dimensional array as LLVM sees it."""

    def __init__(self, builder: ir.IRBuilder, array):
        self.builder, self.data = builder, builder.bitcast(array.data, ADDRESS)
        self.count, self.width = cgutils.unpack_tuple(builder, array.shape)
        self.stride, self.step = cgutils.unpack_tuple(builder, array.strides)  # bytes from row to row, in a row

    def address(self, row: ir.Value, column: ir.Value) -> ir.Value:
        """The address of an element."""
        offset = self.builder.add(self.builder.mul(row, self.stride), self.builder.mul(column, self.step))
        return self.builder.gep(self.data, [offset])

    def place(self, row: ir.Value, column: ir.Value) -> ir.Value:
        """A pointer to a float32 element."""
        return self.builder.bitcast(self.address(row, column), FLOAT.as_pointer())

    def vector_place(self, row: ir.Value, column: ir.Value) -> ir.Value:
        """A pointer to LANES elements."""
        return self.builder.bitcast(self.address(row, column), VECTOR.as_pointer())

    def vector(self, row: ir.Value, column: ir.Value) -> ir.Value:
        """Loads LANES elements of a contiguous row."""
        return self.builder.load(self.vector_place(row, column), align=4)


def tables(context, builder: ir.IRBuilder, signature, values: list[ir.Value]) -> list[Table | None]:
    """Returns the first arguments of a function as `Table`s; None for those that are no arrays."""
    return [
        Table(builder, context.make_array(kind)(context, builder, value)) if isinstance(kind, types.Array) else None
        for kind, value in zip(signature.args, values, strict=False)
    ]


def fetch(builder: ir.IRBuilder, address: ir.Value, ahead: int) -> None:
    """Prefetches the cache line `ahead` bytes behind an address into the L2 cache; any address is safe."""
    later = builder.gep(address, [INT64(ahead)])
    for_reading, into_second_cache, of_data = INT32(0), INT32(2), INT32(1)
    call(builder, "llvm.prefetch.p0", ir.VoidType(), later, for_reading, into_second_cache, of_data)


def call(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value, **options) -> ir.Value:
    """Calls an LLVM intrinsic by its name."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **options)


def _following(builder: ir.IRBuilder, first: ir.Value, count: int, end: ir.Value) -> list[ir.Value]:
    """Returns `count` indices from the first on, with the last index before the end in place of those beyond it."""
    last = builder.sub(end, INT64(1))
    numbers = [builder.add(first, INT64(k)) for k in range(count)]
    return [builder.select(builder.icmp_signed("<", number, last), number, last) for number in numbers]


def _zeros(builder: ir.IRBuilder) -> ir.Value:
    """Allocates a sum, which LLVM keeps in a register."""
    place = cgutils.alloca_once(builder, VECTOR)
    builder.store(ir.Constant(VECTOR, [0.0] * LANES), place)
    return place


def _add_product(builder: ir.IRBuilder, place: ir.Value, a: ir.Value, b: ir.Value) -> None:
    builder.store(call(builder, f"llvm.fma.v{LANES}f32", VECTOR, a, b, builder.load(place)), place)


def _total(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    name = f"llvm.vector.reduce.fadd.v{LANES}f32"
    return call(builder, name, FLOAT, FLOAT(0.0), vector, fastmath=("reassoc",))


def _spread(builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    """Broadcasts a scalar to all lanes."""
    undefined = ir.Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number, INT32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))
