//! The CUDA backend on the host-emulated driver: a stand-in for NVIDIA's library that runs the project's kernels on the
//! processor. It shows that the code around the kernels and their arithmetic are right. It executes nothing on a GPU.
//!
//! A library is found when a process starts looking for it, so the stand-in's tests run in a process of their own: this
//! program again, with one of the ignored tests below.

use isotherm_runtime::backend::conformance::Suite;
use isotherm_runtime::backend::cuda::CudaPlatform;
use isotherm_runtime::backend::{Device, DeviceError, Hardware, Platform};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The line that every report of emulated runs carries.
pub const NOTHING_ON_A_CARD: &str = "kernels executed on NVIDIA hardware: 0";

pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the runtime lies in the checkout")
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    let program = std::env::current_exe().expect("a running program has a path");
    program.ancestors().nth(3).expect("target/debug/deps/it").to_owned()
}

/// Folder of NVIDIA's run-time compiler, as a Python package installs it; why not, where it is not there.
pub fn compiler() -> Result<PathBuf, String> {
    let python = std::env::var("ISOTHERM_PYTHON").map_err(|_| "ISOTHERM_PYTHON names no Python".to_owned())?;
    let program = "import sysconfig, os; print(os.path.join(sysconfig.get_path('purelib'), 'nvidia'))";
    let output = Command::new(&python).args(["-c", program]).output().map_err(|error| format!("{python}: {error}"))?;
    let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if root.join("cuda_nvrtc/lib/libnvrtc.so.12").is_file() {
        Ok(root)
    } else {
        Err(format!("{python} has no package nvidia-cuda-nvrtc-cu12 (scripts/requirements.txt names it)"))
    }
}

