"""Training objectives: texts, or choosing the right candidate. The trainer gets batches and losses from here."""

from collections.abc import Mapping, Sequence
from typing import Any

import paddle
from paddle import Tensor, nn

from glm.data.collator import Collator, SampleCollator
from glm.data.frames import Encoder
from glm.data.pairs import PairCollator, PairEncoder, pair_example
from glm.data.records import Record
from glm.data.task_examples import ChoiceCollator, choice_example
from glm.data.tasks import CHOOSE, EXTRACT, PRETRAIN
from glm.models.protocol import IGNORE_INDEX, Sample
from glm.modules.tensors import as_tensor
from glm.options.finetune import FinetuneTrainingArguments
from glm.training.choice_loss import HIDDEN, candidate_scores, choice_losses

OF_CHOICES = ("choice_ids", "choice_rows", "right")  # entries of a batch beside what the model reads


class TextObjective:
    """Learns texts: cross entropy of each token of a target.

    Args:
        encoder: encoder of texts, or of questions about passages, whose windows are learnt.
    """

    def __init__(self, encoder: Encoder, args: FinetuneTrainingArguments):
        self.encoder = encoder
        self.label_smoothing = args.label_smoothing
        self.collator = Collator(
            encoder.geometry,
            pad_token_id=encoder.tokenizer.pad_token_id,
            multiple=args.pad_to_multiple_of,
            row_tokens=encoder.src_length + encoder.tgt_length if args.packing else None,
        )

    def loss(self, model: nn.Layer, inputs: Mapping[str, Tensor], num_items: int | None) -> Tensor:
        """Computes the loss of a batch, summed over labels and divided by `num_items` (the number of labels if
        None)."""
        return model(**inputs, label_smoothing=self.label_smoothing, num_items=num_items)

    def dev_examples(self, records: Sequence[Record]) -> list[Any]:
        """Returns the examples that the dev loss is a mean over."""
        if self.encoder.kind == EXTRACT:
            encoded = self.encoder.encode(records)
            return [self.encoder.example_of(*pair) for question in encoded for pair in self.encoder.examples(question)]
        return [self.encoder.example(record) for record in records]

    def dev_loss(self, model: nn.Layer, inputs: Mapping[str, Tensor]) -> tuple[float, int]:
        """Returns the summed loss of a batch without label smoothing, and the number of labels."""
        count = int((inputs["labels"] != IGNORE_INDEX).sum())
        return count * float(model(**inputs)), count


class ChoiceObjective:
    """Learns which candidate is right, see `glm.training.choice_loss`."""

    def __init__(self, encoder: Encoder, args: FinetuneTrainingArguments, *, length_penalty: float = 0.0):
        self.encoder = encoder
        self.loss_func = args.loss_func
        self.length_penalty = length_penalty
        self.collator = ChoiceCollator(
            encoder.geometry,
            pad_token_id=encoder.tokenizer.pad_token_id,
            multiple=args.pad_to_multiple_of,
            only_right=args.loss_func == "generative",
        )

    def loss(self, model: nn.Layer, inputs: Mapping[str, Tensor], num_items: int | None) -> Tensor:
        """Computes the loss of a batch, summed over questions and divided by `num_items` (the number of questions if
        None)."""
        read = {name: tensor for name, tensor in inputs.items() if name not in OF_CHOICES}
        ids, rows, right = (inputs[name].numpy() for name in OF_CHOICES)
        logits = model.labelled_logits(**read)
        scores = candidate_scores(logits, inputs["labels"].numpy(), ids, rows, self.length_penalty)
        losses = choice_losses(scores, right, self.loss_func)
        return losses.sum() / (len(right) if num_items is None else num_items)

    def dev_examples(self, records: Sequence[Record]) -> list[Any]:
        """Returns the examples that the dev loss is a mean over."""
        found = [encoded for encoded in self.encoder.encode(records) if encoded.record.right]
        return [choice_example(encoded, self.encoder) for encoded in found]

    def dev_loss(self, model: nn.Layer, inputs: Mapping[str, Tensor]) -> tuple[float, int]:
        """Returns the summed loss of a batch, and the number of questions."""
        return float(self.loss(model, inputs, 1)), len(inputs["right"])


class HeadObjective(ChoiceObjective):
    """Learns which label or candidate is right, with the model's classification head."""

    def __init__(self, encoder: PairEncoder, args: FinetuneTrainingArguments):
        self.encoder = encoder
        self.collator = PairCollator(encoder, multiple=args.pad_to_multiple_of)

    def loss(self, model: nn.Layer, inputs: Mapping[str, Tensor], num_items: int | None) -> Tensor:
        """Computes the loss of a batch, summed over questions and divided by `num_items` (the number of questions if
        None)."""
        read = {name: tensor for name, tensor in inputs.items() if name not in OF_CHOICES}
        scores = model.classification_head(model.labelled_states(**read))  # [rows, labels]
        _, rows, right = (inputs[name].numpy() for name in OF_CHOICES)
        if scores.shape[1] == 1:  # a row for each candidate
            own = scores[:, 0].gather(as_tensor(rows.clip(0).flatten())).reshape(rows.shape)
            scores = paddle.where(as_tensor(rows < 0), paddle.full_like(own, HIDDEN), own)
        losses = choice_losses(scores, right, "cross_entropy")
        return losses.sum() / (len(right) if num_items is None else num_items)

    def dev_examples(self, records: Sequence[Record]) -> list[Any]:
        """Returns the examples that the dev loss is a mean over."""
        return [pair_example(encoded, self.encoder) for encoded in self.encoder.encode(records)]


class PretrainingObjective(TextObjective):
    """Learns samples of running text: cross entropy of each predicted token, and the family's further losses.

    Args:
        encoder: brings the samples' geometry, see `glm.training.pretraining.PretrainingFrame`.
    """

    def __init__(self, encoder: Any, args: FinetuneTrainingArguments):
        self.encoder = encoder
        self.label_smoothing = args.label_smoothing
        self.collator = SampleCollator(
            encoder.geometry,
            pad_token_id=encoder.tokenizer.pad_token_id,
            multiple=args.pad_to_multiple_of,
            row_tokens=encoder.pretraining.planned[0] if "packing" in encoder.family.abilities else None,
        )

    def dev_examples(self, records: Sequence[Sample]) -> list[Sample]:
        """Returns the samples that a dev loss is a mean over, which are drawn already."""
        return list(records)


def objective_of(encoder: Encoder, args: FinetuneTrainingArguments, *, length_penalty: float = 0.0) -> Any:
    """Returns the objective of a run with this encoder."""
    if encoder.kind == PRETRAIN:
        return PretrainingObjective(encoder, args)
    if isinstance(encoder, PairEncoder):
        return HeadObjective(encoder, args)
    if encoder.kind == CHOOSE:
        return ChoiceObjective(encoder, args, length_penalty=length_penalty)
    return TextObjective(encoder, args)


@paddle.no_grad()
def mean_dev_loss(objective: Any, model: nn.Layer, records: Sequence[Record], batch_size: int) -> float:
    """Computes the mean loss over dev records: per labelled token, or per question."""
    examples = sorted(objective.dev_examples(records), key=len)
    total, items = 0.0, 0
    for start in range(0, len(examples), batch_size):
        batch = objective.collator(examples[start : start + batch_size])
        loss, count = objective.dev_loss(model, {name: paddle.to_tensor(table) for name, table in batch.items()})
        total, items = total + loss, items + count
    return total / items if items else 0.0
