"""What is installed with glm/: the two scripts as `glm.scripts`, the models' configurations as `glm.configs.model`.

In a checkout both stand beside glm/, where they are used by their paths; pyproject.toml has the rest.
"""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

BESIDE = {"glm.scripts": ".", "glm.configs.model": "configs/model"}


class BuildScripts(build_py):
    """Takes the scripts from beside this file, and not this file."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """See setuptools."""
        return [
            found
            for found in super().find_package_modules(package, package_dir)
            if found[1] != "setup" or package != "glm.scripts"
        ]


setup(
    packages=[*find_packages(include=["glm", "glm.*"]), *BESIDE],
    package_dir={"glm": "glm", **BESIDE},
    package_data={"": ["*.jinja", "*.html", "*.js", "exported/*.py"], "glm.configs.model": ["*.json"]},
    cmdclass={"build_py": BuildScripts},
)
