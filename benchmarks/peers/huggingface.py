"""Hugging Face transformers: a GPT-2 of the same shape, `generate` with beam search."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel
from work import VOCABULARY, Clock, Work, run


def random_model(work: Work) -> GPT2LMHeadModel:
    """Random weights of the shape."""
    torch.manual_seed(0)
    size = work.size
    config = GPT2Config(
        n_layer=size.layers,
        n_embd=size.hidden,
        n_head=size.heads,
        vocab_size=VOCABULARY,
        n_positions=work.positions,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return GPT2LMHeadModel(config).eval()


def build(work: Work, clock: Clock) -> GPT2LMHeadModel:
    """The model, each of whose passes is seen by a hook."""
    torch.set_num_threads(work.threads)
    model = random_model(work)
    model.register_forward_pre_hook(clock.mark)
    return model


@torch.inference_mode()
def decode(model: GPT2LMHeadModel, work: Work) -> list[list[int]]:
    """As many tokens as asked for: eos is forbidden until then."""
    sources = torch.from_numpy(work.sources())
    outputs = model.generate(
        sources,
        attention_mask=torch.ones_like(sources),
        do_sample=False,
        num_beams=work.beams,
        min_new_tokens=work.tokens,
        max_new_tokens=work.tokens,
        length_penalty=work.length_penalty,
        no_repeat_ngram_size=work.no_repeat_ngram_size,
    )
    return outputs[:, work.source :].tolist()


if __name__ == "__main__":
    run(build, decode, ["torch", "transformers"])
