"""Reports of runs: leaderboard, figures and a page (`python -m doppel_ray.report`), and TensorBoard."""
