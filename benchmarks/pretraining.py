"""Times what pretraining does to texts: encoding beside SentencePiece alone, its memory, samples beside steps.

python benchmarks/pretraining.py --tokenizer cog-pretrain.model --texts FILE [--measure encode memory sampling]

FILE is JSON lines whose `text` (or `context`) is repeated, a number in each document, so that no two are equal.
`encode` has both sides in turn, medians: SentencePiece gets all texts in one call and takes a thread per core, the
store takes as many processes. Documents are short (40 characters of a text), middle (a text) or long (20 texts).
`memory` is a process for each size, its largest resident set and how much of it is anonymous; `sampling` is processor
seconds of drawing and collating a step's samples, beside the step's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from operator import truediv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
MEMORY = """
import resource, sys, time
from pathlib import Path
from glm.checkpoint.tokenizers import load_tokenizer
from glm.data.corpora import CorpusFiles
from glm.data.corpus_store import CorpusSamples, corpus_digest, open_corpus
from glm.models.glm import FAMILY
import numpy as np
path, cache, tokenizer = sys.argv[1:]
tokenizer = load_tokenizer(FAMILY, tokenizer)
pretraining = FAMILY.pretraining.build(tokenizer)
files = CorpusFiles(path, reserved=FAMILY.reserved)
start = time.perf_counter()
corpus, _ = open_corpus("c", files, tokenizer, pretraining, Path(cache), content=corpus_digest(files))
seconds = time.perf_counter() - start
samples = CorpusSamples("c", corpus, pretraining)
for index in range(2000):
    samples.draw(index, np.random.default_rng(index))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak, anonymous = (int(status[name].split()[0]) / 2**20 for name in ("VmHWM", "RssAnon"))
child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
print(f"{len(corpus):,} documents, {corpus.tokens:,} tokens, {seconds:.0f} s; peak {peak:.2f} GiB, and {child:.2f} "
      f"of the largest process that encodes; at the end {anonymous:.2f} GiB not mapped from files")
"""


SHORT, JOINED = 40, 20  # characters of a short document; texts in a long one
DOCUMENTS = {
    "short": lambda texts: [text[:SHORT] for text in texts],
    "middle": lambda texts: texts,
    "long": lambda texts: ["\n".join(texts[place : place + JOINED]) for place in range(0, len(texts), JOINED)],
}


def main() -> None:
    """Prints one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--texts", required=True, type=Path)
    parser.add_argument("--measure", nargs="+", choices=list(MEASUREMENTS), default=list(MEASUREMENTS))
    parser.add_argument("--megabytes", type=int, nargs="+", default=[250, 1000], help="of `memory`")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shape", choices=("small", "base"), default="base", help="of `sampling`")
    parser.add_argument("--batch_size", type=int, default=4)
    values = parser.parse_args()
    for name in values.measure:
        with tempfile.TemporaryDirectory() as folder:
            MEASUREMENTS[name](values, Path(folder))


