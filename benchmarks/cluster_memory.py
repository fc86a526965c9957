"""GPU memory that engine verl takes (FSDP2, vLLM), by calculation: nothing is measured. docs/cluster.md has the formulas.

`python benchmarks/cluster_memory.py RECIPE ... [field=value ...]` shows every term for a recipe; with docs/cluster.md in place
of the recipe it writes the tables there.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guide_rl.config import TrainRecipe
from guide_rl.recipes import read_recipe

GIB = 2**30
GPU, REST, SERVERS_OWN = 79.0, 5.0, 3.0
"""GiB: a GPU of 80 GB; both processes' CUDA contexts, NCCL and CUDA graphs; a server's activations. Two are guesses."""
GPUS = (8, 16, 32, 64)
PAPER = Path(__file__).resolve().parent.parent / "recipes/paper"


@dataclass(frozen=True)
class Shape:
    """A dense model of the Llama family, with Qwen2's biases."""

    width: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool

    @property
    def layer(self) -> int:
        """Weights of a layer."""
        q, kv = self.heads * self.head, self.kv_heads * self.head
        return 2 * self.width * (q + kv) + q + 2 * kv + 3 * self.width * self.inner + 2 * self.width

    @property
    def table(self) -> int:
        """Weights of the embedding, and of the output layer."""
        return self.vocabulary * self.width

    @property
    def weights(self) -> int:
        """Weights of the model."""
        return self.layers * self.layer + (1 if self.tied else 2) * self.table + self.width

    @property
    def layers_values(self) -> int:
        """Values that a layer computes of a token: norms, sums and outputs; queries, attention; keys, values; the MLP's."""
        return 6 * self.width + 2 * self.heads * self.head + 2 * self.kv_heads * self.head + 4 * self.inner

    @property
    def cached(self) -> int:
        """Bytes of a token in a bf16 key-value cache."""
        return 2 * 2 * self.layers * self.kv_heads * self.head


QWEN25 = {
    "0.5": Shape(896, 24, 4864, 14, 2, 64, 151936, True),
    "1.5": Shape(1536, 28, 8960, 12, 2, 128, 151936, True),
    "3": Shape(2048, 36, 11008, 16, 2, 128, 151936, True),
    "7": Shape(3584, 28, 18944, 28, 4, 128, 152064, False),
    "14": Shape(5120, 48, 13824, 40, 8, 128, 152064, False),
    "32": Shape(5120, 64, 27648, 40, 8, 128, 152064, False),
    "72": Shape(8192, 80, 29568, 64, 8, 128, 152064, False),
}
"""Qwen2.5 by billions of weights."""


def shape_of(path: str) -> Shape:
    """The shape in a model folder's config.json; where there is none, that of the Qwen2.5 whose size is in the name."""
    file = Path(path) / "config.json"
    if file.is_file():
        said = json.loads(file.read_text())
        heads, width = said["num_attention_heads"], said["hidden_size"]
        return Shape(
            width,
            said["num_hidden_layers"],
            said["intermediate_size"],
            heads,
            said.get("num_key_value_heads") or heads,
            said.get("head_dim") or width // heads,
            said["vocab_size"],
            said.get("tie_word_embeddings", False),
        )
    sizes = re.findall(r"(?<![\d.])(\d+(?:\.\d+)?)b(?![a-z0-9])", path.lower())
    if not sizes or sizes[-1] not in QWEN25:
        raise ValueError(
            f"model.path {path} has no config.json and no size of Qwen2.5 in its name; give a model folder"
        )
    return QWEN25[sizes[-1]]


@dataclass(frozen=True)
class Job:
    """What a recipe says that memory depends on."""

    shape: Shape
    gpus: int
    tensor_parallel: int
    share: float
    tokens: int
    longest: int
    params_stay: bool
    optimizer_stays: bool
    recompute: bool
    models: int


