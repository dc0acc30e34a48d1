# make demo   sets up .venv (the runtime, no torch) and re-ranks a generated feature set
# make test   sets up .venv and .venv-test (with torch for the export), then lint, types, tests
PYTHON ?= python3
PIP = PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=constraints.txt
RUN = .venv/bin
TEST = .venv-test/bin

.PHONY: demo test lint benchmark clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) $(RUN)/python -m pip install --quiet -e '.[cpu]'
	touch $@

.venv-test/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-test
	$(PIP) $(TEST)/python -m pip install --quiet -e '.[cpu,export,dev]'
	touch $@

demo: .venv/installed
	mkdir -p demo-out
	$(RUN)/murank synthesize -o demo-out/features.npz --overwrite
	$(RUN)/murank rerank --features demo-out/features.npz --method k-reciprocal -o demo-out/k-reciprocal --overwrite
	$(RUN)/murank rerank --features demo-out/features.npz --method ecn -o demo-out/ecn --overwrite
	$(RUN)/murank rerank --features demo-out/features.npz --method ca-jaccard -o demo-out/ca-jaccard --overwrite

lint: .venv-test/installed
	$(TEST)/ruff format --check .
	$(TEST)/ruff check .
	$(TEST)/mypy

test: .venv/installed lint
	$(RUN)/python tests/bare_environment.py
	$(TEST)/python -m pytest

benchmark: .venv/installed .venv-test/installed
	$(RUN)/python benchmarks/kernels.py
	$(RUN)/python benchmarks/footprint.py
	$(TEST)/python benchmarks/scoring.py

clean:
	rm -rf .venv .venv-test demo-out try .pytest_cache .mypy_cache .ruff_cache
