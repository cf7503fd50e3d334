"""This toolkit's UniLM: decoding by its own search, and a fine-tuning step of the masked objective."""

import paddle
from settings import settle
from unilm_work import MASK, PAD, POSITIONS, SEP, VOCABULARY, UniLMWork, run, timed

from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.protocol import GeometryOptions
from glm.models.unilm.configuration import UniLMConfig
from glm.models.unilm.geometry import SEQ2SEQ, UniLMGeometry, in_task
from glm.models.unilm.modeling import UniLMForConditionalGeneration
from glm.modules.decoding import prepare_decoding
from glm.training.clip import GlobalNormClip


class Ids:
    """What a geometry asks of a tokenizer, for texts that are ids already."""

    special_ids = {}
    vocab_size, mask_token_id, sep_token_id, cls_token_id = VOCABULARY, MASK, SEP, 101


GEOMETRY = UniLMGeometry(Ids(), GeometryOptions("[gMASK]"))


def build(work: UniLMWork) -> UniLMForConditionalGeneration:
    """Random weights of the shape."""
    settle(work)
    size = work.size
    return UniLMForConditionalGeneration(
        UniLMConfig(
            vocab_size=VOCABULARY,
            hidden_size=size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            intermediate_size=4 * size.hidden,
            max_position_embeddings=POSITIONS,
        )
    )


def decode(work: UniLMWork) -> list[float]:
    """Seconds of a run in which every text has all its tokens, behind one with few."""
    model = build(work)
    prepare_decoding(model, "float32", "cpu")
    prompts = [GEOMETRY.prompt(source) for source in work.sources()]

    def texts(tokens: int) -> None:
        config = GenerationConfig(
            tgt_length=tokens, min_tgt_length=tokens - 1, num_beams=work.beams, no_repeat_ngram_size=0
        )
        found = dict(generate(model, prompts, config, end_token_id=SEP, batch_size=work.batch))
        if {len(beams[0].token_scores) for beams in found.values()} != {tokens}:
            raise RuntimeError("a text has fewer tokens than asked for")

    texts(2)
    return [timed(lambda: texts(work.tokens))]


def train(work: UniLMWork) -> list[float]:
    """Seconds of each step that counts."""
    model = build(work)
    model.train()
    optimizer = paddle.optimizer.AdamW(
        1e-5, parameters=model.parameters(), weight_decay=0.01, grad_clip=GlobalNormClip(1.0)
    )
    rows = []
    for source, target, places in work.pairs():
        example = in_task(SEQ2SEQ, [*source, *target], len(source))
        example.labels[places] = example.input_ids[places]
        example.input_ids[places] = MASK
        rows.append([example])
    batch = {name: paddle.to_tensor(table) for name, table in GEOMETRY.collate(rows, work.width, PAD).items()}

    def step() -> None:
        model(**batch).backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)

    step()
    return [timed(step) for _ in range(work.steps)]


if __name__ == "__main__":
    run(lambda work: train(work) if work.trains else decode(work), ["paddlepaddle", "numpy"])
