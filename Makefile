# Everything that a person does with this tree. `make` alone lists it.

# Before GNU make 4.4, $(shell) does not see what is exported below.
ARCH    ?= $(shell PATH="$$PATH:/usr/local/go/bin" go env GOARCH 2>/dev/null)
KERNEL  ?= cloud
OUT     := out
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
OSCINE  := $(OUT)/bin/oscine

# Without gRPC's pages about requests, whose templates have the linker keep every method.
GO_BUILD := go build -trimpath -tags grpcnotrace -ldflags "-s -w -X oscine.dev/oscine/internal/version.Version=$(VERSION)"

# Shows that what may take long is at work, and for how long.
PROGRESS := scripts/progress.sh

export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin
MAKEFLAGS   += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help setup build bpf image packs demo demo-chat test test-fast test-vm lint fuzz generate bench-boot bench-place bench-isolation bench-serve bench-instructions bench-engines bench-delta clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what building and testing needs and this machine lacks
	@scripts/setup.sh

.PHONY: setup-demo
setup-demo:
	@scripts/setup.sh --demo

build: bpf ## build the programs for this machine into out/bin
	@mkdir -p $(OUT)/bin
	@CGO_ENABLED=0 $(PROGRESS) 'build the programs' $(GO_BUILD) -o $(OUT)/bin/ ./cmd/... github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
	@$(PROGRESS) 'build runc' scripts/build-runc.sh $(OUT)/bin/runc

