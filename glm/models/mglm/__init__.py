"""The multilingual GLM (THUDM/Multilingual-GLM): GLM with a vocabulary of 250,000 pieces."""

from glm.models.glm import OF_GLM
from glm.models.mglm.geometry import MGLMGeometry
from glm.models.mglm.objectives import OBJECTIVES
from glm.models.mglm.tokenization import MODEL_FILE, MGLMTokenizer, open_tokenizer, save_tokenizer
from glm.models.mglm.weights import MGLMWeights
from glm.models.protocol import Family


def _config_class() -> type:
    from glm.models.mglm.configuration import MGLMConfig

    return MGLMConfig


def _model_class() -> type:
    from glm.models.mglm.modeling import MGLMForConditionalGeneration

    return MGLMForConditionalGeneration


FAMILY = Family(
    name="mglm",
    title="multilingual GLM",
    architecture="MGLMForConditionalGeneration",
    tokenizer_files=(MODEL_FILE,),
    weights=MGLMWeights(),
    open_tokenizer=open_tokenizer,
    save_tokenizer=save_tokenizer,
    geometry=MGLMGeometry,
    config_class=_config_class,
    model_class=_model_class,
    abilities=OF_GLM,
    blanks=("[MASK]", "[sMASK]", "[gMASK]"),
    reserved=tuple(MGLMTokenizer.commands),
    presets=("mglm-1b", "mglm-large"),
    pretraining=OBJECTIVES,
)
