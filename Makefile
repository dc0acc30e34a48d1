# make demo   sets up .venv (the runtime, no torch), draws an unseen place and re-ranks it
# make test   sets up .venv and .venv-test (with torch for the export), then lint, types, tests
# make test-numerics   the numeric tests as other CPUs and numbers of threads would round (an hour)
# make test-ray   installs the extra `ray` into .venv-test and tests it on this machine's loopback
# make test-transformers5   the tests of export in .venv-transformers5, with transformers 5
# make dist   wheel, hashed requirements, SBOM and licences, in dist/; make test-dist   and a container's steps
PYTHON ?= python3
# Python keeps what it compiles, module by module as they are used: installing compiles nothing.
export PYTHONDONTWRITEBYTECODE =
PIP = PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=constraints.txt
RUN = .venv/bin
TEST = .venv-test/bin
DIST = .venv-dist/bin

.PHONY: demo test test-numerics test-ray test-transformers5 lint fuzz benchmark dist test-dist clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) $(RUN)/python -m pip install --quiet --no-compile -e '.[cpu]'
	touch $@

.venv-test/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-test
	$(PIP) $(TEST)/python -m pip install --quiet --no-compile -e '.[cpu,export,hf-encoders,openvino,plot,serve,dev]'
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

# These fork at each step of each verb: from a process with torch in it that takes five times as long.
FORKS = $(addprefix tests/faults/test_,engine_verbs.py layer.py runtime_verbs.py)
test: .venv/installed lint
	$(RUN)/python tests/bare_environment.py
	$(TEST)/python -m pytest $(FORKS)
	$(TEST)/python -m pytest $(FORKS:%=--ignore=%)
	$(TEST)/python tests/numerics.py --short

test-numerics: .venv-test/installed
	$(TEST)/python tests/numerics.py

test-ray: .venv-test/installed
	$(PIP) $(TEST)/python -m pip install --quiet --no-compile -e '.[ray]'
	RAY=1 $(TEST)/python -m pytest -q tests/ray

# The pins of constraints.txt, but for those that constraints-transformers5.txt replaces.
.venv-transformers5/installed: pyproject.toml constraints.txt constraints-transformers5.txt
	$(PYTHON) -m venv .venv-transformers5
	awk -F== 'NR == FNR { new[$$1]; print; next } !($$1 in new)' constraints-transformers5.txt constraints.txt > \
		.venv-transformers5/constraints.txt
	PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=.venv-transformers5/constraints.txt \
		.venv-transformers5/bin/python -m pip install --quiet --no-compile -e '.[cpu,export,plot,dev]'
	touch $@

# PEFT asks transformers 5 for what that renamed.
test-transformers5: .venv-transformers5/installed
	.venv-transformers5/bin/python -m pytest -q \
		-W 'ignore:`is_gradient_checkpointing` is deprecated:FutureWarning' tests/export

# FAULTS=all takes 13 CPU minutes before the fuzzing starts.
# FUZZ_SECONDS, FUZZ_SEED, FUZZ_TARGETS, FUZZ_FOLDER: see tests/fuzz/README.md
fuzz: .venv-test/installed
	FAULTS=all $(TEST)/python -m pytest -q tests/faults
	PYTHONPATH=tests $(TEST)/python -m fuzz

benchmark: .venv/installed .venv-test/installed
	$(RUN)/python benchmarks/kernels.py
	$(RUN)/python benchmarks/footprint.py
	$(TEST)/python benchmarks/scoring.py

.venv-dist/installed: Makefile
	$(PYTHON) -m venv .venv-dist
	$(PIP) $(DIST)/python -m pip install --quiet cyclonedx-bom==7.5.0 uv==0.13.9
	touch $@

# DIST_EXTRAS="gpu serve" for a machine with a GPU
DIST_EXTRAS ?= cpu serve
dist: .venv-dist/installed
	rm -rf dist
	$(DIST)/uv build --quiet --wheel --build-constraints constraints.txt -o dist
	$(DIST)/uv pip compile pyproject.toml $(DIST_EXTRAS:%=--extra %) -c constraints.txt --universal \
		--python-version 3.10 --generate-hashes --no-header --no-annotate --quiet -o dist/requirements.txt
	$(DIST)/uv venv --quiet --clear --python $(PYTHON) .venv-dist/runtime
	$(DIST)/uv pip install --quiet --python .venv-dist/runtime --require-hashes -r dist/requirements.txt
	$(DIST)/uv pip install --quiet --python .venv-dist/runtime --no-deps dist/*.whl
	.venv-dist/runtime/bin/python examples/deploy/licenses.py dist/THIRD_PARTY_LICENSES.txt
	$(DIST)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		-o dist/sbom.cdx.json .venv-dist/runtime

test-dist: dist .venv-test/installed
	DIST=dist $(TEST)/python -m pytest -q tests/runtime/test_deploy.py

clean:
	rm -rf .venv .venv-test .venv-transformers5 .venv-dist dist demo-out .pytest_cache .mypy_cache .ruff_cache
