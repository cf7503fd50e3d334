"""Who may import whom: a table with a row for each folder of glm/, read from the source of every file.

What must not load Paddle, or PaddleNLP's Trainer, is found out by loading it.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from glm.models import registry

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("finetune_generation", "predict")
ROOT_FILES = {"glm", "glm.__main__", "glm.errors"}  # all that lies in glm/ itself; `errors` is open to everybody

# Folder -> the folders it may import, and the packages it may import beside the standard library and NumPy.
MAY_IMPORT = {
    "runtime": ("", "paddle psutil pydantic rich tqdm"),
    "parallel": ("", "paddle"),
    "cpu": ("runtime", "llvmlite numba paddle threadpoolctl"),
    "modules": ("cpu parallel", "paddle safetensors"),
    "models": ("modules cpu parallel runtime", "paddle paddlenlp sentencepiece tokenizers"),
    "adapters": ("models modules runtime", "paddle paddlenlp pydantic safetensors"),
    "data": ("models runtime", "datasets paddlenlp pyarrow tqdm"),
    "generation": ("models", ""),
    "evaluation": ("data runtime", "jieba nltk pycocoevalcap rich rouge sacrebleu scipy text_unidecode tqdm"),
    "options": ("data generation parallel runtime", "paddle paddlenlp pydantic yaml"),
    "checkpoint": ("adapters models modules parallel runtime options", "paddle paddlenlp psutil safetensors tqdm"),
    "doctor": ("generation models modules parallel report runtime", "paddle psutil"),
    "report": ("evaluation runtime", "PIL huggingface_hub jinja2 markupsafe rapidfuzz"),
    "prediction": ("checkpoint models modules data generation evaluation options runtime", "paddle tqdm"),
    "serving": (
        "prediction options data generation models modules runtime",
        "fastapi h11 prometheus_client pydantic starlette uvicorn",
    ),
    "commands": (
        "runtime parallel cpu modules models adapters data generation evaluation options checkpoint report prediction "
        "doctor",
        "matplotlib rich tqdm",
    ),
    "training": (
        "runtime parallel cpu modules models adapters data generation evaluation options checkpoint report prediction",
        "paddle paddlenlp psutil pydantic safetensors swanlab tensorboardX tqdm wandb",
    ),
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# Programs that go into exports, for other libraries to run, are no part of the package.
SOURCES = {name_of(path): path for path in sorted((ROOT / "glm").rglob("*.py")) if path.parent.name != "exported"}


def imports_of(path: Path) -> set[str]:
    """Full names of imported modules, also those inside functions; `from glm import x` counts as the module glm.x."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in SOURCES else node.module for name in inner}
    return found


IMPORTS = {module: imports_of(path) for module, path in SOURCES.items()}


def own(module: str) -> set[str]:
    """Our modules that a module imports."""
    return {name for name in IMPORTS[module] if name.split(".")[0] == "glm"}


def folder_of(module: str) -> str:
    """`data` of `glm.data.examples`; empty for a file of glm/ itself."""
    parts = module.split(".")
    return parts[1] if module not in ROOT_FILES else ""


def family_of(module: str) -> str | None:
    """`mglm` of `glm.models.mglm.configuration`; None of what is no family's."""
    parts = module.split(".")
    is_in_family = parts[:2] == ["glm", "models"] and (ROOT / "glm" / "models" / (parts + [""])[2]).is_dir()
    return parts[2] if is_in_family and len(parts) > 2 else None


