//! Logs that we write are read by tools that share no code with us; and manifests in the forms that others take.

use crate::crash::{files_of, restore};
use crate::strangers::{python_with, stage};
use crate::support::{NOW, ORIGIN, at, event, identity, sealed};
use isotherm_audit::keys::{PublicKey, Seed};
use isotherm_audit::log::checkpoint::verifier_key;
use isotherm_audit::log::{Log, OnLock};
use isotherm_audit::{bundle, ssh};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::tempdir;

const LOG_IMPORTS: &str = "import tlog_scales, pymerkle, cryptography";

fn verify_log(python: &OsString, folder: &Path, more: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers/verify_log.py");
    let mut command = Command::new(python);
    command.current_dir(folder).arg(script).arg("log").args(["--key", "log.pem"]).args(more);
    command.output().expect("python starts")
}

fn fill(folder: &Path, numbers: impl Iterator<Item = u64>) {
    let key = identity(1);
    let (mut log, _) = Log::open(&folder.join("log"), ORIGIN, &key, OnLock::Refuse).expect("sound");
    log.append_all(&numbers.map(event).collect::<Vec<_>>()).expect("logged");
}

#[test]
fn strangers_read_our_tiles_agree_on_every_root_and_refuse_a_fork() {
    const TEST: &str = "strangers_read_our_tiles_agree_on_every_root_and_refuse_a_fork";
    let Some(python) = python_with(TEST, LOG_IMPORTS) else { return };
    let folder = tempdir().expect("a folder");
    fs::write(folder.path().join("log.pem"), identity(1).public().to_pem().expect("encodes")).expect("own file");
    let mut size = 0;
    for next in [1, 2, 200, 256, 700] {
        fill(folder.path(), size..next);
        let old = if size > 0 { vec!["--old", "old"] } else { Vec::new() };
        let output = verify_log(&python, folder.path(), &old);
        assert!(output.status.success(), "{next}: {}", String::from_utf8_lossy(&output.stderr));
        fs::copy(folder.path().join("log/checkpoint"), folder.path().join("old")).expect("own file");
        size = next;
    }
    // The same key, another past, as long and longer.
    let kept = files_of(&folder.path().join("log"));
    fs::remove_dir_all(folder.path().join("log")).expect("own folder");
    fill(folder.path(), 1000..1701);
    let output = verify_log(&python, folder.path(), &["--old", "old"]);
    assert_eq!(output.status.code(), Some(5), "a fork");
    assert!(verify_log(&python, folder.path(), &[]).status.success(), "which looks sound alone");
    restore(&folder.path().join("log"), &kept);
    assert!(verify_log(&python, folder.path(), &["--old", "old"]).status.success());
    for name in ["tile/entries/000", "tile/0/001", "checkpoint"] {
        let path = folder.path().join("log").join(name);
        let good = fs::read(&path).expect("readable");
        let mut altered = good.clone();
        let middle = altered.len() / 2;
        altered[middle] ^= 1;
        fs::write(&path, altered).expect("own file");
        assert_eq!(verify_log(&python, folder.path(), &[]).status.code(), Some(5), "{name} altered");
        fs::write(&path, good).expect("own file");
    }
}

#[test]
fn the_statement_is_one_to_the_in_toto_library() {
    const TEST: &str = "the_statement_is_one_to_the_in_toto_library";
    let Some(python) = python_with(TEST, "from in_toto_attestation.v1.statement import Statement") else { return };
    let folder = stage();
    let program = "import base64, json, sys\n\
        from google.protobuf import json_format\n\
        import in_toto_attestation.v1.statement_pb2 as pb\n\
        from in_toto_attestation.v1.statement import Statement\n\
        payload = base64.b64decode(json.load(open(sys.argv[1]))['payload'])\n\
        message = pb.Statement()\n\
        json_format.Parse(payload, message)\n\
        statement = Statement.copy_from_pb(message)\n\
        statement.validate()\n\
        print(len(message.subject), message.predicate_type)\n";
    let run = |file: &str| {
        let mut command = Command::new(&python);
        command.current_dir(folder.path()).args(["-c", program, file]).output().expect("python starts")
    };
    let output = run("manifest.json");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "5 urn:isotherm:execution-manifest:v1\n");
    // A statement without its type is none.
    let payload = crate::support::edited_payload(|statement| statement["_type"] = "".into());
    let forged = crate::support::Forged::signed(&payload, &[1]).bytes();
    fs::write(folder.path().join("other.json"), forged).expect("own file");
    assert!(!run("other.json").status.success());
}

fn present(test: &str, program: &str, argument: &str) -> bool {
    let found = Command::new(program).arg(argument).stdin(Stdio::null()).output().is_ok();
    if !found {
        eprintln!("skipped: {test}: {program} does not start");
    }
    found
}

