"""Jobs for the ranks of a split model in tests; see `rank_tools`. Weights come and go as NumPy arrays."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.base import core
from paddle.distributed import fleet
from paddlenlp.trainer import set_seed

import finetune_generation
import predict
from glm.checkpoint.gathering import gather_whole, take_part
from glm.checkpoint.loading import load_model
from glm.checkpoint.tensors import LazyTensor
from glm.cpu import arrays
from glm.models.glm import FAMILY as GLM
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import BlankInfilling
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.modules.split_layers import randomness_of_rank
from glm.parallel.launch import join
from glm.parallel.plan import merge_weight, part_of_weight
from glm.runtime import watchdog
from glm.runtime.device import prepare
from glm.training import pretrain
from tools import faults
from tools.measured_memory import resident, train

Arrays = dict[str, np.ndarray]


def start(degree: int, seed: int = 11) -> None:
    """Joins processes into one job in which all ranks hold parts of one model."""
    paddle.set_device("cpu")
    join(degree, "cpu")
    set_seed(seed)


def rank_of(degree: int) -> int:
    return fleet.get_hybrid_communicate_group().get_model_parallel_rank() if degree > 1 else 0


def new_model(settings: dict[str, Any], degree: int, weights: Arrays | None = None) -> GLMForConditionalGeneration:
    """Makes a model with random weights, or its part of the given ones."""
    rank = rank_of(degree)
    model = GLMForConditionalGeneration(
        GLMConfig(**settings, tensor_parallel_degree=degree, tensor_parallel_rank=rank)
    )
    if weights is not None:
        for name, weight in model.named_parameters():
            weight.set_value(part_of_weight(GLM.weights.plan, name, weights[name], degree=degree, rank=rank))
    return model


def merged(ranks: list[Arrays]) -> Arrays:
    """Merges the ranks' weights, or gradients."""
    return {name: merge_weight(GLM.weights.plan, name, [part[name] for part in ranks]) for name in ranks[0]}


def check_model(degree: int, settings: dict, weights: Arrays, batch: Arrays, prompts: list[list[int]]) -> dict:
    """Returns everything that a model computes, in one process or as one of several ranks."""
    start(degree)
    found: dict[str, Any] = {}
    random = new_model(settings, degree)
    found["random weights"] = {name: weight.numpy() for name, weight in random.named_parameters()}
    found["distributed"] = sorted(name for name, weight in random.named_parameters() if weight.is_distributed)

    model = new_model(settings, degree, weights)
    tensors = {name: paddle.to_tensor(table) for name, table in batch.items()}
    for recompute in (False, True):
        for smoothing in (0.0, 0.1):
            model.train()
            model.glm.transformer.enable_recompute = recompute
            loss = model(**tensors, label_smoothing=smoothing)
            loss.backward()
            gradients = {name: weight.grad.numpy() for name, weight in model.named_parameters()}
            found[f"recompute {recompute}, smoothing {smoothing}"] = (float(loss), gradients)
            model.clear_gradients()

    logits = model(**{name: table for name, table in tensors.items() if name != "labels"})
    found["logits"] = logits.numpy()
    logits.square().mean().backward()
    found["gradients of logits"] = {name: weight.grad.numpy() for name, weight in model.named_parameters()}
    model.clear_gradients()

    model.eval()
    geometry = BlankInfilling(mask_token_ids=(1,), sop_token_id=2, eop_token_id=3)
    prompts = [geometry.prompt(source, opening=[5]) for source in prompts]
    first, cache = model.prefill(prompts)
    cache.reorder(np.zeros([len(prompts), 2], dtype=np.int64))
    tokens = np.array([[7, 8]] * len(prompts))
    found["decoding"] = (first, model.step(tokens, np.zeros(len(prompts), np.int64), cache))
    return found


def check_dropout(degree: int, settings: dict, batch: Arrays) -> dict:
    """Returns what dropout draws where activations are the same on all ranks, and where they are split."""
    start(degree)
    seen: dict[str, list[np.ndarray]] = {}
    model = new_model(settings, degree)
    model.train()
    block = model.glm.transformer.layers[0]
    ones = paddle.ones([50, settings["hidden_size"]])
    seen["replicated"] = [model.glm.transformer.embedding_dropout(ones).numpy(), block.mlp.dropout(ones).numpy()]
    with randomness_of_rank(model.head.group):
        seen["split"] = [block.attention.attention_dropout(ones).numpy()]
    tensors = {name: paddle.to_tensor(table) for name, table in batch.items()}
    for recompute in (False, True):
        set_states(seed=5)
        model.glm.transformer.enable_recompute = recompute
        loss = model(**tensors, label_smoothing=0.1)
        loss.backward()
        seen[f"recompute {recompute}"] = [np.array(float(loss))] + [
            weight.grad.numpy() for weight in model.parameters()
        ]
        model.clear_gradients()
    seen["after"] = [paddle.randint(0, 1 << 30, [4]).numpy()]
    return seen


