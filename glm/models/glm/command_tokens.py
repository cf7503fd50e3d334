"""GLM's command tokens: their texts, and their ids counted from the number of SentencePiece pieces."""

# THUDM/GLM, data_utils/tokenization.py, ChineseSPTokenizer with fix_command_token; offset 5 is a hole there.
# cog-pretrain.model's 50,000 pieces give 50000 for <|endoftext|> to 50009 for [gMASK].
COMMAND_TOKENS = {
    "<|endoftext|>": 0,
    "[SEP]": 1,
    "[CLS]": 2,
    "[MASK]": 3,
    "[UNK]": 4,
    "<|startofpiece|>": 6,
    "<|endofpiece|>": 7,
    "[sMASK]": 8,
    "[gMASK]": 9,
}
COMMAND_ROWS = 10
