"""What an engine is made from: local folders, hashed, loaded quietly and never fetched.

Imports no room.
"""
