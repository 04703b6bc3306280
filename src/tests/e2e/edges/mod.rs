//! Raw HTTP and processes.
