"""Shows one record as the model sees it, and checks that training and prediction lay it out alike."""

from dataclasses import dataclass

from glm.data.examples import ExampleEncoder
from glm.data.records import Record
from glm.models.protocol import TokenTable


@dataclass(frozen=True)
class RecordView:
    """A record as the model sees it: its source, then its target.

    Args:
        tokens: ids, positions and other inputs, labels, and the attention mask.
        lost_source, lost_target: number of tokens that were cut.
    """

    tokens: TokenTable
    lost_source: int
    lost_target: int


def view_record(record: Record, encoder: ExampleEncoder) -> RecordView:
    """Lays out a record.

    Raises:
        RecordError: the record does not fit, see `ExampleEncoder`.
        AssertionError: training and prediction differ, which is a bug of this program.
    """
    (encoded,) = encoder.encode([record])
    source_ids = encoder.lay_out_source(encoded)
    example = None
    if encoded.target is not None:
        example = encoder.example_of(source_ids, encoder.lay_out_span(encoded))
    return RecordView(
        tokens=encoder.geometry.token_table(example, encoder.prompt(source_ids)),
        lost_source=encoder.uncut_length(encoded) - len(source_ids),
        lost_target=max(0, len(encoded.target or ()) - encoder.target_budget),
    )
