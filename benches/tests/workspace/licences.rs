//! Every package that any platform would link carries a licence from the list.

use spdx::{Expression, LicenseReq, ParseMode};

use crate::checkout::metadata;
use crate::expect_none;

/// Licences under which code may be linked. An `OR` needs one of them, an `AND` needs all.
const ALLOWED: [&str; 10] = [
    "Apache-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Zlib",
];

/// Packages let in by name: (name, reason).
const EXCEPTIONS: [(&str, &str); 0] = [];

/// Old manifests separate alternatives by a slash; nothing else is read generously.
const MODE: ParseMode = ParseMode {
    allow_slash_as_or_operator: true,
    allow_imprecise_license_names: false,
    allow_postfix_plus_on_gpl: false,
    allow_deprecated: true,
    allow_unknown: false,
};

/// An exception (`WITH LLVM-exception`) only grants more than the licence before it.
fn is_allowed(requirement: &LicenseReq) -> bool {
    let grants_more = requirement.addition.as_ref().is_none_or(
        |addition| matches!(addition, spdx::AdditionItem::Spdx(exception) if exception.name == "LLVM-exception"),
    );
    grants_more && requirement.license.id().is_some_and(|id| ALLOWED.contains(&id.name))
}

/// Why an expression is refused, or `None` when it is fine.
fn refusal(licence: Option<&str>) -> Option<String> {
    let Some(text) = licence else { return Some("states no licence expression".into()) };
    match Expression::parse_mode(text, MODE) {
        Err(error) => Some(format!("states {text:?}, which is no SPDX expression: {}", error.reason)),
        Ok(expression) => (!expression.evaluate(is_allowed)).then(|| format!("is under {text:?}")),
    }
}

#[test]
fn every_resolved_package_is_under_an_allowed_licence() {
    let judge = |package: &crate::checkout::Package| {
        let why = refusal(package.license.as_deref())?;
        let excepted = EXCEPTIONS.iter().any(|(name, _)| *name == package.name);
        (!excepted).then(|| format!("{} {} {why}", package.name, package.version))
    };
    let found: Vec<String> = metadata().packages.iter().filter_map(judge).collect();
    expect_none("Replace the package or turn its feature off; an exception needs a reason beside it:", &found);
}

#[test]
fn every_exception_is_still_needed() {
    let needed =
        |name: &str| metadata().packages.iter().any(|p| p.name == name && refusal(p.license.as_deref()).is_some());
    let stale: Vec<String> =
        EXCEPTIONS.iter().filter(|(name, _)| !needed(name)).map(|(name, _)| name.to_string()).collect();
    expect_none("Remove the exception:", &stale);
}

#[test]
fn expressions_are_judged_by_their_logic() {
    for fine in ["MIT", "MIT/Apache-2.0", "GPL-3.0-only OR MIT", "(MIT OR GPL-2.0-only) AND Unicode-3.0"] {
        assert_eq!(refusal(Some(fine)), None, "{fine}");
    }
    for bad in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "Apache-2.0 WITH Classpath-exception-2.0", "MIT OR", "Free"] {
        assert!(refusal(Some(bad)).is_some(), "{bad}");
    }
    assert!(refusal(None).is_some());
}
