"""Who takes a step in `step.py`: the local trainer, TRL's GRPOTrainer, and a matrix product; and what they share.

A contestant sets itself up from the folder of inputs, then takes a turn for every message on its connection.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

VOCABULARY = 1024
EOS_IDS = {"full": [VOCABULARY], "random": list(range(1, 17))}
"""Which tokens end a rollout: one that the model has no logit for, or 16 of its 1,024 nearly equally likely ones."""


@dataclass(frozen=True)
class Settings:
    """What the contestants of one comparison share."""

    lengths: str
    """A key of EOS_IDS: rollouts of full length, or of random lengths."""
    threads: int = 1
    problems: int = 16
    k: int = 8
    prompt_tokens: int = 20
    """Mean; they differ by up to a quarter. Guidance adds as many."""
    max_tokens: int = 128
    microbatch_tokens: int = 4096
    """Of our update; TRL's passes have --trl-rows rows. Both fit the caches better than one pass for all."""
    hidden: int = 256
    layers: int = 6
    steps: int = 7
    """Warm-up, timed steps, and the counted one."""


@dataclass(frozen=True)
class Turn:
    """One step of one contestant."""

    seconds: float
    cpu_seconds: float
    """Of the process, all threads: what other programs on the machine take is not in it."""
    sampling_seconds: float
    """From the start of the step until all rollouts are sampled (and, here, graded)."""
    tokens: int
    """Sampled."""
    flops: int = 0
    """Of matrix products and attention; only in the counted step."""


Contestant = Callable[[Settings, Path, Connection], None]
"""Sets itself up, then takes a turn for every message."""


# ---------------------------------------------------------------------- what the contestants share


def write_inputs(settings: Settings, folder: Path) -> None:
    """A random Qwen2 with a fixed seed, a tokenizer of one token a byte, and problems."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    write_tokenizer(folder / "model")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=settings.hidden,
        intermediate_size=settings.hidden * 23 // 8,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.hidden // 64,
        num_key_value_heads=settings.hidden // 128,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=EOS_IDS[settings.lengths],
    )
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problem_rows(settings)))


def write_tokenizer(folder: Path) -> None:
    """Byte-level, as transformers expects beside a Qwen2; the ids that are no byte are words that no prompt holds."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<pad>", *(f"word{i}" for i in range(1, VOCABULARY - len(bytes_))), *bytes_, "<eos>"]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
    fast.chat_template = "{{ messages[-1]['content'] }}"
    fast.save_pretrained(folder)


def problem_rows(settings: Settings) -> list[dict[str, str]]:
    """Problems with questions and guidance of random characters, one token each, the same at every call."""

    def words(i: int, kind: str, count: int) -> str:
        return hashlib.shake_256(f"{i} {kind}".encode()).hexdigest(count)[:count]

    mean = settings.prompt_tokens
    lengths = [mean - mean // 4 + i * (mean // 2) // max(1, settings.problems - 1) for i in range(settings.problems)]
    return [
        {"id": str(i), "question": words(i, "question", n), "answer": "1", "guidance": words(i, "guidance", mean)}
        for i, n in enumerate(lengths)
    ]


def reward(text: str) -> float:
    """A number in (0, 1) that only the text decides."""
    return (int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) + 1) / 2**33


@contextmanager
def turn(connection: Connection, sampled: Callable[[], tuple[float, int]]) -> Iterator[None]:
    """Wait for the word, let the body take a step, and report it; `sampled` says how long and how many tokens."""
    from torch.utils.flop_counter import FlopCounterMode

    counted = connection.recv()
    counter = FlopCounterMode(display=False) if counted else None
    started, cpu = time.perf_counter(), time.process_time()
    with counter or nullcontext():
        yield
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    sampling, tokens = sampled()
    flops = counter.get_total_flops() if counter else 0
    connection.send(Turn(seconds, cpu_seconds, sampling, tokens, flops))


# ---------------------------------------------------------------------- the contestants


def matrix_rate(settings: Settings, folder: Path, connection: Connection) -> None:
    """What the machine can do: float32 matrix products of 1,024 x 1,024, about 0.2 s a turn; flops is their count."""
    import torch

    a, b = torch.rand(2, 1024, 1024)
    connection.send("ready")
    for _ in range(settings.steps):
        connection.recv()
        started, cpu = time.perf_counter(), time.process_time()
        for _ in range(10):
            a @ b
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        connection.send(Turn(seconds, cpu_seconds, 0.0, 0, 10 * 2 * 1024**3))


