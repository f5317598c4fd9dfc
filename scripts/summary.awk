# Reads the log of `cargo test -- --show-output`; prints the skipped tests by name, then one closing line.
# A test that says "skipped: ..." in its output, and did not fail, counts as skipped and not as passed.

/^     Running |^   Doc-tests / { binary = $0; section = "" }
/^successes:$/ { section = "successes" }
/^failures:$/ { section = "failures" }

/^---- .* stdout ----$/ {
    test = $0
    sub(/^---- /, "", test)
    sub(/ stdout ----$/, "", test)
}

section == "successes" && /^skipped: / {
    if (!((binary, test) in counted)) { counted[binary, test] = 1; skipped++; fromPassed++ }
    if (!($0 in said)) { said[$0] = 1; reasons[++n] = substr($0, 10) }
}

/^test .* \.\.\. ignored/ {
    skipped++
    line = $0
    sub(/^test /, "", line)
    sub(/ \.\.\. ignored,? */, ": ignored: ", line)
    sub(/: ignored: $/, ": ignored", line)
    reasons[++n] = line
}

# test result: ok. 12 passed; 0 failed; 1 ignored; ...
/^test result: / {
    for (i = 1; i < NF; i++) {
        if ($(i + 1) ~ /^passed/) passed += $i
        if ($(i + 1) ~ /^failed/) failed += $i
    }
}

# A test binary that crashed leaves no result line.
/process didn't exit successfully: .*signal:/ { failed++ }

END {
    if (n) print "Skipped tests and why:"
    for (i = 1; i <= n; i++) print "  " reasons[i]
    printf "%d passed, %d failed, %d skipped\n", passed - fromPassed, failed, skipped
}
