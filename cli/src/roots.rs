//! Where the kernel's files are.

use isotherm_runtime::host::Roots;
use std::path::PathBuf;

/// Environment variable that names a folder with `proc` and `sys` in it, to look at another machine than this one.
const ROOTS: &str = "ISOTHERM_HOST_ROOT";

/// The folders of this machine, or of one that is rehearsed.
pub fn roots() -> Roots {
    match std::env::var_os(ROOTS).map(PathBuf::from) {
        Some(root) => Roots { proc: root.join("proc"), sys: root.join("sys") },
        None => Roots::default(),
    }
}
