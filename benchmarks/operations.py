"""Counts floating-point operations."""

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products and convolutions in its block, in `total`, by torch's own formulas.

    torch's FlopCounterMode also watches modules, and so refuses gradients of gradients.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN204
        """Do as torch does, and count."""
        del types
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += int(flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result))
        return result
