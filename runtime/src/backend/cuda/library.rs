//! NVIDIA's libraries, looked for when they are asked for: whether the driver is here, and the run-time compiler.
//!
//! The compiler is called through the few functions that are needed, which are the same in every version from CUDA 11
//! on, so that whichever version is installed will do: <https://docs.nvidia.com/cuda/nvrtc/index.html>.

use cudarc::driver::sys as driver;
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr::null;
use std::sync::OnceLock;

/// Whether the driver's library can be loaded.
pub fn has_driver() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    // SAFETY: loads a shared library of the system's own search path and drops it again. Its initialisers run, as they
    // do for every program that uses the driver.
    *FOUND.get_or_init(|| unsafe { driver::is_culib_present() })
}

/// A program of the compiler's.
type Program = *mut c_void;
/// Makes a program from source, a name, and headers, of which there are none.
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
/// Compiles with options.
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
/// Bytes of a text, its closing zero included.
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
/// The text itself.
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
/// Its version, major and minor.
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
/// Releases a program.
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;
/// How many architectures it makes PTX for.
type ArchitectureCount = unsafe extern "C" fn(*mut c_int) -> c_int;
/// Which: compute capabilities times ten, rising.
type Architectures = unsafe extern "C" fn(*mut c_int) -> c_int;

/// The run-time compiler.
pub struct Compiler {
    version: (c_int, c_int),
    create: Create,
    compile: Compile,
    log_size: Size,
    log: Text,
    ptx_size: Size,
    ptx: Text,
    destroy: Destroy,
    architectures: Option<Vec<u32>>,
    /// Where the functions are; it is dropped after them.
    _library: Library,
}

/// The run-time compiler, loaded once for the life of the process: from the system's search path, or from a place where
/// toolkits and Python packages put it. A driver takes what compilers up to its own version write, so the newest of
/// those is taken; where all are newer, the oldest. `None` where there is none.
pub fn compiler() -> Option<&'static Compiler> {
    static FOUND: OnceLock<Option<Compiler>> = OnceLock::new();
    let choose = || {
        let driver = driver_version();
        let mut older: Option<Compiler> = None;
        let mut newer: Option<Compiler> = None;
        for found in candidates().into_iter().filter_map(Compiler::load) {
            if found.version == driver {
                return Some(found);
            }
            let (kept, is_better) = if driver >= found.version {
                let is_better = older.as_ref().is_none_or(|kept| kept.version < found.version);
                (&mut older, is_better)
            } else {
                let is_better = newer.as_ref().is_none_or(|kept| kept.version > found.version);
                (&mut newer, is_better)
            };
            if is_better {
                *kept = Some(found);
            }
        }
        older.or(newer)
    };
    FOUND.get_or_init(choose).as_ref()
}

/// Version of CUDA that the driver speaks, or one above all where there is no driver to ask.
fn driver_version() -> (c_int, c_int) {
    let mut version = 0;
    // SAFETY: the library is there, and writes one number; nothing has to be initialised for it.
    if has_driver() && unsafe { driver::cuDriverGetVersion(&raw mut version) } == driver::CUresult::CUDA_SUCCESS {
        return (version / 1000, version % 1000 / 10);
    }
    (c_int::MAX, 0)
}

impl Compiler {
    fn load(path: PathBuf) -> Option<Self> {
        // A name is looked for in the search path; a path is tried only where there is a file.
        if path.components().count() > 1 && !path.is_file() {
            return None;
        }
        // SAFETY: a library named like NVIDIA's compiler, in the search path or where its packages put it; its
        // initialisers run. It is kept beside its functions, so that they stay where they are.
        let library = unsafe { Library::new(path) }.ok()?;
        // SAFETY: the types are those of `nvrtc.h`, unchanged since these functions exist.
        unsafe {
            let (mut major, mut minor) = (0, 0);
            if (library.get::<Version>(b"nvrtcVersion\0").ok()?)(&raw mut major, &raw mut minor) != 0 {
                return None;
            }
            Some(Self {
                version: (major, minor),
                create: *library.get::<Create>(b"nvrtcCreateProgram\0").ok()?,
                compile: *library.get::<Compile>(b"nvrtcCompileProgram\0").ok()?,
                log_size: *library.get::<Size>(b"nvrtcGetProgramLogSize\0").ok()?,
                log: *library.get::<Text>(b"nvrtcGetProgramLog\0").ok()?,
                ptx_size: *library.get::<Size>(b"nvrtcGetPTXSize\0").ok()?,
                ptx: *library.get::<Text>(b"nvrtcGetPTX\0").ok()?,
                destroy: *library.get::<Destroy>(b"nvrtcDestroyProgram\0").ok()?,
                architectures: architectures(&library),
                _library: library,
            })
        }
    }

