"""Rent and let machines from Python: the client of a qubix daemon's control API, for trio and asyncio."""
