"""Licence, citation, changelog and workflows agree with the project: versions, terms, and targets of the Makefile."""

import datetime
import hashlib
import re
import tomllib

import pytest
import yaml

from tests.helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE))
WORKFLOWS = {path.stem: path for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
ACTIONS = [*WORKFLOWS.values(), *sorted((ROOT / ".github/actions").glob("*/action.yml"))]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_licence_is_apaches_own_text():
    # Of https://www.apache.org/licenses/LICENSE-2.0.txt.
    digest = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == digest
    assert (PROJECT["license"], PROJECT["license-files"]) == ("Apache-2.0", ["LICENSE", "NOTICE"])


def test_the_notice_has_the_terms_of_every_package_that_the_pipeline_may_download():
    notice = " ".join(text("NOTICE").split())
    packages = yaml.safe_load(text("tuneline/packages.yaml"))
    terms = {"lawbench": "Apache License 2.0", "gemma-3-270m": "Gemma Terms of Use"}
    assert packages.keys() == terms.keys()
    for name, term in terms.items():
        assert term in notice
        assert term in packages[name]["notice"]
        first = packages[name]["wheels"][0]["requirement"].partition("==")[0]
        assert first in notice
    own = {path.name for path in (ROOT / "data/raw").glob("[!.]*") if path.is_file()}
    assert {name for name in own if f"data/raw/{name}" not in notice} == set()


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load(text("CITATION.cff"))
    # The keys that the format asks for.
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "The Tuneline developers"}] == PROJECT["authors"]
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert isinstance(citation["date-released"], datetime.date)


def test_the_changelog_has_this_version_and_its_date():
    heads = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", text("CHANGELOG.md"), re.MULTILINE)
    assert heads[0] == ("Unreleased", "")
    released = yaml.safe_load(text("CITATION.cff"))["date-released"]
    assert heads[1] == (PROJECT["version"], released.isoformat())
    kinds = set(re.findall(r"^### (.+)$", text("CHANGELOG.md"), re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def made(words: str) -> set[str]:
    """Targets that commands ask make for."""
    calls = re.findall(r"^(?:.*\s|)make((?: +[\w=.\"$/{}-]+)+)", words, re.MULTILINE)
    return {word for call in calls for word in call.split() if re.fullmatch(r"[a-z][a-z-]*", word)}


def commands(path) -> str:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    jobs = document["jobs"].values() if "jobs" in document else [document["runs"]]
    return "\n".join(step.get("run", "") for job in jobs for step in job["steps"])


def test_workflows_call_targets_that_the_makefile_has():
    asked = {name: made(commands(path)) for name, path in WORKFLOWS.items()}
    assert asked == {"changes": {"changes"}, "check": {"check", "lint-ci"}, "docs": {"docs"}, "test": {"test"}}
    ours = made(re.sub(r"^#.*$", "", text(".ci/run"), flags=re.MULTILINE))
    assert ours == {"check", "test"}
    # The site comes with its own settings.
    later = set() if (ROOT / "mkdocs.yml").is_file() else {"docs"}
    needed = set().union(
        *asked.values(), ours, *(made(commands(path)) for path in ACTIONS), made(blocks("CONTRIBUTING.md"))
    )
    assert needed - later - TARGETS == set()


def blocks(name: str) -> str:
    """Command blocks and commands within the text of a page."""
    found = re.findall(r"^```bash\n(.*?)^```|`(make [^`]*)`", text(name), re.MULTILINE | re.DOTALL)
    return "\n".join(block or inline for block, inline in found)


def test_every_target_is_phony():
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())
    assert phony == TARGETS


@pytest.mark.parametrize("path", ACTIONS, ids=lambda path: path.parent.name + "/" + path.name)
def test_actions_are_github_s_own_by_major_version(path):
    used = re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8"))
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+|\./\.github/actions/[a-z]+", one) for one in used)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_only_read_and_ends(name):
    document = yaml.safe_load(WORKFLOWS[name].read_text(encoding="utf-8"))
    assert document["permissions"] == {"contents": "read"}
    for job_name, job in document["jobs"].items():
        assert job["timeout-minutes"] <= 90
        allowed = {"pages": "write", "id-token": "write"} if job_name == "publish" else None
        assert job.get("permissions") == allowed
        # What others may choose (a branch's name, say) reaches a shell as a variable, never as text of its command.
        assert not any("${{" in step.get("run", "") for step in job["steps"])
    assert "pull_request_target" not in WORKFLOWS[name].read_text(encoding="utf-8")
    assert "secrets." not in WORKFLOWS[name].read_text(encoding="utf-8")


def test_the_site_that_is_published_is_the_one_that_is_built():
    steps = yaml.safe_load(WORKFLOWS["docs"].read_text(encoding="utf-8"))["jobs"]["build"]["steps"]
    (uploaded,) = [step["with"]["path"] for step in steps if "upload-pages-artifact" in step.get("uses", "")]
    # The whole file holds names of Python, which a safe reader does not know.
    assert uploaded == re.search(r"^site_dir: (\S+)$", text("mkdocs.yml"), re.MULTILINE)[1]
    (built,) = [step for step in steps if step.get("run") == "make docs"]
    (variable,) = re.findall(r"^repo_url: !ENV \[(\w+), null\]$", text("mkdocs.yml"), re.MULTILINE)
    assert built["env"] == {variable: "${{ github.server_url }}/${{ github.repository }}"}


def test_checks_run_on_every_python_that_the_project_names():
    check = yaml.safe_load(WORKFLOWS["check"].read_text(encoding="utf-8"))
    versions = check["jobs"]["check"]["strategy"]["matrix"]["python"]
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    assert versions == [f"3.{minor}" for minor in range(int(low), int(high))]


def test_hooks_are_the_checks_of_make_check():
    config = yaml.safe_load(text(".pre-commit-config.yaml"))
    (repo,) = config["repos"]
    # Nothing is downloaded from elsewhere.
    assert repo["repo"] == "local"
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}
    recipe = MAKEFILE.partition("\ncheck: ")[2].partition("\n\n")[0]
    tools = [line.split()[0] for line in recipe.splitlines()[1:]]
    assert set(tools) == {re.search(r"/bin/(\w+)", hook["entry"])[1] for hook in repo["hooks"]}


def test_reports_of_faults_are_asked_for_without_private_data():
    forms = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")}
    assert forms.keys() == {"bug", "wish", "config"}
    assert "No private data" in forms["bug"]
    assert "tuneline plan --no-time" in forms["bug"]
    # No address is made up: GitHub's private reporting is there for everybody.
    assert not re.search(r"[\w.]+@[\w.]+\.\w+", text("SECURITY.md"))
    assert "private vulnerability reporting" in text("SECURITY.md")
