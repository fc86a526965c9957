"""What can drift is checked: import direction, light start, the README's tree, docstrings, house words."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "guide_rl"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Imports point from a higher layer to a lower one, or within one. `types`, `config` and `equations` may be imported by all.
LAYERS = [
    {"cli"},
    {"demo"},
    {"trainers", "theory"},
    {"guidance", "evaluation", "analysis"},
    {"algorithm", "metrics"},
    {"ladder"},
    {"problems", "samplers", "graders", "logprobs", "run_folder", "progress", "interrupts"},
    {"prompts", "policy", "recipes", "chat"},
    {"disk_cache", "atomic_files"},
    {"types", "config", "equations"},
]
FREE = {"types", "config", "equations"}
ALLOWED_UPWARDS = {
    ("policy", "run_folder"),  # says which checkpoint to give where model.path is a run
}


def module_of(path: Path) -> str:
    """The first part of a module's name below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer(name: str) -> int:
    found = [i for i, names in enumerate(LAYERS) if name in names]
    assert found, f"{name} is in no layer; add it to LAYERS"
    return found[0]


def own_imports(path: Path) -> set[str]:
    """Which parts of the package a file imports, anywhere in it."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "guide_rl":
            parts = (node.module or "").split(".")
            imported |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            imported |= {a.name.split(".")[1] for a in node.names if a.name.startswith("guide_rl.")}
    return {name for name in imported if not name.startswith("__")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    here = module_of(path)
    if here == "__init__":
        assert own_imports(path) <= {"types", "config", "problems", "recipes", "trainers", "run_folder"}
        return
    for name in own_imports(path) - {here}:
        upwards = name not in FREE and layer(name) < layer(here)
        assert not upwards or (here, name) in ALLOWED_UPWARDS, f"{here} must not import {name}"
    if here in FREE:
        assert own_imports(path) <= {here}


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_help_starts_in_half_a_second_without_heavy_imports():
    code = """
import sys, time
started = time.process_time()
from guide_rl.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
seconds = time.process_time() - started
heavy = {"torch", "transformers", "numpy", "matplotlib", "math_verify", "reasoning_gym", "datasets"} & set(sys.modules)
print(f"\\n{seconds} {sorted(heavy)}")
"""
    runs = [
        run_python(code).splitlines()[-1].split(" ", 1) for _ in range(3)
    ]  # processor time: other programs do not count
    assert {heavy for _, heavy in runs} == {"[]"}
    assert min(float(seconds) for seconds, _ in runs) < 0.5


@pytest.mark.parametrize(
    "module",
    [
        *("guide_rl", "guide_rl.algorithm", "guide_rl.config", "guide_rl.run_folder"),
        *("guide_rl.analysis.curves", "guide_rl.evaluation.running"),
    ],
)
def test_light_modules_do_not_import_torch(module):
    assert run_python(f"import sys, {module}; print('torch' in sys.modules)").strip() == "False"


def public_names(tree: ast.Module):
    """Functions, classes and methods without a leading underscore, with the nodes that may hold their docstring."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for child in node.body:
                    if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                        yield f"{node.name}.{child.name}", child


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_name_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module says what it is for"
    missing = [name for name, node in public_names(tree) if not ast.get_docstring(node)]
    assert not missing


def test_every_config_field_has_a_sentence():
    trees = [ast.parse(path.read_text()) for path in (PACKAGE / "config").glob("*.py")]
    for record in (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, after in zip(record.body, [*record.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and not ast.unparse(field.annotation).endswith("Config"):
                said = (
                    isinstance(after, ast.Expr)
                    and isinstance(after.value, ast.Constant)
                    and isinstance(after.value.value, str)
                )
                assert said, f"{record.name}.{ast.unparse(field.target)} has no sentence under it"


def readme_tree() -> dict[str, str]:
    """The README's tree: path -> phrase."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"```\nguide_rl/\n(.*?)```", text, re.S)
    assert block, "the README has no tree of guide_rl/"
    entries: dict[str, str] = {}
    folders: list[str] = []
    for line in block[1].splitlines():
        found = re.fullmatch(r"((?:  ){1,3})(\S+)\s{2,}(\S.*)", line)
        assert found, f"not a line of the tree: {line!r}"
        indent, name, phrase = found.groups()
        del folders[len(indent) // 2 - 1 :]
        entries["".join(folders) + name] = phrase
        if name.endswith("/"):
            folders.append(name)
    return entries


def test_the_readmes_tree_is_the_real_tree():
    real = set()
    for path in PACKAGE.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            real.add(f"{path.name}/")
        elif path.suffix == ".py" and path.name != "__init__.py":
            real.add(path.name)
    told = readme_tree()
    assert {name for name in told if "/" not in name.rstrip("/")} == real
    for name in told:
        assert (PACKAGE / name).exists(), f"{name} is in the README and not in the package"


def test_no_file_names_that_say_nothing():
    assert not [path for path in SOURCES if re.search(r"util|common|core|misc|base(?!_model)|helper", path.stem)]


def named_in(page: str) -> list[tuple[str, str]]:
    """(file, name) for every `file: name` of a page's table."""
    return re.findall(r"`([\w/.]+\.py): (\w+)`", (ROOT / page).read_text())


def test_the_functions_tests_and_recipes_that_the_page_of_the_algorithm_names_exist():
    named = named_in("docs/algorithm.md")
    assert len(named) > 40
    for path, name in named:
        assert re.search(rf"^(def|class) {name}\b", (ROOT / path).read_text(), re.M), f"{path} has no {name}"
    recipes = set(re.findall(r"`([\w/]+\.yaml)`", (ROOT / "docs/algorithm.md").read_text()))
    assert all((ROOT / "recipes" / recipe).exists() for recipe in recipes)