def job_of(recipe: TrainRecipe) -> Job:
    """The job of a recipe of engine verl, with verl's defaults where its mapping says nothing."""
    said = dict(dotted(recipe.verl))
    actor, rollout = "actor_rollout_ref.actor.fsdp_config", "actor_rollout_ref.rollout"
    evaluated = recipe.evaluation.max_tokens or 0 if recipe.evaluation.every else 0
    return Job(
        shape=shape_of(recipe.model.path),
        gpus=said.get("trainer.nnodes", 1) * said.get("trainer.n_gpus_per_node", 8),
        tensor_parallel=said.get(f"{rollout}.tensor_model_parallel_size", 2),
        share=said.get(f"{rollout}.gpu_memory_utilization", 0.5),
        tokens=recipe.optimizer.tokens_per_microbatch,
        longest=recipe.prompts.max_tokens + max(recipe.sampling.max_tokens, evaluated),
        params_stay=not said.get(f"{actor}.param_offload", False),
        optimizer_stays=not said.get(f"{actor}.optimizer_offload", False),
        recompute=recipe.model.gradient_checkpointing,
        models=2 if recipe.loss.advantages == "gae" else 1,
    )


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested mapping's values by dotted keys, without verl's plus signs."""
    for key, value in values.items():
        name = f"{prefix}{key}".replace("+", "")
        if isinstance(value, Mapping):
            yield from dotted(value, f"{name}.")
        else:
            yield name, value


def update(job: Job) -> dict[str, float]:
    """GiB a GPU at the peak of an update, term by term."""
    shape, tokens = job.shape, job.tokens
    kept = shape.width if job.recompute else shape.layers_values
    terms = {
        "weights, gradients, AdamW": (16 + 12 * (job.models - 1)) * shape.weights / job.gpus,
        "gathered layers and output layer": 10 * shape.layer + 8 * shape.table,
        "activations of all layers": 2 * tokens * kept * shape.layers,
        "one layer, with gradients": 4 * tokens * shape.layers_values,
        "logits": 4 * tokens * shape.vocabulary,
    }
    return {name: size / GIB for name, size in terms.items()} | {"rest": REST}


def sampling(job: Job) -> dict[str, float]:
    """GiB a GPU while the servers sample, term by term."""
    bytes_a_weight = 4 * job.params_stay + 8 * job.optimizer_stays
    trainer = bytes_a_weight * job.models * job.shape.weights / job.gpus / GIB
    return {"weights and AdamW of the trainer": trainer, "the server": job.share * GPU, "rest": REST}


def cache(job: Job) -> float:
    """GiB that a server has on each of its GPUs for its key-value cache."""
    return job.share * GPU - SERVERS_OWN - 2 * job.shape.weights / job.tensor_parallel / GIB


def rollouts_at_once(job: Job) -> int:
    """Rollouts of the greatest length, prompts included, that a server's cache holds."""
    return int(max(0.0, cache(job)) * GIB * job.tensor_parallel / (job.shape.cached * job.longest))


def checkpoint(job: Job) -> float:
    """GiB of a checkpoint: float32 weights and AdamW's two moments."""
    return 12 * job.models * job.shape.weights / GIB


def fits(job: Job) -> bool:
    """Whether a GPU of 80 GB holds all that, and a server a rollout."""
    return max(sum(update(job).values()), sum(sampling(job).values())) <= GPU and rollouts_at_once(job) >= 1


def sizes() -> list[list[str | float]]:
    """A row for each size of the paper's: weights, tokens a micro-batch, and an update's peak on so many GPUs."""
    rows: list[list[str | float]] = []
    for size in ("0.5", "3", "7", "32", "72"):
        recipe = read_recipe(TrainRecipe, PAPER / f"rlvr_mixed_{size}b.yaml")
        tokens, shape = recipe.optimizer.tokens_per_microbatch, QWEN25[size]
        peaks = [sum(update(Job(shape, gpus, 1, 0.5, tokens, 4096, True, True, True, 1)).values()) for gpus in GPUS]
        rows.append([f"{size}B", f"{shape.weights / 1e9:.2f}", f"{tokens:,}", *(f"{peak:.0f}" for peak in peaks)])
    return rows


def recipes() -> list[list[str | float]]:
    """A row for each of the paper's recipes as it is."""
    rows: list[list[str | float]] = []
    for path in sorted(PAPER.glob("*.yaml")):
        if not path.stem.startswith("sft"):
            job = job_of(read_recipe(TrainRecipe, path))
            peaks = (sum(update(job).values()), sum(sampling(job).values()))
            numbers = [f"{number:.0f}" for number in (*peaks, rollouts_at_once(job), checkpoint(job))]
            rows.append([f"`{path.stem}`", str(job.gpus), *numbers, "yes" if fits(job) else "no"])
    return rows


TABLES = {"sizes": sizes, "recipes": recipes}
"""The tables of docs/cluster.md."""


def show(job: Job) -> str:
    """Every term, and what it comes to."""
    lines = [f"{job.shape.weights / 1e9:.2f} billion weights on {job.gpus} GPUs; GiB a GPU"]
    for name, terms in (("update", update(job)), ("sampling", sampling(job))):
        lines += [f"{name:9}{sum(terms.values()):7.1f}"] + [f"{size:16.1f}  {term}" for term, size in terms.items()]
    lines.append(
        f"a server's key-value cache: {cache(job):.1f} GiB a GPU, {rollouts_at_once(job)} rollouts of {job.longest} tokens"
    )
    lines.append(
        f"a checkpoint: {checkpoint(job):.0f} GiB; a GPU of 80 GB ({GPU:.0f} GiB): {'fits' if fits(job) else 'too small'}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    overrides = [argument for argument in sys.argv[1:] if "=" in argument]
    files = [argument for argument in sys.argv[1:] if "=" not in argument]
    if files[0].endswith(".md"):
        from guide_rl.theory.tables import fill

        page = Path(files[0])
        for table, make in TABLES.items():
            page.write_text(fill(page.read_text(), table, make()))
    else:
        print(show(job_of(read_recipe(TrainRecipe, files, overrides))))
