"""Metadata lives in pyproject.toml; this file only adds the native kernels."""

from setuptools import setup

setup()
