//! Keys on disk.

use crate::support::{identity, trusting};
use isotherm_audit::keys::{IDENTITY_FILE, Identity, KeyError, PublicKey, Seed, TRUSTED_FOLDER, TrustedKeys};
use isotherm_audit::log::{Log, OnLock};
use isotherm_audit::storage;
use std::fs;
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use tempfile::tempdir;

#[cfg(unix)]
fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).expect("it exists").permissions().mode() & 0o7777
}

#[cfg(unix)]
fn set_mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("own file");
}

#[test]
fn first_use_makes_a_key_and_says_so_and_later_use_finds_it() {
    let home = tempdir().expect("a folder");
    let keys = home.path().join("deep/keys");
    let first = Identity::load_or_create(&keys, || Ok(Seed::from_bytes([5; 32]))).expect("made");
    assert!(first.created);
    let again = Identity::load_or_create(&keys, || panic!("no second key is drawn")).expect("found");
    assert!(!again.created);
    assert_eq!(again.identity.id(), first.identity.id());
    assert_eq!(first.identity.id(), identity(5).id());
    let trusted = TrustedKeys::load(&keys, 1).expect("the own key is trusted");
    assert!(trusted.get(first.identity.id()).is_some());
}

#[test]
fn two_drawn_keys_differ() {
    let draw = || Identity::from_seed(&Seed::draw().expect("the system has randomness")).expect("a key").id();
    assert_ne!(draw(), draw());
}

#[test]
fn creating_never_replaces_a_key() {
    let home = tempdir().expect("a folder");
    let keys = home.path().join("keys");
    Identity::create(&keys, &Seed::from_bytes([1; 32])).expect("made");
    assert!(matches!(Identity::create(&keys, &Seed::from_bytes([2; 32])), Err(KeyError::Io { .. })));
    assert_eq!(Identity::load(&keys).expect("still there").id(), identity(1).id());
    fs::write(keys.join(IDENTITY_FILE), "damaged").expect("own file");
    let refused = Identity::load_or_create(&keys, || panic!("a damaged key is not replaced"));
    assert!(matches!(refused, Err(KeyError::NotAPrivateKey { .. })));
}

#[test]
fn processes_that_start_together_agree_on_one_key() {
    let home = tempdir().expect("a folder");
    let keys = home.path().join("keys");
    let ids: Vec<_> = std::thread::scope(|scope| {
        let start = |n: u8| {
            let keys = &keys;
            scope
                .spawn(move || Identity::load_or_create(keys, || Ok(Seed::from_bytes([n; 32]))).expect("made or found"))
        };
        let threads: Vec<_> = (1..=8).map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .map(|loaded| (loaded.identity.id(), loaded.created))
            .collect()
    });
    assert!(ids.iter().all(|(id, _)| *id == ids[0].0));
    assert_eq!(ids.iter().filter(|(_, created)| *created).count(), 1);
}

