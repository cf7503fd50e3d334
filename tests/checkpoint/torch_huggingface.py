"""What transformers makes of an exported folder: for a Python that has torch and transformers, and not the toolkit.

`torch_huggingface.py FOLDER INPUTS OUTPUTS`: logits of rows with and without padding, the loss, and generated texts.
"""

import sys

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM


def main(folder: str, inputs: str, outputs: str) -> None:
    given = {name: torch.from_numpy(array) for name, array in np.load(inputs).items()}
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()
    assert type(AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)).__name__ == type(model).__name__
    assert AutoConfig.from_pretrained(folder, trust_remote_code=True).num_hidden_layers == model.config.num_layers
    with torch.no_grad():
        found = model(given["ids"], attention_mask=given["there"], labels=given["labels"])
    prompts = {"input_ids": given["prompts"], "attention_mask": given["prompts_there"]}
    greedy = model.generate(**prompts, max_new_tokens=8, do_sample=False)
    beams = model.generate(**prompts, max_new_tokens=8, num_beams=3)
    drawn = model.generate(**prompts, max_new_tokens=8, do_sample=True)
    assert beams.shape[0] == drawn.shape[0] == len(given["prompts"])
    np.savez(outputs, logits=found.logits.numpy(), loss=found.loss.numpy(), greedy=greedy.numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
