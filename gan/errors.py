"""The one exception that stands for a user's mistake, and how a shortage of the machine's is told from a fault."""

import errno
import os
from collections.abc import Iterator

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A disk, a user's share of it, or the size of a file that `ulimit -f` allows, is used up."""
NO_MEMORY = (
    os.strerror(errno.ENOMEM),  # the system's, in the messages of many libraries
    "out of memory",  # PyTorch's, of a GPU
    "can't allocate memory",  # PyTorch's, of the main memory
    "bad_alloc",  # C++'s
    "ALLOC_FAILED",  # cuBLAS's and cuDNN's
    "could not create a primitive",  # oneDNN's
    "could not create a memory",
    "can't start new thread",  # Python's: a thread's stack is memory
    "failed to map segment from shared object",  # the loader's, at an import
)
"""How libraries say that memory ran out; most of them raise a RuntimeError then."""

LONGEST = 2000
"""Characters of a message, at most."""


class InputError(ValueError):
    """Bad input: a parameter, a file or a folder that the user can put right.

    Its message is one line that says what was wrong, where, what is allowed and what to do; stages print it
    without a traceback. Anything else that is raised is a fault of the program, or a shortage of the machine's.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str, longest: int = LONGEST) -> str:
    """`text` with whatever cannot be printed escaped, and its middle left out beyond `longest` characters.

    Messages quote names and errors out of files, which may hold line breaks, a terminal's control codes, and megabytes.
    """
    if len(text) > longest:
        kept = longest - len(" … ")
        text = f"{text[: kept - kept // 3]} … {text[-(kept // 3) :]}"
    if text.isprintable():
        return text
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return one_line(shown, longest)


def find_no_room(error: BaseException) -> str | None:
    """What the system says where the error, or one that led to it, is of a disk without room; else None."""
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno in NO_ROOM:
            name = each.filename2 or each.filename  # of a copy, the second is the one that is written
            return f"{each.strerror}: {name}" if name else each.strerror
        for number in NO_ROOM:
            if os.strerror(number) in str(each):  # of libraries that write files by themselves
                return os.strerror(number)
    return None


def is_no_memory(error: BaseException) -> bool:
    """Whether the error, or one that led to it, says that memory ran out."""
    return any(
        isinstance(each, MemoryError) or any(words in str(each) for words in NO_MEMORY) for each in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from or while handling."""
    seen = []
    following: BaseException | None = error
    while following is not None and following not in seen:
        seen.append(following)
        yield following
        following = following.__cause__ or following.__context__
