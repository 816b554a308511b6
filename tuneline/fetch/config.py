"""Section `fetch`: which data packages of packages.yaml are brought into data/raw."""

from tuneline.runtime.params import Section


class Fetch(Section):
    packages: list[str]
    """Names of data packages; an empty list needs no network."""
