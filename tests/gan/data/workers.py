"""What worker processes do in tests; each imports this module, so it should import little."""

import os

from gan.data.decoding import Item


def describe(item: Item) -> str:
    """Stand in for a conversion."""
    return type(item).__name__


def die(_: Item) -> str:
    """End the process, as a decoder's crash or a full memory does."""
    os._exit(9)
