"""A decoder of netchan's protocol, written from docs/SPEC.md: it shares no code with netchan.

It is for reading, not for use: nothing here is constant in time, and nothing is erased.
"""
