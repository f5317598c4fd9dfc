# Follows the log of `cargo test -- --show-output`: one line for each test binary, and every failure in full.

/^     Running |^   Doc-tests / {
    name = $0
    sub(/ \(.*/, "", name)
    sub(/^ +/, "", name)
    if ($0 ~ /\(/) { binary = $0; sub(/.*\//, "", binary); sub(/-[0-9a-f]+\)$/, "", binary); name = name " of " binary }
}
/^failures:$/ { failing = 1 }
/^test result: / {
    failing = 0
    line = $0
    sub(/^test result: /, "", line)
    print "  " name ": " line
    fflush()
}
failing || /^error/ || /^Caused by:/ || /process didn't exit/ { print; fflush() }
