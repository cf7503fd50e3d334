"""`python -m glm memory`: what it computes for whom, and what it prints."""

import json

import pytest

from glm.commands.memory import CARDS, NEEDED, main, read_model
from glm.errors import InputError, UsageError
from glm.models.glm import FAMILY as GLM
from glm.models.memory import GIB, Decoding, Training, decoding_memory, training_memory
from glm.models.presets import published_presets

LARGE = "THUDM/glm-large-chinese"


def as_json(capsys, *argv: str) -> dict:
    main([*argv, "--format", "json"])
    return json.loads(capsys.readouterr().out)


def test_json(capsys):
    found = as_json(
        capsys, LARGE, *"--fp16 --recompute --per_device_train_batch_size 2 --num_beams 3 --src_length 100".split()
    )
    assert list(found) == [LARGE] and list(found[LARGE]) == ["1", "2", "4", "8"]
    config = published_presets(GLM.published)[LARGE]
    run = Training(2, 100, 160, half=True, recompute=True, tensor_parallel_degree=4)
    assert found[LARGE]["4"]["training"] == training_memory(GLM, config, run)
    decoding = Decoding(16, 100, 160, num_beams=3, tensor_parallel_degree=4)
    assert found[LARGE]["4"]["generation"] == decoding_memory(GLM, config, decoding)


def test_sharding_takes_more_cards(capsys):
    asked = "--bf16 --fp16_opt_level O2 --tensor_parallel_degree 2 --sharding stage2 --sharding_parallel_degree 4"
    found = as_json(capsys, LARGE, *asked.split())[LARGE]
    run = Training(
        *(8, 608, 160),
        half=True,
        opt_level="O2",
        tensor_parallel_degree=2,
        sharding="stage2",
        sharding_parallel_degree=4,
    )
    assert list(found) == ["8"] and found["8"]["training"] == training_memory(
        GLM, published_presets(GLM.published)[LARGE], run
    )


def test_table(capsys):
    main(["glm-10b-chinese", "--fp16", "--recompute", "--per_device_train_batch_size", "2"])
    printed = capsys.readouterr().out
    assert "glm-10b-chinese, training: GiB per card, computed, not measured" in printed
    assert "glm-10b-chinese, generation: GiB per card, computed, not measured" in printed
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    totals = next(row[1:] for row in rows if row[0] == "in all")
    for size in CARDS:
        fits = next(row[1:] for row in rows if row[0] == f"fits into {size} GiB")
        assert fits == ["yes" if float(total) <= size else "no" for total in totals]
    config = published_presets(GLM.published)["THUDM/glm-10b-chinese"]
    whole = sum(training_memory(GLM, config, Training(2, 608, 160, half=True, recompute=True)).values())
    assert totals[0] == f"{whole / GIB:.1f}"


def test_cpu(capsys):
    found = as_json(capsys, "base", "--device", "cpu")
    assert list(found["base"]) == ["1"] and "allocator" in found["base"]["1"]["training"]


def test_a_preset_without_vocabulary(capsys):
    assert read_model("tiny")[1]["vocab_size"] == 50048
    assert capsys.readouterr().err == "tiny: has no vocab_size; 50048 is taken (published Chinese models)\n"


def test_a_checkpoint_folder(tiny_model, tmp_path):
    model = tiny_model()
    model.save_pretrained(str(tmp_path), safe_serialization=True)
    (family, found), config = read_model(str(tmp_path)), model.config
    names = (*NEEDED, *GLM.weights.defaults)
    assert family is GLM and {name: found[name] for name in names} == {name: getattr(config, name) for name in names}


def test_degrees_that_do_not_divide_are_left_out_unless_asked_for(capsys, tmp_path):
    config = {"num_layers": 1, "hidden_size": 96, "num_attention_heads": 6, "max_sequence_length": 1024}
    path = tmp_path / "m.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    assert list(as_json(capsys, str(path))[str(path)]) == ["1", "2"]
    with pytest.raises(InputError, match="tensor_parallel_degree 4: does not divide num_attention_heads 6"):
        main([str(path), "--tensor_parallel_degree", "4"])
    path.write_text(json.dumps({"num_layers": 1, "hidden_size": 96}), encoding="utf-8")
    with pytest.raises(InputError, match="m.json: num_attention_heads, max_sequence_length missing"):
        main([str(path)])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--fp16 --bf16", "--fp16: has no effect beside --bf16"),
        ("--fp16_opt_level O2", "--fp16_opt_level O2: has no effect without --fp16 or --bf16"),
        ("--device cpu --fp16", "--fp16: a CPU does not train in it"),
        ("--device cpu --bf16 --fp16_opt_level O2", "--fp16_opt_level O2: is for a GPU"),
        ("--device cpu --decode_dtype float16", "--decode_dtype float16: a CPU has no such products"),
        ("--sharding stage1", "--sharding and --sharding_parallel_degree: give both"),
        ("--sharding_parallel_degree 2", "--sharding and --sharding_parallel_degree: give both"),
        ("--num_beams 0", "--num_beams 0: 1 or more"),
    ],
)
def test_wrong_usage(argv, message):
    with pytest.raises(UsageError, match=message):
        main([LARGE, *argv.split()])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([LARGE, "--src_length", "1000"], r"src_length 1000 \+ tgt_length 160 = 1160: .* has 1024 positions"),
        (["nowhere"], "nowhere.json: no such file, nor a preset"),
        (["unilm-base"], "unilm-base: there is no forecast of memory for UniLM"),
        (["ganlm-large"], "ganlm-large: there is no forecast of memory for GanLM"),
        (["mt5-large", "--device", "cpu"], "mt5-large: there is no forecast of memory for mT5"),
        (["bert-base-chinese"], "bert-base-chinese: there is no forecast of memory for UniLM"),
    ],
)
def test_what_cannot_be_computed(argv, message):
    with pytest.raises(InputError, match=message):
        main(argv)
