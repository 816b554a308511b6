"""Section `fetch`: which data packages of packages.yaml are brought into data/raw."""

from tuneline.runtime.params import Section
from tuneline.runtime.params.values import Names


class Fetch(Section):
    packages: Names
    """Names of data packages; an empty list needs no network."""
