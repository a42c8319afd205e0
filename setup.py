"""Everything declarative is in setup.cfg; this file exists for the tools that still ask for it."""

from setuptools import setup

setup()
