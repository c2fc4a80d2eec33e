"""The text of single tokens, as they show in a text: with their spaces, and readable even where they are no whole character."""

from typing import Any

import numpy as np

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TokenText:
    """Decodes token ids one by one and remembers them."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.known: dict[int, str] = {}
        # A token is decoded behind an ordinary one, because some decoders drop the space of the first.
        self.anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]
        self.before = self._decode([self.anchor])[0]

    def __call__(self, ids: np.ndarray) -> list[str]:
        """Return the text of each token id."""
        new = [i for i in dict.fromkeys(ids.tolist()) if i not in self.known]
        if new:
            texts = self._decode([[*self.anchor, i] for i in new])
            self.known |= {i: self._own(i, text) for i, text in zip(new, texts, strict=True)}
        return [self.known[i] for i in ids.tolist()]

    def passage(self, ids: list[np.ndarray]) -> list[str]:
        """Return the text of several sequences of token ids."""
        return self._decode([row.tolist() for row in ids])

    def _decode(self, rows: list[list[int]]) -> list[str]:
        return self.tokenizer.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _own(self, token: int, text: str) -> str:
        """Return what a token adds to the anchor's text or, where that is part of a character, its name in the vocabulary."""
        own = text.removeprefix(self.before)
        if own and REPLACEMENT not in own:
            return own
        return self.tokenizer.convert_ids_to_tokens(token) or f"<{token}>"
