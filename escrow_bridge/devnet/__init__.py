"""A Qubic chain in a box: ticks, balances and the real contracts, compiled and run on this machine."""
