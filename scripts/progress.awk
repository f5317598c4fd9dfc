# Follows the log of `cargo test -- --show-output`: one line for each test binary, and every failure in full.

/^     Running |^   Doc-tests / {
    name = $0
    sub(/ \(.*/, "", name)
    sub(/^ +(Running )?(unittests )?/, "", name)
    if ($0 ~ /unittests/) {
        crate = $0
        sub(/.*\//, "", crate)
        sub(/-[0-9a-f]+\)$/, "", crate)
    }
    if ($0 ~ /Running/) name = crate ", " name
}
/^successes:$/ { passing = 1 }
/^failures:$/ { passing = 0; failing = 1 }
/^test result: / {
    passing = failing = 0
    line = $0
    sub(/^test result: /, "", line)
    print "  " name ": " line
    fflush()
}
failing || (!passing && (/^error/ || /^Caused by:/ || /process didn't exit/)) { print; fflush() }
