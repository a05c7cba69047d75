"""What a Dataflow user passes as --setup_file; the metadata is in pyproject.toml."""

from setuptools import find_packages, setup

FOLDERS = "pipelines transforms schemas connectors stores serving console runners".split()
setup(
    packages=find_packages(include=[f"{folder}*" for folder in FOLDERS]),
    package_data={
        "schemas": ["avro/*.avsc", "avro/released/*/*.avsc", "avro/events/*/*.*"],
        "pipelines.operations.report": ["*.html", "*.css"],
    },
)
