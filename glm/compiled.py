"""The matrix products of decoding in bfloat16 on a CPU, compiled by Paddle Inference with oneDNN.

Eager Paddle has no bfloat16 products on a CPU. What a block does before and after attention works on each token by
itself, so each becomes a program; attention and its cache stay as they are.
"""

import tempfile
from pathlib import Path

import paddle
import paddle.inference
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.static import InputSpec

from glm.device import cpu_threads
from glm.errors import InputError
from glm.modeling import GLMForConditionalGeneration, GLMStack


class _Enter(nn.Layer):
    """See `GLMStack.enter`."""

    def __init__(self, stack: GLMStack):
        super().__init__()
        self.first = stack.layers[0]

    def forward(self, states: Tensor) -> Tensor:
        return self.first.enter(states)


class _Leave(nn.Layer):
    """See `GLMStack.leave`."""

    def __init__(self, stack: GLMStack, index: int):
        super().__init__()
        self.block = stack.layers[index]
        self.is_last = index + 1 == len(stack.layers)
        self.next = stack.final_layernorm if self.is_last else stack.layers[index + 1]

    def forward(self, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        states = self.block.leave(states, context)
        return states, self.next(states) if self.is_last else self.next.enter(states)


def compile_products(model: GLMForConditionalGeneration) -> None:
    """Replaces the products of a model in evaluation mode; it can only decode from then on.

    The weights move into the programs, one block after the other. oneDNN keeps them as they came, in float32, and in
    bfloat16 arranged for the numbers of rows it meets. Sums and attention stay float32.

    Raises:
        InputError: the processor has no bfloat16 products.
    """
    if not paddle.base.core.supports_bfloat16_fast_performance():
        raise InputError(
            "decode_dtype bfloat16: this processor has no fast bfloat16 products (AVX512_BF16 or AMX); use float32"
        )
    stack = model.glm.transformer
    enter, leave = _Program(_Enter(stack), 1), []
    for index, block in enumerate(stack.layers):
        leave.append(_Program(_Leave(stack, index), 2))
        for parameter in block.parameters():
            parameter._clear_data()
    head = nn.Linear(model.config.hidden_size, model.config.vocab_size)  # bias 0: oneDNN arranges only such weights
    head.weight.set_value(model.glm.word_embeddings.weight.T)
    head.bias.set_value(paddle.zeros_like(head.bias))
    project = _Program(head, 1)

    stack.enter = lambda states: enter(states)[0]
    stack.leave = lambda index, states, context: leave[index](states, context)
    model.logits = lambda states: project(states.flatten(0, -2))[0].reshape([*states.shape[:-1], -1])


class _Program:
    """A function from tensors [n, H] to the list of what `part` makes of them.

    oneDNN prepares itself for each number of rows it meets, which takes far longer than the product itself. So it
    meets few: rows are filled up to one of SIZES, and more than the largest go through block by block.
    """

    SIZES = (10, 16, 32, 80, 256)  # 80: 16 examples of 5 beams

    def __init__(self, part: nn.Layer, inputs: int):
        part.eval()
        hidden_size = part.parameters()[0].shape[0]
        specs = [InputSpec([None, hidden_size], "float32", f"input_{index}") for index in range(inputs)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part"
            paddle.jit.save(paddle.jit.to_static(part, full_graph=True, input_spec=specs), str(path))
            config = paddle.inference.Config(f"{path}.json", f"{path}.pdiparams")
            config.disable_gpu()
            config.disable_glog_info()
            config.set_cpu_math_library_num_threads(cpu_threads())
            config.enable_mkldnn()
            config.enable_mkldnn_bfloat16()
            self.predictor = paddle.inference.create_predictor(config)

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        n, block = tensors[0].shape[0], self.SIZES[-1]
        if n > block:
            parts = [self(*(part[at : at + block] for part in tensors)) for at in range(0, n, block)]
            return [paddle.concat(outputs) for outputs in zip(*parts, strict=True)]
        missing = next(size for size in self.SIZES if size >= n) - n
        if missing:
            tensors = [F.pad(part, [0, missing, 0, 0], pad_from_left_axis=True) for part in tensors]
        outputs = self.predictor.run(list(tensors))
        paddle.base.core.set_num_threads(cpu_threads())  # a run leaves one thread to everything after it
        return [output[:n] for output in outputs] if missing else outputs
