"""Hugging Face transformers: GPT-2 small with random weights writes greedily, 30 tokens behind prompts of 30.

python gpt2.py cached|plain      with keys and values kept, 16 texts at once; or without, one text at a time
"""

import json
import resource
import sys
from time import perf_counter

import torch
from transformers import GPT2Config, GPT2LMHeadModel

BATCHES = {"cached": 16, "plain": 1}
LENGTH = 30  # of prompts, and of what is written


@torch.inference_mode()
def measured(kind: str) -> dict[str, float]:
    """Seconds a record, behind a call that does not count."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(pad_token_id=0)).eval()
    prompts = torch.randint(0, 50000, (BATCHES[kind], LENGTH))
    how = {"do_sample": False, "min_new_tokens": LENGTH, "max_new_tokens": LENGTH, "use_cache": kind == "cached"}

    def write() -> torch.Tensor:
        return model.generate(prompts, attention_mask=torch.ones_like(prompts), **how)

    write()
    start = perf_counter()
    texts = write()
    seconds = (perf_counter() - start) / len(prompts)
    if texts.shape != (len(prompts), 2 * LENGTH):
        raise SystemExit(f"texts of {list(texts.shape)}")
    return {"seconds": seconds, "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1])))
