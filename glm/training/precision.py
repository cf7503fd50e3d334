"""Training in bfloat16 on a CPU (`--bf16`)."""

from paddle import Tensor, nn
from paddlenlp.peft.lora import LoRALinear

from glm.modules.layers import Linear, TiedEmbedding


class BFloat16LoRALinear(LoRALinear):
    """x W + b, W frozen and multiplied in bfloat16, and x A B alpha / rank, whose products are small, in float32."""

    def forward(self, input: Tensor, *args, **kwargs) -> Tensor:
        """[..., H] -> [..., O]"""
        if not self.training:
            return super().forward(input, *args, **kwargs)
        from glm.cpu.bfloat16 import BFloat16Linear  # here: it loads Numba

        added = self.lora_dropout(input) @ self.lora_A @ self.lora_B
        return BFloat16Linear.apply(input, self.weight, self.bias) + added * self.scaling


def train_in_bfloat16(model: nn.Layer) -> None:
    """Lets a model compute the products of its linear layers and of its head in bfloat16 while it trains on a CPU.

    Weights, gradients, sums and all other layers stay float32, and so does what is evaluated and saved.
    """
    for layer in model.sublayers():
        if isinstance(layer, Linear | TiedEmbedding):
            layer.trains_in_bfloat16 = True
        elif type(layer) is LoRALinear:  # PaddleNLP has put it in place of a linear, and multiplies by Paddle
            layer.__class__ = BFloat16LoRALinear
