"""Benchmarks: each prints its figures, as ratios where it can, and fails on no clock."""