/// Builds the stand-in for some kernels, all formats where none is named; gives the folder of the library.
pub fn stand_in(name: &str, kernels: Option<&Path>, formats: &[u32]) -> Result<PathBuf, String> {
    let folder = target().join("emulated").join(name);
    let script = checkout().join("runtime/emulator/build.sh");
    let mut command = Command::new("bash");
    let source = checkout().join("runtime/kernels");
    command.arg(script).arg(&folder).arg(kernels.unwrap_or(&source));
    command.args(formats.iter().map(u32::to_string));
    let output = command.output().map_err(|error| format!("bash: {error}"))?;
    if output.status.success() {
        Ok(folder)
    } else {
        Err(format!("the host-emulated driver could not be built: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// Runs an ignored test of this program, by its path, with the stand-in in reach.
pub fn inside(test: &str, library: &Path, compiler: &Path, settings: &[(&str, &str)]) -> Output {
    let path = format!("{}:{}", library.display(), compiler.join("cuda_nvrtc/lib").display());
    let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
    command.args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("LD_LIBRARY_PATH", path).env("ISOTHERM_EMULATED_CACHE", target().join("emulated/ptx"));
    command.envs(settings.iter().copied());
    command.output().expect("this program can be started again")
}

/// What is needed, or a skip aloud.
pub fn ready(test: &str) -> Option<(PathBuf, PathBuf)> {
    // Tests run side by side: the library is built once, before any of them uses it.
    static FOUND: OnceLock<Result<(PathBuf, PathBuf), String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let compiler = compiler()?;
        Command::new("c++").arg("--version").output().map_err(|error| format!("c++: {error}"))?;
        // Kernels that do not compile are no reason to skip anything.
        Ok((stand_in("driver", None, &[]).unwrap_or_else(|why| panic!("{why}")), compiler))
    });
    match found {
        Ok(found) => Some(found.clone()),
        Err(why) => {
            eprintln!("skipped: {test}: {why}");
            None
        }
    }
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub fn platform() -> CudaPlatform {
    CudaPlatform { cache: std::env::var_os("ISOTHERM_EMULATED_CACHE").map(PathBuf::from), tensor_cores: false }
}

#[test]
fn the_conformance_suite_holds_on_two_host_emulated_devices() {
    let Some((library, compiler)) = ready("the_conformance_suite_holds_on_two_host_emulated_devices") else { return };
    // The order of threads and blocks is another for every seed; a kernel must not depend on it.
    for seed in ["0", "7"] {
        let output = inside("emulated::inside_conformance", &library, &compiler, &[("ISOTHERM_EMULATED_SEED", seed)]);
        let said = said(&output);
        eprintln!("{said}");
        assert!(output.status.success() && said.contains("1 passed") && said.contains(NOTHING_ON_A_CARD), "{said}");
    }
}

#[test]
#[ignore = "run by the_conformance_suite_holds_on_two_host_emulated_devices, with the host-emulated driver in reach"]
fn inside_conformance() {
    for tensor_cores in [false, true] {
        let platform = CudaPlatform { tensor_cores, ..platform() };
        let thorough = std::env::var_os("ISOTHERM_CAMPAIGN").is_some();
        let devices: &[usize] = if tensor_cores { &[0] } else { &[0, 1] };
        let report = Suite { open: &|index| Device::open(&platform, index), devices, thorough, seed: 3 }.run();
        eprintln!("tensor-core variant {}: {report}", if tensor_cores { "on" } else { "off" });
        eprintln!("{NOTHING_ON_A_CARD}");
        assert!(report.passed(), "{report}");
    }
}

#[test]
fn no_emulated_device_passes_for_a_card() {
    let Some((library, compiler)) = ready("no_emulated_device_passes_for_a_card") else { return };
    let output = inside("emulated::inside_labels", &library, &compiler, &[]);
    assert!(output.status.success() && said(&output).contains("1 passed"), "{}", said(&output));
}

#[test]
#[ignore = "run by no_emulated_device_passes_for_a_card, with the host-emulated driver in reach"]
fn inside_labels() {
    let devices = platform().devices().expect("the stand-in answers");
    assert_eq!(devices.len(), 2);
    for device in devices {
        assert_eq!(device.hardware, Hardware::Emulated);
        assert!(!device.hardware.is_accelerator());
        assert!(device.name.starts_with("host-emulated") && device.interface == "host-emulated driver", "{device:?}");
        assert_eq!((device.driver, device.pci), (None, None));
    }
    let error = platform().open(2).err().expect("there is no third device");
    assert_eq!(error, DeviceError::NoSuchDevice { backend: "cuda", wanted: 2, found: 2 });
}

#[test]
fn a_device_that_fails_for_good_is_lost_and_nobody_waits_for_it() {
    let Some((library, compiler)) = ready("a_device_that_fails_for_good_is_lost_and_nobody_waits_for_it") else {
        return;
    };
    let output = inside("emulated::inside_loss", &library, &compiler, &[("ISOTHERM_EMULATED_LOSS", "0:5")]);
    assert!(output.status.success() && said(&output).contains("1 passed"), "{}", said(&output));
}

#[test]
#[ignore = "run by a_device_that_fails_for_good_is_lost_and_nobody_waits_for_it, with a driver that loses a device"]
fn inside_loss() {
    use isotherm_runtime::backend::{Op, View};
    let mut lost = Device::open(&platform(), 0).expect("it opens");
    let mut other = Device::open(&platform(), 1).expect("it opens");
    for device in [&mut lost, &mut other] {
        let buffer = device.allocate(1024).expect("there is room");
        device.copy_in(buffer, 0, &[1; 1024]).expect("it is there");
        let add = Op::Add { to: View::at(buffer, 0), from: View::at(buffer, 128), count: 128 };
        let mut outcome = Ok(());
        for _ in 0..20 {
            outcome = device.launch(std::slice::from_ref(&add)).and_then(|()| device.synchronise());
            if outcome.is_err() {
                break;
            }
        }
        if device.info().index == 0 {
            assert!(matches!(outcome, Err(DeviceError::Lost { .. })), "{outcome:?}");
            assert!(device.copy_out(buffer, 0, &mut [0; 8]).is_err_and(|error| error.is_lost()));
            assert!(device.free(buffer).is_ok(), "what a lost device held is gone with it");
        } else {
            assert_eq!(outcome, Ok(()), "the other device goes on");
        }
    }
}

#[test]
fn without_a_driver_the_answer_is_that_there_is_none() {
    // A machine with a driver cannot show this.
    match (CudaPlatform::default()).devices() {
        Err(DeviceError::NoDriver { backend, why }) => assert!(backend == "cuda" && why.contains("libcuda"), "{why}"),
        Ok(_) => eprintln!("skipped: without_a_driver_the_answer_is_that_there_is_none: this is no GPU-less host"),
        Err(other) => panic!("{other}"),
    }
}
