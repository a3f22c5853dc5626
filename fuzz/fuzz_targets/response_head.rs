#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keygate_gateway::checks::response_head(data));
