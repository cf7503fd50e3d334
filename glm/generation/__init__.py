"""Decoding: token ids in, token ids out. Nothing here sees text or a tokenizer."""