# The same bytes on every host, by the pinned clang: see internal/bpf.
BPF := $(patsubst %.c,%.o,$(wildcard internal/*/*/bpf/*.bpf.c))

bpf: $(BPF)

%.bpf.o: %.bpf.c internal/bpf/kernel.h internal/bpf/compile/main.go internal/debian/lock.json
	@$(PROGRESS) 'compile $(<F)' go run ./internal/bpf/compile $<

image: build ## build the disk image: make image [ARCH=arm64] [KERNEL=cloud|metal|rt]
	@$(OSCINE) image build --arch $(ARCH) --kernel $(KERNEL) -o $(OUT)/oscine-$(ARCH).img

packs: build ## build the packs of engines and drivers from their pinned packages
	@for name in onnxruntime llama.cpp nvidia; do $(OSCINE) pack build --arch $(ARCH) -o $(OUT)/packs $$name || exit 1; done

demo: setup-demo build ## boot an image, serve a model, read 500 digits, upgrade: make demo [KEEP=1] [UPGRADE=0]
	@$(OSCINE) demo $(if $(KEEP),--keep) $(if $(filter 0,$(UPGRADE)),,--upgrade)

demo-chat: setup-demo build ## the same without upgrades, and ask a language model in the machine
	@$(OSCINE) demo --chat $(if $(KEEP),--keep)

# Prints the outcome of go test -json; see its doc.go.
REPORT   := go run ./internal/rules/testreport
ONLY_LISTED := -skips internal/rules/testreport/skips.txt

# Packages whose tests boot machines: all of their tests run once, after the others.
BOOTING := go list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | grep -E '/(machinetest|guesttest)\b' | cut -d' ' -f1

test: as-root setup build lint test-inputs ## check style, run all tests, those in booted machines too; fails on skips that are not listed
	@booting=$$($(BOOTING)) && go test -json -timeout 25m $$(go list ./... | grep -vxF "$$booting") | $(REPORT) $(ONLY_LISTED)
	@OSCINE_VM_TESTS=1 go test -json -p 1 -timeout 40m $$($(BOOTING)) | $(REPORT) $(ONLY_LISTED)

# Without it their tests would be skipped, which make test counts as failures.
.PHONY: as-root
as-root:
	@[ "$$(id -u)" = 0 ] || { echo "make test: tests of namespaces, cgroups and mounts need root: sudo make test. As a normal user: make test-fast" >&2; exit 1; }

# What tests read from the cache, and would skip without.
.PHONY: test-inputs
test-inputs: build
	@for arch in amd64 arm64; do $(OSCINE) image build --arch $$arch -o $(OUT)/oscine-$$arch.img || exit 1; done
	@for name in onnxruntime llama.cpp optimize-onnx optimize-gguf optimize-openvino; do $(OSCINE) pack build --arch $(ARCH) -o $(OUT)/packs $$name || exit 1; done
	@go run ./internal/serve/engine/modeltest/fetch
	@go run ./internal/samples/fetch
	@scripts/python-clients.sh >/dev/null
	@scripts/python-clients.sh internal/update/source/testdata/python-tuf.txt >/dev/null
	@scripts/python-clients.sh internal/signature/testdata/model-signing.txt >/dev/null
	@[ $(ARCH) != amd64 ] || scripts/python-clients.sh internal/bench/loadgen/testdata/mlcommons-loadgen.txt >/dev/null # it has no wheel for others
	@scripts/node-clients.sh internal/update/source/testdata/tuf-js >/dev/null

.PHONY: test-engines
test-engines: build ## compare every engine with its own Python API, bit for bit, on real models
	@go run ./internal/serve/engine/modeltest/fetch tensorflow pytorch
	@python=$$(scripts/engines-python.sh) && OSCINE_ENGINES_PYTHON=$$python go test -count=1 -timeout 45m -p 1 -v ./cmd/oscine-engine ./internal/serve/engine/... && \
		OSCINE_ENGINES_PYTHON=$$python go test -count=1 -timeout 25m -v -run TestHostedPyTorch ./internal/systemtest

.PHONY: test-driver
test-driver: build ## build NVIDIA's driver for the pinned kernel, and give it to a machine under Secure Boot
	@OSCINE_VM_TESTS=1 OSCINE_DRIVER_TESTS=1 go test -count=1 -v -timeout 45m -run 'TestKernelDriver$$' ./internal/systemtest

test-fast: bpf ## run the tests that boot no machine
	@go test -json -timeout 25m ./... | $(REPORT)

test-vm: build ## run the tests of the packages that boot machines
	@OSCINE_VM_TESTS=1 go test -json -p 1 -timeout 40m $$($(BOOTING)) | $(REPORT)

.PHONY: test-upgrade test-powercut
test-upgrade: build ## upgrade a machine to releases that fail in every way; each must end with the version before
	@OSCINE_VM_TESTS=1 OSCINE_UPGRADE_TESTS=1 go test -v -timeout 60m -run 'Test(UpgradeMachine|UpgradeToBroken|UpgradeFromPeer|EncryptedUpgrade)' ./internal/systemtest

test-powercut: build ## cut the power at random moments of an upgrade: make test-powercut [CUTS=200]
	@OSCINE_VM_TESTS=1 OSCINE_POWERCUTS=$(or $(CUTS),200) go test -v -timeout 48h -run TestUpgradePowerCut ./internal/systemtest

lint: ## gofmt, go vet and staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
		if [ -n "$$unformatted" ]; then echo "not formatted, run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	@$(PROGRESS) 'go vet' go vet ./...
	@$(PROGRESS) 'staticcheck' go tool staticcheck ./...

fuzz: ## run every fuzz target: make fuzz [FUZZTIME=30s]
	@scripts/fuzz.sh $(or $(FUZZTIME),30s)

generate: ## regenerate code
	@go generate ./...

bench-boot: image ## boot time by stage, and memory, beside a minimal Debian: make bench-boot [ALONE=1] [RUNS=3] [ARCH=arm64]
	@$(OSCINE) bench boot --image $(OUT)/oscine-$(ARCH).img --arch $(ARCH) --runs $(or $(RUNS),3) $(if $(ALONE),--alone)

OPENB := ../shared/data/openb

bench-place: ## all published cells of the openb experiment beside ours, then the speed figures
	@go run ./cmd/oscine sim --nodes $(OPENB)/openb_node_list_gpu_node.csv --pods '$(OPENB)/openb_pod_list_*.csv' --policy all --published $(OPENB)/expected/summary-published.csv
	@go test -run '^$$' -bench 'Placements|Admission|Preempt|Gang' -benchtime 20x -cpu 1 ./internal/sim ./internal/place

bench-isolation: bpf ## wake-up latency of the classes against batch load, beside stock Linux
	@mkdir -p $(OUT)
	@go run ./internal/bench/isolation -o $(OUT)/isolation.json

bench-serve: ## processor time of a request to a model beside echo servers, the engine alone and other model servers
	@mkdir -p $(OUT)
	@go run ./internal/bench/cost -o $(OUT)/cost.json

bench-instructions: ## instructions of a request to a model, in a guest, beside those of echo servers
	@go run ./internal/bench/cost -instructions -rounds 3

bench-engines: ## processor time of every engine served beside the engine alone, and of other model servers; tokens beside llama-server alone
	@mkdir -p $(OUT)
	@go run ./internal/samples/fetch
	@go run ./internal/bench/cost -engines -o $(OUT)/engines.json
	@go test -run '^$$' -bench Tokens -benchtime 5x ./internal/serve

.PHONY: gpu-check
gpu-check: build ## on a machine with a GPU, as root: probe it, give it to engines in containers, compare them with the CPU
	@go run ./internal/gpucheck

bench-delta: ## print the size of an update between two disk images: make bench-delta OLD=a.img NEW=b.img
	@$(OSCINE) release delta $(OLD) $(NEW)

clean: ## remove what was built; caches outside the tree stay
	@rm -rf $(OUT) $(BPF)
