"""The multilingual GLM's pretraining objectives: GLM's, in its own geometry."""

from dataclasses import replace

from glm.models.glm.objectives import OBJECTIVES as OF_GLM
from glm.models.glm.objectives import BlankPretraining
from glm.models.mglm.geometry import MGLMGeometry


class MGLMPretraining(BlankPretraining):
    """As `BlankPretraining`."""

    geometry_class = MGLMGeometry


OBJECTIVES = replace(OF_GLM, build=MGLMPretraining)
