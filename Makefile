# Set-up is a part of every target: a virtual environment in .venv, made once, and again when pyproject.toml or PYTHON
# changes. `make test PYTHON=python3.13` tests another Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(notdir $(PYTHON))
OLDEST_PYTHON ?= python3.11
OLDEST := .venv-oldest
TORCH ?= torch==2.13.0
TESTS ?= tests
PIP_OPTIONS := --quiet --disable-pip-version-check

.PHONY: demo test test-oldest coverage lint docs bench bench-supernet bench-accuracy bench-search bench-latency bench-export bench-faults pictures clean

demo: $(READY)  ## one trained network -> the best models for this machine, for three latency budgets
	@mkdir -p demo && cd demo && ../$(BIN)/ofa-deploy deploy --latency 10% --latency 30% --latency 60% || [ $$? -eq 3 ]

test: $(READY) lint  ## lint, types and all tests, three at a time, for some wait
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal $(TESTS)

test-oldest: $(OLDEST)/.ready  ## all tests with the oldest versions that pyproject.toml allows, which newer ones deprecate
	$(OLDEST)/bin/python -m pytest --numprocesses 3 --dist worksteal $(TESTS) \
		-W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning -W ignore::FutureWarning

coverage: $(READY)  ## all tests, and the lines of the package that they do not run in their own process
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

lint: $(READY)  ## style, format, types, layers and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell

docs: $(READY)  ## the documentation site, in build/site; broken links and docstrings fail
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)  ## error of this machine's latency tables on fresh whole networks, measured now
	$(BIN)/python benchmarks/latency_error.py --out build/bench

bench-supernet: $(READY)  ## speed of the elastic network, and what progressive shrinking brings (committed results)
	$(BIN)/python benchmarks/supernet_speed.py --show
	$(BIN)/python benchmarks/progressive_shrinking.py --show

bench-accuracy: $(READY)  ## speed of measuring accuracies, learning curves of predictors (committed results)
	$(BIN)/python benchmarks/sampling_speed.py --show
	$(BIN)/python benchmarks/sample_design.py --show
	$(BIN)/python benchmarks/many_samples.py --show
	$(BIN)/python benchmarks/predictor_error.py --show

bench-search: $(READY)  ## quality and speed of the search, its proofs, fronts, and kept promises (committed results)
	$(BIN)/python benchmarks/search_quality.py --show
	$(BIN)/python benchmarks/search_fronts.py --show
	$(BIN)/python benchmarks/search_promises.py --show

bench-latency: $(READY)  ## error of latency tables, of those fitted to whole networks, and the protocol (committed results)
	$(BIN)/python benchmarks/latency_error.py --show
	$(BIN)/python benchmarks/fitted_tables.py --show
	$(BIN)/python benchmarks/timing_protocol.py --show

bench-faults: $(READY)  ## what kills and damaged files do (committed results)
	$(BIN)/python benchmarks/faults.py --show

bench-export: $(READY)  ## accuracy, size, latency of exported files, and seconds to make them (committed results)
	$(BIN)/python benchmarks/export_quality.py --show
	$(BIN)/python benchmarks/export_seconds.py --show
	$(BIN)/python benchmarks/converters.py --show

pictures: $(READY)  ## the front and the page that the README shows; the page needs a Chromium
	$(BIN)/python benchmarks/pictures.py

$(READY): pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install $(PIP_OPTIONS) "pip>=25.1"
	$(BIN)/pip install $(PIP_OPTIONS) $(TORCH)
	$(BIN)/pip install $(PIP_OPTIONS) -e . --group dev
	@touch $@

$(OLDEST)/.ready: pyproject.toml
	$(OLDEST_PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/pip install $(PIP_OPTIONS) $(TORCH)
	$(OLDEST)/bin/pip install $(PIP_OPTIONS) "uv>=0.6"
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct -e . --group test
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) demo build *.egg-info
