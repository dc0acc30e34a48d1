"""What comes in from outside, as it may be shown and as it is refused. Imports nothing of murank."""
