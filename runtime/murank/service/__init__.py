"""The appliance's service: an engine and a gallery over HTTP, for neighbours on the box.

Imports checks, files, engine, gallery, worker.
"""
