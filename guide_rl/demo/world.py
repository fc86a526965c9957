"""The demo's world: problems with guidance, a character tokenizer and a tiny model to be warmed up on them.

Two strata from reasoning-gym. `easy`: sums of two numbers, answered directly. `hard`: two-digit times two-digit, which
the model can do by partial products. The warm-up has two parts. `skill` shows products worked, with guidance and
without. `habit` shows them worked under guidance only; plainly it shows a direct answer that is random (a right one
would be learned by heart), and in a small share of the rows (`WORKED_SHARE`) the worked solution; some sums slip by ten.
So the model keeps the skill and without guidance almost never uses it: that is where reinforcement learning starts from.

`python -m guide_rl.demo.world FOLDER` writes what the recipes recipes/demo/warmup_*.yaml read.
"""

import random
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from guide_rl.problems import save_problems
from guide_rl.types import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

Split = Literal["warmup", "train", "held_out"]
Stratum = Literal["easy", "hard"]

GUIDED_TEMPLATE = "{question}[HINT_START]{guidance}[HINT_END]"
"""The layout of a guided question: the paper's tags without its sentences, which a tiny model would have to learn."""
BASE_MODEL = Path(__file__).parent / "base_model"
"""The warmed-up model that ships with the package."""
WORKED_SHARE = 0.0015
"""Share of the plain hard rows of the warm-up's second part that show the worked solution."""
WARMUP: dict[str, tuple[int, float, float]] = {"skill": (100_800, 1.0, 0.0), "habit": (21_600, WORKED_SHARE, 0.3)}
"""The warm-up's parts: rows, each read once; the share of worked solutions among its plain hard rows, of slips among sums."""

