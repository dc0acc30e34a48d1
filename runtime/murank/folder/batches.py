"""Images in one run of a graph: engines are run, and their plans are built, for these."""

ENCODER_BATCH = 32
VISION_BATCH = 8  # enough to fill the cores, few enough to keep activations small