#[cfg(unix)]
#[test]
fn the_private_key_is_for_its_owner_only_from_the_start() {
    let home = tempdir().expect("a folder");
    let keys = home.path().join("keys");
    Identity::create(&keys, &Seed::from_bytes([1; 32])).expect("made");
    assert_eq!(mode(&keys), 0o700);
    assert_eq!(mode(&keys.join(IDENTITY_FILE)), 0o600);
    assert_eq!(fs::read_dir(&keys).expect("own folder").count(), 2, "nothing unfinished is left");
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_refused_with_the_remedy() {
    let home = tempdir().expect("a folder");
    let keys = home.path().join("keys");
    Identity::create(&keys, &Seed::from_bytes([1; 32])).expect("made");
    for exposed in [0o604, 0o640, 0o644, 0o660, 0o601] {
        set_mode(&keys.join(IDENTITY_FILE), exposed);
        let refused = Identity::load(&keys).expect_err("others can read it");
        assert!(matches!(refused, KeyError::Exposed { mode, .. } if mode == exposed));
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
        assert!(matches!(Identity::load_or_create(&keys, || panic!("not replaced")), Err(KeyError::Exposed { .. })));
    }
    set_mode(&keys.join(IDENTITY_FILE), 0o600);
    set_mode(&keys, 0o770);
    let refused = Identity::load(&keys).expect_err("others can replace it");
    assert!(refused.to_string().contains("chmod 700"), "{refused}");
    set_mode(&keys, 0o700);
    set_mode(&keys.join(TRUSTED_FOLDER), 0o777);
    assert!(matches!(TrustedKeys::load(&keys, 1), Err(KeyError::OpenDirectory { .. })));
    set_mode(&keys.join(TRUSTED_FOLDER), 0o700);
    Identity::load(&keys).expect("mended");
}

#[test]
fn the_secret_is_in_no_debug_output_and_no_error() {
    let secret = [0xa7; 32];
    let seed = Seed::from_bytes(secret);
    let key = Identity::from_seed(&seed).expect("a key");
    let shown = format!("{seed:?} {key:?} {:?} {:#?}", key.public(), trusting(&[1], 1));
    assert!(shown.contains(&key.id().to_string()));
    assert!(!shown.contains("167") && !shown.contains("a7a7"), "{shown}");
    let home = tempdir().expect("a folder");
    let keys = home.path().join("keys");
    Identity::create(&keys, &seed).expect("made");
    let pem = fs::read_to_string(keys.join(IDENTITY_FILE)).expect("own file");
    let body = pem.lines().nth(1).expect("a body").to_owned();
    fs::write(keys.join(IDENTITY_FILE), pem.replace("-----END", "----END")).expect("own file");
    let refused = Identity::load(&keys).expect_err("damaged");
    assert!(!format!("{refused} {refused:?}").contains(&body[20..40]));
}

#[test]
fn keys_of_other_kinds_and_of_small_order_are_refused() {
    // An RSA-like and an empty PEM, a private key where a public one belongs, and the eight points of small order have
    // no business in a set of trusted keys.
    for text in [
        "",
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        assert!(PublicKey::from_pem(text).is_err());
    }
    // SPKI of the neutral element, encoded as 01 00 .. 00.
    let neutral = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n";
    let refused = PublicKey::from_pem(neutral).expect_err("small order");
    assert!(refused.to_string().contains("small order"), "{refused}");
}

#[test]
fn a_public_key_survives_its_pem() {
    let key = identity(3);
    let pem = key.public().to_pem().expect("encodes");
    assert_eq!(PublicKey::from_pem(&pem).expect("decodes").id(), key.id());
}

#[test]
fn the_key_id_is_the_digest_of_the_spki_bytes() {
    // RFC 8410 section 4: a fixed header of twelve bytes, then the key.
    let header = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let key = identity(3);
    let der = [header.as_slice(), &key.public().bytes()].concat();
    assert_eq!(key.id().to_string(), isotherm_core::digest::Digest::of(&der).hex());
}

#[test]
fn thresholds_that_trust_nothing_or_cannot_be_reached_are_refused() {
    let public = |n: u8| identity(n).public().clone();
    assert!(matches!(TrustedKeys::new([public(1)], 0), Err(KeyError::Threshold { .. })));
    assert!(matches!(TrustedKeys::new([], 1), Err(KeyError::Threshold { .. })));
    // The same key twice is one key, so it cannot make a threshold of two.
    assert!(matches!(TrustedKeys::new([public(1), public(1)], 2), Err(KeyError::Threshold { keys: 1, .. })));
    assert!(TrustedKeys::new([public(1), public(2)], 2).is_ok());
}

#[test]
fn a_key_file_that_is_no_key_is_refused_and_not_read_to_its_end() {
    let home = tempdir().expect("a folder");
    let keys = home.path().join("keys");
    Identity::create(&keys, &Seed::from_bytes([1; 32])).expect("made");
    let file = keys.join(IDENTITY_FILE);
    for content in [Vec::new(), vec![0xff; 100], b"-----BEGIN PRIVATE KEY-----\n".to_vec()] {
        fs::write(&file, content).expect("own file");
        assert!(matches!(Identity::load(&keys), Err(KeyError::NotAPrivateKey { .. })));
    }
    fs::write(&file, vec![b'x'; 1 << 20]).expect("own file");
    assert!(matches!(Identity::load(&keys), Err(KeyError::TooLarge { .. })));
    fs::remove_file(&file).expect("own file");
    fs::create_dir(&file).expect("own folder");
    assert!(Identity::load(&keys).is_err());
}

#[cfg(unix)]
#[test]
fn a_folder_that_others_may_write_to_is_refused_with_what_to_do_and_never_made() {
    let home = tempdir().expect("a folder");
    let folder = home.path().join("log");
    storage::private_folder(&folder).expect("made");
    assert_eq!(mode(&folder), 0o700);
    for open in [0o770, 0o702, 0o777, 0o1777] {
        set_mode(&folder, open);
        let refused = storage::private_folder(&folder).expect_err("others write").to_string();
        assert!(refused.contains(&format!("chmod 700 {}", folder.display())), "{refused}");
        let identity = Identity::from_seed(&Seed::from_bytes([1; 32])).expect("any seed is a key");
        let log = Log::open(&folder, "isotherm.local/test", &identity, OnLock::Refuse);
        assert!(log.is_err_and(|error| format!("{error:?}").contains("chmod 700")));
    }
    // To be read by others is no harm to the log.
    set_mode(&folder, 0o755);
    storage::private_folder(&folder).expect("nobody else writes");
    storage::private_file().open(folder.join("a.lock")).expect("made");
    assert_eq!(mode(&folder.join("a.lock")), 0o600);
}
