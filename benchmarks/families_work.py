"""What each family decodes in `families.py`: blocks of one size, so that their steps can be compared.

NumPy only, as `work.py`.
"""

from dataclasses import dataclass, replace

BEAMS = 5


@dataclass(frozen=True)
class Sizes:
    """What a step of a family computes.

    Args:
        what: its blocks, in words.
        block: weights that a block multiplies in a step, in squares of the hidden size.
        vocabulary: rows of the head.
        heads: of attention.
        tokens: that a beam gives to the blocks in a step.
        layers: of blocks that step, if not as many as of all families.
    """

    what: str
    block: float = 12
    vocabulary: int = 50048
    heads: int = 12
    tokens: int = 1
    hidden: int = 768
    layers: int = 12


FAMILIES = {
    "glm": Sizes("pre-LN, heads of 64"),
    "glm-32": Sizes("pre-LN, heads of 32", heads=24),
    "glm-96": Sizes("pre-LN, heads of 96", heads=8),
    "glm-128": Sizes("pre-LN, heads of 128", heads=6),
    "mglm": Sizes("pre-LN, heads of 96, 250,112 pieces", vocabulary=250112, heads=8),
    "vlm": Sizes("pre-LN, an adapter of 300 behind each block", block=12 + 600 / 768, vocabulary=50287),
    "unilm": Sizes("post-LN, a token and a [MASK]", vocabulary=21128, tokens=2),
    "ganlm": Sizes("post-LN with attention to the source", block=14),
}


@dataclass(frozen=True)
class FamilyWork:
    """A measurement: random weights, random sources.

    Args:
        shape: a key of FAMILIES.
    """

    shape: str
    layers: int = 12
    batch: int = 2
    source: int = 400
    tokens: int = 40
    threads: int = 2

    @property
    def sizes(self) -> Sizes:
        """The family's, with the layers of this work."""
        return replace(FAMILIES[self.shape], layers=self.layers)
