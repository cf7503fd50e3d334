"""Who may import whom: the table of levels, read from the source of every file under glm/."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {"finetune_generation", "predict"}

# Level of every module, and the packages beside the standard library and NumPy that its level may import.
LEVELS = {
    0: {
        "glm",
        "glm.command_tokens",
        "glm.environment",
        "glm.errors",
        "glm.memory",
        "glm.blank_infilling",
        "glm.parallel",
        "glm.parallel.plan",
        "glm.presets",
        "glm.predictions_file",
        "glm.run_config",
        "glm.data",
        "glm.data.columns",
        "glm.data.formats",
        "glm.data.options",
        "glm.data.problems",
        "glm.data.records",
        "glm.data.report",
        "glm.data.templates",
        "glm.data.truncation",
        "glm.generation",
        "glm.generation.config",
        "glm.evaluation",
        "glm.evaluation.bleu",
        "glm.evaluation.metrics",
        "glm.evaluation.protocols",
        "glm.evaluation.rouge",
        "glm.evaluation.scored_file",
        "glm.evaluation.segmentation",
        "glm.evaluation.significance",
        "glm.evaluation.statistics",
        "glm.evaluation.table",
        "glm.checkpoint",
        "glm.checkpoint.atomic",
        "glm.checkpoint.configuration",
        "glm.checkpoint.convert",
        "glm.checkpoint.formats",
        "glm.checkpoint.inspection",
        "glm.checkpoint.names",
        "glm.checkpoint.paddle_files",
        "glm.checkpoint.pickled_values",
        "glm.checkpoint.pickles",
        "glm.checkpoint.safetensors_files",
        "glm.checkpoint.tensors",
        "glm.checkpoint.torch_files",
        "glm.checkpoint.whole",
        "glm.host",
        "glm.report",
        "glm.report.copied",
        "glm.report.curves",
        "glm.report.model_card",
        "glm.report.files",
        "glm.report.page",
        "glm.report.plots",
        "glm.report.provenance",
        "glm.report.rows",
        "glm.training",
    },
    1: {"glm.configuration", "glm.pieces", "glm.tokenization"},
    2: {
        "glm.attention",
        "glm.cache",
        "glm.clip",
        "glm.cpu",
        "glm.layers",
        "glm.host.blocks",
        "glm.host.loops",
        "glm.host.products",
        "glm.host.rows",
        "glm.host.step_attention",
        "glm.host.tiles",
        "glm.host.two_part",
        "glm.host.vectors",
        "glm.loss",
        "glm.modeling",
        "glm.parallel.gloo",
        "glm.parallel.launch",
        "glm.parallel.layers",
        "glm.tensors",
    },
    3: {
        "glm.data.check",
        "glm.data.examples",
        "glm.data.collator",
        "glm.data.layout",
        "glm.data.published",
        "glm.data.store",
        "glm.generation.logits_processors",
        "glm.generation.sampling",
        "glm.generation.search",
        "glm.checkpoint.adapters",
        "glm.checkpoint.loading",
        "glm.decoding",
        "glm.device",
        "glm.parallel.gathering",
    },
    4: {
        "glm.arguments",
        "glm.filling",
        "glm.prediction",
        "glm.prediction_input",
        "glm.training.checkpoints",
        "glm.training.fingerprint",
        "glm.training.pages",
        "glm.training.guards",
        "glm.training.capacity",
        "glm.training.optimizer_state",
        "glm.training.parameters",
        "glm.training.progress",
        "glm.training.randomness",
        "glm.training.ranks",
        "glm.training.resumable",
        "glm.training.run_data",
        "glm.training.run_folder",
        "glm.training.sampler",
        "glm.training.schedule",
        "glm.training.setup",
        "glm.training.signals",
        "glm.training.trainer",
        "glm.watchdog",
    },
    5: {
        "glm.entry",
        "glm.commands",
        "glm.commands.check",
        "glm.commands.checkpoint",
        "glm.commands.compare",
        "glm.commands.merge",
        "glm.commands.memory",
        "glm.commands.options",
        "glm.commands.parser",
        "glm.commands.score",
        "glm.commands.show",
        "glm.serving",
        "glm.serving.app",
        "glm.serving.batcher",
        "glm.serving.errors",
        "glm.serving.schemas",
        "glm.serving.server",
        "glm.serving.service",
    },
    6: {"glm.__main__"},
}
PACKAGES = {
    0: {
        *("datasets", "huggingface_hub", "jieba", "jinja2", "matplotlib", "pyarrow", "rich", "rouge", "sacrebleu"),
        *("safetensors", "tqdm"),
    },
    1: {"paddlenlp", "sentencepiece"},
    2: {"llvmlite", "numba", "paddle", "paddlenlp", "threadpoolctl"},
    3: {"paddle", "paddlenlp", "safetensors", "tqdm"},
    4: {"paddle", "paddlenlp", "psutil", "safetensors", "tqdm"},
    5: {"fastapi", "h11", "matplotlib", "pydantic", "rich", "starlette", "tqdm", "uvicorn"},
    6: set(),
}
LEVEL_OF = {module: level for level, modules in LEVELS.items() for module in modules}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path for path in sorted((ROOT / "glm").rglob("*.py"))}


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
    return parts[1] if len(parts) > 2 else ""


def reachable(modules: set[str]) -> set[str]:
    """Our modules that are loaded with these."""
    found, waiting = set(), set(modules)
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= own(module) - found
    return found


def test_every_module_has_a_level():
    assert set(SOURCES) == set(LEVEL_OF)
    assert len(LEVEL_OF) == sum(map(len, LEVELS.values()))


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_go_down(module):
    level = LEVEL_OF[module]
    unknown = own(module) - set(LEVEL_OF)
    assert unknown == set()
    upward = {name for name in own(module) if LEVEL_OF[name] > level}
    assert upward == set()


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_packages_of_a_level(module):
    packages = {name.split(".")[0] for name in IMPORTS[module]}
    others = packages - set(sys.stdlib_module_names) - {"glm", "numpy"}
    assert others <= PACKAGES[LEVEL_OF[module]]


@pytest.mark.parametrize("module", sorted(LEVELS[3]))
def test_parts_do_not_import_each_other_across_folders(module):
    crossing = {
        name for name in own(module) if LEVEL_OF[name] == 3 and name != module and folder_of(name) != folder_of(module)
    }
    assert crossing == set()


def test_the_trainer_of_paddlenlp_is_named_above_level_3_only():
    users = {
        module for module, names in IMPORTS.items() if any(name.startswith("paddlenlp.trainer") for name in names)
    }
    assert users and all(LEVEL_OF[module] == 4 for module in users)


def test_no_import_runs_in_a_circle():
    for module in SOURCES:
        assert module not in reachable(own(module)), module


def test_nobody_imports_a_script():
    assert [module for module, names in IMPORTS.items() if "glm.entry" in names] == ["glm.__main__"]
    for module, names in IMPORTS.items():
        assert not {name.split(".")[0] for name in names} & SCRIPTS, module
    for script in SCRIPTS:
        assert not {name.split(".")[0] for name in imports_of(ROOT / f"{script}.py")} & SCRIPTS


def test_prediction_never_loads_training():
    loaded = reachable({name for name in imports_of(ROOT / "predict.py") if name.startswith("glm")})
    assert "glm.prediction" in loaded and "glm.generation.search" in loaded
    assert {module for module in loaded if module.startswith("glm.training")} == set()


def test_decoding_never_sees_text():
    """Ids in, ids out: generation knows no tokenizer, record or template."""
    loaded = reachable({module for module in SOURCES if module.startswith("glm.generation")})
    assert loaded & {"glm.tokenization", "glm.modeling", "glm.data.records", "glm.data.templates"} == set()


def test_names_of_the_package_load_nothing_heavy():
    code = (
        "import sys, glm, glm.entry, glm.errors, glm.blank_infilling, glm.generation.config, glm.data.records; "
        "import glm.data.templates, glm.data.truncation, glm.evaluation.metrics, glm.evaluation.table; "
        "import glm.report.rows, glm.report.curves, glm.report.provenance; "
        "print(sorted(set(sys.modules) & {'paddle', 'paddlenlp', 'sentencepiece', 'jieba', 'matplotlib'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_public_names():
    import glm

    assert glm.__all__ == [
        "GLMConfig",
        "GLMForConditionalGeneration",
        "GLMModel",
        "GLMTokenizer",
        "GenerationConfig",
        "generate",
    ]
    for name in glm.__all__:
        value = getattr(glm, name)
        assert value.__name__ == name and value.__module__.startswith("glm.")
    with pytest.raises(AttributeError, match="module 'glm' has no attribute 'Generate'"):
        _ = glm.Generate


@pytest.mark.parametrize("script", ["finetune_generation.py", "predict.py"])
def test_scripts_import_glm_before_paddle(script):
    """`glm.environment` has to note what it can note only before Paddle's import."""
    tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
    imported = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert not [module for module in imported if module.split(".")[0] in ("paddle", "paddlenlp")]
    assert any(module.startswith("glm.") for module in imported)
