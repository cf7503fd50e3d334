"""Estimates before the model is loaded whether a training run fits into the available memory."""

import os
from collections.abc import Callable
from dataclasses import replace

import paddle
import psutil
from paddlenlp.trainer import TrainerCallback
from paddlenlp.utils.log import logger

from glm.data.store import Examples
from glm.models.configuration import ModelConfig
from glm.models.memory import GIB, LIBRARIES, Training, training_memory
from glm.models.protocol import Family
from glm.options.finetune import AdapterArguments, FinetuneArguments
from glm.runtime.device import give_memory_back
from glm.training.parameters import is_frozen


def warn_of_memory(family: Family, config: ModelConfig, arguments: FinetuneArguments, examples: Examples) -> None:
    """Warns if a run may need more memory than there is, for families that can estimate it (`memory_forecast`).

    It is computed for a batch whose examples all have the longest source and the longest target.
    """
    if "memory_forecast" not in family.abilities:
        return
    run = planned_training(arguments, examples)
    if run.prefix_tokens:
        run = replace(run, prefix_weights=_prefix_weights(config, arguments.adapter))
    parts = training_memory(family, config.to_dict(), run, _trains(family, config, arguments))
    needed, available = sum(parts.values()), available_memory(arguments.training.device)
    if needed > available:
        logger.warning(
            f"memory: this run may need {needed / GIB:.1f} GiB, and there are {available / GIB:.1f}; --recompute, a "
            "smaller batch or shorter lengths need less (`python -m glm memory` shows what for)"
        )


class MemoryReturn(TrainerCallback):
    """Returns freed memory to the system around the first optimizer step on a CPU. The optimizer's state is created in
    that step: its tensors do not fit into the gaps left by earlier passes, nor later passes into the gaps it leaves.
    """

    def __init__(self):
        self.has_state = False

    def on_optimizer_begin(self, args, state, control, **kwargs):
        if args.device == "cpu" and not self.has_state:
            give_memory_back()

    def on_optimizer_end(self, args, state, control, **kwargs):
        self.on_optimizer_begin(args, state, control)
        self.has_state = True


def planned_training(arguments: FinetuneArguments, examples: Examples) -> Training:
    """Returns what the memory of a run depends on."""
    options = arguments.training
    target = int(examples.target_lengths.max())
    source = int((examples.lengths - examples.target_lengths).max())
    rows = options.per_device_train_batch_size
    if options.max_tokens is not None:
        rows = max(1, options.max_tokens // (source + target))
    stages = [option.value for option in options.sharding if option.value.startswith("stage")]
    return Training(
        examples=rows,
        source_tokens=source,
        target_tokens=target,
        device="cpu" if options.device == "cpu" else "gpu",
        half=options.fp16 or options.bf16 or options.trains_in_bfloat16,
        opt_level=options.fp16_opt_level,
        recompute=options.recompute,
        recompute_layers=options.recompute_layers,
        tensor_parallel_degree=max(1, options.tensor_parallel_degree),
        sharding=stages[0] if stages else "",
        sharding_parallel_degree=max(1, options.sharding_parallel_degree),
        keeps_gradients=options.gradient_accumulation_steps > 1 or not options.release_grads,
        prefix_tokens=arguments.adapter.num_prefix_tokens if arguments.adapter.prefix_tuning else 0,
    )


def _trains(family: Family, config: ModelConfig, arguments: FinetuneArguments) -> Callable[[str], bool]:
    """Returns a function that says whether a run trains the weight of a name."""
    freeze = arguments.training.freeze
    if arguments.adapter.kind is not None:
        return lambda name: False  # LoRA's own weights are few; a prefix's are counted separately
    return lambda name: freeze is None or not is_frozen(family.weights, name, freeze, num_layers=config.num_layers)


def _prefix_weights(config: ModelConfig, adapter: AdapterArguments) -> int:
    """Counts a prefix's numbers: P x 2 layers H, or with a projection P x H and two linear layers."""
    P, H = adapter.num_prefix_tokens, config.hidden_size
    made = 2 * config.num_layers * H
    return P * H + (H + 1) * H + (H + 1) * made if adapter.prefix_projection else P * made


def available_memory(device: str) -> int:
    """Returns the bytes that a run may use, including those that loaded libraries take already."""
    if device == "cpu":
        here = int(os.environ.get("PADDLE_LOCAL_SIZE", 1))  # processes on this machine, set by the launcher
        return psutil.virtual_memory().available // here + LIBRARIES["cpu"]
    return paddle.device.cuda.get_device_properties().total_memory
