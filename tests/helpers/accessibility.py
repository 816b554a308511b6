"""What axe-core finds wrong with a page, in every language and colour scheme that it has."""

from collections.abc import Iterator

GRAVE = ("serious", "critical")


def grave_findings(page) -> list[str]:
    """What keeps people out, as `rule: element`: colours that can't be read, controls without a name and the like."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found if one["impact"] in GRAVE for node in one["nodes"]]


def looks(page) -> Iterator[str]:
    """The page in both languages and both schemes, everything that is folded open."""
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    for language in ("en", "zh"):
        page.locator(f".languages button[value={language}]").click()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            yield f"{language}, {scheme}"
