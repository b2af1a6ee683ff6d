"""Measurements. They belong to no test: numbers of one run mean something beside each other, and nothing else."""
