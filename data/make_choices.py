"""Makes the multiple-choice data in `data/choices` of the bundled questions: which question belongs to an answer?

    python data/make_choices.py [FOLDER]

Each record shows an answer and its passage; one of its choices is the question of that record. The others are another
question about the same passage, one that ends alike about another passage, and any. Dev records have four choices;
training records two, for a loss that looks at the right one only.
"""

import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
CHOICES = {"train": 2, "dev": 4}
ENDING = 4  # last characters that questions which end alike share
SEED = 11

Record = dict[str, str]


def records_with_choices(records: Sequence[Record], choices: int, seed: int) -> Iterator[dict]:
    """Each record as `inputs`, `choices` and `label`, the number of the right one."""
    drawn = random.Random(seed)
    of_passage, of_ending = defaultdict(list), defaultdict(list)
    for record in records:
        of_passage[record["context"]].append(record)
        of_ending[record["question"][-ENDING:]].append(record)
    for record in records:
        right, passage = record["question"], record["context"]
        others = [
            {other["question"] for other in of_passage[passage]},
            {other["question"] for other in of_ending[right[-ENDING:]] if other["context"] != passage},
        ]
        found = [right]
        for pool in others:
            if left := sorted(pool - set(found)):
                found.append(drawn.choice(left))
        while len(found) < choices:
            question = drawn.choice(records)["question"]
            if question not in found:
                found.append(question)
        found = found[:choices]
        drawn.shuffle(found)
        inputs = f"答案：{record['answer']}，上下文：{passage}问题：[MASK]"
        yield {"id": record["id"], "inputs": inputs, "choices": found, "label": found.index(right)}


def main(argv: Sequence[str]) -> None:
    """Writes `train.json` and `dev.json`."""
    folder = Path(argv[0]) if argv else HERE / "choices"
    folder.mkdir(parents=True, exist_ok=True)
    for split, choices in CHOICES.items():
        lines = (HERE / f"{split}.json").read_text(encoding="utf-8").splitlines()
        found = records_with_choices([json.loads(line) for line in lines], choices, SEED)
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in found)
        (folder / f"{split}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
