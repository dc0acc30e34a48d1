"""What an engine will need on a device: operations, bytes, memory, floor and predicted latency.

Imports no room.
"""
