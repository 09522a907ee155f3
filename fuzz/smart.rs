//! Whatever is called the output of `smartctl`: it is read without a panic, into bounded words, and all that the property tests of the
//! reader ask of an input holds (`smart/src/holds.rs`, which they share).
#![no_main]

use libfuzzer_sys::fuzz_target;
use resilver_smart::{Verdict, judge, parse};

#[path = "../smart/src/holds.rs"]
mod holds;

fuzz_target!(|input: &[u8]| holds::holds(input));
