"""mT5 (Xue et al. 2021) on PaddleNLP's class: the multilingual GLM's baseline, with the same commands, data and
scores."""

from glm.models.mt5.geometry import MT5Geometry
from glm.models.mt5.tokenization import MODEL_FILE, open_tokenizer, save_tokenizer
from glm.models.mt5.weights import MT5Weights
from glm.models.protocol import Family


def _config_class() -> type:
    from glm.models.mt5.configuration import MT5Settings

    return MT5Settings


def _model_class() -> type:
    from glm.models.mt5.modeling import MT5

    return MT5


FAMILY = Family(
    name="mt5",
    title="mT5",
    architecture="MT5ForConditionalGeneration",
    tokenizer_files=(MODEL_FILE,),
    weights=MT5Weights(),
    open_tokenizer=open_tokenizer,
    save_tokenizer=save_tokenizer,
    geometry=MT5Geometry,
    config_class=_config_class,
    model_class=_model_class,
    own_search=True,
    presets=("mt5-large",),
)
