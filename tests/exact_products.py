"""What runs int8 products on this CPU needs one that adds them up exactly."""

import pytest

from murank.machine.integer_products import multiplies_exactly

# Others saturate, in what onnxruntime gives them: murank refuses them, and there is no right value.
needs_exact_products = pytest.mark.skipif(
    not multiplies_exactly(), reason="sums of int8 products saturate on an x86 CPU without VNNI"
)
