"""What a Dataflow user passes as --setup_file; the metadata is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["pipelines*", "transforms*", "schemas*", "stores*", "serving*", "runners*"]),
    package_data={"schemas": ["avro/*.avsc", "avro/released/*/*.avsc"], "pipelines": ["report/*.html", "report/*.css"]},
)
