"""An engine folder: what export wrote, checked and run."""
