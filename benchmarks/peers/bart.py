"""Hugging Face's BART of GanLM's shape: `generate` with beam search and its cache."""

import torch
from ganlm_work import EOS, PAD, SIZES, VOCABULARY, GanLMWork, run
from transformers import BartConfig, BartForConditionalGeneration


def build(work: GanLMWork):
    """The model, and a run over all sources."""
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    H, F, N, encoder, generator, _ = SIZES[work.shape]
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=H,
        encoder_ffn_dim=F,
        decoder_ffn_dim=F,
        encoder_attention_heads=N,
        decoder_attention_heads=N,
        encoder_layers=encoder,
        decoder_layers=generator,
        max_position_embeddings=1024,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=EOS,
        bos_token_id=0,
        forced_eos_token_id=None,
    )
    model = BartForConditionalGeneration(config).eval()
    sources = torch.from_numpy(work.sources())

    @torch.inference_mode()
    def once(tokens: int) -> int:
        outputs = model.generate(
            sources,
            attention_mask=torch.ones_like(sources),
            do_sample=False,
            num_beams=work.beams,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            length_penalty=1.0,
            no_repeat_ngram_size=3,
        )
        return outputs.shape[1]

    return once


if __name__ == "__main__":
    run(build, ["torch", "transformers"])
