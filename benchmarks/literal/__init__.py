"""Each part written out from the paper's equations, F, M, W and G as their published code has them, with the weights of the real
modules.

Nothing is cached between calls and no operation is reordered. These are the reference for the numbers of the real parts and the
baseline of their speed. Linear layers and convolutions are PyTorch's on both sides.
"""
