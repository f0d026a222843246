"""Proof of a machine: a small program of ours, sent into the rented container, computes and keeps a matrix
product that fills what was rented; the caller checks it and the time it took. docs/proof.md.

`plan` what is asked, `band` how fast it must be, `verify` the challenge, `build` the program that is sent,
`run` the caller's side of the stream, `door` the provider's.
"""