def guide(settings: Settings, folder: Path, connection: Connection, *, trigger: str, failing: float) -> None:
    """The local trainer; plain rollouts of the share `failing` of the problems are all wrong."""
    from rich.console import Console

    from guide_rl.interrupts import Interrupts
    from guide_rl.progress import Progress
    from guide_rl.recipes import write_recipe
    from guide_rl.run_folder import RunFolder
    from guide_rl.trainers.engine import engine_of
    from guide_rl.trainers.trainer import Trainer

    recipe = guide_recipe(settings, folder, trigger)
    run = RunFolder.create(recipe.run, write_recipe(recipe))
    progress = Progress(recipe.steps, console=Console(quiet=True))
    grader = HashGrader(failing * settings.problems)
    trainer = Trainer(recipe, run, None, progress, grader, engine_of(recipe, run, None))

    def last() -> tuple[float, int]:
        line = run.read("timings.jsonl")[-1]
        return line["seconds/sampling"], round(line["tokens_per_s"] * line["seconds"])

    connection.send("ready")
    with Interrupts() as interrupts:
        for _ in range(settings.steps):
            with turn(connection, last):
                trainer.step(interrupts)


def guide_recipe(settings: Settings, folder: Path, trigger: str) -> Any:
    """Vanilla GRPO (uniform groups stay in), with the guidance that `trigger` asks for."""
    from guide_rl import config

    return config.TrainRecipe(
        model=config.ModelConfig(path=str(folder / "model"), device="cpu", dtype="float32"),
        problems=config.ProblemsConfig(train=str(folder / "problems.jsonl")),
        run=str(folder / f"run-{os.getpid()}"),
        steps=settings.steps,
        problems_per_step=settings.problems,
        prompts=config.PromptsConfig(guided_template="{question} {guidance}"),
        sampling=config.SamplingConfig(
            k=settings.k, max_tokens=settings.max_tokens, batch_size=settings.problems * settings.k
        ),
        guidance=config.GuidanceConfig(trigger=trigger),  # type: ignore[arg-type]
        loss=config.LossConfig(filter_uniform=False),
        optimizer=config.OptimizerConfig(tokens_per_microbatch=settings.microbatch_tokens),
        checkpoints=config.CheckpointsConfig(every=10**9),
    )


@dataclass(frozen=True)
class HashGrader:
    """Grades at once, in this process: problems below `failing` are right only with guidance."""

    failing: float

    def submit(self, problem: Any, rollout: Any) -> Any:
        """The grade, as something with a result."""
        from guide_rl.types import Grade

        correct = rollout.guided or int(problem.id) >= self.failing
        grade = Grade(reward(rollout.text) if correct else 0.0, correct, "correct" if correct else "wrong")
        return type("Done", (), {"result": lambda self: grade})()


def trl(settings: Settings, folder: Path, connection: Connection, *, rows: int) -> None:
    """TRL's GRPOTrainer with `rows` rollouts per forward and backward pass; turns are taken in its callbacks."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import GRPOTrainer

    sampled: list[tuple[float, int]] = []

    def hash_reward(completions: list[str], completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
        sampled.append((time.perf_counter(), sum(map(len, completion_ids))))
        return [reward(text) for text in completions]

    class Turns(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.turn = turn(connection, lambda: (sampled[-1][0] - self.started, sampled[-1][1]))
            self.turn.__enter__()
            self.started = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.turn.__exit__(None, None, None)

    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="sdpa"),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        reward_funcs=hash_reward,
        args=trl_arguments(settings, folder, rows),
        train_dataset=Dataset.from_list([{"prompt": row["question"]} for row in problem_rows(settings)]),
        callbacks=[Turns()],
    )
    trainer.remove_callback(PrinterCallback)
    connection.send("ready")
    trainer.train()


def trl_arguments(settings: Settings, folder: Path, rows: int) -> Any:
    """Our recipe in TRL's words; what costs time and is not asked for is off."""
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(folder / f"trl-{os.getpid()}"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        use_vllm=False,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=settings.problems * settings.k // rows,
        num_generations=settings.k,
        max_completion_length=settings.max_tokens,
        temperature=1.0,
        beta=0.0,
        loss_type="grpo",
        scale_rewards="group",
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        max_steps=settings.steps,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
    )
