#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keygate_signer::checks::json_rpc(data));
