"""Side-by-side measurements against what a user would pick instead. Timed here, and nowhere in the tests."""