    /// The architectures that it makes PTX for, compute capabilities times ten; none where it does not say, as before
    /// CUDA 11.2.
    pub fn architectures(&self) -> Option<&[u32]> {
        self.architectures.as_deref()
    }

    /// PTX of a source.
    ///
    /// # Errors
    /// What the compiler says of the source.
    pub fn ptx(&self, source: &str, name: &str, options: &[&str]) -> Result<String, String> {
        let text = |text: &str| CString::new(text).map_err(|_| "the source holds a zero byte".to_owned());
        let (source, name) = (text(source)?, text(name)?);
        let options = options.iter().map(|option| text(option)).collect::<Result<Vec<_>, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: both texts end in a zero byte and outlive the call, which copies them; no headers are given.
        let code = unsafe { (self.create)(&raw mut program, source.as_ptr(), name.as_ptr(), 0, null(), null()) };
        if code != 0 {
            return Err(format!("its compiler makes no program (code {code})"));
        }
        // SAFETY: `program` was made above; `pointers` holds as many texts as is said.
        let code = unsafe { (self.compile)(program, pointers.len() as c_int, pointers.as_ptr()) };
        let said = if code == 0 {
            self.text(program, self.ptx_size, self.ptx).ok_or_else(|| "the compiler gives no PTX".to_owned())
        } else {
            let log = self.text(program, self.log_size, self.log).unwrap_or_default();
            Err(if log.trim().is_empty() { format!("code {code}") } else { log })
        };
        // SAFETY: made above and not used after this.
        unsafe { (self.destroy)(&raw mut program) };
        said
    }

    fn text(&self, program: Program, size: Size, text: Text) -> Option<String> {
        let mut bytes = 0;
        // SAFETY: writes one number.
        if unsafe { size(program, &raw mut bytes) } != 0 {
            return None;
        }
        let mut buffer = vec![0_u8; bytes];
        // SAFETY: the buffer has the size that was asked for.
        if unsafe { text(program, buffer.as_mut_ptr().cast()) } != 0 {
            return None;
        }
        Some(CStr::from_bytes_until_nul(&buffer).ok()?.to_string_lossy().into_owned())
    }
}

/// The architectures that a compiler names.
fn architectures(library: &Library) -> Option<Vec<u32>> {
    // SAFETY: the types are those of `nvrtc.h`; the second function writes as many numbers as the first one said.
    unsafe {
        let mut count = 0;
        if (library.get::<ArchitectureCount>(b"nvrtcGetNumSupportedArchs\0").ok()?)(&raw mut count) != 0 {
            return None;
        }
        let mut known: Vec<c_int> = vec![0; usize::try_from(count).ok()?];
        let list = library.get::<Architectures>(b"nvrtcGetSupportedArchs\0").ok()?;
        (list(known.as_mut_ptr()) == 0).then(|| known.into_iter().filter_map(|one| u32::try_from(one).ok()).collect())
    }
}

/// Names in the search path, then files outside it, the newest version first.
fn candidates() -> Vec<PathBuf> {
    const NAMES: [&str; 4] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"];
    let mut found: Vec<PathBuf> = NAMES.map(PathBuf::from).to_vec();
    found.extend(["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"].map(PathBuf::from));
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
        for package in ["cu13", "cuda_nvrtc"] {
            let of = |python: &PathBuf| python.join("site-packages/nvidia").join(package).join("lib");
            folders.extend(pythons.iter().map(of));
        }
    }
    found.extend(folders.into_iter().flat_map(|folder| NAMES.map(|name| folder.join(name))));
    found
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from)
}