#[test]
fn ssh_keygen_accepts_our_detached_signature_and_refuses_an_altered_message_or_namespace() {
    const TEST: &str = "ssh_keygen_accepts_our_detached_signature_and_refuses_an_altered_message_or_namespace";
    if !present(TEST, "ssh-keygen", "-?") {
        return;
    }
    let folder = tempdir().expect("a folder");
    let key = identity(3);
    let manifest = sealed(&[3]).envelope;
    fs::write(folder.path().join("sig"), ssh::sign(&key, ssh::NAMESPACE, &manifest)).expect("own file");
    let signers = format!("planner@host {}\n", ssh::write_public(key.public()));
    fs::write(folder.path().join("signers"), signers).expect("own file");
    let verify = |message: &[u8], namespace: &str| {
        fs::write(folder.path().join("message"), message).expect("own file");
        let mut command = Command::new("ssh-keygen");
        command.current_dir(folder.path());
        command.args(["-Y", "verify", "-f", "signers", "-I", "planner@host", "-n", namespace, "-s", "sig"]);
        command.stdin(fs::File::open(folder.path().join("message")).expect("own file"));
        command.output().expect("ssh-keygen starts").status.success()
    };
    assert!(verify(&manifest, ssh::NAMESPACE));
    let mut altered = manifest.clone();
    altered[40] ^= 1;
    assert!(!verify(&altered, ssh::NAMESPACE));
    assert!(!verify(&manifest, "file"));
}

#[test]
fn keys_that_ssh_keygen_made_are_taken_and_those_behind_a_passphrase_are_not() {
    const TEST: &str = "keys_that_ssh_keygen_made_are_taken_and_those_behind_a_passphrase_are_not";
    if !present(TEST, "ssh-keygen", "-?") {
        return;
    }
    let folder = tempdir().expect("a folder");
    let make = |name: &str, kind: &str, passphrase: &str| {
        let mut command = Command::new("ssh-keygen");
        command.current_dir(folder.path()).args(["-q", "-t", kind, "-N", passphrase, "-C", "who@where", "-f", name]);
        assert!(command.status().expect("ssh-keygen starts").success());
        folder.path().join(name)
    };
    let plain = make("plain", "ed25519", "");
    let public = fs::read_to_string(plain.with_extension("pub")).expect("readable");
    let public = PublicKey::read(&public).expect("an Ed25519 key");
    let seed = Seed::read(&plain).expect("no passphrase");
    assert_eq!(isotherm_audit::keys::Identity::from_seed(&seed).expect("a key").id(), public.id());
    let locked = Seed::read(&make("locked", "ed25519", "secret words")).expect_err("behind a passphrase");
    assert!(locked.to_string().contains("passphrase"), "{locked}");
    let other = make("other", "ecdsa", "");
    assert!(Seed::read(&other).is_err());
    assert!(PublicKey::read(&fs::read_to_string(other.with_extension("pub")).expect("readable")).is_err());
}

#[test]
fn sigstore_verifies_our_bundle_and_refuses_an_altered_one() {
    const TEST: &str = "sigstore_verifies_our_bundle_and_refuses_an_altered_one";
    let modules = std::env::var_os("ISOTHERM_NODE_MODULES");
    let Some(modules) = modules.filter(|path| Path::new(path).join("@sigstore/verify").is_dir()) else {
        eprintln!("skipped: {TEST}: npm's @sigstore/verify is not there (set ISOTHERM_NODE_MODULES)");
        return;
    };
    let folder = tempdir().expect("a folder");
    let key = identity(1);
    let good = bundle::sigstore(&sealed(&[1]).envelope, key.id()).expect("signed by it");
    let program = r"
        const { readFileSync } = require('fs');
        const { createPublicKey } = require('crypto');
        const { bundleFromJSON } = require('@sigstore/bundle');
        const { Verifier, toSignedEntity } = require('@sigstore/verify');
        const key = createPublicKey(readFileSync('key.pem'));
        const material = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [],
            publicKey: () => ({ publicKey: key, validFor: () => true }) };
        const bundle = bundleFromJSON(JSON.parse(readFileSync('bundle.json')));
        const thresholds = { tlogThreshold: 0, ctlogThreshold: 0, tsaThreshold: 0, timestampThreshold: 0 };
        new Verifier(material, thresholds).verify(toSignedEntity(bundle));
        console.log('verified');";
    fs::write(folder.path().join("key.pem"), key.public().to_pem().expect("encodes")).expect("own file");
    fs::write(folder.path().join("check.cjs"), program).expect("own file");
    let verify = |bytes: &[u8]| {
        fs::write(folder.path().join("bundle.json"), bytes).expect("own file");
        let mut command = Command::new("node");
        command.current_dir(folder.path()).arg("check.cjs").env("NODE_PATH", &modules);
        command.output().expect("node starts")
    };
    let output = verify(&good);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut value: serde_json::Value = serde_json::from_slice(&good).expect("JSON");
    let payload = value["dsseEnvelope"]["payload"].as_str().expect("text").replacen("ey", "eX", 1);
    value["dsseEnvelope"]["payload"] = payload.into();
    assert!(!verify(value.to_string().as_bytes()).status.success());
    assert!(bundle::sigstore(&sealed(&[1]).envelope, identity(2).id()).is_err());
}

#[test]
fn the_verifier_keys_of_a_log_and_a_witness_have_the_form_of_the_note_specification() {
    let key = identity(1);
    for (cosigner, kind) in [(false, 1_u8), (true, 4)] {
        let text = verifier_key(ORIGIN, key.public(), cosigner);
        let parts: Vec<&str> = text.splitn(3, '+').collect();
        assert_eq!((parts[0], parts[1].len()), (ORIGIN, 8));
        let typed = crate::support::decode(parts[2]);
        assert_eq!((typed[0], &typed[1..]), (kind, key.public().bytes().as_slice()));
    }
    assert!(at(NOW).unix_seconds() > 0);
}
