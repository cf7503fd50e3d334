"""The size and shape of an mT5, with PaddleNLP's fields."""

from paddlenlp.transformers import MT5Config

from glm.errors import InputError


class MT5Settings(MT5Config):
    """Configuration of an mT5: fields and defaults are PaddleNLP's.

    Raises:
        InputError: its head is tied to the words, which no mT5's is, or it is to be split over ranks.
    """

    model_type = "mt5"

    def __init__(self, **kwargs):
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)
        self.register_unsavable_keys("tensor_parallel_degree")
        if self.tie_word_embeddings:
            raise InputError("tie_word_embeddings true: an mT5 has a head of its own (T5 1.0 had not)")

    @property
    def banned_ids(self) -> list[int]:
        """Ids that are never generated, beside those that stand for no text: none."""
        return []
