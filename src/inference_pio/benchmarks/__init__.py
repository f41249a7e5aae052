"""The harness behind the benchmarks: a plugin declares workloads, this package measures them and reports."""
