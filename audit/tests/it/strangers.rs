//! What we seal is verified by tools that share no code with us, and what they write is read by us.

use crate::support::{FILES, NOW, identity, payload_of, sealed, signed_bytes};
use isotherm_audit::keys::{IDENTITY_FILE, Identity, Seed};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::{TempDir, tempdir};

fn python(test: &str) -> Option<OsString> {
    python_with(test, "import securesystemslib.dsse, cryptography")
}

/// The Python to use, if it can import what the check needs.
pub fn python_with(test: &str, imports: &str) -> Option<OsString> {
    let python = std::env::var_os("ISOTHERM_PYTHON").unwrap_or_else(|| "python3".into());
    match Command::new(&python).args(["-c", imports]).output() {
        Ok(output) if output.status.success() => Some(python),
        Ok(_) => {
            eprintln!("skipped: {test}: {python:?} cannot run `{imports}` (set ISOTHERM_PYTHON)");
            None
        }
        Err(error) => {
            eprintln!("skipped: {test}: {python:?} does not start: {error}");
            None
        }
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers/verify_manifest.py")
}

/// A folder with the pinned files, the keys 1 and 2, and a manifest by both.
pub fn stage() -> TempDir {
    let folder = tempdir().expect("a folder");
    for (name, bytes) in FILES {
        fs::write(folder.path().join(format!("{name}.file")), bytes).expect("own file");
    }
    for number in [1, 2, 9] {
        let pem = identity(number).public().to_pem().expect("encodes");
        fs::write(folder.path().join(format!("{number}.pem")), pem).expect("own file");
    }
    fs::write(folder.path().join("manifest.json"), sealed(&[1, 2]).envelope).expect("own file");
    folder
}

fn verify(python: &OsString, folder: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(python);
    command.current_dir(folder.path()).arg(script()).arg("manifest.json").args(arguments);
    command.output().expect("python starts")
}

const BOTH: [&str; 8] = ["--key", "1.pem", "--key", "2.pem", "--threshold", "2", "--at", NOW];

#[test]
fn securesystemslib_accepts_a_good_manifest_and_the_files_it_pins() {
    let Some(python) = python("securesystemslib_accepts_a_good_manifest_and_the_files_it_pins") else { return };
    let output = verify(&python, &stage(), &BOTH);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for (name, _) in FILES {
        assert!(said.contains(&format!("{name}: same file")), "{said}");
    }
}

#[test]
fn securesystemslib_refuses_what_we_refuse() {
    let Some(python) = python("securesystemslib_refuses_what_we_refuse") else { return };
    let refused = |folder: &TempDir, arguments: &[&str], words: &str| {
        let output = verify(&python, folder, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{words}: {said}");
        assert!(said.contains(words), "{words}: {said}");
    };
    let folder = stage();
    let good = fs::read_to_string(folder.path().join("manifest.json")).expect("own file");
    for position in [30, good.len() / 2, good.len() - 40] {
        let mut altered = good.clone().into_bytes();
        altered[position] = if altered[position] == b'A' { b'B' } else { b'A' };
        fs::write(folder.path().join("manifest.json"), altered).expect("own file");
        refused(&folder, &BOTH, "refused");
    }
    fs::write(folder.path().join("manifest.json"), &good).expect("own file");
    refused(&folder, &["--key", "9.pem", "--at", NOW], "signature");
    refused(&folder, &["--key", "1.pem", "--key", "9.pem", "--threshold", "2", "--at", NOW], "signature");
    refused(&folder, &["--key", "1.pem", "--at", "2027-01-01T00:00:00Z"], "expired");
    refused(&folder, &["--key", "1.pem", "--at", "2020-01-01T00:00:00Z"], "not valid before");
    fs::write(folder.path().join("model.file"), "another model").expect("own file");
    refused(&folder, &BOTH, "model differs");
}

fn openssl(test: &str) -> bool {
    let present = Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !present {
        eprintln!("skipped: {test}: openssl does not start");
    }
    present
}

#[test]
fn openssl_verifies_a_signature_over_the_encoded_payload_and_refuses_an_altered_one() {
    if !openssl("openssl_verifies_a_signature_over_the_encoded_payload_and_refuses_an_altered_one") {
        return;
    }
    let folder = stage();
    let envelope = sealed(&[1]).envelope;
    let value: serde_json::Value = serde_json::from_slice(&envelope).expect("JSON");
    let signature = crate::support::decode(value["signatures"][0]["sig"].as_str().expect("text"));
    let mut message = signed_bytes("application/vnd.in-toto+json", &payload_of(&envelope));
    fs::write(folder.path().join("sig"), signature).expect("own file");
    for altered in [false, true] {
        *message.last_mut().expect("not empty") ^= u8::from(altered);
        fs::write(folder.path().join("pae"), &message).expect("own file");
        let arguments = ["pkeyutl", "-verify", "-pubin", "-inkey", "1.pem", "-rawin", "-in", "pae", "-sigfile", "sig"];
        let output =
            Command::new("openssl").current_dir(folder.path()).args(arguments).output().expect("openssl starts");
        assert_eq!(output.status.success(), !altered, "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn openssl_reads_our_private_key_and_we_read_its() {
    if !openssl("openssl_reads_our_private_key_and_we_read_its") {
        return;
    }
    let home = tempdir().expect("a folder");
    let keys = home.path().join("keys");
    let ours = Identity::create(&keys, &Seed::from_bytes([4; 32])).expect("made");
    let file = keys.join(IDENTITY_FILE);
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl").current_dir(&keys).args(arguments).output().expect("openssl starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("PEM is text")
    };
    assert_eq!(run(&["pkey", "-in", IDENTITY_FILE, "-pubout"]), ours.public().to_pem().expect("encodes"));
    let theirs = run(&["genpkey", "-algorithm", "ed25519"]);
    fs::write(&file, theirs).expect("own file");
    let loaded = Identity::load(&keys).expect("PKCS#8 is PKCS#8");
    assert_eq!(run(&["pkey", "-in", IDENTITY_FILE, "-pubout"]), loaded.public().to_pem().expect("encodes"));
}