def reachable(modules: set[str]) -> set[str]:
    """Our modules that are loaded with these."""
    found, waiting = set(), set(modules)
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= own(module) - found
    return found


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded behind some code."""
    code += "\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("\n"))


def test_every_folder_has_a_row_and_the_root_holds_nothing_else():
    assert {folder_of(module) for module in SOURCES} == {*MAY_IMPORT, ""}
    assert {module for module in SOURCES if not folder_of(module)} == ROOT_FILES


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_what_its_row_says(folder):
    allowed, packages = ({*names.split()} for names in MAY_IMPORT[folder])
    for module in (module for module in SOURCES if folder_of(module) == folder):
        of_ours = own(module) - {"glm.errors"}
        wrong = {name for name in of_ours if name not in SOURCES or folder_of(name) not in allowed | {folder}}
        assert wrong == set(), module
        others = {name.split(".")[0] for name in IMPORTS[module]} - {"glm", "numpy", *sys.stdlib_module_names}
        assert others <= packages, module


def test_a_family_imports_no_other_and_nobody_imports_one():
    """But through the registry; multilingual GLM is made of GLM."""
    for module in SOURCES:
        families = {family_of(name) for name in own(module)} - {None}
        allowed = {family_of(module)} | ({"glm"} if family_of(module) == "mglm" else set())
        assert families <= allowed, module


def test_no_import_runs_in_a_circle():
    for module in SOURCES:
        assert module not in reachable(own(module)), module


def test_nobody_imports_a_script():
    for module, names in IMPORTS.items():
        assert not {name.split(".")[0] for name in names} & {*SCRIPTS}, module
    for script in SCRIPTS:
        assert not {name.split(".")[0] for name in imports_of(ROOT / f"{script}.py")} & {*SCRIPTS}


def test_prediction_never_loads_training():
    loaded = reachable({name for name in imports_of(ROOT / "predict.py") if name.startswith("glm")})
    assert "glm.prediction.writer" in loaded and "glm.generation.search" in loaded
    assert {module for module in loaded if folder_of(module) in ("training", "commands")} == set()
    assert not [name for module in loaded for name in IMPORTS[module] if name.startswith("paddlenlp.trainer")]


# What is done without PaddleNLP, and what it loads.
WITHOUT_PADDLENLP = {
    "prediction": "predict glm.prediction.kinds glm.prediction.setup glm.prediction.scoring glm.prediction.loaded",
    "filling": "glm.prediction.filling",
    "serving": "glm.serving.server",
    "checkpoints": "glm.checkpoint.convert glm.adapters.files glm.commands.merge",
    "families": "glm.models.glm.modeling glm.models.mglm.modeling glm.models.unilm.modeling glm.models.ganlm.modeling",
}
# The files that may name it; all but mT5's do so inside a function, for what is published or trained.
MAY_NAME_PADDLENLP = {
    "glm.adapters.files",
    "glm.checkpoint.published",
    "glm.data.published",
    "glm.models.configuration",
    "glm.models.glm.paddlenlp_tokenizer",
    "glm.models.mt5.configuration",
    "glm.models.mt5.modeling",
    "glm.models.unilm",
    "glm.options.finetune",
}


@pytest.mark.parametrize("work", WITHOUT_PADDLENLP)
def test_what_trains_nothing_loads_no_paddlenlp(work):
    names = WITHOUT_PADDLENLP[work].split()
    loaded = loaded_by(f"import {', '.join(names)}")
    assert set(names) <= loaded
    assert [name for name in loaded if name.partition(".")[0] in ("paddlenlp", "datasets", "pandas", "sklearn")] == []


def test_only_these_files_name_paddlenlp():
    named = {module for module, names in IMPORTS.items() if any(name.startswith("paddlenlp") for name in names)}
    assert {module for module in named if folder_of(module) != "training"} == MAY_NAME_PADDLENLP


@pytest.mark.parametrize("verb", ["check", "show", "score", "compare", "memory", "checkpoint"])
def test_a_verb_that_needs_no_paddle_loads_none(verb):
    loaded = loaded_by(f"import glm.commands.{verb}")
    assert f"glm.commands.{verb}" in loaded
    assert loaded & {"paddle", "paddlenlp"} == set()


def test_decoding_never_sees_text_nor_a_model():
    """Ids in, ids out: generation knows no tokenizer, record or template, and loads no Paddle."""
    names = sorted(module for module in SOURCES if folder_of(module) == "generation")
    loaded = loaded_by(f"import {', '.join(names)}")
    assert "glm.generation.search" in loaded
    assert {name for name in loaded if name in SOURCES and folder_of(name) in ("data", "modules", "cpu")} == set()
    assert loaded & {"paddle", "paddlenlp", "sentencepiece"} == set()


def test_names_of_the_package_load_nothing_heavy():
    loaded = loaded_by(
        "import glm, glm.runtime.entry, glm.errors, glm.models.registry, glm.generation.config, glm.data.records\n"
        "import glm.data.templates, glm.data.truncation, glm.evaluation.metrics, glm.evaluation.table\n"
        "import glm.report.rows, glm.report.curves, glm.report.provenance\n"
        "glm.models.registry.families()"
    )
    assert "glm.models.glm.geometry" in loaded
    assert loaded & {"paddle", "paddlenlp", "jieba", "matplotlib"} == set()


def test_a_page_loads_no_library_of_plots_and_no_schemas():
    """They took longer to import than a report takes to be written."""
    loaded = loaded_by("import glm.report.page, glm.evaluation.task_file")
    assert "glm.report.plots" in loaded
    assert loaded & {"paddle", "matplotlib", "pydantic", "jieba"} == set()


def test_options_of_prediction_load_no_paddle():
    loaded = loaded_by("import predict, glm.options.predict, glm.runtime.device")
    assert loaded & {"paddle", "paddlenlp", "numba", "matplotlib"} == set()


def test_public_names():
    import glm

    assert glm.__all__ == [
        "__version__",
        "GLMConfig",
        "GLMForConditionalGeneration",
        "GLMModel",
        "GLMTokenizer",
        "GenerationConfig",
        "generate",
        "load",
    ]
    for name in glm.__all__[1:]:
        value = getattr(glm, name)
        assert value.__name__ == name and value.__module__.startswith("glm.")
    with pytest.raises(AttributeError, match="module 'glm' has no attribute 'Generate'"):
        _ = glm.Generate


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_import_glm_before_paddle(script):
    """`glm.runtime.environment` has to note what it can note only before Paddle's import."""
    tree = ast.parse((ROOT / f"{script}.py").read_text(encoding="utf-8"))
    imported = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert not [module for module in imported if module.split(".")[0] in ("paddle", "paddlenlp")]
    assert any(module.startswith("glm.") for module in imported)


