"""What transformers makes of an exported folder: for a Python that has torch and transformers, and not the toolkit.

`torch_huggingface.py FOLDER INPUTS OUTPUTS`: logits of rows with and without padding, the loss, generated texts, and
what the tokenizer makes of `texts.json` beside the inputs.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer


def main(folder: str, inputs: str, outputs: str) -> None:
    given = {name: torch.from_numpy(array) for name, array in np.load(inputs).items()}
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()
    assert type(AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)).__name__ == type(model).__name__
    assert AutoConfig.from_pretrained(folder, trust_remote_code=True).num_hidden_layers == model.config.num_layers
    with torch.no_grad():
        found = model(given["ids"], attention_mask=given["there"], labels=given["labels"])
    prompts = {"input_ids": given["prompts"], "attention_mask": given["prompts_there"]}
    widths = []
    model.word_embeddings.register_forward_hook(lambda module, inputs, output: widths.append(inputs[0].shape[1]))
    greedy = model.generate(**prompts, max_new_tokens=8, do_sample=False)
    assert widths[0] == given["prompts"].shape[1] and set(widths[1:]) == {1}, widths  # the rest is in the cache
    assert torch.equal(greedy, model.generate(**prompts, max_new_tokens=8, do_sample=False, use_cache=False))
    assert len(widths) > 8 and widths[-1] > 1
    beams = model.generate(**prompts, max_new_tokens=8, num_beams=3)
    assert torch.equal(beams, model.generate(**prompts, max_new_tokens=8, num_beams=3, use_cache=False))
    drawn = model.generate(**prompts, max_new_tokens=8, do_sample=True)
    assert beams.shape[0] == drawn.shape[0] == len(given["prompts"])
    tokenize(folder, Path(inputs).with_name("texts.json"), model)
    np.savez(outputs, logits=found.logits.numpy(), loss=found.loss.numpy(), greedy=greedy.numpy())


def tokenize(folder: str, file: Path, model) -> None:
    """Writes the ids of each text of a file, and the text of these ids, into it; generates from them, too."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    texts = json.loads(file.read_text(encoding="utf-8"))
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    assert model.generate(**batch, max_new_tokens=4).shape[0] == len(texts)
    ids = [tokenizer(text)["input_ids"] for text in texts]
    assert [row[there.bool()].tolist() for row, there in zip(*batch.values(), strict=True)] == ids
    tokenizer.save_pretrained(file.with_name("again"))
    again = AutoTokenizer.from_pretrained(file.with_name("again"), trust_remote_code=True)
    assert [again(text)["input_ids"] for text in texts] == ids and len(again) == len(tokenizer)
    decoded = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    file.write_text(json.dumps({"ids": ids, "texts": decoded}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
