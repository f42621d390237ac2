"""The networks, built by name."""
