"""Video action recognition with the Iwin Transformer (arXiv 2507.18405)."""

__version__ = "0.1.0"
