//! Finds or fetches a real Redis, starts it and owns its lifetime; for examples, tests and benches
