"""Makes the cloze data in `data/cloze` of the bundled questions: what kind of thing is the answer?

    python data/make_cloze.py [FOLDER]

Each record is an answer with its passage; its label says what is asked for, by the question word of its question,
which is not among the fields.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
# Label: the question words that ask for it; the first that is found decides.
QUESTION_WORDS = {
    "时间": "哪一年|哪一天|什么时候",
    "人物": "谁",
    "地点": "哪里|哪个省|哪个自治区|哪座城市|哪个国家|哪个大洲|哪个洲",
    "数量": "多少|几",
    "事物": "",
}


def label_of(question: str) -> str:
    """What a question asks for."""
    return next(label for label, words in QUESTION_WORDS.items() if re.search(words, question))


def main(argv: Sequence[str]) -> None:
    """Writes `train.json` and `dev.json`."""
    folder = Path(argv[0]) if argv else HERE / "cloze"
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev"):
        records = map(json.loads, (HERE / f"{split}.json").read_text(encoding="utf-8").splitlines())
        rows = [
            {name: record[name] for name in ("id", "context", "answer")} | {"label": label_of(record["question"])}
            for record in records
        ]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