def write_texts(source: Path, path: Path, megabytes: float, documents: str = "middle") -> None:
    """Writes so much text, a number in each document, in documents of `DOCUMENTS`."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    texts = [row.get("text", row.get("context", row.get("source", ""))) for row in rows]
    texts = DOCUMENTS[documents](texts)
    size = 0
    with open(path, "w", encoding="utf-8") as file:
        for number, text in enumerate(cycle(texts)):
            line = json.dumps({"text": f"{number} {text}"}, ensure_ascii=False) + "\n"
            file.write(line)
            size += len(line.encode())
            if size >= megabytes * 1e6:
                return


def encode(values: argparse.Namespace, folder: Path) -> None:
    """Tokens a second of the store, from the file to the sealed folder, and of SentencePiece on the same texts."""
    import numpy as np

    from glm.checkpoint.tokenizers import load_tokenizer
    from glm.data.corpora import CorpusFiles
    from glm.data.corpus_store import corpus_digest, open_corpus
    from glm.models.glm import FAMILY

    tokenizer = load_tokenizer(FAMILY, values.tokenizer)
    pretraining = FAMILY.pretraining.build(tokenizer)
    for documents in DOCUMENTS:
        write_texts(values.texts, folder / "texts.jsonl", 10, documents)
        files = CorpusFiles(str(folder / "texts.jsonl"), reserved=FAMILY.reserved)
        texts = [document.text for document in files]
        ours, theirs = [], []
        for repeat in range(values.repeats):
            start = time.perf_counter()
            tokens = sum(map(len, tokenizer.sp_model.encode(texts)))
            theirs.append(tokens / (time.perf_counter() - start))
            start = time.perf_counter()
            digest, cache = corpus_digest(files), folder / f"{documents}-{repeat}"
            corpus, _ = open_corpus("c", files, tokenizer, pretraining, cache, content=digest)
            ours.append(corpus.tokens / (time.perf_counter() - start))
            assert corpus.tokens == tokens and np.array(corpus.unit(0)[0]).size
        ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
        print(
            f"encode, {documents} documents ({tokens / len(texts):.0f} tokens): {statistics.median(ours) / 1e6:.2f} M "
            f"tokens/s, SentencePiece alone {statistics.median(theirs) / 1e6:.2f} M; ratio {ratio:.2f} "
            f"(median of {values.repeats} pairs, {min(map(truediv, ours, theirs)):.2f} at least)",
            flush=True,
        )


def memory(values: argparse.Namespace, folder: Path) -> None:
    """Peak memory of encoding and sampling, by size of the text."""
    for megabytes in values.megabytes:
        write_texts(values.texts, folder / "texts.jsonl", megabytes)
        command = [sys.executable, "-c", MEMORY, str(folder / "texts.jsonl"), str(folder / "cache"), values.tokenizer]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        print(f"memory, {megabytes} MB: {done.stdout.strip()}", flush=True)


def sampling(values: argparse.Namespace, folder: Path) -> None:
    """Processor seconds of a step's samples (drawn twice: once to count labels) and of the step.

    Other programs change them little. With OMP_NUM_THREADS=1 twice the share is a bound for a step on two cores.
    """
    import numpy as np
    import paddle

    from glm.options.pretrain import parse_pretrain_arguments
    from glm.runtime.device import hush, prepare
    from glm.training.pretraining import build_pretraining_trainer

    hush()
    prepare("cpu")
    write_texts(values.texts, folder / "texts.jsonl", 5)
    options = {
        "model_name_or_path": ROOT / f"configs/model/{values.shape}.json",
        "tokenizer_name_or_path": values.tokenizer,
        "train_data": folder / "texts.jsonl",
        "data_cache_dir": folder / "cache",
        "output_dir": folder / "run",
        "per_device_train_batch_size": values.batch_size,
        "device": "cpu",
        "report_to": "none",
    }
    trainer, _ = build_pretraining_trainer(parse_pretrain_arguments([f"--{k}={v}" for k, v in options.items()]))
    trainer.create_optimizer_and_scheduler(100)
    data, steps = [], []
    for step in range(values.repeats + 1):
        trainer.state.global_step = step
        start = time.process_time()
        tokens, _ = trainer._sizes_of(step)
        batch = trainer.data_collator([trainer.train_dataset[index] for index in trainer.sampler.step_examples(step)])
        data.append(time.process_time() - start)
        start = time.process_time()
        trainer.training_step(trainer.model, {name: paddle.to_tensor(table) for name, table in batch.items()})
        trainer.optimizer.step()
        trainer.optimizer.clear_grad(set_to_zero=False)
        steps.append(time.process_time() - start)
    seconds, of_step = np.median(data[1:]), np.median(steps[1:])
    print(
        f"sampling, {values.shape}, batch {values.batch_size} ({tokens} tokens in the last): {1000 * seconds:.1f} ms "
        f"of data, {of_step:.2f} s of the step: {100 * seconds / of_step:.2f} %"
    )


MEASUREMENTS = {"encode": encode, "memory": memory, "sampling": sampling}

if __name__ == "__main__":
    main()
