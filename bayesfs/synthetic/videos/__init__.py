"""A small renderer of ORBIT-shaped videos, for the demo and the tests."""
