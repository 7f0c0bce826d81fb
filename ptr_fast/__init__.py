"""The engine of ptr-fast: kernels, nets, losses, learners, data store and inference. Import the parts by name."""

__version__ = "0.2.0"
