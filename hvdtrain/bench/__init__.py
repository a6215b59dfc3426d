"""Measurements that take the whole machine."""
