"""`python -m glm scaling`: what to expect of a model's size and its data, by scaling laws.

    python -m glm scaling --layers 2 --hidden 32 --mlp 32 --tokens 216830

Kaplan et al. 2020, "Scaling Laws for Neural Language Models". The laws were fitted to decoders of English text; for
other models they give the order of magnitude. Losses are natural logarithms, per token.
"""

import argparse

from glm.commands.parser import Parser
from glm.errors import UsageError

# Section 1.2 there, with the constants that its tables have for each law.
DATA_FACTOR, DATA_EXPONENT = 5e3, 0.74  # (4.4)
SIZE, DATA, SIZE_EXPONENT, DATA_LOSS_EXPONENT = 6.4e13, 1.8e13, 0.076, 0.103  # (1.5)
STEP_SIZE, STEP_SIZE_EXPONENT, STEPS, STEPS_EXPONENT = 6.5e13, 0.077, 2.1e3, 0.76  # (1.6)
BATCH, BATCH_EXPONENT = 2e8, 0.21  # (1.4)
LOSSES = 1e-3, 1e3  # that any law could be asked for


def network_parameters(*, layers: int, hidden: int, mlp: int, pooler_layers: int = 0) -> int:
    """Returns N: the weights and biases of a BERT's blocks and LayerNorms, without embeddings and heads."""
    block = 4 * hidden**2 + 4 * hidden + 2 * hidden * mlp + mlp + hidden + 4 * hidden
    return layers * block + pooler_layers * (hidden**2 + hidden)


def data_needed(parameters: float) -> float:
    """Returns the number of tokens below which a model of this size overfits."""
    return DATA_FACTOR * parameters**DATA_EXPONENT


def loss_of_data(parameters: float, tokens: float) -> float:
    """Returns the loss of a model trained to convergence on this number of tokens."""
    limit = (SIZE / parameters) ** (SIZE_EXPONENT / DATA_LOSS_EXPONENT)
    return (limit + DATA / tokens) ** DATA_LOSS_EXPONENT


def loss_of_steps(parameters: float, steps: float | None) -> float:
    """Returns the loss after a number of steps with large batches; without steps, its limit."""
    loss = (STEP_SIZE / parameters) ** STEP_SIZE_EXPONENT
    return loss if steps is None else loss + (STEPS / steps) ** STEPS_EXPONENT


def critical_batch(loss: float) -> float:
    """Returns the critical batch size in tokens at a loss: larger batches save few steps."""
    return BATCH / loss ** (1 / BATCH_EXPONENT)


def loss_of_batch(tokens: float) -> float:
    """Returns the loss at which a batch of this size is critical."""
    return (BATCH / tokens) ** BATCH_EXPONENT


def main(argv: list[str]) -> None:
    """Prints the figures for a model, and for its data and steps if they are given."""
    options = _parse(argv)
    lines = _lines(options)
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, value, formula in lines:
        print(f"{name:{width[0]}}  {value:{width[1]}}  {formula}")


def _lines(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """What is expected: a name, a value, and the formula it is of."""
    N = network_parameters(
        layers=options.layers, hidden=options.hidden, mlp=options.mlp, pooler_layers=options.pooler_layers
    )
    pooler = " + POOLER_LAYERS * (H^2 + H)" if options.pooler_layers else ""
    formula = f"N = LAYERS * (4 * H^2 + 4 * H + 2 * H * F + F + H + 4 * H){pooler}"
    lines = [("parameters of the network, without embeddings and heads", f"{N:,}", formula)]
    if options.vocabulary is not None:
        tables = (options.vocabulary + options.positions) * options.hidden
        lines.append(("with tables of words and positions", f"{N + tables:,}", "N + (VOCABULARY + POSITIONS) * H"))
    needed = data_needed(N)
    formula = f"{DATA_FACTOR:g} * N^{DATA_EXPONENT}"
    lines.append(("tokens that it takes not to overfit", f"{needed:,.0f}", formula))
    if options.tokens is not None:
        enough = "enough" if options.tokens >= needed else f"too few: {options.tokens / needed:.2%} of them"
        of_data = f"(({SIZE:g}/N)^({SIZE_EXPONENT}/{DATA_LOSS_EXPONENT}) + {DATA:g}/D)^{DATA_LOSS_EXPONENT}"
        lines += [
            ("tokens given", f"{options.tokens:,}", f"D, {enough}"),
            ("loss, trained on them to the end", f"{loss_of_data(N, options.tokens):.4f}", of_data),
            (
                "loss whose critical batch is all of them",
                f"{loss_of_batch(options.tokens):.4f}",
                f"({BATCH:g}/D)^{BATCH_EXPONENT}",
            ),
        ]
    if options.loss is not None:
        name = f"critical batch at a loss of {options.loss:g}, tokens"
        lines.append((name, f"{critical_batch(options.loss):,.0f}", f"{BATCH:g} / LOSS^(1/{BATCH_EXPONENT})"))
    of_size = f"({STEP_SIZE:g}/N)^{STEP_SIZE_EXPONENT}"
    lines.append(("loss of any number of steps", f"{loss_of_steps(N, None):.4f}", of_size))
    if options.steps is not None:
        formula = f"{of_size} + ({STEPS:g}/S)^{STEPS_EXPONENT}"
        lines.append((f"loss after S = {options.steps:,} steps", f"{loss_of_steps(N, options.steps):.4f}", formula))
    return lines


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m glm scaling", description="What size and data lead one to expect (Kaplan 2020).")
    whole = {"layers": "blocks", "hidden": "H", "mlp": "F, of the MLP; 4 H if not given"}
    for name, text in whole.items():
        parser.add_argument(f"--{name}", type=int, required=name != "mlp", metavar="N", help=text)
    parser.add_argument("--pooler_layers", type=int, default=0, metavar="N", help="of a BERT's pooler")
    parser.add_argument("--vocabulary", type=int, metavar="N", help="words, to count their table too")
    parser.add_argument("--positions", type=int, default=512, metavar="N", help="counted with --vocabulary; 512")
    parser.add_argument("--tokens", type=int, metavar="N", help="of the training data")
    parser.add_argument("--steps", type=int, metavar="N", help="of training")
    parser.add_argument("--loss", type=float, metavar="L", help="for which the critical batch size is computed")
    options = parser.parse_args(argv)
    options.mlp = 4 * options.hidden if options.mlp is None else options.mlp
    for name in ("layers", "hidden", "mlp", "vocabulary", "positions", "tokens", "steps", "loss"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise UsageError(f"{name} {value}: use a number above 0")
    if options.loss is not None and not LOSSES[0] <= options.loss <= LOSSES[1]:
        raise UsageError(f"loss {options.loss}: use a number from {LOSSES[0]:g} to {LOSSES[1]:g}")
    if options.pooler_layers < 0:
        raise UsageError(f"pooler_layers {options.pooler_layers}: use 0 or more")
    return options
