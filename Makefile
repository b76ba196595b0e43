# Each target installs what it misses; only the Rust toolchain must be there.
.PHONY: run test model torture e2e check sqlx audit bench bench-decision

# A Rolecall on this machine with a PostgreSQL of its own and demo data; Ctrl-C stops it.
run:
	.ci/install postgres
	.ci/grpcurl
	cargo run -- dev

test:
	.ci/install postgres
	-.ci/install faketime
	cargo test
	TORTURE_SECONDS=20 .ci/torture nothing_is_stale without_barrier

# Replicas, their clients and PostgreSQL under every fault; what clients saw is held against the events.
# Bounded by `TORTURE_SECONDS` for each part, `TORTURE_SEED` and what else tests/torture/run.rs reads.
# `ARGS=failovers` runs one part.
torture:
	.ci/install postgres
	-.ci/install faketime
	.ci/torture $(ARGS)

# Every interleaving of the lease protocol, in scopes that a debug build is too slow for.
model:
	cargo test --release --test model -- --include-ignored --nocapture

# Real clients and servers that nobody here wrote, against the built program.
e2e:
	.ci/install postgres
	.ci/install chromium
	.ci/tools
	cargo build
	PATH="$(CURDIR)/target/tools/bin:$$PATH" ROLECALL="$(CURDIR)/target/debug/rolecall" tests/e2e/run

# Format, lints, query descriptions, API, bans and licences, manifests.
check:
	.ci/check

# Describes the queries of the source anew, after a change of SQL.
sqlx:
	.ci/sqlx

# The tables and the plot of the README; wants two cores to itself. `ARGS=--small` takes a minute.
bench:
	.ci/install postgres
	-.ci/install h2load
	cargo bench --bench rpc -- $(ARGS)

# Decisions in process, up to ten million assignments; on huge pages, for which the allocator of the
# program asks by itself.
bench-decision:
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 cargo bench --bench decision -- $(ARGS)

# Known vulnerabilities of the dependencies; reads the RustSec database from the network.
audit:
	.ci/tools
	target/tools/bin/cargo-deny check advisories
