"""PaddleNLP's own GLM class: one full forward per candidate, those of all records in one batch after the other."""

from collections.abc import Callable

import numpy as np
import paddle
from choose_work import ChooseWork, run
from paddlenlp.transformers import GLMConfig, GLMForConditionalGeneration
from settings import settle
from work import SOP


def build(work: ChooseWork) -> Callable[[], np.ndarray]:
    """The model, and its rows: source, `sop`, all pieces of a candidate but the last."""
    settle(work)
    model = GLMForConditionalGeneration(
        GLMConfig(**work.size.settings(), max_sequence_length=1024, output_predict=True)
    )
    model.eval()
    sources, candidates = work.tables()
    S, T = work.source, work.pieces
    place = np.concatenate([np.arange(S), np.full(T, S - 2)])
    block = np.concatenate([np.zeros(S, dtype=int), np.arange(1, T + 1)])
    rows, columns = np.arange(S + T)[:, None], np.arange(S + T)[None]
    seen = ((columns < S) | (columns <= rows)).astype("int64")
    positions = paddle.to_tensor(np.repeat(np.stack([place, block])[None], work.candidates, axis=0))
    mask = paddle.to_tensor(np.repeat(seen[None, None], work.candidates, axis=0))

    @paddle.no_grad()
    def score() -> np.ndarray:
        found = []
        for source, own in zip(sources, candidates, strict=True):
            ids = np.array([[*source, SOP, *candidate[:-1]] for candidate in own])
            logits = model(input_ids=paddle.to_tensor(ids), position_ids=positions, attention_mask=mask)
            logits = (logits if isinstance(logits, paddle.Tensor) else logits[0])[:, S:]
            most = logits.max(-1, keepdim=True)
            normalizers = (logits - most).exp().sum(-1).log() + most.squeeze(-1)
            chosen = paddle.take_along_axis(logits, paddle.to_tensor(own)[:, :, None], axis=2).squeeze(-1)
            found.append((chosen - normalizers).sum(-1).numpy())
        return np.array(found)

    return score


if __name__ == "__main__":
    run(build, ["paddlepaddle", "paddlenlp"])
