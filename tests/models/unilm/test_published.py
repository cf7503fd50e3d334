"""A BERT by its hub name: PaddleNLP's own download, from a server on this machine that has a small one."""

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from paddlenlp.transformers import BertTokenizer
from paddlenlp.utils.download import bos_download

from glm.checkpoint.convert import export_checkpoint
from glm.checkpoint.loading import find_family, load_config, load_model
from glm.checkpoint.tokenizers import load_tokenizer
from glm.errors import InputError
from glm.models.unilm import FAMILY
from glm.models.unilm.modeling import UniLMForConditionalGeneration
from glm.models.unilm.weights import PUBLISHED
from tools.unilm_tools import random_model, write_vocabulary

NAME = "bert-wwm-ext-chinese"
SIZES = {"vocab_size": 25, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
SIZES |= {"intermediate_size": 40, "max_position_embeddings": 60}


@pytest.fixture
def served(tmp_path):
    """A folder whose files a server on this machine hands out, and its address."""
    (tmp_path / "files").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "files")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path / "files", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@pytest.mark.parametrize("pooler", [False, True])
def test_what_is_fetched_is_the_model(served, tmp_path, monkeypatch, pooler):
    """Weights and vocabulary of the name, whatever parts beside the encoder the file has."""
    folder, address = served
    model = random_model(pooler=pooler, sentence_order=pooler)
    model.save_pretrained(str(tmp_path / "model"))
    write_vocabulary(tmp_path / "model" / "vocab.txt")
    export_checkpoint(tmp_path / "model", tmp_path / "exported", to="paddlenlp")
    (tmp_path / "exported" / "model_state.pdparams").rename(folder / f"{NAME}.pdparams")
    write_vocabulary(folder / f"{NAME}-vocab.txt")
    monkeypatch.setattr(sys.modules[bos_download.__module__], "MODEL_HOME", str(tmp_path / "home"))
    urls = UniLMForConditionalGeneration.pretrained_resource_files_map["model_state"]
    monkeypatch.setitem(urls, NAME, f"{address}/{NAME}.pdparams")
    words = BertTokenizer.pretrained_resource_files_map["vocab_file"]
    monkeypatch.setitem(words, NAME, f"{address}/{NAME}-vocab.txt")
    configurations = FAMILY.config_class().pretrained_init_configuration
    monkeypatch.setitem(configurations, NAME, {**configurations[NAME], **SIZES})
    assert find_family(NAME) is FAMILY
    tokenizer = load_tokenizer(FAMILY, NAME)
    found = load_model(FAMILY, NAME, load_config(FAMILY, NAME, tokenizer))
    assert tokenizer.vocab_size == 25 and tokenizer.lowercase
    theirs = dict(found.named_parameters())
    assert theirs.keys() == dict(model.named_parameters()).keys()
    for name, weight in model.named_parameters():
        assert np.array_equal(weight.numpy(), theirs[name].numpy()), name


def test_every_name_has_both_files_and_a_configuration():
    """Names as PaddleNLP's own classes have them."""
    assert set(PUBLISHED) <= set(BertTokenizer.pretrained_resource_files_map["vocab_file"])
    assert set(PUBLISHED) <= set(UniLMForConditionalGeneration.pretrained_resource_files_map["model_state"])
    assert set(PUBLISHED) == set(FAMILY.config_class().pretrained_init_configuration)


def test_a_name_that_nobody_has_is_refused():
    with pytest.raises(InputError, match=r"bert-base-klingon.*published names: bert-base-chinese"):
        load_tokenizer(FAMILY, "bert-base-klingon")
