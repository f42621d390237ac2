"""The science: tensors in, tensors out. Knows no file layout, no DVC and no Prefect."""
