"""Independent random streams, all from the one `seed` of params.yaml."""

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream that `names` describe, such as `derive_seed(0, "shuffle", epoch)`.

    Streams of different names are independent, so drawing more from one never shifts another.
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
