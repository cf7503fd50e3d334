"""A family that is no transformer: a GRU over characters, which writes its text behind the source. No positions."""

import hashlib
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import nn

from glm.models.configuration import ModelConfig
from glm.models.protocol import IGNORE_INDEX, Family, Geometry, Tokenizer, TokenTable, WeightNames, pad_rows
from glm.modules.head import TiedHead
from glm.modules.pretrained import SafePretrainedModel

FILE = "characters.txt"
PAD, END, BEGIN, UNKNOWN = range(4)


class Characters(Tokenizer):
    special_ids = {"<pad>": PAD, "<end>": END, "<begin>": BEGIN, "<unknown>": UNKNOWN}
    pad_token_id, end_token_id, unknown_token_id = PAD, END, UNKNOWN

    def __init__(self, characters):
        self.tokens, self.characters = [*self.special_ids, *characters], characters
        self.vocab_size, self.digest = len(self.tokens), hashlib.sha256(characters.encode()).hexdigest()

    def encode_text(self, text):
        if not isinstance(text, str):
            return [self.encode_text(one) for one in text]
        return [4 + self.characters.find(one) if one in self.characters else UNKNOWN for one in text]

    def decode_ids(self, ids):
        return "".join(self.tokens[number] for number in ids if 4 <= number < self.vocab_size)

    def token_of(self, number):
        return self.tokens[number]


@dataclass(frozen=True)
class Line:
    """`source <begin> target`: an example, or a prompt that ends where the text goes on; labels begin at `start`."""

    ids: np.ndarray
    start: int
    given: int = 0

    def __len__(self):
        return len(self.ids)

    @property
    def labels(self):
        return np.where(np.arange(len(self)) < self.start, IGNORE_INDEX, np.append(self.ids[1:], END))

    @property
    def num_labels(self):
        return len(self) - self.start


class Behind(Geometry):
    special_tokens = 1

    def __init__(self, tokenizer, options):
        """It needs neither."""

    def lay_out(self, before, after):
        return [*before, *after, BEGIN]

    def example(self, source_ids, span, *, tgt_length, random=None):
        return Line(np.array([*source_ids, *span[: tgt_length - 1]]), len(source_ids) - 1)

    def prompt(self, source_ids, *, opening=(), filled=()):
        return Line(np.array([*source_ids, *opening]), len(source_ids) - 1, given=len(opening))

    def sizes(self, sources, spans, *, tgt_length):
        labels = np.minimum(spans + 1, tgt_length)
        return sources + labels - 1, labels

    def collate(self, rows, width, pad):
        labels = pad_rows([line.labels for (line,) in rows], width, IGNORE_INDEX)
        return {"input_ids": pad_rows([line.ids for (line,) in rows], width, pad), "labels": labels}

    def token_table(self, example, prompt):
        L, training = len(example or prompt), example and np.stack([example.ids, example.labels])
        return TokenTable(prompt.start + 1, training, prompt.ids[None], (), np.tri(L, dtype=bool))


class Names(WeightNames):
    words, required = "words.weight", ("words.weight", "cell.weight_hh")
    fields, sizes = {"vocab_size": int, "hidden_size": int}, ("vocab_size", "hidden_size")

    def shapes(self, config):
        V, H = config["vocab_size"], config["hidden_size"]
        shapes = {"words.weight": (V, H), "cell.weight_ih": (3 * H, H), "cell.weight_hh": (3 * H, H)}
        return shapes | {"cell.bias_ih": (3 * H,), "cell.bias_hh": (3 * H,)}

    def sizes_of(self, shapes):
        return dict(zip(self.sizes, shapes.get("words.weight", (0, 0)), strict=True))


class GRUConfig(ModelConfig):
    model_type, banned_ids = "gru", ()

    def __init__(self, vocab_size=8, hidden_size=16, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size


class States:
    """The cache: a state [H] of each row of each example, [B, R, H]."""

    def __init__(self, states):
        self.states = states

    def reorder(self, beam_idx):
        self.states = np.take_along_axis(self.states, beam_idx[:, :, None], axis=1)

    def keep(self, examples):
        self.states = self.states[examples]

    def replace(self, places, other):
        self.states[places] = other.states

    def append(self, other):
        self.states = np.concatenate([self.states, other.states])


class GRUModel(SafePretrainedModel):
    config_class, base_model_prefix, stacks = GRUConfig, "gru", ()

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.cell = nn.GRUCell(config.hidden_size, config.hidden_size)
        self.head = TiedHead(self.words, None)

    def read(self, ids, state):
        states = []
        for words in self.words(ids).unbind(1):  # [B, H] each
            states.append(state := self.cell(words, state)[1])
        return paddle.stack(states, axis=1)  # [B, L, H]

    def forward(self, input_ids, labels, label_smoothing=0.0, num_items=None):
        states = self.read(input_ids, paddle.zeros([len(input_ids), self.config.hidden_size])).flatten(0, 1)
        labelled = (labels.flatten() != IGNORE_INDEX).nonzero().flatten()
        states, chosen = states.gather(labelled), labels.flatten().gather(labelled)
        return self.head.loss(states, chosen, label_smoothing=label_smoothing, num_items=num_items)

    @paddle.no_grad()
    def prefill(self, prompts):
        start = paddle.zeros([1, self.config.hidden_size])
        states = paddle.stack([self.read(paddle.to_tensor(line.ids[None]), start)[:, -1] for line in prompts])
        return self.head.logits(states[:, 0]).numpy(), States(states.numpy())

    @paddle.no_grad()
    def step(self, tokens, numbers, cache):
        states = self.read(paddle.to_tensor(tokens.reshape(-1, 1)), paddle.to_tensor(cache.states).flatten(0, 1))[:, 0]
        cache.states = states.numpy().reshape(*tokens.shape, -1)
        return self.head.logits(states).numpy().reshape(*tokens.shape, -1)


FAMILY = Family(
    name="gru",
    title="GRU",
    architecture="GRUModel",
    tokenizer_files=(FILE,),
    weights=Names(),
    open_tokenizer=lambda path: Characters((path / FILE if path.is_dir() else path).read_text(encoding="utf-8")),
    save_tokenizer=lambda tokenizer, folder: (folder / FILE).write_text(tokenizer.characters, encoding="utf-8"),
    geometry=Behind,
    config_class=lambda: GRUConfig,
    model_class=lambda: GRUModel,
    vocabulary_multiple=1,
)
