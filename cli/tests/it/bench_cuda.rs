//! `isotherm bench cuda` without a card, and on the host-emulated driver.

use super::Place;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const NOTHING_ON_A_CARD: &str = "kernels executed on NVIDIA hardware: 0";

#[test]
fn without_a_card_the_expectation_is_printed_and_a_check_says_that_there_is_none() {
    let place = Place::new();
    let (out, err) = place.expect(0, "bench cuda --shape smollm2-135m --layer-format Q4_1");
    if !err.contains("no NVIDIA card here") {
        return eprintln!("skipped: without_a_card_the_expectation_is_printed...: this is no GPU-less host");
    }
    for name in ["H100", "H200", "RTX 4090", "expected, not measured", "one token", NOTHING_ON_A_CARD] {
        assert!(out.contains(name), "{name:?} in {out}");
    }
    let (_, err) = place.expect(6, "bench cuda --check");
    assert!(err.contains("there is no NVIDIA card to check"), "{err}");
    // The door to receipts of every backend says what it found and why that is no card.
    let (out, err) = place.expect(6, "bench device --check");
    assert!(out.is_empty() && err.contains("there is no card to check"), "{out}{err}");
    assert!(!place.path("home/receipts").exists(), "nothing is signed where nothing was tested");
}

#[test]
fn on_the_host_emulated_driver_nothing_is_called_a_card_and_a_loss_ends_with_its_exit_code() {
    const NAME: &str = "on_the_host_emulated_driver_nothing_is_called_a_card_and_a_loss_ends_with_its_exit_code";
    let library_path = match library_path() {
        Ok(path) => path,
        Err(why) => return eprintln!("skipped: {NAME}: {why}"),
    };
    let place = Place::new();
    let with = |line: &str, settings: &[(&str, &str)]| -> Output {
        Command::new(env!("CARGO_BIN_EXE_isotherm"))
            .args(line.split_whitespace())
            .env("ISOTHERM_HOME", place.path("home"))
            .env("LD_LIBRARY_PATH", &library_path)
            .envs(settings.iter().copied())
            .output()
            .expect("the program starts")
    };
    let run = |settings: &[(&str, &str)]| with("bench cuda --emulated --shape tiny --positions 40", settings);
    let said = |output: &Output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let whole = run(&[]);
    let text = said(&whole);
    assert_eq!(whole.status.code(), Some(0), "{text}");
    for name in ["host-emulated device 0", "host-emulated device 1", NOTHING_ON_A_CARD] {
        assert!(text.contains(name), "{name:?} in {text}");
    }
    assert!(!text.contains("CUDA driver"), "{text}");
    // Nothing makes the stand-in a card: no self-test of it is signed, and it is experimental at most.
    let refused = with("bench device --check --backends cuda", &[]);
    assert_eq!(refused.status.code(), Some(6), "{}", said(&refused));
    assert!(said(&refused).contains("is a host-emulated"), "{}", said(&refused));
    let listed = with("devices --format json", &[]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let routes = listed["routes"].as_array().expect("a list");
    let emulated: Vec<_> = routes.iter().filter(|route| route["hardware"] == "host-emulated").collect();
    assert_eq!(emulated.len(), 2, "{routes:?}");
    assert!(routes.iter().all(|route| route["support"] != "supported" && route["checked"].is_null()), "{routes:?}");
    assert!(emulated.iter().all(|route| route["support"] == "experimental"), "{emulated:?}");
    let lost = run(&[("ISOTHERM_EMULATED_LOSS", "1:30")]);
    assert_eq!(lost.status.code(), Some(6), "{}", said(&lost));
    assert!(said(&lost).contains("host-emulated device 1) was lost during"), "{}", said(&lost));
}

/// Folders of the stand-in for the driver and of NVIDIA's compiler.
fn library_path() -> Result<String, String> {
    let python = std::env::var("ISOTHERM_PYTHON").map_err(|_| "ISOTHERM_PYTHON names no Python".to_owned())?;
    let program = "import sysconfig, os; print(os.path.join(sysconfig.get_path('purelib'), 'nvidia/cuda_nvrtc/lib'))";
    let output = Command::new(&python).args(["-c", program]).output().map_err(|error| format!("{python}: {error}"))?;
    let compiler = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !compiler.join("libnvrtc.so.12").is_file() {
        return Err(format!("{python} has no package nvidia-cuda-nvrtc-cu12 (scripts/requirements.txt names it)"));
    }
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the program lies in the checkout");
    let program = std::env::current_exe().expect("a running program has a path");
    let driver = program.ancestors().nth(3).expect("target/debug/deps/it").join("emulated/driver");
    let output = Command::new("bash").arg(checkout.join("runtime/emulator/build.sh")).arg(&driver).output();
    let output = output.map_err(|error| format!("bash: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the host-emulated driver could not be built: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(format!("{}:{}", driver.display(), compiler.display()))
}
