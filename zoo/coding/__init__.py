"""Images as bits, and back: the bound of a model made into a file of that length.

A latent variable model that says log p(x) >= ELBO can store x in -ELBO nats on average, without loss: bits back with
asymmetric numeral systems (Townsend, Bird and Barber, Practical Lossless Compression with Latent Variables using Bits
Back Coding, ICLR 2019, https://arxiv.org/abs/1901.04866). What can be decoded needs no belief in a formula: an ELBO
that promised more than the model can say would not come out as a file.
"""

from __future__ import annotations

from zoo.coding.bits_back import Message, compress, decompress, why_not

__all__ = ["Message", "compress", "decompress", "why_not"]
