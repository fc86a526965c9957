"""What the README says to type works."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from guide_rl.cli import parse

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
COMMANDS = [line.split("#")[0].strip() for line in TEXT.splitlines() if re.match(r"guide \w", line)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which the README's relative paths exist."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "runs/guide_grpo").mkdir(parents=True)
    (tmp_path / "runs/guide_grpo/recipe.yaml").write_text((ROOT / "recipes/guide_grpo.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command, folder):
    name, *arguments = shlex.split(command)[1:]
    parse(name, arguments)


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"^make (\w+)", TEXT, re.M)) <= targets


@pytest.mark.e2e
def test_the_python_example_runs(folder):
    code = re.search(r"```python\n(.*?)```", TEXT, re.S)[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["1", "2"]
    assert (folder / "runs/readme/run/model/model.safetensors").exists()
