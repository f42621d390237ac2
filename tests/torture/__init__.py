"""What befalls a run at its worst: killed at random, fed damaged files, moved to other machines; `make torture`."""
