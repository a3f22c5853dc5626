//! `keygate schema`

use crate::output::{self, Failed};

pub fn schema() -> Result<(), Failed> {
    output::json(&keygate_config::schema())
}
