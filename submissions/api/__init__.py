"""The published interface, /api/v1: what the client and the pages' scripts speak."""
