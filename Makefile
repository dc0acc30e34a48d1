# make demo   sets up .venv (the runtime, no torch), draws an unseen place and re-ranks it
# make test   sets up .venv and .venv-test (with torch for the export), then lint, types, tests
# make test-numerics   the numeric tests as other CPUs and numbers of threads would round (an hour)
PYTHON ?= python3
PIP = PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=constraints.txt
RUN = .venv/bin
TEST = .venv-test/bin

.PHONY: demo test test-numerics lint fuzz benchmark clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) $(RUN)/python -m pip install --quiet -e '.[cpu]'
	touch $@

.venv-test/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-test
	$(PIP) $(TEST)/python -m pip install --quiet -e '.[cpu,export,plot,serve,dev]'
	touch $@

demo: .venv/installed
	$(RUN)/murank world -o demo-out/crowd --domain crowd --people 60 --distractors 60 --seed 2026 --place 2026 --overwrite
	$(RUN)/murank score benchmarks/miniature/engine --dataset market1501 --root demo-out/crowd -o demo-out/job --overwrite
	$(RUN)/murank rerank demo-out/job --method k-reciprocal -o demo-out/job --sheet demo-out/sheet.png --overwrite
	$(RUN)/murank evaluate demo-out/job
	@echo "the picture: demo-out/sheet.png"

lint: .venv-test/installed
	$(TEST)/ruff format --check .
	$(TEST)/ruff check .
	$(TEST)/mypy

test: .venv/installed lint
	$(RUN)/python tests/bare_environment.py
	$(TEST)/python -m pytest
	$(TEST)/python tests/numerics.py --short

test-numerics: .venv-test/installed
	$(TEST)/python tests/numerics.py

# FAULTS=all takes 13 CPU minutes before the fuzzing starts.
# FUZZ_SECONDS, FUZZ_SEED, FUZZ_TARGETS, FUZZ_FOLDER: see tests/fuzz/README.md
fuzz: .venv-test/installed
	FAULTS=all $(TEST)/python -m pytest -q tests/faults
	PYTHONPATH=tests $(TEST)/python -m fuzz

benchmark: .venv/installed .venv-test/installed
	$(RUN)/python benchmarks/kernels.py
	$(RUN)/python benchmarks/footprint.py
	$(TEST)/python benchmarks/scoring.py

clean:
	rm -rf .venv .venv-test demo-out .pytest_cache .mypy_cache .ruff_cache
