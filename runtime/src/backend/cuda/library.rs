//! Whether NVIDIA's libraries are here. Asked before anything else: the interface below panics where one is missing.

use cudarc::driver::sys as driver;
use cudarc::nvrtc::sys as nvrtc;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Whether the driver's library can be loaded.
pub fn has_driver() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    // SAFETY: loads a shared library of the system's own search path and drops it again. Its initialisers run, as they
    // do for every program that uses the driver.
    *FOUND.get_or_init(|| unsafe { driver::is_culib_present() })
}

/// Whether the run-time compiler can be loaded: from the system's search path, or from a place where toolkits and
/// Python packages put it.
pub fn has_compiler() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: as for the driver.
        if unsafe { nvrtc::is_culib_present() } {
            return true;
        }
        candidates().iter().any(|path| keep(path))
        // SAFETY: as above. A library that is loaded already is found by its name.
            && unsafe { nvrtc::is_culib_present() }
    })
}

/// Loads a library for the rest of the process, so that it is found by name afterwards.
fn keep(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    // SAFETY: a file named like NVIDIA's compiler in a folder where its packages put it; its initialisers run.
    match unsafe { libloading::Library::new(path) } {
        Ok(library) => {
            std::mem::forget(library);
            true
        }
        Err(_) => false,
    }
}

/// Where the compiler may lie outside the search path.
fn candidates() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for name in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(root) = std::env::var_os(name) {
            folders.push(PathBuf::from(&root).join("lib64"));
            folders.push(PathBuf::from(root).join("lib"));
        }
    }
    folders.extend(["/usr/local/cuda/lib64", "/opt/cuda/lib64"].map(PathBuf::from));
    // A Python environment that is active, or this user's packages.
    for root in [std::env::var_os("VIRTUAL_ENV").map(PathBuf::from), home().map(|home| home.join(".local"))] {
        let Some(lib) = root.map(|root| root.join("lib")) else { continue };
        let Ok(entries) = std::fs::read_dir(lib) else { continue };
        let mut pythons: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        pythons.sort();
        folders.extend(pythons.into_iter().map(|python| python.join("site-packages/nvidia/cuda_nvrtc/lib")));
    }
    folders.into_iter().flat_map(|folder| ["libnvrtc.so.12", "libnvrtc.so.13"].map(|name| folder.join(name))).collect()
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from)
}
