//! What the fuzzer does, for a while and the same in every run: properties of all codecs over
//! mutated vectors.

mod mutate;
mod vectors;
mod targets;
