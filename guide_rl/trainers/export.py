"""`guide export`: a checkpoint of any engine as a plain model folder."""

import json
from pathlib import Path

import torch

from guide_rl.atomic_files import put_folder
from guide_rl.policy import export, holds_model, quiet_transformers
from guide_rl.prompts import load_tokenizer
from guide_rl.run_folder import SHARDS, STATE_FILE, RunFolder
from guide_rl.trainers.verl.private import merge


def export_checkpoint(source: Path, folder: Path, *, best: bool = False) -> None:
    """`guide export`: write a checkpoint as one plain model folder: LoRA, or the shards of engine verl, merged.

    Args:
        source: a checkpoint, or a run (its newest checkpoint).
        folder: where to write; must not hold anything.
        best: of a run, the checkpoint with the best held-out pass@1 instead.

    Raises:
        FileNotFoundError: `source` is neither a checkpoint nor a run with one.
        FileExistsError: `folder` holds something already.
        ValueError: the best is asked for and was not measured, or was before the first step; or shards are not whole.
    """
    from transformers import AutoModelForCausalLM

    run = RunFolder(source)
    if best:
        source = _best_checkpoint(run)
    elif (source / "recipe.yaml").is_file():
        source = run.latest_checkpoint() or source / "model"
    shards = source / SHARDS
    if not holds_model(source) and not shards.is_dir():
        raise FileNotFoundError(f"{source} holds no checkpoint; give a folder like runs/x/checkpoints/step-000100")
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds something already; give another folder")
    if shards.is_dir():
        put_folder(folder, lambda partial: merge(shards, partial))
        return
    with quiet_transformers():
        if (source / "adapter_config.json").is_file():
            from peft import AutoPeftModelForCausalLM

            model = AutoPeftModelForCausalLM.from_pretrained(str(source), dtype=torch.float32)
        else:
            model = AutoModelForCausalLM.from_pretrained(str(source), dtype=torch.float32)
    export(model, load_tokenizer(str(source)), folder)


def _best_checkpoint(run: RunFolder) -> Path:
    """The checkpoint of the best held-out pass@1, as the newest one's trainer.json has it."""
    newest = run.latest_checkpoint()
    if newest is None or not (newest / STATE_FILE).is_file():
        raise ValueError(
            f"{run.path} is no run of `guide train` with a checkpoint, so none of its checkpoints is the best"
        )
    state = json.loads((newest / STATE_FILE).read_text(encoding="utf-8"))
    if state["best_score"] < 0:
        raise ValueError(f"{run.path}: nothing was evaluated (evaluation.every is 0), so no checkpoint is the best")
    if state["best_step"] == 0:
        raise ValueError(
            f"{run.path}: the held-out pass@1 was best before the first step; the best is the run's model.path"
        )
    return run.checkpoints / f"step-{state['best_step']:06d}"
