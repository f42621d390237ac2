"""Losses, the moving average, the loop, and its recovery."""
