"""Hugging Face's GPT-2 of the same shape in torch, with the head and the loss on target positions only."""

import torch
from train_work import LEARNING_RATE, MAX_GRAD_NORM, WEIGHT_DECAY, Step, TrainWork, run
from transformers import GPT2Config, GPT2LMHeadModel
from work import VOCABULARY


def build(work: TrainWork) -> Step:
    """The model and its optimizer."""
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    size = work.size
    model = GPT2LMHeadModel(
        GPT2Config(
            n_layer=size.layers,
            n_embd=size.hidden,
            n_head=size.heads,
            vocab_size=VOCABULARY,
            n_positions=1024,
            resid_pdrop=work.dropout,
            embd_pdrop=work.dropout,
            attn_pdrop=work.dropout,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    tables = work.tables()
    ids, labels = torch.from_numpy(tables["input_ids"]), torch.from_numpy(tables["labels"])
    labelled = labels != -100
    wanted = labels[labelled]

    def step(label_smoothing: float) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=work.dtype == "bfloat16"):
            logits = model.lm_head(model.transformer(ids).last_hidden_state[labelled])
            loss = torch.nn.functional.cross_entropy(logits, wanted, label_smoothing=label_smoothing)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return step


if __name__ == "__main__":
    run(build, ["torch", "transformers"])
