# make demo: launch the sample campaigns, compute features.   make test: run the tests.   Each sets up all it needs.
PYTHON ?= python3.11
BIN := .venv/bin
DEMO := out/demo

.PHONY: demo test engines check bench certificate certificate-flink certificate-features fuzz lock clean

demo: $(DEMO)/delivery/summary.json
	@$(BIN)/campaigns check $(DEMO)
	@$(BIN)/campaigns report $(DEMO)
	@$(BIN)/python -m examples.events.demo --output $(DEMO)/features

# A vendor that fails now and then, and the launch's events delivered to it. They are of 2017: times are ignored. A
# Ctrl-C is for the delivery: the shell ignores it, in the background the sandbox does too, and ends when that has.
$(DEMO)/delivery/summary.json: $(DEMO)/summary.json examples/journey/faults.yaml
	@rm -rf $(DEMO)/delivery $(DEMO)/sandbox.ndjson
	@$(BIN)/campaigns sandbox --port 8490 --script examples/journey/faults.yaml --record $(DEMO)/sandbox.ndjson & \
	sandbox=$$!; trap "kill $$sandbox" EXIT; trap : INT TERM; \
	SANDBOX_KEY=$${SANDBOX_KEY:-any-key-will-do} $(BIN)/campaigns rebatch --campaigns $(DEMO)/campaigns \
	  --events file:$(DEMO)/events --output $(DEMO)/delivery --drain --ignore_times

# A launch keeps to its inputs, so changed ones get a new launch.
$(DEMO)/summary.json: out/customers.parquet out/history.parquet $(shell find examples/journey/campaigns -type f)
	rm -rf $(DEMO)
	CAMPAIGNS_CODE_SECRET=$${CAMPAIGNS_CODE_SECRET:-this-secret-is-for-the-demo-only} $(BIN)/campaigns launch \
	  --campaigns examples/journey/campaigns --customers out/customers.parquet --history out/history.parquet \
	  --events file:$(DEMO)/events --output $(DEMO)

test: .venv/installed engines
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# What the engine tests and a service on one machine need, by version: Prism, Flink, Kafka, Redis, a Cloud Storage
# stand-in.
engines:
	@$(PYTHON) -m runners.local.install

check: .venv/installed
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy .

bench: .venv/installed engines
	$(BIN)/python -m bench.launch
	$(BIN)/python -m bench.rebatch
	$(BIN)/python -m bench.drain
	$(BIN)/python -m bench.engines
	$(BIN)/python -m bench.check
	$(BIN)/python -m bench.features

certificate: .venv/installed engines
	$(BIN)/python -m bench.certificate

certificate-flink: .venv/installed engines
	$(BIN)/python -m bench.certificate_flink

certificate-features: .venv/installed engines
	$(BIN)/python -m bench.certificate_features

# 100,000 odd events, each beside a good one, through the whole job: the job ends, the good ones are sent once. Then 50,000
# whole inputs, good and bad, through the command line, some hours: FUZZ_INPUTS="--seconds 3600" stops after one.
fuzz: .venv/installed
	$(BIN)/python -m bench.fuzz
	$(BIN)/python -m bench.input_fuzz $(FUZZ_INPUTS)

# One run makes both files: of a pattern with two targets make knows that, so either is made again when it is missing.
%/customers.parquet %/history.parquet: .venv/installed $(wildcard examples/journey/*.py)
	$(BIN)/python -m examples.journey.customers --output $*/customers.parquet --history $*/history.parquet

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Needs uv; versions and hashes only, so that the file serves any index.
lock:
	uv pip compile --quiet --python-version 3.11 --all-extras --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header pyproject.toml -o requirements.lock

clean:
	rm -rf out .venv .engines
