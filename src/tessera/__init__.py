"""Tessera: when are sparse-autoencoder features better classifier inputs than the plain alternatives?"""

__version__ = "0.1.0"
