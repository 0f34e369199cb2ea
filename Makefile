# `make quickstart` and `make test` create .venv and install when needed; afterwards they start at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# Written by `make quickstart`, which installs a part of it.
QUICK := $(VENV)/installed-quickstart
OUT ?= quickstart
DEMO ?= cluster-demo
TESTS ?= tests
TRIALS ?= 20
# One process per core, at most four: more of them would start more Rays than a laptop carries.
PYTEST := $(BIN)/python -m pytest -rs -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# A PYTHONPATH of the calling shell would put other copies of packages before those of .venv. Without stored bytecode,
# each process of the tests would compile all of them for ten seconds.
unexport PYTHONPATH PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install quickstart cluster-demo test test-quick test-long coverage campaign fuzz mutants cluster-test lint format docs clean

help:
	@echo "make quickstart   shard built-in figures, train, evaluate and report into $(OUT)/ (OUT=folder)"
	@echo "make cluster-demo the same as jobs on two Ray nodes and an S3 server, here (DEMO=folder)"
	@echo "make test         run the tests that a pull request must pass (TESTS=path to run some of them)"
	@echo "make test-quick   run the fast ones, which start no Ray, S3 server or browser"
	@echo "make test-long    run the long ones: whole jobs that are killed again and again, and variants of what make test covers"
	@echo "make coverage     make test, with the lines and branches that it runs"
	@echo "make campaign     kill and damage TRIALS=$(TRIALS) times in each test that does so at random; hours"
	@echo "make fuzz         fuzz each reader of foreign bytes (FUZZ=index SECONDS_EACH=3600)"
	@echo "make mutants      test SAMPLE=$(SAMPLE) mutants of each group; hours"
	@echo "make cluster-test whole clusters in network namespaces (root, openssh-server, rsync)"
	@echo "make lint         ruff, mypy --strict, import contracts"
	@echo "make docs         build the documentation into site/, with every link checked"
	@echo "make install      create $(VENV) with the tested set of packages"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a minute or two)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[tune,studio,test,cluster-test,s3-server,cloud,h5,trackers,dashboards,prepare,hub,onnx,dev,docs]"
	@touch $(QUICK) $(STAMP)

$(QUICK): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a minute or two)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[train]"
	@touch $(QUICK)

cluster-demo: $(STAMP)
	$(BIN)/python pipeline/cluster_demo.py --out $(DEMO)

quickstart: $(QUICK)
	$(BIN)/vdsm quickstart --out $(OUT)

test: $(STAMP)
	$(PYTEST) -m "not long and not campaign" $(TESTS)

test-quick: $(STAMP)
	$(PYTEST) -m "not (ray or s3 or browser or slow or long or campaign)" $(TESTS)

test-long: $(STAMP)
	$(PYTEST) -m long $(TESTS)

coverage: $(STAMP)
	$(PYTEST) -m "not long and not campaign" --cov=vdsm --cov=pipeline --cov=preprocessing --cov=cluster --cov-branch $(TESTS)

campaign: $(STAMP)
	$(BIN)/python -m pytest -rs --trials $(TRIALS) -m "long or campaign or repeated" $(TESTS)

FUZZ ?= index columns table manifest shard plan arrays sidecar list recipe run log config weights
SECONDS_EACH ?= 3600
fuzz: $(STAMP)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[fuzz]"
	@for target in $(FUZZ); do $(BIN)/python -m tests.fuzz.run $$target --seconds $(SECONDS_EACH) --corpus build/fuzz || exit 1; done

SAMPLE ?= 200
mutants: $(STAMP)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[mutation]"
	$(BIN)/python -m tests.mutants --sample $(SAMPLE)

# Whole clusters in network namespaces: root, iproute2, openssh-server and rsync; no cloud, no route out.
cluster-test: $(STAMP)
	VDSM_NAMESPACE_TESTS=1 $(BIN)/python -m pytest -rs tests/e2e/test_ray_up_aws.py tests/e2e/test_ray_up_onprem.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@if $(BIN)/python -m pipeline.web_studio.onnxruntime_web; then $(BIN)/vdsm studio --static site/studio; \
	else echo "left out: site/studio, the studio that runs in the browser (docs/studio.md)"; fi

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