def set_states(seed: int) -> None:
    """Resets the generator that all ranks share, and each rank's own."""
    paddle.seed(seed)
    tracker = fleet.meta_parallel.get_rng_state_tracker()
    with tracker.rng_state("local_seed"):
        paddle.seed(seed + 1 + paddle.distributed.get_rank())


def run_scripts(*commands: tuple[str, list[str]]) -> None:
    """Runs the scripts, one command after the other, as one rank of a job.

    Args:
        commands: script and arguments; `{rank}` in these is the number of the process.
    """
    scripts = {"finetune": finetune_generation.main, "predict": predict.main, "pretrain": pretrain.main}
    for script, argv in commands:
        rank = paddle.distributed.get_rank()
        assert scripts[script]([argument.replace("{rank}", str(rank)) for argument in argv]) == 0


def run_killed(step: int, *commands: tuple[str, list[str]]) -> None:
    """Runs the scripts as `run_scripts`; every rank is killed at the beginning of a step (counted from 0)."""
    faults.kill_at_step(step)
    run_scripts(*commands)


def lose_a_rank(lost: int, number: int, argv: list[str], log: str) -> None:
    """Runs `finetune_generation.py`; one rank gets a signal at its third step. Logs are as a launcher makes them."""
    rank = paddle.distributed.get_rank()
    os.environ["PADDLE_LOG_DIR"] = log
    os.dup2(os.open(f"{log}/workerlog.{rank}", os.O_WRONLY | os.O_CREAT), 2)
    watchdog.INTERVAL = watchdog.LINGER = 0.3
    if rank == lost:
        faults.signal_at_step(2, number)
    finetune_generation.main(argv)


def measure_loading(degree: int, folder: Path) -> tuple[int, int, int]:
    """Returns the peak bytes of loading a model folder, and the bytes of this rank's part and of the whole."""
    start(degree)
    prepare("cpu")
    config = GLMConfig.from_pretrained(
        str(folder), tensor_parallel_degree=degree, tensor_parallel_rank=rank_of(degree)
    )
    new_model({"num_layers": 1, "num_attention_heads": 4, "hidden_size": 32}, degree)  # loads what is loaded late
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    model = load_model(GLM, str(folder), config)
    peak = resident("VmHWM") - before
    part = sum(weight.size for weight in model.parameters())
    whole = sum(int(np.prod(shape)) for shape in shapes_of(config).values())
    return peak, 4 * part, 4 * whole


def measure_training(degree: int, settings: dict, work: dict) -> int:
    """Returns the peak bytes of Paddle's tensors in training steps, none of which is in NumPy's memory."""
    start(degree)
    prepare("cpu")
    arrays.MIN_OWN_PAGES = sys.maxsize  # of `glm.cpu.arrays.empty`
    train(new_model(settings, degree), **work)
    return core.host_memory_stat_peak_value("Allocated", 0)


def shapes_of(config: GLMConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of whole weights by name."""
    return GLM.weights.shapes(config.to_dict())


def check_gathering(degree: int, whole: Arrays) -> tuple[Arrays, Arrays]:
    """Checks that split tensors are merged again; a third of them exists in one process only, as with sharding."""
    start(degree)
    rank = rank_of(degree)
    lazy = {name: LazyTensor(array.shape, "float32", lambda array=array: array) for name, array in whole.items()}
    parts = {name: part.load() for name, part in take_part(GLM.weights.plan, lazy, degree=degree, rank=rank).items()}
    held = {name: paddle.to_tensor(part) for name, part in parts.items()}
    for place, name in enumerate(sorted(held)):
        if place % 3 == 0 and parts[name].shape == whole[name].shape and rank != degree - 1:
            del held[name]
    gathered = gather_whole(GLM.weights.plan, held, degree=degree, rank=rank)
    return parts, {name: tensor.numpy() for name, tensor in gathered.items()}
