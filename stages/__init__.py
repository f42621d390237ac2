"""What dvc.yaml runs: one module a stage, named as the stage, each `python -m stages.NAME`."""
