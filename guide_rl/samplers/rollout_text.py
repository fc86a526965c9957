"""Token ids -> the rollout's text, and whether a stop string has appeared in it."""

from collections.abc import Collection, Sequence
from typing import Any


class RolloutText:
    """Decodes rollouts and finds stop strings, also where they lie across token borders.

    Args:
        tokenizer: a Hugging Face tokenizer.
        eos_token_ids: not shown in texts, nor is the padding token; other special tokens are.
        stop: strings that end a rollout.
    """

    def __init__(self, tokenizer: Any, *, eos_token_ids: Collection[int], stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._hidden = {*eos_token_ids, tokenizer.pad_token_id}
        self.stop = tuple(stop)
        self._suspects: dict[int, bool] = {}
        # A token is at least one byte, so a stop string spans at most its bytes; 4 more complete a character.
        self.tail = max((len(text.encode()) for text in stop), default=0) + 4

    def final(self, token_ids: Sequence[int], *, stopped: bool) -> str:
        """The text of a finished rollout, cut before the stop string that ended it."""
        text = self.decode(token_ids)
        before = self.before_stop(text) if stopped else None
        return text if before is None else before

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the tokens."""
        shown = [token for token in token_ids if token not in self._hidden]
        return self._tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def ends_in_stop(self, last_ids: Sequence[int]) -> bool:
        """Whether the newest of the last `tail` tokens may have completed a stop string; cheap on most tokens."""
        return self._is_suspect(last_ids[-1]) and self.before_stop(self.decode(last_ids)) is not None

    def before_stop(self, text: str) -> str | None:
        """The text before the first stop string; None where there is none."""
        places = [place for place in map(text.find, self.stop) if place >= 0]
        return text[: min(places)] if places else None

    def _is_suspect(self, token: int) -> bool:
        """Whether this token can bring the last character of a stop string."""
        if token not in self._suspects:
            piece = self.decode([token])
            # A lone token may show no leading space, and part of a character shows as U+FFFD.
            self._suspects[token] = any(
                stop[-1] in piece or stop[-1].isspace() or "\ufffd" in piece for stop in self.stop
            )
        return self._suspects[token]
