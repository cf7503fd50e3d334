"""Hugging Face's GPT-2 of the same shape in torch: one full forward per candidate, the head at its pieces only."""

from collections.abc import Callable

import numpy as np
import torch
from choose_work import ChooseWork, run
from transformers import GPT2Config, GPT2LMHeadModel
from work import SOP, VOCABULARY


def build(work: ChooseWork) -> Callable[[], np.ndarray]:
    """The model, and its rows: source, one token, all pieces of a candidate but the last."""
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    size = work.size
    config = GPT2Config(
        n_layer=size.layers, n_embd=size.hidden, n_head=size.heads, vocab_size=VOCABULARY, n_positions=1024
    )
    model = GPT2LMHeadModel(config).eval()
    sources, candidates = work.tables()

    @torch.inference_mode()
    def score() -> np.ndarray:
        found = []
        for source, own in zip(sources, candidates, strict=True):
            ids = torch.tensor([[*source, SOP, *candidate[:-1]] for candidate in own])
            states = model.transformer(ids).last_hidden_state[:, work.source :]
            log_probs = torch.log_softmax(model.lm_head(states), dim=-1)
            found.append(log_probs.gather(2, torch.tensor(own)[:, :, None]).sum((1, 2)).numpy())
        return np.array(found)

    return score


if __name__ == "__main__":
    run(build, ["torch", "transformers"])
