"""Clips gradients by their global norm, in place and only when the norm exceeds the limit."""

import math

import paddle
from paddle import Tensor

from glm.cpu.arrays import scale_in_place, squared_norms


class GlobalNormClip(paddle.nn.ClipGradByGlobalNorm):
    """Scales all gradients by limit / norm if their norm exceeds the limit.

    Paddle's own multiplies at every step, if by 1, and into a copy of all gradients.

    Args:
        clip_norm: the limit.
    """

    @paddle.no_grad()
    def _dygraph_clip(self, params_grads: list[tuple[Tensor, Tensor | None]]) -> list[tuple[Tensor, Tensor | None]]:
        gradients = [grad for weight, grad in params_grads if grad is not None and getattr(weight, "need_clip", True)]
        norm = math.sqrt(sum(squared_norms(gradients)))
        if norm > self.clip_norm:
            for grad in gradients:
                scale_in_place(grad, self.clip_norm / norm)
        return params_grads
