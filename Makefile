# `make help` lists the targets. State is under .m2m (or $M2M_HOME); the Python environment is .venv.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3.11
DATA ?= online_retail
ADVERTISERS ?= 20000
BIN := .venv/bin
INSTALLED := .venv/installed
PEERS := .venv-peers

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

.PHONY: tools
tools:
	@command -v $(PYTHON) >/dev/null && $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 is needed and '$(PYTHON)' is not it; name yours: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@java -version 2>&1 | grep -qE 'version "17[."]' || \
	  { echo "Java 17 is needed: found $$(java -version 2>&1 | head -n 1); install it or set PATH to it" >&2; exit 1; }

# Made again only when what it is made from changes.
$(INSTALLED): requirements.txt requirements-dev.txt constraints.txt pyproject.toml | tools
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing requirements.txt and requirements-dev.txt into .venv: about 240 packages, 3 GB, a few minutes"
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt 'setuptools>=77' -c constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: venv
venv: $(INSTALLED) ## Python environment in .venv
	@:

.PHONY: demo
demo: tools $(INSTALLED) ## The DAGs on a data set, with a summary; DATA=online_ads, online_retail, or simulated with ADVERTISERS=20000
	@$(BIN)/python examples/demo.py --data $(DATA) --advertisers $(ADVERTISERS) $(if $(LAST_DAY),--last-day $(LAST_DAY))

# exec: Ctrl-C reaches the program, which stops both servers, and make waits for it.
.PHONY: ui
ui: tools $(INSTALLED) ## Console, Airflow and MLflow on localhost until Ctrl-C; CONSOLE_PORT=8501 AIRFLOW_PORT=8080 MLFLOW_PORT=5000
	@AIRFLOW_PORT=$(or $(AIRFLOW_PORT),8080) MLFLOW_PORT=$(or $(MLFLOW_PORT),5000) CONSOLE_PORT=$(or $(CONSOLE_PORT),8501) \
	  exec $(BIN)/python examples/ui.py

.PHONY: console
console: $(INSTALLED) ## The forecasts in a browser, on localhost until Ctrl-C; CONSOLE_PORT=8501 CONFIG=examples/online_retail/pipeline.toml
	@exec $(BIN)/python -m pipelines console --port $(or $(CONSOLE_PORT),8501) \
	  --config $(or $(CONFIG),$(M2M_CONFIG),examples/online_retail/pipeline.toml)

.PHONY: env
env: $(INSTALLED) ## The deployment's variables for a shell: eval "$(make -s env)"
	@$(BIN)/python examples/local_deployment.py

