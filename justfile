# What there is to do here; each line also works by hand.

# The promise tests, as whoever you are.
test:
    cargo test --workspace

# Everything the CI does.
ci:
    .ci/run

# The same things 100,000 times, and that nothing of them is left (`SOAK_N`, `SOAK_SECONDS`).
soak *ARGS:
    scripts/soak {{ARGS}}

# Side by side with the peers: `just bench`, `just bench quick`, `just bench quick ROW`.
bench *ARGS:
    benches/run {{ARGS}}

# A static build of the command, into target/onejob-static.
static:
    scripts/build-static

# Random trees, acts and faults for so many minutes, as whoever you are; CONTRIBUTING.md says more.
chaos MINUTES="10":
    CHAOS_MINUTES={{MINUTES}} CHAOS_SEED=${CHAOS_SEED:-random} \
      cargo test -p onejob --test chaos -- --nocapture --include-ignored
