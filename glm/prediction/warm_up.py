"""Decodes dummy texts when a server starts, so that no request waits for one-time work such as compilation."""

from dataclasses import replace
from typing import Any

from glm.data.examples import EncodedRecord
from glm.data.records import Record
from glm.prediction.writer import Writer

TEXT = "今天天气很好，我们去公园散步。"
FEW_TOKENS = 3  # tokens of a dummy text, after its beginning
MANY_ROWS = 64  # beams of all texts together: few and many rows use different kernels


def warm_up(writer: Writer, own: Any = None) -> None:
    """Decodes dummy texts, alone and many together, and scores candidates where the model can.

    On a CPU every kernel that a request may need is then compiled, or loaded from an earlier process's cache.

    Args:
        own: what the model's own task predicts with, where that writes no texts.
    """
    encoder, config = writer.encoder, writer.config
    ids = encoder.tokenizer.encode_text(TEXT)[: max(1, encoder.src_length // 2)]
    record = Record(id=0, source=TEXT, answer=None, target=None, origin="dummy text")
    prompt = encoder.prompt(encoder.lay_out_source(EncodedRecord(record, ids, [], None)), writer.prefix_ids)
    length = len(encoder.opening_ids) + len(writer.prefix_ids) + FEW_TOKENS
    short = replace(writer, config=replace(config, tgt_length=min(config.tgt_length, length), min_tgt_length=0))
    together = min(writer.batch_size, MANY_ROWS // config.num_beams + 1)
    for prompts in ([prompt], [prompt] * together):
        for _ in short.write(prompts, range(len(prompts))):
            pass
    if own is not None and hasattr(own.model, "log_probs"):
        own.model.log_probs([prompt], [[ids[:2], ids[:1]]])
