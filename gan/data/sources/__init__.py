"""One module a source: how its native files are fetched and verified, and how their images are read."""
