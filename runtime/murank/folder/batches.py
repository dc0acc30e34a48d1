"""How many images one run of a graph takes: an engine is run, and its plans are built, for these."""

ENCODER_BATCH = 32
VISION_BATCH = 8  # enough to fill the cores, few enough to keep activations small