.PHONY: test
# Those with Airflow, a cluster or Spark mostly wait for processes, so all kinds run at once: the soak's ten days beside
# Airflow's, Spark's in two halves. The log shows the last half as it goes, and the others' at their end. No Java here
# lives long enough for its second compiler, and each of a hundred starts sooner with the archive of its classes.
test: export SPARK_SUBMIT_OPTS := -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m
test: tools $(INSTALLED) ## All tests
	@rm -rf .pytest_cache/d/expectations; $(BIN)/python -m pipelines.spark.classes
	@logs=$$(mktemp -d); half="tests/pipelines/life tests/bad_input"; \
	  $(BIN)/python -m pytest -m cluster >$$logs/4 2>&1 & cluster=$$!; \
	  $(BIN)/python -m pytest -m "(airflow or soak) and not cluster" >$$logs/3 2>&1 & airflow=$$!; \
	  $(BIN)/python -m pytest -m "not spark and not airflow and not cluster" >$$logs/1 2>&1 & light=$$!; \
	  $(BIN)/python -m pytest -m "spark and not airflow and not cluster and not soak" $$half >$$logs/2 2>&1 & life=$$!; \
	  trap "kill $$cluster $$airflow $$light $$life" INT TERM; \
	  $(BIN)/python -m pytest -m "spark and not airflow and not cluster and not soak" $${half//tests/--ignore=tests}; failed=$$?; \
	  for kind in $$light $$life $$airflow $$cluster; do wait $$kind || failed=1; done; cat $$logs/[1234]; rm -r $$logs; \
	  $(BIN)/python tests/expectations.py || failed=1; exit $$failed

.PHONY: test-fast
test-fast: tools $(INSTALLED) ## What needs no Spark and no Airflow, under a minute
	$(BIN)/python -m pytest -m "not spark and not airflow and not cluster and not slow"

# What results are compared with, apart from all else: its libraries want versions of their own.
$(PEERS)/installed: benchmarks/peers-requirements.txt | tools
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@echo "Installing benchmarks/peers-requirements.txt into $(PEERS): about 60 packages, 2 GB, a few minutes"
	@$(PEERS)/bin/python -m pip install -q --disable-pip-version-check --retries 1 -r $< >$(PEERS)/pip.log 2>&1
	@touch $@

.PHONY: results
results: $(INSTALLED) ## Accuracy against every baseline, with spread: docs/results.md, docs/newcomers.md; many trainings
	@$(MAKE) -s $(PEERS)/installed 2>/dev/null || echo "No neuralforecast: results go on without what a user would" \
	  "pick instead ($(PEERS)/pip.log says why; a network is needed once)" >&2
	@GOMP_SPINCOUNT=1000 PYTHONPATH=. $(BIN)/python -u benchmarks/results.py $(if $(DATASETS),--data $(DATASETS))
	@GOMP_SPINCOUNT=1000 PYTHONPATH=. $(BIN)/python -u benchmarks/newcomers.py

.PHONY: studies
studies: $(INSTALLED) ## The paper's studies (history, width, depth, experts) on online_retail: docs/studies.md
	@GOMP_SPINCOUNT=1000 PYTHONPATH=. $(BIN)/python -u benchmarks/studies.py

.PHONY: totals
totals: $(INSTALLED) ## Whether the intervals of totals hold what they say: docs/totals.md
	@GOMP_SPINCOUNT=1000 PYTHONPATH=. $(BIN)/python -u benchmarks/totals.py

.PHONY: refit
refit: $(INSTALLED) ## What weights that learned from the newest month too are worth, twelve weeks of online_retail: docs/refit.md
	@GOMP_SPINCOUNT=1000 PYTHONPATH=. $(BIN)/python -u benchmarks/refit.py

.PHONY: recovery
recovery: $(INSTALLED) ## Whether M2M finds known scenario-specific responses in made-up data: docs/recovery.md
	@GOMP_SPINCOUNT=1000 PYTHONPATH=. $(BIN)/python -u benchmarks/recovery.py

# Not part of `make results`: it reads what that one found, and takes half as long again.
.PHONY: place
place: $(INSTALLED) ## Where M2M beats other networks and LightGBM, and which of its parts help: docs/place.md; MINUTES=15
	@PYTHONPATH=. $(BIN)/python -u benchmarks/place.py $(if $(MINUTES),--minutes $(MINUTES))

# Without DAYS: the quarter, which writes its section and picture.
.PHONY: soak
soak: tools $(INSTALLED) ## Days lived one by one with daily retraining and mishaps, then an audit: docs/reliability.md; DAYS=10 only looks
	@GOMP_SPINCOUNT=1000 PYTHONPATH=. $(BIN)/python -u -m benchmarks.soak $(if $(DAYS),--days $(DAYS),--out docs/reliability.md)

.PHONY: lint
lint: $(INSTALLED) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(INSTALLED) ## mypy, strict, of all but the tests
	$(BIN)/mypy

.PHONY: bench-model
bench-model: $(INSTALLED) ## The network's speed against its textbook form and its bare backbone
	@PYTHONPATH=. $(BIN)/python benchmarks/model.py

.PHONY: bench-gpu
bench-gpu: $(INSTALLED) ## Windows a second on a GPU, where the time goes (a CPU runs it small); OUT=docs/gpu.md
	@PYTHONPATH=. $(BIN)/python -u benchmarks/gpu.py $(if $(OUT),--out $(OUT) --json $(OUT:.md=.json))

.PHONY: bench-scale
bench-scale: $(INSTALLED) ## Time, memory and disk of every stage; SIZES=10000,100000,1000000: docs/scale.md
	@PYTHONPATH=. $(BIN)/python -u benchmarks/scale.py $(if $(SIZES),--sizes $(SIZES))

.PHONY: bench-sequences
bench-sequences: $(INSTALLED) ## Building sequences beside Polars and plain Spark, a day beside a rebuild: docs/sequences.md
	@PYTHONPATH=. $(BIN)/python -u benchmarks/sequences.py --out docs/sequences.md

.PHONY: bench-scoring
bench-scoring: $(INSTALLED) ## Scoring in Spark beside the bare network on the same windows: docs/scoring.md
	@PYTHONPATH=. $(BIN)/python -u benchmarks/scoring.py --out docs/scoring.md

.PHONY: bench-start
bench-start: $(INSTALLED) ## What a command costs before it does anything: help, a look, a stage and a day of ten advertisers
	@PYTHONPATH=. $(BIN)/python -u benchmarks/start.py

.PHONY: bench-console
bench-console: $(INSTALLED) ## Seconds of every page of the console over 200 advertisers; ADVERTISERS=20000 OUT=docs/console_speed.md
	@PYTHONPATH=. $(BIN)/python -u benchmarks/console.py --advertisers $(ADVERTISERS) $(if $(OUT),--out $(OUT))

.PHONY: pictures
pictures: $(INSTALLED) ## Pictures of the console's pages, by a real Chromium: docs/images/console-*.png; CONFIG=, ADVERTISER=
	@PYTHONPATH=. $(BIN)/python -m benchmarks.console_pictures --out docs/images --config $(CONFIG) --advertiser "$(ADVERTISER)"

.PHONY: bench-cluster
bench-cluster: $(INSTALLED) ## What a second executor saves, and how long failures hold training up, on a cluster of this machine
	@PYTHONPATH=. $(BIN)/python -u benchmarks/cluster.py

.PHONY: bench-drift
bench-drift: $(INSTALLED) ## How often drift is called by itself, how soon planted drifts are seen, who knows its error: docs/drift.md
	@GOMP_SPINCOUNT=1000 PYTHONPATH=. $(BIN)/python -u -m benchmarks.drift

.PHONY: bench-gate
bench-gate: $(INSTALLED) ## How often the gate errs: the same model again, and challengers planted worse and better: docs/gate.md
	@GOMP_SPINCOUNT=1000 PYTHONPATH=. $(BIN)/python -u benchmarks/gate.py

.PHONY: dictionary
dictionary: $(INSTALLED) ## Make docs/data_dictionary.md again
	$(BIN)/python -c 'from pipelines.config import load_config; from pipelines.warehouse.tables import data_dictionary; \
	  print(data_dictionary(load_config("examples/online_ads/pipeline.toml")), end="")' > docs/data_dictionary.md

.PHONY: site
site: $(INSTALLED) ## The documentation as a site that opens from a disk: build/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q
	@echo "build/site/index.html"

.PHONY: clean
clean: ## Remove .venv and caches; state (.m2m) stays
	rm -rf .venv $(PEERS) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis spark-warehouse
