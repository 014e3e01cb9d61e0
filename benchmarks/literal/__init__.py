"""Each part as a reader of the paper would write it, from the equations, with the weights of the real modules.

Nothing is kept from one call to the next and nothing is rearranged. These are the numerical reference of the real parts, and
what their speed is measured against. Linear layers and convolutions are PyTorch's on both sides.
"""
