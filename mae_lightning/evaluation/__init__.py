"""Protocols that judge frozen features and reconstructions, independent of any training loop."""
