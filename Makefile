# lvs-operator. Every target does its own set-up on Debian 12 as root; what is
# slow is kept in ~/.cache/lvs-operator.

.DEFAULT_GOAL := help
.PHONY: help demo demo-down test generate image image-arm64 stories stories-cluster bench-apply bench-failover bench-netlink bench-checks bench-detection differential soak fuzz

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## A cluster of 3 real nodes, the chart, one service, its traffic, and clean hosts again (KEEP=1 leaves it up)
	@DEMO_STATE="$(DEMO_STATE)" KEEP="$(KEEP)" exec e2e/cluster/demo.sh up

demo-down: ## End a demo that was kept
	@e2e/cluster/demo.sh down

test: ## All checks and tests (ONLY="unit chart" for some)
	@exec e2e/checks/run.sh $(ONLY)

generate: ## Write the CustomResourceDefinitions and their reference from the types, the chart's README from its schema, and the dictionary of keywords
	cargo run --quiet --locked --package lvs-crds --bin crdgen -- crds/generated charts/lvs-operator/charts/crds/crds
	cargo run --quiet --locked --package lvs-crds --bin reference >docs/reference.md
	jq --raw-output --from-file e2e/chart/readme.jq charts/lvs-operator/values.schema.json >charts/lvs-operator/README.md
	cargo run --quiet --locked --package kubectl-lvs -- dictionary >docs/dictionary.md

image: ## Release binaries and the images, as OCI archives in target/images, with what is in them (*.cdx.json)
	@e2e/setup/provision.sh packages rust
	@e2e/setup/image-once.sh

image-arm64: ## The same for arm64, by cross compilation; --version of the binaries under qemu (cold 6 min)
	@e2e/setup/provision.sh packages rust
	@ARCH=arm64 e2e/setup/image.sh

stories-cluster: ## Stories of tier 1: real kubelets (kubectl lvs, token, Istio, drain, upgrade, takeovers)
	@exec e2e/cluster/demo.sh test

stories: image ## Packet stories in one machine (STORIES="part of a name")
	@e2e/setup/provision.sh packages rust kubernetes helm kernel
	@cargo build --quiet --locked --package lvs-e2e --package kubectl-lvs
	@cargo run --quiet --locked --package lvs-e2e --bin stories -- $(STORIES)

bench-apply: image ## Apply to first packet, and the agent's memory with 10,100 rules
	@e2e/setup/provision.sh packages rust kubernetes helm kernel
	@cargo build --quiet --locked --package lvs-e2e
	@cargo run --quiet --locked --package lvs-e2e --bin bench-apply

bench-failover: image ## What clients see of a failover, ours and keepalived (ROUNDS=5 EVENTS="sigterm node-dies")
	@e2e/setup/provision.sh packages rust kubernetes helm kernel
	@cargo build --quiet --locked --package lvs-e2e
	@cargo run --quiet --locked --package lvs-e2e --bin bench-failover -- $(if $(ROUNDS),--rounds $(ROUNDS)) $(EVENTS)

bench-netlink: ## Programming IPVS, against ipvsadm and keepalived (ROUNDS=5)
	@e2e/setup/provision.sh packages rust kernel
	@exec e2e/bench/netlink.sh $(ROUNDS)

bench-checks: ## Health checks: 12,000 against a bare prober in C and keepalived; ldirectord with 200 in a guest (ROUNDS=5)
	@e2e/setup/provision.sh packages rust kernel
	@exec e2e/bench/checks.sh $(ROUNDS)

bench-detection: image ## How soon a dead listener is out of the kernel: ours, keepalived and ldirectord (DEATHS=12)
	@e2e/setup/provision.sh packages rust kubernetes helm kernel
	@cargo build --quiet --locked --package lvs-e2e
	@exec e2e/bench/detection.sh $(DEATHS)

differential: ## The model of the kernel against a real kernel, our dumps against ipvsadm's
	@e2e/setup/provision.sh packages rust kernel
	@exec e2e/bench/differential.sh $(CASES)

soak: ## Laws of planning and of agents with histories of this run's own; half a million storms of simulated directors, or STORMS=number (25 min)
	@cargo test --locked --workspace --test laws
	@LVS_STORMS=$(or $(STORMS),500000) cargo test --locked --package lvs-core --test leadership failover::storms

fuzz: ## Every parser of bytes we did not write, with libFuzzer (SECONDS=60 each)
	@exec e2e/checks/fuzz.sh $(SECONDS)
