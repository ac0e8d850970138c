"""Counts the lines that could not be written, where everybody sees it: in a slot of the board."""

from __future__ import annotations

_words: memoryview[int] | None = None
_word = 0
_early = 0  # before there was a board


def count_in(words: memoryview[int], word: int) -> None:
    """Count in `words` from now on.  Called in the master, and in a child after its fork."""
    global _words, _word, _early
    _words, _word = words, word
    words[word] += _early
    _early = 0


def count(lines: int) -> None:
    """So many lines more are lost."""
    global _early
    if _words is None:
        _early += lines
        return
    try:
        _words[_word] += lines
    except ValueError:
        pass  # the slot was given back: this process is about to end
