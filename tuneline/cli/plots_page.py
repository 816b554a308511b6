"""The scripts of DVC's page of plots, out of an installed package: `dvc plots show` then draws without internet.

python -m tuneline.cli.plots_page      (`make setup` runs it)
"""

from pathlib import Path

SCRIPTS = Path(".dvc/plots/vega.js")
"""Loaded by .dvc/plots/page.html, which .dvc/config names as the template of DVC's page."""
VEGA_LITE = "5.21"
"""DVC's own templates are written for version 5."""


def main() -> None:
    from vl_convert import javascript_bundle

    scripts = javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    # In a block: its names would else be the page's.
    SCRIPTS.write_text(f"{{{scripts}}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
