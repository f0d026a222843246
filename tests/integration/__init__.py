"""Tests on real parts: sockets, threads, Docker, the devnet."""
