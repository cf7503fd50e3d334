"""The least seconds that decoding can take on a machine: what must be read and what must be multiplied.

Weights and their products may be in fewer bits; attention, keys and values are float32. A step reads every weight of
the blocks and of the head once, the keys and values of each source once (its beams share them), and those of the
tokens of every beam. It multiplies each weight once per beam.
"""

from dataclasses import dataclass

from work import VOCABULARY, Work

BYTES = 4  # of a float32
NUMBERS = {"float32": BYTES, "bfloat16": 2, "int8": 1}  # bytes of a weight


@dataclass(frozen=True)
class Floor:
    """The least seconds of a work.

    Args:
        bandwidth: bytes per second.
        rate: float32 operations per second.
        product_rate: operations per second of products with weights, in their own type; None for float32.
    """

    work: Work
    bandwidth: float
    rate: float
    product_rate: float | None = None

    @property
    def block_weights(self) -> int:
        """Numbers in all blocks: four square matrices of attention, eight of the MLP, biases and LayerNorms."""
        size = self.work.size
        return size.layers * (12 * size.hidden**2 + 13 * size.hidden)

    @property
    def head_weights(self) -> int:
        """Numbers in the head."""
        return VOCABULARY * self.work.size.hidden

    def attention(self, rows: int, keys: float) -> float:
        """Operations of `rows` queries on `keys` keys each, in all layers."""
        return 4 * rows * keys * self.work.size.hidden * self.work.size.layers

    def prefill(self) -> float:
        """Seconds to read the sources and `sop`, and for the first logits: operations alone."""
        work = self.work
        tokens = work.batch * (work.source + 1)
        operations = 2 * tokens * self.block_weights + 2 * work.batch * self.head_weights
        return operations / (self.product_rate or self.rate) + self.attention(tokens, work.source) / self.rate

    def step(self, made: int) -> float:
        """Seconds of the step that follows `made` tokens."""
        work = self.work
        rows, weights = work.batch * work.beams, self.block_weights + self.head_weights
        keys_and_values = 2 * work.size.hidden * work.size.layers * (work.batch * work.source + rows * made)
        products = 2 * rows * weights / (self.product_rate or self.rate)
        attention = self.attention(rows, work.source + made) / self.rate
        read = NUMBERS[work.decode_dtype] * weights + BYTES * keys_and_values
        return max(read / self.bandwidth, products + attention)

    def mean_step(self) -> float:
        """Seconds of a step, on average over the run."""
        return sum(map(self.step, range(1, self.work.tokens))) / max(self.work.tokens - 1, 1)

    def total(self) -> float:
        """Seconds of the run."""
        return self.prefill() + self.mean_step() * (self.work.tokens - 1)
