"""Names of the decoder graph's key/value tensors, one definition for export and runtime."""


def past_names(num_layers: int) -> list[str]:
    """Inputs: keys and values of the prefix, in turn."""
    return [f"past_{part}_{layer}" for layer in range(num_layers) for part in ("key", "value")]


def present_names(num_layers: int) -> list[str]:
    """Outputs: the prefix extended by the first candidate, as past of the next call."""
    return [f"present_{part}_{layer}" for layer in range(num_layers) for part in ("key", "value")]
