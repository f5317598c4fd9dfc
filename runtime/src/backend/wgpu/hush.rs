//! Keeps a library of the window system from writing to standard error of a program that has no window.
//!
//! Mesa's Vulkan layer that puts devices in order asks Wayland which one it uses. Where no session is running, as on a
//! server, libwayland then writes that `XDG_RUNTIME_DIR` is not set. The variable is nothing that this program needs, and
//! changing the environment would race with every thread that reads it; so the library is told where its messages go.

use libloading::Library;
use std::ffi::{c_char, c_void};
use std::sync::Once;

/// Takes a format and its arguments. On every platform of libwayland the list of arguments is handed over by one pointer
/// or in registers that a function may ignore.
type Handler = unsafe extern "C" fn(*const c_char, *mut c_void);

unsafe extern "C" fn nothing(_: *const c_char, _: *mut c_void) {}

/// Silences libwayland where there is no session to connect to; once, before a driver is loaded. Where the library is not
/// installed nobody asks it anything.
pub(super) fn wayland() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|folder| !folder.is_empty()) {
            return;
        }
        // SAFETY: a library of the system's search path, which the drivers load too; it has no initialisers of note.
        let Ok(library) = (unsafe { Library::new("libwayland-client.so.0") }) else { return };
        // SAFETY: the function's type by wayland-client-core.h: it takes a handler and returns nothing.
        match unsafe { library.get::<unsafe extern "C" fn(Handler)>(b"wl_log_set_handler_client\0") } {
            // SAFETY: stores the pointer, which stays valid: `nothing` is part of this program.
            Ok(set) => unsafe { set(nothing) },
            Err(_) => return,
        }
        // The handler is forgotten with the library, so it stays loaded.
        std::mem::forget(library);
    });
}
