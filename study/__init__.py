"""study: which batch size, on how many GPUs, should I pay for?"""

__version__ = "0.1.0"
