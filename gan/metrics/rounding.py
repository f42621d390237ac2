"""Numbers as they are published."""


def significant(value: float) -> float:
    """`value` to 6 significant digits: readable in a table, and blind to round-off between machines."""
    return float(f"{value:.6g}")
