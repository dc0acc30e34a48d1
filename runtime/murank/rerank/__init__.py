"""Features and mu to rankings: methods, camera alignment, evaluation, comparison."""
