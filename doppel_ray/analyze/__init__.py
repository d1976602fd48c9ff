"""What synthetic pairs are like, beside recordings: the analyses of the paper's figures 2 and 3.

Cherep and Singh, "Contrastive Learning from Synthetic Audio Doppelgängers", ICLR 2025 (arXiv 2406.05923).
`python -m doppel_ray.analyze` is the command line.
"""
