"""A tokenizer with readable ids: the code point of each character; command tokens are below 10."""


class Letters:
    cls_token_id, eos_token_id, pad_token_id, sop_token_id, eop_token_id = 1, 0, 0, 6, 7
    end_token_id, unknown_token_id, vocab_size = 7, 5, 1 << 16
    special_ids = {"[MASK]": 3, "[SEP]": 4, "[sMASK]": 8, "[gMASK]": 9}
    mask_token_ids = (3, 8, 9)
    digest = "letters"

    def encode_text(self, text):
        return list(map(ord, text)) if isinstance(text, str) else list(map(self.encode_text, text))

    def decode_ids(self, ids):
        return "".join(chr(number) for number in ids if number >= 10)

    def token_of(self, number):
        return chr(number) if number >= 10 else f"<{number}>"

    def unknown_parts(self, text):
        return []
