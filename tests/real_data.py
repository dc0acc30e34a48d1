"""Where a real tokenizer and a real encoder lie, on machines that have them."""

import os
from pathlib import Path

REAL = Path(os.environ.get("MURANK_REAL", Path(__file__).parents[2] / "shared" / "real"))
OSNET = REAL / "osnet_x0_25_msmt17.onnx"
TOKENIZER = REAL / "qwen2_vl"
