"""prunescope: when a vision network is pruned, does it still decide for the same reasons?"""

__version__ = "0.1.0"
