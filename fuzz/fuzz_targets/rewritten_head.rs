#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keygate_gateway::checks::rewritten_head(data));
