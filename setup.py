"""What is installed with glm/: the two scripts as `glm.scripts`, the models' configurations as `glm.configs.model`.

In a checkout both stand where they are used by path, beside glm/; see pyproject.toml for the rest.
"""

from setuptools import find_packages, setup

BESIDE = {"glm.scripts": ".", "glm.configs.model": "configs/model"}

setup(
    packages=[*find_packages(include=["glm", "glm.*"]), *BESIDE],
    package_dir={"glm": "glm", **BESIDE},
    package_data={"": ["*.jinja", "*.html"], "glm.configs.model": ["*.json"]},
)
