"""One GLM example built item by item: ids, 2D positions, who sees whom, labels.

Written from the GLM fact sheet (section 3 and the worked example of section 10), not from the product. S source
(Part A) length, T target (Part B) length, L = S + T. Plain Python lists.
"""

NO_LABEL = -100


def build_example(
    source_ids: list[int],
    spans: list[list[int]],
    *,
    mask_ids: set[int],
    sop: int,
    eop: int,
    pad: int,
    src_length: int,
    tgt_length: int,
    block_position: bool = True,
) -> dict[str, list]:
    """Build the example of one source and the spans that fill its masks.

    Part A is the source padded on the right to S. Part B is, mask by mask from left to right, [sop] + span in the
    input and span + [eop] as labels, one span straight after the other; it is cut to T (the last eop, and maybe
    more, is then lost from input and labels alike) or padded on the right to T.

    Positions, row 0: 0 .. S-1 in Part A (pads count on); in Part B each item repeats its span's mask index; pads go
    on with that of the last span. Row 1: 0 in Part A; 1, 2, 3, ... in Part B, starting again at 1 with each span;
    pads go on counting the last span. With `block_position=False` row 1 is 1 in all of Part B.

    Attention: every row (pads too) sees all of the real Part A. Nobody sees a source pad, itself included. A Part B
    row also sees the Part B columns up to its own, spans before its own included. So the rows of pads are never
    empty; what they compute is seen by nobody but later target pads and has no label, and a test may leave out the
    rows that `is_pad` names. Pads are told by their place, never by their id: the Chinese tokenizer has pad = eos,
    and the source ends in a real eos.

    Args:
        source_ids: the source with its special tokens, without padding.
        spans: token ids, one list for each mask, in the order of the masks, without eop.
        mask_ids: ids that count as a mask.
        sop: id that opens a span in the input.
        eop: id that closes a span in the labels.
        pad: id of padding.
        src_length: S, padding included.
        tgt_length: T, sop of each span and padding included.
        block_position: whether row 1 counts inside a span.

    Returns:
        input_ids [L], position_ids [2][L], attention_mask [L][L] (query, key; 1 = may attend), labels [L] (-100
        outside the spans), is_pad [L] (bool).

    Raises:
        ValueError: if the source does not fit S, has no mask or another number of masks than there are spans, or
            T < 1.
    """
    if len(source_ids) > src_length:
        raise ValueError(f"source of {len(source_ids)} ids does not fit src_length={src_length}")
    if tgt_length < 1:
        raise ValueError(f"tgt_length={tgt_length} is below 1")
    mask_places = [place for place, token in enumerate(source_ids) if token in mask_ids]
    if not mask_places:
        raise ValueError("the source has no mask")
    if len(mask_places) != len(spans):
        raise ValueError(f"{len(mask_places)} masks in the source, {len(spans)} spans")

    # Part A, one entry for each column
    input_ids, row0, row1, labels, is_pad = [], [], [], [], []
    for place in range(src_length):
        real = place < len(source_ids)
        input_ids.append(source_ids[place] if real else pad)
        row0.append(place)
        row1.append(0)
        labels.append(NO_LABEL)
        is_pad.append(not real)

    # Part B as (input, label, row 0, row 1), before cutting and padding
    part_b = []
    for mask_place, span in zip(mask_places, spans, strict=True):
        for number, (token, label) in enumerate(zip([sop] + span, span + [eop], strict=True), start=1):
            part_b.append((token, label, mask_place, number))
    for place in range(tgt_length):
        real = place < len(part_b)
        if real:
            token, label, mask_place, number = part_b[place]
        else:
            token, label, mask_place, number = pad, NO_LABEL, row0[-1], number + 1
        input_ids.append(token)
        labels.append(label)
        row0.append(mask_place)
        row1.append(number if block_position else 1)
        is_pad.append(not real)

    attention_mask = []
    for query in range(src_length + tgt_length):
        columns = []
        for key in range(src_length + tgt_length):
            if key < len(source_ids):
                visible = True
            elif key < src_length:
                visible = False
            else:
                visible = key <= query  # a Part A query is left of every Part B key, so it never sees one
            columns.append(int(visible))
        attention_mask.append(columns)

    return {
        "input_ids": input_ids,
        "position_ids": [row0, row1],
        "attention_mask": attention_mask,
        "labels": labels,
        "is_pad": is_pad,
    }


def dense_mask(segments: list[list[list[int]]], length: int) -> list[list[list[int]]]:
    """Who sees whom in rows of examples one behind the other, told token by token.

    Args:
        segments: of each row, of each example from left to right: tokens of Part A, tokens of Part B.

    Returns:
        [B, length, length] int (query, key; 1 = may attend). Padding, at the end of a row, sees
        padding.
    """
    masks = []
    for row in segments:
        owners = [(number, part) for number, parts in enumerate(row) for part in (0, 1) for _ in range(parts[part])]
        owners += [(len(row), 0)] * (length - len(owners))
        masks.append(
            [
                [
                    int(owners[key][0] == number and (owners[key][1] == 0 or (part == 1 and key <= query)))
                    for key in range(length)
                ]
                for query, (number, part) in enumerate(owners)
            ]
        )
    return masks
