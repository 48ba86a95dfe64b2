# Two commands to begin with: `make demo` and `make test`. Everything runs in .venv, made from the pinned requirements.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo serve env test test-docs screenshots check format docs bench bench-load bench-page bench-workers bench-evaluation bench-search bench-recovery bench-guarantee reproduce reproduce-vgg-l1 reproduce-vgg-slim reproduce-lottery zoo fuzz api-fuzz chaos partition cluster clean

help: ## what there is
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/installed ## train a small network, prune it by the service, compare the two (about two minutes)
	$(BIN)/secateur demo

serve: .venv/installed ## run the service on http://127.0.0.1:8000 with its data in ./secateur-data
	$(BIN)/secateur serve

env: ## .env for docker compose: every secret drawn at random, readable by you alone; one that is there stays
	@test ! -e .env || { echo ".env is there already: the database in its volume was made with its password"; exit 1; }
	@umask 077 && { for name in SECATEUR_TOKEN POSTGRES_PASSWORD RAY_AUTH_TOKEN AWS_SECRET_ACCESS_KEY; do \
		$(PYTHON) -c "import secrets; print('$$name=' + secrets.token_hex(32))" || exit 1; \
	done; echo "AWS_ACCESS_KEY_ID=secateur"; } > .env.new && mv .env.new .env

test: .venv/installed-dev ## the test suite (two processes; under ten minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder --durations=20

test-docs: .venv/installed-dev ## what the pages of docs/ and README say, done with curl, the command line and Python at a running service (some minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/docs/walkthrough.py --numprocesses=0

docs: .venv/installed-docs ## the documentation as a static site, in build/docs
	$(BIN)/python -m tests.docs.api_page
	$(BIN)/mkdocs build --strict --quiet

screenshots: .venv/installed-dev ## the pages as pictures, light, dark and narrow, in build/screenshots (needs Chromium; half a minute)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.browser.screenshots build/screenshots

check: .venv/installed-dev ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev ## put the code into its one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

zoo: .venv/installed ## every architecture of the zoo: traced, halved, compared, counted (twenty minutes)
	test -x .venv-zoo/bin/python || $(PYTHON) -m venv .venv-zoo
	.venv-zoo/bin/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.txt)"
	.venv-zoo/bin/pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/zoo/requirements.txt
	.venv-zoo/bin/python -m benchmarks.zoo.run --compare

fuzz: .venv/installed-dev ## fuzz the program reader for ten minutes (pip install atheris into .venv first)
	$(BIN)/python -m tests.fuzz.fuzz_program -len_control=0 -max_len=4096 -max_total_time=600

api-fuzz: .venv/installed-dev ## 10,000 and more calls made up from the OpenAPI document, at a running service (some minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.api $(FUZZ)

chaos: .venv/installed-dev ## kill -9 at 200 seeded moments over a running service; nothing may be lost (an hour and more)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos.run $(CHAOS)

partition: .venv/installed-dev ## two Ray nodes, the line between them cut for a minute while a job runs (as root, on Linux; some minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos.partition $(PARTITION)

cluster: .venv/installed-dev ## docker-compose.yml's cluster with two workers: health checks, a port scan, kills under a job, down and up (as root; ten minutes and more)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.deploy.cluster $(CLUSTER)

bench: .venv/installed-bench ## what a search costs, every figure beside its target: make bench DATA=cifar10.npz RESNET20=… RESNET56=… (an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed --data $(DATA) --resnet20 $(RESNET20) --resnet56 $(RESNET56)

bench-load: .venv/installed-dev ## 200 calls a second and 100,000 of them at a service with a job running; starts, memory (ten minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.load $(LOAD)

bench-page: .venv/installed-dev ## a page of 10,000 trials in Chromium, beside one of none: first paint, bytes, longest block (a minute)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.page --output benchmarks/results/page.json

bench-workers: .venv/installed-bench ## busy share of workers and the cost of a trial (five minutes; sleeps instead of evaluating)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.workers --output benchmarks/results/workers.json

bench-evaluation: .venv/installed-bench ## what evaluations cost: make bench-evaluation DATA=cifar10.npz WEIGHTS="resnet20.safetensors" (ten minutes a network)
	for weights in $(WEIGHTS); do \
		OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.evaluation --data $(DATA) --weights $$weights && \
		OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.rounds --data $(DATA) --weights $$weights && \
		OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.rounds --data $(DATA) --weights $$weights --images 2048 && \
		OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.workers --data $(DATA) --weights $$weights --trials 24 && \
		OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.throughput --data $(DATA) --weights $$weights && \
		OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.profile --data $(DATA) --weights $$weights || exit 1; \
	done

bench-search: .venv/installed-bench ## searchers against controls: make bench-search DATA=cifar10.npz WEIGHTS="resnet20.safetensors resnet56.safetensors" (hours; resumes)
	$(BIN)/python -m benchmarks.search --data $(DATA) --weights $(WEIGHTS) --batchnorm-alone
	$(BIN)/python -m benchmarks.search --data $(DATA) --weights $(WEIGHTS) --plot docs/search.svg
	$(BIN)/python -m benchmarks.search --data $(DATA) --weights $(WEIGHTS) --correlation --seeds 0

# What docs/recovery.md recommends for photographs.
RECIPE ?= {"learning_rate": 0.03, "warmup": 0.05, "features": 1.0, "augment": ["flips", "crops", "cutmix"]}
EPOCHS ?= 12

bench-recovery: .venv/installed-bench ## what is left of a search's lead after training: the networks that bench-search found (hours; resumes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.recovery --data $(DATA) --weights $(WEIGHTS) --ratios 0.7 0.5 0.3 --epochs $(EPOCHS) --recipe '$(RECIPE)'

bench-guarantee: .venv/installed-bench ## how often constraint.max_metric_drop holds on images that nobody saw: the digits, ten seeds (five minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.guarantee

reproduce: reproduce-vgg-l1 reproduce-vgg-slim reproduce-lottery ## three published experiments (see docs/results.md)

# DATA is an .npz of CIFAR-10, MNIST a folder of its files (else Debian's Fashion-MNIST, else digits); ARGS="--small" takes some 20 minutes on two cores.
reproduce-vgg-l1: .venv/installed-bench ## VGG-16 by the L1 norm of its filters: make reproduce-vgg-l1 DATA=cifar10.npz [ARGS=--small]
	$(BIN)/python -m benchmarks.reproduce.vgg_l1 $(if $(DATA),--data $(DATA)) $(ARGS)

reproduce-vgg-slim: .venv/installed-bench ## VGG-19 by Network Slimming: make reproduce-vgg-slim DATA=cifar10.npz [ARGS=--small]
	$(BIN)/python -m benchmarks.reproduce.vgg_slim $(if $(DATA),--data $(DATA)) $(ARGS)

reproduce-lottery: .venv/installed-bench ## lottery tickets of a fully connected network: make reproduce-lottery MNIST=folder [ARGS=--small]
	$(BIN)/python -m benchmarks.reproduce.lottery $(if $(MNIST),--data $(MNIST)) $(ARGS)

clean: ## remove the environment and what the service wrote here
	rm -rf .venv .venv-zoo secateur-data build *.egg-info

# torch comes first and alone, so that no other package's looser wish pulls in another build of it.
.venv/installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

.venv/installed-dev: .venv/installed requirements-s3.txt requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-s3.txt -r requirements-dev.txt
	touch $@

.venv/installed-docs: .venv/installed requirements-docs.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

.venv/installed-bench: .venv/installed requirements-bench.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	touch $@