# Of GLM: its classes, command tokens, names of weights, sizes and files.
NAMES_OF_GLM = re.compile(
    r"GLM(Config|Model|Tokenizer|SentencePieceTokenizer|Geometry|Transformer|ForConditionalGeneration)\b|BlankInfilling|"
    r"startofpiece|endofpiece|endoftext|\[s?MASK\]|\[gMASK\]|\[CLS\]|sop_token|eop_token|"
    r"query_key_value|dense_h_to_4h|dense_4h_to_h|(?<!tie_)word_embeddings|position_embeddings|layernorm\.|"
    r"input_layernorm|post_attention_layernorm|final_layernorm|\b50048\b|\b50009\b|cog-pretrain"
)
# Text frames of tasks mark the place of the target; an option says what one family's objective does.
MAY_MARK_BLANKS = {"glm.data.templates", "glm.data.tasks", "glm.options.data", "glm.options.finetune"}


@pytest.mark.parametrize("module", [module for module in SOURCES if family_of(module) is None and module != "glm"])
def test_no_file_but_glms_own_names_what_is_glms(module):
    source = SOURCES[module].read_text(encoding="utf-8")
    found = {match[0] for match in NAMES_OF_GLM.finditer(source)}
    assert found <= ({"[MASK]", "[gMASK]"} if module in MAY_MARK_BLANKS else set())


def test_every_family_has_the_same_files():
    """MGLM's others are GLM's; what only one family has is a file more."""
    files = {"__init__", "configuration", "tokenization", "geometry", "modeling", "weights"}
    folders = [folder for folder in (ROOT / "glm" / "models").iterdir() if (folder / "__init__.py").is_file()]
    assert {folder.name for folder in folders} == {*registry.FAMILIES}
    for folder in folders:
        found = {path.stem for path in folder.glob("*.py")}
        assert files - found <= ({"geometry", "modeling", "weights"} if folder.name == "mglm" else set()), folder.name
