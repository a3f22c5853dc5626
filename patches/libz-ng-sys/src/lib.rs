//! `libz-ng-sys`'s binding, over stock zlib: see `Cargo.toml` for why.
#![no_std]
pub use libz_sys::*;
