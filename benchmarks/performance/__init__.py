"""What training and measuring cost in time and memory; `benchmarks.throughput` is the table beside other trainers."""