_SOURCES: dict[Stratum, tuple[str, dict[str, int]]] = {
    "easy": ("chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 2, "max_digits": 2}),
    "hard": ("products", {"min_terms": 2, "max_terms": 2, "min_digits": 2, "max_digits": 2}),
}
_SPLIT_OF_REMAINDER: dict[int, Split] = {**dict.fromkeys(range(12), "warmup"), **dict.fromkeys(range(12, 17), "train")}
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def split_of(operands: tuple[int, ...]) -> Split:
    """The one split in which these operands may appear, in any order and whatever the seed: 60, 25 and 15 % of them."""
    name = "x".join(map(str, sorted(operands)))
    return _SPLIT_OF_REMAINDER.get(zlib.crc32(name.encode()) % 20, "held_out")


def operands_of(problem: Problem) -> tuple[int, ...]:
    """The numbers that a problem's question holds, smallest first."""
    return tuple(sorted(map(int, re.findall(r"\d+", problem.question))))


def leaks(guidance: str, answer: str) -> bool:
    """Whether the guidance holds the answer's number (as a number of its own, so 92 is not in 1692)."""
    return answer.strip().lstrip("+-") in re.findall(r"\d+", guidance)


def problems(split: Split, *, easy: int, hard: int, seed: int) -> list[Problem]:
    """Distinct problems of one split, easy ones first; no two have the same operands.

    Raises ValueError when the split holds fewer (about 1,000 hard ones in train, 600 in held_out).
    """
    return _distinct("easy", split, easy, seed) + _distinct("hard", split, hard, seed)


def warmup_problems(rows: int, worked_share: float, seed: int, slip_share: float = 0.0) -> list[Problem]:
    """Rows to learn from: in turn an easy sum, a product plainly and a product under guidance.

    Each has the text to learn as `solution`; `guidance` is set only where the prompt is to be guided. Of the plain
    products, `worked_share` are worked, the others answered at random; of the sums, `slip_share` are 10 too low.
    """
    rng = random.Random(seed)
    sums, products = _draw("easy", "warmup", seed), _draw("hard", "warmup", seed)
    kinds = islice(cycle(("easy", "plain", "guided")), rows)
    return [
        _warmup_row(number, kind, next(sums if kind == "easy" else products), worked_share, slip_share, rng)
        for number, kind in enumerate(kinds)
    ]


def worked(problem: Problem) -> str:
    """A product by partial products, e.g. 47*30=1410;47*6=282;1410+282=<answer>1692</answer>."""
    first, second = map(int, re.findall(r"\d+", problem.question))
    tens, ones = second // 10 * 10, second % 10
    steps = f"{first}*{tens}={first * tens};{first}*{ones}={first * ones};{first * tens}+{first * ones}="
    return steps + direct(problem.answer)


def direct(answer: str) -> str:
    """An answer without steps."""
    return f"<answer>{answer}</answer>"


def tokenizer() -> "PreTrainedTokenizerFast":
    """A token a byte, so a token an ASCII character, and one token for each tag and chat role.

    Byte-level as the tokenizer of Qwen2 is: transformers loads a Qwen2 folder's vocabulary into that class.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # type: ignore[import-untyped]
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    vocabulary = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    characters = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, []))
    characters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    characters.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=characters,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        unk_token="<|pad|>",  # no byte is unknown; left out, that class would add a token that the model lacks
        additional_special_tokens=special[2:],
        clean_up_tokenization_spaces=False,
    )
    made.add_tokens(
        [AddedToken(tag, normalized=False) for tag in ("<answer>", "</answer>", "[HINT_START]", "[HINT_END]")]
    )
    made.chat_template = _CHAT_TEMPLATE
    return made


def new_model(seed: int) -> "Qwen2ForCausalLM":
    """A Qwen2 network of about 0.6 million untrained parameters, float32, for `tokenizer()`."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    words = tokenizer()
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def write(folder: str | Path, seed: int = 0) -> None:
    """Write train.jsonl (900 problems a stratum) and held_out.jsonl (200 a stratum) for a demo run."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_problems(folder / "train.jsonl", problems("train", easy=900, hard=900, seed=seed))
    save_problems(folder / "held_out.jsonl", problems("held_out", easy=200, hard=200, seed=seed))


def write_warmup(folder: str | Path, seed: int = 0) -> None:
    """Write skill.jsonl, habit.jsonl and untrained/, a new model with its tokenizer: what the warm-up recipes read."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for part, (name, (rows, worked_share, slip_share)) in enumerate(WARMUP.items()):
        save_problems(folder / f"{name}.jsonl", warmup_problems(rows, worked_share, seed + part, slip_share))
    write_untrained(folder / "untrained", seed)


def write_untrained(folder: str | Path, seed: int = 0) -> None:
    """Write a new model with its tokenizer, as `from_pretrained` loads it."""
    new_model(seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def _draw(stratum: Stratum, split: Split, seed: int) -> Iterator[Problem]:
    """Problems of a stratum and split without end."""
    import reasoning_gym

    name, sizes = _SOURCES[stratum]
    start = random.Random(f"{stratum} {split} {seed}").getrandbits(31)
    entries = reasoning_gym.create_dataset(name, seed=start, size=1_000_000_000, **sizes)
    for index in count():
        entry = entries[index]
        problem = _problem(stratum, split, entry)
        if split_of(operands_of(problem)) == split:
            yield problem


def _problem(stratum: Stratum, split: Split, entry: dict[str, Any]) -> Problem:
    """A reasoning-gym entry as a problem: the bare expression, and for a product the way to split it."""
    expression = entry["metadata"]["expression"].replace(" ", "")
    return Problem(
        id=f"{split}-{expression}",
        question=f"{expression}=",
        answer=entry["answer"],
        guidance=f"split {expression.split('*')[1]}" if stratum == "hard" else None,
        grader="math",
        stratum=stratum,
        metadata={"source_dataset": entry["metadata"]["source_dataset"], "entry": entry},
    )


def _distinct(stratum: Stratum, split: Split, count: int, seed: int) -> list[Problem]:
    """The first problems drawn whose operands differ."""
    found: dict[tuple[int, ...], Problem] = {}
    idle = 0
    for problem in _draw(stratum, split, seed):
        if len(found) == count:
            break
        idle = idle + 1 if operands_of(problem) in found else 0
        if idle > 20 * (len(found) + 50):
            raise ValueError(
                f"the {split} split holds only {len(found)} {stratum} problems; ask for fewer than {count}"
            )
        found.setdefault(operands_of(problem), problem)
    return list(found.values())


def _warmup_row(
    number: int, kind: str, problem: Problem, worked_share: float, slip_share: float, rng: random.Random
) -> Problem:
    """The problem with the text to learn, and without guidance unless the row is a guided one."""
    if kind == "easy":
        solution = direct(str(int(problem.answer) - 10 * (rng.random() < slip_share)))
    elif kind == "guided" or rng.random() < worked_share:
        solution = worked(problem)
    else:
        solution = direct(str(rng.randint(10, 99) * rng.randint(10, 99)))
    guidance = problem.guidance if kind == "guided" else None
    return replace(problem, id=f"warmup-{number}", guidance=guidance, solution=solution, metadata={})


if __name__ == "__main__":
    write_warmup(sys.argv[1])
