"""What a pair scorer says (mu), checked, and fused into distances.

Imports checks.
"""
